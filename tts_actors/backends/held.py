"""The leases that are out: for which backend, for which job, in which process; and when they count as lost.

A plain class of bookkeeping and timers. A lease is lost after its life, and before that when the process that holds it
has not been heard of for long: it died, or its node did. A job's worker is missed sooner, by its job's actor
(:meth:`~tts_actors.backends.pool.BackendPool.forget`); the doors' processes have nobody else who would tell.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from tts_actors.messages import Lease

SILENT_SECONDS = 15.0
"""How long nothing may be heard of a process that holds leases: three times as long as one of its questions is open
(:data:`~tts_actors.backends.pool.WATCH_SECONDS`)."""


class HeldLeases:
    """Leases for ``backends``, each lost after ``lease_seconds``; ``on_lost`` is called when some were."""

    def __init__(self, backends: Iterable[str], lease_seconds: float, on_lost: Callable[[], None]) -> None:
        self._lease_seconds = lease_seconds
        self._on_lost = on_lost
        self._timers: dict[str, dict[str, asyncio.TimerHandle]] = {name: {} for name in backends}
        self._jobs: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._processes: dict[str, str] = {}
        self._heard: dict[str, asyncio.TimerHandle] = {}

    def add(self, lease: Lease, *, job_id: str | None = None, process: str | None = None) -> None:
        """The lease is out; one that is out already, or of a backend that there is not, changes nothing."""
        timers = self._timers.get(lease.backend)
        if timers is None or lease.token in timers:
            return
        loop = asyncio.get_running_loop()
        timers[lease.token] = loop.call_later(self._lease_seconds, self._lose, lease.backend, [lease.token])
        if job_id is not None:
            self._jobs[lease.token] = job_id
            self._counts[job_id] += 1
        if process is not None:
            self._processes[lease.token] = process

    def drop(self, backend: str, token: str) -> None:
        """The lease is back, or lost; an unknown one changes nothing."""
        timer = self._timers[backend].pop(token, None)
        if timer is not None:
            timer.cancel()
        self._processes.pop(token, None)
        job_id = self._jobs.pop(token, None)
        if job_id is not None:
            self._counts[job_id] -= 1
            if not self._counts[job_id]:
                del self._counts[job_id]

    def drop_job(self, job_id: str) -> None:
        """All leases of this job are back."""
        for backend, timers in self._timers.items():
            for token in [token for token in timers if self._jobs.get(token) == job_id]:
                self.drop(backend, token)

    def hear(self, process: str) -> None:
        """The process lives."""
        if (timer := self._heard.pop(process, None)) is not None:
            timer.cancel()
        self._heard[process] = asyncio.get_running_loop().call_later(SILENT_SECONDS, self._miss, process)

    def at(self, backend: str) -> int:
        """How many are out for this backend."""
        return len(self._timers[backend])

    def of(self, job_id: str) -> int:
        """How many this job has."""
        return self._counts[job_id]

    def counts(self) -> dict[str, int]:
        """How many are out, per backend."""
        return {name: len(timers) for name, timers in self._timers.items()}

    def _miss(self, process: str) -> None:
        self._heard.pop(process, None)
        for backend, timers in self._timers.items():
            self._lose(backend, [token for token in timers if self._processes.get(token) == process])

    def _lose(self, backend: str, tokens: list[str]) -> None:
        for token in tokens:
            self.drop(backend, token)
        if tokens:
            self._on_lost()
