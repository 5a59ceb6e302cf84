"""A job's actor as Python sees it: what it takes from outside while the job runs, and what it refuses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tts_actors.audio import wav_bytes
from tts_actors.config import AppArgs
from tts_actors.errors import Conflict, InvalidRequest, JobExpired, NotFound, NotReady, StaleEpoch
from tts_actors.job_actor import JobActor
from tts_actors.models import SAMPLE_RATE_HZ, JobRecord, JobState, OnChunkFailure, SpeechRequest
from tts_actors.testing import FakeBackend, Faults, running_backend
from tts_actors.testing.in_process import LocalService, running_service

TEXT = "One sentence for us. And another one for them."


@asynccontextmanager
async def _running(directory: Path, faults: Faults, **limits: int) -> AsyncIterator[tuple[LocalService, FakeBackend]]:
    async with running_backend(faults) as backend:
        args = AppArgs.model_validate(
            {
                "store_url": f"sqlite+aiosqlite:///{directory}/jobs.db",
                "clip_url": f"file://{directory}/clips",
                "backends": [{"name": "fake", "protocol": "openai", "url": f"{backend.url}/v1", "model": "fake-tts"}],
                "retry": {"max_attempts": 1},
                "limits": limits,
            }
        )
        async with running_service(args) as service:
            yield service, backend


async def _hanging(service: LocalService, failure: OnChunkFailure = OnChunkFailure.FAIL) -> tuple[JobRecord, JobActor]:
    """A running job whose backend does not answer, and its actor."""
    request = SpeechRequest(model="fake-tts", voice="default", on_chunk_failure=failure)
    job = (await service.service.create("", request, TEXT)).job
    async with asyncio.timeout(30):
        while (await service.service.get("", job.id)).state is not JobState.IN_PROGRESS:
            await service.directory.wait(job.id, 0, 0.05)
        while service.spawner.handles[job.id].actor._ledger is None:  # noqa: ASYNC110 - it takes its claim up
            await asyncio.sleep(0.01)
    return job, service.spawner.handles[job.id].actor


async def _done(service: LocalService, text: str = TEXT, **fields: Any) -> JobRecord:
    request = SpeechRequest(model="fake-tts", voice="default", **fields)
    job = (await service.service.create("", request, text)).job
    return await service.service.wait("", job.id, 30)


async def _retired(service: LocalService, job_id: str) -> None:
    """Retire the job's actor: a job has ended in the store a moment before its actor counts as finished."""
    async with asyncio.timeout(10):
        while job_id not in service.directory._finished:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.01)
    service.directory._retire(job_id, service.directory._finished[job_id])


def _speech(seconds: float = 1.5) -> bytes:
    times = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return wav_bytes((8_000 * np.sin(2 * np.pi * 220 * times)).astype(np.int16))


async def test_a_job_can_be_spoken_by_its_caller(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults(always="hang")) as (service, backend):
        job, actor = await _hanging(service)
        await actor.store_chunk(0, _speech())
        assert (await service.service.get("", job.id)).chunks_completed == 1
        with pytest.raises(Conflict, match="chunk 0 has a result"):
            await actor.store_chunk(0, _speech())
        await actor.store_chunk(1, _speech())
        ended = await service.service.get("", job.id)
        assert (ended.state, ended.chunks_completed) == (JobState.COMPLETED, 2)
        _, output = await service.service.output("", job.id, "wav", silence_for_gaps=False)
        assert output.size > 2 * SAMPLE_RATE_HZ * 2
        async with asyncio.timeout(10):
            while not all(call["client_gone"] for call in backend.calls):  # noqa: ASYNC110 - lies in a server
                await asyncio.sleep(0.01)
        with pytest.raises(Conflict, match="the job is completed"):
            await actor.store_chunk(1, _speech())


@pytest.mark.parametrize(
    ("failure", "state"),
    [(OnChunkFailure.FAIL, JobState.FAILED), (OnChunkFailure.SILENCE, JobState.COMPLETED_WITH_GAPS)],
)
async def test_a_chunk_given_up_counts_as_the_caller_of_the_job_asked(
    tmp_path: Path, failure: OnChunkFailure, state: JobState
) -> None:
    async with _running(tmp_path, Faults(always="hang")) as (service, _):
        job, actor = await _hanging(service, failure)
        await actor.store_chunk(1, _speech())
        await actor.mark_chunk_failed(0, "nobody can say this")
        ended = await service.service.get("", job.id)
        assert (ended.state, ended.chunks_failed) == (state, 1)
        result = await actor.retrieve_chunk(0)
        assert result is not None
        assert result.error == "nobody can say this"


async def test_metadata_is_replaced_while_the_job_runs(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults(always="hang")) as (service, _):
        job, actor = await _hanging(service)
        await actor.store_metadata({"shelf": "7"})
        assert (await service.service.get("", job.id)).request.metadata == {"shelf": "7"}
        for wrong in ({str(n): "" for n in range(17)}, {"a": "x" * 513}, {"a": 1}, "words"):
            with pytest.raises(InvalidRequest, match="metadata must be"):
                await actor.store_metadata(wrong)  # type: ignore[arg-type]
        assert (await service.service.get("", job.id)).request.metadata == {"shelf": "7"}


async def test_only_an_end_can_be_set_as_status(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults(always="hang")) as (service, _):
        job, actor = await _hanging(service)
        assert await actor.update_status("in_progress") == "in_progress"
        with pytest.raises(Conflict, match="follows from the chunks"):
            await actor.update_status("completed")
        assert await actor.update_status("failed", "the book was withdrawn") == "failed"
        ended = await service.service.get("", job.id)
        assert (ended.error_code, ended.error_message) == ("failed_by_caller", "the book was withdrawn")
        with pytest.raises(Conflict, match="the job is failed"):
            await actor.update_status("cancelled")
        job, actor = await _hanging(service)
        assert await actor.update_status("cancelled") == "cancelled"


async def test_what_is_not_speech_of_the_chunk_is_refused_and_not_stored(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults(always="hang")) as (service, _):
        job, actor = await _hanging(service)
        for audio in (b"", b"not audio", wav_bytes(np.zeros(SAMPLE_RATE_HZ, np.int16))):
            with pytest.raises(InvalidRequest, match="audio"):
                await actor.store_chunk(0, audio)
        for index in (-1, 2, True):
            with pytest.raises(NotFound, match="chunks 0 to 1"):
                await actor.store_chunk(index, _speech())
        with pytest.raises(InvalidRequest, match="reason"):
            await actor.mark_chunk_failed(0, "")
        assert await actor.retrieve_chunk(0) is None
        assert [path for path in (tmp_path / "clips" / job.id).rglob("*") if path.is_file()] == []


async def test_an_actor_whose_job_was_claimed_by_another_writes_nothing(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults(always="hang")) as (service, _):
        job, actor = await _hanging(service)
        claimed = await service.store.claim(job.id, owner=service.directory._owner, now_ms=0, lease_ms=60_000)
        assert claimed is not None
        for write in (
            lambda: actor.store_metadata({"a": "b"}),
            lambda: actor.store_chunk(0, _speech()),
            lambda: actor.mark_chunk_failed(1, "no"),
            lambda: actor.update_status("failed"),
            actor.delete,
        ):
            with pytest.raises(StaleEpoch):
                await write()
        after = await service.service.get("", job.id)
        assert (after.epoch, after.state, after.chunks_completed) == (2, JobState.IN_PROGRESS, 0)
        assert after.request.metadata == {}


@pytest.mark.parametrize("runs", [True, False])
async def test_delete_removes_the_job_with_its_audio(tmp_path: Path, runs: bool) -> None:
    async with _running(tmp_path, Faults(always="hang" if runs else None)) as (service, _):
        job = (await _hanging(service))[0] if runs else await _done(service)
        await service.spawner.handles[job.id].actor.delete()
        with pytest.raises(NotFound):
            await service.service.get("", job.id)
        assert [path for path in (tmp_path / "clips").rglob("*") if path.is_file()] == []
        with pytest.raises(NotFound):
            await service.spawner.handles[job.id].actor.delete()


async def test_a_retired_job_is_revived_read_and_deleted(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults()) as (service, _):
        job = await _done(service)
        first = service.spawner.handles[job.id]
        await service.directory.revive(job.id)
        assert service.spawner.handles[job.id] is first  # it had not retired yet
        await _retired(service, job.id)
        await service.directory.revive(job.id)
        actor = service.spawner.handles[job.id].actor
        assert service.spawner.handles[job.id] is not first
        assert (await actor.retrieve())["status"] == "completed"
        await actor.cancel()  # an ended job has nothing to stop
        assert (await actor.retrieve())["status"] == "completed"
        service.directory._retire(job.id, first)  # the first one's timer does not end the second one
        assert job.id in service.directory._finished
        with pytest.raises(Conflict, match="the job is completed"):
            await actor.mark_chunk_failed(0, "too late")
        await actor.delete()
        await _retired(service, job.id)
        with pytest.raises(NotFound):
            await service.directory.revive(job.id)


async def test_what_cannot_be_revived_says_why(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults(), max_active_jobs=1, spare_actors=0) as (service, _):
        job = await _done(service)
        await _retired(service, job.id)
        await service.store.expire(job.id, now_ms=0, only_due=False)
        with pytest.raises(JobExpired):
            await service.directory.revive(job.id)
        request = SpeechRequest(model="fake-tts", voice="default")
        blocker = (await service.service.create("", request, "[[delay:60000]] It runs.")).job
        waiting = (await service.service.create("", request, "It waits.")).job
        with pytest.raises(NotReady, match="the job is queued"):
            await service.directory.revive(waiting.id)
        await service.service.cancel("", blocker.id)
        assert (await service.service.wait("", waiting.id, 30)).state is JobState.COMPLETED


async def test_a_revived_jobs_retry_has_an_actor_of_its_own(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults()) as (service, _):
        job = await _done(service, "This fails: [[fault:400*1]] once.")
        assert job.state is JobState.FAILED
        await _retired(service, job.id)
        await service.directory.revive(job.id)
        revived = service.spawner.handles[job.id]
        await service.service.retry("", job.id)
        assert (await service.service.wait("", job.id, 30)).state is JobState.COMPLETED
        assert service.spawner.handles[job.id] is not revived
