"""Checks before a pull: the volume, the agent's report, and which results end the pull."""
