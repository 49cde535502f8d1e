"""Threads that fetch, verify and unpack frames, and what each of them does."""
