"""The agent: reads the library on the VM and serves it, frame by frame, to every paired client."""
