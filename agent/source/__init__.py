"""The library on disk: found, opened, read. Nothing here writes to it."""
