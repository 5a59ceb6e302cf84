"""A door's idle leases: kept for the next call for a moment, given back after it, and never of a small backend."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tts_actors.backends.pool import BackendPool
from tts_actors.cluster import leases as module
from tts_actors.cluster.leases import RemoteLeases
from tts_actors.config import BackendArgs
from tts_actors.errors import DirectoryUnavailable
from tts_actors.messages import Lease
from tts_actors.models import Attempt, Priority

GIVE_UP_SECONDS = 20


class _Method:
    """A pool's method as an actor's handle has it: called at once, its answer is awaited or not."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.calls = 0

    def remote(self, *arguments: Any, **named: Any) -> asyncio.Task[Any]:
        self.calls += 1
        return asyncio.ensure_future(self._method(*arguments, **named))


class _Handle:
    def __init__(self, pool: BackendPool) -> None:
        self._dead = asyncio.Event()
        methods = (pool.acquire, pool.release, pool.adopt, pool.watch)
        self.acquire, self.release, self.adopt, self.watch = (_Method(self._living(method)) for method in methods)

    def die(self) -> None:
        """From now on nobody answers, and calls that are open break off."""
        self._dead.set()

    def _living(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*arguments: Any, **named: Any) -> Any:
            working = asyncio.ensure_future(method(*arguments, **named))
            dying = asyncio.ensure_future(self._dead.wait())
            await asyncio.wait({working, dying}, return_when=asyncio.FIRST_COMPLETED)
            if working.done() and not self._dead.is_set():
                dying.cancel()
                return working.result()
            working.cancel()
            raise DirectoryUnavailable("the pool died", 1.0)

        return call


def _pool() -> tuple[BackendPool, _Handle]:
    document = {"name": "a", "protocol": "openai", "url": "http://127.0.0.1:1", "model": "m", "max_concurrency": 8}
    pool = BackendPool([BackendArgs.model_validate(document)], 60)
    return pool, _Handle(pool)


async def _call(leases: RemoteLeases, outcome: str = "ok") -> str:
    lease = await leases.acquire("-", usable=["a"], avoid=[], priority=Priority.INTERACTIVE)
    leases.release(lease, Attempt(lease.backend, outcome, 1))  # type: ignore[arg-type]
    return lease.token


async def _free(pool: BackendPool) -> None:
    await _count(pool, 0)


async def _count(pool: BackendPool, wanted: int) -> None:
    """Until so many leases are out."""
    async with asyncio.timeout(GIVE_UP_SECONDS):
        while (await pool.in_flight())["a"] != wanted:  # noqa: ASYNC110 - the pool has no such event
            await asyncio.sleep(0.01)


async def test_the_next_call_takes_the_kept_lease_without_asking_the_pool() -> None:
    pool, handle = _pool()
    leases = RemoteLeases(handle, {"a": 1})
    assert await _call(leases) == await _call(leases) == await _call(leases)
    assert handle.acquire.calls == 1
    assert await pool.in_flight() == {"a": 1}


async def test_calls_at_once_leave_one_lease_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REUSE_SECONDS", 0.0)
    pool, handle = _pool()
    leases = RemoteLeases(handle, {"a": 1})
    held = await asyncio.gather(
        *(leases.acquire("-", usable=["a"], avoid=[], priority=Priority.INTERACTIVE) for _ in range(5))
    )
    assert len({lease.token for lease in held}) == 5
    for lease in held:
        leases.release(lease, Attempt("a", "ok", 1))
    await _count(pool, 1)


async def test_calls_at_once_find_as_many_kept_leases_as_may_be_kept() -> None:
    pool, handle = _pool()
    leases = RemoteLeases(handle, {"a": 3})
    for lease in [await _acquired(leases) for _ in range(4)]:
        leases.release(lease, Attempt("a", "ok", 1))
    await _count(pool, 3)
    asked = handle.acquire.calls
    held = [await _acquired(leases) for _ in range(3)]
    assert handle.acquire.calls == asked
    assert len({lease.token for lease in held}) == 3
    await _acquired(leases)
    assert handle.acquire.calls == asked + 1


async def test_what_a_door_holds_for_a_job_is_not_taken_back_with_what_its_dead_worker_held() -> None:
    pool, handle = _pool()
    for leases in (RemoteLeases(handle, {"a": 1}), RemoteLeases(handle)):
        await leases.acquire("job-1", usable=["a"], avoid=[], priority=Priority.INTERACTIVE)
    await _count(pool, 2)
    await pool.forget("job-1")
    assert await pool.in_flight() == {"a": 1}


async def test_an_idle_lease_goes_back_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    pool, handle = _pool()
    leases = RemoteLeases(handle, {"a": 1})
    first = await _call(leases)
    await _free(pool)
    assert await _call(leases) != first


async def test_an_old_lease_and_one_of_a_failed_call_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, handle = _pool()
    leases = RemoteLeases(handle, {"a": 1})
    await _call(leases, "timeout")
    await _free(pool)
    monkeypatch.setattr(module, "KEPT_SECONDS", 0.0)
    await _call(leases)
    await _free(pool)


async def test_nothing_is_kept_unless_the_backend_is_named() -> None:
    pool, handle = _pool()
    await _call(RemoteLeases(handle))
    await _free(pool)
    assert handle.acquire.calls == 1


async def test_a_call_that_avoids_a_backend_does_not_get_its_kept_lease() -> None:
    _, handle = _pool()
    leases = RemoteLeases(handle, {"a": 1})
    first = await _call(leases)
    lease = await leases.acquire("-", usable=["a"], avoid=["a"], priority=Priority.INTERACTIVE)
    assert lease.token != first


async def test_a_lease_is_not_kept_while_somebody_waits_for_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REUSE_SECONDS", 0.0)
    _, handle = _pool()
    leases = RemoteLeases(handle, {"a": 1})
    held = [await leases.acquire("-", usable=["a"], avoid=[], priority=Priority.INTERACTIVE) for _ in range(8)]
    waiting = asyncio.create_task(leases.acquire("-", usable=["a"], avoid=[], priority=Priority.INTERACTIVE))
    while handle.acquire.calls < 9:  # noqa: ASYNC110 - the next turn of the loop asks
        await asyncio.sleep(0)
    leases.release(held[0], Attempt("a", "ok", 1))
    async with asyncio.timeout(GIVE_UP_SECONDS):
        assert (await waiting).token not in {lease.token for lease in held}


async def _acquired(leases: RemoteLeases) -> Lease:
    async with asyncio.timeout(GIVE_UP_SECONDS):
        return await leases.acquire("-", usable=["a"], avoid=[], priority=Priority.INTERACTIVE)


async def test_while_the_pool_is_away_calls_go_on_with_the_leases_that_are_held_and_no_others() -> None:
    _, gone = _pool()
    leases = RemoteLeases(gone)
    held = [await _acquired(leases) for _ in range(8)]
    waiting = [asyncio.create_task(_acquired(leases)) for _ in range(3)]
    gone.die()
    await asyncio.sleep(0.3)
    assert not any(task.done() for task in waiting)
    for lease in held:
        leases.release(lease, Attempt("a", "ok", 1))
    assert {lease.token for lease in await asyncio.gather(*waiting)} < {lease.token for lease in held}


async def test_a_new_pool_hears_of_calls_that_run_though_nobody_asks_it_for_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WATCH_AFTER_SECONDS", 0.0)
    _, gone = _pool()
    new_pool, new = _pool()

    async def find() -> _Handle:
        return new

    leases = RemoteLeases(gone, {}, find)
    held = [await _acquired(leases) for _ in range(5)]
    gone.die()
    await _count(new_pool, 5)
    for lease in held:
        leases.release(lease, Attempt("a", "ok", 1))
    await _free(new_pool)


async def test_a_pool_that_stays_away_is_done_without_and_learns_of_that_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    _, gone = _pool()
    new_pool, new = _pool()
    back = False

    async def find() -> _Handle:
        return new if back else gone

    leases = RemoteLeases(gone, {}, find)
    gone.die()
    alone = [await _acquired(leases) for _ in range(module.FALLBACK_CALLS)]
    waiting = asyncio.create_task(_acquired(leases))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    back = True
    await waiting
    await _count(new_pool, module.FALLBACK_CALLS + 1)
    for lease in (*alone, waiting.result()):
        leases.release(lease, Attempt("a", "ok", 1))
    await _free(new_pool)
