"""Reuse of an earlier snapshot's content on the volume: compared, kept or removed."""
