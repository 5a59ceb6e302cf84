"""The floor of the service's own work: the same job on the same stub, stores and disk, in one process.

No HTTP door, no Ray: what remains above the calls made directly is checking, keeping and committing.
"""

import logging
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.service import stub_config
from tts_actors.config import AppArgs
from tts_actors.logs import configure_logs
from tts_actors.models import JobState, SpeechRequest
from tts_actors.testing.in_process import LocalService, running_service

REQUEST = SpeechRequest(model="stub", voice="default", response_format="pcm")


@asynccontextmanager
async def one_process(backend_url: str) -> AsyncIterator[LocalService]:
    """The service, in this process."""
    configure_logs(logging.WARNING)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        args = stub_config(backend_url)["applications"][0]["args"] | {
            "store_url": f"sqlite+aiosqlite:///{Path(folder)}/jobs.db",
            "clip_url": f"file://{folder}/clips",
        }
        async with running_service(AppArgs.model_validate(args)) as service:
            yield service


async def job_in_one_process(local: LocalService, text: str) -> dict[str, float]:
    """Seconds from the acceptance of the text to its completion, and to its last sample."""
    started = time.perf_counter()
    job = (await local.service.create("", REQUEST, text)).job
    while (job := await local.service.wait("", job.id, 60)).state in (JobState.QUEUED, JobState.IN_PROGRESS):
        pass
    assert job.state is JobState.COMPLETED, job
    completed = time.perf_counter() - started
    _, output = await local.service.output("", job.id, "pcm", silence_for_gaps=False)
    size = 0
    async for block in output.read(0, output.size):
        size += len(block)
    assert size == output.size
    return {"completed": completed, "file": time.perf_counter() - started}
