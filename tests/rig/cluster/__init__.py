"""An API server, controllers, a node, containers, and moves inside a cluster."""
