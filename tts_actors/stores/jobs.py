"""The job store on SQL: SQLite for one machine, PostgreSQL for a cluster, through SQLAlchemy Core.

Fencing lives here: a write for a running job carries its epoch in the ``WHERE`` clause, and a write that hits no row
raises :class:`StaleEpoch` and changes nothing. The operations are in ``operations.py``.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tts_actors import metrics
from tts_actors.errors import StoreUnavailable
from tts_actors.messages import Activation
from tts_actors.models import (
    NO_QUOTA,
    Backlog,
    ChunkResult,
    Ending,
    JobCounts,
    JobInput,
    JobRecord,
    JobState,
    NewJob,
    Quota,
)
from tts_actors.stores import operations, quotas, removals, watch
from tts_actors.stores.database_troubles import translated
from tts_actors.stores.engines import open_database

T = TypeVar("T")


class SqlJobStore:
    """The :class:`~tts_actors.protocols.JobStore`. The schema must be there (``migrate``); opening does no I/O."""

    def __init__(self, store_url: str) -> None:
        self._database = open_database(store_url)

    async def create_job(self, job: NewJob, admit: Callable[[Backlog], int]) -> tuple[JobRecord, bool]:
        try:
            return await self._write(operations.create_job(job, admit), alone=True), True
        except IntegrityError as error:
            existing = await self._existing(job)
            if existing is None:
                raise StoreUnavailable("the job could not be stored") from error
            return existing, False

    async def _existing(self, job: NewJob) -> JobRecord | None:
        if job.idempotency_key is not None:
            found = await self.find_by_key(job.tenant, job.idempotency_key)
            if found is not None:
                return found
        return await self.get_job(job.id)

    async def get_job(self, job_id: str) -> JobRecord | None:
        return await self._read(operations.get_job(job_id))

    async def find_by_key(self, tenant: str, idempotency_key: str) -> JobRecord | None:
        return await self._read(operations.find_by_key(tenant, idempotency_key))

    async def get_input(self, job_id: str) -> JobInput | None:
        return await self._read(operations.get_input(job_id))

    async def list_jobs(self, tenant: str, *, limit: int, after: str | None, state: JobState | None) -> list[JobRecord]:
        return await self._read(operations.list_jobs(tenant, limit, after, state))

    async def get_chunk(self, job_id: str, index: int) -> tuple[JobRecord, ChunkResult | None] | None:
        return await self._read(operations.get_chunk(job_id, index))

    async def get_chunks(self, job_id: str) -> list[ChunkResult]:
        return await self._read(operations.get_chunks(job_id))

    async def get_news(self, job_id: str, since: int) -> tuple[JobRecord, list[tuple[int, ChunkResult]]] | None:
        return await self._read(operations.get_news(job_id, since))

    async def claim(
        self, job_id: str, *, owner: str, now_ms: int, lease_ms: int, only_due: bool = False
    ) -> Activation | None:
        return await self._write(operations.claim(job_id, owner, now_ms, lease_ms, only_due))

    async def record(
        self,
        job_id: str,
        epoch: int,
        *,
        results: Sequence[ChunkResult],
        counts: JobCounts,
        lease_until_ms: int,
    ) -> int:
        return await self._write(operations.record(job_id, epoch, results, counts, lease_until_ms))

    async def finish(
        self,
        job_id: str,
        epoch: int,
        *,
        ending: Ending,
        results: Sequence[ChunkResult] = (),
        counts: JobCounts | None = None,
    ) -> int:
        return await self._write(operations.finish(job_id, epoch, ending, results, counts))

    async def requeue(self, job_id: str, *, now_ms: int, deadline_at_ms: int, quota: Quota = NO_QUOTA) -> JobRecord:
        return await self._write(operations.requeue(job_id, quota, now_ms, deadline_at_ms), alone=True)

    async def charge(self, tenant: str, quota: Quota, characters: int, *, now_ms: int) -> None:
        await self._write(quotas.charge(tenant, quota, characters, now_ms))

    async def set_metadata(self, job_id: str, epoch: int, metadata: dict[str, str]) -> int:
        return await self._write(operations.set_metadata(job_id, epoch, metadata))

    async def delete_job(self, job_id: str, *, now_ms: int, epoch: int | None = None) -> bool:
        return await self._write(removals.delete_job(job_id, epoch, now_ms))

    async def queued_jobs(self, *, limit: int) -> list[str]:
        return await self._read(operations.queued_jobs(limit))

    async def jobs_of(self, owner: str, *, lease_before_ms: int | None = None) -> dict[str, int]:
        return await self._read(operations.jobs_of(owner, lease_before_ms))

    async def due_jobs(self, *, now_ms: int, limit: int) -> list[tuple[str, JobState]]:
        return await self._read(operations.due_jobs(now_ms, limit))

    async def ended_lives(self, *, now_ms: int, limit: int) -> list[str]:
        return await self._read(removals.ended_lives(now_ms, limit))

    async def recent_runs_ms(self, *, limit: int) -> list[int]:
        return await self._read(watch.recent_runs_ms(limit))

    async def unattended_jobs(self, *, now_ms: int) -> int:
        return await self._read(watch.unattended_jobs(now_ms))

    async def expire(self, job_id: str, *, now_ms: int, only_due: bool) -> bool:
        return await self._write(removals.expire(job_id, now_ms, only_due))

    async def next_removal(self, *, now_ms: int) -> str | None:
        return await self._read(removals.next_removal(now_ms))

    async def forget_removals(self, job_id: str | None, *, now_ms: int) -> None:
        await self._write(removals.forget_removals(job_id, now_ms))

    async def warm(self) -> None:
        await self._read(operations.warm_reads)
        with contextlib.suppress(IntegrityError):
            await self._write(operations.warm_writes)

    async def ping(self) -> None:
        await self._read(operations.ping)

    async def close(self) -> None:
        await self._database.close()

    async def _read(self, operation: Callable[[sa.Connection], T]) -> T:
        with translated(), metrics.timed(metrics.STORE, "job_read"):
            return await self._database.read(operation)

    async def _write(self, operation: Callable[[sa.Connection], T], *, alone: bool = False) -> T:
        with translated(), metrics.timed(metrics.STORE, "job_write"):
            return await self._database.write(operation, alone=alone)
