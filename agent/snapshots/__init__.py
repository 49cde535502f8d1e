"""Snapshots of the library: scanned, kept in the state folder, and compared with each other."""
