"""The wire format of agent and puller: routes and bodies, pairing strings, byte ranges."""
