"""The cluster side of a move, written for one library: values, manifests and what to do."""
