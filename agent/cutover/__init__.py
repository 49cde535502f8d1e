"""A cutover: Plex stopped for a move, started again or kept from starting, and the record of it."""
