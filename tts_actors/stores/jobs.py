"""The job store on SQL: SQLite for one machine, PostgreSQL for a cluster, through SQLAlchemy Core.

Fencing lives here: a write for a running job carries its epoch in the ``WHERE`` clause, and a write that hits no row
raises :class:`StaleEpoch` and changes nothing.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from tts_actors.errors import Conflict, NotFound, QueueFull, StaleEpoch, StoreUnavailable
from tts_actors.models import (
    Backlog,
    ChunkResult,
    JobCounts,
    JobInput,
    JobPlan,
    JobRecord,
    JobState,
    NewJob,
)
from tts_actors.states import ACTIVE, TERMINAL, check_transition
from tts_actors.stores.engines import open_engines
from tts_actors.stores.rows import chunk_of, chunk_row, job_of, job_row
from tts_actors.stores.tables import chunks, job_inputs, jobs

FAST_PATH_GRACE_MS = 2_000
"""How long a fresh job is left to the fast path before the sweep looks after it."""

_ACTIVE = [state.value for state in sorted(ACTIVE)]
_GET_JOB = sa.select(jobs).where(jobs.c.id == sa.bindparam("job_id"))
_GET_CHUNK = sa.select(chunks).where(
    chunks.c.job_id == sa.bindparam("job_id"), chunks.c.chunk_index == sa.bindparam("index")
)


class SqlJobStore:
    """The :class:`~tts_actors.protocols.JobStore`. The schema must be there (``migrate``); opening does no I/O."""

    def __init__(self, store_url: str) -> None:
        self._reading, self._writing = open_engines(store_url)

    async def create_job(self, job: NewJob, *, max_queued_jobs: int | None) -> JobRecord:
        row = job_row(job, FAST_PATH_GRACE_MS)
        try:
            async with self._write() as connection:
                if max_queued_jobs is not None:
                    await self._check_queue(connection, max_queued_jobs)
                await connection.execute(jobs.insert(), row)
                await connection.execute(
                    job_inputs.insert(), {"job_id": job.id, "text": job.text, "plan": job.plan.to_json()}
                )
        except IntegrityError as error:
            existing = await self._existing(job)
            if existing is None:
                raise StoreUnavailable("the job could not be stored") from error
            return existing
        return job_of(row)

    async def _check_queue(self, connection: AsyncConnection, max_queued_jobs: int) -> None:
        counted = sa.select(sa.func.count()).where(jobs.c.state == JobState.QUEUED.value)
        queued = (await connection.execute(counted)).scalar_one()
        if queued >= max_queued_jobs:
            raise QueueFull(f"{queued} jobs are waiting; limits.max_queued_jobs is {max_queued_jobs}", 5.0)

    async def _existing(self, job: NewJob) -> JobRecord | None:
        if job.idempotency_key is not None:
            found = await self.find_by_key(job.tenant, job.idempotency_key)
            if found is not None:
                return found
        return await self.get_job(job.id)

    async def get_job(self, job_id: str) -> JobRecord | None:
        row = await self._first(_GET_JOB, {"job_id": job_id})
        return None if row is None else job_of(row)

    async def find_by_key(self, tenant: str, idempotency_key: str) -> JobRecord | None:
        query = sa.select(jobs).where(jobs.c.tenant == tenant, jobs.c.idempotency_key == idempotency_key)
        row = await self._first(query)
        return None if row is None else job_of(row)

    async def get_input(self, job_id: str) -> JobInput | None:
        row = await self._first(sa.select(job_inputs).where(job_inputs.c.job_id == job_id))
        return None if row is None else JobInput(row["text"], JobPlan.from_json(row["plan"]))

    async def list_jobs(self, tenant: str, *, limit: int, after: str | None, state: JobState | None) -> list[JobRecord]:
        query = sa.select(jobs).where(jobs.c.tenant == tenant)
        if state is not None:
            query = query.where(jobs.c.state == state.value)
        if after is not None:
            anchor = sa.select(jobs.c.created_at_ms, jobs.c.id).where(jobs.c.id == after)
            position = await self._first(anchor.where(jobs.c.tenant == tenant))
            if position is None:
                raise NotFound("no job has the id given as after", "after")
            place = sa.tuple_(jobs.c.created_at_ms, jobs.c.id)
            query = query.where(place < sa.tuple_(position["created_at_ms"], position["id"]))
        query = query.order_by(jobs.c.created_at_ms.desc(), jobs.c.id.desc()).limit(limit)
        return [job_of(row) for row in await self._all(query)]

    async def get_chunk(self, job_id: str, index: int) -> ChunkResult | None:
        row = await self._first(_GET_CHUNK, {"job_id": job_id, "index": index})
        return None if row is None else chunk_of(row)

    async def get_chunks(self, job_id: str) -> list[ChunkResult]:
        query = sa.select(chunks).where(chunks.c.job_id == job_id).order_by(chunks.c.chunk_index)
        return [chunk_of(row) for row in await self._all(query)]

    async def claim(self, job_id: str, *, owner: str, now_ms: int, lease_ms: int) -> JobRecord | None:
        free = sa.or_(jobs.c.owner.is_(None), jobs.c.owner == owner, jobs.c.next_alarm_at_ms <= now_ms)
        statement = (
            jobs.update()
            .where(jobs.c.id == job_id, jobs.c.state.in_(_ACTIVE), free)
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
        async with self._write() as connection:
            row = (await connection.execute(statement)).mappings().first()
        return None if row is None else job_of(row)

    async def record(
        self,
        job_id: str,
        epoch: int,
        *,
        results: Sequence[ChunkResult],
        counts: JobCounts,
        lease_until_ms: int,
    ) -> int:
        values = {
            "chunks_completed": counts.chunks_completed,
            "chunks_failed": counts.chunks_failed,
            "chunks_in_flight": counts.chunks_in_flight,
            "audio_samples": counts.audio_samples,
            "characters_done": counts.characters_done,
            "orchestrator_timeout_ms": counts.orchestrator_timeout_ms,
            "next_alarm_at_ms": lease_until_ms,
        }
        async with self._write() as connection:
            version = await self._fenced(connection, job_id, epoch, values)
            if results:
                rows = [chunk_row(job_id, version, result) for result in results]
                await connection.execute(chunks.insert(), rows)
        return version

    async def finish(
        self,
        job_id: str,
        epoch: int,
        *,
        state: JobState,
        now_ms: int,
        expires_at_ms: int,
        error: tuple[str, str] | None,
    ) -> int:
        check_transition(JobState.IN_PROGRESS, state)
        code, message = error or (None, None)
        values = {
            "state": state.value,
            "finished_at_ms": now_ms,
            "expires_at_ms": expires_at_ms,
            "next_alarm_at_ms": expires_at_ms,
            "owner": None,
            "chunks_in_flight": 0,
            "error_code": code,
            "error_message": message,
        }
        async with self._write() as connection:
            return await self._fenced(connection, job_id, epoch, values)

    async def _fenced(self, connection: AsyncConnection, job_id: str, epoch: int, values: dict[str, Any]) -> int:
        statement = (
            jobs.update()
            .where(
                jobs.c.id == job_id,
                jobs.c.epoch == epoch,
                jobs.c.state == JobState.IN_PROGRESS.value,
            )
            .values(version=jobs.c.version + 1, **values)
            .returning(jobs.c.version)
        )
        version = (await connection.execute(statement)).scalar_one_or_none()
        if version is None:
            raise StaleEpoch(f"epoch {epoch} does not own the job any more")
        return int(version)

    async def requeue(self, job_id: str, *, now_ms: int, deadline_at_ms: int) -> JobRecord:
        async with self._write() as connection:
            row = (await connection.execute(_GET_JOB, {"job_id": job_id})).mappings().first()
            if row is None:
                raise NotFound("there is no such job", "job_id")
            check_transition(JobState(row["state"]), JobState.QUEUED)
            await connection.execute(chunks.delete().where(chunks.c.job_id == job_id, chunks.c.clip_key.is_(None)))
            statement = (
                jobs.update()
                .where(jobs.c.id == job_id, jobs.c.version == row["version"])
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
            changed = (await connection.execute(statement)).mappings().first()
            if changed is None:
                raise Conflict("the job changed meanwhile: ask again", "status")
        return job_of(changed)

    async def delete_job(self, job_id: str) -> bool:
        async with self._write() as connection:
            deleted = await connection.execute(jobs.delete().where(jobs.c.id == job_id).returning(jobs.c.id))
            return deleted.first() is not None

    async def queued_jobs(self, *, limit: int) -> list[str]:
        query = (
            sa.select(jobs.c.id)
            .where(jobs.c.state == JobState.QUEUED.value)
            .order_by(jobs.c.priority, jobs.c.created_at_ms)
            .limit(limit)
        )
        return [row["id"] for row in await self._all(query)]

    async def due_jobs(self, *, now_ms: int, limit: int) -> list[tuple[str, JobState]]:
        query = (
            sa.select(jobs.c.id, jobs.c.state)
            .where(jobs.c.next_alarm_at_ms <= now_ms, jobs.c.state != JobState.EXPIRED.value)
            .order_by(jobs.c.next_alarm_at_ms)
            .limit(limit)
        )
        return [(row["id"], JobState(row["state"])) for row in await self._all(query)]

    async def expire(self, job_id: str) -> None:
        finished = [state.value for state in TERMINAL]
        async with self._write() as connection:
            await connection.execute(
                jobs.update()
                .where(jobs.c.id == job_id, jobs.c.state.in_(finished))
                .values(state=JobState.EXPIRED.value, version=jobs.c.version + 1)
            )
            await connection.execute(chunks.delete().where(chunks.c.job_id == job_id))
            await connection.execute(job_inputs.delete().where(job_inputs.c.job_id == job_id))

    async def backlog(self) -> Backlog:
        total = sa.func.coalesce(sa.func.sum(jobs.c.run_timeout_ms), 0)
        query = sa.select(sa.func.count().label("queued"), total.label("total")).where(
            jobs.c.state == JobState.QUEUED.value
        )
        row = await self._first(query)
        return Backlog(0, 0) if row is None else Backlog(int(row["queued"]), int(row["total"]))

    async def ping(self) -> None:
        await self._first(sa.select(jobs.c.id).limit(1))

    async def close(self) -> None:
        await self._reading.dispose()
        await self._writing.dispose()

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        with _translated():
            async with self._writing.begin() as connection:
                yield connection

    async def _first(self, query: sa.Select[Any], values: dict[str, Any] | None = None) -> Any:
        with _translated():
            async with self._reading.connect() as connection:
                return (await connection.execute(query, values or {})).mappings().first()

    async def _all(self, query: sa.Select[Any]) -> Any:
        with _translated():
            async with self._reading.connect() as connection:
                return (await connection.execute(query)).mappings().all()


class _translated:
    """Turns whatever the database driver raises into :class:`StoreUnavailable`; broken constraints pass."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, IntegrityError):
            return
        if isinstance(error, DBAPIError | sa.exc.TimeoutError | OSError):
            raise StoreUnavailable(f"the job store failed: {_reason(error)}", 5.0) from error


def _reason(error: Exception) -> str:
    """The driver's own words without the statement and its parameters (they hold the caller's text)."""
    origin = getattr(error, "orig", None)
    return f"{type(origin or error).__name__}"
