"""What the service does for a caller, without HTTP and without Ray: accept, report, deliver, stop, remove.

Every doorway (the original's, the job routes, the command line) goes through here. A tenant sees its own jobs alone:
another's job is not found.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import structlog

from tts_actors import metrics, tracing
from tts_actors.admission import Admission, check_accepting
from tts_actors.ahead import Ahead
from tts_actors.backends.catalog import Catalog, Route
from tts_actors.chunk_worker import WorkerTools
from tts_actors.config import AppArgs
from tts_actors.errors import (
    ChunkFailed,
    Conflict,
    DirectoryUnavailable,
    HasGaps,
    NotFound,
    NotReady,
    QueueFull,
    StoreUnavailable,
)
from tts_actors.inputs import Inputs
from tts_actors.job_actor import LEASE_MS
from tts_actors.live import LOOK_AGAIN_SECONDS, LiveAudio, News, follow
from tts_actors.messages import Activation, Reservation
from tts_actors.models import (
    ChunkState,
    Claim,
    JobInput,
    JobPlan,
    JobRecord,
    JobState,
    NewJob,
    OnChunkFailure,
    Priority,
    Quota,
    SpeechRequest,
)
from tts_actors.opening import ANSWER_SECONDS, Opening
from tts_actors.outputs import OutputFile, Renderer, Segment, chunk_pcm, lay_out
from tts_actors.planning import PlanBounds, plan_job
from tts_actors.protocols import ClipStore, Directory, JobStore
from tts_actors.spares import new_job_id
from tts_actors.states import TERMINAL
from tts_actors.tenancy import JOB_ID, repeated, visible
from tts_actors.views import ChunkView

ENCODE_WAIT_SECONDS = 50.0
"""How long a request waits for a compressed file: below the minute at which proxies give up."""

HANDED_OVER_CHARACTERS = 50_000
"""Texts up to this length go to their actor with the start; longer ones it reads from the store."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Accepted:
    """A committed job with its plan; ``made`` is False if an earlier request had made it already."""

    job: JobRecord
    plan: JobPlan
    made: bool


class JobService:
    """Accepts jobs and answers for them."""

    def __init__(
        self,
        args: AppArgs,
        *,
        store: JobStore,
        clips: ClipStore,
        directory: Directory,
        tools: Callable[[], Awaitable[WorkerTools]] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._args = args
        self._store = store
        self._clips = clips
        self._directory = directory
        self._tools = tools
        self._now = now
        self._renderer = Renderer(clips, self._is_gone)
        self._live = LiveAudio(store, clips, directory)
        self._starting: set[asyncio.Task[None]] = set()
        self._inputs = Inputs(store)
        self._ahead = Ahead(store, directory, self._inputs, self._renderer, at_once=args.limits.max_active_jobs)
        self._admission = Admission(args.limits, store, now)
        self.catalog = Catalog(args.backends, args.aliases)
        self._timeouts = args.timeouts.policy()
        self._retry = args.retry.policy()
        per_key = args.limits.per_key
        self._quota = Quota(per_key.active_jobs, per_key.characters_per_day)

    async def plan(self, request: SpeechRequest, text: str, first_characters: int | None = None) -> JobPlan:
        """What a job would be: raises what :meth:`create` would raise for its input, and makes nothing."""
        route = self.catalog.route(request.model, request.voice)
        bounds = self._bounds(route, first_characters)
        if len(text) < 20_000 and not request.lexicon:
            return plan_job(text, request, bounds=bounds, timeouts=self._timeouts, retry=self._retry)
        # A book takes tens of milliseconds to split, a large lexicon a second to compile: not on everybody's loop.
        return await asyncio.to_thread(
            plan_job, text, request, bounds=bounds, timeouts=self._timeouts, retry=self._retry
        )

    def _bounds(self, route: Route, first_characters: int | None) -> PlanBounds:
        limits = self._args.limits
        concurrency = min(route.concurrency, limits.max_calls_per_job * limits.max_active_jobs)
        return PlanBounds(
            max_characters=limits.max_characters,
            max_chunks=limits.max_chunks,
            chunk_characters=route.chunk_characters,
            concurrency=max(concurrency / limits.max_active_jobs, 1 / limits.max_active_jobs),
            first_characters=first_characters,
        )

    async def create(
        self,
        tenant: str,
        request: SpeechRequest,
        text: str,
        *,
        job_id: str | None = None,
        idempotency_key: str | None = None,
        request_hash: str = "",
        plan: JobPlan | None = None,
        encode_ahead: bool = False,
        opens: bool = False,
    ) -> Accepted:
        """Accept a job: when this returns, it is committed. Raises before anything is stored.

        With ``encode_ahead`` its file, in its format, is encoded while it is spoken. The first chunk of an interactive
        job may be spoken by this process; with ``opens`` it begins before the commit, for somebody is about to listen.

        If the id or the key names a job already, that one comes back; :class:`RequestMismatch` if its request was
        another, :class:`JobExpired` if its life is over.
        """
        request = self.catalog.route(request.model, request.voice).settled(request)
        plan = plan or await self.plan(request, text)
        earlier = await self._repeated(tenant, job_id, idempotency_key)
        if earlier is not None:
            return Accepted(repeated(tenant, earlier, request_hash), plan, made=False)
        check_accepting(self._directory.draining)
        reservation = await self._reserve() if job_id is None else Reservation(job_id)
        now_ms = int(self._now() * 1_000)
        handed_over = len(text) <= HANDED_OVER_CHARACTERS
        claim = Claim(reservation.owner, now_ms + LEASE_MS) if reservation.owner and handed_over else None
        job = NewJob(
            id=reservation.job_id,
            tenant=tenant,
            request=request,
            text=text,
            plan=plan,
            created_at_ms=now_ms,
            idempotency_key=idempotency_key,
            request_hash=request_hash,
            claim=claim,
            quota=self._quota,
            traceparent=tracing.traceparent(),
        )
        opening = self._opening(job, 0.0) if opens else None
        with opening or contextlib.nullcontext():
            try:
                record, made = await self._store.create_job(job, self._admission.wait_ms)
            except QueueFull as full:
                raise await self._admission.refusal(full) from None
            if not made and job_id is None and idempotency_key is None:
                raise StoreUnavailable("the fresh job id was taken: ask again", 1.0)
            if not made:
                return Accepted(repeated(tenant, record, request_hash), plan, made=False)
            opened = self._hand_over(job, record, opening)
        self._begin(record, JobInput(text, plan), claim, opened=opened)
        if encode_ahead:
            self._ahead.start(record)
        return Accepted(record, plan, made=True)

    def _opening(self, job: NewJob, after_seconds: float) -> Opening | None:
        """What speaks the job's first chunk, if the job will have its actor at once."""
        if job.claim is None or self._tools is None:
            return None
        opening = Opening(job, self._tools, self._directory, self._live, after_seconds=after_seconds)
        self._keep(opening.task)
        return opening

    def _hand_over(self, job: NewJob, record: JobRecord, opening: Opening | None) -> bool:
        """The job is committed; whether its actor is to wait for its first chunk, since it is spoken here.

        An interactive job's is, as soon as its caller is answered if it was not before.
        """
        if opening is None and record.epoch and job.request.priority is Priority.INTERACTIVE:
            opening = self._opening(job, ANSWER_SECONDS)
        return opening is not None and opening.hand_over(record)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    def _begin(self, record: JobRecord, given: JobInput, claim: Claim | None, *, opened: bool) -> None:
        """Have a committed job started. Accepted is accepted: the answer does not wait for the start."""
        metrics.record(metrics.JOBS_ACCEPTED, 1, record.request.priority.value)
        given = self._inputs.keep(record, given)
        activation = None
        if claim is not None and record.epoch:
            activation = Activation(record, given, (), claim.lease_until_ms, opened)
        self._keep(asyncio.create_task(self._start(record, activation)))

    async def _repeated(self, tenant: str, job_id: str | None, idempotency_key: str | None) -> JobRecord | None:
        """The job that an earlier request with this id or key has made; a full queue does not matter to it."""
        if idempotency_key is not None:
            return await self._store.find_by_key(tenant, idempotency_key)
        return None if job_id is None else await self._store.get_job(job_id)

    async def _reserve(self) -> Reservation:
        try:
            return await self._directory.reserve()
        except DirectoryUnavailable:
            return Reservation(new_job_id())

    async def _start(self, job: JobRecord, activation: Activation | None = None) -> None:
        """The fast path; when it fails the sweep starts the job, within seconds."""
        try:
            await self._directory.start(job.id, activation, job.traceparent)
        except DirectoryUnavailable as error:
            log.warning("job_left_to_sweep", job_id=job.id, reason=error.message)

    async def charge(self, tenant: str, characters: int) -> None:
        """Count characters spoken without a job. Raises :class:`LimitExceeded` beyond the key's day."""
        if self._quota.characters_per_day is not None:
            await self._store.charge(tenant, self._quota, characters, now_ms=int(self._now() * 1_000))

    async def get(self, tenant: str, job_id: str) -> JobRecord:
        """The job. Raises :class:`NotFound`, or :class:`JobExpired` when its life is over."""
        return visible(tenant, await self._store.get_job(job_id) if JOB_ID.match(job_id) else None)

    async def list_jobs(self, tenant: str, *, limit: int, after: str | None, state: JobState | None) -> list[JobRecord]:
        """The tenant's jobs, newest first."""
        return await self._store.list_jobs(tenant, limit=limit, after=after, state=state)

    async def wait(self, tenant: str, job_id: str, seconds: float) -> JobRecord:
        """The job once it has ended, or as it is after ``seconds``."""
        job = await self.get(tenant, job_id)
        give_up = time.monotonic() + seconds
        while job.state not in TERMINAL and (remaining := give_up - time.monotonic()) > 0:
            wait_seconds = min(remaining, LOOK_AGAIN_SECONDS)
            await self._directory.wait(job_id, job.version, wait_seconds, linger_seconds=wait_seconds)
            job = await self.get(tenant, job_id)
        return job

    async def input(self, tenant: str, job_id: str) -> tuple[JobRecord, JobInput]:
        """The job with its text and plan."""
        job = await self.get(tenant, job_id)
        return job, await self._inputs.of(job)

    async def chunks(self, tenant: str, job_id: str) -> list[ChunkView]:
        """All chunks in text order."""
        job, given = await self.input(tenant, job_id)
        results = {result.index: result for result in await self._store.get_chunks(job_id)}
        return [ChunkView(span, results.get(span.index), job.state) for span in given.plan.spans]

    async def chunk(self, tenant: str, job_id: str, index: int) -> tuple[ChunkView, JobInput, JobRecord]:
        """One chunk. Raises :class:`NotFound` for an index that the job has not."""
        found = await self._store.get_chunk(job_id, index) if JOB_ID.match(job_id) else None
        job = visible(tenant, found[0] if found else None)
        if not 0 <= index < job.chunk_total:
            raise NotFound(f"the job has chunks 0 to {job.chunk_total - 1}", "chunk_index")
        given = await self._inputs.of(job)
        return ChunkView(given.plan.spans[index], found[1] if found else None, job.state), given, job

    async def chunk_audio(self, view: ChunkView, job: JobRecord) -> bytes:
        """The chunk as little-endian s16 at 24 kHz with the pause behind it.

        Raises :class:`NotReady` while it is pending and :class:`ChunkFailed` when it failed for good.
        """
        if view.state is ChunkState.PENDING:
            raise NotReady("the chunk is not spoken yet", job.poll_after_ms / 1_000)
        if view.state is ChunkState.FAILED or view.result is None:
            raise ChunkFailed(view.reason or "the chunk failed", "chunk_index")
        segment = lay_out([view.span], [view.result], job.request.speed)[0]
        return await chunk_pcm(segment, self._clips)

    async def layout(self, tenant: str, job_id: str) -> tuple[JobRecord, JobInput, list[Segment]]:
        """The finished job's segments. Raises :class:`NotReady` before that."""
        job, given = await self.input(tenant, job_id)
        if job.state not in TERMINAL:
            raise NotReady(f"the job is {job.state.value}", job.poll_after_ms / 1_000)
        results = await self._store.get_chunks(job_id)
        return job, given, lay_out(given.plan.spans, results, job.request.speed)

    async def layout_so_far(self, tenant: str, job_id: str) -> tuple[JobRecord, JobInput, list[Segment]]:
        """The segments that are settled in text order: all of a finished job, the first ones of a running job.

        They lie where a listener of the running job hears them. A failed chunk is a gap for a job that goes on with
        silence, and the end of what is settled for others.
        """
        job, given = await self.input(tenant, job_id)
        results = await self._store.get_chunks(job_id)
        spans = given.plan.spans
        if job.state not in TERMINAL:
            goes_on = job.request.on_chunk_failure is OnChunkFailure.SILENCE
            settled = {result.index for result in results if result.clip is not None or goes_on}
            spans = tuple(itertools.takewhile(lambda span: span.index in settled, spans))
        return job, given, lay_out(spans, results, job.request.speed)

    async def output(
        self, tenant: str, job_id: str, fmt: str | None, *, silence_for_gaps: bool
    ) -> tuple[JobRecord, OutputFile]:
        """The finished file. Raises :class:`NotReady`, or :class:`HasGaps` unless gaps may be silent."""
        job, _, segments = await self.layout(tenant, job_id)
        missing = [segment.index for segment in segments if segment.clip is None]
        if len(missing) == len(segments):
            raise HasGaps("nothing of this job was spoken", "gaps")
        if missing and not silence_for_gaps:
            shown = ", ".join(map(str, missing[:10])) + (" ..." if len(missing) > 10 else "")
            raise HasGaps(f"chunks {shown} are missing; gaps=silence fills them with silence", "gaps")
        chosen = fmt or job.request.response_format
        give_up = time.monotonic() + ENCODE_WAIT_SECONDS
        await self._ahead.settled(job, chosen, ENCODE_WAIT_SECONDS)
        try:
            output = await self._renderer.output(job_id, segments, chosen, max(0.0, give_up - time.monotonic()))
        except TimeoutError:
            raise NotReady("the file is being encoded", 10.0) from None
        return job, output

    async def events(self, tenant: str, job_id: str, since: int) -> tuple[JobRecord, JobInput, AsyncGenerator[News]]:
        """The job as it is, and its news after version ``since`` until it has ended."""
        job, given = await self.input(tenant, job_id)
        return job, given, follow(self._store, self._directory, job, since)

    async def live(
        self, tenant: str, job_id: str, fmt: str | None, *, silence_for_gaps: bool
    ) -> tuple[JobRecord, AsyncGenerator[bytes]]:
        """The job's audio from its start, as it is rendered; the generator raises what ends it early, and is closed.

        Raises :class:`HasGaps` at a failed chunk unless gaps may be silent.
        """
        job, given = await self.input(tenant, job_id)
        chosen = fmt or job.request.response_format
        return job, self._live.listen(job, given, chosen, fills_gaps=silence_for_gaps)

    def has_listeners(self, job_id: str) -> bool:
        """If somebody listens to the job live, in this process."""
        return self._live.has_listeners(job_id)

    async def cancel(self, tenant: str, job_id: str) -> JobRecord:
        """Stop the job; one that has ended already is left as it is."""
        job = await self.get(tenant, job_id)
        if job.state not in TERMINAL:
            await self._directory.cancel(job_id)
            job = await self.get(tenant, job_id)
        return job

    async def retry(self, tenant: str, job_id: str) -> JobRecord:
        """Speak the failed chunks again; the others keep their clips."""
        job = await self.get(tenant, job_id)
        if job.state not in (JobState.FAILED, JobState.COMPLETED_WITH_GAPS):
            raise Conflict(f"only a failed job can be retried; this one is {job.state.value}", "status")
        await self._directory.forget(job_id)
        now_ms = int(self._now() * 1_000)
        job = await self._store.requeue(
            job_id, now_ms=now_ms, deadline_at_ms=now_ms + job.job_timeout_ms, quota=self._quota
        )
        await self._start(job)
        return job

    async def delete(self, tenant: str, job_id: str) -> None:
        """Remove the job, its rows and its audio; a running one is stopped first."""
        if not JOB_ID.match(job_id):
            raise NotFound("there is no such job", "job_id")
        job = await self._store.get_job(job_id)
        if job is None or job.tenant != tenant:
            raise NotFound("there is no such job", "job_id")
        if job.state not in TERMINAL:
            await self._directory.cancel(job_id)
        await self._directory.forget(job_id)
        now_ms = int(self._now() * 1_000)
        # Its id is free only when its objects are gone: a new job under it must not lose its own.
        await self._store.expire(job_id, now_ms=now_ms, only_due=False)
        await self._clips.delete_prefix(job_id)
        await self._store.delete_job(job_id, now_ms=now_ms)

    async def unattended_jobs(self) -> int:
        """Jobs that nobody would bring to an end: 0, or the service has a fault or has only just come up."""
        return await self._store.unattended_jobs(now_ms=int(self._now() * 1_000))

    async def _is_gone(self, job_id: str) -> bool:
        """If the job has been deleted or has expired: nothing may be stored for it any more."""
        job = await self._store.get_job(job_id)
        return job is None or job.state is JobState.EXPIRED
