"""Lying agents, broken networks, attackers, and harmful content."""
