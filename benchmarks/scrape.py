"""How long one scrape of the metrics takes with a thousand jobs of history."""

import asyncio
from pathlib import Path

import psutil

from benchmarks.harness import Report, milliseconds, timed
from benchmarks.many_jobs import run_jobs
from benchmarks.processes import family
from benchmarks.service import SENTENCE, Stage

JOBS, RUN = 1_000, 100
"""Accepted; and so many of them run to their end, the others are cancelled while they wait."""

SCRAPES = 30
LATE_SECONDS = 12.0
"""Processes hand their figures to Ray's agent every 10 s."""

AT_MOST_MS = 50


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    jobs, run = (60, 20) if report.quick else (JOBS, RUN)
    stage.backend.set_faults(delay_ms=0)
    await run_jobs(stage, run)
    stage.backend.set_faults(always="hang")
    waiting = [await stage.start_job(SENTENCE) for _ in range(jobs - run)]
    await asyncio.gather(*(stage.post(f"{job}/cancel", None) for job in reversed(waiting)))
    await asyncio.sleep(LATE_SECONDS)
    url = f"http://127.0.0.1:{_port(stage.pid)}/metrics"
    body = await stage.get(url)
    took = [await timed(stage.get(url)) for _ in range(SCRAPES)]
    report.row(f"{jobs:,} jobs of history: one scrape", milliseconds(took), " ms", at_most=AT_MOST_MS)
    report.row("its size", len(body) / 1_000, " kB")
    series = [line for line in body.splitlines() if not line.startswith(b"#")]
    report.row("series in it", len(series))
    report.row("series of this service (ray_tts_) in it", sum(line.startswith(b"ray_tts_") for line in series))
    stage.backend.set_faults(always=None, delay_ms=200)


def _port(pid: int) -> int:
    """Where the agent of the service's own Ray exports."""
    for process in family(pid):
        if process.name() != "raylet":
            continue
        (session,) = [a.partition("=")[2] for a in process.cmdline() if a.startswith("--session_dir=")]
        (file,) = Path(session).glob("metrics_export_port_*")
        return int(file.read_text())
    raise psutil.NoSuchProcess(pid, msg="no raylet")
