"""What grows with a job or with the number of jobs: time per chunk, accepting, GET, the directory's memory. [aim 9]"""

import asyncio
import tempfile
import time
import tracemalloc
from pathlib import Path

from benchmarks.harness import Curve, Report, milliseconds, timed
from benchmarks.service import SENTENCE, Stage
from tts_actors.config import AppArgs
from tts_actors.directory import JobDirectory
from tts_actors.messages import Activation
from tts_actors.models import JobState
from tts_actors.spares import new_job_id
from tts_actors.stores.clips import ObjectClipStore
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import migrate

SIZES = {100: 5, 1_000: 2, 10_000: 1}
"""Chunks of a job, and how often it is measured: the largest takes a minute."""

READS = 30
JOBS = (1_000, 3_000, 10_000)


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    stage.backend.set_faults(delay_ms=0)  # what is left is our own work, and that is what could grow
    sizes = {100: 2, 500: 1} if report.quick else SIZES
    smallest, largest = min(sizes), max(sizes)
    per_chunk: dict[int, float] = {}
    accept: dict[int, float] = {}
    read: dict[int, float] = {}
    await stage.finished(await stage.start_job(SENTENCE * smallest))
    await stage.rest()
    for size, count in sizes.items():
        whole = []
        for _ in range(count):
            text, paths = SENTENCE * size, []
            whole.append(await timed(_whole(stage, text, paths)))
            await stage.rest()
        reads = [await timed(stage.get(paths[0])) for _ in range(READS)]
        accepts = [await _accept(stage, SENTENCE * size) for _ in range(report.count(5 if size < largest else 3))]
        await stage.rest()
        took = [1_000 * seconds / size for seconds in whole]
        per_chunk[size] = report.row(f"{size:,} chunks: time per chunk", took, " ms").median
        accept[size] = report.row(f"{size:,} chunks: POST to its answer", milliseconds(accepts), " ms").median
        read[size] = report.row(f"{size:,} chunks: GET of the finished job", milliseconds(reads), " ms").median
    stage.backend.set_faults(delay_ms=200)
    report.row(
        f"time per chunk: {largest:,} over {smallest:,}", per_chunk[largest] / per_chunk[smallest], "x", at_most=1.10
    )
    report.row(f"accepting {largest:,} chunks", accept[largest], " ms", at_most=1_000)
    report.row(f"GET: {largest:,} chunks over {smallest:,}", read[largest] / read[smallest], "x", at_most=2)
    axis = "chunks of the job"
    report.curves += [
        Curve("growth_time", "Time per chunk, POST to completed", axis, "ms", {"service": sorted(per_chunk.items())}),
        Curve(
            "growth_requests",
            "One request on a large job",
            axis,
            "ms",
            {"POST": sorted(accept.items()), "GET": sorted(read.items())},
        ),
    ]
    await _directory(report)


async def _whole(stage: Stage, text: str, paths: list[str]) -> None:
    paths.append(await stage.start_job(text))
    await stage.finished(paths[-1])


async def _accept(stage: Stage, text: str) -> float:
    """Seconds to accept it; it is deleted at once."""
    started = time.perf_counter()
    job = await stage.start_job(text)
    took = time.perf_counter() - started
    async with stage.session.delete(stage.url + job) as response:
        assert response.status == 204
    return took


class _Handle:
    """An actor whose job is done at once."""

    async def run(self, activation: Activation | None = None) -> JobState:
        return JobState.COMPLETED

    async def wait(self, version: int, timeout_seconds: float) -> int:
        return version

    async def cancel(self) -> None:
        return None

    def kill(self) -> None:
        return None

    def end(self) -> None:
        return None


class _Spawner:
    async def spawn(self, job_id: str, *, rehearse: bool = False) -> _Handle:
        return _Handle()


async def _directory(report: Report) -> None:
    """The directory itself, with actors that finish at once: what it remembers of jobs that are over."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        args = AppArgs.model_validate(
            {
                "store_url": f"sqlite+aiosqlite:///{folder}/jobs.db",
                "clip_url": f"file://{folder}/clips",
                "backends": [{"name": "b", "protocol": "openai", "url": "http://127.0.0.1:1/v1"}],
                "retention": {"retire_after_seconds": 0.01},
            }
        )
        await migrate(args.store_url)
        store = SqlJobStore(args.store_url)
        clips = ObjectClipStore(args.clip_url)
        directory = JobDirectory(spawner=_Spawner(), store=store, clips=clips, args=args, owner="bench")
        await directory.sweep()
        await _jobs(directory, 500)
        tracemalloc.start()
        before, done, line = tracemalloc.get_traced_memory()[0], 0, []
        for jobs in JOBS:
            await _jobs(directory, jobs - done)
            done = jobs
            line.append((jobs, (tracemalloc.get_traced_memory()[0] - before) / 1_024))
        tracemalloc.stop()
        await store.close()
    report.row(f"the directory's memory, growth over {JOBS[-1]:,} finished jobs", line[-1][1], " kB", at_most=1_024)
    report.curves.append(
        Curve(
            "growth_directory", "Memory of the directory", "finished jobs", "kB more than before", {"directory": line}
        )
    )


async def _jobs(directory: JobDirectory, count: int) -> None:
    for _ in range(count):
        await directory.start(new_job_id())
        while (await directory.figures())["active"] > 4:  # noqa: ASYNC110 - a turn of the loop is all it takes
            await asyncio.sleep(0)
    await asyncio.sleep(0.2)  # the last ones retire
