"""A job's first chunk is spoken by the door; the job gets it, whatever becomes of the door."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.local_service import REQUEST, WAIT_SECONDS, audio_of, local_service, until
from tts_actors import awaited, opening
from tts_actors.audio import wav_header
from tts_actors.errors import StoreUnavailable, TtsError
from tts_actors.live import News, Track
from tts_actors.messages import SliceOrder, SliceProgress
from tts_actors.models import ChunkResult, JobInput, JobRecord, JobState, Priority
from tts_actors.opening import Opening
from tts_actors.outputs import Segment
from tts_actors.single_call import SingleCall
from tts_actors.speech import Speech, SpeechDoor
from tts_actors.stores.clips import ObjectClipStore
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.testing import FakeBackend, in_process
from tts_actors.testing.in_process import LocalService

FIRST = "The lamp in the window of the house by the sea was lit when the boats went out into the night"
REST = " The sea was calm. Nobody sailed far, for the wind had gone, and the moon stood above the harbour wall." * 3
TEXT = f"{FIRST}.{REST}"


def slow_first(marker: str) -> str:
    return f"{FIRST} {marker}.{REST}"


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[SliceOrder]:
    """What chunk workers are asked for; the door is none."""
    asked: list[SliceOrder] = []
    synthesize = in_process.synthesize_chunks

    def noting(order: SliceOrder, tools: Any) -> AsyncGenerator[SliceProgress]:
        asked.append(order)
        return synthesize(order, tools)

    monkeypatch.setattr(in_process, "synthesize_chunks", noting)
    return asked


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A door that says nothing while it speaks is soon given up for dead."""
    monkeypatch.setattr(awaited, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(opening, "AT_WORK_SECONDS", 60.0)


@asynccontextmanager
async def running(directory: Path, **changes: Any) -> AsyncIterator[tuple[LocalService, FakeBackend, SpeechDoor]]:
    async with local_service(directory, **changes) as (service, backend):

        async def tools() -> Any:
            return service.tools

        await until(lambda: service.directory._spares.warm)
        yield service, backend, SpeechDoor(service.args, service.service, SingleCall(service.args, tools))


async def speak(door: SpeechDoor, text: str = TEXT) -> Speech:
    return await door.speak("", REQUEST, text, repeated=False)


async def heard(speech: Speech) -> bytes:
    return b"".join([block async for block in speech.body])


async def ended(service: LocalService, speech: Speech) -> JobRecord:
    assert speech.job is not None
    return await service.service.wait("", speech.job.id, WAIT_SECONDS)


def calls_of(backend: FakeBackend) -> Counter[str]:
    return Counter(str(record["text"]) for record in backend.log.records)


async def test_the_door_speaks_the_first_chunk_and_workers_the_rest(tmp_path: Path, orders: list[SliceOrder]) -> None:
    async with running(tmp_path) as (service, backend, door):
        speech = await speak(door)
        audio = await heard(speech)
        job = await ended(service, speech)
        assert job.state is JobState.COMPLETED
        assert chunks_of_workers(orders, job) == list(range(1, job.chunk_total))
        assert set(calls_of(backend).values()) == {1}
        assert str(backend.log.records[0]["text"]).startswith(FIRST)
        first = (await service.service.chunks("", job.id))[0]
        assert first.result is not None
        assert first.result.attempts[0].outcome == "ok"
        file = await audio_of(service, job.id)
        assert audio
        assert len(file) > len(wav_header(None))


def chunks_of_workers(orders: list[SliceOrder], job: JobRecord) -> list[int]:
    return sorted(piece[0] for order in orders if order.job_id == job.id for piece in order.pieces)


async def test_so_is_that_of_an_interactive_job_that_nobody_listens_to_but_not_before_it_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orders: list[SliceOrder]
) -> None:
    create, calls_before = SqlJobStore.create_job, []

    async def slowly(store: SqlJobStore, *arguments: Any) -> Any:
        await asyncio.sleep(0.2)
        calls_before.append(len(backend.log.records))
        return await create(store, *arguments)

    monkeypatch.setattr(SqlJobStore, "create_job", slowly)
    async with running(tmp_path) as (service, backend, _):
        job = (await service.service.create("", REQUEST, TEXT)).job
        job = await service.service.wait("", job.id, WAIT_SECONDS)
        assert job.state is JobState.COMPLETED
        assert calls_before == [0]
        assert len(backend.log.records) == job.chunk_total
        assert chunks_of_workers(orders, job) == list(range(1, job.chunk_total))


async def test_a_batch_job_is_left_to_workers(tmp_path: Path, orders: list[SliceOrder]) -> None:
    async with running(tmp_path) as (service, _, _):
        job = (await service.service.create("", replace(REQUEST, priority=Priority.BATCH), TEXT)).job
        job = await service.service.wait("", job.id, WAIT_SECONDS)
        assert job.state is JobState.COMPLETED
        assert chunks_of_workers(orders, job) == list(range(job.chunk_total))


async def test_the_first_take_is_heard_before_it_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, put = asyncio.Event(), ObjectClipStore.put

    async def slowly(clips: ObjectClipStore, key: str, body: bytes) -> bool:
        await stored.wait()
        return await put(clips, key, body)

    monkeypatch.setattr(ObjectClipStore, "put", slowly)
    async with running(tmp_path) as (service, _, door):
        speech = await speak(door)
        async with asyncio.timeout(WAIT_SECONDS):
            first = await anext(speech.body)
        assert first
        job = await service.service.get("", speech.job.id if speech.job else "")
        assert job.chunks_completed == 0
        stored.set()
        await heard(speech)
        assert (await ended(service, speech)).state is JobState.COMPLETED


@pytest.mark.usefixtures("impatient")
async def test_a_door_that_dies_leaves_the_chunk_to_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orders: list[SliceOrder]
) -> None:
    async def dead(_: Opening) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Opening, "_run", dead)
    async with running(tmp_path) as (service, backend, door):
        speech = await speak(door)
        assert await heard(speech)
        assert (await ended(service, speech)).state is JobState.COMPLETED
        assert set(calls_of(backend).values()) == {1}
        late = orders[-1]
        assert [piece[0] for piece in late.pieces] == [0]
        assert late.adopt
        assert not late.sole


@pytest.mark.usefixtures("impatient")
async def test_a_door_that_dies_with_the_clip_stored_costs_no_second_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: Opening, __: object) -> None:
        pass

    monkeypatch.setattr(Opening, "_tell", silent)
    async with running(tmp_path) as (service, backend, door):
        speech = await speak(door)
        assert await heard(speech)
        assert (await ended(service, speech)).state is JobState.COMPLETED
        assert set(calls_of(backend).values()) == {1}


async def test_a_stream_ends_with_its_job_and_not_with_what_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, tell = asyncio.Event(), Opening._tell

    async def late(opened: Opening, result: ChunkResult) -> None:
        await told.wait()
        await tell(opened, result)

    monkeypatch.setattr(Opening, "_tell", late)
    async with running(tmp_path) as (service, _, door):
        speech = await speak(door)
        assert speech.job is not None
        rest = speech.job.chunk_total - 1
        listening = asyncio.create_task(heard(speech))
        _, _, news = await service.service.events("", speech.job.id, 0)
        async for item in news:
            if item.job.chunks_completed == rest:
                break
        await news.aclose()
        await asyncio.sleep(0.3)  # it would have ended by now
        assert not listening.done()
        told.set()
        await listening
        assert (await service.service.get("", speech.job.id)).state is JobState.COMPLETED


@pytest.mark.usefixtures("impatient")
async def test_a_slow_door_that_is_taken_for_dead_does_no_harm(tmp_path: Path) -> None:
    async with running(tmp_path) as (service, backend, door):
        speech = await speak(door, slow_first("[[delay:1500]]"))
        await heard(speech)
        assert (await ended(service, speech)).state is JobState.COMPLETED
        assert max(calls_of(backend).values()) == 2
        assert sum(count > 1 for count in calls_of(backend).values()) == 1


async def test_a_slow_door_that_says_that_it_is_at_work_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awaited, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(opening, "AT_WORK_SECONDS", 0.1)
    async with running(tmp_path) as (service, backend, door):
        speech = await speak(door, slow_first("[[delay:2500]]"))
        assert await heard(speech)
        assert (await ended(service, speech)).state is JobState.COMPLETED
        assert set(calls_of(backend).values()) == {1}


async def test_a_cancelled_job_closes_the_doors_call(tmp_path: Path) -> None:
    async with running(tmp_path) as (service, backend, door):
        speech = await speak(door, slow_first("[[fault:hang]]"))
        listening = asyncio.create_task(heard(speech))
        await until(lambda: len(backend.log.records) > 1)
        assert speech.job is not None
        job = await service.service.cancel("", speech.job.id)
        assert job.state is JobState.CANCELLED
        await until(lambda: not backend.log.in_flight)
        with pytest.raises(TtsError):
            await listening


async def test_a_first_chunk_that_fails_ends_the_job_and_says_why(tmp_path: Path) -> None:
    async with running(tmp_path) as (service, _, door):
        speech = await speak(door, slow_first("[[fault:400]]"))
        with pytest.raises(TtsError, match="400"):
            await heard(speech)
        job = await ended(service, speech)
        assert job.state is JobState.FAILED
        first = (await service.service.chunks("", job.id))[0]
        assert first.result is not None
        assert first.result.attempts[-1].status == 400


async def test_a_job_that_fails_elsewhere_does_not_wait_for_the_door(tmp_path: Path) -> None:
    broken = slow_first("[[fault:hang]]").replace("Nobody sailed", "Nobody [[fault:400]] sailed", 1)
    async with running(tmp_path) as (service, backend, door):
        speech = await speak(door, broken)
        assert (await ended(service, speech)).state is JobState.FAILED
        await until(lambda: not backend.log.in_flight)  # the door has given its call up
        await speech.body.aclose()


async def test_an_actor_lost_meanwhile_costs_one_call_at_most(tmp_path: Path) -> None:
    async with running(tmp_path) as (service, backend, door):
        speech = await speak(door, slow_first("[[delay:1000]]"))
        assert speech.job is not None
        await until(lambda: len(backend.log.records) > 1)
        service.spawner.handles[speech.job.id].kill()
        assert await heard(speech)
        job = await ended(service, speech)
        assert (job.state, job.epoch) == (JobState.COMPLETED, 2)
        assert max(calls_of(backend).values()) <= 2


async def test_a_job_that_waits_for_its_turn_is_not_opened(tmp_path: Path) -> None:
    async with running(tmp_path, limits={"max_active_jobs": 1}) as (service, backend, door):
        busy = await speak(door, slow_first("[[fault:hang]]"))
        await until(lambda: backend.log.records)
        waiting = await speak(door)
        assert waiting.job is not None
        assert waiting.job.state is JobState.QUEUED
        await asyncio.sleep(0.3)
        assert not calls_of(backend)[f"{FIRST}."]
        assert busy.job is not None
        await service.service.cancel("", busy.job.id)
        assert await heard(waiting)
        assert calls_of(backend)[f"{FIRST}."] <= 1
        await busy.body.aclose()


async def test_a_listener_who_heard_another_take_is_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path) as (service, _, door):
        speech = await speak(door)
        await heard(speech)
        job = await ended(service, speech)
        _, given = await service.service.input("", job.id)
        results = tuple((job.version, result) for result in await service.store.get_chunks(job.id))
        stored = results[0][1].clip
        assert stored is not None
        other = Segment(0, type(stored)(stored.key, stored.samples, "another"), 0, b"")

        assert [s.index for s in (await _track(given, job, results, None)).segments] == list(range(job.chunk_total))
        for lacking in (results, results[1:]):  # another take, and none: the job was cancelled before it was stored
            cut = await _track(given, job, lacking, other)
            assert isinstance(cut.error, StoreUnavailable)


async def _track(given: JobInput, job: JobRecord, results: Any, first: Segment | None) -> Track:
    async def news() -> AsyncGenerator[News]:
        yield News(job, results)

    track = Track(given, fills_gaps=False)
    if first is not None:
        track.begin(first)
    await track.fill(news())
    return track
