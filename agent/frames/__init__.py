"""Frames of a snapshot: built from the source files, encoded, cached, and indexed."""
