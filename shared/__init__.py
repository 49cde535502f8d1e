"""The agreement of agent and puller: terms, formats, layouts, errors. No HTTP in here."""

__version__ = "0.2.0"
