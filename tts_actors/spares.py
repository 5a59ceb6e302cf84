"""Job actors that are started ahead, each under a fresh job id: a job that takes one need not wait for its start.

It knows no jobs: whether any run, and whether actors may be started at all, it asks the directory.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Protocol

import structlog

from tts_actors.errors import DirectoryUnavailable
from tts_actors.logs import place_of
from tts_actors.protocols import JobHandle, JobStore, Spawner

HOLD_SECONDS = 40.0
"""How long a place to run is held for an id that was handed out: a little longer than the id is used."""

RESERVATION_SECONDS = 60.0
"""After this long an id that was handed out and never committed goes back to the spares."""

REFILL_PAUSE_SECONDS = 1.0
"""Spares are not refilled before this pause: an actor's start costs half a CPU second, which the job that has just
taken one needs more."""

REFILL_PATIENCE_SECONDS = 60.0
"""How long a refill waits for a moment without running jobs while a warm actor is left for the next job."""

REFILL_URGENCY_SECONDS = 1.0
"""The same when none is left: the next job would wait a second or two for its actor. (At 5 s jobs of three chunks, one
every three seconds beside a job of 5,000, mostly did: 2 s later than alone at the median.)"""

log = structlog.get_logger()


def new_job_id() -> str:
    """A fresh job id: 96 random bits, safe in URLs, file names and actor names."""
    return f"job-{secrets.token_hex(12)}"


class Load(Protocol):
    """What the directory is doing."""

    @property
    def busy(self) -> bool:
        """Jobs run."""

    @property
    def paused(self) -> bool:
        """No actor may be started."""


class Spares:
    """At most ``count`` warm actors that wait, and those whose id was handed out and whose job has not come yet."""

    def __init__(self, spawner: Spawner, count: int, load: Load, now: Callable[[], float]) -> None:
        self._spawner = spawner
        self._count = count
        self._load = load
        self._now = now
        self._waiting: dict[str, JobHandle] = {}
        self._reserved: dict[str, tuple[JobHandle, float]] = {}
        self._wanted = asyncio.Event()
        self.warm = count == 0
        """One has been up, so the next starts quickly."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._reserved

    @property
    def reserved(self) -> int:
        """Ids that were handed out."""
        return len(self._reserved)

    @property
    def held(self) -> int:
        """Those of them for which a place to run is held."""
        now = self._now()
        return sum(now - since < HOLD_SECONDS for _, since in self._reserved.values())

    def reserve(self) -> str:
        """Hand the id of a waiting one out; there must be one."""
        job_id = next(iter(self._waiting))
        self._reserved[job_id] = (self._waiting.pop(job_id), self._now())
        self.refill()
        return job_id

    def take(self, job_id: str) -> JobHandle | None:
        """The actor that waits for this very job, if one does."""
        handle, _ = self._reserved.pop(job_id, (None, 0.0))
        return handle

    async def take_back(self, store: JobStore) -> None:
        """Ids that were handed out long ago and never committed may be handed out again."""
        for job_id, (handle, since) in list(self._reserved.items()):
            overdue = self._now() - since > RESERVATION_SECONDS
            if overdue and await store.get_job(job_id) is None and job_id in self._reserved:
                del self._reserved[job_id]
                self._waiting[job_id] = handle

    async def check(self) -> None:
        """End those that do not answer: they may be where another actor has just fallen silent."""
        waiting = dict(self._waiting)
        answers = await asyncio.gather(*(handle.check() for handle in waiting.values()), return_exceptions=True)
        for (job_id, handle), answer in zip(waiting.items(), answers, strict=True):
            if isinstance(answer, DirectoryUnavailable) and self._waiting.get(job_id) is handle:
                log.warning("spare_silent", job_id=job_id)
                del self._waiting[job_id]
                handle.give_up()
        self.refill()

    def refill(self) -> None:
        """Have missing ones started, soon."""
        self._wanted.set()

    async def keep(self) -> None:
        """Start missing ones whenever :meth:`refill` asks for it, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while len(self._waiting) < self._count and not self._load.paused:
                if self.warm:
                    await self._quiet()
                job_id = new_job_id()
                try:
                    self._waiting[job_id] = await self._spawner.spawn(job_id, rehearse=not self._load.busy)
                    self.warm = True
                except Exception as error:  # noqa: BLE001 - the boundary of a spare: the next one may come up
                    log.warning("spare_not_started", kind=type(error).__name__, place=place_of(error))
                    await asyncio.sleep(REFILL_PAUSE_SECONDS)

    async def _quiet(self) -> None:
        """Wait for a good moment to start an actor, but not for ever: under load there is none."""
        since = self._now()
        await asyncio.sleep(REFILL_PAUSE_SECONDS)
        while self._load.busy and self._now() < since + self._patience():  # noqa: ASYNC110 - a poll is all it is worth
            await asyncio.sleep(0.1)

    def _patience(self) -> float:
        return REFILL_PATIENCE_SECONDS if self._waiting or self._reserved else REFILL_URGENCY_SECONDS
