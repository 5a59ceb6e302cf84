"""A worker's side of the pool, on the event loop that workers use."""

import asyncio
from typing import Any

import uvloop

from tests.unit.test_pool import _pool
from tts_actors.backends.pool import BackendPool
from tts_actors.cluster.leases import RemoteLeases
from tts_actors.models import Attempt, Priority


class _Near:
    """A pool in this process, called as Ray's handles are."""

    def __init__(self, pool: BackendPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._pool, name)

        class _Method:
            def remote(self, *arguments: Any, **named: Any) -> "asyncio.Task[Any]":
                return asyncio.create_task(method(*arguments, **named))

        return _Method()


def test_calls_that_end_in_the_same_turn_are_reported_together() -> None:
    async def scenario() -> None:
        pool = _pool({"a": 4})
        leases = RemoteLeases(_Near(pool))
        held = [await leases.acquire("job", usable=["a"], avoid=[], priority=Priority.INTERACTIVE) for _ in range(3)]
        assert await pool.in_flight() == {"a": 3}
        for lease in held:
            leases.release(lease, Attempt("a", "ok", 5))
        await asyncio.sleep(0.05)
        assert await pool.in_flight() == {"a": 0}

    uvloop.run(scenario())
