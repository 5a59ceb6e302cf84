"""A file that is encoded while its job is spoken is the file that would be made afterwards, and never does harm."""

import asyncio
import dataclasses
import io
import os
import threading
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import requests
import soundfile
from structlog.testing import capture_logs

from tests.unit.http_service import http_service
from tests.unit.local_service import REQUEST, SILENT, WAIT_SECONDS, local_service, until
from tts_actors import ahead, outputs
from tts_actors.audio import tone, wav_bytes
from tts_actors.chunk_worker import describe_clip
from tts_actors.errors import HasGaps, NotFound
from tts_actors.job_service import JobService
from tts_actors.models import SAMPLE_RATE_HZ, JobRecord, JobState, SpeechRequest
from tts_actors.outputs import Renderer, Segment
from tts_actors.stores.clips import ObjectClipStore
from tts_actors.testing import FakeBackend, Faults
from tts_actors.testing.in_process import LocalService

TEXT = "This is one of the sentences of the text. " * 20
BROKEN = "The first one is well. Here [[fault:400]] is one that is not. The last one is well."
MP3 = dataclasses.replace(REQUEST, response_format="mp3")


@pytest.fixture(autouse=True)
def _short_texts_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "WORTH_CHARACTERS", 1)
    monkeypatch.setattr(ahead, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(ahead, "NICENESS", 0)  # a test may not wait until a busy machine has nothing else to do


@asynccontextmanager
async def _service(
    directory: Path, delay_ms: int = 5, **changes: Any
) -> AsyncIterator[tuple[LocalService, FakeBackend]]:
    async with local_service(directory, Faults(delay_ms=delay_ms), **changes) as running:
        yield running


def _full_disk() -> BinaryIO:
    return open("/dev/full", "r+b", buffering=0)


async def _created(service: LocalService, text: str = TEXT, request: SpeechRequest = MP3) -> JobRecord:
    return (await service.service.create("", request, text, encode_ahead=True)).job


async def _ended(service: LocalService, job: JobRecord) -> JobState:
    return (await service.service.wait("", job.id, WAIT_SECONDS)).state


async def _nothing_runs(service: LocalService) -> None:
    await until(lambda: not service.service._ahead._tasks)


def _files(directory: Path) -> list[Path]:
    return [path for path in (directory / "clips").glob("*/outputs/*") if path.is_file()]


async def _audio(service: JobService, job: JobRecord, fmt: str | None = None, *, gaps: bool = False) -> bytes:
    _, output = await service.output("", job.id, fmt, silence_for_gaps=gaps)
    return b"".join([piece async for piece in output.read(0, output.size)])


@pytest.mark.parametrize("fmt", ["mp3", "flac", "opus"])
async def test_the_file_is_there_when_the_job_has_ended_and_is_the_one_made_afterwards(
    tmp_path: Path, fmt: str
) -> None:
    async with _service(tmp_path) as (service, _):
        job = await _created(service, request=dataclasses.replace(REQUEST, response_format=fmt))
        assert await _ended(service, job) is JobState.COMPLETED
        await _nothing_runs(service)
        [file] = _files(tmp_path)
        early = file.read_bytes()
        assert await _audio(service.service, job) == early
        file.unlink()
        late = await _audio(service.service, job)
        if fmt == "opus":  # two Ogg streams differ by their serial numbers
            assert (soundfile.read(io.BytesIO(late))[0] == soundfile.read(io.BytesIO(early))[0]).all()
        else:
            assert late == early


async def test_who_asks_waits_for_the_encoder_that_is_at_work_which_then_hurries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    threads: list[str] = []
    render, feed = Renderer.render, outputs._feed

    async def counted(self: Renderer, job_id: str, segments: Any, fmt: str, **how: Any) -> int:
        made.append(fmt)
        return await render(self, job_id, segments, fmt, **how)

    go = threading.Event()

    def noted(*args: Any) -> None:
        threads.append(threading.current_thread().name)
        assert go.wait(WAIT_SECONDS)
        feed(*args)

    monkeypatch.setattr(Renderer, "render", counted)
    monkeypatch.setattr(outputs, "_feed", noted)
    async with _service(tmp_path, delay_ms=50) as (service, _):
        job = await _created(service)
        assert await _ended(service, job) is JobState.COMPLETED
        asking = asyncio.create_task(_audio(service.service, job))
        await until(lambda: service.service._ahead._wanted)
        go.set()
        assert await asking
        assert made == ["mp3"]
        assert threads[0].startswith("encode-ahead")
        assert not threads[-1].startswith("encode-ahead")
        assert await _audio(service.service, job, "flac")
        assert made == ["mp3", "flac"]
        assert sorted(file.suffix for file in _files(tmp_path)) == [".flac", ".mp3"]


async def test_a_process_that_is_lost_half_way_leaves_nothing_and_another_makes_the_same_file(tmp_path: Path) -> None:
    async with _service(tmp_path, delay_ms=50) as (service, backend):
        job = await _created(service)
        other = JobService(service.args, store=service.store, clips=service.clips, directory=service.directory)
        await until(lambda: service.service._ahead._begun and len(backend.calls) > 6)
        for task in service.service._ahead._tasks.values():
            task.cancel()
        await _nothing_runs(service)
        assert await _ended(service, job) is JobState.COMPLETED
        assert _files(tmp_path) == []
        late = await _audio(other, job)
        undisturbed = await _created(service)
        assert await _ended(service, undisturbed) is JobState.COMPLETED
        assert await _audio(service.service, undisturbed) == late


async def test_a_job_whose_actor_is_lost_has_its_file_all_the_same(tmp_path: Path) -> None:
    async with _service(tmp_path, delay_ms=50) as (service, backend):
        job = await _created(service)
        await until(lambda: service.service._ahead._begun and len(backend.calls) > 6)
        service.spawner.handles[job.id].kill()
        assert await _ended(service, job) is JobState.COMPLETED
        await _nothing_runs(service)
        [file] = _files(tmp_path)
        early = file.read_bytes()
        file.unlink()
        assert await _audio(service.service, job) == early


@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_a_job_that_is_stopped_leaves_no_file(tmp_path: Path, how: str) -> None:
    async with _service(tmp_path, delay_ms=50) as (service, backend):
        job = await _created(service)
        await until(lambda: service.service._ahead._begun and len(backend.calls) > 6)
        with capture_logs() as logs:
            await getattr(service.service, how)("", job.id)
            await _nothing_runs(service)
        assert _files(tmp_path) == []
        reasons = [line["reason"] for line in logs if line["event"] == "not_encoded_ahead"]
        assert len(reasons) == 1
        with pytest.raises(NotFound if how == "delete" else HasGaps):
            await _audio(service.service, job)


async def test_a_failed_chunk_ends_it_and_a_gap_that_is_wanted_is_encoded(tmp_path: Path) -> None:
    async with _service(tmp_path) as (service, _):
        failed = await _created(service, BROKEN)
        assert await _ended(service, failed) is JobState.FAILED
        await _nothing_runs(service)
        assert _files(tmp_path) == []
        gappy = await _created(service, BROKEN, dataclasses.replace(SILENT, response_format="mp3"))
        assert await _ended(service, gappy) is JobState.COMPLETED_WITH_GAPS
        await _nothing_runs(service)
        [file] = _files(tmp_path)
        assert await _audio(service.service, gappy, gaps=True) == file.read_bytes()
        assert len(_files(tmp_path)) == 1


async def test_a_job_that_is_retried_has_a_file_of_all_of_it(tmp_path: Path) -> None:
    async with _service(tmp_path, retry={"max_attempts": 1, "base_ms": 1, "cap_ms": 1, "outage_ms": 0}) as (service, _):
        text = "The first one is well. Here [[fault:500*1]] is one that comes late. The last one is well."
        job = await _created(service, text)
        assert await _ended(service, job) is JobState.FAILED
        await service.service.retry("", job.id)
        assert await _ended(service, job) is JobState.COMPLETED
        assert await _audio(service.service, job)
        assert len(_files(tmp_path)) == 1


async def test_a_full_disk_harms_neither_the_job_nor_who_asks_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _service(tmp_path) as (service, _):
        with monkeypatch.context() as full, capture_logs() as logs:
            full.setattr(outputs.tempfile, "TemporaryFile", _full_disk)
            job = await _created(service)
            assert await _ended(service, job) is JobState.COMPLETED
            await _nothing_runs(service)
        assert [line["kind"] for line in logs if line["event"] == "not_encoded_ahead"] == ["OSError"]
        assert _files(tmp_path) == []
        assert await _audio(service.service, job)


async def test_a_job_that_waits_for_its_turn_is_encoded_in_its_turn(tmp_path: Path) -> None:
    async with _service(tmp_path, delay_ms=200, limits={"max_active_jobs": 1}) as (service, _):
        await until(
            lambda: service.directory._spares.warm
        )  # else the second may get the place that the first found cold
        jobs = []
        for text in (TEXT, TEXT + "It ends here.", TEXT + "It ends there."):
            jobs.append(await _created(service, text))
            await asyncio.sleep(0.002)  # those of one millisecond have their turns in any order
        assert len(service.service._ahead._begun) <= 1
        assert {await _ended(service, job) for job in jobs} == {JobState.COMPLETED}
        await _nothing_runs(service)
        assert sorted(file.parent.parent.name for file in _files(tmp_path)) == sorted(job.id for job in jobs)


async def test_a_short_text_and_a_wav_are_not_encoded_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _service(tmp_path) as (service, _):
        wav = await _created(service, request=dataclasses.replace(REQUEST, response_format="wav"))
        monkeypatch.setattr(ahead, "WORTH_CHARACTERS", len(TEXT) + 1)
        short = await _created(service)
        assert not service.service._ahead._tasks
        assert {await _ended(service, job) for job in (wav, short)} == {JobState.COMPLETED}
        assert _files(tmp_path) == []


def test_over_http_it_is_done_for_who_names_a_format(tmp_path: Path) -> None:
    with http_service(tmp_path) as service:
        jobs = f"{service.url}/v1/audio/speech/jobs"
        ids = []
        for named in ({}, {"response_format": "mp3"}):
            job = requests.post(jobs, json={"model": "fake-tts", "input": TEXT} | named, timeout=WAIT_SECONDS).json()
            ended = requests.get(f"{jobs}/{job['id']}?wait=60", timeout=WAIT_SECONDS + 30).json()
            assert ended["status"] == "completed"
            ids.append(job["id"])
        put = requests.put(f"{jobs}/one-of-mine", timeout=WAIT_SECONDS, json={
            "model": "fake-tts", "input": TEXT, "response_format": "flac"})  # fmt: skip
        assert put.status_code == 202
        assert requests.get(f"{jobs}/one-of-mine?wait=60", timeout=WAIT_SECONDS + 30).json()["status"] == "completed"
        asyncio.run_coroutine_threadsafe(_nothing_runs(service.parts), service.loop).result(WAIT_SECONDS)
        assert sorted(file.parent.parent.name for file in _files(tmp_path)) == sorted([ids[1], "one-of-mine"])


async def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    clips = ObjectClipStore(f"file://{tmp_path}/clips")
    body = wav_bytes(tone("ten seconds", seconds=10.0))
    await clips.put("job/clips/0.wav", body)
    clip = describe_clip("job/clips/0.wav", body)
    assert clip.samples == 10 * SAMPLE_RATE_HZ

    async def is_gone(_: str) -> bool:
        return False

    segments = [Segment(index, clip, 0) for index in range(40)]
    tracemalloc.start()
    try:
        size = await Renderer(clips, is_gone).render("job", segments, "flac")
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 40 * 10_000
    assert most_bytes < 10 * len(
        body
    )  # of 40 times as much; one clip is there in three forms, and libraries are loaded


def test_its_thread_has_a_low_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "NICENESS", 10)
    found: list[int] = []

    def look() -> None:
        ahead._step_back()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [max(before, 10)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
