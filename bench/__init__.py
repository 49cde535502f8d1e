"""Libraries to move, the demonstration, and measurements. Not part of what is installed."""
