"""The life of a job as a table; nothing else decides which state may follow which.

``docs/architecture.md`` carries the diagram that :func:`mermaid` draws from this table (a test holds them together).
"""

from tts_actors.errors import Conflict
from tts_actors.models import JobState

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    # A job may fail or be cancelled without ever having run: its deadline can pass in the queue.
    JobState.QUEUED: frozenset({JobState.IN_PROGRESS, JobState.FAILED, JobState.CANCELLED}),
    JobState.IN_PROGRESS: frozenset(
        {JobState.COMPLETED, JobState.COMPLETED_WITH_GAPS, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.COMPLETED: frozenset({JobState.EXPIRED}),
    # Retrying the failed chunks puts a job back into the queue.
    JobState.COMPLETED_WITH_GAPS: frozenset({JobState.QUEUED, JobState.EXPIRED}),
    JobState.FAILED: frozenset({JobState.QUEUED, JobState.EXPIRED}),
    JobState.CANCELLED: frozenset({JobState.EXPIRED}),
    JobState.EXPIRED: frozenset(),
}

TERMINAL = frozenset(
    {
        JobState.COMPLETED,
        JobState.COMPLETED_WITH_GAPS,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.EXPIRED,
    }
)
"""States in which no work is left: no actor, no lease, no alarm but the time to live."""

ACTIVE = frozenset(JobState) - TERMINAL


def check_transition(current: JobState, following: JobState) -> None:
    """Raise :class:`Conflict` unless the table allows the move."""
    if following not in TRANSITIONS[current]:
        raise Conflict(f"a job that is {current.value} cannot become {following.value}", "status")


def mermaid() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> queued"]
    for current, following in TRANSITIONS.items():
        lines += [f"    {current.value} --> {state.value}" for state in JobState if state in following]
    lines.append("    expired --> [*]")
    return "\n".join(lines)
