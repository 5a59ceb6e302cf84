"""Every operation of the job store: a function of its arguments gives a function of a connection.

They run inside one transaction each (reads: outside any) and know nothing of threads, event loops or dialects.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert

from tts_actors.errors import Conflict, NotFound, StaleEpoch
from tts_actors.messages import Activation
from tts_actors.models import (
    JOB_FORMAT,
    Attempt,
    Backlog,
    ChunkResult,
    Ending,
    JobCounts,
    JobInput,
    JobPlan,
    JobRecord,
    JobState,
    NewJob,
    Quota,
)
from tts_actors.states import ACTIVE, check_transition
from tts_actors.stores import quotas
from tts_actors.stores.notes import AFTER, BEFORE
from tts_actors.stores.rows import chunk_of, chunk_row, claimed_row, job_of, job_row
from tts_actors.stores.tables import chunks, job_inputs, jobs

FAST_PATH_GRACE_MS = 2_000
"""How long a fresh job is left to the fast path before the sweep looks after it."""

NO_JOB = "-"
"""An id that no job can have (ids are at least three characters)."""

_ACTIVE = [state.value for state in sorted(ACTIVE)]
UNDERSTOOD = jobs.c.format <= JOB_FORMAT
"""What a newer version has accepted is for that one to carry out."""
_GET_JOB = sa.select(jobs).where(jobs.c.id == sa.bindparam("job_id"))
_GET_CHUNK = (
    sa.select(jobs, *(column.label(f"chunk_{column.name}") for column in chunks.c))
    .select_from(
        jobs.outerjoin(chunks, sa.and_(chunks.c.job_id == jobs.c.id, chunks.c.chunk_index == sa.bindparam("index")))
    )
    .where(jobs.c.id == sa.bindparam("job_id"))
)
_BACKLOG = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(jobs.c.run_timeout_ms), 0)).where(
    jobs.c.state == JobState.QUEUED.value
)
_ADD_JOB = jobs.insert()
_ADD_INPUT = job_inputs.insert()
_GET_CHUNKS = sa.select(chunks).where(chunks.c.job_id == sa.bindparam("job_id")).order_by(chunks.c.chunk_index)
# A writer that lost its connection during the commit does not know whether it was made and writes again. The form is
# PostgreSQL's; SQLite has the same.
_ADD_CHUNKS = upsert(chunks).on_conflict_do_nothing(index_elements=["job_id", "chunk_index"])
_GET_NEWS = (
    sa.select(chunks)
    .where(
        chunks.c.job_id == sa.bindparam("job_id"),
        chunks.c.version > sa.bindparam("since"),
        chunks.c.version <= sa.bindparam("until"),
    )
    .order_by(chunks.c.version, chunks.c.chunk_index)
)


def create_job(job: NewJob, admit: Callable[[Backlog], int]) -> Callable[[sa.Connection], JobRecord]:
    given = {"job_id": job.id, "text": job.text, "plan": job.plan.to_json()}

    charge = quotas.charge(job.tenant, job.quota, len(job.text), job.created_at_ms)
    check_active = quotas.check_active(job.tenant, job.quota)

    def operation(connection: sa.Connection) -> JobRecord:
        charge(connection)
        check_active(connection)
        backlog: Backlog = connection.info.get(BEFORE) or _backlog(connection)
        row = job_row(job, admit(backlog), FAST_PATH_GRACE_MS)
        if job.claim is not None and not backlog.queued:
            row = claimed_row(row, job.claim, job.created_at_ms)
        else:
            backlog = Backlog(backlog.queued + 1, backlog.run_timeout_ms + job.plan.run_timeout_ms)
        connection.execute(_ADD_JOB, row)
        connection.execute(_ADD_INPUT, given)
        connection.info[AFTER] = backlog
        return job_of(row)

    return operation


def _backlog(connection: sa.Connection) -> Backlog:
    """The queue; counting it takes longer the longer it is (2,500 jobs: as long as making a job)."""
    queued, run_timeout_ms = connection.execute(_BACKLOG).one()
    return Backlog(int(queued), int(run_timeout_ms))


def get_job(job_id: str) -> Callable[[sa.Connection], JobRecord | None]:
    def operation(connection: sa.Connection) -> JobRecord | None:
        row = connection.execute(_GET_JOB, {"job_id": job_id}).mappings().first()
        return None if row is None else job_of(row)

    return operation


def find_by_key(tenant: str, idempotency_key: str) -> Callable[[sa.Connection], JobRecord | None]:
    query = sa.select(jobs).where(jobs.c.tenant == tenant, jobs.c.idempotency_key == idempotency_key)

    def operation(connection: sa.Connection) -> JobRecord | None:
        row = connection.execute(query).mappings().first()
        return None if row is None else job_of(row)

    return operation


def get_input(job_id: str) -> Callable[[sa.Connection], JobInput | None]:
    query = sa.select(job_inputs).where(job_inputs.c.job_id == job_id)

    def operation(connection: sa.Connection) -> JobInput | None:
        row = connection.execute(query).mappings().first()
        return None if row is None else JobInput(row["text"], JobPlan.from_json(row["plan"]))

    return operation


def list_jobs(
    tenant: str, limit: int, after: str | None, state: JobState | None
) -> Callable[[sa.Connection], list[JobRecord]]:
    query = sa.select(jobs).where(jobs.c.tenant == tenant)
    if state is not None:
        query = query.where(jobs.c.state == state.value)
    query = query.order_by(jobs.c.created_at_ms.desc(), jobs.c.id.desc()).limit(limit)

    def operation(connection: sa.Connection) -> list[JobRecord]:
        page = query
        if after is not None:
            anchor = sa.select(jobs.c.created_at_ms).where(jobs.c.id == after, jobs.c.tenant == tenant)
            created_at_ms = connection.execute(anchor).scalar_one_or_none()
            if created_at_ms is None:
                raise NotFound("no job has the id given as after", "after")
            place = sa.tuple_(jobs.c.created_at_ms, jobs.c.id)
            page = query.where(place < sa.tuple_(created_at_ms, after))
        return [job_of(row) for row in connection.execute(page).mappings()]

    return operation


def get_chunk(job_id: str, index: int) -> Callable[[sa.Connection], tuple[JobRecord, ChunkResult | None] | None]:
    def operation(connection: sa.Connection) -> tuple[JobRecord, ChunkResult | None] | None:
        values = {"job_id": job_id, "index": index}
        row = connection.execute(_GET_CHUNK, values).mappings().first()
        if row is None:
            return None
        result = None
        if row["chunk_job_id"] is not None:
            result = chunk_of({column.name: row[f"chunk_{column.name}"] for column in chunks.c})
        return job_of(row), result

    return operation


def get_chunks(job_id: str) -> Callable[[sa.Connection], list[ChunkResult]]:
    def operation(connection: sa.Connection) -> list[ChunkResult]:
        rows = connection.execute(_GET_CHUNKS, {"job_id": job_id}).mappings()
        return [chunk_of(row) for row in rows]

    return operation


def get_news(
    job_id: str, since: int
) -> Callable[[sa.Connection], tuple[JobRecord, list[tuple[int, ChunkResult]]] | None]:
    def operation(connection: sa.Connection) -> tuple[JobRecord, list[tuple[int, ChunkResult]]] | None:
        row = connection.execute(_GET_JOB, {"job_id": job_id}).mappings().first()
        if row is None:
            return None
        job = job_of(row)
        if job.version <= since:
            return job, []
        # Rows committed between the two reads are left for the next look.
        values = {"job_id": job_id, "since": since, "until": job.version}
        found = connection.execute(_GET_NEWS, values).mappings()
        return job, [(row["version"], chunk_of(row)) for row in found]

    return operation


def claim(
    job_id: str, owner: str, now_ms: int, lease_ms: int, only_due: bool
) -> Callable[[sa.Connection], Activation | None]:
    due = jobs.c.next_alarm_at_ms <= now_ms
    free = due if only_due else sa.or_(jobs.c.owner.is_(None), jobs.c.owner == owner, due)
    statement = (
        jobs.update()
        .where(jobs.c.id == job_id, jobs.c.state.in_(_ACTIVE), free, UNDERSTOOD)
        .values(
            owner=owner,
            epoch=jobs.c.epoch + 1,
            version=jobs.c.version + 1,
            activations=jobs.c.activations + 1,
            state=JobState.IN_PROGRESS.value,
            started_at_ms=sa.func.coalesce(jobs.c.started_at_ms, now_ms),
            next_alarm_at_ms=now_ms + lease_ms,
        )
        .returning(jobs)
    )

    def operation(connection: sa.Connection) -> Activation | None:
        row = connection.execute(statement).mappings().first()
        given = get_input(job_id)(connection)
        if row is None or given is None:
            return None
        return Activation(job_of(row), given, tuple(get_chunks(job_id)(connection)), now_ms + lease_ms)

    return operation


def record(
    job_id: str, epoch: int, results: Sequence[ChunkResult], counts: JobCounts, lease_until_ms: int
) -> Callable[[sa.Connection], int]:
    values = _counted(counts) | {"next_alarm_at_ms": lease_until_ms}
    if results:  # actors that died without getting anything done in between are what ends a job
        values["activations"] = 1

    def operation(connection: sa.Connection) -> int:
        version = _fenced(connection, job_id, epoch, values)
        _insert_results(connection, job_id, version, results)
        return version

    return operation


def finish(
    job_id: str, epoch: int, ending: Ending, results: Sequence[ChunkResult], counts: JobCounts | None
) -> Callable[[sa.Connection], int]:
    check_transition(JobState.IN_PROGRESS, ending.state)
    code, message = ending.error or (None, None)
    values = (_counted(counts) if counts else {}) | {
        "state": ending.state.value,
        "finished_at_ms": ending.finished_at_ms,
        "expires_at_ms": ending.expires_at_ms,
        "next_alarm_at_ms": ending.expires_at_ms,
        "owner": None,
        "chunks_in_flight": 0,
        "error_code": code,
        "error_message": message,
    }

    def operation(connection: sa.Connection) -> int:
        version = _fenced(connection, job_id, epoch, values)
        _insert_results(connection, job_id, version, results)
        return version

    return operation


def _counted(counts: JobCounts) -> dict[str, Any]:
    return dataclasses.asdict(counts)


def _insert_results(connection: sa.Connection, job_id: str, version: int, results: Sequence[ChunkResult]) -> None:
    if results:
        connection.execute(_ADD_CHUNKS, [chunk_row(job_id, version, result) for result in results])


def _fenced(connection: sa.Connection, job_id: str, epoch: int, values: dict[str, Any]) -> int:
    """Write to a running job if ``epoch`` still owns it; returns its new version."""
    statement = (
        jobs.update()
        .where(jobs.c.id == job_id, jobs.c.epoch == epoch, jobs.c.state == JobState.IN_PROGRESS.value)
        .values(version=jobs.c.version + 1, **values)
        .returning(jobs.c.version)
    )
    version = connection.execute(statement).scalar_one_or_none()
    if version is None:
        raise StaleEpoch(f"epoch {epoch} does not own the job any more")
    return int(version)


def requeue(job_id: str, quota: Quota, now_ms: int, deadline_at_ms: int) -> Callable[[sa.Connection], JobRecord]:
    statement = (
        jobs.update()
        .where(jobs.c.id == job_id, jobs.c.version == sa.bindparam("seen_version"))
        .values(
            state=JobState.QUEUED.value,
            version=jobs.c.version + 1,
            activations=0,
            chunks_failed=0,
            finished_at_ms=None,
            expires_at_ms=None,
            error_code=None,
            error_message=None,
            deadline_at_ms=deadline_at_ms,
            next_alarm_at_ms=now_ms + FAST_PATH_GRACE_MS,
        )
        .returning(jobs)
    )

    def operation(connection: sa.Connection) -> JobRecord:
        row = connection.execute(_GET_JOB, {"job_id": job_id}).mappings().first()
        if row is None:
            raise NotFound("there is no such job", "job_id")
        check_transition(JobState(row["state"]), JobState.QUEUED)
        quotas.check_active(row["tenant"], quota)(connection)
        connection.execute(chunks.delete().where(chunks.c.job_id == job_id, chunks.c.clip_key.is_(None)))
        changed = connection.execute(statement, {"seen_version": row["version"]}).mappings().first()
        if changed is None:
            raise Conflict("the job changed meanwhile: ask again", "status")
        return job_of(changed)

    return operation


def set_metadata(job_id: str, epoch: int, metadata: dict[str, str]) -> Callable[[sa.Connection], int]:
    def operation(connection: sa.Connection) -> int:
        job = get_job(job_id)(connection)
        if job is None:
            raise StaleEpoch("the job is gone")
        return _fenced(
            connection, job_id, epoch, {"request": dataclasses.replace(job.request, metadata=metadata).to_json()}
        )

    return operation


def queued_jobs(limit: int) -> Callable[[sa.Connection], list[str]]:
    query = (
        sa.select(jobs.c.id)
        .where(jobs.c.state == JobState.QUEUED.value, UNDERSTOOD)
        .order_by(jobs.c.priority, jobs.c.created_at_ms)
        .limit(limit)
    )
    return lambda connection: list(connection.execute(query).scalars())


def jobs_of(owner: str, lease_before_ms: int | None) -> Callable[[sa.Connection], dict[str, int]]:
    running = jobs.c.state == JobState.IN_PROGRESS.value
    query = sa.select(jobs.c.id, jobs.c.version).where(running, jobs.c.owner == owner, UNDERSTOOD)
    if lease_before_ms is not None:
        query = query.where(jobs.c.next_alarm_at_ms <= lease_before_ms)
    return lambda connection: {row.id: row.version for row in connection.execute(query)}


def due_jobs(now_ms: int, limit: int) -> Callable[[sa.Connection], list[tuple[str, JobState]]]:
    query = (
        sa.select(jobs.c.id, jobs.c.state)
        .where(jobs.c.next_alarm_at_ms <= now_ms, jobs.c.state.in_(_ACTIVE), UNDERSTOOD)
        .order_by(jobs.c.next_alarm_at_ms)
        .limit(limit)
    )
    return lambda connection: [(row.id, JobState(row.state)) for row in connection.execute(query)]


def warm_reads(connection: sa.Connection) -> None:
    for operation in (get_job(NO_JOB), get_input(NO_JOB), get_chunks(NO_JOB), get_chunk(NO_JOB, 0)):
        operation(connection)


def warm_writes(connection: sa.Connection) -> None:
    """Always ends in an :class:`IntegrityError` (there is no such job) and so in a rollback."""
    claim(NO_JOB, NO_JOB, 0, 0, False)(connection)
    with contextlib.suppress(StaleEpoch):
        record(NO_JOB, 0, [], JobCounts(0, 0, 0, 0, 0, 0), 0)(connection)
    attempt = Attempt(NO_JOB, "ok", 0)
    connection.execute(chunks.insert(), [chunk_row(NO_JOB, 0, ChunkResult(0, 0, None, None, (attempt,)))])


def ping(connection: sa.Connection) -> None:
    connection.execute(sa.select(jobs.c.id).limit(1)).first()
