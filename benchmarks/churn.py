"""Small jobs one after the other, beside bare named Ray actors; and how soon a burst starts. [aim 7]"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks.harness import Report, milliseconds, ratios, rounds, timed
from benchmarks.peers.direct import BODY, direct_calls
from benchmarks.service import REFILL_TWO_SECONDS, SENTENCE, Stage

AT_ONCE = 6
JOBS = 6
SPARES = 2  # limits.spare_actors as shipped
WAIT_SECONDS = 30.0
ENDED_SECONDS = 0.3
"""Processes that were killed are gone by then; nothing of the service is started anew."""


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    stage.backend.set_faults(delay_ms=0)
    await stage.open_peer()
    count = report.count(JOBS, quick=4)

    async def jobs() -> float:
        left = iter(range(count))

        async def hand() -> None:
            for _ in left:
                await stage.finished(await stage.start_job(SENTENCE))

        rate = count / await timed(asyncio.gather(*(hand() for _ in range(AT_ONCE))))
        await stage.rest(REFILL_TWO_SECONDS)
        return rate

    async def bare() -> float:
        return await bare_rate(stage, f"actors?count={count}&at_once={AT_ONCE}")

    found = await rounds(report.count(5), {"bare": bare, "jobs": jobs}, warm=0)
    report.row(f"bare Ray: named actors made, called and ended, {AT_ONCE} at once", found["bare"], "/s")
    report.row(f"small jobs from POST to completed, {AT_ONCE} at once", found["jobs"], "/s")
    report.row("small jobs: rate over bare Ray's", ratios(found["jobs"], found["bare"]), "x", at_least=0.9)
    starts = await rounds(
        report.count(5),
        {
            "floor": lambda: _burst(stage, lambda: _told(stage), ENDED_SECONDS),
            "jobs": lambda: _burst(stage, lambda: stage.start_job(SENTENCE)),
        },
        warm=0,
    )
    floor = milliseconds(starts["floor"])
    report.row("warm actors of bare Ray, told by HTTP, that have a worker call: slowest start", floor, " ms")
    what = "a burst of as many jobs as spares: slowest start"
    report.row(what, milliseconds(starts["jobs"]), " ms", at_most=50)
    stage.backend.set_faults(delay_ms=200)


async def bare_rate(stage: Stage, what: str) -> float:
    """Actors a second, made by the peer."""
    rate = float((await stage.post(f"{stage.peer}/{what}", {}))["rate"])
    await stage.rest(ENDED_SECONDS)
    return rate


async def _told(stage: Stage) -> None:
    await stage.post(f"{stage.peer}/start?to={stage.backend.url}/v1/audio/speech", BODY)


async def _burst(
    stage: Stage, start: Callable[[], Awaitable[object]], refill_seconds: float = REFILL_TWO_SECONDS
) -> float:
    """Seconds from a job's acceptance to its first backend call, the slowest of the burst.

    The stub's clock is set against ours by a call of our own.
    """
    stage.backend.clear_calls()
    asked = time.perf_counter()
    await direct_calls(stage, 1, 1)
    offset = asked - stage.backend.calls()[-1]["started_ms"] / 1_000
    stage.backend.clear_calls()
    accepted: list[float] = []

    async def job() -> None:
        await start()
        accepted.append(time.perf_counter())

    await asyncio.gather(*(job() for _ in range(SPARES)))
    async with asyncio.timeout(WAIT_SECONDS):
        while len(stage.backend.calls()) < SPARES:  # noqa: ASYNC110 - another process' calls set no event of ours
            await asyncio.sleep(0.2)
    called = sorted(call["started_ms"] / 1_000 + offset for call in stage.backend.calls())
    await stage.rest(refill_seconds)
    assert len(called) == SPARES, called
    return max(call - answer for call, answer in zip(called, sorted(accepted), strict=True))
