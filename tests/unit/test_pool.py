"""Leases: the limit holds and adapts, jobs take turns, failing backends are left alone, nothing is held for ever."""

import asyncio

import pytest

from tts_actors.backends.pool import BackendPool, incarnation_of
from tts_actors.config import BackendArgs
from tts_actors.errors import PoolRestarted
from tts_actors.messages import Lease, LeaseReport
from tts_actors.models import Attempt, Priority


class _Clock:
    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


def _pool(
    limits: dict[str, int], lease_seconds: float = 60, clock: _Clock | None = None, **fields: float
) -> BackendPool:
    backends = [
        BackendArgs.model_validate(
            {"name": name, "protocol": "openai", "url": "http://127.0.0.1:1", "max_concurrency": limit, **fields}
        )
        for name, limit in limits.items()
    ]
    return BackendPool(backends, lease_seconds, now=clock or _Clock())


def _report(lease: Lease, outcome: str = "ok", status: int | None = None, *, returned: bool = True) -> LeaseReport:
    return LeaseReport(lease.token, Attempt(lease.backend, outcome, 10, status), returned)


async def _figures(pool: BackendPool, name: str = "a") -> tuple[str, int]:
    found = next(figures for figures in await pool.figures() if figures.name == name)
    return found.breaker, found.limit


async def test_no_more_leases_are_out_than_the_limit_allows() -> None:
    pool = _pool({"a": 2})
    leases = await pool.acquire("job-1", ["a"], [], 5)
    assert len(leases) == 2
    waiting = asyncio.create_task(pool.acquire("job-1", ["a"], [], 5))
    await asyncio.sleep(0)
    assert not waiting.done()
    await pool.release([_report(leases[0])])
    assert len(await waiting) == 1
    assert await pool.in_flight() == {"a": 2}


async def test_jobs_that_wait_take_turns() -> None:
    pool = _pool({"a": 2})
    held = await pool.acquire("long", ["a"], [], 2)
    long = asyncio.create_task(pool.acquire("long", ["a"], [], 100))
    await asyncio.sleep(0)
    short = asyncio.create_task(pool.acquire("short", ["a"], [], 1))
    await asyncio.sleep(0)
    assert await long == [], "asked to bring back what it has"
    long = asyncio.create_task(pool.acquire("long", ["a"], [], 100))
    await asyncio.sleep(0)
    await pool.release([_report(lease) for lease in held])
    assert (len(await short), len(await long)) == (1, 1)


async def _called_back(pool: BackendPool, holder: Priority, other: Priority, *, has: int = 0) -> bool:
    """Whether a job that holds all leases, and waits for more, is asked for them when another comes that has some."""
    if has:
        await pool.acquire("other", ["a"], [], has)
    await pool.acquire("holder", ["a"], [], 100)
    waiting = asyncio.create_task(pool.acquire("holder", ["a"], [], 100, priority=holder))
    await asyncio.sleep(0)
    coming = asyncio.create_task(pool.acquire("other", ["a"], [], 5, priority=other))
    await asyncio.sleep(0.01)
    called = waiting.done()
    again = asyncio.create_task(pool.acquire("holder", ["a"], [], 100, priority=holder))
    await asyncio.sleep(0.01)
    assert not again.done(), "once for each wait"
    for task in (waiting, again, coming):
        task.cancel()
    return called


@pytest.mark.parametrize(("limit", "has", "called"), [(2, 0, True), (1, 0, True), (4, 1, True), (3, 1, False)])
async def test_leases_are_called_back_for_a_job_that_has_none_or_two_fewer(limit: int, has: int, called: bool) -> None:
    same = Priority.BATCH
    assert await _called_back(_pool({"a": limit}), same, same, has=has) is called


async def test_all_leases_of_batch_work_are_called_back_for_interactive_work_and_none_the_other_way() -> None:
    assert await _called_back(_pool({"a": 1}), Priority.BATCH, Priority.INTERACTIVE)
    assert not await _called_back(_pool({"a": 8}), Priority.INTERACTIVE, Priority.BATCH)


async def test_leases_are_not_called_back_for_a_job_that_cannot_use_them() -> None:
    pool = _pool({"a": 4, "b": 1})
    await pool.acquire("holder", ["a"], [], 4)
    await pool.acquire("third", ["b"], [], 1)
    waiting = asyncio.create_task(pool.acquire("holder", ["a"], [], 1))
    other = asyncio.create_task(pool.acquire("other", ["b"], [], 1))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    waiting.cancel()
    other.cancel()


async def test_interactive_work_goes_first() -> None:
    pool = _pool({"a": 1})
    held = await pool.acquire("first", ["a"], [], 1)
    batch = asyncio.create_task(pool.acquire("batch", ["a"], [], 1, priority=Priority.BATCH))
    await asyncio.sleep(0)
    interactive = asyncio.create_task(pool.acquire("interactive", ["a"], [], 1))
    await asyncio.sleep(0)
    await pool.release([_report(held[0])])
    lease = (await interactive)[0]
    assert not batch.done()
    await pool.release([_report(lease)])
    assert len(await batch) == 1


async def test_the_least_loaded_backend_is_chosen_and_avoided_ones_come_last() -> None:
    pool = _pool({"a": 4, "b": 4})
    first = await pool.acquire("job-1", ["a", "b"], [], 4)
    assert sorted(lease.backend for lease in first) == ["a", "a", "b", "b"]
    other = await pool.acquire("job-1", ["a", "b"], ["a"], 1)
    assert [lease.backend for lease in other] == ["b"]
    only = await pool.acquire("job-1", ["a"], ["a"], 1)
    assert [lease.backend for lease in only] == ["a"]


async def test_weights_share_the_calls() -> None:
    backends = [
        BackendArgs(name=name, protocol="openai", url="http://127.0.0.1:1", max_concurrency=100, weight=weight)
        for name, weight in (("a", 3.0), ("b", 1.0))
    ]
    leases = await BackendPool(backends, 60).acquire("job-1", ["a", "b"], [], 40)
    assert sum(lease.backend == "a" for lease in leases) == 30


async def test_a_lease_whose_holder_died_comes_back_by_itself() -> None:
    pool = _pool({"a": 1}, lease_seconds=0.05)
    lost = await pool.acquire("job-1", ["a"], [], 1)
    found = await pool.acquire("job-2", ["a"], [], 1)
    assert found != lost
    await pool.release([_report(lost[0])])  # too late: it must not free the other's
    assert await pool.in_flight() == {"a": 1}


async def test_an_asker_that_went_away_keeps_nothing() -> None:
    pool = _pool({"a": 1})
    held = await pool.acquire("job-1", ["a"], [], 1)
    gone = asyncio.create_task(pool.acquire("job-2", ["a"], [], 1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    await pool.release([_report(held[0])])
    assert len(await pool.acquire("job-3", ["a"], [], 1)) == 1


@pytest.mark.parametrize(("outcome", "status"), [("timeout", None), ("status", 429), ("status", 503)])
async def test_overload_lowers_the_limit_once_for_calls_that_failed_together(outcome: str, status: int | None) -> None:
    clock = _Clock()
    pool = _pool({"a": 10}, clock=clock)
    leases = await pool.acquire("job-1", ["a"], [], 4)
    await pool.release([_report(lease, outcome, status) for lease in leases])
    assert await _figures(pool) == ("closed", 7)


async def test_good_calls_raise_the_limit_again_but_never_above_the_configured_one() -> None:
    clock = _Clock()
    pool = _pool({"a": 4}, clock=clock, min_concurrency=2)
    for _ in range(4):
        clock.seconds += 1
        await pool.release([_report(lease, "timeout") for lease in await pool.acquire("job-1", ["a"], [], 1)])
    assert await _figures(pool) == ("closed", 2)
    for _ in range(30):
        await pool.release([_report(lease) for lease in await pool.acquire("job-1", ["a"], [], 1)])
    assert await _figures(pool) == ("closed", 4)


async def test_failures_in_a_row_open_the_breaker_and_one_good_probe_closes_it() -> None:
    clock = _Clock()
    pool = _pool({"a": 8, "b": 8}, clock=clock)
    leases = await pool.acquire("job-1", ["a"], [], 5)
    await pool.release([_report(lease, "connect") for lease in leases])
    assert (await _figures(pool))[0] == "open"
    others = await pool.acquire("job-1", ["a", "b"], [], 8)
    assert {lease.backend for lease in others} == {"b"}
    clock.seconds += 2.1
    assert (await _figures(pool))[0] == "half_open"
    probes = await pool.acquire("job-1", ["a", "b"], [], 8)
    assert [lease.backend for lease in probes] == ["a"]
    await pool.release([_report(probes[0], "connect")])
    clock.seconds += 2.1
    assert (await _figures(pool))[0] == "open"  # twice as long after a failed probe
    clock.seconds += 2.0
    await pool.release([_report(lease) for lease in await pool.acquire("job-1", ["a"], [], 8)])
    assert (await _figures(pool))[0] == "closed"


async def test_the_last_backend_is_never_shut_off_but_gets_one_call_at_a_time() -> None:
    pool = _pool({"a": 8})
    leases = await pool.acquire("job-1", ["a"], [], 5)
    await pool.release([_report(lease, "connect") for lease in leases])
    assert len(await pool.acquire("job-1", ["a"], [], 8)) == 1


async def test_a_refused_text_says_nothing_about_the_backend() -> None:
    pool = _pool({"a": 8})
    leases = await pool.acquire("job-1", ["a"], [], 8)
    await pool.release([_report(lease, "status", 400) for lease in leases])
    figures = (await pool.figures())[0]
    assert (figures.healthy, figures.limit, figures.errors) == (True, 8, {"status_400": 8})


async def test_retries_of_a_backend_are_bounded_by_its_budget() -> None:
    clock = _Clock()
    pool = _pool({"a": 1_000}, clock=clock)
    retries = await pool.acquire("job-1", ["a"], ["a"], 100)
    assert len(retries) == 20
    await pool.acquire("job-2", ["a"], [], 10)  # ten first calls earn two retries
    assert len(await pool.acquire("job-1", ["a"], ["a"], 100)) == 2
    clock.seconds += 1
    assert len(await pool.acquire("job-1", ["a"], ["a"], 100)) == 2


async def test_news_of_a_lease_that_was_passed_on_is_learnt_and_the_lease_stays_out() -> None:
    pool = _pool({"a": 8})
    lease = (await pool.acquire("job-1", ["a"], [], 1))[0]
    await pool.release([_report(lease, returned=False)] * 3)
    figures = (await pool.figures())[0]
    assert (figures.in_flight, figures.p50_ms, figures.p95_ms) == (1, 10, 10)


async def test_each_call_that_a_lease_is_passed_on_to_earns_its_share_of_a_retry() -> None:
    pool = _pool({"a": 100})
    spent = await pool.acquire("job-1", ["a"], ["a"], 100)
    await pool.release([_report(spent[0], returned=False)] * 10)  # ten first calls earn two retries
    assert len(await pool.acquire("job-1", ["a"], ["a"], 100)) == 2


async def test_leases_that_are_too_many_by_now_are_called_back() -> None:
    pool = _pool({"a": 8})
    held = await pool.acquire("job-1", ["a"], [], 8)
    waiting = asyncio.create_task(pool.acquire("job-1", ["a"], [], 4))
    await asyncio.sleep(0.01)
    await pool.release([_report(lease, returned=False) for lease in held])
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await pool.release([_report(held[0], "status", 503)])
    assert await waiting == []


async def test_a_new_pool_wants_to_know_what_its_predecessor_handed_out() -> None:
    old, new = _pool({"a": 3}), _pool({"a": 3})
    held = await old.acquire("job-1", ["a"], [], 2)
    with pytest.raises(PoolRestarted):
        await new.acquire("job-1", ["a"], [], 3, known=incarnation_of(held[0]))
    await new.adopt(held)
    await new.adopt(held)
    assert len(await new.acquire("job-1", ["a"], [], 3)) == 1
    await new.release([_report(lease) for lease in held])
    assert await new.in_flight() == {"a": 1}


async def test_what_a_dead_worker_held_and_waited_for_is_free_at_once() -> None:
    pool = _pool({"a": 2})
    await pool.acquire("dead", ["a"], [], 2)
    waiting = asyncio.create_task(pool.acquire("dead", ["a"], [], 5))
    await asyncio.sleep(0)
    alive = asyncio.create_task(pool.acquire("alive", ["a"], [], 1))
    await asyncio.sleep(0)
    await pool.forget("dead")
    assert (await waiting, len(await alive)) == ([], 1)
    assert await pool.in_flight() == {"a": 1}
    await pool.forget("nobody")
    assert await pool.in_flight() == {"a": 1}


async def test_what_a_process_held_that_says_nothing_any_more_comes_back_and_what_a_living_one_holds_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tts_actors.backends.held.SILENT_SECONDS", 1.0)
    monkeypatch.setattr("tts_actors.backends.pool.WATCH_SECONDS", 0.1)
    pool = _pool({"a": 3})
    (mine,) = await pool.acquire("-", ["a"], [], 1, process="living")
    await pool.acquire("-", ["a"], [], 2, process="dead")

    async def watch() -> None:
        while True:
            await pool.watch(incarnation_of(mine), "living")

    watching = asyncio.create_task(watch())
    waiting = asyncio.create_task(pool.acquire("job-1", ["a"], [], 3))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    assert len(await waiting) == 2
    await asyncio.sleep(1.2)
    assert await pool.in_flight() == {"a": 3}
    watching.cancel()
    assert len(await pool.acquire("job-2", ["a"], [], 3)) == 1


async def test_what_a_process_has_held_for_a_restarted_pool_comes_back_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tts_actors.backends.held.SILENT_SECONDS", 0.2)
    old, new = _pool({"a": 1}), _pool({"a": 1})
    await new.adopt(await old.acquire("-", ["a"], [], 1, process="dead"), "dead")
    assert await new.in_flight() == {"a": 1}
    assert len(await new.acquire("job-1", ["a"], [], 1)) == 1


async def test_a_job_that_was_ended_for_good_is_granted_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tts_actors.backends.pool.GONE_SECONDS", 0.3)
    pool = _pool({"a": 2})
    await pool.acquire("gone", ["a"], [], 2)
    await pool.withdraw("gone", gone=True)
    await pool.forget("gone")
    last_words = asyncio.create_task(pool.acquire("gone", ["a"], [], 2))
    assert len(await pool.acquire("alive", ["a"], [], 2)) == 2
    assert await last_words == []
    await pool.forget("alive")
    assert len(await pool.acquire("gone", ["a"], [], 1)) == 1  # a new job has its id


async def test_who_waits_for_a_job_that_has_ended_gets_none_of_what_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tts_actors.backends.pool.GONE_SECONDS", 0.3)
    pool = _pool({"a": 2})
    held = await pool.acquire("job-1", ["a"], [], 2)
    waiting = asyncio.create_task(pool.acquire("door:job-1", ["a"], [], 1))
    await asyncio.sleep(0)
    await pool.withdraw("door:job-1", gone=True)
    await pool.release([_report(lease, "cancelled") for lease in held])
    assert await waiting == []
    assert await pool.acquire("door:job-1", ["a"], [], 1) == []
    assert len(await pool.acquire("door:job-1", ["a"], [], 1)) == 1


async def test_a_retry_goes_back_to_where_it_failed_rather_than_to_a_backend_that_is_shut_off() -> None:
    pool = _pool({"a": 8, "b": 8})
    leases = await pool.acquire("job-1", ["b"], [], 5)
    await pool.release([_report(lease, "connect") for lease in leases])
    assert [lease.backend for lease in await pool.acquire("job-2", ["a", "b"], ["a"], 2)] == ["a", "a"]
