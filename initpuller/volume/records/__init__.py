"""The puller's own files on the volume: their names, the lock, state, journal and receipt."""
