"""Clients that download the library as an archive."""
