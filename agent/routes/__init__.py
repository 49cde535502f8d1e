"""HTTP resources: one file a resource."""
