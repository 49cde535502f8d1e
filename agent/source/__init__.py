"""Read access to the library on disk. Nothing here writes to it."""
