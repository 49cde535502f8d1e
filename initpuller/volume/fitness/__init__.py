"""Whether a volume can hold a library exactly: what it needs, and what a probe of it shows."""
