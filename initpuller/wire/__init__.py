"""The way to the agent. Knows nothing of volumes."""
