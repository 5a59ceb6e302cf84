"""Measurements: every figure in the docs comes from one of these. ``python -m benchmarks [NAME ...]``."""
