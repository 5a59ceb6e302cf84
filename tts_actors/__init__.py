"""Durable long-text speech synthesis on Ray: one named actor per job, many backends."""

__version__ = "0.1.0"
