"""A job of 3,000 sentences: calls in flight against the limit, and the memory that it needs. [aim 8]"""

import asyncio
import contextlib

from benchmarks.harness import Report
from benchmarks.processes import memory_mb
from benchmarks.service import CONCURRENCY, SENTENCE, Stage

SENTENCES = 3_000
LOOK_SECONDS = 0.5


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    sentences = report.count(SENTENCES, quick=300)
    warm = await stage.start_job(SENTENCE * (sentences // 6))
    await stage.finished(warm)
    await stage.get(f"{warm}/audio?format=mp3")  # what is allocated once, the encoder too, is there now
    await stage.rest()
    stage.backend.clear_calls()
    grown = []
    for _ in range(report.count(1, quick=1)):
        before = await asyncio.to_thread(memory_mb, stage.pid)
        peak = [before]
        watch = asyncio.create_task(_watch(stage.pid, peak))
        job = await stage.start_job(SENTENCE * sentences)
        await stage.finished(job)
        async with stage.session.get(f"{stage.url}{job}/audio?format=mp3") as response:
            async for _piece in response.content.iter_any():
                pass
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        grown.append(max(peak) - before)
        await stage.rest()
    most = stage.backend.stats()["max_in_flight"]
    report.row(f"{sentences:,} sentences: most calls in flight, counted by the backend", most, at_most=CONCURRENCY)
    report.row("growth of all processes' memory (PSS), mp3 included", grown, " MB", at_most=100)
    report.note("the original: 3,000 calls at once, 1,277 MiB")


async def _watch(pid: int, peak: list[float]) -> None:
    while True:
        peak[0] = max(peak[0], await asyncio.to_thread(memory_mb, pid))
        await asyncio.sleep(LOOK_SECONDS)
