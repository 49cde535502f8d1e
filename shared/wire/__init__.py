"""What agent and puller say to each other: routes and bodies, pairing strings, byte ranges."""
