"""The service's answers as frozen data. Unknown fields stay in ``raw``: a newer service does not break a client."""

from dataclasses import dataclass
from typing import Any, Self

from tts_actors.models import JobState
from tts_actors.states import TERMINAL


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the service described it in one answer; it does not change by itself.

    Times are Unix seconds, ``progress`` goes from 0 to 1, ``eta_seconds`` is None until the first chunk is done.
    ``raw`` is the answer itself, with every field that the service sent.
    """

    id: str
    status: JobState
    created_at: int
    started_at: int | None
    finished_at: int | None
    expires_at: int | None
    orchestrator_timeout_ms: int
    job_timeout_ms: int
    poll_after_ms: int
    character_count: int
    chunks_total: int
    chunks_completed: int
    chunks_failed: int
    chunks_in_flight: int
    progress: float
    eta_seconds: float | None
    audio_seconds_ready: float
    model: str
    voice: str | None
    response_format: str
    metadata: dict[str, str]
    error_code: str | None
    error_message: str | None
    raw: dict[str, Any]

    @property
    def ended(self) -> bool:
        """True when no work is left, whatever came of it."""
        return self.status in TERMINAL

    @property
    def complete(self) -> bool:
        """True when every chunk was spoken."""
        return self.status is JobState.COMPLETED

    @classmethod
    def from_answer(cls, raw: dict[str, Any]) -> Self:
        """The job in a decoded answer. ``KeyError``, ``TypeError`` or ``ValueError`` if it is not a job."""
        chunks, error = raw["chunks"], raw["error"] or {}
        same = {name: raw[name] for name in _SAME_NAMES}
        return cls(
            **same,
            status=JobState(raw["status"]),
            chunks_total=chunks["total"],
            chunks_completed=chunks["completed"],
            chunks_failed=chunks["failed"],
            chunks_in_flight=chunks["in_flight"],
            error_code=error.get("code"),
            error_message=error.get("message"),
            raw=raw,
        )


_SAME_NAMES = (
    "id",
    "created_at",
    "started_at",
    "finished_at",
    "expires_at",
    "orchestrator_timeout_ms",
    "job_timeout_ms",
    "poll_after_ms",
    "character_count",
    "progress",
    "eta_seconds",
    "audio_seconds_ready",
    "model",
    "voice",
    "response_format",
    "metadata",
)


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs, newest first. With ``has_more``, ask again ``after`` the id of the last one."""

    jobs: tuple[Job, ...]
    has_more: bool
