"""Who may wait in the queue, how long that may take, and when to come back if it is full.

It must not know HTTP. The store asks it inside the transaction that commits a job, so it performs no I/O there.
"""

import statistics
from collections.abc import Callable

from tts_actors.config import LimitArgs
from tts_actors.errors import Draining, QueueFull, RetryLater
from tts_actors.models import Backlog
from tts_actors.protocols import JobStore

SHORTEST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 120.0
"""Bounds of what a refused caller is told: no sooner than ``Retry-After`` can say, no later than a guess is worth."""

RECENT_JOBS = 32
"""Finished jobs whose run times are looked at."""

LOOK_AGAIN_SECONDS = 5.0
"""How long a median is used: a crowd of refused callers costs one query, not one each."""


DRAINED_SECONDS = 10.0
"""When callers of a drained service may ask again: by then another one, or the next one, may be there."""


def check_accepting(draining: bool) -> None:
    """Raise :class:`Draining` if the service takes no new work."""
    if draining:
        raise Draining("the service is drained: it takes no new work, and keeps what it has accepted", DRAINED_SECONDS)


class Admission:
    """The door of one process. ``now`` gives seconds."""

    def __init__(self, limits: LimitArgs, store: JobStore, now: Callable[[], float]) -> None:
        self._limits = limits
        self._store = store
        self._now = now
        self._bound_ms = 0.0
        self._run_ms: float | None = None
        self._looked_at = float("-inf")
        self._line_ends_at = 0.0

    def wait_ms(self, backlog: Backlog) -> int:
        """The longest wait behind ``backlog``, ms: every job before this one takes as long as it may.

        Raises :class:`QueueFull`, which :meth:`refusal` completes.
        """
        # Jobs about to start count as queued for a moment: as many as may run are never refused.
        bound = self._limits.max_queued_jobs
        if backlog.queued >= bound + self._limits.max_active_jobs:
            self._bound_ms = backlog.run_timeout_ms / backlog.queued
            raise QueueFull(f"{backlog.queued} jobs wait; limits.max_queued_jobs is {bound}", SHORTEST_WAIT_SECONDS)
        return backlog.run_timeout_ms // self._limits.max_active_jobs

    async def refusal(self, full: QueueFull) -> QueueFull:
        """``full`` with the seconds after which there is likely to be a place.

        A place comes free every (median run time of the latest jobs / ``max_active_jobs``); while none has finished,
        the mean bound of the waiting jobs stands for the median. Refused callers stand in a line of their own: each is
        told a place later than the one before, so that they do not all come back for the same one.
        """
        now = self._now()
        place_seconds = await self._typical_run_ms(now) / 1_000 / self._limits.max_active_jobs
        self._line_ends_at = min(max(self._line_ends_at, now) + place_seconds, now + LONGEST_WAIT_SECONDS)
        return QueueFull(full.message, max(SHORTEST_WAIT_SECONDS, self._line_ends_at - now))

    async def _typical_run_ms(self, now: float) -> float:
        if now - self._looked_at >= LOOK_AGAIN_SECONDS:
            self._looked_at = now
            try:
                runs = await self._store.recent_runs_ms(limit=RECENT_JOBS)
            except RetryLater:  # the caller is refused anyway: an older figure will do
                return self._run_ms or self._bound_ms
            self._run_ms = statistics.median(runs) if runs else None
        return self._bound_ms if self._run_ms is None else self._run_ms
