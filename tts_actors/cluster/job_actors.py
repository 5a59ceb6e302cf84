"""Job actors as named Ray actors: started as children of the directory, called through handles."""

import functools
from typing import Any

import ray
from ray.exceptions import RayError

from tts_actors.cluster.actors import actor_class
from tts_actors.cluster.calls import answer
from tts_actors.cluster.dispatch import RayDispatch
from tts_actors.cluster.metrics import record_with_ray
from tts_actors.cluster.names import NAMESPACE
from tts_actors.config import AppArgs
from tts_actors.errors import DirectoryUnavailable
from tts_actors.job_actor import JobActor
from tts_actors.job_object import ActorTools
from tts_actors.logs import configure_logs
from tts_actors.models import Activation, JobState
from tts_actors.stores import ObjectClipStore, SqlJobStore
from tts_actors.trace_export import export_traces

START_SECONDS = 60.0
"""An actor that does not answer within this time after its start has failed to start."""


def open_actor_tools(args: AppArgs, owner: str, pool: Any) -> ActorTools:
    """A job actor's tools, made in its own process."""
    configure_logs()
    record_with_ray()
    export_traces(args.tracing)
    return ActorTools(
        store=SqlJobStore(args.store_url),
        dispatch=RayDispatch(args, pool),
        args=args,
        owner=owner,
        open_clips=lambda: ObjectClipStore(args.clip_url),
    )


class RayJobHandle:
    """The :class:`~tts_actors.protocols.JobHandle` of a Ray actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def run(self, activation: Activation | None = None) -> JobState:
        return JobState(await answer(self._actor.run.remote(activation)))

    async def cancel(self) -> None:
        await answer(self._actor.cancel.remote())

    async def wait(self, version: int, timeout_seconds: float) -> int:
        reference = self._actor.wait.remote(version, timeout_seconds)
        return int(await answer(reference, timeout_seconds + 5))

    def kill(self) -> None:
        ray.kill(self._actor)


class RaySpawner:
    """The :class:`~tts_actors.protocols.Spawner`: whoever calls it owns the actors."""

    def __init__(self, args: AppArgs, owner: str, pool: Any) -> None:
        self._open_tools = functools.partial(open_actor_tools, args, owner, pool)
        self._actor_class = actor_class(JobActor, max_restarts=0)

    async def spawn(self, job_id: str, *, rehearse: bool = False) -> RayJobHandle:
        try:
            actor = self._actor_class.options(name=job_id, namespace=NAMESPACE).remote(job_id, self._open_tools)
        except ValueError as error:  # the name is still held by a dying predecessor
            raise DirectoryUnavailable("the job's actor is still being replaced", 1.0) from error
        try:
            await answer(actor.ready.remote(rehearse=rehearse), START_SECONDS)
        except (DirectoryUnavailable, RayError):
            ray.kill(actor)
            raise
        return RayJobHandle(actor)
