"""How jobs go: their rows at once, and a note that their objects are to be looked for once more.

A worker may be storing a clip in the very moment in which its job is removed, and whoever removes it may die before the
objects are gone. The note is made in the transaction that takes the rows, so neither leaves anything for ever.
"""

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert

from tts_actors.models import JobState
from tts_actors.states import TERMINAL
from tts_actors.stores.tables import chunks, job_inputs, jobs, removals

LOOK_AGAIN_MS = 600_000
"""After this long nothing of a removed job is on its way any more: a clip is put away in 60 s, or not at all."""

_FINISHED = [state.value for state in sorted(TERMINAL - {JobState.EXPIRED})]
_KEPT = sa.exists().where(jobs.c.id == removals.c.job_id, jobs.c.state != JobState.EXPIRED.value)


def delete_job(job_id: str, epoch: int | None, now_ms: int) -> Callable[[sa.Connection], bool]:
    statement = jobs.delete().where(jobs.c.id == job_id).returning(jobs.c.id)
    if epoch is not None:
        ended = [state.value for state in sorted(TERMINAL)]
        statement = statement.where(jobs.c.epoch == epoch, jobs.c.state.in_(ended))

    def operation(connection: sa.Connection) -> bool:
        if connection.execute(statement).first() is None:
            return False
        _note(connection, job_id, now_ms)
        return True

    return operation


def expire(job_id: str, now_ms: int, only_due: bool) -> Callable[[sa.Connection], bool]:
    statement = (
        jobs.update()
        .where(jobs.c.id == job_id, jobs.c.state.in_(_FINISHED))
        .values(state=JobState.EXPIRED.value, version=jobs.c.version + 1)
        .returning(jobs.c.id)
    )
    if only_due:
        statement = statement.where(jobs.c.next_alarm_at_ms <= now_ms)

    def operation(connection: sa.Connection) -> bool:
        if connection.execute(statement).first() is None:
            return False
        connection.execute(chunks.delete().where(chunks.c.job_id == job_id))
        connection.execute(job_inputs.delete().where(job_inputs.c.job_id == job_id))
        _note(connection, job_id, now_ms)
        return True

    return operation


def ended_lives(now_ms: int, limit: int) -> Callable[[sa.Connection], list[str]]:
    query = (
        sa.select(jobs.c.id)
        .where(jobs.c.next_alarm_at_ms <= now_ms, jobs.c.state.in_(_FINISHED))
        .order_by(jobs.c.next_alarm_at_ms)
        .limit(limit)
    )
    return lambda connection: list(connection.execute(query).scalars())


def next_removal(now_ms: int) -> Callable[[sa.Connection], str | None]:
    query = (
        sa.select(removals.c.job_id)
        .where(removals.c.due_at_ms <= now_ms, ~_KEPT)
        .order_by(removals.c.due_at_ms)
        .limit(1)
    )
    return lambda connection: connection.execute(query).scalar()


def forget_removals(job_id: str | None, now_ms: int) -> Callable[[sa.Connection], None]:
    """Drop the note of ``job_id``, or with None those whose id is a living job's again: it takes its folder along."""
    due = removals.delete().where(removals.c.due_at_ms <= now_ms)
    statement = due.where(_KEPT) if job_id is None else due.where(removals.c.job_id == job_id)

    def operation(connection: sa.Connection) -> None:
        connection.execute(statement)

    return operation


def _note(connection: sa.Connection, job_id: str, now_ms: int) -> None:
    note = upsert(removals).values(job_id=job_id, due_at_ms=now_ms + LOOK_AGAIN_MS)
    connection.execute(
        note.on_conflict_do_update(index_elements=["job_id"], set_={"due_at_ms": note.excluded.due_at_ms})
    )
