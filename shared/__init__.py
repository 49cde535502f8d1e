"""The agreement of agent and puller: terms, formats, layouts, errors. No HTTP in here."""

from importlib.metadata import version

__version__ = version("plexodus")
