"""HTTP: one file a resource, and what all of them share (authentication, problems, TLS)."""
