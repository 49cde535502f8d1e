"""Facts about Plex: its folders, versions, preferences and databases."""
