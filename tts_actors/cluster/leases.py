"""A worker's side of the backend pool: many small requests become few calls."""

import asyncio
import contextlib
import random
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tts_actors.backends.pool import incarnation_of
from tts_actors.cluster.calls import answer
from tts_actors.cluster.names import AT_THE_DOOR
from tts_actors.errors import DirectoryUnavailable, PoolRestarted
from tts_actors.messages import Lease, LeaseReport
from tts_actors.models import Attempt, Priority

FALLBACK_CALLS = 2
"""Calls at once per process, besides those on leases, once the pool has been away for long: fail safe, not open."""

PATIENCE_SECONDS = 10.0
"""How long a process makes do with the leases that it holds while the pool is away. A killed pool is back in a few
seconds, and no limit is exceeded meanwhile."""

LOOK_AGAIN_SECONDS = 0.1
"""How often a pool that is away is looked for."""

WATCH_AFTER_SECONDS = 0.5
"""Leases held for longer are told to a pool that was restarted also if nobody here asks it for more. (Before, asking is
enough: most slices of short jobs never need the call.)"""

REUSE_SECONDS = 5.0
"""A lease passes from call to call inside a process for this long, and up to twice as long by chance, before it goes
back to the pool. Before that if the pool answers with nothing (others have fewer, or the backend may have fewer calls)
or a repeated call waits here. Without it, calls that end together start together after a round trip to the pool, in
waves (measured: 2,000 chunks of 200 ms, 64 in flight, took 1.35 times the ideal), and a third of a chunk's CPU in the
pool is for leases that come back to be asked for anew (measured at 0.5 s)."""

REPORT_SECONDS = 0.1
"""How long the news of calls whose leases were passed on may wait: the pool learns from it, nobody waits for it."""

SETTLE_SECONDS = 2.0
"""How long a worker waits at its end for the answer to a question that it has taken back."""

IDLE_SECONDS = 2.0
"""How long a door keeps an idle lease for the next single call, which then needs no round trip."""

KEPT_SECONDS = 10.0
"""A lease older than this is not kept any more: a call on it must end before the pool counts the lease as lost, which
is 15 s after the longest timeout."""

IDLE_SHARE = 8
"""Of so many calls that a backend takes at once one may be kept as an idle lease: none of a small backend."""

_Kind = tuple[str, frozenset[str], frozenset[str], Priority]
"""Who asks (a job, or a door for it), usable backends, avoided ones, priority."""


@dataclass(slots=True)
class _Line:
    """Those who wait for the same kind of lease; one call to the pool is open for all of them."""

    waiting: deque[asyncio.Future[Lease]] = field(default_factory=deque)
    asking: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Idle:
    """A lease that waits for the next call; ``timer`` gives it back."""

    lease: Lease
    timer: asyncio.TimerHandle


class RemoteLeases:
    """The :class:`~tts_actors.protocols.LeaseSource` backed by the pool actor.

    Of each backend in ``kept``, which doors have, so many idle leases are kept for :data:`IDLE_SECONDS` each.
    ``find_pool`` is asked for the pool when the one at hand is gone: it dies with the directory, whose next incarnation
    makes another.
    """

    def __init__(
        self, pool: Any, kept: Mapping[str, int] | None = None, find_pool: Callable[[], Awaitable[Any]] | None = None
    ) -> None:
        self._pool = pool
        self._process = secrets.token_hex(8)
        self._find_pool = find_pool
        self._kept = kept or {}
        self._place = "" if kept is None else AT_THE_DOOR
        self._idle: dict[str, list[_Idle]] = {}
        self._granted_at: dict[str, float] = {}
        self._lines: dict[_Kind, _Line] = {}
        self._held: dict[str, Lease] = {}
        self._known: str | None = None
        self._reusable_until: dict[str, float] = {}
        self._reports: list[LeaseReport] = []
        self._reporting: tuple[float, asyncio.TimerHandle] | None = None
        self._away_since: float | None = None
        self._own: set[str] = set()
        self._watching: asyncio.Task[None] | None = None

    async def acquire(
        self, job_id: str, *, usable: Collection[str], avoid: Collection[str], priority: Priority
    ) -> Lease:
        if not avoid and (idle := self._take_idle(usable)) is not None:
            return idle
        key = (self._place + job_id, frozenset(usable), frozenset(avoid), priority)
        line = self._lines.setdefault(key, _Line())
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        line.waiting.append(future)
        if line.asking is None:
            line.asking = asyncio.create_task(self._ask(key, line))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # handed out in the very moment of giving up
                self._discard(future.result())
            raise

    def release(self, lease: Lease, attempt: Attempt) -> None:
        if attempt.outcome == "ok" and self._may_pass_on(lease):
            line = self._line_for(lease.backend)
            if line is not None:
                self._tell(LeaseReport(lease.token, attempt, returned=False), REPORT_SECONDS)
                self._hand_out(lease, line)
                return
        if attempt.outcome == "ok" and self._keep(lease):
            self._tell(LeaseReport(lease.token, attempt, returned=False), REPORT_SECONDS)
            return
        self._give_back(lease, attempt)

    async def settle(self) -> None:
        """Before the event loop stands still: take open questions back, so that nothing is granted to nobody.

        (A job that has all it needs has often asked for more. What it gave back at its end was granted to itself again,
        and lost for a lease's life: the next jobs went slowly or stood still for 90 s.)
        """
        asking = [line.asking for line in self._lines.values() if line.asking is not None]
        if asking:
            for job_id in {key[0] for key in self._lines}:
                self._pool.withdraw.remote(job_id)
            await asyncio.wait(asking, timeout=SETTLE_SECONDS)
        if self._reporting is not None:
            self._reporting[1].cancel()
            self._report()

    def _may_pass_on(self, lease: Lease) -> bool:
        """For a moment; while the pool is away, for as long as it would not count the lease as lost."""
        now = time.monotonic()
        if self._away_since is not None and lease.token not in self._own:
            return now < self._granted_at[lease.token] + KEPT_SECONDS
        return now < self._reusable_until[lease.token] and not self._repeat_waits(lease.backend)

    def _repeat_waits(self, backend: str) -> bool:
        """Whether somebody here waits to repeat a call, for which the pool has a budget, and may be sent there."""
        return any(avoid and line.waiting and backend in usable for (_, usable, avoid, _), line in self._lines.items())

    def _keep(self, lease: Lease) -> bool:
        """Hold on to a lease; False if it must go back, as it does while anybody here waits for the pool."""
        if self._lines:
            return False
        age = time.monotonic() - self._granted_at[lease.token]
        idle = self._idle.setdefault(lease.backend, [])
        if len(idle) >= self._kept.get(lease.backend, 0) or age > KEPT_SECONDS - IDLE_SECONDS:
            return False
        timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._drop_idle, lease)
        idle.append(_Idle(lease, timer))
        return True

    def _take_idle(self, usable: Collection[str]) -> Lease | None:
        """A kept lease of a usable backend."""
        for backend in usable:
            if idle := self._idle.get(backend):
                latest = idle.pop()  # so that what is not needed grows old and goes back
                latest.timer.cancel()
                return latest.lease
        return None

    def _drop_idle(self, lease: Lease) -> None:
        idle = self._idle[lease.backend]
        idle[:] = [other for other in idle if other.lease is not lease]
        self._discard(lease)

    def _line_for(self, backend: str) -> _Line | None:
        """Somebody in this process who waits for just such a lease."""
        for (_, usable, avoid, _), line in self._lines.items():
            if line.waiting and not avoid and backend in usable:
                return line
        return None

    def _give_back(self, lease: Lease, attempt: Attempt) -> None:
        self._held.pop(lease.token, None)
        self._own.discard(lease.token)
        self._reusable_until.pop(lease.token, None)
        self._granted_at.pop(lease.token, None)
        # Calls that end in the same turn of the event loop are reported together.
        self._tell(LeaseReport(lease.token, attempt, returned=True), 0.0)

    def _tell(self, report: LeaseReport, within_seconds: float) -> None:
        self._reports.append(report)
        loop = asyncio.get_running_loop()
        due = loop.time() + within_seconds
        # (The time is kept beside the timer: uvloop's has no ``when`` if it is due at once.)
        if self._reporting is None or self._reporting[0] > due:
            if self._reporting is not None:
                self._reporting[1].cancel()
            self._reporting = due, loop.call_at(due, self._report)

    def _report(self) -> None:
        self._reporting = None
        reports, self._reports = self._reports, []
        self._pool.release.remote(reports)

    async def _ask(self, key: _Kind, line: _Line) -> None:
        await asyncio.sleep(0)  # let everybody who asks in this turn line up
        while line.waiting:
            try:
                leases = await self._asked(key, len(line.waiting))
            except PoolRestarted:
                await self._report_held()
                continue
            except DirectoryUnavailable:
                leases = await self._without_pool(key)
            now = time.monotonic()
            for lease in leases:
                self._held[lease.token] = lease
                self._granted_at[lease.token] = now
                share = 0.0 if lease.token in self._own else 1 + random.random()  # noqa: S311 - spread
                self._reusable_until[lease.token] = now + REUSE_SECONDS * share
                self._hand_out(lease, line)
            if self._held and self._watching is None:
                self._watching = asyncio.create_task(self._watch())
        line.asking = None
        self._lines.pop(key, None)

    async def _asked(self, key: _Kind, wanted: int) -> list[Lease]:
        job_id, usable, avoid, priority = key
        leases: list[Lease] = await answer(
            self._pool.acquire.remote(
                job_id, usable, avoid, wanted, priority=priority, known=self._known, process=self._process
            )
        )
        self._away_since = None
        if leases:
            self._known = incarnation_of(leases[0])
        else:  # another job waits that has fewer, or all have waited for long: nothing is passed on that is held now
            self._reusable_until = dict.fromkeys(self._reusable_until, 0.0)
        return leases

    async def _without_pool(self, key: _Kind) -> list[Lease]:
        """The pool is away: what is held here goes round; a call beyond that only if it stays away for long."""
        await self._look_for_pool()
        now = time.monotonic()
        if self._away_since is None or now < self._away_since + PATIENCE_SECONDS or len(self._own) >= FALLBACK_CALLS:
            return []
        _, usable, avoid, _ = key
        lease = Lease(f"own-{secrets.token_hex(8)}", min(usable - avoid or usable))
        self._own.add(lease.token)
        self._known = incarnation_of(lease)  # no pool's: whichever comes wants to hear of it first
        return [lease]

    async def _look_for_pool(self) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
        if self._find_pool is not None:
            with contextlib.suppress(DirectoryUnavailable):
                self._pool = await self._find_pool()

    async def _watch(self) -> None:
        """While leases are held: say so, notice that the pool was restarted, and tell it before it grants anything."""
        await asyncio.sleep(WATCH_AFTER_SECONDS)
        while self._held:
            try:
                await answer(self._pool.watch.remote(self._known, self._process))
                self._away_since = None
            except PoolRestarted:
                await self._report_held()
            except DirectoryUnavailable:
                await self._look_for_pool()
        self._watching = None

    async def _report_held(self) -> None:
        """The pool was restarted: it must count the calls that are still running here before it grants more."""
        held = list(self._held.values())
        with contextlib.suppress(DirectoryUnavailable):
            self._known = await answer(self._pool.adopt.remote(held, self._process))
            self._away_since = None

    def _hand_out(self, lease: Lease, line: _Line) -> None:
        while line.waiting:
            future = line.waiting.popleft()
            if not future.done():
                future.set_result(lease)
                return
        self._discard(lease)

    def _discard(self, lease: Lease) -> None:
        self._give_back(lease, Attempt(lease.backend, "unused", 0))
