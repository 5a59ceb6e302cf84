"""The backend pool as a Ray actor: a child of the directory that Ray starts again by itself."""

from collections.abc import Sequence

import ray

from tts_actors.backends.pool import BackendPool
from tts_actors.cluster.metrics import Value, record_passed_on, record_with_ray
from tts_actors.config import AppArgs

GRACE_SECONDS = 2.0
"""What a restarted pool waits before it grants: the processes that hold leases of its predecessor report them."""


class PoolActor(BackendPool):
    """A :class:`BackendPool` that knows whether it replaces one that died; ``replaces``: with its directory."""

    def __init__(self, args: AppArgs, lease_seconds: float, *, replaces: bool = False) -> None:
        restarted = replaces or ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(
            args.backends,
            lease_seconds,
            budget_ratio=args.retry.budget_ratio,
            grace_seconds=GRACE_SECONDS if restarted else 0.0,
        )
        record_with_ray()

    async def observe(self, values: Sequence[Value]) -> None:
        """Record what the jobs' actors measure: they do not live for long, this one does."""
        record_passed_on(values)
