"""Random faults against whole moves: ``python -m campaign`` (docs/reliability.md)."""
