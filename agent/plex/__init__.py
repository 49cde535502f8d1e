"""Plex on the VM: its folder, its server, its processes, and how it is stopped and started."""
