"""Three flaky backends, many jobs: what completes, what a hung backend costs, whether limits and turns hold.

The whole service in this process, without Ray: stores, HTTP and faults are real, so are the pool and the workers.
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Report
from tts_actors.config import AppArgs
from tts_actors.logs import configure_logs
from tts_actors.models import JobRecord, JobState, SpeechRequest
from tts_actors.testing import FakeBackend, Faults, running_backend
from tts_actors.testing.in_process import LocalService, running_service

MIXED = ["500", "502", "503", "429", "drop", "truncate", "silence", "html", "empty", "hang"]
CHUNKS, JOBS = 20, 100
REQUEST = SpeechRequest(model="m", voice="default")


async def measure(_folder: Path, report: Report) -> None:
    """Run and report."""
    configure_logs(logging.WARNING)
    await _mixed_failures(report, "three attempts", max_attempts=3)
    await _mixed_failures(report, "the default attempts")
    await _one_hung(report)
    await _limits(report)
    await _turns(report)


def _text(chunks: int, name: str) -> str:
    return " ".join(f"Sentence number {index} of the text called {name} is spoken here." for index in range(chunks))


@asynccontextmanager
async def _service(
    faults: Sequence[Faults], *, concurrency: int = 8, active: int = 8, **retry: Any
) -> AsyncIterator[tuple[LocalService, list[FakeBackend]]]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        backends = [await stack.enter_async_context(running_backend(each)) for each in faults]
        args = AppArgs.model_validate(
            {
                "store_url": f"sqlite+aiosqlite:///{Path(folder)}/jobs.db",
                "clip_url": f"file://{folder}/clips",
                "backends": [
                    {
                        "name": f"b{index}",
                        "protocol": "openai",
                        "url": f"{backend.url}/v1",
                        "model": "m",
                        "max_concurrency": concurrency,
                    }
                    for index, backend in enumerate(backends)
                ],
                "timeouts": {"base_ms": 2_000, "per_character_ms": 0, "margin_ms": 0, "cap_ms": 2_000},
                "retry": retry,
                "limits": {"max_active_jobs": active},
            }
        )
        yield await stack.enter_async_context(running_service(args)), backends


async def _done(service: LocalService, job_id: str) -> JobRecord:
    while (job := await service.service.wait("", job_id, 60)).state in (JobState.QUEUED, JobState.IN_PROGRESS):
        pass
    return job


async def _job_seconds(service: LocalService, chunks: int, name: str, request: SpeechRequest = REQUEST) -> float:
    started = time.perf_counter()
    job = (await service.service.create("", request, _text(chunks, name))).job
    job = await _done(service, job.id)
    assert job.state is JobState.COMPLETED, job
    return time.perf_counter() - started


async def _mixed_failures(report: Report, attempts: str, **retry: int) -> None:
    faults = [
        Faults(delay_ms=20, seed=seed, fail_rate=0.2, fail_kinds=MIXED, fixed_audio_ms=1_500) for seed in (1, 2, 3)
    ]
    async with _service(faults, base_ms=50, cap_ms=1_000, **retry) as (service, backends):
        started = time.perf_counter()
        created = [(await service.service.create("", REQUEST, _text(CHUNKS, f"{n}"))).job.id for n in range(JOBS)]
        jobs = await asyncio.gather(*(_done(service, job_id) for job_id in created))
        complete = sum(job.state is JobState.COMPLETED and job.chunks_completed == CHUNKS for job in jobs)
        calls = sum(len(backend.calls) for backend in backends)
        what = f"20 % of calls fail, {attempts}"
        report.row(f"{what}: of {JOBS} jobs complete", complete, at_least=None if retry else JOBS)
        report.row(f"{what}: calls for {JOBS * CHUNKS:,} chunks", calls)
        report.row(f"{what}: all jobs took", time.perf_counter() - started, " s")


async def _one_hung(report: Report) -> None:
    healthy = Faults(delay_ms=200, fixed_audio_ms=1_500, log_text=False)
    async with _service([healthy, healthy], concurrency=4) as (service, _):
        two = await _job_seconds(service, 100, "two")
    async with _service([healthy, healthy, Faults(always="hang")], concurrency=4) as (service, _):
        learning = await _job_seconds(service, 100, "learning")
        learnt = [await _job_seconds(service, 100, f"learnt-{n}") for n in range(3)]
    report.row("two healthy backends, 100 chunks of 200 ms", two, " s")
    report.row("a third one hangs: the first job over that", learning / two, "x")
    report.row(
        "a third one hangs: the next three jobs over that", [seconds / two for seconds in learnt], "x", at_most=1.5
    )


async def _limits(report: Report) -> None:
    faults = Faults(delay_ms=50, fixed_audio_ms=1_500, log_text=False)
    async with _service([faults, faults], concurrency=3, active=50) as (service, backends):
        await asyncio.gather(*(_job_seconds(service, 10, f"{n}") for n in range(50)))
        most = [backend.max_in_flight for backend in backends]
        report.row("50 jobs at once: most calls in flight, counted at each backend", most, at_most=3)


async def _turns(report: Report) -> None:
    faults = Faults(delay_ms=20, fixed_audio_ms=1_500, log_text=False)
    async with _service([faults]) as (service, _):
        alone = await _job_seconds(service, 3, "alone")
        long = (await service.service.create("", REQUEST, _text(5_000, "long"))).job.id
        await asyncio.sleep(3)
        beside = [await _job_seconds(service, 3, f"beside-{n}") for n in range(5)]
        assert (await service.service.cancel("", long)).state is JobState.CANCELLED  # it was running all the time
        report.row("3 chunks alone", alone * 1_000, " ms")
        report.row("3 chunks beside a job of 5,000", [seconds * 1_000 for seconds in beside], " ms")
