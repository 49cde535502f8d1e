"""The progress of the move, for a browser and for other programs that watch it."""
