"""Records metrics with Ray, whose agent on every node exports them for Prometheus."""

from collections.abc import Callable

from ray.util.metrics import Counter, Gauge, Histogram

from tts_actors import metrics


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
