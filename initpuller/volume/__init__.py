"""The target volume: its records, its state, and its limits. It knows nothing of networks."""
