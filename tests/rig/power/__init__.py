"""A disk that forgets what was not flushed when its power is cut."""
