"""The stores as an operator looks at them: across tenants, without the service, schema and clocks included.

It works beside a running service; what it removes is what the service itself would remove or has given up.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from tts_actors.errors import StoreUnavailable
from tts_actors.models import ChunkResult, JobRecord, JobState
from tts_actors.protocols import ClipStore
from tts_actors.states import ACTIVE, TERMINAL
from tts_actors.stores import operations
from tts_actors.stores.database_troubles import translated
from tts_actors.stores.engines import open_database
from tts_actors.stores.migrate import MIGRATIONS
from tts_actors.stores.operations import UNDERSTOOD
from tts_actors.stores.rows import job_of
from tts_actors.stores.tables import jobs

T = TypeVar("T")

PAGE = 500
"""Rows read at once."""

READS = 8
"""Clips read at once by :func:`damaged_clips`."""

_UNFINISHED = jobs.c.state.in_([state.value for state in sorted(ACTIVE)])
_KEPT = [state.value for state in sorted(TERMINAL - {JobState.EXPIRED})]


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a job store tells of itself. ``revision`` is None if there is no schema yet; ``needed`` is this code's.

    ``newest_at_ms`` is when the newest job was made, ``newer_jobs`` how many unfinished ones only a newer version can
    carry out, ``clock_ms`` the database server's own clock and ``max_connections`` its bound; the last two are None for
    a file.
    """

    revision: str | None
    needed: str | None
    newer: bool
    newest_at_ms: int | None
    newer_jobs: int
    clock_ms: int | None
    max_connections: int | None


class JobStoreCare:
    """A job store in an operator's hands. Raises :class:`StoreUnavailable` when it cannot be reached."""

    def __init__(self, store_url: str) -> None:
        self._database = open_database(store_url)
        self._server = sa.make_url(store_url).get_backend_name() != "sqlite"

    async def facts(self) -> StoreFacts:
        """Schema, clock and bounds. Only looks."""
        return await self._read(self._facts)

    def _facts(self, connection: sa.Connection) -> StoreFacts:
        revision = MigrationContext.configure(connection).get_current_revision()
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        scripts = ScriptDirectory.from_config(config)
        known = {script.revision for script in scripts.walk_revisions()}
        newest = None if revision is None else connection.execute(sa.select(sa.func.max(jobs.c.created_at_ms))).scalar()
        clock_ms, bound = None, None
        if self._server:
            clock_ms = int(
                connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp()) * 1000")).scalar_one()
            )
            bound = int(connection.execute(sa.text("SHOW max_connections")).scalar_one())
        newer = revision is not None and revision not in known
        foreign = 0
        if revision == scripts.get_current_head() or newer:
            foreign = int(connection.execute(sa.select(sa.func.count()).where(_UNFINISHED, ~UNDERSTOOD)).scalar_one())
        return StoreFacts(revision, scripts.get_current_head(), newer, newest, foreign, clock_ms, bound)

    async def unfinished(self) -> AsyncIterator[tuple[JobRecord, str | None]]:
        """Every job that waits or runs, oldest first, with the service that has claimed it; none of newer versions."""
        query = sa.select(jobs).where(_UNFINISHED, UNDERSTOOD)
        async for row in self._pages(query):
            yield job_of(row), row["owner"]

    async def kept(self) -> AsyncIterator[JobRecord]:
        """Every job that may have clips, oldest first."""
        async for row in self._pages(sa.select(jobs).where(jobs.c.state != JobState.EXPIRED.value, UNDERSTOOD)):
            yield job_of(row)

    async def get_job(self, job_id: str) -> JobRecord | None:
        return await self._read(operations.get_job(job_id))

    async def chunks_of(self, job_id: str) -> list[ChunkResult]:
        return await self._read(operations.get_chunks(job_id))

    async def remove_expired(self, clips: ClipStore, now_ms: int) -> int:
        """Remove every job whose life is over, rows, texts and audio; returns how many. Their ids are free again."""
        over = sa.and_(jobs.c.state.in_(_KEPT), jobs.c.expires_at_ms <= now_ms)
        expire = jobs.update().where(over).values(state=JobState.EXPIRED.value)  # first: what is retried now is kept
        await self._write(lambda c: c.execute(expire).rowcount)
        expired = jobs.c.state == JobState.EXPIRED.value
        removed = 0
        while ids := await self._read(
            lambda c: list(c.execute(sa.select(jobs.c.id).where(expired).limit(PAGE)).scalars())
        ):
            for job_id in ids:
                await clips.delete_prefix(job_id)
            statement = jobs.delete().where(jobs.c.id.in_(ids), expired)
            removed += await self._write(lambda c, s=statement: int(c.execute(s).rowcount))  # type: ignore[misc]
        return removed

    async def close(self) -> None:
        await self._database.close()

    async def _pages(self, query: "sa.Select[tuple[object, ...]]") -> AsyncIterator[sa.RowMapping]:
        place = sa.tuple_(jobs.c.created_at_ms, jobs.c.id)
        page = query.order_by(jobs.c.created_at_ms, jobs.c.id).limit(PAGE)
        last: tuple[int, str] = (-1, "")
        while True:
            after = page.where(place > sa.tuple_(*last))
            rows = await self._read(lambda c, after=after: list(c.execute(after).mappings()))  # type: ignore[misc]
            for row in rows:
                yield row
            if len(rows) < PAGE:
                return
            last = (rows[-1]["created_at_ms"], rows[-1]["id"])

    async def _read(self, operation: Callable[[sa.Connection], T]) -> T:
        with translated():
            return await self._database.read(operation)

    async def _write(self, operation: Callable[[sa.Connection], T]) -> T:
        with translated():
            return await self._database.write(operation)


async def damaged_clips(results: list[ChunkResult], clips: ClipStore) -> list[tuple[int, str]]:
    """The chunks whose stored clip is not what their row says: ``missing``, ``damaged``, or ``unread`` for an error."""
    reading = asyncio.Semaphore(READS)

    async def judge(result: ChunkResult) -> str | None:
        if result.clip is None:
            return None
        async with reading:
            try:
                body = await clips.get(result.clip.key)
            except StoreUnavailable:
                return "unread"
        if body is None:
            return "missing"
        return None if hashlib.sha256(body).hexdigest() == result.clip.sha256 else "damaged"

    verdicts = await asyncio.gather(*map(judge, results))
    return [(result.index, verdict) for result, verdict in zip(results, verdicts, strict=True) if verdict]
