"""An API server, controllers, a node and containers, and a move among them."""
