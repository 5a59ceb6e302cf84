"""What nobody foresaw: clips that are damaged before a row tells of them, and faults in the service's own code."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest
import structlog

from tests.unit.local_service import SILENT, audio_of, created, finished, local_service, until
from tts_actors.audio import tone, wav_bytes
from tts_actors.chunk_worker import judge_clip, keep_clip
from tts_actors.errors import JobExpired
from tts_actors.job_actor import WorkerLost
from tts_actors.messages import Activation, SliceOrder, SliceProgress
from tts_actors.models import ChunkState, JobState
from tts_actors.protocols import Reply, Utterance
from tts_actors.stores.clips import ObjectClipStore
from tts_actors.testing.in_process import LocalJobHandle, LocalService

TEXT = "One is told. Two is stored only. Three is never begun."


def _dies_after_two(service: LocalService, clips: Path, damage: str) -> None:
    """The first worker stores two clips and tells of none; the second of them is damaged then."""
    speak = service.spawner.dispatch
    lost = False

    async def dies_once(order: SliceOrder) -> AsyncGenerator[SliceProgress]:
        nonlocal lost
        dies = bool(order.pieces) and not lost
        pieces = order.pieces[:2] if dies else order.pieces
        async with aclosing(speak(dataclasses.replace(order, pieces=pieces))) as stream:
            async for progress in stream:
                if not dies:
                    yield progress
        if dies:
            lost = True
            _damage(sorted((clips / order.job_id / "clips").iterdir())[1], damage)
            raise WorkerLost("as ordered")

    service.spawner.dispatch = dies_once


def _damage(clip: Path, damage: str) -> None:
    body = clip.read_bytes()
    clip.unlink()
    clip.write_bytes({"cut": body[:-2], "empty": b"", "zeros": bytes(len(body)), "silent": body[:44]}[damage])
    if damage == "silent":
        clip.write_bytes(body[:44] + bytes(len(body) - 44))


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "silent"])
async def test_a_damaged_clip_that_no_row_tells_of_is_spoken_again_and_a_good_one_is_not(
    tmp_path: Path, damage: str
) -> None:
    async with local_service(tmp_path, limits={"spare_actors": 0}) as (service, backend):
        undisturbed = await finished(service, TEXT)
        backend.log.records.clear()
        _dies_after_two(service, tmp_path / "clips", damage)
        with structlog.testing.capture_logs() as logs:
            job = await finished(service, TEXT)
        assert job.state is JobState.COMPLETED
        assert sorted(call["text"] for call in backend.calls) == sorted(
            ["One is told.", "Two is stored only.", "Two is stored only.", "Three is never begun."]
        )
        assert await audio_of(service, job.id) == await audio_of(service, undisturbed.id)
        assert [(log["event"], log["chunk"]) for log in logs if log["event"] == "damaged_clip"] == [("damaged_clip", 1)]


class CountingClips(ObjectClipStore):
    """Counts what is read."""

    reads = 0

    async def get(self, key: str) -> bytes | None:
        self.reads += 1
        return await super().get(key)


async def test_of_two_workers_takes_the_first_stays_and_is_what_the_row_tells_of(tmp_path: Path) -> None:
    clips = CountingClips(f"file://{tmp_path}")
    first, second = wav_bytes(tone("The first take.")), wav_bytes(tone("The second take, a longer one."))
    assert (await keep_clip(clips, "job/clips/0.wav", first, "text")).samples == (len(first) - 44) // 2
    assert clips.reads == 0  # the way of nearly every clip
    kept = await keep_clip(clips, "job/clips/0.wav", second, "text")
    assert kept == judge_clip("job/clips/0.wav", first, "text")
    assert await clips.get("job/clips/0.wav") == first


async def test_a_damaged_clip_gives_way_to_a_new_take(tmp_path: Path) -> None:
    clips = CountingClips(f"file://{tmp_path}")
    wav = wav_bytes(tone("A take."))
    await clips.put("job/clips/0.wav", wav[:-1])
    assert await keep_clip(clips, "job/clips/0.wav", wav, "text") == judge_clip("job/clips/0.wav", wav, "text")
    assert await clips.get("job/clips/0.wav") == wav


def test_silence_is_a_clip_only_of_a_text_without_letters() -> None:
    silence = wav_bytes(tone("x")[:0])
    assert judge_clip("key", silence, "* * *") is not None
    assert judge_clip("key", silence, "words") is None


async def test_a_fault_in_a_worker_fails_the_chunk_it_befell_and_the_others_are_spoken(tmp_path: Path) -> None:
    async with local_service(tmp_path) as (service, _):
        backend = service.tools.backends["fake"]
        speak = backend.speak

        async def faulty(utterance: Utterance) -> Reply:
            if "Two" in utterance.text:
                raise KeyError(utterance.text)
            return await speak(utterance)

        backend.speak = faulty  # type: ignore[method-assign]
        with structlog.testing.capture_logs() as logs:
            job = await finished(service, TEXT, SILENT)
        views = await service.service.chunks("", job.id)
    assert (job.state, job.activations) == (JobState.COMPLETED_WITH_GAPS, 1)
    assert [view.state for view in views] == [ChunkState.COMPLETED, ChunkState.FAILED, ChunkState.COMPLETED]
    assert views[1].reason == "a fault in the chunk worker: KeyError"
    assert views[1].result is not None
    assert views[1].result.timeout_ms == views[1].span.characters * 35 + 10_000
    (crash,) = [log for log in logs if log["event"] == "chunk_crashed"]
    assert crash["place"].endswith(" faulty")
    assert "Two" not in str(logs)


async def test_a_worker_that_fails_whatever_it_is_given_fails_the_job_at_once(tmp_path: Path) -> None:
    async with local_service(tmp_path, limits={"spare_actors": 0}) as (service, backend):

        async def faulty(order: SliceOrder) -> AsyncGenerator[SliceProgress]:
            if order.pieces:
                raise KeyError(order.pieces[0][2])
            yield SliceProgress((), 0)

        service.spawner.dispatch = faulty
        with structlog.testing.capture_logs() as logs:
            job = await finished(service, TEXT)
    assert (job.state, job.error_code, job.activations) == (JobState.FAILED, "worker_lost", 1)
    assert len([log for log in logs if log["event"] == "worker_crashed"]) == 5
    assert "One" not in str(logs)
    assert backend.calls == []


async def test_an_actor_that_fails_is_replaced_without_waiting_for_its_lease(tmp_path: Path) -> None:
    async with local_service(tmp_path, limits={"spare_actors": 0}) as (service, _):
        spawn = service.spawner.spawn

        async def fails(_: Activation | None = None) -> JobState:
            raise KeyError("nobody knows")

        async def first_one_fails(job_id: str, *, rehearse: bool = False) -> LocalJobHandle:
            handle = await spawn(job_id, rehearse=rehearse)
            handle.actor.run = fails  # type: ignore[method-assign]
            service.spawner.spawn = spawn  # type: ignore[method-assign]
            return handle

        service.spawner.spawn = first_one_fails  # type: ignore[method-assign]
        with structlog.testing.capture_logs() as logs:
            job = await finished(service, TEXT)
    assert job.state is JobState.COMPLETED
    assert "job_recovered" not in [log["event"] for log in logs]
    assert [log["kind"] for log in logs if log["event"] == "job_actor_failed"] == ["KeyError"]


async def test_a_fault_in_a_sweep_does_not_end_the_sweeps(tmp_path: Path) -> None:
    async with local_service(tmp_path) as (service, _):
        due, swept, failed = service.store.due_jobs, asyncio.Event(), False

        async def fails_once(*, now_ms: int, limit: int) -> list[tuple[str, JobState]]:
            nonlocal failed
            if not failed:
                failed = True
                raise KeyError("nobody knows")
            swept.set()
            return await due(now_ms=now_ms, limit=limit)

        service.store.due_jobs = fails_once  # type: ignore[method-assign]
        async with asyncio.timeout(30):
            await swept.wait()
        assert (await created(service, TEXT)).state


async def test_a_fault_while_the_queue_moves_on_is_told_and_the_queue_moves_on(tmp_path: Path) -> None:
    limits = {"spare_actors": 0, "max_active_jobs": 1}
    async with local_service(tmp_path, limits=limits) as (service, _):
        first = await created(service, "[[delay:300]] The one that runs.")
        queued_jobs = service.store.queued_jobs

        async def fails_once(*, limit: int) -> list[str]:
            service.store.queued_jobs = queued_jobs  # type: ignore[method-assign]
            raise KeyError("nobody knows")

        with structlog.testing.capture_logs() as logs:
            second = await created(service, "The one that waits.")
            await until(lambda: service.directory._queue_waits)
            service.store.queued_jobs = fails_once  # type: ignore[method-assign]
            for job in (first, second):
                assert (await service.service.wait("", job.id, 30)).state is JobState.COMPLETED
    assert [log["kind"] for log in logs if log["event"] in ("queue_crashed", "sweep_crashed")] == ["KeyError"]


async def test_a_clip_store_that_hangs_keeps_no_job_without_its_actor(tmp_path: Path) -> None:
    limits = {"spare_actors": 1}
    async with local_service(tmp_path, limits=limits) as (service, _):
        over = await finished(service, "Soon gone.", dataclasses.replace(SILENT, ttl_seconds=60))
        hangs = asyncio.Event()

        async def hang(*_: object, **__: object) -> None:
            hangs.set()
            await asyncio.Event().wait()

        async def lost(*_: object) -> None:
            """The replica dies between the commit and the start."""

        service.clips.delete_prefix = hang  # type: ignore[method-assign]
        now = service.directory._now
        service.directory._now = lambda: now() + 61
        async with asyncio.timeout(30):
            await hangs.wait()
        service.directory._now = now
        service.service._start = lost  # type: ignore[method-assign]
        orphan = await created(service, TEXT)
        assert (await service.service.wait("", orphan.id, 30)).state is JobState.COMPLETED
        with pytest.raises(JobExpired):
            await service.service.get("", over.id)


async def test_results_whose_commit_is_broken_off_by_a_cancel_are_written_with_the_end(tmp_path: Path) -> None:
    async with local_service(tmp_path, limits={"spare_actors": 0}) as (service, _):
        committing = asyncio.Event()

        async def hangs(*_: object, **__: object) -> int:
            committing.set()
            await asyncio.Event().wait()
            raise AssertionError

        service.store.record = hangs  # type: ignore[method-assign, assignment]
        job = await created(service, "One is spoken. [[delay:60000]] Two is not.")
        async with asyncio.timeout(30):
            await committing.wait()
        job = await service.service.cancel("", job.id)
        views = await service.service.chunks("", job.id)
    assert (job.state, job.chunks_completed) == (JobState.CANCELLED, 1)
    assert [view.result is not None for view in views] == [True, False]
