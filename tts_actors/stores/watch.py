"""Figures over all jobs: how long they take, and whether each unfinished one is looked after. Reads alone."""

from collections.abc import Callable

import sqlalchemy as sa

from tts_actors.models import JobState
from tts_actors.states import ACTIVE
from tts_actors.stores.tables import job_inputs, jobs

UNATTENDED_GRACE_MS = 60_000
"""How late a take-over may be before a job counts as unattended: a recovery takes 15 s, a queue of them longer."""

_SPOKEN = [JobState.COMPLETED.value, JobState.COMPLETED_WITH_GAPS.value]
_ACTIVE = [state.value for state in sorted(ACTIVE)]


def recent_runs_ms(limit: int) -> Callable[[sa.Connection], list[int]]:
    # By the alarm of its time to live, which has an index: with one time to live for all it is the order of the ends.
    query = (
        sa.select(jobs.c.finished_at_ms - jobs.c.started_at_ms)
        .where(jobs.c.state.in_(_SPOKEN))
        .order_by(jobs.c.next_alarm_at_ms.desc())
        .limit(limit)
    )
    return lambda connection: [int(run_ms) for run_ms in connection.execute(query).scalars()]


def unattended_jobs(now_ms: int) -> Callable[[sa.Connection], int]:
    late = now_ms - UNATTENDED_GRACE_MS
    abandoned = sa.and_(
        jobs.c.state == JobState.IN_PROGRESS.value,
        sa.or_(jobs.c.owner.is_(None), jobs.c.next_alarm_at_ms < late),
    )
    has_text = sa.exists().where(job_inputs.c.job_id == jobs.c.id)
    query = (
        sa.select(sa.func.count())
        .select_from(jobs)
        .where(jobs.c.state.in_(_ACTIVE), sa.or_(abandoned, jobs.c.deadline_at_ms < late, ~has_text))
    )
    return lambda connection: int(connection.execute(query).scalar_one())
