"""What an active job costs: memory and CPU while slow calls are under way, and how many chunks a core speaks."""

import asyncio
import time
from collections import Counter

from benchmarks.harness import Report
from benchmarks.many_jobs import look
from benchmarks.processes import cpu_by_role, cpu_seconds
from benchmarks.service import SENTENCE, Stage

ACTIVE = 8
"""limits.max_active_jobs as shipped."""

WATCH_SECONDS = 20.0
SLOW_MS = 4_000
"""Of one call: 64 at once are two a second for each job."""

CHARACTERS = 100_000
CHUNKS = 2_000
OURS = ("ingress", "job actor", "chunk worker", "pool", "directory", "proxy", "Ray itself")


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    await _slow(stage, report)
    stage.backend.set_faults(delay_ms=0)
    rates: list[float] = []
    per_core: list[float] = []
    spent: Counter[str] = Counter()
    chunks = report.count(CHUNKS, quick=200)
    for _ in range(report.count(3)):
        before, started = cpu_seconds(stage.pid), time.perf_counter()
        await stage.finished(await stage.start_job(SENTENCE * chunks))
        rates.append(chunks / (time.perf_counter() - started))
        used = cpu_by_role(before, cpu_seconds(stage.pid))
        per_core.append(chunks / sum(used[who] for who in OURS))
        spent += used
        await stage.rest()
    report.row("one job on a backend that answers at once: chunks", rates, "/s")
    report.row("chunks for each CPU second of the service", per_core, "/s")
    whole = sum(spent[who] for who in OURS)
    for who in OURS:
        report.row(f"share of the CPU: {who}", 100 * spent[who] / whole, " %")
    stage.backend.set_faults(delay_ms=200)


async def _slow(stage: Stage, report: Report) -> None:
    """Memory and CPU of eight active jobs on a slow backend, against none."""
    stage.backend.set_faults(delay_ms=SLOW_MS)
    idle, idle_cores = look(stage.pid), await _cores(stage)
    text = SENTENCE * (CHARACTERS // len(SENTENCE))
    jobs = [await stage.start_job(f"Job {number}. {text}") for number in range(ACTIVE)]
    await asyncio.sleep(WATCH_SECONDS)  # until all of them speak, and spares are there again
    cores = await _cores(stage)
    busy = look(stage.pid)
    running = stage.backend.stats()["in_flight"]
    what = f"{ACTIVE} active jobs of {CHARACTERS:,} characters"
    report.row(f"{what}: calls at once", running)
    for who in ("job actor", "chunk worker"):
        report.row(f"{what}: processes, {who}", busy.processes[who])
        report.row(f"{what}: memory of one {who}", busy.memory_mb[who] / max(1, busy.processes[who]), " MB")
    more = sum(busy.memory_mb.values()) - sum(idle.memory_mb.values())
    report.row("memory of all processes for each of them", more / ACTIVE, " MB")
    report.row("CPU for each of them", 100 * (cores - idle_cores) / ACTIVE, " % of a core")
    report.row("the service without jobs: memory", sum(idle.memory_mb.values()), " MB")
    report.row("the service without jobs: CPU", 100 * idle_cores, " % of a core")
    await asyncio.gather(*(stage.post(f"{job}/cancel", None) for job in jobs))
    stage.backend.set_faults(delay_ms=0)
    await stage.rest()


async def _cores(stage: Stage) -> float:
    """Cores that the service's processes use, watched for some time."""
    before = cpu_seconds(stage.pid)
    await asyncio.sleep(WATCH_SECONDS)
    used = cpu_by_role(before, cpu_seconds(stage.pid))
    return sum(used[who] for who in OURS) / WATCH_SECONDS
