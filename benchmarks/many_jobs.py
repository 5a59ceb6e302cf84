"""What hundreds of finished jobs leave behind: processes, and the directory's open files and memory.

Each job has an actor of its own. Before and after, the measurement waits until the last actors have retired.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

from benchmarks.harness import Report
from benchmarks.processes import family, pss_mb, role
from benchmarks.service import SENTENCE, Stage

WARM_JOBS, JOBS, AT_ONCE = 20, 300, 8
RETIRED_SECONDS = 90.0
"""Actors of finished jobs stay 30 s (``retention.retire_after_seconds`` as shipped)."""

MOST_MB, MOST_FILES = 8.0, 16
"""How much the directory may have grown by 300 jobs: ten times what its memory of them is, and half of its files."""


@dataclass
class Look:
    """The service's processes at one moment."""

    processes: Counter[str]
    files: Counter[str]
    memory_mb: Counter[str]


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    stage.backend.set_faults(delay_ms=0)
    await run_jobs(stage, report.count(WARM_JOBS, quick=10))
    before = await _retired(stage)
    jobs = report.count(JOBS, quick=20)
    started = time.perf_counter()
    await run_jobs(stage, jobs)
    report.row(f"{jobs} jobs of one chunk, {AT_ONCE} at once", jobs / (time.perf_counter() - started), "/s")
    after = await _retired(stage)
    for who in ("job actor", "chunk worker"):
        report.row(f"processes more: {who}", after.processes[who] - before.processes[who], at_most=0)
    for who in ("directory", "ingress", "pool"):
        most_files, most_mb = (MOST_FILES, MOST_MB) if who == "directory" else (None, None)
        report.row(f"open files more: {who}", after.files[who] - before.files[who], at_most=most_files)
        report.row(f"memory more: {who}", after.memory_mb[who] - before.memory_mb[who], " MB", at_most=most_mb)
    report.row("memory more: Ray itself", after.memory_mb["Ray itself"] - before.memory_mb["Ray itself"], " MB")
    report.row("memory of the directory afterwards", after.memory_mb["directory"], " MB")
    report.row("open files of the directory afterwards", after.files["directory"])
    stage.backend.set_faults(delay_ms=200)


async def run_jobs(stage: Stage, count: int) -> None:
    """So many jobs of one chunk from their POST to their end."""
    left = iter(range(count))

    async def hand() -> None:
        for _ in left:
            await stage.finished(await stage.start_job(SENTENCE))

    await asyncio.gather(*(hand() for _ in range(AT_ONCE)))


async def _retired(stage: Stage) -> Look:
    """A look when there are no more job actors than those that wait for the next jobs, or when that takes too long."""
    give_up = time.monotonic() + RETIRED_SECONDS
    fewest = 3  # limits.spare_actors as shipped, and the one whose id the ingress has fetched ahead
    while (found := look(stage.pid)).processes["job actor"] > fewest and time.monotonic() < give_up:  # noqa: ASYNC110
        await asyncio.sleep(1.0)  # processes of others set no event of ours
    return found


def look(pid: int) -> Look:
    """What there is now, by role."""
    found = Look(Counter(), Counter(), Counter())
    for process in family(pid):
        try:
            who, files = role(process), process.num_fds()
        except Exception:  # noqa: BLE001, S112 - it has just ended
            continue
        found.processes[who] += 1
        found.files[who] += files
        found.memory_mb[who] += pss_mb(process)
    return found
