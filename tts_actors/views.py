"""A job's parts as a caller sees them; pure."""

from dataclasses import dataclass

from tts_actors.models import ChunkResult, ChunkSpan, ChunkState, JobState
from tts_actors.states import TERMINAL


@dataclass(frozen=True, slots=True)
class ChunkView:
    """A chunk as a caller sees it: its span, and its result once there is one."""

    span: ChunkSpan
    result: ChunkResult | None
    job_state: JobState

    @property
    def state(self) -> ChunkState:
        """Pending, completed or failed; a chunk that its job's end left unspoken has failed."""
        if self.result is not None:
            return ChunkState.COMPLETED if self.result.clip else ChunkState.FAILED
        return ChunkState.FAILED if self.job_state in TERMINAL else ChunkState.PENDING

    @property
    def reason(self) -> str | None:
        """Why the chunk failed, or None."""
        if self.result is not None:
            return self.result.error
        return f"the job ended {self.job_state.value}" if self.job_state in TERMINAL else None
