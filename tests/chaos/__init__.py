"""Kills everything the service consists of, one thing at a time, and looks whether anything was lost."""
