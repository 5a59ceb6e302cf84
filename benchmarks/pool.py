"""The backend pool alone: chunks a second and cost of a chunk, in one process and as the Ray actor that it is.

Nothing is spoken: a call is a turn of the event loop, or a sleep. Leases, turns, limits and reports are the real ones.
The peers are an actor that grants whatever it is asked for, asked by the same code, and plain calls of it.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ray

from benchmarks.harness import Report, rounds
from tts_actors.backends.pool import BackendPool
from tts_actors.cluster import leases as remote
from tts_actors.cluster.pool_actor import PoolActor
from tts_actors.config import AppArgs, BackendArgs
from tts_actors.messages import Lease, LeaseReport
from tts_actors.models import Attempt, Priority
from tts_actors.protocols import LeaseSource
from tts_actors.testing.in_process import DirectLeases

NAMES = ("a", "b", "c")
LANES, JOBS, PLACES = 64, 8, 16
CALL_SECONDS = 0.02
LEASE_SECONDS = 90.0


class _Empty:
    """Grants at once what it is asked for, knows no limits and learns nothing: what is left is Ray."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    async def acquire(
        self, _job: str, usable: Collection[str], _avoid: object, wanted: int, **_: object
    ) -> list[Lease]:
        return [Lease(f"empty-{next(self._numbers)}", min(usable)) for _ in range(wanted)]

    async def release(self, reports: list[LeaseReport]) -> None:
        """Nothing."""

    async def watch(self, _known: str | None) -> None:
        await asyncio.sleep(LEASE_SECONDS)

    async def nothing(self) -> None:
        """For plain calls."""

    async def cpu_seconds(self) -> float:
        return time.process_time()


class _Pool(PoolActor):
    async def cpu_seconds(self) -> float:
        return time.process_time()


async def measure(_folder: Path, report: Report) -> None:
    """Run and report."""
    calls = report.count(20_000, quick=5_000)
    backends = [
        BackendArgs(name=name, protocol="openai", url="http://127.0.0.1", max_concurrency=PLACES) for name in NAMES
    ]
    await _rate(report, "in one process", DirectLeases(BackendPool(backends, LEASE_SECONDS)), calls)
    async with _actors(AppArgs(backends=tuple(backends))) as (pool, empty):
        await _rate(report, "Ray actor, leases passed on", remote.RemoteLeases(pool), calls, pool)
        await _cost(report, "Ray actor, leases passed on", remote.RemoteLeases(pool))
        remote.REUSE_SECONDS = 0.0
        await _rate(report, "Ray actor, each lease asked for", remote.RemoteLeases(pool), calls, pool)
        await _cost(report, "Ray actor, each lease asked for", remote.RemoteLeases(pool))
        await _rate(report, "peer: an empty actor, each lease asked for", remote.RemoteLeases(empty), calls, empty)
        seconds = await _lanes(LANES, calls, None, lambda: _called(empty))
        report.row(f"peer: plain calls of an empty actor, {LANES} at once", calls / seconds, " calls/s")


async def _called(actor: Any) -> None:
    await actor.nothing.remote()


@asynccontextmanager
async def _actors(args: AppArgs) -> AsyncIterator[tuple[Any, Any]]:
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
    try:
        options = {"num_cpus": 0, "max_concurrency": 1_000}
        pool = ray.remote(_Pool).options(**options).remote(args, LEASE_SECONDS)
        empty = ray.remote(_Empty).options(**options).remote()
        await asyncio.gather(pool.cpu_seconds.remote(), empty.cpu_seconds.remote())
        yield pool, empty
    finally:
        ray.shutdown()


async def _rate(report: Report, how: str, leases: LeaseSource, calls: int, actor: Any = None) -> None:
    own = time.process_time()
    its = 0.0 if actor is None else await actor.cpu_seconds.remote()
    seconds = await _lanes(LANES, calls, leases, lambda: asyncio.sleep(0))
    own = time.process_time() - own
    report.row(f"{how}: {LANES} lanes of {JOBS} jobs", calls / seconds, " chunks/s", at_least=1_000)
    report.row(f"{how}: cost of a chunk", seconds / calls * 1_000, " ms", at_most=3)
    report.row(f"{how}: CPU of the asking process, a chunk", own / calls * 1_000, " ms")
    if actor is not None:
        its = await actor.cpu_seconds.remote() - its
        report.row(f"{how}: CPU of the actor, a chunk", its / calls * 1_000, " ms")


async def _cost(report: Report, how: str, leases: LeaseSource) -> None:
    """What a call of 20 ms takes longer with the pool than without, with as many lanes as one backend has places."""
    calls = PLACES * report.count(50, quick=20)

    def call() -> Awaitable[None]:
        return asyncio.sleep(CALL_SECONDS)

    found = await rounds(
        report.count(4),
        {
            "alone": lambda: _lanes(PLACES, calls, None, call),
            "pooled": lambda: _lanes(PLACES, calls, leases, call),
        },
    )
    added = [pooled - alone for pooled, alone in zip(found["pooled"], found["alone"], strict=True)]
    report.row(f"{how}: added to a call of 20 ms", [each * PLACES / calls * 1_000 for each in added], " ms", at_most=3)


async def _lanes(lanes: int, calls: int, leases: LeaseSource | None, call: Callable[[], Awaitable[None]]) -> float:
    """Seconds for so many calls in so many lanes."""
    remaining = iter(range(calls))

    async def lane(job_id: str) -> None:
        for _ in remaining:
            if leases is None:
                await call()
                continue
            lease = await leases.acquire(job_id, usable=NAMES, avoid=(), priority=Priority.INTERACTIVE)
            await call()
            leases.release(lease, Attempt(lease.backend, "ok", 1))

    started = time.perf_counter()
    await asyncio.gather(*(lane(f"job-{n % JOBS}") for n in range(lanes)))
    return time.perf_counter() - started
