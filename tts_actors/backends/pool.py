"""Who may call which backend now: leases under per-backend limits, fair between jobs.

A plain asyncio class without I/O; it runs as one actor, so that the limits hold over all jobs and nodes. A lease has a
time to live: if the worker that holds it dies, the permission returns by itself.
"""

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tts_actors.models import Attempt, Lease

MAX_WAIT_SECONDS = 20.0
"""How long one request for leases is kept open; the asker asks again (a dead asker is forgotten that way)."""


@dataclass(slots=True)
class _Waiter:
    wanted: int
    usable: frozenset[str]
    avoid: frozenset[str]
    future: asyncio.Future[list[Lease]]
    granted: list[Lease] = field(default_factory=list)


class BackendPool:
    """Hands out leases. ``limits`` is calls at once per backend, ``lease_seconds`` the life of a lease."""

    def __init__(self, limits: Mapping[str, int], lease_seconds: float) -> None:
        self._limits = dict(limits)
        self._lease_seconds = lease_seconds
        self._tokens = itertools.count(1)
        self._held: dict[str, dict[str, asyncio.TimerHandle]] = {name: {} for name in limits}
        self._waiting: OrderedDict[str, deque[_Waiter]] = OrderedDict()

    async def acquire(self, job_id: str, usable: Collection[str], avoid: Collection[str], wanted: int) -> list[Lease]:
        """Between one and ``wanted`` leases for backends in ``usable``; empty if none came free in time.

        ``avoid`` names backends to be used only if no other is usable at all.
        """
        loop = asyncio.get_running_loop()
        preferred = frozenset(usable) - frozenset(avoid) or frozenset(usable)
        waiter = _Waiter(wanted, preferred, frozenset(avoid), loop.create_future())
        self._waiting.setdefault(job_id, deque()).append(waiter)
        self._grant()
        try:
            return await asyncio.wait_for(asyncio.shield(waiter.future), MAX_WAIT_SECONDS)
        except TimeoutError:
            # Granted in the very moment of giving up: then there is something to return after all.
            return waiter.granted if waiter.future.done() else []
        except asyncio.CancelledError:
            self._take_back(waiter.granted)
            self._withdraw(job_id, waiter)
            self._grant()
            raise
        finally:
            self._withdraw(job_id, waiter)

    async def release(self, reports: Sequence[tuple[str, Attempt]]) -> None:
        """Give leases back by token, each with how its call went; unknown tokens have run out before."""
        for token, attempt in reports:
            timer = self._held.get(attempt.backend, {}).pop(token, None)
            if timer is not None:
                timer.cancel()
        self._grant()

    async def in_flight(self) -> dict[str, int]:
        """Leases out, per backend."""
        return {name: len(leases) for name, leases in self._held.items()}

    def _grant(self) -> None:
        """One lease a job in turn, until nothing fits: a long job cannot starve a short one."""
        progress = True
        served: list[tuple[str, _Waiter]] = []
        while progress and self._waiting:
            progress = False
            for job_id in list(self._waiting):
                waiter = self._waiting[job_id][0]
                backend = self._least_loaded(waiter.usable)
                if backend is None:
                    continue
                progress = True
                waiter.granted.append(self._lease(backend))
                if len(waiter.granted) == 1:
                    served.append((job_id, waiter))
                self._waiting.move_to_end(job_id)
                if len(waiter.granted) == waiter.wanted:
                    self._withdraw(job_id, waiter)
        for job_id, waiter in served:
            if len(waiter.granted) < waiter.wanted:
                self._withdraw(job_id, waiter)
            if waiter.future.done():  # the asker is gone
                self._take_back(waiter.granted)
            else:
                waiter.future.set_result(waiter.granted)

    def _least_loaded(self, usable: frozenset[str]) -> str | None:
        free = [
            (len(self._held[name]) / self._limits[name], name)
            for name in usable
            if name in self._limits and len(self._held[name]) < self._limits[name]
        ]
        return min(free)[1] if free else None

    def _lease(self, backend: str) -> Lease:
        token = f"{next(self._tokens)}"
        loop = asyncio.get_running_loop()
        self._held[backend][token] = loop.call_later(self._lease_seconds, self._expire, backend, token)
        return Lease(token, backend)

    def _expire(self, backend: str, token: str) -> None:
        if self._held[backend].pop(token, None) is not None:
            self._grant()

    def _take_back(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            timer = self._held[lease.backend].pop(lease.token, None)
            if timer is not None:
                timer.cancel()

    def _withdraw(self, job_id: str, waiter: _Waiter) -> None:
        queue = self._waiting.get(job_id)
        if queue is None:
            return
        if waiter in queue:
            queue.remove(waiter)
        if not queue:
            del self._waiting[job_id]
