"""Small jobs one after the other, beside bare named Ray actors; and how soon a burst starts. [aim 7]"""

import asyncio
import time

from benchmarks.harness import Report, milliseconds, ratios, rounds, timed
from benchmarks.peers.direct import direct_calls
from benchmarks.service import SENTENCE, Stage

AT_ONCE = 8
JOBS = 10
SPARES = 2  # limits.spare_actors as shipped


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    stage.backend.set_faults(delay_ms=0)
    count = report.count(JOBS, quick=4)

    async def jobs() -> float:
        left = iter(range(count))

        async def hand() -> None:
            for _ in left:
                await stage.finished(await stage.start_job(SENTENCE))

        return count / await timed(asyncio.gather(*(hand() for _ in range(AT_ONCE))))

    async def bare() -> float:
        return float((await stage.post(f"{stage.peer}/actors?count={count}&at_once={AT_ONCE}", {}))["rate"])

    found = await rounds(report.count(5), {"bare": bare, "jobs": jobs}, pause=stage.rest, warm=0)
    report.row(f"bare Ray: named actors made, called and ended, {AT_ONCE} at once", found["bare"], "/s")
    report.row(f"small jobs from POST to completed, {AT_ONCE} at once", found["jobs"], "/s")
    report.row("small jobs: rate over bare Ray's", ratios(found["jobs"], found["bare"]), "x", at_least=0.9)
    starts = [await _burst(stage) for _ in range(report.count(5))]
    report.row("a burst of as many jobs as spares: slowest start", milliseconds(starts), " ms", at_most=50)
    stage.backend.set_faults(delay_ms=200)


async def _burst(stage: Stage) -> float:
    """Seconds from a job's acceptance to its first backend call, the slowest of the burst.

    The stub's clock is set against ours by a call of our own.
    """
    await stage.rest()
    stage.backend.clear_calls()
    asked = time.perf_counter()
    await direct_calls(stage, 1, 1)
    offset = asked - stage.backend.calls()[-1]["started_ms"] / 1_000
    stage.backend.clear_calls()
    accepted: list[float] = []

    async def job() -> str:
        path = await stage.start_job(SENTENCE)
        accepted.append(time.perf_counter())
        return path

    paths = await asyncio.gather(*(job() for _ in range(SPARES)))
    await asyncio.gather(*map(stage.finished, paths))
    called = sorted(call["started_ms"] / 1_000 + offset for call in stage.backend.calls())
    assert len(called) == SPARES, called
    return max(call - answer for call, answer in zip(called, sorted(accepted), strict=True))
