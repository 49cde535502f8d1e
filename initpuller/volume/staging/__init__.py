"""The staging folder: unpacks frames, assembles large files and sets attributes."""
