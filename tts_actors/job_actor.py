"""One job, from claim to verdict: the actor that plays the Durable Object's role.

A plain async class: ``cluster`` makes a Ray actor of it, tests run it as it is. It is the only writer of its job's
rows while its epoch holds, and only a cache, a mutex and a timer: the truth is in the stores, and a fresh actor goes
on where a dead one stopped.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import structlog

from tts_actors import metrics, tracing
from tts_actors.awaited import AwaitedChunk
from tts_actors.errors import Conflict, RetryLater, StaleEpoch, TtsError
from tts_actors.inbox import Inbox
from tts_actors.job_object import ActorTools, JobObject
from tts_actors.ledger import Ledger
from tts_actors.logs import place_of
from tts_actors.messages import Activation, SliceOrder, SliceProgress
from tts_actors.models import ChunkResult, Ending, JobRecord, JobState, SpeechRequest
from tts_actors.orders import slice_order
from tts_actors.states import TERMINAL
from tts_actors.text import spoken_text
from tts_actors.timeouts import TimeoutPolicy

LEASE_MS = 10_000
"""Life of a claim. A full restart resumes a job when it has run out: well inside the 15 s that are promised."""

HEARTBEAT_SECONDS = 3.0
"""How often a claim is prolonged while nothing else is written: three chances before it runs out."""

SLICE_CHUNKS = 2_500
"""Chunks a worker task gets at once: the tail of a slice costs one backend call's latency, so slices are long."""

STORE_RETRY_SECONDS = 0.5
"""Pause between tries while the job store is away."""

MAX_LOST_WORKERS = 5
"""Chunk-worker processes that may die one after another without a single new result before the job has failed."""

REHEARSAL = SliceOrder("-", 0, 0, SpeechRequest("-", "-"), (), TimeoutPolicy(), 1, adopt=False)
"""A slice without chunks."""

log = structlog.get_logger()


class WorkerLost(RetryLater):
    """A chunk-worker process died; what it had stored is kept."""

    code = "worker_lost"


class JobActor(JobObject):
    """The life of one job. Construction does no I/O and cannot fail: ``open_tools`` is called by :meth:`run`."""

    def __init__(self, job_id: str, open_tools: Callable[[], ActorTools]) -> None:
        super().__init__(job_id, open_tools)
        self._ledger: Ledger | None = None
        self._version = 0
        self._in_flight = 0
        self._spoken = False
        self._pending: list[ChunkResult] = []
        self._writing = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._cancelled = asyncio.Event()
        self._wanted_back = asyncio.Event()
        self._inbox: Inbox[SliceProgress] = Inbox()
        self._settled_from_outside = False
        self._first: AwaitedChunk | None = AwaitedChunk()
        self._error_from_outside: tuple[str, str] | None = None

    async def ready(self, *, rehearse: bool = False) -> str:
        """Answers once the process is up and its store connection is warm: the job id.

        With ``rehearse`` an empty slice has gone to a worker and back too: the first one of a process costs 30 ms more
        than the next (measured: connections, code that runs for the first time).
        """
        tools = self._warm()
        with contextlib.suppress(RetryLater):  # a store that is away now may be back when the job comes
            await tools.store.warm()
            if rehearse:
                spoken_text(REHEARSAL.request.model)
                async with contextlib.aclosing(tools.dispatch(REHEARSAL)) as nothing:
                    async for _ in nothing:
                        pass
        return self._job_id

    async def run(self, activation: Activation | None = None) -> JobState:
        """Bring the job to an end, claiming it first unless ``activation`` is a claim already; returns its state then.

        Safe to call again and after a crash.

        Returns without touching anything if the job is finished, gone, or owned elsewhere.
        """
        try:
            return await self._run(activation)
        finally:
            self._stopped.set()

    async def _run(self, activation: Activation | None) -> JobState:
        tools = self._warm()
        if activation is None or activation.lease_until_ms <= self._now_ms():
            activation = await self._insistently(
                lambda: tools.store.claim(self._job_id, owner=tools.owner, now_ms=self._now_ms(), lease_ms=LEASE_MS)
            )
        if activation is None:
            return await self._stored_state()
        job = activation.job
        self._job, self._version, self._input = job, job.version, activation.input
        self._first = self._first if activation.opened else None
        if self._first is not None:
            self._first.hear(None)
        self._ledger = Ledger(activation.input.plan, job.request.on_chunk_failure)
        self._ledger.record(activation.results)
        logger = log.bind(job_id=job.id, epoch=job.epoch)
        attributes = {
            "tts.job.id": job.id,
            "tts.job.epoch": job.epoch,
            "tts.job.activation": job.activations,
            "tts.job.chunks": job.chunk_total,
        }
        with tracing.span("tts.job.run", attributes, parent=job.traceparent) as span:
            logger.info("job_claimed", activation=job.activations, chunks=job.chunk_total)
            try:
                state = await self._drive(job, self._ledger)
            except StaleEpoch:
                logger.warning("job_fenced")
                state = await self._stored_state()
            logger.info("job_ended", state=state.value)
            span.set("tts.job.state", state.value)
            if state is JobState.FAILED:
                span.fail("failed")
        metrics.record(metrics.JOBS_ENDED, 1, state.value)
        return state

    async def _drive(self, job: JobRecord, ledger: Ledger) -> JobState:
        limit = self._warm().settings.max_activations
        if job.activations > limit:
            reason = f"the job's actor died {limit} times; limits.max_activations is {limit}"
            return await self._finish(JobState.FAILED, ("too_many_activations", reason))
        work = asyncio.create_task(self._work(job, ledger))
        heartbeat = asyncio.create_task(self._heartbeat(job, ledger))
        stop = asyncio.create_task(self._cancelled.wait())
        leave = asyncio.create_task(self._wanted_back.wait())
        remaining_seconds = max(0.0, (job.deadline_at_ms - self._now_ms()) / 1_000)
        try:
            await asyncio.wait(
                {work, heartbeat, stop, leave}, timeout=remaining_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if self._cancelled.is_set():
                await _ended(work)
                error = self._error_from_outside
                return await self._finish(JobState.FAILED if error else JobState.CANCELLED, error)
            if heartbeat.done():
                heartbeat.result()
            if leave.done() and not work.done():
                async with self._writing:  # no commit is cut in two
                    await _ended(work)
                    await _ended(heartbeat)
                await self._commit(job, ledger, lease_ms=0)
                return JobState.IN_PROGRESS
            if not work.done():
                await _ended(work)
                reason = f"the job did not finish within its {job.job_timeout_ms} ms"
                return await self._finish(JobState.FAILED, ("deadline_exceeded", reason))
            try:
                work.result()
            except StaleEpoch:
                raise
            except TtsError as error:
                return await self._finish(JobState.FAILED, (error.code, error.message))
            return await self._conclude(ledger)
        finally:
            for task in (work, heartbeat, stop, leave):
                await _ended(task)

    async def _work(self, job: JobRecord, ledger: Ledger) -> None:
        """Dispatch what is outstanding until the ledger has a verdict; what it has is committed by then or pending."""
        lost, lost_in_a_row = False, 0
        while ledger.verdict() is None:
            before = len(ledger.outstanding())
            try:
                await self._slice(job, ledger, ledger.outstanding()[:SLICE_CHUNKS], adopt=lost)
            except WorkerLost:
                lost = True  # from now on: what it stored without telling must not be spoken again
                log.warning("worker_lost", job_id=job.id, epoch=job.epoch)
            except TtsError:
                raise
            except Exception as error:  # noqa: BLE001 - the boundary of a worker: a fault in it ends it, not the job
                lost = True
                kind, place = type(error).__name__, place_of(error)
                log.error("worker_crashed", job_id=job.id, epoch=job.epoch, kind=kind, place=place)
            lost_in_a_row = 0 if len(ledger.outstanding()) < before else lost_in_a_row + 1
            if lost_in_a_row >= MAX_LOST_WORKERS:
                return

    async def _slice(self, job: JobRecord, ledger: Ledger, indices: list[int], *, adopt: bool) -> None:
        """Run one slice to its end. Results that arrive during a commit are committed together by the next one."""
        streams = self._streams(job, indices, adopt=adopt)
        async with contextlib.aclosing(self._inbox.batches(streams)) as batches:
            async for batch in batches:
                self._take(ledger, batch)
                decided = ledger.verdict() is not None
                if decided and self._settled_from_outside:
                    return
                if decided and self._first is not None:
                    self._first.give_up()
                if ledger.outstanding_count() and self._pending:
                    await self._commit(job, ledger)

    def _streams(self, job: JobRecord, indices: list[int], *, adopt: bool) -> list[AsyncGenerator[SliceProgress]]:
        """Where these chunks come from: a worker, and the first one from the door while that is at it."""
        at_door = [0] if self._first is not None and indices[0] == 0 else []
        rest = indices[len(at_door) :]
        streams = [self._dispatch(job, rest, adopt=adopt or job.activations > 1)] if rest else []
        return streams + [self._opening(job, index) for index in at_door]

    def _dispatch(
        self, job: JobRecord, indices: list[int], *, adopt: bool, sole: bool = True
    ) -> AsyncGenerator[SliceProgress]:
        assert self._input is not None  # noqa: S101 - set before any work starts
        most = self._warm().settings.max_calls_per_job
        return self._warm().dispatch(slice_order(job, self._input, indices, max_in_flight=most, adopt=adopt, sole=sole))

    async def _opening(self, job: JobRecord, index: int) -> AsyncGenerator[SliceProgress]:
        """The job's first chunk from the door; if that has died, from a worker, which looks for its clip first."""
        assert self._first is not None and self._ledger is not None  # noqa: S101, PT018 - the job is running
        result = await self._first.result()
        self._first = None
        if result is not None:
            self._settled_from_outside |= result.error is not None
            yield SliceProgress((result,), self._in_flight)
        elif self._ledger.verdict() is None:
            log.warning("door_lost", job_id=job.id, epoch=job.epoch)
            async with contextlib.aclosing(self._dispatch(job, [index], adopt=True, sole=False)) as stream:
                async for progress in stream:
                    yield progress

    async def opening(self, result: ChunkResult | None) -> bool:
        """What the door says of the first chunk, which it speaks: its result, or None: it is still being spoken.

        False if it is not waited for: the job is over, or an actor before this one was told to wait.
        """
        over = self._stopped.is_set() or self._cancelled.is_set() or self._wanted_back.is_set()
        if self._first is not None and not over:
            self._first.hear(result)
        return self._first is not None and not over

    def _take(self, ledger: Ledger, batch: list[SliceProgress]) -> None:
        for progress in batch:
            if self._job is not None and not self._spoken and any(result.clip for result in progress.results):
                self._spoken = True
                metrics.record(metrics.FIRST_AUDIO, (self._now_ms() - self._job.created_at_ms) / 1_000)
            self._pending += ledger.record(progress.results)
            self._in_flight = progress.in_flight

    async def _commit(self, job: JobRecord, ledger: Ledger, lease_ms: int = LEASE_MS) -> None:
        """Write what is pending and prolong the lease. The last results of a job go with its end instead."""
        store = self._warm().store
        async with self._writing:
            news = list(self._pending)
            version = await self._insistently(
                lambda: store.record(
                    job.id,
                    job.epoch,
                    results=news,
                    counts=ledger.counts(self._in_flight),
                    lease_until_ms=self._now_ms() + LEASE_MS,
                )
            )
            # Only now: a commit that is broken off (a cancel) may not have been made. Written twice they are no harm.
            del self._pending[: len(news)]
        await self._publish(version)

    async def _heartbeat(self, job: JobRecord, ledger: Ledger) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self._commit(job, ledger)

    async def _conclude(self, ledger: Ledger) -> JobState:
        verdict, failure = ledger.verdict(), ledger.first_failure()
        if verdict is None:
            reason = f"{MAX_LOST_WORKERS} chunk workers died or failed in a row without a result"
            return await self._finish(JobState.FAILED, ("worker_lost", reason))
        if verdict is JobState.FAILED and failure is not None:
            return await self._finish(verdict, ("chunk_failed", f"chunk {failure.index}: {failure.error}"))
        return await self._finish(verdict)

    async def _finish(self, state: JobState, error: tuple[str, str] | None = None) -> JobState:
        tools, job, ledger = self._warm(), self._job, self._ledger
        assert job is not None  # noqa: S101 - a job is claimed before it can end
        now_ms = self._now_ms()
        ttl_seconds = job.request.ttl_seconds or tools.settings.ttl_seconds
        ending = Ending(state, now_ms, now_ms + ttl_seconds * 1_000, error)
        async with self._writing:
            version = await self._insistently(
                lambda: tools.store.finish(
                    job.id,
                    job.epoch,
                    ending=ending,
                    results=self._pending,
                    counts=ledger.counts(0) if ledger else None,
                )
            )
        await self._publish(version)
        return state

    async def cancel(self) -> None:
        """Stop backend calls and end the job as cancelled; returns once :meth:`run` has committed that. Idempotent."""
        self._cancelled.set()
        if self._job is None and await self._stored_state() in TERMINAL:
            return  # a finished job's actor that was started to be read: nothing runs
        await self._stopped.wait()

    async def put_back(self) -> None:
        """Stop backend calls and give up the claim, for another actor to go on from what is stored; idempotent.

        Returns once the results so far are committed. Calls that were running are cut off and made again later.
        """
        self._wanted_back.set()
        await self._stopped.wait()

    async def _write(self, operation: Callable[[], Any]) -> None:
        async with self._writing:
            version = await self._insistently(operation)
        await self._publish(version)

    async def _settle(self, result: ChunkResult) -> None:
        job, ledger = self._job, self._ledger
        assert job is not None and ledger is not None  # noqa: S101, PT018 - the job is running
        news = ledger.record([result])
        if not news:
            raise Conflict(f"chunk {result.index} has a result already", "index")
        self._pending += news
        if ledger.verdict() is None:
            await self._commit(job, ledger)
            return
        # It decides the job, whose end commits it.
        self._settled_from_outside = True
        self._inbox.wake()
        await self._stopped.wait()
        if await self.retrieve_chunk(result.index) is None:
            await self._running()  # says why it is not there: the job ended without it, or is another actor's

    async def _end(self, error: tuple[str, str] | None) -> None:
        self._error_from_outside = error
        await self.cancel()

    async def until_stopped(self) -> None:
        """Returns when the job has ended or is being cancelled: workers hold this call open and stop with it."""
        ended = [asyncio.create_task(event.wait()) for event in (self._stopped, self._cancelled)]
        try:
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in ended:
                task.cancel()

    async def wait(self, version: int, timeout_seconds: float, linger_seconds: float = 0.0) -> int:
        """The job's version once it is above ``version``, or the present one after the time-out.

        News are held back for ``linger_seconds``, so that more of them come with one answer; the job's end is not.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                async with self._changed:
                    await self._changed.wait_for(lambda: self._version > version)
                if linger_seconds:
                    async with asyncio.timeout(linger_seconds):
                        await self._stopped.wait()
        return self._version

    def _now_ms(self) -> int:
        return int(self._warm().now() * 1_000)

    async def _publish(self, version: int) -> None:
        async with self._changed:
            self._version = max(self._version, version)
            self._changed.notify_all()

    async def _stored_state(self) -> JobState:
        job = await self._insistently(lambda: self._warm().store.get_job(self._job_id))
        return JobState.EXPIRED if job is None else job.state

    async def _insistently(self, operation: Callable[[], Any]) -> Any:
        """Repeat while the store is away: a running job waits and goes on."""
        while True:
            try:
                return await operation()
            except RetryLater as error:
                log.warning("store_unavailable", job_id=self._job_id, reason=error.message)
                await asyncio.sleep(STORE_RETRY_SECONDS)


async def _ended(task: asyncio.Task[Any]) -> None:
    """Cancel and wait; what the task had to say is not of interest any more."""
    task.cancel()
    await asyncio.wait({task})
