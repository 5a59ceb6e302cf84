"""What a job store must do; every test runs on SQLite and on a real PostgreSQL."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.unit.jobs import NOW_MS, failed, new_job, spoken
from tts_actors.errors import NotFound, QueueFull, StaleEpoch, StoreUnavailable
from tts_actors.ledger import Ledger
from tts_actors.models import Backlog, Ending, JobState, OnChunkFailure, Priority, SpeechRequest
from tts_actors.stores import engines
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import migrate
from tts_actors.stores.removals import LOOK_AGAIN_MS
from tts_actors.stores.tables import metadata


def _admit(_: Backlog) -> int:
    return 0


async def _claimed(store: SqlJobStore, owner: str = "a", now_ms: int = NOW_MS) -> int:
    job = await store.claim("job-1", owner=owner, now_ms=now_ms, lease_ms=1_000)
    assert job is not None
    return job.job.epoch


async def test_what_is_created_is_read_back(store: SqlJobStore) -> None:
    job = new_job()
    created, _ = await store.create_job(job, _admit)
    assert await store.get_job("job-1") == created
    given = await store.get_input("job-1")
    assert given is not None
    assert (given.text, given.plan) == (job.text, job.plan)
    assert created.state is JobState.QUEUED
    assert await store.get_job("job-2") is None


async def test_a_second_create_with_the_same_key_or_id_gives_the_first_job(store: SqlJobStore) -> None:
    first, _ = await store.create_job(new_job("job-1", idempotency_key="k"), _admit)
    assert await store.create_job(new_job("job-2", idempotency_key="k"), _admit) == (first, False)
    assert await store.create_job(new_job("job-1"), _admit) == (first, False)
    other, _ = await store.create_job(new_job("job-3", idempotency_key="k", tenant="t"), _admit)
    assert other.id == "job-3"


async def test_a_full_queue_refuses_and_stores_nothing(store: SqlJobStore) -> None:
    def admit(backlog: Backlog) -> int:
        if backlog.queued:
            raise QueueFull(f"{backlog.queued} jobs wait")
        return 0

    await store.create_job(new_job("job-1"), admit)
    with pytest.raises(QueueFull, match="1 jobs wait"):
        await store.create_job(new_job("job-2"), admit)
    assert await store.get_job("job-2") is None


async def test_the_deadline_counts_the_run_and_the_wait_behind_the_backlog(store: SqlJobStore) -> None:
    await store.create_job(new_job("job-1"), _admit)
    job, _ = await store.create_job(new_job("job-2"), lambda backlog: backlog.run_timeout_ms // 2)
    assert job.job_timeout_ms == 60_000 + 30_000
    assert job.deadline_at_ms == NOW_MS + 90_000


async def test_jobs_made_at_once_count_each_other(store: SqlJobStore) -> None:
    seen: list[Backlog] = []

    def admit(backlog: Backlog) -> int:
        seen.append(backlog)
        return 0

    await asyncio.gather(*(store.create_job(new_job(f"job-{number}"), admit) for number in range(5)))
    assert sorted(seen, key=lambda backlog: backlog.queued) == [Backlog(n, 60_000 * n) for n in range(5)]


async def test_results_and_counts_are_committed_together(store: SqlJobStore) -> None:
    await store.create_job(new_job(), _admit)
    epoch = await _claimed(store)
    ledger = Ledger(new_job().plan, OnChunkFailure.SILENCE)
    results = ledger.record([spoken(0), failed(1)])
    await store.record("job-1", epoch, results=results, counts=ledger.counts(3), lease_until_ms=NOW_MS + 5)
    job = await store.get_job("job-1")
    assert job is not None
    assert (job.chunks_completed, job.chunks_failed, job.chunks_in_flight) == (1, 1, 3)
    assert await store.get_chunks("job-1") == [spoken(0), failed(1)]
    assert await store.get_chunk("job-1", 1) == (job, failed(1))
    assert await store.get_chunk("job-1", 2) == (job, None)
    assert await store.get_chunk("job-2", 0) is None


async def test_of_two_owners_the_older_epoch_cannot_write(store: SqlJobStore) -> None:
    await store.create_job(new_job(), _admit)
    old = await _claimed(store, "a")
    assert await store.claim("job-1", owner="b", now_ms=NOW_MS + 500, lease_ms=1_000) is None
    new = await _claimed(store, "b", NOW_MS + 1_001)
    ledger = Ledger(new_job().plan, OnChunkFailure.FAIL)
    with pytest.raises(StaleEpoch):
        await store.record("job-1", old, results=[spoken(0)], counts=ledger.counts(0), lease_until_ms=0)
    with pytest.raises(StaleEpoch):
        await store.finish("job-1", old, ending=Ending(JobState.FAILED, 1, 2))
    assert await store.get_chunks("job-1") == []
    await store.finish("job-1", new, ending=Ending(JobState.CANCELLED, 1, 2))


async def test_a_finished_job_takes_no_more_results(store: SqlJobStore) -> None:
    await store.create_job(new_job(), _admit)
    epoch = await _claimed(store)
    await store.finish("job-1", epoch, ending=Ending(JobState.CANCELLED, 1, 2))
    counts = Ledger(new_job().plan, OnChunkFailure.FAIL).counts(0)
    with pytest.raises(StaleEpoch):
        await store.record("job-1", epoch, results=[spoken(0)], counts=counts, lease_until_ms=0)
    assert await store.claim("job-1", owner="a", now_ms=NOW_MS, lease_ms=1) is None


async def test_retry_forgets_failures_and_keeps_clips(store: SqlJobStore) -> None:
    await store.create_job(new_job(), _admit)
    epoch = await _claimed(store)
    ledger = Ledger(new_job().plan, OnChunkFailure.FAIL)
    results = ledger.record([spoken(0), failed(1)])
    await store.record("job-1", epoch, results=results, counts=ledger.counts(0), lease_until_ms=0)
    await store.finish("job-1", epoch, ending=Ending(JobState.FAILED, 1, 2, ("c", "m")))
    job = await store.requeue("job-1", now_ms=NOW_MS, deadline_at_ms=NOW_MS + 9)
    assert (job.state, job.error_code, job.chunks_failed) == (JobState.QUEUED, None, 0)
    assert await store.get_chunks("job-1") == [spoken(0)]


async def test_alarms_and_the_queue_name_the_right_jobs(store: SqlJobStore) -> None:
    batch = SpeechRequest("m", "v", priority=Priority.BATCH)
    await store.create_job(new_job("job-0", request=batch, created_at_ms=NOW_MS - 10), _admit)
    await store.create_job(new_job("job-1"), _admit)
    await store.create_job(new_job("job-2", created_at_ms=NOW_MS + 1), _admit)
    assert await store.queued_jobs(limit=9) == ["job-1", "job-2", "job-0"]
    await _claimed(store)
    assert await store.queued_jobs(limit=9) == ["job-2", "job-0"]
    due = await store.due_jobs(now_ms=NOW_MS + 1_500, limit=9)
    assert due == [("job-1", JobState.IN_PROGRESS)]


async def test_listing_is_newest_first_by_tenant_and_pages(store: SqlJobStore) -> None:
    for number in range(5):
        job = new_job(f"job-{number}", created_at_ms=NOW_MS + number // 2, tenant="t" if number == 4 else "")
        await store.create_job(job, _admit)
    first = await store.list_jobs("", limit=3, after=None, state=None)
    assert [job.id for job in first] == ["job-3", "job-2", "job-1"]
    rest = await store.list_jobs("", limit=3, after="job-1", state=None)
    assert [job.id for job in rest] == ["job-0"]
    assert await store.list_jobs("", limit=3, after=None, state=JobState.FAILED) == []
    with pytest.raises(NotFound):
        await store.list_jobs("", limit=3, after="job-4", state=None)


async def test_deleting_takes_the_text_and_the_chunks_along(store: SqlJobStore) -> None:
    await store.create_job(new_job(), _admit)
    epoch = await _claimed(store)
    counts = Ledger(new_job().plan, OnChunkFailure.FAIL).counts(0)
    await store.record("job-1", epoch, results=[spoken(0)], counts=counts, lease_until_ms=0)
    assert await store.delete_job("job-1", now_ms=NOW_MS)
    assert not await store.delete_job("job-1", now_ms=NOW_MS)
    assert await store.get_input("job-1") is None
    assert await store.get_chunks("job-1") == []


async def test_expiry_keeps_the_row_and_drops_the_rest(store: SqlJobStore) -> None:
    await store.create_job(new_job(), _admit)
    epoch = await _claimed(store)
    await store.finish("job-1", epoch, ending=Ending(JobState.CANCELLED, 1, 2))
    over_ms = NOW_MS + 10_000_000_000
    assert await store.due_jobs(now_ms=over_ms, limit=9) == []
    assert await store.ended_lives(now_ms=1, limit=9) == []
    assert await store.ended_lives(now_ms=over_ms, limit=9) == ["job-1"]
    await store.expire("job-1", now_ms=over_ms, only_due=True)
    job = await store.get_job("job-1")
    assert job is not None
    assert job.state is JobState.EXPIRED
    assert await store.get_input("job-1") is None
    assert await store.ended_lives(now_ms=over_ms, limit=9) == []


async def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    store = SqlJobStore(f"sqlite+aiosqlite:///{tmp_path}/nowhere/jobs.db")
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await store.close()


async def test_the_migrations_make_exactly_the_tables_of_the_code(store: SqlJobStore, store_url: str) -> None:
    await migrate(store_url)  # a second time does nothing

    def differences(connection: sa.Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    assert await store._database.read(differences) == []


async def test_commits_reach_the_disk_before_the_answer(store: SqlJobStore, store_url: str) -> None:
    def setting(statement: str) -> Callable[[sa.Connection], object]:
        return lambda connection: connection.exec_driver_sql(statement).scalar_one()

    if store_url.startswith("sqlite"):
        assert await store._database.read(setting("PRAGMA journal_mode")) == "wal"
        assert await store._database.read(setting("PRAGMA synchronous")) == 2
    else:
        assert await store._database.read(setting("SHOW synchronous_commit")) == "on"


async def test_warming_up_leaves_nothing_behind(store: SqlJobStore) -> None:
    await store.warm()
    assert await store.list_jobs("", limit=9, after=None, state=None) == []
    assert await store.get_chunks("-") == []


async def test_a_directory_finds_what_its_predecessor_had_claimed(store: SqlJobStore) -> None:
    await store.create_job(new_job(), _admit)
    await _claimed(store, "a")
    assert await store.jobs_of("a") == {"job-1": 2}  # its version: made, claimed
    assert await store.jobs_of("b") == {}
    assert await store.jobs_of("a", lease_before_ms=NOW_MS) == {}


async def test_two_creates_at_once_with_one_key_make_one_job(store: SqlJobStore, store_url: str) -> None:
    others = [SqlJobStore(store_url) for _ in range(3)]
    jobs = [new_job(f"job-{number}", idempotency_key="k") for number in range(16)]
    stores = [store, *others]
    answers = await asyncio.gather(
        *(stores[number % 4].create_job(job, _admit) for number, job in enumerate(jobs)),
    )
    for other in others:
        await other.close()
    assert len({job.id for job, _ in answers}) == 1
    assert sum(made for _, made in answers) == 1
    assert len(await store.list_jobs("", limit=99, after=None, state=None)) == 1


async def test_creates_at_once_never_pass_the_queues_bound(store: SqlJobStore, store_url: str) -> None:
    def admit(backlog: Backlog) -> int:
        if backlog.queued >= 3:
            raise QueueFull("3 jobs wait")
        return 0

    other = SqlJobStore(store_url)
    answers = await asyncio.gather(
        *((store, other)[number % 2].create_job(new_job(f"job-{number}"), admit) for number in range(12)),
        return_exceptions=True,
    )
    await other.close()
    assert sum(isinstance(answer, QueueFull) for answer in answers) == 9
    assert len(await store.queued_jobs(limit=99)) == 3


async def test_of_claims_at_once_one_wins(store: SqlJobStore, store_url: str) -> None:
    other = SqlJobStore(store_url)
    await store.create_job(new_job(), _admit)
    claims = await asyncio.gather(
        *(
            (store, other)[number % 2].claim("job-1", owner=f"o{number}", now_ms=NOW_MS, lease_ms=1_000)
            for number in range(8)
        )
    )
    await other.close()
    assert [claim.job.epoch for claim in claims if claim is not None] == [1]


async def test_a_write_whose_answer_was_lost_can_be_made_again(store: SqlJobStore) -> None:
    await store.create_job(new_job(), _admit)
    epoch = await _claimed(store)
    ledger = Ledger(new_job().plan, OnChunkFailure.FAIL)
    results = ledger.record([spoken(0)])
    for _ in range(2):
        await store.record("job-1", epoch, results=results, counts=ledger.counts(0), lease_until_ms=NOW_MS)
    assert await store.get_chunks("job-1") == [spoken(0)]


async def test_migrations_at_once_do_not_meet(store_url: str) -> None:
    await asyncio.gather(*(migrate(store_url) for _ in range(4)))
    store = SqlJobStore(store_url)
    await store.ping()
    await store.close()


async def test_any_text_is_read_back_as_it_was(store: SqlJobStore) -> None:
    text = "null \x00, \x1a0 and \x1as, emoji 👩‍👩‍👧, lines\r\n and \u2028 ends"
    await store.create_job(new_job("job-1", len(text), text=text), _admit)
    given = await store.get_input("job-1")
    assert given is not None
    assert given.text == text
    assert await store.get_job("job\x00") is None
    with pytest.raises(NotFound):
        await store.list_jobs("", limit=3, after="job\x00", state=None)


async def test_a_writer_that_never_gets_its_turn_is_told_so_and_writes_nothing_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "OPERATION_SECONDS", 0.2)
    url = f"sqlite+aiosqlite:///{tmp_path}/jobs.db"
    await migrate(url)
    store = SqlJobStore(url)
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        creates = [store.create_job(new_job(f"job-{number}"), _admit) for number in range(4)]
        told = await asyncio.gather(*creates, return_exceptions=True)
        other.execute("ROLLBACK")
    assert {type(answer) for answer in told} == {StoreUnavailable}
    await store.create_job(new_job("job-last"), _admit)
    stored = {job.id for job in await store.list_jobs("", limit=9, after=None, state=None)}
    assert stored == {"job-last"}  # what had not begun when its caller was told was dropped
    await store.close()


async def test_what_was_removed_is_looked_for_once_more_unless_its_id_is_a_jobs_again(store: SqlJobStore) -> None:
    later = NOW_MS + LOOK_AGAIN_MS
    for job_id in ("job-1", "job-2"):
        await store.create_job(new_job(job_id), _admit)
        assert await store.delete_job(job_id, now_ms=NOW_MS)
    assert await store.next_removal(now_ms=later - 1) is None
    await store.create_job(new_job("job-1"), _admit)
    assert await store.next_removal(now_ms=later) == "job-2"
    await store.forget_removals(None, now_ms=later)
    await store.forget_removals("job-2", now_ms=later)
    assert await store.next_removal(now_ms=later) is None
    assert await store.delete_job("job-1", now_ms=later)
    assert await store.next_removal(now_ms=later) is None
    assert await store.next_removal(now_ms=later + LOOK_AGAIN_MS) == "job-1"


async def test_a_job_that_is_retried_in_the_moment_of_its_expiry_keeps_its_text(store: SqlJobStore) -> None:
    await store.create_job(new_job(), _admit)
    epoch = await _claimed(store)
    await store.finish("job-1", epoch, ending=Ending(JobState.FAILED, NOW_MS, NOW_MS + 1_000), results=[spoken(0)])
    assert not await store.expire("job-1", now_ms=NOW_MS, only_due=True)
    await store.requeue("job-1", now_ms=NOW_MS + 2_000, deadline_at_ms=NOW_MS + 60_000)
    assert not await store.expire("job-1", now_ms=NOW_MS + 10_000, only_due=True)
    assert await store.get_input("job-1") is not None
    assert len(await store.get_chunks("job-1")) == 1
