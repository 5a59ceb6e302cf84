"""Chunk-worker tasks as their callers see them: a slice of a job as one streaming Ray task."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any, cast

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tts_actors.errors import TtsError
from tts_actors.job_actor import WorkerLost
from tts_actors.messages import SliceOrder, SliceProgress


class RayDispatch:
    """The :class:`~tts_actors.protocols.Dispatch` of a job actor; must be made inside that actor's process."""

    def __init__(self, args_json: str, pool: Any) -> None:
        self._args_json = args_json
        self._pool = pool
        context = ray.get_runtime_context()
        self._job_actor = context.current_actor
        # Beside the actor. Left alone, Ray sends a task that asks for no CPU to the node with the most CPUs free once
        # this one's are half used: the head, which has none to use.
        here = NodeAffinitySchedulingStrategy(context.get_node_id(), soft=True)
        self._synthesize = synthesize_slice.options(scheduling_strategy=here)

    async def __call__(self, order: SliceOrder) -> AsyncGenerator[SliceProgress]:
        if order.adopt and order.sole:
            # A worker of this job has died, or was killed by Ray along with the actor before this one: nobody else can
            # give back the leases it held.
            self._pool.forget.remote(order.job_id)
        try:
            async for reference in self._synthesize.remote(order, self._args_json, self._pool, self._job_actor):
                yield await reference
        except RayTaskError as error:
            if isinstance(error.cause, TtsError):
                raise error.cause from None
            raise
        except RayError as error:
            raise WorkerLost(f"the chunk worker died: {type(error).__name__}") from error


def _synthesize_slice(order: SliceOrder, args_json: str, pool: Any, job_actor: Any) -> Iterator[SliceProgress]:
    from tts_actors.cluster.slices import speak_slice  # here: who only starts such a task needs nothing of it

    yield from speak_slice(order, args_json, pool, job_actor)


def _warm_worker(evens: bool) -> None:
    """Running it brings up a worker process with all that a slice needs imported; ``evens``: its loudness too, which
    costs more than all the rest, so that the first listener does not wait for it.
    """
    import tts_actors.cluster.slices  # noqa: F401
    from tts_actors.audio.loudness import load_meter_soon

    if evens:
        load_meter_soon()


# No CPU is reserved: admission bounds the jobs and leases bound the calls. No retries by Ray: the job actor knows what
# is outstanding and Ray does not. (Ray's own types lack these options, hence the cast.)
_remote = cast("Any", ray.remote)
synthesize_slice = _remote(num_cpus=0, max_retries=0, num_returns="streaming", enable_task_events=False)(
    _synthesize_slice
)
warm_worker = _remote(num_cpus=0, enable_task_events=False)(_warm_worker)
