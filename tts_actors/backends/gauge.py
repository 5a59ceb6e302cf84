"""What the pool has learnt of one backend: how many calls it bears, whether it answers at all, how long it takes."""

import statistics
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tts_actors.models import Attempt

FAILURES_TO_OPEN = 5
"""Failures in a row after which a backend gets no more calls for a while."""

OPEN_SECONDS = 2.0
"""The first while; it doubles with every failed probe up to ``LONGEST_OPEN_SECONDS``."""

LONGEST_OPEN_SECONDS = 30.0

DECREASE = 0.7
"""What is left of the limit after a sign of overload (multiplicative decrease; an ok adds 1 / limit)."""

REMEMBERED_CALLS = 200
"""Latest good calls that the quantiles are taken from."""

RETRIES_PER_SECOND = 2.0
"""Retries that a backend is sent in any case: with a budget from successes alone, a dead one could never come back."""

MOST_RETRIES = 20.0
"""Unused retry budget is kept up to this."""

OVERLOAD_STATUSES = frozenset({429, 503})
"""Answers that mean: too much at once."""

BACKENDS_OWN_FAULTS = frozenset({401, 402, 403, 408, 429})
"""Answers that the next call will get as well, whatever its text: a key that has expired, an empty account, a server
that is too busy."""

NO_VERDICT = frozenset({"cancelled", "unused"})
"""Outcomes that say nothing about the backend."""


class Breaker(StrEnum):
    """States of a circuit breaker (Nygard, "Release It!")."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BackendFigures:
    """One backend as an operator sees it. Times in milliseconds, None before the first good call."""

    name: str
    healthy: bool
    breaker: str
    limit: int
    in_flight: int
    p50_ms: int | None
    p95_ms: int | None
    errors: dict[str, int]


class Gauge:
    """The memory of one backend. ``lowest`` and ``highest`` bound the calls at once.

    The limit adapts by AIMD: time-outs, 429 and 503 lower it, at most once per call's length, since the calls that were
    under way together fail together; good calls raise it slowly.
    """

    def __init__(
        self,
        name: str,
        *,
        lowest: int,
        highest: int,
        budget_ratio: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._lowest, self._highest = lowest, highest
        self._limit = float(highest)
        self._budget_ratio = budget_ratio
        self._now = now
        self._lowered_at = float("-inf")
        self._failures = 0
        self._open_until: float | None = None
        self._open_seconds = OPEN_SECONDS
        self._retries = MOST_RETRIES
        self._retries_at = now()
        self._elapsed_ms: deque[int] = deque(maxlen=REMEMBERED_CALLS)
        self._errors: Counter[str] = Counter()

    @property
    def limit(self) -> int:
        """Calls at once at present; one while the backend is being probed."""
        return int(self._limit)

    @property
    def breaker(self) -> Breaker:
        """Open for a while after failures in a row, then half open: one call decides."""
        if self._open_until is None:
            return Breaker.CLOSED
        return Breaker.OPEN if self._now() < self._open_until else Breaker.HALF_OPEN

    def retry_allowed(self) -> bool:
        """Whether the shared budget of this backend has a retry left; :meth:`granted` spends it."""
        now = self._now()
        self._retries = min(MOST_RETRIES, self._retries + (now - self._retries_at) * RETRIES_PER_SECOND)
        self._retries_at = now
        return self._retries > 1 - 1e-6  # tenths add up to a little less than they should

    def granted(self, *, retry: bool) -> None:
        """A call is about to be made: first calls earn retries, retries spend them."""
        self._retries = self._retries - 1 if retry else min(MOST_RETRIES, self._retries + self._budget_ratio)

    def learn(self, attempt: Attempt) -> None:
        """Take in how a call went."""
        if attempt.outcome in NO_VERDICT:
            return
        if attempt.outcome == "ok":
            self._failures, self._open_until, self._open_seconds = 0, None, OPEN_SECONDS
            self._limit = min(float(self._highest), self._limit + 1 / self._limit)
            self._elapsed_ms.append(attempt.elapsed_ms)
            return
        self._errors[_kind(attempt)] += 1
        if _is_the_callers_fault(attempt):
            return
        if attempt.outcome == "timeout" or attempt.status in OVERLOAD_STATUSES:
            self._lower(attempt)
        self._failures += 1
        if self.breaker is Breaker.HALF_OPEN:
            self._open_seconds = min(LONGEST_OPEN_SECONDS, 2 * self._open_seconds)
            self._open_until = self._now() + self._open_seconds
        elif self._failures >= FAILURES_TO_OPEN and self._open_until is None:
            self._open_until = self._now() + self._open_seconds

    def _lower(self, attempt: Attempt) -> None:
        now = self._now()
        if now - attempt.elapsed_ms / 1_000 < self._lowered_at:
            return  # it began before the limit was lowered: no news
        self._lowered_at = now
        self._limit = max(float(self._lowest), self._limit * DECREASE)

    def figures(self, in_flight: int) -> BackendFigures:
        """The figures of the moment."""
        ordered = sorted(self._elapsed_ms)
        return BackendFigures(
            name=self.name,
            healthy=self.breaker is Breaker.CLOSED,
            breaker=self.breaker.value,
            limit=self.limit,
            in_flight=in_flight,
            p50_ms=round(statistics.median(ordered)) if ordered else None,
            p95_ms=ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)] if ordered else None,
            errors=dict(self._errors),
        )


def _kind(attempt: Attempt) -> str:
    return f"status_{attempt.status}" if attempt.outcome == "status" and attempt.status else attempt.outcome


def _is_the_callers_fault(attempt: Attempt) -> bool:
    """A refusal of this one text or voice, which says nothing about the next."""
    status = attempt.status
    return (
        attempt.outcome == "status" and status is not None and 400 <= status < 500 and status not in BACKENDS_OWN_FAULTS
    )
