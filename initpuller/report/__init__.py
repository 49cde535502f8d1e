"""Progress of a pull, as people, probes and metrics see it."""
