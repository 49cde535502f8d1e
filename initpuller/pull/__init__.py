"""A pull: its recipe, its passes, the transfer, and the cutover."""
