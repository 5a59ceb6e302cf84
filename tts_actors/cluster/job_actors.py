"""Job actors as named Ray actors: started as children of the directory, called through handles."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tts_actors import metrics
from tts_actors.cluster.actors import HEAD_RESOURCE, actor_class
from tts_actors.cluster.calls import answer
from tts_actors.cluster.dispatch import RayDispatch
from tts_actors.cluster.metrics import PassedOn
from tts_actors.cluster.names import AT_THE_DOOR, NAMESPACE
from tts_actors.cluster.placement import Node, Placement
from tts_actors.errors import DirectoryUnavailable
from tts_actors.job_actor import JobActor
from tts_actors.job_object import ActorSettings, ActorTools
from tts_actors.logs import configure_logs
from tts_actors.messages import Activation
from tts_actors.models import ChunkResult, JobState
from tts_actors.protocols import ClipStore
from tts_actors.stores.jobs import SqlJobStore

if TYPE_CHECKING:
    from tts_actors.config import AppArgs

START_SECONDS = 60.0
"""An actor that does not answer within this time after its start has failed to start."""

LOOK_SECONDS = 1.0
"""How often it is asked meanwhile whether the actor's node has fallen silent."""

CHECK_SECONDS = 2.0
"""How long an idle actor may take to answer."""


@dataclass(frozen=True, slots=True)
class ActorSetup:
    """What every job actor is started with. ``args_json`` is the whole configuration, for those who need more of it:
    reading it takes 0.2 s of CPU, most of it for importing what checks it.
    """

    settings: ActorSettings
    store_url: str
    args_json: str
    traces: bool
    owner: str
    pool: Any

    @classmethod
    def of(cls, args: "AppArgs", owner: str, pool: Any) -> "ActorSetup":
        """For the actors of the directory ``owner``, whose calls ``pool`` permits."""
        traces = args.tracing.exporter is not None
        return cls(ActorSettings.of(args), args.store_url, args.model_dump_json(), traces, owner, pool)

    def open_tools(self) -> ActorTools:
        """A job actor's tools, made in its own process."""
        configure_logs()
        metrics.record_with(PassedOn(self.pool))
        if self.traces:
            self._export_traces()
        return ActorTools(
            store=SqlJobStore(self.store_url),
            dispatch=RayDispatch(self.args_json, self.pool),
            settings=self.settings,
            owner=self.owner,
            open_clips=self._open_clips,
        )

    def _args(self) -> "AppArgs":
        from tts_actors.config import AppArgs

        return AppArgs.model_validate_json(self.args_json)

    def _export_traces(self) -> None:
        from tts_actors.trace_export import export_traces

        export_traces(self._args().tracing)

    def _open_clips(self) -> ClipStore:
        from tts_actors.stores.clips import ObjectClipStore  # most actors touch no clip

        return ObjectClipStore(self._args().clip_url)


def live_nodes() -> list[Node]:
    """The cluster's live nodes, asked of the head."""
    nodes = cast("list[dict[str, Any]]", cast("Any", ray).nodes())
    return [Node(node["NodeID"], HEAD_RESOURCE in node["Resources"]) for node in nodes if node["Alive"]]


class RayJobHandle:
    """The :class:`~tts_actors.protocols.JobHandle` of a Ray actor, which counts at its node until it is killed."""

    def __init__(self, job_id: str, actor: Any, placement: Placement, node: str | None, pool: Any) -> None:
        self._job_id = job_id
        self._actor = actor
        self._placement = placement
        self._node = node
        self._pool = pool

    async def ready(self, *, rehearse: bool) -> None:
        """Returns when the actor is up and warm."""
        await answer(self._actor.ready.remote(rehearse=rehearse), START_SECONDS)

    async def run(self, activation: Activation | None = None) -> JobState:
        try:
            return JobState(await answer(self._actor.run.remote(activation)))
        except DirectoryUnavailable:
            self._placement.distrust(self._node)
            raise

    async def check(self) -> None:
        await answer(self._actor.ready.remote(), CHECK_SECONDS)

    async def cancel(self) -> None:
        self._grant_nothing()
        await answer(self._actor.cancel.remote())

    async def put_back(self) -> None:
        await answer(self._actor.put_back.remote())

    async def opening(self, result: ChunkResult | None) -> bool:
        return bool(await answer(self._actor.opening.remote(result), 5))

    async def wait(self, version: int, timeout_seconds: float, linger_seconds: float) -> int:
        reference = self._actor.wait.remote(version, timeout_seconds, linger_seconds)
        return int(await answer(reference, timeout_seconds + 5))

    def kill(self) -> None:
        ray.kill(self._actor)
        self._placement.give_back(self._node)
        self._node = None

    def end(self) -> None:
        self.kill()
        # Its worker is killed by Ray with it, perhaps before it has given its leases back.
        self._grant_nothing()
        self._pool.forget.remote(self._job_id)

    def _grant_nothing(self) -> None:
        """Not to the door, which hears of it in half a second, nor to a worker whose task has not begun yet."""
        for asker in (self._job_id, AT_THE_DOOR + self._job_id):
            self._pool.withdraw.remote(asker, gone=True)

    def give_up(self) -> None:
        self._placement.silent(self._node)
        self.kill()


class RaySpawner:
    """The :class:`~tts_actors.protocols.Spawner`: whoever calls it owns the actors."""

    def __init__(self, args: "AppArgs", owner: str, pool: Any) -> None:
        self._pool = pool
        self._open_tools = ActorSetup.of(args, owner, pool).open_tools
        self._actor_class = actor_class(JobActor, max_restarts=0)
        self._placement = Placement(live_nodes)

    async def spawn(self, job_id: str, *, rehearse: bool = False) -> RayJobHandle:
        node = await asyncio.to_thread(self._placement.take)
        try:
            handle = RayJobHandle(job_id, self._start(job_id, node), self._placement, node, self._pool)
        except ValueError as error:  # the name is still held by a dying predecessor
            self._placement.give_back(node)
            raise DirectoryUnavailable("the job's actor is still being replaced", 1.0) from error
        try:
            await self._up(handle, node, rehearse)
        except (DirectoryUnavailable, RayError):
            self._placement.distrust(node)
            handle.kill()
            raise
        except asyncio.CancelledError:
            handle.kill()
            raise
        return handle

    async def _up(self, handle: RayJobHandle, node: str | None, rehearse: bool) -> None:
        """Wait for the actor, but no longer once its node has fallen silent: Ray would wait a minute."""
        began = time.monotonic()
        ready = asyncio.create_task(handle.ready(rehearse=rehearse))
        try:
            while not (await asyncio.wait({ready}, timeout=LOOK_SECONDS))[0]:
                if self._placement.fell_silent(node, time.monotonic() - began):
                    raise DirectoryUnavailable("the node on which the job's actor starts does not answer", 1.0)
            ready.result()
        finally:
            ready.cancel()

    def _start(self, job_id: str, node: str | None) -> Any:
        options: dict[str, Any] = {"name": job_id, "namespace": NAMESPACE}
        if node is not None:
            # Not soft: Ray 2.60 then puts an actor that asks for no CPU on any node, seven of eight elsewhere. If the
            # node is gone by now the start fails, and the next one goes to another.
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
        return self._actor_class.options(**options).remote(job_id, self._open_tools)
