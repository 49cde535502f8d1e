"""The staging folder: frames unpacked, large files assembled, attributes set."""
