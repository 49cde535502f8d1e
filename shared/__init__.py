"""What agent and puller both agree on: words, formats, layouts, errors. No HTTP in here."""

from importlib.metadata import version

__version__ = version("plexodus")
