"""The job directory as the one detached Ray actor, parent of all job actors and of the backend pool."""

import asyncio
import contextlib
from typing import Any

import ray
import structlog

from tts_actors import metrics
from tts_actors.backends.gauge import Breaker
from tts_actors.cluster.actors import actor_class
from tts_actors.cluster.calls import answer
from tts_actors.cluster.dispatch import warm_worker
from tts_actors.cluster.job_actors import RaySpawner
from tts_actors.cluster.metrics import record_with_ray
from tts_actors.cluster.names import Version
from tts_actors.cluster.pool_actor import PoolActor
from tts_actors.config import AppArgs
from tts_actors.directory import JobDirectory
from tts_actors.errors import DirectoryUnavailable
from tts_actors.logs import configure_logs
from tts_actors.messages import Activation, Reservation
from tts_actors.stores.clips import ObjectClipStore
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import migrate
from tts_actors.trace_export import export_traces

LEASE_MARGIN_SECONDS = 15.0
"""Added to the longest timeout for the life of a lease: decoding and storing a take happen under it too."""

METRICS_SECONDS = 5.0
"""How often the figures of the pool are read: Prometheus seldom asks more often."""

BREAKER_VALUES = {Breaker.CLOSED: 0, Breaker.HALF_OPEN: 1, Breaker.OPEN: 2}

Start = tuple[str, Activation | None, str | None]
"""The id of a committed job, its claim if it has one, and its trace."""

log = structlog.get_logger()


class DirectoryActor:
    """Wraps :class:`JobDirectory` for Ray. Construction does no I/O; opening happens in a call it sends itself.

    (An exception in a Ray actor's constructor is final, whatever ``max_restarts`` says; and after a restart nobody else
    would start the sweep.)
    """

    def __init__(self, args: AppArgs, version: Version) -> None:
        configure_logs()
        record_with_ray()
        export_traces(args.tracing)
        self._args = args
        self._version = version
        self._directory: JobDirectory | None = None
        self._opened = asyncio.Event()
        self._turned = asyncio.Condition()
        self._pool: Any = None
        self._serving: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        ray.get_runtime_context().current_actor.open.remote()

    async def open(self) -> None:
        """Open the stores, start the pool and the sweep; repeated until it works."""
        while self._directory is None:
            try:
                await migrate(self._args.store_url)
                self._build()
            except Exception as error:  # noqa: BLE001 - the boundary: a store that is away must not end the directory
                log.error("directory_not_open", kind=type(error).__name__, reason=str(error)[:500])
                await asyncio.sleep(1.0)

    def _build(self) -> None:
        args = self._args
        owner = ray.get_runtime_context().get_session_name()
        longest_seconds = args.timeouts.cap_ms / 1_000
        self._pool = actor_class(PoolActor, max_restarts=-1, on_head=True).remote(
            args,
            longest_seconds + LEASE_MARGIN_SECONDS,
            replaces=ray.get_runtime_context().was_current_actor_reconstructed,
        )
        self._directory = JobDirectory(
            spawner=RaySpawner(args, owner, self._pool),
            store=SqlJobStore(args.store_url),
            clips=ObjectClipStore(args.clip_url),
            args=args,
            owner=owner,
        )
        self._serving = asyncio.create_task(self._directory.serve())
        self._watching = asyncio.create_task(self._watch_pool())
        warm_worker.remote(evens=len(args.backends) > 1)  # then clips are evened unless a request says otherwise
        self._opened.set()
        log.info("directory_open", version=self._version.content)

    async def _watch_pool(self) -> None:
        """Tell the metrics every few seconds what the pool has given out and learnt."""
        while True:
            await asyncio.sleep(METRICS_SECONDS)
            with contextlib.suppress(DirectoryUnavailable):
                for backend in await answer(self._pool.figures.remote(), METRICS_SECONDS):
                    metrics.record(metrics.BACKEND_CALLS, backend.in_flight, backend.name)
                    metrics.record(metrics.BACKEND_LIMIT, backend.limit, backend.name)
                    metrics.record(metrics.BREAKER, BREAKER_VALUES[backend.breaker], backend.name)

    async def version(self) -> Version:
        """What this directory was made from."""
        return self._version

    async def hand_over(self) -> None:
        """Start no job any more and put the running ones back, for another directory to take them up at once."""
        if self._directory is not None:
            await self._directory.pause(0.0)

    async def drain(self, grace_seconds: float) -> dict[str, int]:
        """Take no new work; running jobs may end within ``grace_seconds``, then they are put back. Returns figures.

        It lasts until :meth:`undrain`, or until this directory is replaced or dies.
        """
        directory = await self._ready()
        await self._turn(directory, draining=True)
        await directory.pause(grace_seconds)
        return await directory.figures()

    async def undrain(self) -> dict[str, int]:
        """Take new work again, and take up the jobs that were put back; returns the figures."""
        directory = await self._ready()
        await directory.resume()
        await self._turn(directory, draining=False)
        return await directory.figures()

    async def watch(self, known: bool, timeout_seconds: float) -> bool:
        """Whether this service is drained: answers when that is not as ``known``, at the latest after the time-out."""
        directory = await self._ready()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds), self._turned:
                await self._turned.wait_for(lambda: directory.draining != known)
        return directory.draining

    async def _turn(self, directory: JobDirectory, *, draining: bool) -> None:
        async with self._turned:
            directory.draining = draining
            self._turned.notify_all()
        log.info("draining" if draining else "accepting")

    async def pool(self) -> Any:
        """The backend pool's handle."""
        await self._ready()
        return self._pool

    async def reserve(self, ahead: list[bool]) -> list[Reservation]:
        directory = await self._ready()
        return [await directory.reserve(ahead=each) for each in ahead]

    async def start(self, starts: list[Start]) -> None:
        directory = await self._ready()
        for start in starts:
            await directory.start(*start)

    async def cancel(self, job_id: str) -> None:
        await (await self._ready()).cancel(job_id)

    async def forget(self, job_id: str) -> None:
        await (await self._ready()).forget(job_id)

    async def revive(self, job_id: str) -> None:
        await (await self._ready()).revive(job_id)

    async def figures(self) -> dict[str, int]:
        return await (await self._ready()).figures()

    async def sweep(self) -> dict[str, int]:
        """Look at all alarms now; returns the figures afterwards."""
        directory = await self._ready()
        await directory.sweep()
        return await directory.figures()

    async def _ready(self) -> JobDirectory:
        try:
            async with asyncio.timeout(5):
                await self._opened.wait()
        except TimeoutError:
            raise DirectoryUnavailable("the job store does not open", 5.0) from None
        assert self._directory is not None  # noqa: S101 - opened
        return self._directory
