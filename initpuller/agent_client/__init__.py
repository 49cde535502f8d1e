"""The client of the agent; it knows nothing about volumes."""
