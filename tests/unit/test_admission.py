"""The queue's door: who gets in, when the others should come back, and that nobody who got in is forgotten."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.jobs import NOW_MS, new_job, spoken
from tests.unit.local_service import created, local_service, until
from tts_actors.admission import LONGEST_WAIT_SECONDS, Admission
from tts_actors.config import AppArgs, LimitArgs
from tts_actors.errors import QueueFull
from tts_actors.models import Backlog, Ending, JobRecord, JobState, Priority, SpeechRequest
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import migrate
from tts_actors.testing import Faults, running_backend
from tts_actors.testing.in_process import running_service

FULL = QueueFull("full", 1.0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlJobStore]:
    url = f"sqlite+aiosqlite:///{tmp_path}/jobs.db"
    await migrate(url)
    store = SqlJobStore(url)
    yield store
    await store.close()


async def _ran(store: SqlJobStore, job_id: str, run_ms: int) -> None:
    await store.create_job(new_job(job_id), lambda _: 0)
    activation = await store.claim(job_id, owner="a", now_ms=NOW_MS, lease_ms=1_000)
    assert activation is not None
    ending = Ending(JobState.COMPLETED, NOW_MS + run_ms, NOW_MS + run_ms + 1_000)
    await store.finish(job_id, activation.job.epoch, ending=ending, results=[spoken(0), spoken(1)])


async def test_a_refused_caller_is_told_when_the_next_place_comes_free(store: SqlJobStore) -> None:
    for number, run_ms in enumerate([2_000, 40_000, 3_600_000]):
        await _ran(store, f"job-{number}", run_ms)
    admission = Admission(LimitArgs(max_active_jobs=4), store, lambda: 0.0)
    told = [(await admission.refusal(FULL)).retry_after_seconds for _ in range(3)]
    assert told == [10.0, 20.0, 30.0]  # the median of 40 s on four places, and each caller behind the one before


async def test_what_a_refused_caller_is_told_is_bounded(store: SqlJobStore) -> None:
    await _ran(store, "job-fast", 1)
    fast = Admission(LimitArgs(max_active_jobs=8), store, lambda: 0.0)
    assert (await fast.refusal(FULL)).retry_after_seconds == 1.0
    for number in range(3):
        await _ran(store, f"job-{number}", 10_000_000)
    slow = Admission(LimitArgs(max_active_jobs=1), store, lambda: 0.0)
    assert (await slow.refusal(FULL)).retry_after_seconds == LONGEST_WAIT_SECONDS


async def test_before_any_job_has_finished_the_waiting_jobs_bounds_count(store: SqlJobStore) -> None:
    admission = Admission(LimitArgs(max_active_jobs=2, max_queued_jobs=3), store, lambda: 0.0)
    assert admission.wait_ms(Backlog(4, 200_000)) == 100_000
    with pytest.raises(QueueFull, match=r"5 jobs wait.*max_queued_jobs is 3") as refused:
        admission.wait_ms(Backlog(5, 200_000))
    assert (await admission.refusal(refused.value)).retry_after_seconds == 20.0


async def test_the_line_of_refused_callers_moves_on_with_time(store: SqlJobStore) -> None:
    await _ran(store, "job-1", 10_000)
    clock = [0.0]
    admission = Admission(LimitArgs(max_active_jobs=1), store, lambda: clock[0])
    assert [(await admission.refusal(FULL)).retry_after_seconds for _ in range(2)] == [10.0, 20.0]
    clock[0] = 15.0
    assert (await admission.refusal(FULL)).retry_after_seconds == 15.0
    clock[0] = 1_000.0
    assert (await admission.refusal(FULL)).retry_after_seconds == 10.0


def _args(directory: Path, url: str, **limits: int) -> AppArgs:
    backend = {"name": "fake", "protocol": "openai", "url": f"{url}/v1", "model": "fake-tts", "max_concurrency": 16}
    return AppArgs.model_validate(
        {
            "store_url": f"sqlite+aiosqlite:///{directory}/jobs.db",
            "clip_url": f"file://{directory}/clips",
            "backends": [backend],
            "limits": limits,
        }
    )


async def test_of_a_thousand_jobs_at_once_each_is_accepted_or_refused_and_none_is_lost(tmp_path: Path) -> None:
    request = SpeechRequest(model="fake-tts", voice="default")
    async with (
        running_backend(Faults()) as backend,
        running_service(_args(tmp_path, backend.url, max_queued_jobs=100)) as service,
    ):
        asked = (service.service.create("", request, f"Job number {n}.") for n in range(1_000))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        accepted = [answer.job for answer in answers if not isinstance(answer, BaseException)]
        refused = [answer for answer in answers if isinstance(answer, BaseException)]
        assert {type(error) for error in refused} <= {QueueFull}
        assert len(accepted) >= 100
        assert all(1 <= error.retry_after_seconds <= 120 for error in refused if isinstance(error, QueueFull))
        ended = [await service.service.wait("", job.id, 120) for job in accepted]
        assert {job.state for job in ended} == {JobState.COMPLETED}
        assert len(backend.calls) == len(accepted)
        assert await service.service.unattended_jobs() == 0
        async with asyncio.timeout(30):  # the last end is in the store before the directory hears of it
            while (figures := await service.directory.figures())["active"]:  # noqa: ASYNC110 - no event to wait for
                await asyncio.sleep(0.01)
        assert figures["finished"] <= service.args.limits.max_active_jobs


async def test_waiting_jobs_run_by_priority_then_age(tmp_path: Path) -> None:
    async with (
        running_backend(Faults()) as backend,
        running_service(_args(tmp_path, backend.url, max_active_jobs=1, spare_actors=0)) as service,
    ):

        async def create(text: str, priority: Priority) -> JobRecord:
            request = SpeechRequest(model="fake-tts", voice="default", priority=priority)
            return (await service.service.create("", request, text)).job

        blocker = await create("[[delay:60000]] The one that runs.", Priority.INTERACTIVE)
        async with asyncio.timeout(30):
            while not backend.calls:  # noqa: ASYNC110 - the condition lies in a server, which sets no event of ours
                await asyncio.sleep(0.01)
        given = [("b1", Priority.BATCH), ("i1", Priority.INTERACTIVE), ("b2", Priority.BATCH)]
        waiting = [await create(f"This is {name}.", priority) for name, priority in [*given, ("i2", given[1][1])]]
        await service.service.cancel("", blocker.id)
        for job in waiting:
            assert (await service.service.wait("", job.id, 30)).state is JobState.COMPLETED
        spoken_texts = [call["text"] for call in backend.calls[1:]]
        assert spoken_texts == ["This is i1.", "This is i2.", "This is b1.", "This is b2."]


async def test_a_job_whose_turn_comes_while_it_is_cancelled_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with local_service(tmp_path, limits={"max_active_jobs": 1, "spare_actors": 0}) as (service, backend):
        blocker = await created(service, "[[fault:hang]] The one that runs.")
        waiting = await created(service, "[[fault:hang]] The one that waits.")
        await until(lambda: backend.calls)
        finish, raced = service.store.finish, False

        async def late(job_id: str, epoch: int, **ending: Any) -> int:
            nonlocal raced
            if job_id == waiting.id and not raced:
                raced = True
                service.directory._activate(job_id)
                while (job := await service.store.get_job(job_id)) is None or job.epoch == epoch:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            return await finish(job_id, epoch, **ending)

        monkeypatch.setattr(service.store, "finish", late)
        assert (await service.service.cancel("", waiting.id)).state is JobState.CANCELLED
        assert raced
        await service.service.cancel("", blocker.id)


async def test_a_claimed_job_whose_start_was_never_told_does_not_wait_for_its_lease_to_run_out(tmp_path: Path) -> None:
    async with local_service(tmp_path, limits={"spare_actors": 1}) as (service, _):
        await until(lambda: service.directory._spares)

        async def lost(*_: object) -> None:
            """The replica dies between the commit and the start."""

        async def nothing_due(**_: int) -> list[tuple[str, JobState]]:
            return []

        service.service._start = lost  # type: ignore[method-assign]
        service.store.due_jobs = nothing_due  # type: ignore[method-assign]
        job = await created(service, "One sentence. Another one.")
        assert (job.state, job.epoch) == (JobState.IN_PROGRESS, 1)
        job = await service.service.wait("", job.id, 30)
        assert (job.state, job.epoch) == (JobState.COMPLETED, 2)


async def test_a_job_that_runs_is_not_started_again_however_often_the_sweep_looks(tmp_path: Path) -> None:
    async with local_service(tmp_path, limits={"spare_actors": 1}) as (service, _):
        await until(lambda: service.directory._spares)
        job = await created(service, "[[delay:1500]] One sentence.")
        while (await service.service.get("", job.id)).state is not JobState.COMPLETED:
            await service.directory.sweep()
            await asyncio.sleep(0.05)
        assert (await service.service.get("", job.id)).epoch == 1


async def test_an_id_that_is_fetched_ahead_never_holds_the_last_place(tmp_path: Path) -> None:
    async with local_service(tmp_path, limits={"max_active_jobs": 2, "spare_actors": 2}) as (service, _):
        await until(lambda: len(service.directory._spares) == 2)
        assert (await service.directory.reserve(ahead=True)).owner is not None
        assert (await service.directory.reserve(ahead=True)).owner is None
        assert (await service.directory.reserve()).owner is not None
