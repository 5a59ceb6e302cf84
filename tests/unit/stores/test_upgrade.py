"""An upgrade meets what older versions wrote: their rows are read, and their running jobs go on."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from tests.unit.jobs import NOW_MS, new_job
from tts_actors.errors import ConfigError, NewerJob
from tts_actors.messages import Activation
from tts_actors.models import JOB_FORMAT, Boundary, ChunkingMode, JobState, Loudness, OnChunkFailure
from tts_actors.stores.care import JobStoreCare
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import MIGRATIONS, migrate
from tts_actors.stores.tables import jobs
from tts_actors.timeouts import TimeoutPolicy

# What the first version wrote, to the byte.
REQUEST = (
    '{"chunking_max_characters": null, "chunking_mode": "character_count", "instructions": null, "language": null, '
    '"metadata": {"book": "1"}, "model": "hibari", "on_chunk_failure": "silence", "priority": "interactive", '
    '"response_format": "mp3", "speed": 1.0, "ttl_seconds": null, "voice": "heart"}'
)
PLAN = (
    '{"spans":[[0,10,"sentence"],[10,24,"end"]],"marks":[[0,0,0,10],[1,1,10,24]],"bounds_ms":[10840,61234,250],'
    '"timeouts":[5000,35,70000,5000,75000]}'
)
JOB = {
    "id": "job-of-old",
    "tenant": "",
    "state": "in_progress",
    "version": 3,
    "epoch": 1,
    "activations": 1,
    "owner": "an-older-service",
    "next_alarm_at_ms": 1_000,
    "priority": 0,
    "request": REQUEST,
    "request_hash": "",
    "character_count": 24,
    "chunk_total": 2,
    "chunks_completed": 1,
    "chunks_failed": 0,
    "chunks_in_flight": 1,
    "audio_samples": 2_400,
    "characters_done": 10,
    "orchestrator_timeout_ms": 10_840,
    "job_timeout_ms": 61_234,
    "run_timeout_ms": 61_234,
    "poll_after_ms": 250,
    "created_at_ms": 500,
    "started_at_ms": 600,
    "deadline_at_ms": 61_734,
}
CHUNK = (
    "job-of-old",
    0,
    2,
    10_350,
    "job-of-old/clips/000000-0.wav",
    2_400,
    "0" * 64,
    '[["local", "ok", 5, null, null]]',
)


def _write_as_the_first_version(path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    with closing(sqlite3.connect(path)) as database, database:
        _insert(database)


def _insert(database: sqlite3.Connection) -> None:
    """The rows of a running job, with the columns that the first version knew."""
    names, marks = ", ".join(JOB), ", ".join("?" * len(JOB))
    database.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", list(JOB.values()))  # noqa: S608 - ours
    database.execute("INSERT INTO job_inputs VALUES (?, ?, ?)", ("job-of-old", "x" * 24, PLAN))
    database.execute(
        "INSERT INTO chunks (job_id, chunk_index, version, timeout_ms, clip_key, samples, sha256, attempts)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        CHUNK,
    )


async def _taken_over(url: str) -> Activation:
    store = SqlJobStore(url)
    try:
        taken = await store.claim("job-of-old", owner="new", now_ms=2_000, lease_ms=10_000)
    finally:
        await store.close()
    assert taken is not None
    return taken


async def test_a_running_job_of_the_first_version_is_claimed_and_goes_on(tmp_path: Path) -> None:
    _write_as_the_first_version(tmp_path / "jobs.db")
    url = f"sqlite+aiosqlite:///{tmp_path}/jobs.db"
    await migrate(url)
    taken = await _taken_over(url)
    job = taken.job
    assert (job.state, job.epoch, job.deadline_at_ms) == (JobState.IN_PROGRESS, 2, 61_734)
    asked = job.request
    assert (asked.model, asked.voice, asked.metadata) == ("hibari", "heart", {"book": "1"})
    assert (asked.chunking_mode, asked.on_chunk_failure) == (ChunkingMode.CHARACTER_COUNT, OnChunkFailure.SILENCE)
    assert (asked.lexicon, asked.loudness, asked.patient) == ((), Loudness.AUTO, True), "what it did not know yet"
    plan = taken.input.plan
    assert [(s.char_start, s.char_end, s.boundary) for s in plan.spans] == [
        (0, 10, Boundary.SENTENCE),
        (10, 24, Boundary.END),
    ]
    assert plan.marks[1].char_start == 10
    assert plan.timeouts == TimeoutPolicy(5_000, 35, 70_000, 5_000, 75_000), "the rule it was accepted under"
    assert [result.backend for result in taken.results] == ["local"]


async def test_older_code_refuses_a_newer_schema_and_leaves_it_alone(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/jobs.db"
    await migrate(url)
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match="newer than this code"):
        await migrate(url)
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]


# -- while two versions run beside each other ------------------------------------------------------


async def _accepted_by_a_newer_version(store: SqlJobStore, job_id: str) -> None:
    await store.create_job(new_job(job_id, idempotency_key=job_id), lambda _: 0)
    changed = jobs.update().where(jobs.c.id == job_id).values(format=JOB_FORMAT + 1)
    await store._write(lambda connection: connection.execute(changed))


async def test_a_job_that_a_newer_version_has_accepted_is_left_to_it(store: SqlJobStore, store_url: str) -> None:
    await _accepted_by_a_newer_version(store, "job-new")
    await store.create_job(new_job("job-now"), lambda _: 0)
    long_after_ms = NOW_MS + 3_600_000
    assert await store.queued_jobs(limit=10) == ["job-now"]
    assert [job_id for job_id, _ in await store.due_jobs(now_ms=long_after_ms, limit=10)] == ["job-now"]
    assert await store.claim("job-new", owner="us", now_ms=long_after_ms, lease_ms=1_000) is None
    for asked in (
        store.get_job("job-new"),
        store.find_by_key("", "job-new"),
        store.get_chunk("job-new", 0),
        store.list_jobs("", limit=10, after=None, state=None),
    ):
        with pytest.raises(NewerJob, match="newer version") as refused:
            await asked
        assert refused.value.retryable
    care = JobStoreCare(store_url)
    try:
        assert (await care.facts()).newer_jobs == 1
        assert [job.id async for job, _ in care.unfinished()] == ["job-now"]
    finally:
        await care.close()


async def test_a_running_job_of_a_newer_version_is_not_taken_over_with_its_owners_name(store: SqlJobStore) -> None:
    await _accepted_by_a_newer_version(store, "job-new")
    claimed = jobs.update().values(state=JobState.IN_PROGRESS.value, owner="us", epoch=1)
    await store._write(lambda connection: connection.execute(claimed))
    assert await store.jobs_of("us") == {}
    assert await store.claim("job-new", owner="us", now_ms=NOW_MS, lease_ms=1_000) is None


async def test_code_from_before_goes_on_adding_jobs_beside_the_new_schema(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/jobs.db"
    await migrate(url)
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as database, database:
        _insert(database)
    taken = await _taken_over(url)
    assert (taken.job.epoch, taken.job.traceparent) == (2, None)


async def test_a_jobs_trace_is_stored_with_it(store: SqlJobStore) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await store.create_job(new_job(traceparent=traceparent), lambda _: 0)
    taken = await store.claim("job-1", owner="us", now_ms=NOW_MS, lease_ms=1_000)
    assert taken is not None
    assert taken.job.traceparent == traceparent
