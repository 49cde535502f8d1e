"""Where the move stands, for a browser and for other programs that watch it."""
