"""The Kubernetes API: Events, status and the termination message. Nothing else knows Kubernetes."""
