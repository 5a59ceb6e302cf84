"""A job's actor records nothing itself: its values go to an actor that lives on, together, and are recorded there."""

import asyncio
from types import SimpleNamespace

import pytest

from tts_actors import metrics
from tts_actors.cluster import metrics as module
from tts_actors.cluster.metrics import PassedOn, Value, record_passed_on


def _keeper() -> tuple[list[list[Value]], SimpleNamespace]:
    batches: list[list[Value]] = []
    return batches, SimpleNamespace(observe=SimpleNamespace(remote=batches.append))


async def test_durations_wait_for_company_and_what_counts_an_end_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PASS_ON_SECONDS", 0.05)
    batches, keeper = _keeper()
    recorder = PassedOn(keeper)
    for seconds in (0.1, 0.2):
        recorder(metrics.STORE, seconds, ("job_read",))
    assert batches == []
    async with asyncio.timeout(20):
        while not batches:  # noqa: ASYNC110 - a timer sets no event of ours
            await asyncio.sleep(0.01)
    assert batches.pop() == [("tts_store_seconds", 0.1, ("job_read",)), ("tts_store_seconds", 0.2, ("job_read",))]
    recorder(metrics.STORE, 0.3, ("job_write",))
    recorder(metrics.JOBS_ENDED, 1, ("completed",))
    assert batches == [[("tts_store_seconds", 0.3, ("job_write",)), ("tts_jobs_ended", 1, ("completed",))]]


def test_a_thread_without_a_loop_passes_on_at_once() -> None:
    batches, keeper = _keeper()
    PassedOn(keeper)(metrics.STORE, 0.1, ("job_read",))
    assert batches == [[("tts_store_seconds", 0.1, ("job_read",))]]


def test_what_is_passed_on_is_recorded_and_what_is_not_known_here_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Value] = []
    monkeypatch.setattr(metrics, "_recorder", lambda metric, value, labels: seen.append((metric.name, value, labels)))
    record_passed_on([("tts_jobs_ended", 1, ("failed",)), ("tts_of_tomorrow", 1, ())])
    assert seen == [("tts_jobs_ended", 1, ("failed",))]
