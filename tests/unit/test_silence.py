"""Silent job actors are told, by their rows alone, from slow ones and from those that the store keeps waiting."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
import structlog

from tests.unit.jobs import new_job
from tests.unit.local_service import created, local_service, until
from tts_actors import directory, job_actor, job_service, silence
from tts_actors.errors import StoreUnavailable
from tts_actors.models import JobCounts, JobState
from tts_actors.silence import LATE_SECONDS, PATIENCE_SECONDS, SILENT_SECONDS, Silence
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import migrate
from tts_actors.testing.in_process import LocalJobHandle

T = TypeVar("T")
LEASE_MS = 10_000


class Outages(SqlJobStore):
    """A real store that is away when told, or takes its time."""

    away = False
    slow: Callable[[], None] | None = None

    async def warm(self) -> None:
        if self.slow:
            self.slow()
        await super().warm()

    async def _read(self, operation: Callable[[sa.Connection], T]) -> T:
        if self.away:
            raise StoreUnavailable("as told")
        return await super()._read(operation)

    async def _write(self, operation: Callable[[sa.Connection], T], *, alone: bool = False) -> T:
        if self.away:
            raise StoreUnavailable("as told")
        return await super()._write(operation, alone=alone)


class Watch:
    """A job that is claimed, the eyes of a directory, and one clock for both."""

    def __init__(self, store: Outages) -> None:
        self.store = store
        self.seconds = 1_000.0
        self.silence = Silence(store, "us", lambda: self.seconds)
        self.epoch = 0

    async def claim(self) -> None:
        await self.store.create_job(new_job(), lambda _: 0)
        claim = await self.store.claim("job-1", owner="us", now_ms=int(self.seconds * 1_000), lease_ms=LEASE_MS)
        assert claim is not None
        self.epoch = claim.job.epoch

    async def beat(self, behind_seconds: float = 0) -> None:
        """The actor prolongs its claim, by its own clock."""
        until_ms = int((self.seconds - behind_seconds) * 1_000) + LEASE_MS
        counts = JobCounts(0, 0, 0, 0, 0, 0)
        await self.store.record("job-1", self.epoch, results=[], counts=counts, lease_until_ms=until_ms)

    async def sweep(self) -> list[str]:
        self.seconds += 2
        return await self.look()

    async def look(self) -> list[str]:
        with self.silence.doubting():
            versions = await self.store.jobs_of("us")
        return [claim.job.id async for claim in self.silence.claims(versions)]

    async def seconds_until_claimed(self, within: float = 60) -> float:
        began = self.seconds
        while not await self.sweep():
            assert self.seconds < began + within, "nobody was found silent"
        return self.seconds - began


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    url = f"sqlite+aiosqlite:///{tmp_path}/jobs.db"
    await migrate(url)
    store = Outages(url)
    watch = Watch(store)
    await watch.claim()
    yield watch
    await store.close()


async def test_a_row_that_stands_still_for_longer_than_its_claim_is_claimed_once(watch: Watch) -> None:
    await watch.beat()
    assert LEASE_MS / 1_000 < await watch.seconds_until_claimed() <= SILENT_SECONDS + 4
    job = await watch.store.get_job("job-1")
    assert job is not None
    assert job.epoch == watch.epoch + 1
    assert list(await watch.store.jobs_of("us")) == ["job-1"]
    assert [await watch.sweep() for _ in range(5)] == [[]] * 5  # the next actor has its time from here


async def test_an_actor_that_writes_every_few_seconds_is_never_found_silent(watch: Watch) -> None:
    for _ in range(20):
        assert await watch.sweep() == []
        assert await watch.sweep() == []
        await watch.beat()


async def test_an_actor_whose_loop_stood_still_for_three_seconds_is_not_found_silent(watch: Watch) -> None:
    for _ in range(10):  # the heartbeat of 3 s comes 3 s late
        assert [await watch.sweep() for _ in range(3)] == [[]] * 3
        await watch.beat()


async def test_an_actor_whose_clock_is_half_a_minute_behind_is_not_found_silent(watch: Watch) -> None:
    for _ in range(20):
        await watch.beat(behind_seconds=30)
        assert await watch.sweep() == []
    assert SILENT_SECONDS <= await watch.seconds_until_claimed() <= SILENT_SECONDS + 4


async def test_a_store_that_was_away_for_40_seconds_makes_nobody_silent_until_all_had_time_to_write(
    watch: Watch,
) -> None:
    watch.store.away = True
    for _ in range(20):
        with pytest.raises(StoreUnavailable):
            await watch.sweep()
    watch.store.away = False
    back_at = watch.seconds
    while watch.seconds < back_at + 20:  # an operation that hung in the outage may take so long to end
        assert await watch.sweep() == []
    await watch.beat()
    assert SILENT_SECONDS <= await watch.seconds_until_claimed() <= SILENT_SECONDS + 4


async def test_an_actor_that_stays_silent_after_an_outage_is_found(watch: Watch) -> None:
    watch.store.away = True
    with pytest.raises(StoreUnavailable):
        await watch.sweep()
    watch.store.away = False
    assert PATIENCE_SECONDS - 2 <= await watch.seconds_until_claimed() <= PATIENCE_SECONDS + 4


async def test_after_a_sweep_that_came_late_nobody_is_judged_for_a_while(watch: Watch) -> None:
    for _ in range(4):
        assert await watch.sweep() == []
    watch.seconds += LATE_SECONDS + 60  # the machine was asleep, with all actors on it
    assert await watch.look() == []
    assert await watch.sweep() == []
    assert PATIENCE_SECONDS - 4 <= await watch.seconds_until_claimed() <= PATIENCE_SECONDS + 4


async def test_a_store_that_reads_well_but_writes_late_puts_the_verdict_off(watch: Watch) -> None:
    def late() -> None:
        watch.store.slow = None
        watch.seconds += 9  # somebody held the write lock, for the actors too

    watch.store.slow = late
    assert await watch.seconds_until_claimed() >= SILENT_SECONDS + 9 + PATIENCE_SECONDS - 2


async def test_an_actor_that_writes_in_the_last_moment_keeps_its_job(watch: Watch) -> None:
    await watch.sweep()
    for _ in range(4):
        await watch.sweep()
    versions = await watch.store.jobs_of("us")
    watch.seconds += 4
    await watch.beat()
    assert [claim.job.id async for claim in watch.silence.claims(versions)] == []
    job = await watch.store.get_job("job-1")
    assert job is not None
    assert job.epoch == watch.epoch


async def _stands_still(*_: object, **__: object) -> Any:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture
def _faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases, heartbeats and sweeps ten times as fast, all of them."""
    for module in (job_actor, job_service, directory, silence):
        monkeypatch.setattr(module, "LEASE_MS", 1_000)
    monkeypatch.setattr(job_actor, "HEARTBEAT_SECONDS", 0.3)
    monkeypatch.setattr(job_actor, "STORE_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(directory, "SWEEP_SECONDS", 0.2)
    monkeypatch.setattr(directory, "START_MS", 100)
    monkeypatch.setattr(silence, "SILENT_SECONDS", 1.1)
    monkeypatch.setattr(silence, "PATIENCE_SECONDS", 2.5)


@pytest.mark.usefixtures("_faster")
@pytest.mark.parametrize("spares", [0, 1], ids=["cold", "warm"])
async def test_the_job_of_a_silent_actor_gets_another_that_goes_on(tmp_path: Path, spares: int) -> None:
    async with local_service(tmp_path, limits={"spare_actors": spares}) as (service, backend):
        silent: list[LocalJobHandle] = []
        spawn = service.spawner.spawn

        async def first_one_is_silent(job_id: str, *, rehearse: bool = False) -> LocalJobHandle:
            service.spawner.spawn = spawn  # type: ignore[method-assign]
            silent.append(await spawn(job_id, rehearse=rehearse))
            silent[0].actor.run = _stands_still  # type: ignore[method-assign]
            return silent[0]

        await until(lambda: len(service.directory._spares) == spares)
        if spares:
            silent.append(next(iter(service.spawner.handles.values())))
            silent[0].actor.run = _stands_still  # type: ignore[method-assign]
        else:
            service.spawner.spawn = first_one_is_silent  # type: ignore[method-assign]
        with structlog.testing.capture_logs() as logs:
            job = await created(service, "One is told. Two is told.")
            job = await service.service.wait("", job.id, 30)
        assert (job.state, job.epoch) == (JobState.COMPLETED, 1 + spares)
        assert silent[0].killed
        assert [log["job_id"] for log in logs if log["event"] == "job_actor_silent"] == [job.id]
        assert len(backend.calls) == 2


@pytest.mark.usefixtures("_faster")
async def test_a_store_that_is_away_for_four_leases_costs_no_actor(tmp_path: Path) -> None:
    async with local_service(tmp_path, limits={"spare_actors": 0}) as (service, backend):
        read, write, away = service.store._read, service.store._write, False

        async def reads(*arguments: Any) -> Any:
            if away:
                raise StoreUnavailable("as told")
            return await read(*arguments)

        async def writes(*arguments: Any, **options: Any) -> Any:
            if away:
                raise StoreUnavailable("as told")
            return await write(*arguments, **options)

        service.store._read, service.store._write = reads, writes  # type: ignore[method-assign]
        with structlog.testing.capture_logs() as logs:
            job = await created(service, "One is told. [[delay:9000]] Two is told.")
            await until(lambda: len(backend.calls) == 2)
            actor = service.spawner.handles[job.id]
            away = True
            await until(lambda: sum(log["event"] == "sweep_postponed" for log in logs) >= 20)  # 4 s and more
            away = False
            ended = await service.service.wait("", job.id, 30)
        assert (ended.state, ended.epoch) == (JobState.COMPLETED, 1)
        assert service.spawner.handles[job.id] is actor
        assert len(backend.calls) == 2


@pytest.mark.usefixtures("_faster")
async def test_spares_that_do_not_answer_either_go_with_a_silent_actor_and_the_others_stay(tmp_path: Path) -> None:
    async with local_service(tmp_path, limits={"spare_actors": 2}) as (service, _):
        await until(lambda: len(service.directory._spares) == 2)
        reserved, dead = service.spawner.handles.values()  # the first is handed out next
        for handle in (reserved, dead):
            handle.actor.run = handle.actor.ready = _stands_still  # type: ignore[method-assign, assignment]
        job = await created(service, "One is told.")
        await until(lambda: len(service.directory._spares) == 2)  # a good one beside the dead one
        ((_, good),) = [pair for pair in service.directory._spares._waiting.items() if pair[1] is not dead]
        assert (await service.service.wait("", job.id, 30)).state is JobState.COMPLETED
        await until(lambda: dead.killed and len(service.directory._spares) == 2)
        assert good in service.directory._spares._waiting.values()
