"""The Plex that will run on the volume: its files before it starts, its API afterwards."""
