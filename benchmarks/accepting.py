"""Accepting jobs, one at a time and from 16 clients, while the cap on active jobs holds. [aim 5]

The backend never answers meanwhile: what is accepted stays, so this is the last measurement of its stage.
"""

import asyncio
import itertools
import os
import time
from pathlib import Path
from statistics import median

from benchmarks.harness import Report, milliseconds, percentile, rounds, timed
from benchmarks.rates import rate_and_latencies
from benchmarks.service import SENTENCE, Stage

BURST = 5
MAX_ACTIVE = 8  # limits.max_active_jobs as shipped
START_SECONDS = 60.0
ORIGINAL = "the original: 196/s, p99 102 ms, and 4.5 s with four sentences"


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    numbers = itertools.count()

    async def accept(sentences: int) -> None:
        await stage.start_job(f"Job {next(numbers)}. {SENTENCE * sentences}")

    async def alone() -> float:
        return median([await timed(accept(1)) for _ in range(BURST)])

    async def nothing() -> float:
        return median([await timed(stage.post(f"{stage.peer}/nothing", {})) for _ in range(BURST)])

    async def fsync() -> float:
        return median([_one_fsync(stage.folder) for _ in range(BURST)])

    stage.backend.set_faults(always="hang")
    stage.backend.clear_calls()
    for _ in range(MAX_ACTIVE):
        await accept(1)
    async with asyncio.timeout(START_SECONDS):
        while await _running(stage) < MAX_ACTIVE:  # noqa: ASYNC110 - the jobs of others set no event of ours
            await asyncio.sleep(0.2)
    await stage.rest()  # starting the eight is not accepting
    found = await rounds(report.count(10), {"nothing": nothing, "fsync": fsync, "accept": alone}, warm=3)
    bounds = [2.5 * nothing + fsync for nothing, fsync in zip(found["nothing"], found["fsync"], strict=True)]
    report.row("an empty deployment answers a POST in", milliseconds(found["nothing"]), " ms")
    report.row("one write and fsync", milliseconds(found["fsync"]), " ms")
    report.row("accepting a job, one client", milliseconds(found["accept"]), " ms")
    over = [took / bound for took, bound in zip(found["accept"], bounds, strict=True)]
    report.row("accepting: over 2.5 x the empty deployment + one fsync", over, "x", at_most=1)
    most = 0
    for sentences in (1, 4):
        found_at = []
        for _ in range(report.count(5)):
            found_at.append(await rate_and_latencies(lambda n=sentences: accept(n)))  # type: ignore[misc]
            most = max(most, await _running(stage))
        name = f"accepts of {sentences} sentence{'s' * (sentences > 1)}, 16 clients"
        report.row(name, [rate for rate, _ in found_at], "/s", at_least=200)
        report.row(f"{name}: p99", [percentile(milliseconds(took), 99) for _, took in found_at], " ms", at_most=100)
    report.note(ORIGINAL)
    assert most, "no job was running: the cap was not put to the test"
    report.row("most jobs in progress meanwhile", most, at_most=MAX_ACTIVE)


async def _running(stage: Stage) -> int:
    found = await stage.get("/v1/audio/speech/jobs?status=in_progress&limit=100")
    return found.count(b'"object":"audio.speech.job"')


def _one_fsync(folder: Path) -> float:
    """Seconds to append a small record to a file on the service's disk and force it."""
    record = os.urandom(4_096)
    with (folder / "fsync").open("ab") as file:
        started = time.perf_counter()
        file.write(record)
        file.flush()
        os.fsync(file.fileno())
        return time.perf_counter() - started
