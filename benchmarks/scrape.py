"""How long one scrape of the metrics takes with a thousand jobs of history, and before the first one.

What a scrape takes before any job is the floor: Ray's own series, and what this service's processes say of themselves.
"""

import asyncio
import re
from collections import Counter
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
FAMILIES = 6


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    jobs, run = (60, 20) if report.quick else (JOBS, RUN)
    url = f"http://127.0.0.1:{_port(stage.pid)}/metrics"
    await asyncio.sleep(LATE_SECONDS)
    await _scrapes(stage, report, url, "one job of history", None)
    stage.backend.set_faults(delay_ms=0)
    await run_jobs(stage, run)
    stage.backend.set_faults(always="hang")
    waiting = [await stage.start_job(SENTENCE) for _ in range(jobs - run)]
    await asyncio.gather(*(stage.post(f"{job}/cancel", None) for job in reversed(waiting)))
    stage.backend.set_faults(always=None, delay_ms=200)
    await stage.rest()
    await asyncio.sleep(LATE_SECONDS)
    await _scrapes(stage, report, url, f"{jobs:,} jobs of history", AT_MOST_MS)


async def _scrapes(stage: Stage, report: Report, url: str, when: str, at_most: float | None) -> None:
    body = (await stage.get(url)).decode()
    took = [await timed(stage.get(url)) for _ in range(SCRAPES)]
    report.row(f"{when}: one scrape", milliseconds(took), " ms", at_most=at_most)
    report.row(f"{when}: its size", len(body) / 1_000, " kB")
    series = [line for line in body.splitlines() if line and not line.startswith("#")]
    ours = [line for line in series if line.startswith("ray_tts_")]
    report.row(f"{when}: series in it", len(series))
    report.row(f"{when}: of them of this service (ray_tts_)", len(ours))
    workers = set(re.findall(r'WorkerId="([^"]+)"', body))
    report.row(f"{when}: processes that it knows (WorkerId)", len(workers))
    report.row(f"{when}: Ray's processes that there are", sum(_of_ray(process) for process in family(stage.pid)))
    families = Counter(re.split(r"[{ ]", line)[0].removesuffix("_bucket") for line in series)
    most = ", ".join(f"{name} {count:,}" for name, count in families.most_common(FAMILIES))
    report.note(f"{when}: the largest are {most}")


def _of_ray(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[0].startswith("ray::")
    except (psutil.Error, IndexError):
        return False


def _port(pid: int) -> int:
    """Where the agent of the service's own Ray exports."""
    for process in family(pid):
        if process.name() != "raylet":
            continue
        (session,) = [a.partition("=")[2] for a in process.cmdline() if a.startswith("--session_dir=")]
        (file,) = Path(session).glob("metrics_export_port_*")
        return int(file.read_text())
    raise psutil.NoSuchProcess(pid, msg="no raylet")
