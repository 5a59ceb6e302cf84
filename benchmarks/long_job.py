"""Accepting a job of 10,000 chunks, and reading it, against one of 10: on SQLite, and on PostgreSQL if it is there.

No Ray: the store and the planner are what grows with a job. Set ``TTS_BENCH_POSTGRES`` to a ``postgresql+asyncpg://``
URL of an empty database to measure that too.
"""

import os
import time
from pathlib import Path

from benchmarks.harness import Report, milliseconds
from tts_actors.config import AppArgs
from tts_actors.job_service import JobService
from tts_actors.messages import Reservation
from tts_actors.models import ChunkingMode, JobState, SpeechRequest
from tts_actors.stores.clips import ObjectClipStore
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import migrate

CREATES, READS = 5, 200
REQUEST = SpeechRequest("m", "v", chunking_mode=ChunkingMode.SENTENCE, chunking_max_characters=60)


class _Nobody:
    """A directory that runs nothing: what is measured is the acceptance."""

    async def reserve(self) -> Reservation:
        return Reservation(f"job-{os.urandom(12).hex()}")

    async def start(self, job_id: str, activation: object = None) -> None:
        return None


async def _measure(store_url: str, directory: Path, report: Report) -> None:
    args = AppArgs.model_validate(
        {
            "store_url": store_url,
            "clip_url": f"file://{directory}/clips",
            "backends": [{"name": "b", "protocol": "openai", "url": "http://127.0.0.1:1/v1"}],
        }
    )
    await migrate(store_url)
    store = SqlJobStore(store_url)
    service = JobService(args, store=store, clips=ObjectClipStore(args.clip_url), directory=_Nobody())  # type: ignore[arg-type]
    kind = store_url.partition(":")[0]
    reads: dict[int, float] = {}
    for count in (10, 10_000):
        text = "".join(f"This is sentence number {number:05d} of this long text here. " for number in range(count))
        took, ids = [], []
        for _ in range(CREATES):
            began = time.perf_counter()
            made = await service.create("", REQUEST, text)
            took.append(time.perf_counter() - began)
            ids.append(made.job.id)
            assert made.job.chunk_total == count
        report.row(f"{kind}: accept {count} chunks", milliseconds(took), " ms", at_most=1_000)
        times = []
        for number in range(READS):
            began = time.perf_counter()
            job = await service.get("", ids[number % CREATES])
            times.append(time.perf_counter() - began)
            assert job.state is JobState.QUEUED
        reads[count] = report.row(f"{kind}: GET of {count} chunks", milliseconds(times), " ms").median
    report.row(f"{kind}: GET of 10,000 chunks over GET of 10", reads[10_000] / reads[10], "x", at_most=2)
    await store.close()


async def measure(folder: Path, report: Report) -> None:
    """Run and report."""
    await _measure(f"sqlite+aiosqlite:///{folder}/jobs.db", folder, report)
    if url := os.environ.get("TTS_BENCH_POSTGRES"):
        await _measure(url, folder, report)
