"""The client of the agent. It knows nothing of volumes."""
