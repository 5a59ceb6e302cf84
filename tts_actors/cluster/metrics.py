"""Records metrics with Ray, whose agent on every node exports them for Prometheus."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from tts_actors import metrics

Value = tuple[str, float, tuple[str, ...]]
"""A metric's name, a value, labels."""

PASS_ON_SECONDS = 1.0
"""How long values wait for company before they are passed on."""


class RayRecorder:
    """The :class:`~tts_actors.metrics.Recorder` on ``ray.util.metrics``; a metric is made at its first value."""

    def __init__(self) -> None:
        self._sinks: dict[str, Callable[[float, dict[str, str]], None]] = {}

    def __call__(self, metric: metrics.Metric, value: float, labels: tuple[str, ...]) -> None:
        sink = self._sinks.get(metric.name)
        if sink is None:
            sink = self._sinks[metric.name] = _sink(metric)
        if metric.kind is not metrics.Kind.COUNTER or value > 0:  # Ray refuses to count nothing
            sink(value, dict(zip(metric.labels, labels, strict=True)))


def _sink(metric: metrics.Metric) -> Callable[[float, dict[str, str]], None]:
    if metric.kind is metrics.Kind.COUNTER:
        return Counter(metric.name, metric.description, metric.labels).inc
    if metric.kind is metrics.Kind.GAUGE:
        return Gauge(metric.name, metric.description, metric.labels).set
    return Histogram(metric.name, metric.description, list(metrics.SECONDS), metric.labels).observe


def record_with_ray() -> None:
    """This process hands its metrics to Ray from now on."""
    metrics.record_with(RayRecorder())


class PassedOn:
    """The recorder of a process that does not live for long, a job's actor: its values are recorded by ``keeper``, an
    actor with ``observe``. (Ray's agent goes on exporting every series of every process that there ever was: a hundred
    jobs left six thousand.)
    """

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper
        self._waiting: list[Value] = []

    def __call__(self, metric: metrics.Metric, value: float, labels: tuple[str, ...]) -> None:
        self._waiting.append((metric.name, value, labels))
        if metric.kind is metrics.Kind.COUNTER:  # a job has ended, perhaps: this process may have no second left
            self._send()
        elif len(self._waiting) == 1:
            try:
                asyncio.get_running_loop().call_later(PASS_ON_SECONDS, self._send)
            except RuntimeError:  # a thread without a loop
                self._send()

    def _send(self) -> None:
        values, self._waiting = self._waiting, []
        if values:
            self._keeper.observe.remote(values)


def record_passed_on(values: Sequence[Value]) -> None:
    """Record here what another process has passed on."""
    known = {metric.name: metric for metric in metrics.ALL}
    for name, value, labels in values:
        if name in known:  # an actor of another version may know more
            metrics.record(known[name], value, *labels)
