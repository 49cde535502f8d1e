"""A whole move in one process for the model, and helpers for moves by real programs."""
