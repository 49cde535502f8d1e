"""What an earlier snapshot already put on the volume: compared, kept or removed."""
