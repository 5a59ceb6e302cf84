"""Figures of repeated runs: medians and ratios, printed one a line."""

import statistics
from collections.abc import Sequence


def milliseconds(seconds: Sequence[float]) -> str:
    """Median and range of durations."""
    ordered = [value * 1_000 for value in sorted(seconds)]
    return f"p50 {statistics.median(ordered):.1f} ms ({ordered[0]:.1f} to {ordered[-1]:.1f})"


def show(name: str, value: str, bound: str = "") -> None:
    """One line of a report."""
    print(f"  {name:<58} {value}{'   [aim: ' + bound + ']' if bound else ''}", flush=True)


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)
