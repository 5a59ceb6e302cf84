"""Names, starts, finds, revives and retires job actors: the one place that knows which jobs are alive.

A plain async class; it runs as one detached actor and owns every job actor, so none can leak. What it holds in memory
is only a cache: the sweep rebuilds it from the store, and it is the sweep, not the fast path, that keeps the
promise that no accepted job is lost.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping

import structlog

from tts_actors import metrics, tracing
from tts_actors.config import AppArgs
from tts_actors.errors import DirectoryUnavailable, JobExpired, NotFound, NotReady, RetryLater, StaleEpoch
from tts_actors.job_actor import LEASE_MS
from tts_actors.logs import place_of
from tts_actors.messages import Activation, Reservation
from tts_actors.models import ChunkResult, Ending, JobState
from tts_actors.protocols import ClipStore, JobHandle, JobStore, Spawner
from tts_actors.removal import clear
from tts_actors.silence import Silence
from tts_actors.spares import Spares, new_job_id
from tts_actors.states import TERMINAL

SWEEP_SECONDS = 2.0
"""Between two looks at the alarms; with the lease of 10 s it bounds recovery after a full restart at 12 s."""

HANDLE_SECONDS = 5.0
"""How long a cancel waits for an actor that is just being started (a cold start takes about 1 s)."""

START_MS = 1_000
"""How long a fresh claim is left to the fast path: who has committed it tells the directory within milliseconds."""

SWEEP_JOBS = 500
"""Alarms handled in one sweep; the rest is due again in the next."""

RESPAWN_SECONDS = 0.5
"""Pause before a dead job actor is started again: its name must be free first."""

MAX_RESPAWNS = 20
"""Actors started for one job before it is left to the sweep: more than ``limits.max_activations`` ever needs."""

PUT_BACK_SECONDS = 5.0
"""How long a job's actor may take to commit what it has; a claim that is not given up runs out in 10 s."""

Step = Callable[[], Awaitable[object]]

log = structlog.get_logger()


class JobDirectory:
    """The directory of job actors. ``owner`` names this service in the store: its own claims it may take over."""

    def __init__(
        self,
        *,
        spawner: Spawner,
        store: JobStore,
        clips: ClipStore,
        args: AppArgs,
        owner: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._spawner = spawner
        self._store = store
        self._clips = clips
        self._limits = args.limits
        self._retention = args.retention
        self._owner = owner
        self._now = now
        self._spares = Spares(spawner, args.limits.spare_actors, self, now)
        self._active: dict[str, asyncio.Task[None]] = {}
        self._handles: dict[str, JobHandle] = {}
        self._claims: dict[str, Activation] = {}
        self._silence = Silence(store, owner, now)
        self._finished: OrderedDict[str, JobHandle] = OrderedDict()
        self._queue_waits = True
        self._place_free = asyncio.Event()
        self._reviving = asyncio.Lock()
        self.paused = False
        self.draining = False  # told to callers; whoever sets it pauses the directory too

    async def serve(self) -> None:
        """Take over what an earlier directory of this service left, then look after all jobs until cancelled."""
        self._spares.refill()
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._forever("sweep", self._attend, SWEEP_SECONDS, before=self._take_up))
            # Apart from the others: a clip store that hangs must not keep a job without its actor.
            loops.create_task(self._forever("clearing", self._clear, SWEEP_SECONDS))
            loops.create_task(self._forever("queue", self._fill_when_free, 0.0))
            loops.create_task(self._spares.keep())

    async def _take_up(self, lease_before_ms: int | None = None) -> Mapping[str, int]:
        """Go on with claims of this service that no actor holds: no need to wait for their leases to run out.

        Returns all claims that were looked at, with the versions of their jobs.

        The children of a crashed directory died with it; and a replica can die between the commit of a claimed job and
        its start.
        """
        claimed = await self._store.jobs_of(self._owner, lease_before_ms=lease_before_ms)
        for job_id in claimed:
            if job_id not in self._active and (lease_before_ms is None or job_id in self._spares or self._has_room()):
                self._recover(job_id, JobState.IN_PROGRESS)
        return claimed

    def _recover(self, job_id: str, state: JobState) -> None:
        log.info("job_recovered", job_id=job_id, state=state.value)
        metrics.record(metrics.JOBS_RECOVERED, 1)
        self._activate(job_id)

    async def reserve(self, *, ahead: bool = False) -> Reservation:
        """A fresh job id, with a warm actor and a place to run if there are; ``ahead`` never with the last place."""
        if not self._spares or self._queue_waits or self.paused or self._room() <= int(ahead):
            return Reservation(new_job_id())
        return Reservation(self._spares.reserve(), self._owner)

    async def start(self, job_id: str, activation: Activation | None = None, traceparent: str | None = None) -> None:
        """A committed job may run: at once if its place is held, or if there is room and nobody waits; else in turn."""
        held = activation is not None or job_id in self._spares
        at_once = held or (self._has_room() and not self._queue_waits)
        attributes: dict[str, tracing.Attribute] = {
            "tts.job.id": job_id,
            "tts.job.at_once": at_once,
            "tts.job.warm": job_id in self._spares,
        }
        with tracing.span("tts.directory.start", attributes, parent=traceparent):
            if at_once:
                self._activate(job_id, activation)
            else:
                self._queue_waits = True
                await self._fill()

    async def cancel(self, job_id: str) -> None:
        """End the job as cancelled, wherever it is; returns once that is in the store. Idempotent."""
        while job_id not in self._active:
            now_ms = self._now_ms()
            activation = await self._store.claim(job_id, owner=self._owner, now_ms=now_ms, lease_ms=LEASE_MS)
            if activation is None:
                return
            ttl_seconds = activation.job.request.ttl_seconds or self._retention.ttl_seconds
            ending = Ending(JobState.CANCELLED, now_ms, now_ms + ttl_seconds * 1_000)
            with contextlib.suppress(StaleEpoch):  # its turn came in this very moment, and its actor has claimed it
                await self._store.finish(job_id, activation.job.epoch, ending=ending)
                return
        await (await self._handle_of(job_id)).cancel()

    async def pause(self, grace_seconds: float) -> None:
        """Start no job any more. Running ones may end within the grace; then they are put back into the store.

        What is put back is due at once: for this directory after :meth:`resume`, or for another on the same store.
        """
        self.paused = True
        if self._active:
            await asyncio.wait(set(self._active.values()), timeout=grace_seconds)
        if running := dict(self._active):
            await asyncio.gather(*(self._put_back(job_id) for job_id in running))
            await asyncio.wait(set(running.values()), timeout=PUT_BACK_SECONDS)

    async def _put_back(self, job_id: str) -> None:
        handle = self._handles.get(job_id)
        if handle is None:  # being started, so nothing of it has run
            self._active[job_id].cancel()
            return
        with contextlib.suppress(DirectoryUnavailable, TimeoutError):
            await asyncio.wait_for(handle.put_back(), PUT_BACK_SECONDS)

    async def resume(self) -> None:
        """Start jobs again, those first that were put back."""
        self.paused = False
        self._spares.refill()
        await self._take_up()
        await self._attend()

    async def _handle_of(self, job_id: str) -> JobHandle:
        """The active job's actor; one that is just being started is waited for."""
        give_up = self._now() + HANDLE_SECONDS
        while (handle := self._handles.get(job_id)) is None:
            if job_id not in self._active or self._now() > give_up:
                raise DirectoryUnavailable("the job's actor is being replaced", 1.0)
            await asyncio.sleep(0.01)
        return handle

    async def forget(self, job_id: str) -> None:
        """Stop the job's actor, whatever it does, and drop it."""
        task = self._active.pop(job_id, None)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._claims.pop(job_id, None)
        for handle in (self._handles.pop(job_id, None), self._finished.pop(job_id, None)):
            if handle is not None:
                handle.end()
        await self._fill()

    async def revive(self, job_id: str) -> None:
        """Give a finished job an actor again, for the usual grace; a job that has one keeps it.

        Raises :class:`NotFound`, :class:`JobExpired`, or :class:`NotReady` if the job still waits for its turn.
        """
        async with self._reviving:
            if job_id in self._handles or job_id in self._finished:
                return
            job = await self._store.get_job(job_id)
            if job is None:
                raise NotFound("there is no such job", "job_id")
            if job.state is JobState.EXPIRED:
                raise JobExpired("the job has expired and its audio is gone", "job_id")
            if job.state not in TERMINAL:
                raise NotReady(f"the job is {job.state.value} and its actor is not up yet", job.poll_after_ms / 1_000)
            self._retire_later(job_id, await self._spawner.spawn(job_id))

    async def wait(self, job_id: str, version: int, timeout_seconds: float, *, linger_seconds: float = 0.0) -> None:
        """Return when the job's version passes ``version`` or, up to ``linger_seconds`` later, when the job ends."""
        handle = self._handles.get(job_id)
        if handle is None:
            await asyncio.sleep(min(timeout_seconds, 0.2))
            return
        with contextlib.suppress(DirectoryUnavailable):
            await handle.wait(version, timeout_seconds, linger_seconds)

    async def opening(self, job_id: str, result: ChunkResult | None) -> bool:
        """See :class:`~tts_actors.protocols.Directory`; raises :class:`DirectoryUnavailable` if there is no actor."""
        if handle := self._handles.get(job_id) or self._finished.get(job_id):
            return await handle.opening(result)
        raise DirectoryUnavailable("the job has no actor at the moment", 1.0)

    async def figures(self) -> dict[str, int]:
        """How many actors there are, by what they do."""
        return {
            "warm": int(self._spares.warm),
            "active": len(self._active),
            "spares": len(self._spares),
            "reserved": self._spares.reserved,
            "finished": len(self._finished),
        }

    @property
    def busy(self) -> bool:
        """Jobs run."""
        return bool(self._active)

    def _room(self) -> int:
        """Jobs that may be started now; places held for ids that were handed out count as taken."""
        return self._limits.max_active_jobs - len(self._active) - self._spares.held

    def _has_room(self) -> bool:
        return self._room() > 0 and not self.paused

    def _now_ms(self) -> int:
        return int(self._now() * 1_000)

    def _activate(self, job_id: str, activation: Activation | None = None) -> None:
        if job_id in self._active or self.paused:
            return
        if (earlier := self._finished.pop(job_id, None)) is not None:
            earlier.kill()  # the name of a job that is retried, or made again after a delete, must be free
        warm = self._spares.take(job_id)
        if warm is not None:
            self._handles[job_id] = warm
        if activation is not None:
            self._claims[job_id] = activation
        self._active[job_id] = asyncio.create_task(self._supervise(job_id))

    async def _supervise(self, job_id: str) -> None:
        """Keep an actor on the job until it ends; what cannot be mended here is left to the sweep."""
        try:
            for _ in range(MAX_RESPAWNS):
                if await self._ran(job_id):
                    return
                await asyncio.sleep(RESPAWN_SECONDS)
            log.error("job_actor_not_started", job_id=job_id, tries=MAX_RESPAWNS)
            self._queue_waits = True
        finally:
            self._active.pop(job_id, None)
            self._handles.pop(job_id, None)
            self._claims.pop(job_id, None)
            self._spares.refill()
            self._place_free.set()

    async def _ran(self, job_id: str) -> bool:
        """Have an actor bring the job to an end; False if it was lost on the way.

        A lost one is killed, dead or not: Ray frees its name only then, or when nobody has a handle of it any more.
        """
        handle = self._handles.get(job_id)
        try:
            if handle is None:
                handle = self._handles[job_id] = await self._spawner.spawn(job_id)
            await handle.run(self._claims.pop(job_id, None))
        except Exception as error:  # noqa: BLE001 - the boundary of an actor: whatever ended it, the job needs another
            if isinstance(error, DirectoryUnavailable):
                log.warning("job_actor_lost", job_id=job_id, reason=error.message)
            else:
                log.error("job_actor_failed", job_id=job_id, kind=type(error).__name__, place=place_of(error))
            self._handles.pop(job_id, None)
            if handle is not None:
                handle.kill()
            return False
        self._retire_later(job_id, handle)
        return True

    def _retire_later(self, job_id: str, handle: JobHandle) -> None:
        """Finished actors stay for a short grace; never more of them than may run."""
        self._finished[job_id] = handle
        asyncio.get_running_loop().call_later(self._retention.retire_after_seconds, self._retire, job_id, handle)
        while len(self._finished) > self._limits.max_active_jobs:
            self._retire(*next(iter(self._finished.items())))

    def _retire(self, job_id: str, handle: JobHandle) -> None:
        """Drop the finished actor of a job, but not a revived one that came after it."""
        if self._finished.get(job_id) is handle:
            self._finished.pop(job_id).end()

    async def _fill(self) -> None:
        """Start waiting jobs while there is room."""
        if not self._has_room():
            return
        self._queue_waits = False
        try:
            # One more than may run: of the first ones some may be starting just now, their state not yet written.
            queued = await self._store.queued_jobs(limit=self._limits.max_active_jobs + 1)
            metrics.record(metrics.JOBS_QUEUED, len(queued))
        except RetryLater:
            self._silence.doubt()
            self._queue_waits = True
            return
        for job_id in queued:
            if job_id in self._active:
                continue
            if not self._has_room():
                self._queue_waits = True
                return
            self._activate(job_id)

    async def _fill_when_free(self) -> None:
        await self._place_free.wait()
        self._place_free.clear()
        if self._queue_waits:
            await self._fill()

    async def _forever(self, name: str, step: Step, pause_seconds: float, *, before: Step | None = None) -> None:
        """Repeat a step, whatever happens in it; ``before`` the first one another, until that succeeds."""
        while True:
            try:
                if before is not None:
                    await before()
                    before = None
                await step()
            except RetryLater as error:
                log.warning(f"{name}_postponed", reason=error.message)
            except Exception as error:  # noqa: BLE001 - the boundary of a loop: without its next round jobs are lost
                log.error(f"{name}_crashed", kind=type(error).__name__, place=place_of(error))
            await asyncio.sleep(pause_seconds)

    async def sweep(self) -> None:
        """One look at all alarms: orphans get an actor, the queue moves on, ended lives are cleared."""
        await self._attend()
        await self._clear()

    async def _attend(self) -> None:
        await self._fill()
        metrics.record(metrics.JOBS_ACTIVE, len(self._active))
        metrics.record(metrics.SPARES, len(self._spares))
        now_ms = self._now_ms()
        versions: dict[str, int] = {}
        with self._silence.doubting():
            if not self.paused:
                versions |= await self._take_up(now_ms + LEASE_MS - START_MS)
            due = await self._store.due_jobs(now_ms=now_ms, limit=SWEEP_JOBS)
        for job_id, state in due:
            if job_id not in self._active and self._has_room():
                self._recover(job_id, state)
            elif state is JobState.QUEUED and not self.paused:
                versions[job_id] = 0  # its actor has not even claimed it: there is nothing else that would change
        await self._replace_silent(versions)
        await self._spares.take_back(self._store)

    async def _replace_silent(self, versions: Mapping[str, int]) -> None:
        """Give up actors that write nothing though the store works: Ray takes a minute to notice a silent node."""
        watched = {job_id: version for job_id, version in versions.items() if job_id in self._handles}
        found = False
        async for claim in self._silence.claims(watched):
            if handle := self._handles.get(claim.job.id):
                log.warning("job_actor_silent", job_id=claim.job.id)
                self._claims[claim.job.id] = claim
                handle.give_up()
                found = True
        if found:
            await self._spares.check()

    async def _clear(self) -> None:
        await clear(self._store, self._clips, self._now_ms())
