"""The service in one process in front of the fault-injecting speech server, for tests without HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tts_actors.config import AppArgs
from tts_actors.models import JobRecord, OnChunkFailure, SpeechRequest
from tts_actors.testing import FakeBackend, Faults, running_backend
from tts_actors.testing.in_process import LocalService, running_service

REQUEST = SpeechRequest(model="fake-tts", voice="default")
SILENT = SpeechRequest(model="fake-tts", voice="default", on_chunk_failure=OnChunkFailure.SILENCE)
WAIT_SECONDS = 60


def args_for(directory: Path, url: str, **changes: Any) -> AppArgs:
    """A configuration with its data in ``directory``; ``backend`` changes the one backend, the rest are fields."""
    backend = {"name": "fake", "protocol": "openai", "url": f"{url}/v1", "model": "fake-tts"}
    values: dict[str, Any] = {
        "store_url": f"sqlite+aiosqlite:///{directory}/jobs.db",
        "clip_url": f"file://{directory}/clips",
        "backends": [backend | changes.pop("backend", {})],
        "retry": {"max_attempts": 2, "base_ms": 1, "cap_ms": 1, "outage_ms": 0},
    }
    return AppArgs.model_validate(values | changes)


@asynccontextmanager
async def local_service(
    directory: Path, faults: Faults | None = None, **changes: Any
) -> AsyncIterator[tuple[LocalService, FakeBackend]]:
    """A running service and its backend."""
    async with (
        running_backend(faults or Faults()) as backend,
        running_service(args_for(directory, backend.url, **changes)) as service,
    ):
        yield service, backend


async def created(service: LocalService, text: str, request: SpeechRequest = REQUEST) -> JobRecord:
    """A job that was just accepted."""
    return (await service.service.create("", request, text)).job


async def finished(service: LocalService, text: str, request: SpeechRequest = REQUEST) -> JobRecord:
    """A job from its start to its end."""
    job = await created(service, text, request)
    return await service.service.wait("", job.id, WAIT_SECONDS)


async def audio_of(service: LocalService, job_id: str) -> bytes:
    """The job's WAV file."""
    _, output = await service.service.output("", job_id, "wav", silence_for_gaps=True)
    return b"".join([piece async for piece in output.read(0, output.size)])


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that sets no event of ours."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.01)
