"""The backend pool alone: chunks a second and cost of a chunk, in one process and as the Ray actor that it is.

Nothing is spoken: a call is a turn of the event loop, or a sleep. Leases, turns, limits and reports are the real ones.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import ray

from benchmarks.harness import Report
from tts_actors.backends.pool import BackendPool
from tts_actors.cluster import leases as remote
from tts_actors.cluster.pool_actor import PoolActor
from tts_actors.config import AppArgs, BackendArgs
from tts_actors.models import Attempt, Priority
from tts_actors.protocols import LeaseSource
from tts_actors.testing.in_process import DirectLeases

NAMES = ("a", "b", "c")
LANES, JOBS, PLACES = 64, 8, 16
CALL_SECONDS = 0.02
LEASE_SECONDS = 90.0


async def measure(_folder: Path, report: Report) -> None:
    """Run and report."""
    calls = report.count(20_000, quick=5_000)
    backends = [
        BackendArgs(name=name, protocol="openai", url="http://127.0.0.1", max_concurrency=PLACES) for name in NAMES
    ]
    await _rate(report, "in one process", DirectLeases(BackendPool(backends, LEASE_SECONDS)), calls)
    async with _actor(AppArgs(backends=tuple(backends))) as pool:
        await _rate(report, "Ray actor, leases passed on", remote.RemoteLeases(pool), calls)
        await _cost(report, "Ray actor, leases passed on", remote.RemoteLeases(pool))
        remote.REUSE_SECONDS = 0.0
        await _rate(report, "Ray actor, each lease asked for", remote.RemoteLeases(pool), calls)
        await _cost(report, "Ray actor, each lease asked for", remote.RemoteLeases(pool))


@asynccontextmanager
async def _actor(args: AppArgs) -> AsyncIterator[object]:
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
    try:
        pool = ray.remote(PoolActor).options(num_cpus=0, max_concurrency=1_000).remote(args, LEASE_SECONDS)
        await pool.figures.remote()
        yield pool
    finally:
        ray.shutdown()


async def _rate(report: Report, how: str, leases: LeaseSource, calls: int) -> None:
    seconds = await _lanes(LANES, calls, leases, lambda: asyncio.sleep(0))
    report.row(f"{how}: {LANES} lanes of {JOBS} jobs", calls / seconds, " chunks/s", at_least=1_000)
    report.row(f"{how}: cost of a chunk", seconds / calls * 1_000, " ms", at_most=3)


async def _cost(report: Report, how: str, leases: LeaseSource) -> None:
    """What a call of 20 ms takes longer with the pool than without, with as many lanes as one backend has places."""
    calls = PLACES * report.count(100, quick=50)
    alone = await _lanes(PLACES, calls, None, lambda: asyncio.sleep(CALL_SECONDS))
    pooled = await _lanes(PLACES, calls, leases, lambda: asyncio.sleep(CALL_SECONDS))
    report.row(f"{how}: added to a call of 20 ms", (pooled - alone) * PLACES / calls * 1_000, " ms", at_most=3)


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
