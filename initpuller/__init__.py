"""The puller: moves a library from its agent onto a volume, verified, in one rename."""
