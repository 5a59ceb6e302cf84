"""Jobs of three chunks beside one of 5,000, at a speech server that takes four calls at once."""

import asyncio
import time
from pathlib import Path

from benchmarks.harness import Report, milliseconds
from benchmarks.service import CLIP_MS, SENTENCE, Stage, open_session, running, stub_config
from tts_actors.testing import FakeBackendProcess, Faults

CALLS, CALL_MS = 4, 200
LONG, SHORT = 5_000, 3
JOBS = 9


async def measure(_folder: Path, report: Report) -> None:
    """Run and report."""
    faults = Faults(delay_ms=CALL_MS, fixed_audio_ms=CLIP_MS, log_text=False)
    with FakeBackendProcess(faults) as backend, running(stub_config(backend.url, concurrency=CALLS)) as service:
        async with open_session() as session:
            stage = Stage(*service, session, backend)
            await _times(stage, 2)
            alone = await _times(stage, report.count(JOBS))
            report.row(f"{SHORT} chunks alone: POST to completed", milliseconds(alone), " ms")
            for priority in ("interactive", "batch"):
                beside = await _beside(stage, report.count(JOBS), priority)
                what = f"the same beside {LONG:,} chunks ({priority})"
                report.row(what, milliseconds(beside), " ms")
                slower = [seconds - sorted(alone)[len(alone) // 2] for seconds in beside]
                report.row(f"{what}: later than alone", milliseconds(slower), " ms", at_most=1_000)
            report.row(f"most calls at once, limit {CALLS}", backend.stats()["max_in_flight"], at_most=CALLS)


async def _times(stage: Stage, jobs: int) -> list[float]:
    """Seconds of each of so many short jobs, one after the other, each from a service that has come to rest."""
    seconds = []
    for _ in range(jobs):
        await asyncio.sleep(1.5)  # a warm actor is there again
        started = time.perf_counter()
        await stage.finished(await stage.start_job(SENTENCE * SHORT))
        seconds.append(time.perf_counter() - started)
    return seconds


async def _beside(stage: Stage, jobs: int, priority: str) -> list[float]:
    long = await stage.start_job(SENTENCE * LONG, priority=priority)
    await asyncio.sleep(3)
    seconds = await _times(stage, jobs)
    async with stage.session.post(f"{stage.url}{long}/cancel") as answer:
        assert answer.status == 202  # it was running all the time
        assert (await answer.json())["status"] in ("in_progress", "cancelled")
    return seconds
