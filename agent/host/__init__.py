"""What the agent has to do with the machine it runs on: Plex's folder, systemd."""
