"""Stand-ins for Plex Media Server, its HTTP API, its unit and its container."""
