"""A job from claim to verdict, in one process: real stores, a real speech server over a socket, no Ray."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tests.unit.local_service import REQUEST, SILENT, args_for, created, finished, local_service, until
from tts_actors.errors import DirectoryUnavailable, NotFound
from tts_actors.job_actor import WorkerLost
from tts_actors.messages import SliceOrder, SliceProgress
from tts_actors.models import ChunkState, JobState
from tts_actors.testing import Faults, running_backend
from tts_actors.testing.in_process import LocalJobHandle, running_service


async def test_every_sentence_is_spoken_once_and_the_promise_is_kept(tmp_path: Path) -> None:
    text = "One short sentence. And here is a second one! Is this the third?"
    async with local_service(tmp_path) as (service, backend):
        job = await finished(service, text)
        assert job.state is JobState.COMPLETED
        assert sorted(call["text"] for call in backend.calls) == sorted(
            ["One short sentence.", "And here is a second one!", "Is this the third?"]
        )
        views = await service.service.chunks("", job.id)
        assert job.orchestrator_timeout_ms == max(v.result.timeout_ms for v in views if v.result)
        assert "".join(text[v.span.char_start : v.span.char_end] for v in views) == text


async def test_calls_at_once_never_exceed_the_backends_limit(tmp_path: Path) -> None:
    text = "This is a sentence of the text. " * 30
    async with local_service(tmp_path, Faults(delay_ms=20), backend={"max_concurrency": 3}) as (service, backend):
        jobs = [await created(service, text) for _ in range(3)]
        for job in jobs:
            assert (await service.service.wait("", job.id, 60)).state is JobState.COMPLETED
        assert backend.max_in_flight == 3


async def test_a_failing_chunk_is_tried_again_and_its_attempts_are_kept(tmp_path: Path) -> None:
    async with local_service(tmp_path, Faults(fail_times_per_text=1, fail_kind="503")) as (service, _):
        job = await finished(service, "Only one sentence here.")
        assert job.state is JobState.COMPLETED
        view = (await service.service.chunks("", job.id))[0]
        assert view.result is not None
        assert [(a.outcome, a.status) for a in view.result.attempts] == [("status", 503), ("ok", None)]


@pytest.mark.parametrize("fault", ["html", "empty", "silence", "truncate", "cut", "garbage", "clipped", "drop"])
async def test_what_is_not_speech_is_never_accepted(tmp_path: Path, fault: str) -> None:
    async with local_service(tmp_path, Faults(always=fault)) as (service, backend):
        job = await finished(service, "This text must be spoken in full.")
        assert job.state is JobState.FAILED
        assert job.error_code == "chunk_failed"
        assert len(backend.calls) == 2


async def test_a_client_error_is_not_tried_again_and_its_reason_is_kept(tmp_path: Path) -> None:
    async with local_service(tmp_path, Faults(always="400")) as (service, backend):
        job = await finished(service, "Nobody can say this.")
        assert job.state is JobState.FAILED
        assert len(backend.calls) == 1
        view = (await service.service.chunks("", job.id))[0]
        assert view.state is ChunkState.FAILED
        assert "HTTP 400" in (view.reason or "")


async def test_with_silence_the_other_chunks_are_spoken_and_the_gap_is_named(tmp_path: Path) -> None:
    text = "The first is fine. [[fault:400]] is in the second. The third is fine."
    async with local_service(tmp_path) as (service, _):
        job = await finished(service, text, SILENT)
        assert job.state is JobState.COMPLETED_WITH_GAPS
        views = await service.service.chunks("", job.id)
        states = [view.state for view in views]
        assert states.count(ChunkState.FAILED) == 1
        assert all(v.state is ChunkState.COMPLETED for v in views if "fault" not in _text(text, v))


def _text(text: str, view: Any) -> str:
    return text[view.span.char_start : view.span.char_end]


async def test_a_hanging_backend_ends_within_the_promised_bound(tmp_path: Path) -> None:
    timeouts = {"base_ms": 50, "per_character_ms": 0, "backend_cap_ms": 50, "margin_ms": 50, "cap_ms": 100}
    async with local_service(tmp_path, Faults(always="hang"), timeouts=timeouts) as (service, backend):
        job = await finished(service, "One sentence. Another sentence.", SILENT)
        assert job.state is JobState.FAILED
        assert job.finished_at_ms is not None
        assert job.finished_at_ms - job.created_at_ms <= job.job_timeout_ms
        views = await service.service.chunks("", job.id)
        assert [v.result.timeout_ms for v in views if v.result] == [100, 100]
        assert {a.outcome for v in views if v.result for a in v.result.attempts} == {"timeout"}
        assert all(call["client_gone"] for call in backend.calls)


async def test_bytes_that_keep_coming_do_not_extend_the_timeout(tmp_path: Path) -> None:
    timeouts = {"base_ms": 100, "per_character_ms": 0, "backend_cap_ms": 100, "margin_ms": 100, "cap_ms": 200}
    async with local_service(tmp_path, Faults(always="slow_drip"), timeouts=timeouts) as (service, _):
        job = await finished(service, "One sentence that drips very slowly indeed.")
        assert job.state is JobState.FAILED
        assert "within 200 ms" in (job.error_message or "")


async def test_the_deadline_ends_a_job_whatever_its_chunks_do(tmp_path: Path) -> None:
    async with local_service(tmp_path, Faults(always="hang")) as (service, _):
        service.service._now = lambda: 0.0  # accepted long ago: its deadline has passed
        job = await finished(service, "Too late.")
        assert (job.state, job.error_code) == (JobState.FAILED, "deadline_exceeded")


async def test_news_that_are_held_back_come_with_the_jobs_end(tmp_path: Path) -> None:
    async with local_service(tmp_path, Faults(delay_ms=30), backend={"max_concurrency": 1}) as (service, _):
        job = await created(service, "One sentence. Another one. A third one.")
        await until(lambda: job.id in service.spawner.handles)
        await service.spawner.handles[job.id].wait(job.version, 60, 60)
        assert (await service.service.get("", job.id)).state is JobState.COMPLETED


async def test_cancel_closes_the_sockets_of_running_calls(tmp_path: Path) -> None:
    async with local_service(tmp_path, Faults(always="hang")) as (service, backend):
        job = await created(service, "One sentence. Another one.")
        await until(lambda: len(backend.calls) == 2)
        assert (await service.service.cancel("", job.id)).state is JobState.CANCELLED
        await until(lambda: all(call["client_gone"] for call in backend.calls))
        assert (await service.service.cancel("", job.id)).state is JobState.CANCELLED


async def test_a_killed_actor_is_replaced_and_nothing_is_spoken_twice(tmp_path: Path) -> None:
    text = "This is a sentence of the text. " * 20
    async with local_service(tmp_path, Faults(delay_ms=30), backend={"max_concurrency": 2}) as (service, backend):
        accepted = await service.service.create("", REQUEST, text)
        job, plan = accepted.job, accepted.plan
        before = job.orchestrator_timeout_ms
        while (await service.service.get("", job.id)).chunks_completed < 5:
            await service.directory.wait(job.id, 0, 0.05)
        stored = len([v for v in await service.service.chunks("", job.id) if v.result])
        service.spawner.handles[job.id].kill()
        job = await service.service.wait("", job.id, 60)
        assert (job.state, job.epoch) == (JobState.COMPLETED, 2)
        assert job.orchestrator_timeout_ms == before
        assert len(backend.calls) <= len(plan.spans) + 2 + 2  # two were running, two takes may have been on their way
        assert stored >= 5


async def test_an_older_actor_is_fenced_and_stops(tmp_path: Path) -> None:
    async with local_service(tmp_path, Faults(delay_ms=1_000)) as (service, _):
        job = await created(service, "One sentence. Another one.")
        while (await service.service.get("", job.id)).epoch < 1:  # the first must have claimed it: it is the older one
            await service.directory.wait(job.id, 0, 0.05)
        second = await service.spawner.spawn("job-second")
        second.actor._job_id = job.id
        assert await second.run() is JobState.COMPLETED
        job = await service.service.get("", job.id)
        assert (job.epoch, job.chunks_completed, job.state) == (2, 2, JobState.COMPLETED)


async def test_a_job_that_kills_its_actor_again_and_again_fails_with_that_reason(tmp_path: Path) -> None:
    async with local_service(tmp_path, limits={"max_activations": 1}) as (service, _):
        job = await created(service, "[[delay:60000]] Never spoken.")
        while (await service.service.get("", job.id)).epoch < 1:
            await service.directory.wait(job.id, 0, 0.05)
        service.spawner.handles[job.id].kill()
        job = await service.service.wait("", job.id, 30)
        assert (job.state, job.error_code) == (JobState.FAILED, "too_many_activations")


async def test_jobs_beyond_the_active_cap_wait_and_all_end(tmp_path: Path) -> None:
    async with local_service(tmp_path, Faults(delay_ms=20), limits={"max_active_jobs": 2}) as (service, _):
        jobs = [await created(service, f"Job number {n}.") for n in range(7)]
        assert (await service.directory.figures())["active"] <= 2
        ended = [await service.service.wait("", job.id, 30) for job in jobs]
        assert {job.state for job in ended} == {JobState.COMPLETED}


async def test_a_restart_of_everything_goes_on_where_it_was(tmp_path: Path) -> None:
    text = "This is a sentence of the text. " * 10
    async with running_backend(Faults(delay_ms=50)) as backend:
        args = args_for(tmp_path, backend.url, backend={"max_concurrency": 1})
        async with running_service(args) as service:
            accepted = await service.service.create("", REQUEST, text)
            job, plan = accepted.job, accepted.plan
            while (await service.service.get("", job.id)).chunks_completed < 3:
                await service.directory.wait(job.id, 0, 0.05)
            service.spawner.handles[job.id].kill()
        async with running_service(args) as service:
            after = await service.service.wait("", job.id, 30)
            assert after.state is JobState.COMPLETED
            assert after.orchestrator_timeout_ms == plan.orchestrator_timeout_ms
            assert after.deadline_at_ms == job.deadline_at_ms
            assert len(backend.calls) <= len(plan.spans) + 1


async def test_a_deleted_job_leaves_nothing(tmp_path: Path) -> None:
    async with local_service(tmp_path) as (service, _):
        job = await finished(service, "Soon gone.")
        await service.service.delete("", job.id)
        with pytest.raises(NotFound):
            await service.service.get("", job.id)
        assert [path for path in (tmp_path / "clips").rglob("*") if path.is_file()] == []


async def test_retry_speaks_only_what_failed(tmp_path: Path) -> None:
    async with local_service(tmp_path, Faults(fail_times_per_text=2, fail_kind="400")) as (service, backend):
        backend.faults.fail_times_per_text = 0
        text = "The first is fine. This second one says [[fault:400*1]] once."
        job = await finished(service, text)
        assert job.state is JobState.FAILED
        spoken = {c["text"] for c in backend.calls if c["status"] == 200}
        before = len(backend.calls)
        await service.service.retry("", job.id)
        job = await service.service.wait("", job.id, 30)
        assert job.state is JobState.COMPLETED
        assert not spoken & {call["text"] for call in backend.calls[before:]}


async def test_what_a_dead_worker_stored_without_telling_is_not_spoken_again(tmp_path: Path) -> None:
    text = "One is told. Two is stored only. Three is never begun."
    async with local_service(tmp_path) as (service, backend):
        speak, orders = service.spawner.dispatch, list[SliceOrder]()

        async def dies_once(order: SliceOrder) -> AsyncGenerator[SliceProgress]:
            if not order.pieces:
                return  # a spare actor's rehearsal
            orders.append(order)
            first = len(orders) == 1
            pieces = order.pieces[:2] if first else order.pieces
            async with aclosing(speak(dataclasses.replace(order, pieces=pieces))) as stream:
                results = [result async for progress in stream for result in progress.results]
            yield SliceProgress(tuple(results[:1] if first else results), 0)
            if first:
                raise WorkerLost("as ordered")

        service.spawner.dispatch = dies_once
        assert (await finished(service, text)).state is JobState.COMPLETED
        assert [order.adopt for order in orders] == [False, True]
        assert len(backend.calls) == 3


async def test_the_name_of_a_lost_actor_is_free_for_the_next(tmp_path: Path) -> None:
    async with local_service(tmp_path, Faults(delay_ms=300)) as (service, _):
        spawn = service.spawner.spawn

        async def one_of_a_name(job_id: str, *, rehearse: bool = False) -> LocalJobHandle:
            earlier = service.spawner.handles.get(job_id)
            if earlier is not None and not earlier.killed:
                raise DirectoryUnavailable("the name is taken")
            return await spawn(job_id, rehearse=rehearse)

        service.spawner.spawn = one_of_a_name  # type: ignore[method-assign]
        job = await created(service, "One sentence. Another one.")
        while (handle := service.spawner.handles.get(job.id)) is None or handle.running is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        handle.running.cancel()  # lost, not killed by us
        after = await service.service.wait("", job.id, 30)
        assert (after.state, handle.killed) == (JobState.COMPLETED, True)
