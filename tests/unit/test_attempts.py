"""Attempts that are more than one call: texts in parts, a second backend for slow calls; the learnt pace of voices."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.unit.http_service import http_service
from tts_actors.attempts import parts_of
from tts_actors.config import AppArgs
from tts_actors.experience import ENOUGH, Experience
from tts_actors.models import Boundary, ChunkResult, JobState, SpeechRequest
from tts_actors.testing import FakeBackend, Faults, running_backend
from tts_actors.testing.in_process import LocalService, running_service

REQUEST = SpeechRequest(model="m", voice="default")
TWO_CLAUSES = "The boat went out in the early morning, and nobody in the village knew when it would return."
GIVE_UP_SECONDS = 30


@asynccontextmanager
async def _running(
    folder: Path, *faults: Faults, hedge: bool = False, **retry: Any
) -> AsyncIterator[tuple[LocalService, list[FakeBackend]]]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(running_backend(each)) for each in faults]
        backends = [
            {"name": f"b{n}", "protocol": "openai", "url": f"{server.url}/v1", "model": "m", "hedge": hedge}
            for n, server in enumerate(servers)
        ]
        args = AppArgs.model_validate(
            {
                "store_url": f"sqlite+aiosqlite:///{folder}/jobs.db",
                "clip_url": f"file://{folder}/clips",
                "backends": backends,
                "retry": {"base_ms": 1, "cap_ms": 1, **retry},
            }
        )
        yield await stack.enter_async_context(running_service(args)), servers


async def _spoken(service: LocalService, text: str) -> tuple[JobState, list[ChunkResult]]:
    job = (await service.service.create("", REQUEST, text)).job
    job = await service.service.wait("", job.id, GIVE_UP_SECONDS)
    return job.state, [view.result for view in await service.service.chunks("", job.id) if view.result]


TROUBLES: dict[str, tuple[str, int | None]] = {
    "500": ("status", 500),
    "429": ("status", 429),
    "drop": ("disconnect", None),
    "truncate": ("bad_take", None),
    "silence": ("bad_take", None),
    "html": ("bad_take", None),
    "hang": ("timeout", None),
    "slow_drip": ("timeout", None),
}


def test_how_every_attempt_went_is_told_by_its_chunk(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "backend": {"max_reply_bytes": 500_000},
        "more_backends": [{"name": "gone", "protocol": "openai", "url": "http://127.0.0.1:1/v1", "model": "fake-tts"}],
        "timeouts": {"base_ms": 3_000, "per_character_ms": 0, "backend_cap_ms": 3_000, "margin_ms": 0, "cap_ms": 3_000},
        "retry": {"max_attempts": 8, "base_ms": 1, "cap_ms": 1, "outage_ms": 0},
    }
    texts = [f"[[fault:{trouble}*1]] This is sentence number {n}." for n, trouble in enumerate(TROUBLES)]
    texts.append("A sentence that goes on and on, " * 8 + "ends.")
    with http_service(tmp_path, **changes) as service:
        jobs = f"{service.url}/v1/audio/speech/jobs"
        body = {"model": "fake-tts", "input": " ".join(texts), "on_chunk_failure": "silence"}
        job_id = requests.post(jobs, json=body, timeout=30).json()["id"]
        requests.get(f"{jobs}/{job_id}?wait=60", timeout=90)
        chunks = [requests.get(f"{jobs}/{job_id}/chunks/{n}", timeout=30).json() for n in range(len(texts))]
    told = [
        [(attempt["outcome"], attempt["status"]) for attempt in chunk["attempts"] if attempt["backend"] == "fake"]
        for chunk in chunks
    ]
    assert [attempts[0] for attempts in told] == [*TROUBLES.values(), ("reply_too_large", 200)]
    assert [attempts[-1] for attempts in told] == [("ok", None)] * len(TROUBLES) + [("reply_too_large", 200)]
    elsewhere = [a for chunk in chunks for a in chunk["attempts"] if a["backend"] == "gone"]
    assert {attempt["outcome"] for attempt in elsewhere} == {"connect"}
    everything = [attempt for chunk in chunks for attempt in chunk["attempts"]]
    assert all((attempt["reason"] is None) == (attempt["outcome"] == "ok") for attempt in everything)
    assert all(attempt["elapsed_ms"] >= (2_900 if attempt["outcome"] == "timeout" else 0) for attempt in everything)


def test_parts_are_the_text_and_are_cut_where_it_hurts_least() -> None:
    parts = parts_of(TWO_CLAUSES, "en")
    assert [boundary for _, boundary in parts] == [Boundary.COMMA, Boundary.END]
    assert " ".join(text for text, _ in parts) == TWO_CLAUSES
    assert len(parts_of("One sentence is here. And here is another.", None)) == 2
    assert parts_of("Only a word", "en") == ()


@pytest.mark.parametrize("fault", ["silence", "cut", "short"])
async def test_a_text_that_is_bad_as_a_whole_is_spoken_in_parts_as_one_clip(tmp_path: Path, fault: str) -> None:
    faults = Faults(fail_beyond=70, fail_kind=fault)
    async with _running(tmp_path, faults, faults) as (service, servers):
        state, (result,) = await _spoken(service, TWO_CLAUSES)
        assert state is JobState.COMPLETED
        assert [(attempt.outcome, attempt.parts) for attempt in result.attempts] == [
            ("bad_take", 1),
            ("bad_take", 1),
            ("ok", 2),
        ]
        assert {attempt.backend for attempt in result.attempts[:2]} == {"b0", "b1"}
        texts = [call["text"] for server in servers for call in server.calls if not call["fault"]]
        assert " ".join(str(text) for text in texts) == TWO_CLAUSES  # at one backend: one voice
        assert result.clip is not None
        spoken_seconds = sum(map(str.isalnum, TWO_CLAUSES)) / 15
        pause_seconds = 0.15
        assert result.clip.samples / 24_000 == pytest.approx(spoken_seconds + pause_seconds, abs=0.1)


async def test_parts_come_last_and_within_the_attempts(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults(always="silence"), max_attempts=4) as (service, _):
        state, (result,) = await _spoken(service, TWO_CLAUSES)
        assert state is JobState.FAILED
        assert [attempt.parts for attempt in result.attempts] == [1, 1, 2, 2]


async def test_other_failures_are_no_reason_for_parts(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults(always="500"), max_attempts=5) as (service, _):
        _, (result,) = await _spoken(service, TWO_CLAUSES)
        assert [attempt.parts for attempt in result.attempts] == [1] * 5


async def test_a_voice_whose_pace_is_known_cannot_leave_out_half_of_a_text(tmp_path: Path) -> None:
    usual = " ".join(
        f"This is number {n} of many sentences that are all about as long as this one is, or longer." for n in range(25)
    )
    async with _running(tmp_path, Faults()) as (service, (server,)):
        assert (await _spoken(service, usual))[0] is JobState.COMPLETED
        server.set_faults(speak_at_most=20)
        state, (result,) = await _spoken(service, TWO_CLAUSES)
        assert state is JobState.FAILED  # its parts are longer than that too
        assert {attempt.outcome for attempt in result.attempts} == {"bad_take"}
        assert "too short for this voice" in (result.attempts[0].reason or "")
        server.set_faults(speak_at_most=50)
        state, (result,) = await _spoken(service, TWO_CLAUSES)
        assert (state, result.attempts[-1].parts) == (JobState.COMPLETED, 2)


def test_nothing_is_judged_by_a_pace_before_there_are_enough_takes_of_such_texts() -> None:
    experience, text = Experience(), "x" * 100
    for _ in range(ENOUGH - 1):
        experience.spoken("voice", text, 10.0)
    assert experience.shortest_seconds("voice", text, 1.0) == 0
    experience.spoken("voice", text, 10.0)
    assert experience.shortest_seconds("voice", text, 1.0) == 4.0  # slow so far, but 25 a second may be speech
    assert experience.shortest_seconds("voice", "x" * 1_000, 1.0) == 0
    assert experience.shortest_seconds("another", text, 1.0) == 0
    assert experience.shortest_seconds("voice", "x" * 19, 1.0) == 0


def test_a_fast_voice_may_be_faster_and_wide_letters_are_syllables() -> None:
    experience = Experience()
    for _ in range(ENOUGH):
        experience.spoken("fast", "x" * 100, 4.0)
        experience.spoken("chinese", "字" * 30, 6.0)
    assert experience.shortest_seconds("fast", "x" * 100, 1.0) == pytest.approx(100 / 37.5)
    assert experience.shortest_seconds("chinese", "字" * 30, 1.0) == pytest.approx(3.6)


async def test_a_text_that_is_spoken_fast_as_a_whole_and_in_parts_is_accepted(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults()) as (service, _):
        route = service.tools.catalog.route("m", "default")
        for _ in range(ENOUGH):  # a voice that is slow otherwise
            service.tools.experience.spoken(("b0", *route.targets["b0"], 1.0), "x" * 75, 5.0)
        service.tools.experience.shortest_seconds = lambda *_: 30.0  # type: ignore[method-assign]
        state, (result,) = await _spoken(service, TWO_CLAUSES)
        assert state is JobState.COMPLETED
        assert [(attempt.outcome, attempt.parts) for attempt in result.attempts][-2:] == [("bad_take", 1), ("ok", 2)]


async def _until(condition: Any) -> None:
    async with asyncio.timeout(GIVE_UP_SECONDS):
        while not condition():  # noqa: ASYNC110 - the condition lies in a server, which sets no event of ours
            await asyncio.sleep(0.01)


def _knows_quick_calls(service: LocalService, calls: int) -> None:
    for _ in range(calls):
        service.tools.experience.begins()
        for backend in ("b0", "b1"):
            service.tools.experience.answered(backend, len(TWO_CLAUSES), 50.0)


async def test_a_slow_call_is_made_elsewhere_too_and_the_loser_is_hung_up_on(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults(always="hang"), Faults(), hedge=True) as (service, (slow, quick)):
        _knows_quick_calls(service, 100)
        state, (result,) = await _spoken(service, TWO_CLAUSES)
        assert state is JobState.COMPLETED
        assert [(attempt.backend, attempt.outcome) for attempt in result.attempts] == [
            ("b0", "cancelled"),
            ("b1", "ok"),
        ]
        await _until(lambda: [call["client_gone"] for call in slow.calls] == [True])
        assert (len(quick.calls), await service.pool.in_flight()) == (1, {"b0": 0, "b1": 0})


async def test_a_first_call_that_is_slow_but_wins_hangs_up_on_the_second(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults(delay_ms=1_500), Faults(always="hang"), hedge=True) as (service, servers):
        _knows_quick_calls(service, 100)
        state, (result,) = await _spoken(service, TWO_CLAUSES)
        assert (state, result.backend) == (JobState.COMPLETED, "b0")
        await _until(lambda: [call["client_gone"] for call in servers[1].calls] == [True])


async def test_hedges_are_at_most_one_in_twenty_calls(tmp_path: Path) -> None:
    text = " ".join(TWO_CLAUSES.replace("early", f"{n:05}") for n in range(60))
    async with _running(tmp_path, Faults(delay_ms=100), Faults(delay_ms=100), hedge=True) as (service, servers):
        service.tools.experience.patience_ms = lambda *_: 1.0  # type: ignore[method-assign]
        state, results = await _spoken(service, text)
        calls = sum(len(server.calls) for server in servers)
        assert state is JobState.COMPLETED
        assert 60 < calls <= 60 + 60 // 20
        assert calls == sum(len(result.attempts) for result in results)


async def test_nobody_is_asked_twice_unless_the_configuration_says_so(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults(delay_ms=300), Faults(delay_ms=300)) as (service, servers):
        _knows_quick_calls(service, 100)
        await _spoken(service, TWO_CLAUSES)
        assert sum(len(server.calls) for server in servers) == 1


async def test_when_the_hedge_fails_the_first_call_still_counts(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults(delay_ms=1_500), Faults(always="500"), hedge=True) as (service, _):
        _knows_quick_calls(service, 100)
        state, (result,) = await _spoken(service, TWO_CLAUSES)
        assert state is JobState.COMPLETED
        assert [(attempt.backend, attempt.outcome) for attempt in result.attempts] == [("b1", "status"), ("b0", "ok")]
