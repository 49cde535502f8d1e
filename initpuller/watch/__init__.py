"""The sidecar that stays beside Plex."""
