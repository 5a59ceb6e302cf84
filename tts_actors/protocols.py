"""The seams: what one layer promises the next. Nothing here does anything.

The HTTP layer, the job actor and the directory know each other only through these, so each runs with or without Ray.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from tts_actors.messages import Activation, Lease, Reservation, SliceOrder, SliceProgress
from tts_actors.models import (
    NO_QUOTA,
    Attempt,
    Backlog,
    ChunkResult,
    Ending,
    JobCounts,
    JobInput,
    JobRecord,
    JobState,
    NewJob,
    Priority,
    Quota,
)


class JobStore(Protocol):
    """Where the truth about jobs lives. Raises :class:`StoreUnavailable` when it cannot be reached.

    Every write that belongs to a running job names the epoch it was claimed with and raises :class:`StaleEpoch` if the
    job has been claimed again since.
    """

    async def create_job(self, job: NewJob, admit: Callable[[Backlog], int]) -> tuple[JobRecord, bool]:
        """Commit the job; True with it. If its id or idempotency key exists already: the job that has it, and False.

        ``admit`` is asked inside the transaction what waiting behind the present backlog may cost, milliseconds; that
        is added to the job's time-out and its deadline. What it raises is raised, and nothing is stored. The job's
        ``claim`` counts if the queue is empty. Raises :class:`LimitExceeded` beyond the job's ``quota``.
        """

    async def get_job(self, job_id: str) -> JobRecord | None: ...

    async def find_by_key(self, tenant: str, idempotency_key: str) -> JobRecord | None: ...

    async def get_input(self, job_id: str) -> JobInput | None: ...

    async def list_jobs(
        self, tenant: str, *, limit: int, after: str | None, state: JobState | None
    ) -> list[JobRecord]: ...

    async def get_chunk(self, job_id: str, index: int) -> tuple[JobRecord, ChunkResult | None] | None:
        """The job and the chunk's result if it has one, read together; None if there is no such job."""

    async def get_chunks(self, job_id: str) -> list[ChunkResult]: ...

    async def get_news(self, job_id: str, since: int) -> tuple[JobRecord, list[tuple[int, ChunkResult]]] | None:
        """The job, and the results that came after its version ``since``, each with its version, by version and index.

        None of them is newer than the job that comes with them. None if there is no such job.
        """

    async def claim(
        self, job_id: str, *, owner: str, now_ms: int, lease_ms: int, only_due: bool = False
    ) -> Activation | None:
        """Become the job's owner under a new epoch; None if it is terminal, gone or somebody else's.

        With ``only_due`` one's own claim is left alone too until it has run out.
        """

    async def record(
        self,
        job_id: str,
        epoch: int,
        *,
        results: Sequence[ChunkResult],
        counts: JobCounts,
        lease_until_ms: int,
    ) -> int:
        """Commit results and counts together and prolong the lease; returns the job's new version."""

    async def finish(
        self,
        job_id: str,
        epoch: int,
        *,
        ending: Ending,
        results: Sequence[ChunkResult] = (),
        counts: JobCounts | None = None,
    ) -> int:
        """Commit a terminal state, with the last results and counts if there are any; returns the new version."""

    async def requeue(self, job_id: str, *, now_ms: int, deadline_at_ms: int, quota: Quota = NO_QUOTA) -> JobRecord:
        """Put a failed job or one with gaps back into the queue, its failed chunks forgotten."""

    async def charge(self, tenant: str, quota: Quota, characters: int, *, now_ms: int) -> None:
        """Count characters that are spoken without a job. Raises :class:`LimitExceeded` and counts nothing then."""

    async def set_metadata(self, job_id: str, epoch: int, metadata: dict[str, str]) -> int:
        """Replace the metadata of a running job's request; returns the job's new version."""

    async def delete_job(self, job_id: str, *, now_ms: int, epoch: int | None = None) -> bool:
        """Remove the job's rows; with ``epoch`` only if the job has ended under it. False if nothing was removed."""

    async def queued_jobs(self, *, limit: int) -> list[str]:
        """Jobs waiting to run, by priority, then age."""

    async def jobs_of(self, owner: str, *, lease_before_ms: int | None = None) -> dict[str, int]:
        """Running jobs that ``owner`` has claimed, with their versions; with ``lease_before_ms`` those whose lease ends
        by then.
        """

    async def due_jobs(self, *, now_ms: int, limit: int) -> list[tuple[str, JobState]]:
        """Unfinished jobs whose alarm has passed: dead owners, forgotten queue entries."""

    async def ended_lives(self, *, now_ms: int, limit: int) -> list[str]:
        """Finished jobs whose time is over, for :meth:`expire`."""

    async def recent_runs_ms(self, *, limit: int) -> list[int]:
        """How long the latest completed jobs ran, milliseconds, without their time in the queue."""

    async def unattended_jobs(self, *, now_ms: int) -> int:
        """How many jobs break the invariant: none is unfinished without somebody who brings it to an end.

        That is a running job without an owner, one whose lease ran out and was not taken over, one past its deadline
        (each with a grace for a recovery), or one without its text.
        """

    async def expire(self, job_id: str, *, now_ms: int, only_due: bool) -> bool:
        """End the life of a finished job, its text and results gone; its objects are the caller's to remove.

        With ``only_due`` only if its time is over. False, and nothing is changed, if the job is not like that.
        """

    async def next_removal(self, *, now_ms: int) -> str | None:
        """A job that was removed or expired a while ago and may have left objects; never the id of a kept job."""

    async def forget_removals(self, job_id: str | None, *, now_ms: int) -> None:
        """The objects of this job are gone; with None: drop the notes of ids that belong to kept jobs again."""

    async def warm(self) -> None:
        """Go through the statements of a running job once, without effect, so that the first job need not wait."""

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


class ClipStore(Protocol):
    """Where audio lives: write-once objects under slash-separated keys."""

    async def prepare(self, prefix: str) -> None:
        """Do ahead what the first ``put`` of a key below ``prefix`` would have to do; nothing depends on it."""

    async def put(self, key: str, body: bytes) -> bool:
        """Store unless the key exists; an existing object is left as it is, and the answer is False."""

    async def put_file(self, key: str, path: str) -> bool:
        """Like :meth:`put`, from a local file. (An object store gets it in one conditional request, which holds it in
        memory: there is no multipart upload that fails if the object exists.)
        """

    async def get(self, key: str) -> bytes | None: ...

    async def get_range(self, key: str, start: int, end: int) -> bytes: ...

    async def size(self, key: str) -> int | None: ...

    async def remove(self, key: str) -> None:
        """Remove one object; it is no error if there is none."""

    async def delete_prefix(self, prefix: str, *, older_than_seconds: float = 0.0) -> None:
        """Remove what lies below ``prefix``, if it has lain there for so long."""

    async def ping(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Utterance:
    """One piece of text for one backend, in that backend's own names."""

    text: str
    model: str
    voice: str
    speed: float
    instructions: str | None
    language: str | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a backend sent, unjudged."""

    body: bytes
    content_type: str | None
    raw_rate_hz: int | None = None


class Backend(Protocol):
    """A speech server behind one protocol. Raises :class:`BackendError`; knows neither retries nor timeouts."""

    @property
    def name(self) -> str: ...

    async def speak(self, utterance: Utterance) -> Reply: ...

    async def check(self) -> None:
        """Raise :class:`BackendError` unless the server answers."""


class LeaseSource(Protocol):
    """Who may call which backend now; the limit holds over all jobs."""

    async def acquire(
        self, job_id: str, *, usable: Collection[str], avoid: Collection[str], priority: Priority
    ) -> Lease:
        """Wait for permission to call one of ``usable``; of ``avoid``, where it failed, only if there is no other."""

    def release(self, lease: Lease, attempt: Attempt) -> None:
        """Give the permission back and tell how the call went; never waits."""

    async def settle(self) -> None:
        """Leave nothing open: whoever calls this makes no calls and runs no event loop for a while."""


class Dispatch(Protocol):
    """Runs slices of a job somewhere and streams what comes of them."""

    def __call__(self, order: SliceOrder) -> AsyncGenerator[SliceProgress]: ...


class JobHandle(Protocol):
    """A job actor seen from outside. Raises :class:`DirectoryUnavailable` once the actor is gone."""

    async def run(self, activation: Activation | None = None) -> JobState: ...

    async def check(self) -> None:
        """Returns if an actor without work answers within seconds."""

    async def cancel(self) -> None: ...

    async def put_back(self) -> None:
        """Stop work on the job and give up the claim on it; returns once its results so far are committed."""

    async def opening(self, result: ChunkResult | None) -> bool:
        """As of :meth:`Directory.opening`."""

    async def wait(self, version: int, timeout_seconds: float, linger_seconds: float) -> int: ...

    def kill(self) -> None: ...

    def end(self) -> None:
        """Kill one that no other comes after: what its worker held is for others at once."""

    def give_up(self) -> None:
        """Kill one that has fallen silent: what is around it may have too, so nothing is started there for a while."""


class Spawner(Protocol):
    """Starts job actors. ``spawn`` returns once the actor answers; its name is the job id.

    ``rehearse`` is for actors without a job: they get warm at the price of a moment's work of a chunk worker.
    """

    async def spawn(self, job_id: str, *, rehearse: bool = False) -> JobHandle: ...


class Directory(Protocol):
    """What the HTTP side asks of the job directory. Raises :class:`DirectoryUnavailable` while there is none."""

    @property
    def draining(self) -> bool:
        """Whether the service takes no new work."""

    async def reserve(self) -> Reservation:
        """A fresh job id, with a warm actor waiting under that name and a place to run if there is one."""

    async def start(self, job_id: str, activation: Activation | None = None, traceparent: str | None = None) -> None:
        """A committed job may run: at once if it was committed as claimed, otherwise now or when capacity frees.

        ``traceparent`` is the trace that it belongs to, if any."""

    async def cancel(self, job_id: str) -> None: ...

    async def forget(self, job_id: str) -> None:
        """Stop the job's actor, if any: the job is about to be deleted."""

    async def opening(self, job_id: str, result: ChunkResult | None) -> bool:
        """Tell the job's actor of the first chunk, which the caller speaks: its result, or None while it is at work.

        False if the actor does not wait for it (any more).
        """

    async def wait(self, job_id: str, version: int, timeout_seconds: float, *, linger_seconds: float = 0.0) -> None:
        """Return when the job's version passes ``version``, at the latest after the time-out.

        News are held back for ``linger_seconds``, the job's end is not: each answer costs two processes some work.
        """
