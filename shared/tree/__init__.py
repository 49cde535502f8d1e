"""Trees of files: the manifest, member paths, walks, and times that can be trusted."""
