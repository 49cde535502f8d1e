"""Processes that fetch, verify and unpack frames: the pool, and the child it starts."""
