"""Frames and their content: tar headers, the frame plan, codecs, digests, the manifest file."""
