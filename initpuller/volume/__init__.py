"""The target volume: it knows no network.

Everything here that reads or writes the volume raises OSError, or the StorageError that reports it.
Docstrings name other errors only.
"""
