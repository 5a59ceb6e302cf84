"""Three flaky backends, many jobs: what completes, what a hung backend costs, whether limits and turns hold.

The whole service in this process, without Ray: stores, HTTP and faults are real, so are the pool and the workers.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.figures import show
from tts_actors.backends import BackendPool
from tts_actors.config import AppArgs, BackendArgs
from tts_actors.models import Attempt, JobRecord, JobState, LeaseReport, SpeechRequest
from tts_actors.testing import FakeBackend, Faults, running_backend
from tts_actors.testing.in_process import LocalService, running_service

MIXED = ["500", "502", "503", "429", "drop", "truncate", "silence", "html", "empty", "hang"]
CHUNKS, JOBS = 20, 100
REQUEST = SpeechRequest(model="m", voice="default")


def main() -> None:
    """Run and print."""
    asyncio.run(_mixed_failures(max_attempts=3))
    asyncio.run(_mixed_failures(max_attempts=6))
    asyncio.run(_one_hung())
    asyncio.run(_limits())
    asyncio.run(_turns())
    asyncio.run(_pool_alone())


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


async def _mixed_failures(max_attempts: int) -> None:
    faults = [
        Faults(delay_ms=20, seed=seed, fail_rate=0.2, fail_kinds=MIXED, fixed_audio_ms=1_500) for seed in (1, 2, 3)
    ]
    async with _service(faults, max_attempts=max_attempts, base_ms=50, cap_ms=1_000) as (service, backends):
        started = time.perf_counter()
        created = [(await service.service.create("", REQUEST, _text(CHUNKS, f"{n}"))).job.id for n in range(JOBS)]
        jobs = await asyncio.gather(*(_done(service, job_id) for job_id in created))
        complete = sum(job.state is JobState.COMPLETED and job.chunks_completed == CHUNKS for job in jobs)
        calls = sum(len(backend.calls) for backend in backends)
        show(
            f"20 % of calls fail, {max_attempts} attempts: jobs complete, coverage 1.0",
            f"{complete} of {JOBS}, {calls} calls, {time.perf_counter() - started:.1f} s",
            "100 of 100",
        )


async def _one_hung() -> None:
    healthy = Faults(delay_ms=200, fixed_audio_ms=1_500, log_text=False)
    async with _service([healthy, healthy], concurrency=4) as (service, _):
        two = await _job_seconds(service, 100, "two")
    async with _service([healthy, healthy, Faults(always="hang")], concurrency=4) as (service, _):
        learning = await _job_seconds(service, 100, "learning")
        learnt = [await _job_seconds(service, 100, f"learnt-{n}") for n in range(3)]
    show("two healthy backends, 100 chunks of 200 ms", f"{two:.2f} s")
    show("a third one hangs: the first job", f"{learning:.2f} s = {learning / two:.2f}x")
    shown = ", ".join(f"{seconds / two:.2f}x" for seconds in learnt)
    show("a third one hangs: the next three jobs", shown, "1.5x")


async def _limits() -> None:
    faults = Faults(delay_ms=50, fixed_audio_ms=1_500, log_text=False)
    async with _service([faults, faults], concurrency=3, active=50) as (service, backends):
        await asyncio.gather(*(_job_seconds(service, 10, f"{n}") for n in range(50)))
        most = [backend.max_in_flight for backend in backends]
        show("50 jobs at once: most calls in flight, counted at each backend", f"{most}", "3")


async def _turns() -> None:
    faults = Faults(delay_ms=20, fixed_audio_ms=1_500, log_text=False)
    async with _service([faults]) as (service, _):
        alone = await _job_seconds(service, 3, "alone")
        long = (await service.service.create("", REQUEST, _text(5_000, "long"))).job.id
        await asyncio.sleep(3)
        beside = [await _job_seconds(service, 3, f"beside-{n}") for n in range(5)]
        assert (await service.service.cancel("", long)).state is JobState.CANCELLED  # it was running all the time
        shown = ", ".join(f"{seconds * 1_000:.0f}" for seconds in beside)
        show("3 chunks alone, and beside a job of 5,000 (ms)", f"{alone * 1_000:.0f}; {shown}")


async def _pool_alone() -> None:
    names = ["a", "b", "c"]
    pool = BackendPool(
        [BackendArgs(name=name, protocol="openai", url="http://127.0.0.1", max_concurrency=16) for name in names], 90.0
    )
    calls = 20_000
    remaining = iter(range(calls))

    async def lane(job_id: str) -> None:
        for _ in remaining:
            (lease,) = await pool.acquire(job_id, names, [], 1)
            await asyncio.sleep(0)
            await pool.release([LeaseReport(lease.token, Attempt(lease.backend, "ok", 1), returned=True)])

    started = time.perf_counter()
    await asyncio.gather(*(lane(f"job-{n % 8}") for n in range(64)))
    seconds = time.perf_counter() - started
    show("the pool alone: one lease a call, 64 lanes of 8 jobs", f"{calls / seconds:.0f} chunks/s", "1,000")
    show("the pool alone: cost of a chunk", f"{seconds / calls * 1_000:.3f} ms", "3 ms")


if __name__ == "__main__":
    main()
