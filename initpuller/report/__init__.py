"""How people and programs see where a pull stands."""
