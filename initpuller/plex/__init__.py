"""What is known, and asked, of the Plex that will run on the volume."""
