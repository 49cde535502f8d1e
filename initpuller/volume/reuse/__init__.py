"""What an earlier snapshot already put on the volume: matched, renamed or removed."""
