"""Checks of the source. ``agent/source_checks.py`` registers them."""
