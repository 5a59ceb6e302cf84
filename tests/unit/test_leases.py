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
        self.acquire, self.release, self.adopt = _Method(pool.acquire), _Method(pool.release), _Method(pool.adopt)


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
    leases = RemoteLeases(handle, ["a"])
    assert await _call(leases) == await _call(leases) == await _call(leases)
    assert handle.acquire.calls == 1
    assert await pool.in_flight() == {"a": 1}


async def test_calls_at_once_leave_one_lease_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REUSE_SECONDS", 0.0)
    pool, handle = _pool()
    leases = RemoteLeases(handle, ["a"])
    held = await asyncio.gather(
        *(leases.acquire("-", usable=["a"], avoid=[], priority=Priority.INTERACTIVE) for _ in range(5))
    )
    assert len({lease.token for lease in held}) == 5
    for lease in held:
        leases.release(lease, Attempt("a", "ok", 1))
    await _count(pool, 1)


async def test_an_idle_lease_goes_back_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    pool, handle = _pool()
    leases = RemoteLeases(handle, ["a"])
    first = await _call(leases)
    await _free(pool)
    assert await _call(leases) != first


async def test_an_old_lease_and_one_of_a_failed_call_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, handle = _pool()
    leases = RemoteLeases(handle, ["a"])
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
    leases = RemoteLeases(handle, ["a"])
    first = await _call(leases)
    lease = await leases.acquire("-", usable=["a"], avoid=["a"], priority=Priority.INTERACTIVE)
    assert lease.token != first


async def test_a_lease_is_not_kept_while_somebody_waits_for_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REUSE_SECONDS", 0.0)
    _, handle = _pool()
    leases = RemoteLeases(handle, ["a"])
    held = [await leases.acquire("-", usable=["a"], avoid=[], priority=Priority.INTERACTIVE) for _ in range(8)]
    waiting = asyncio.create_task(leases.acquire("-", usable=["a"], avoid=[], priority=Priority.INTERACTIVE))
    while handle.acquire.calls < 9:  # noqa: ASYNC110 - the next turn of the loop asks
        await asyncio.sleep(0)
    leases.release(held[0], Attempt("a", "ok", 1))
    async with asyncio.timeout(GIVE_UP_SECONDS):
        assert (await waiting).token not in {lease.token for lease in held}


async def test_a_pool_that_is_gone_is_found_again_and_learns_what_is_still_out() -> None:
    _, gone = _pool()
    new_pool, new = _pool()

    async def refuse(*_: Any, **__: Any) -> Any:
        raise DirectoryUnavailable("the pool died with its directory", 1.0)

    async def find() -> _Handle:
        return new

    leases = RemoteLeases(gone, [], find)
    held = await leases.acquire("-", usable=["a"], avoid=[], priority=Priority.INTERACTIVE)
    gone.acquire = _Method(refuse)
    without = await leases.acquire("-", usable=["a"], avoid=[], priority=Priority.INTERACTIVE)
    assert not without.token
    found = await leases.acquire("-", usable=["a"], avoid=[], priority=Priority.INTERACTIVE)
    assert (await new_pool.in_flight())["a"] == 2
    for lease in (held, without, found):
        leases.release(lease, Attempt("a", "ok", 1))
    await _free(new_pool)
