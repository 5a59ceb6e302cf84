"""A worker's side of the pool, on the event loop that workers use."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

from tests.unit.test_pool import _pool
from tts_actors.backends.pool import BackendPool
from tts_actors.cluster import leases as module
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


def test_a_long_job_that_passes_its_leases_on_brings_them_back_when_another_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REUSE_SECONDS", 3_600.0)  # by itself none would come back

    async def lane(leases: RemoteLeases, job_id: str, calls: int, priority: Priority) -> None:
        for _ in range(calls):
            lease = await leases.acquire(job_id, usable=["a"], avoid=[], priority=priority)
            await asyncio.sleep(0.002)
            leases.release(lease, Attempt("a", "ok", 2))

    async def scenario() -> None:
        pool = _pool({"a": 4})
        book, short = RemoteLeases(_Near(pool)), RemoteLeases(_Near(pool))
        lanes = [asyncio.create_task(lane(book, "book", 1_000_000, Priority.BATCH)) for _ in range(16)]
        while (await pool.in_flight())["a"] < 4:  # noqa: ASYNC110 - the pool has no such event
            await asyncio.sleep(0.001)
        async with asyncio.timeout(20):
            for priority in (Priority.BATCH, Priority.INTERACTIVE):
                await asyncio.gather(*(lane(short, "short", 1, priority) for _ in range(3)))
        assert not any(task.done() for task in lanes), "the long job goes on"
        for task in lanes:
            task.cancel()

    uvloop.run(scenario())


def test_a_repeated_call_does_not_wait_until_its_own_jobs_calls_are_through_with_their_leases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REUSE_SECONDS", 3_600.0)

    async def lane(leases: RemoteLeases) -> None:
        while True:
            lease = await leases.acquire("book", usable=["a"], avoid=[], priority=Priority.BATCH)
            await asyncio.sleep(0.002)
            leases.release(lease, Attempt("a", "ok", 2))

    async def scenario() -> None:
        pool = _pool({"a": 4})
        leases = RemoteLeases(_Near(pool))
        lanes = [asyncio.create_task(lane(leases)) for _ in range(6)]
        while (await pool.in_flight())["a"] < 4:  # noqa: ASYNC110 - the pool has no such event
            await asyncio.sleep(0.001)
        async with asyncio.timeout(20):
            await leases.acquire("book", usable=["a"], avoid=["a"], priority=Priority.BATCH)
        for task in lanes:
            task.cancel()

    uvloop.run(scenario())


class _Far:
    """A pool on the event loop of another thread: it goes on when the caller's loop stands still."""

    def __init__(self, pool: BackendPool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        method, loop = getattr(self._pool, name), self._loop

        class _Method:
            def remote(self, *arguments: Any, **named: Any) -> "asyncio.Future[Any]":
                return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(method(*arguments, **named), loop))

        return _Method()


def test_a_worker_whose_loop_stands_still_at_its_end_holds_no_leases() -> None:
    far = asyncio.new_event_loop()
    thread = threading.Thread(target=far.run_forever)
    thread.start()

    def ask(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, far).result(30)

    async def made() -> BackendPool:
        return _pool({"a": 2})

    async def lane(leases: RemoteLeases) -> None:
        lease = await leases.acquire("job", usable=["a"], avoid=[], priority=Priority.INTERACTIVE)
        await asyncio.sleep(0.01)
        leases.release(lease, Attempt("a", "ok", 10))

    near = uvloop.new_event_loop()
    try:
        pool = ask(made())

        async def slice_of_work() -> None:
            leases = RemoteLeases(_Far(pool, far))
            await asyncio.gather(*(lane(leases) for _ in range(6)))
            await leases.settle()

        for _ in range(5):
            near.run_until_complete(slice_of_work())  # and stands still from here
            time.sleep(0.1)
            assert ask(pool.in_flight()) == {"a": 0}
    finally:
        near.close()
        far.call_soon_threadsafe(far.stop)
        thread.join()
        far.close()
