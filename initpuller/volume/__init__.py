"""The target volume: what lies on it, and how it gets there safely. Knows nothing of networks."""
