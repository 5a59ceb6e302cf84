"""Leases: the limit holds, jobs take turns, a dead holder's lease comes back."""

import asyncio

from tts_actors.backends import BackendPool
from tts_actors.models import Attempt, Lease


def _report(lease: Lease) -> tuple[str, Attempt]:
    return lease.token, Attempt(lease.backend, "ok", 1)


async def test_no_more_leases_are_out_than_the_limit_allows() -> None:
    pool = BackendPool({"a": 2}, lease_seconds=60)
    leases = await pool.acquire("job-1", ["a"], [], 5)
    assert len(leases) == 2
    waiting = asyncio.create_task(pool.acquire("job-1", ["a"], [], 5))
    await asyncio.sleep(0)
    assert not waiting.done()
    await pool.release([_report(leases[0])])
    assert len(await waiting) == 1
    assert await pool.in_flight() == {"a": 2}


async def test_jobs_that_wait_take_turns() -> None:
    pool = BackendPool({"a": 2}, lease_seconds=60)
    held = await pool.acquire("long", ["a"], [], 2)
    long = asyncio.create_task(pool.acquire("long", ["a"], [], 100))
    await asyncio.sleep(0)
    short = asyncio.create_task(pool.acquire("short", ["a"], [], 1))
    await asyncio.sleep(0)
    await pool.release([_report(lease) for lease in held])
    assert (len(await long), len(await short)) == (1, 1)


async def test_the_least_loaded_backend_is_chosen_and_avoided_ones_come_last() -> None:
    pool = BackendPool({"a": 4, "b": 4}, lease_seconds=60)
    first = await pool.acquire("job-1", ["a", "b"], [], 4)
    assert sorted(lease.backend for lease in first) == ["a", "a", "b", "b"]
    other = await pool.acquire("job-1", ["a", "b"], ["a"], 1)
    assert [lease.backend for lease in other] == ["b"]
    only = await pool.acquire("job-1", ["a"], ["a"], 1)
    assert [lease.backend for lease in only] == ["a"]


async def test_a_lease_whose_holder_died_comes_back_by_itself() -> None:
    pool = BackendPool({"a": 1}, lease_seconds=0.05)
    lost = await pool.acquire("job-1", ["a"], [], 1)
    found = await pool.acquire("job-2", ["a"], [], 1)
    assert found != lost
    await pool.release([_report(lost[0])])  # too late: it must not free the other's
    assert await pool.in_flight() == {"a": 1}


async def test_an_asker_that_went_away_keeps_nothing() -> None:
    pool = BackendPool({"a": 1}, lease_seconds=60)
    held = await pool.acquire("job-1", ["a"], [], 1)
    gone = asyncio.create_task(pool.acquire("job-2", ["a"], [], 1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    await pool.release([_report(held[0])])
    assert len(await pool.acquire("job-3", ["a"], [], 1)) == 1
