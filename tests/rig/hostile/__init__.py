"""Agents that lie, networks that break, attackers, and content that is meant to harm."""
