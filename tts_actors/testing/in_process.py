"""The whole service in one process without Ray: the same classes behind the same seams, for tests and tools.

Only what crosses processes is replaced: job actors are plain objects, chunk workers are coroutines, the pool is called
directly. Stores, backends and HTTP are the real ones.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tts_actors.backends.adapters import open_backend
from tts_actors.backends.catalog import Catalog
from tts_actors.backends.http import open_session
from tts_actors.backends.pool import BackendPool
from tts_actors.chunk_worker import WorkerTools, synthesize_chunks
from tts_actors.config import AppArgs
from tts_actors.directory import JobDirectory
from tts_actors.errors import DirectoryUnavailable
from tts_actors.job_actor import JobActor
from tts_actors.job_object import ActorSettings, ActorTools
from tts_actors.job_service import JobService
from tts_actors.messages import Activation, Lease, LeaseReport, SliceOrder, SliceProgress
from tts_actors.models import Attempt, ChunkResult, JobState, Priority
from tts_actors.protocols import Dispatch
from tts_actors.stores.clips import ObjectClipStore
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import migrate

OWNER = "in-process"
CHECK_SECONDS = 1.0


class DirectLeases:
    """The :class:`~tts_actors.protocols.LeaseSource` on a pool in the same process."""

    def __init__(self, pool: BackendPool) -> None:
        self._pool = pool
        self._releases: set[asyncio.Task[None]] = set()

    async def acquire(
        self, job_id: str, *, usable: Collection[str], avoid: Collection[str], priority: Priority
    ) -> Lease:
        while True:
            leases = await self._pool.acquire(job_id, usable, avoid, 1, priority=priority)
            if leases:
                return leases[0]

    def release(self, lease: Lease, attempt: Attempt) -> None:
        task = asyncio.create_task(self._pool.release([LeaseReport(lease.token, attempt, returned=True)]))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def settle(self) -> None:
        """Nothing is open: this loop does not stand still."""


class LocalJobHandle:
    """The :class:`~tts_actors.protocols.JobHandle` of an object; ``kill`` ends it as a lost process would."""

    def __init__(self, actor: JobActor) -> None:
        self.actor = actor
        self.running: asyncio.Task[JobState] | None = None
        self.killed = False

    async def run(self, activation: Activation | None = None) -> JobState:
        self.running = asyncio.create_task(self.actor.run(activation))
        try:
            return await asyncio.shield(self.running)
        except asyncio.CancelledError:
            if self.running.cancelled():
                raise DirectoryUnavailable("the job actor was killed") from None
            raise

    async def check(self) -> None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self.actor.ready()
        except TimeoutError:
            raise DirectoryUnavailable("the job actor does not answer") from None

    async def cancel(self) -> None:
        await self.actor.cancel()

    async def put_back(self) -> None:
        await self.actor.put_back()

    async def opening(self, result: ChunkResult | None) -> bool:
        return await self.actor.opening(result)

    async def wait(self, version: int, timeout_seconds: float, linger_seconds: float) -> int:
        if self.killed:
            raise DirectoryUnavailable("the job actor was killed")
        return await self.actor.wait(version, timeout_seconds, linger_seconds)

    def kill(self) -> None:
        self.killed = True
        if self.running is not None:
            self.running.cancel()

    def end(self) -> None:
        self.kill()

    def give_up(self) -> None:
        self.kill()


@dataclass
class LocalSpawner:
    """The :class:`~tts_actors.protocols.Spawner` of plain objects; ``handles`` keeps them in reach of tests.

    They share ``store``: there is no process whose end would close one of their own.
    """

    args: AppArgs
    dispatch: Dispatch
    store: SqlJobStore
    owner: str = OWNER

    def __post_init__(self) -> None:
        self.handles: dict[str, LocalJobHandle] = {}

    async def spawn(self, job_id: str, *, rehearse: bool = False) -> LocalJobHandle:
        def open_tools() -> ActorTools:
            return ActorTools(
                store=self.store,
                dispatch=self.dispatch,
                settings=ActorSettings.of(self.args),
                owner=self.owner,
                open_clips=lambda: ObjectClipStore(self.args.clip_url),
            )

        self.handles[job_id] = LocalJobHandle(JobActor(job_id, open_tools))
        await self.handles[job_id].actor.ready(rehearse=rehearse)
        return self.handles[job_id]

    async def stop(self) -> None:
        """End all of them as lost processes would."""
        running = [handle.running for handle in self.handles.values() if handle.running is not None]
        for handle in self.handles.values():
            handle.kill()
        if running:
            await asyncio.wait(running)


@dataclass
class LocalService:
    """The parts of a running in-process service."""

    args: AppArgs
    service: JobService
    directory: JobDirectory
    spawner: LocalSpawner
    store: SqlJobStore
    clips: ObjectClipStore
    tools: WorkerTools
    pool: BackendPool


@asynccontextmanager
async def running_service(args: AppArgs) -> AsyncIterator[LocalService]:
    """A service on the configured stores and backends; everything stops with the context."""
    await migrate(args.store_url)
    store, clips = SqlJobStore(args.store_url), ObjectClipStore(args.clip_url)
    pool = BackendPool(args.backends, args.timeouts.cap_ms / 1_000 + 15, budget_ratio=args.retry.budget_ratio)
    async with open_session() as session:
        tools = WorkerTools(
            backends={b.name: open_backend(b, session, os.environ) for b in args.backends},
            catalog=Catalog(args.backends, args.aliases),
            leases=DirectLeases(pool),
            clips=clips,
            retry=args.retry.policy(),
        )

        async def open_tools() -> WorkerTools:
            return tools

        def dispatch(order: SliceOrder) -> AsyncGenerator[SliceProgress]:
            return synthesize_chunks(order, tools)

        spawner = LocalSpawner(args, dispatch, store)
        directory = JobDirectory(spawner=spawner, store=store, clips=clips, args=args, owner=OWNER)
        serving = asyncio.create_task(directory.serve())
        try:
            service = JobService(args, store=store, clips=clips, directory=directory, tools=open_tools)
            yield LocalService(args, service, directory, spawner, store, clips, tools, pool)
        finally:
            serving.cancel()
            await asyncio.wait({serving})
            await spawner.stop()
            await store.close()
