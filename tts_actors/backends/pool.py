"""Who may call which backend now: leases under per-backend limits, fair between jobs.

A plain asyncio class without I/O; it runs as one actor, so that the limits hold over all jobs and nodes. If the process
that holds a lease dies, the permission returns by itself (``held.py``). What the pool learns of each backend is in
``gauge.py``.
"""

import asyncio
import itertools
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from tts_actors.backends.gauge import BackendFigures, Breaker, Gauge
from tts_actors.backends.held import HeldLeases
from tts_actors.config import BackendArgs
from tts_actors.errors import PoolRestarted
from tts_actors.messages import Lease, LeaseReport
from tts_actors.models import Priority

MAX_WAIT_SECONDS = 20.0
"""How long one request for leases is kept open; the asker asks again (a dead asker is forgotten that way)."""

WATCH_SECONDS = 5.0
"""How long the question of a process that holds leases is kept open; with each it says that it lives."""

GONE_SECONDS = 2.0
"""How long a job that was ended gets nothing. Its worker is stopped, or killed with its actor, but not at once: its
task may not even have begun. The door that speaks the first chunk hears of it when it says next that it is at work."""

LOOK_AGAIN_SECONDS = 0.25
"""While somebody waits: how often time alone (an open breaker, a spent retry budget) is given a chance to help."""


def incarnation_of(lease: Lease) -> str:
    """Which incarnation of the pool handed the lease out: its tokens begin so."""
    return lease.token.partition("-")[0]


_Kind = tuple[frozenset[str], frozenset[str]]
"""What decides whether there is a lease for somebody: usable backends, avoided ones."""


@dataclass(slots=True, eq=False)
class _Waiter:
    job_id: str
    priority: Priority
    wanted: int
    usable: frozenset[str]
    avoid: frozenset[str]
    process: str | None
    future: asyncio.Future[list[Lease]]
    granted: list[Lease] = field(default_factory=list)
    called_back: set[str] = field(default_factory=set)
    """Jobs that have been told to bring leases back for this one."""


class BackendPool:
    """Hands out leases for ``backends``. ``lease_seconds`` is the life of a lease, ``budget_ratio`` the retries that a
    backend is sent per first call.

    Nothing is granted in the first ``grace_seconds``: after a crash of an earlier pool its lease holders report first.
    """

    def __init__(
        self,
        backends: Iterable[BackendArgs],
        lease_seconds: float,
        *,
        budget_ratio: float = 0.2,
        grace_seconds: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gauges: dict[str, Gauge] = {}
        self._weights: dict[str, float] = {}
        for backend in backends:
            lowest = min(backend.min_concurrency, backend.max_concurrency)
            self._gauges[backend.name] = Gauge(
                backend.name, lowest=lowest, highest=backend.max_concurrency, budget_ratio=budget_ratio, now=now
            )
            self._weights[backend.name] = backend.weight
        self._now = now
        self._closed_until = now() + grace_seconds
        self._incarnation = secrets.token_hex(4)
        self._tokens = itertools.count(1)
        self._held = HeldLeases(self._gauges, lease_seconds, self._grant)
        self._gone: dict[str, asyncio.TimerHandle] = {}
        # Per priority: the jobs that wait, in turn, each with its requests.
        self._waiting: dict[Priority, OrderedDict[str, deque[_Waiter]]] = {
            priority: OrderedDict() for priority in (Priority.INTERACTIVE, Priority.BATCH)
        }
        self._looking: asyncio.TimerHandle | None = None

    async def acquire(
        self,
        job_id: str,
        usable: Collection[str],
        avoid: Collection[str],
        wanted: int,
        *,
        priority: Priority = Priority.INTERACTIVE,
        known: str | None = None,
        process: str | None = None,
    ) -> list[Lease]:
        """Between one and ``wanted`` leases for backends in ``usable``; empty if none came free in time, or if
        leases should be brought back for a job that waits and has fewer.

        ``avoid`` names backends that this chunk has failed on: used only while no other is well. With it the call is
        a retry and charged to the budget. ``known`` is the incarnation that the asker's leases are from: raises
        :class:`PoolRestarted` if that was another, for the asker must :meth:`adopt` them first. ``process`` is where
        they will be held: it must :meth:`watch` then, or they are taken back.
        """
        if known is not None and known != self._incarnation:
            raise PoolRestarted("the backend pool has been restarted: report the leases you hold")
        loop = asyncio.get_running_loop()
        if (gone := self._gone.get(job_id)) is not None:
            await asyncio.sleep(max(0.0, gone.when() - loop.time()))
            return []
        future: asyncio.Future[list[Lease]] = loop.create_future()
        waiter = _Waiter(job_id, priority, wanted, frozenset(usable), frozenset(avoid), process, future)
        self._waiting[priority].setdefault(job_id, deque()).append(waiter)
        self._grant()
        if not future.done():
            self._even_out(waiter)
        if future.done():
            return waiter.granted
        timer = loop.call_later(MAX_WAIT_SECONDS, self._give_up, waiter)
        try:
            return await future
        except asyncio.CancelledError:
            self._withdraw(waiter)
            self._take_back(waiter.granted)  # it may have been granted in the very moment of giving up
            self._grant()
            raise
        finally:
            timer.cancel()

    def _even_out(self, came: _Waiter) -> None:
        """Somebody has to wait: leases that go from call to call in the process of a job that has more come back."""
        for other in [waiter for waiter in self._all_waiting() if waiter.job_id != came.job_id]:
            for rich, poor in ((other, came), (came, other)):
                if self._should_bring_back(rich, poor):
                    for waiter in self._all_waiting():
                        waiter.called_back.add(rich.job_id)  # what comes back is for all of them
                    self._give_up(rich)  # an empty answer says it

    def _all_waiting(self) -> list[_Waiter]:
        return [waiter for jobs in self._waiting.values() for queue in jobs.values() for waiter in queue]

    def _should_bring_back(self, rich: _Waiter, poor: _Waiter) -> bool:
        """Whether the one is still to be told that the other should have some of what it has."""
        much, little = self._held.of(rich.job_id), self._held.of(poor.job_id)
        if rich.priority is poor.priority:
            # Who has none has a turn; otherwise a lease that changes hands must make it more even.
            due = much > little + 1 or much > little == 0
        else:
            due = much > 0 and poor.priority is Priority.INTERACTIVE
        return due and rich.job_id not in poor.called_back and not rich.usable.isdisjoint(poor.usable)

    def _give_up(self, waiter: _Waiter) -> None:
        self._withdraw(waiter)
        if not waiter.future.done():
            waiter.future.set_result([])

    async def release(self, reports: Sequence[LeaseReport]) -> None:
        """Learn how calls went, and take the leases back that are done with; unknown ones have run out before."""
        for report in reports:
            gauge = self._gauges.get(report.attempt.backend)
            if gauge is None:
                continue
            gauge.learn(report.attempt)
            if report.returned:
                self._held.drop(report.attempt.backend, report.token)
            else:
                gauge.granted(retry=False)  # it went on to the next call
        self._grant()
        self._call_back_surplus()

    def _call_back_surplus(self) -> None:
        """Where more leases are out than a backend may have by now, those that go from call to call come back."""
        for name, gauge in self._gauges.items():
            if self._held.at(name) > gauge.limit:
                for waiter in self._all_waiting():
                    if name in waiter.usable and self._held.of(waiter.job_id):
                        self._give_up(waiter)

    async def adopt(self, leases: Sequence[Lease], process: str | None = None) -> str:
        """Count leases that this incarnation has not handed out, and whose calls are running; returns its name."""
        for lease in leases:
            self._held.add(lease, process=process)
        if process is not None:
            self._held.hear(process)
        return self._incarnation

    async def watch(self, known: str | None, process: str | None = None) -> None:
        """Answers after :data:`WATCH_SECONDS`, or raises :class:`PoolRestarted` at once if ``known`` was another.

        Whoever holds leases waits here: the answer breaks off when the pool dies, and the pool hears that it lives.
        """
        if known != self._incarnation:
            raise PoolRestarted("the backend pool has been restarted: report the leases you hold")
        if process is not None:
            self._held.hear(process)
        await asyncio.sleep(WATCH_SECONDS)

    async def withdraw(self, job_id: str, *, gone: bool = False) -> None:
        """Answer what this job has asked for with nothing: its worker is about to stand still.

        With ``gone`` it is ended, which not everybody who calls for it knows yet: nothing is granted soon after either.
        """
        if gone:
            if (timer := self._gone.pop(job_id, None)) is not None:
                timer.cancel()
            self._gone[job_id] = asyncio.get_running_loop().call_later(GONE_SECONDS, self._gone.pop, job_id)
        for jobs in self._waiting.values():
            for waiter in list(jobs.get(job_id, ())):
                self._give_up(waiter)

    async def forget(self, job_id: str) -> None:
        """The worker of this job has died: what it held and what it waited for is free at once, not after a lease's
        life, which is longer than anybody should wait for a job to go on.
        """
        await self.withdraw(job_id)
        self._held.drop_job(job_id)
        self._grant()

    async def in_flight(self) -> dict[str, int]:
        """Leases out, per backend."""
        return self._held.counts()

    async def figures(self) -> list[BackendFigures]:
        """All backends as an operator sees them."""
        return [gauge.figures(self._held.at(name)) for name, gauge in self._gauges.items()]

    def _grant(self) -> None:
        """Interactive jobs before batch jobs; among equals one lease a job in turn: no long job starves a short one."""
        if self._now() >= self._closed_until:
            for jobs in self._waiting.values():
                self._grant_in_turn(jobs)
        if any(self._waiting.values()) and self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_AGAIN_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._looking = None
        self._grant()

    def _grant_in_turn(self, jobs: OrderedDict[str, deque[_Waiter]]) -> None:
        served: list[_Waiter] = []
        progress = True
        while progress:
            progress = False
            refused: set[_Kind] = set()  # what one of them cannot have now the others like it need not ask for
            for job_id in list(jobs):
                found = self._first_served(jobs[job_id], refused)
                if found is None:
                    continue
                waiter, backend = found
                progress = True
                waiter.granted.append(self._lease(backend, waiter))
                if len(waiter.granted) == 1:
                    served.append(waiter)
                jobs.move_to_end(job_id)
                if len(waiter.granted) == waiter.wanted:
                    self._withdraw(waiter)
        for waiter in served:
            self._withdraw(waiter)
            if waiter.process is not None:
                self._held.hear(waiter.process)
            if waiter.future.done():  # the asker is gone
                self._take_back(waiter.granted)
            else:
                waiter.future.set_result(waiter.granted)

    def _first_served(self, queue: Iterable[_Waiter], refused: set[_Kind]) -> tuple[_Waiter, str] | None:
        """The first of them for whom a backend has a place, and that backend; notes in ``refused`` who has none."""
        for waiter in queue:
            kind = waiter.usable, waiter.avoid
            if kind in refused:
                continue
            backend = self._choose(waiter)
            if backend is not None:
                return waiter, backend
            refused.add(kind)
        return None

    def _choose(self, waiter: _Waiter) -> str | None:
        """The least loaded backend that may take a call of this waiter now."""
        well = {name for name in waiter.usable if name in self._gauges and self._is_well(name)}
        candidates = (waiter.usable - waiter.avoid if well - waiter.avoid else waiter.usable) & self._gauges.keys()
        free = [
            (self._held.at(name) / (self._gauges[name].limit * self._weights[name]), name)
            for name in candidates
            if self._held.at(name) < self._places(name, anyone_well=bool(well))
            and (not waiter.avoid or self._gauges[name].retry_allowed())
        ]
        return min(free)[1] if free else None

    def _is_well(self, name: str) -> bool:
        return self._gauges[name].breaker is Breaker.CLOSED

    def _places(self, name: str, *, anyone_well: bool) -> int:
        """Calls that a backend may have at once: one if it is being probed, or open but nobody else is left."""
        gauge = self._gauges[name]
        if gauge.breaker is Breaker.CLOSED:
            return gauge.limit
        return 1 if gauge.breaker is Breaker.HALF_OPEN or not anyone_well else 0

    def _lease(self, backend: str, waiter: _Waiter) -> Lease:
        lease = Lease(f"{self._incarnation}-{next(self._tokens)}", backend)
        self._held.add(lease, job_id=waiter.job_id, process=waiter.process)
        self._gauges[backend].granted(retry=bool(waiter.avoid))
        return lease

    def _take_back(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self._held.drop(lease.backend, lease.token)

    def _withdraw(self, waiter: _Waiter) -> None:
        jobs = self._waiting[waiter.priority]
        queue = jobs.get(waiter.job_id)
        if queue is None:
            return
        if waiter in queue:
            queue.remove(waiter)
        if not queue:
            del jobs[waiter.job_id]
