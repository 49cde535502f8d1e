"""The machine that the agent runs on: systemd, addresses, the state folder, the migration log."""
