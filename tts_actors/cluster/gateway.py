"""The HTTP side's way to the directory and the job actors: finds them, makes them, replaces old ones."""

import asyncio
import contextlib
import math
import time
from collections import OrderedDict
from typing import Any

import ray
import structlog
from ray.exceptions import RayError

from tts_actors import __version__
from tts_actors.backends.gauge import BackendFigures
from tts_actors.cluster.actors import actor_class
from tts_actors.cluster.calls import answer
from tts_actors.cluster.directory_actor import DirectoryActor, Start
from tts_actors.cluster.names import DIRECTORY, NAMESPACE, Version
from tts_actors.config import AppArgs
from tts_actors.errors import DirectoryUnavailable
from tts_actors.messages import Activation, Reservation
from tts_actors.models import ChunkResult
from tts_actors.spares import new_job_id
from tts_actors.together import Together

CALL_SECONDS = 10.0
"""An answer of the directory takes milliseconds; longer than this it is as good as gone."""

AHEAD_SECONDS = 30.0
"""How long an id that was fetched ahead is used: the directory takes unused ones back after 60 s."""

FETCH_SECONDS = 0.02
"""How long the next id is not asked for: the job that has taken this one is committed and answered first."""

FETCH_AGAIN_SECONDS, FETCH_TRIES = 1.0, 5
"""An id is asked for again if there was no warm actor to it: a new one is up two seconds after a job has taken one."""

COLD_SECONDS = 0.3
"""How long the directory is not asked again that had no warm actor: while jobs queue up it has none for long."""

TURN_SECONDS = 0.05
"""While no actor is warm nothing starts at once: the directory is told of the jobs accepted in this time together.
(Telling it of each by itself took a fifth of the next one's acceptance.)"""

MAX_HANDLES = 2_000
"""Job actor handles kept: looking one up again blocks a thread for a round trip to the head node."""

PATIENCE_SECONDS = 10.0
"""How long a call is repeated for which somebody waits, while the directory is restarted (2 s) or handed over (4 s)."""

OPEN_SECONDS = 30.0
"""The same at the start of a replica, which may have to hand a directory over first."""

AGAIN_SECONDS = 0.2
"""Pause between two tries to reach a directory."""

HAND_OVER_SECONDS = 10.0
"""How long the old directory may take to put its running jobs back; without, they go on when their leases run out."""

WATCH_SECONDS = 5.0
"""How long the question whether the service is drained stays open before it is asked anew."""

ABSENT_SECONDS = 0.2
"""How long a wait lasts for a job that has no actor at the moment: its state is looked up again then."""

log = structlog.get_logger()


def stop_directory(grace_seconds: float) -> None:
    """End the directory and with it every job actor, if there is one.

    The service is drained first: running jobs have the grace to end, then they are put back. An interrupt
    (``KeyboardInterrupt``) cuts that short; jobs that were not put back go on when their leases have run out.
    """
    try:
        directory = ray.get_actor(DIRECTORY, namespace=NAMESPACE)
    except ValueError:
        return
    with contextlib.suppress(RayError, KeyboardInterrupt):
        ray.get(directory.drain.remote(grace_seconds), timeout=grace_seconds + HAND_OVER_SECONDS)
    ray.kill(directory)


class Gateway:
    """The :class:`~tts_actors.protocols.Directory` over Ray."""

    def __init__(self, args: AppArgs, deployed_at_ms: int) -> None:
        self._args = args
        self._version = Version(f"{__version__}-{args.fingerprint()}", deployed_at_ms)
        self._draining = False
        self._watching: asyncio.Task[None] | None = None
        self._directory: Any | None = None
        self._connecting = asyncio.Lock()
        self._ahead: tuple[Reservation | None, float] = (None, 0.0)
        self._cold_since = -math.inf
        self._fetching: asyncio.Task[None] | None = None
        self._jobs: OrderedDict[str, Any] = OrderedDict()
        self._reserve = Together(self._reserve_all)
        self._start = Together(self._start_all)

    async def reserve(self) -> Reservation:
        """A fresh job id: the one fetched ahead if there is one, so that accepting a job waits for no actor.

        Nor does it when the directory had no warm actor a moment ago: such an id can be made here.
        """
        ahead, since = self._ahead
        self._ahead = (None, 0.0)
        now = time.monotonic()
        if ahead is not None and now - since < AHEAD_SECONDS:
            reservation = ahead
        elif self._is_cold():
            reservation = Reservation(new_job_id())
        else:
            reservation = await self._reserved()
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch_ahead())
        return reservation

    async def _fetch_ahead(self) -> None:
        await asyncio.sleep(FETCH_SECONDS)
        for _ in range(FETCH_TRIES):
            with contextlib.suppress(DirectoryUnavailable):
                reservation = await self._reserved(ahead=True)
                if reservation.owner is not None:  # without a warm actor there is nothing to keep
                    self._ahead = (reservation, time.monotonic())
                    return
            await asyncio.sleep(FETCH_AGAIN_SECONDS)

    async def _reserved(self, *, ahead: bool = False) -> Reservation:
        reservation = await self._reserve(ahead)
        if reservation.owner is None and not ahead:
            self._cold_since = time.monotonic()
        return reservation

    async def _reserve_all(self, ahead: list[bool]) -> list[Reservation]:
        return list(await self._ask("reserve", ahead))

    def _is_cold(self) -> bool:
        return time.monotonic() < self._cold_since + COLD_SECONDS

    async def start(self, job_id: str, activation: Activation | None = None, traceparent: str | None = None) -> None:
        if activation is None and self._is_cold():
            await asyncio.sleep(TURN_SECONDS - time.monotonic() % TURN_SECONDS)
        await self._start((job_id, activation, traceparent))

    async def _start_all(self, starts: list[Start]) -> list[None]:
        await self._insist("start", starts)
        return [None] * len(starts)

    async def cancel(self, job_id: str) -> None:
        await self._insist("cancel", job_id)

    async def forget(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)
        await self._insist("forget", job_id)

    async def opening(self, job_id: str, result: ChunkResult | None) -> bool:
        try:
            actor = await self._job(job_id)
            return bool(await answer(actor.opening.remote(result), CALL_SECONDS))
        except (DirectoryUnavailable, ValueError) as error:
            self._jobs.pop(job_id, None)
            raise DirectoryUnavailable("the job has no actor at the moment", 1.0) from error

    async def open(self) -> None:
        """Find or make the directory, of this deployment or a later one, and watch from now on whether it is drained.

        Raises :class:`DirectoryUnavailable` if that does not come true within :data:`OPEN_SECONDS`.
        """
        await self._insist("figures", patience_seconds=OPEN_SECONDS)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    @property
    def draining(self) -> bool:
        """Whether the service takes no new work, as of some milliseconds ago."""
        return self._draining

    async def _watch(self) -> None:
        while True:
            try:
                self._draining = bool(await self._ask("watch", self._draining, WATCH_SECONDS))
            except DirectoryUnavailable:
                await asyncio.sleep(AGAIN_SECONDS)

    async def pool(self) -> Any:
        """The backend pool's handle."""
        return await self._ask("pool")

    async def backend_figures(self) -> list[BackendFigures]:
        """What the pool knows of each backend."""
        return list(await answer((await self.pool()).figures.remote(), CALL_SECONDS))

    async def figures(self) -> dict[str, int]:
        """How many actors there are, by what they do."""
        return dict(await self._ask("figures"))

    async def check(self) -> None:
        """Raise :class:`DirectoryUnavailable` unless the directory answers and its first spare actor is up."""
        if not (await self.figures())["warm"]:
            raise DirectoryUnavailable("the first job actors are being started", 1.0)

    async def wait(self, job_id: str, version: int, timeout_seconds: float, *, linger_seconds: float = 0.0) -> None:
        try:
            actor = await self._job(job_id)
            await answer(actor.wait.remote(version, timeout_seconds, linger_seconds), timeout_seconds + CALL_SECONDS)
        except (DirectoryUnavailable, ValueError):
            self._jobs.pop(job_id, None)
            await asyncio.sleep(min(timeout_seconds, ABSENT_SECONDS))

    async def _job(self, job_id: str) -> Any:
        actor = self._jobs.get(job_id)
        if actor is None:
            actor = await asyncio.to_thread(ray.get_actor, job_id, namespace=NAMESPACE)
            self._jobs[job_id] = actor
            while len(self._jobs) > MAX_HANDLES:
                self._jobs.popitem(last=False)
        return actor

    async def _ask(self, method: str, *arguments: Any) -> Any:
        directory = self._directory or await self.connect()
        try:
            return await answer(getattr(directory, method).remote(*arguments), CALL_SECONDS)
        except DirectoryUnavailable:
            self._directory = None
            raise

    async def _insist(self, method: str, *arguments: Any, patience_seconds: float = PATIENCE_SECONDS) -> Any:
        """Ask again while the directory is away: each of these calls may be made twice."""
        give_up = time.monotonic() + patience_seconds
        while True:
            try:
                return await self._ask(method, *arguments)
            except DirectoryUnavailable:
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(AGAIN_SECONDS)

    async def connect(self) -> Any:
        """Find the directory, or make it. An older deployment's is replaced once it has put its running jobs back."""
        async with self._connecting:
            if self._directory is not None:
                return self._directory
            try:
                directory = await asyncio.to_thread(self._find_or_create)
                found = await answer(directory.version.remote(), CALL_SECONDS)
            except (ValueError, RayError) as error:
                raise DirectoryUnavailable(
                    f"the job directory cannot be reached ({type(error).__name__})", 2.0
                ) from error
            if self._version.replaces(found):
                await self._replace(directory, found)
                raise DirectoryUnavailable("the job directory is being replaced by a new version", 1.0)
            self._directory = directory
            return directory

    async def _replace(self, directory: Any, found: object) -> None:
        log.info("directory_replaced", old=str(found), new=str(self._version))
        with contextlib.suppress(DirectoryUnavailable, RayError, AttributeError):  # older code knows no hand-over
            await answer(directory.hand_over.remote(), HAND_OVER_SECONDS)
        with contextlib.suppress(RayError):
            await asyncio.to_thread(ray.kill, directory)

    def _find_or_create(self) -> Any:
        options = actor_class(DirectoryActor, max_restarts=-1, on_head=True).options(
            name=DIRECTORY, namespace=NAMESPACE, lifetime="detached", get_if_exists=True
        )
        return options.remote(self._args, self._version)
