"""What is measured: every metric's name, kind, labels, and the functions that record them.

Nothing is recorded until a process hands in a :class:`Recorder` (``cluster/metrics.py`` has Ray's). Labels name
backends, outcomes, states and operations: never a job, a tenant or a text. Durations are seconds.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 75.0)
"""Upper bounds of all histograms: from a read of SQLite to the longest attempt."""


class Kind(StrEnum):
    """What a metric does: grow, stand for a present value, or sort durations into buckets."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Ray exports it as ``ray_`` + name; counters get ``_total``, histograms ``_bucket`` and so on."""

    name: str
    kind: Kind
    description: str
    labels: tuple[str, ...] = ()


JOBS_ACCEPTED = Metric("tts_jobs_accepted", Kind.COUNTER, "Jobs committed", ("priority",))
JOBS_ENDED = Metric("tts_jobs_ended", Kind.COUNTER, "Jobs that ended, by state", ("state",))
JOBS_RECOVERED = Metric("tts_jobs_recovered", Kind.COUNTER, "Jobs found without an actor and taken up again")
JOBS_ACTIVE = Metric("tts_jobs_active", Kind.GAUGE, "Jobs with an actor at work")
JOBS_QUEUED = Metric("tts_jobs_queued", Kind.GAUGE, "Jobs waiting, at most limits.max_active_jobs + 1 are counted")
SPARES = Metric("tts_spare_actors", Kind.GAUGE, "Actors that wait for a job")
FIRST_AUDIO = Metric("tts_first_audio_seconds", Kind.HISTOGRAM, "From acceptance to the first clip at the job's actor")
ATTEMPT = Metric(
    "tts_attempt_seconds", Kind.HISTOGRAM, "Backend calls with the check of the take", ("backend", "outcome")
)
RETRIES = Metric("tts_retries", Kind.COUNTER, "Attempts after a chunk's first", ("backend",))
HEDGES = Metric("tts_hedges", Kind.COUNTER, "Second calls because a first one was slow", ("backend",))
CHUNK = Metric(
    "tts_chunk_seconds",
    Kind.HISTOGRAM,
    "Chunks from their turn to the stored clip or the last failure, waits and repeats included, by the last backend",
    ("backend", "outcome"),
)
LEASE_WAIT = Metric("tts_lease_wait_seconds", Kind.HISTOGRAM, "Waiting for permission to call a backend")
BACKEND_CALLS = Metric("tts_backend_calls", Kind.GAUGE, "Leases held", ("backend",))
BACKEND_LIMIT = Metric("tts_backend_limit", Kind.GAUGE, "Calls at once that a backend is sent at present", ("backend",))
BREAKER = Metric("tts_backend_breaker", Kind.GAUGE, "0 closed, 1 half open (one call decides), 2 open", ("backend",))
STORE = Metric("tts_store_seconds", Kind.HISTOGRAM, "Operations of the job store and the clip store", ("operation",))

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


class Recorder(Protocol):
    """Takes values; must be quick and must not raise."""

    def __call__(self, metric: Metric, value: float, labels: tuple[str, ...]) -> None: ...


def _discard(metric: Metric, value: float, labels: tuple[str, ...]) -> None:
    """Until somebody wants to know."""


_recorder: Recorder = _discard


def record_with(recorder: Recorder) -> None:
    """From now on this process records with ``recorder``."""
    global _recorder
    _recorder = recorder


def record(metric: Metric, value: float, *labels: str) -> None:
    """Add to a counter, set a gauge, observe a duration; ``labels`` in the metric's order."""
    _recorder(metric, value, labels)


@contextmanager
def timed(metric: Metric, *labels: str) -> Iterator[None]:
    """Observe how long the block takes, also if it raises."""
    started = time.perf_counter()
    try:
        yield
    finally:
        _recorder(metric, time.perf_counter() - started, labels)
