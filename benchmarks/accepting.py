"""Accepting jobs, one at a time and from 16 clients, while the cap on active jobs holds. [aim 5]

The floor is a deployment in the same Serve that does what no acceptance can leave out. The backend never answers
meanwhile: what is accepted stays, so this is the last measurement of its stage.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Report, milliseconds, percentile, ratios, rounds, timed
from benchmarks.rates import rate_and_latencies
from benchmarks.service import SENTENCE, Stage

BURST = 5
MAX_ACTIVE = 8  # limits.max_active_jobs as shipped
START_SECONDS = 60.0
LONGEST_CHUNK = "and so on, " * 36 + "end."  # 400 characters, what the stub takes in one call
ORIGINAL = "the original: 196/s, p99 102 ms, and 4.5 s with four sentences"


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    numbers = itertools.count()

    async def accept(sentences: int = 1) -> None:
        await stage.start_job(f"Job {next(numbers)}. {SENTENCE * sentences}")

    async def nothing() -> None:
        await stage.post(f"{stage.peer}/nothing", {})

    async def floor() -> None:
        await stage.post(f"{stage.peer}/accept", {"model": "stub", "input": SENTENCE, "chunking": {"mode": "sentence"}})

    await stage.open_peer()
    await _fill(stage)
    await _alone(stage, report, nothing, floor, accept)
    most = 0

    async def many(call: Callable[[], Awaitable[Any]]) -> dict[str, float]:
        nonlocal most
        rate, took = await rate_and_latencies(call)
        most = max(most, await _running(stage))
        return {"rate": rate, "p99": percentile(milliseconds(took), 99)}

    one = {"nothing": lambda: many(nothing), "floor": lambda: many(floor), "accept": lambda: many(accept)}
    found = await rounds(report.count(5), one, warm=0)
    report.row("empty POSTs, 16 clients", found["nothing.rate"], "/s")
    report.row("the floor, 16 clients", found["floor.rate"], "/s")
    report.row("the floor, 16 clients: p99", found["floor.p99"], " ms")
    _say(report, "1 sentence", found)
    report.row("accepts of 1 sentence: rate over the floor's", ratios(found["accept.rate"], found["floor.rate"]), "x")
    _say(report, "4 sentences", await rounds(report.count(5), {"accept": lambda: many(lambda: accept(4))}, warm=0))
    report.note(ORIGINAL)
    assert most, "no job was running: the cap was not put to the test"
    report.row("most jobs in progress meanwhile", most, at_most=MAX_ACTIVE)


async def _fill(stage: Stage) -> None:
    """As many jobs as may be active, each at a call that does not end before all is measured.

    (The text has the longest chunk, three timeouts of which are 72 s. With one short sentence they were 38: in a slow
    hour the eight failed in the middle of it, and eight processes were started for the next ones.)
    """
    stage.backend.set_faults(always="hang")
    stage.backend.clear_calls()
    for _ in range(MAX_ACTIVE):
        await stage.start_job(LONGEST_CHUNK)
    async with asyncio.timeout(START_SECONDS):
        while await _running(stage) < MAX_ACTIVE:  # noqa: ASYNC110 - the jobs of others set no event of ours
            await asyncio.sleep(0.2)
    await stage.rest()  # starting the eight is not accepting


async def _alone(stage: Stage, report: Report, *calls: Callable[[], Awaitable[None]]) -> None:
    """One client: an empty POST, the floor, an acceptance, and what forcing the disk takes."""

    async def several(call: Callable[[], Awaitable[None]]) -> float:
        return median([await timed(call()) for _ in range(BURST)])

    async def fsync() -> float:
        return median([_one_fsync(stage.folder) for _ in range(BURST)])

    names = ("nothing", "floor", "accept")
    contenders = {name: lambda call=call: several(call) for name, call in zip(names, calls, strict=True)}  # type: ignore[misc]
    found = await rounds(report.count(10), contenders | {"fsync": fsync}, warm=3)
    bounds = [2.5 * nothing + fsync for nothing, fsync in zip(found["nothing"], found["fsync"], strict=True)]
    report.row("an empty deployment answers a POST in", milliseconds(found["nothing"]), " ms")
    report.row("one write and fsync", milliseconds(found["fsync"]), " ms")
    what = "the floor (a deployment that checks, commits, tells an actor, answers)"
    report.row(f"{what}, one client", milliseconds(found["floor"]), " ms")
    report.row("the floor: over 2.5 x the empty deployment + one fsync", ratios(found["floor"], bounds), "x")
    report.row("accepting a job, one client", milliseconds(found["accept"]), " ms")
    over = ratios(found["accept"], bounds)
    report.row("accepting: over 2.5 x the empty deployment + one fsync", over, "x", at_most=1)


def _say(report: Report, sentences: str, found: dict[str, list[float]]) -> None:
    name = f"accepts of {sentences}, 16 clients"
    report.row(name, found["accept.rate"], "/s", at_least=200)
    report.row(f"{name}: p99", found["accept.p99"], " ms", at_most=100)


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
