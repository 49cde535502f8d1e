"""Frames and their bytes: tar headers, the frame plan, codecs, digests, the manifest file."""
