"""What processes tell each other about jobs under way: plain frozen data, picklable, that nobody stores.

The nouns of a job, most of which are stored, are in ``models.py``, with the units of their fields.
"""

from dataclasses import dataclass

from tts_actors.models import Attempt, ChunkResult, JobInput, JobRecord, SpeechRequest
from tts_actors.timeouts import TimeoutPolicy


@dataclass(frozen=True, slots=True)
class Reservation:
    """A fresh job id. With an ``owner``, a warm actor waits under it and a place to run is held for it, so that the job
    may be committed as claimed by that owner.
    """

    job_id: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Activation:
    """A claimed job with all that its actor needs to work on it; void once the lease has run out.

    With ``opened`` its first chunk is being spoken by the door that made the job, and is left to it.
    """

    job: JobRecord
    input: JobInput
    results: tuple[ChunkResult, ...]
    lease_until_ms: int
    opened: bool = False


@dataclass(frozen=True, slots=True)
class SliceOrder:
    """Work for one chunk-worker task: some chunks of one job, with all that is needed to speak them.

    ``pieces`` are ``(index, characters of the span, text to speak)``. ``adopt`` asks the worker to look for clips that
    an earlier activation stored without a row before it calls a backend. ``sole``: no other worker speaks for this job
    now, so leases that it still holds are those of a dead one.
    """

    job_id: str
    epoch: int
    deadline_at_ms: int
    request: SpeechRequest
    pieces: tuple[tuple[int, int, str], ...]
    timeouts: TimeoutPolicy
    max_in_flight: int
    adopt: bool
    traceparent: str | None = None
    sole: bool = True


@dataclass(frozen=True, slots=True)
class SliceProgress:
    """What a worker streams back: results that became ready together, and how many calls are still running."""

    results: tuple[ChunkResult, ...]
    in_flight: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Permission for one call of ``backend`` until it is released or its time to live is over."""

    token: str
    backend: str


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """How a call under a lease went, and whether the lease comes back or serves another call at once."""

    token: str
    attempt: Attempt
    returned: bool
