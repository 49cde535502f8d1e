"""Trees of files: the manifest, member paths, walks, and the reliability of timestamps."""
