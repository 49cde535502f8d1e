"""The library as it lies on disk: scanned, described, read. Nothing here writes to it."""
