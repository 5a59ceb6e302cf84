"""When, where and how often a failed attempt is repeated; and that one backend's wish does not hold up the others."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_actors.config import AppArgs
from tts_actors.errors import BackendError
from tts_actors.models import JobState, OnChunkFailure, SpeechRequest
from tts_actors.retry import Course, NextAttempt, RetryPolicy
from tts_actors.states import TERMINAL
from tts_actors.testing import FakeBackend, Faults, running_backend
from tts_actors.testing.in_process import running_service

BAD = BackendError("as ordered", "status", 500)
NOBODY = BackendError("no connection", "connect")
FOREVER_MS = 10.0**9
TIMEOUT_MS = 10_000


def _course(*backends: str, patient_until_ms: float = 0.0, **policy: int) -> Course:
    return Course(RetryPolicy(**policy), backends, TIMEOUT_MS, patient_until_ms=patient_until_ms)


def _after(course: Course, backend: str, error: BackendError = BAD, **changes: Any) -> NextAttempt | None:
    values: dict[str, Any] = {"now_ms": 1.0, "remaining_ms": FOREVER_MS, "jitter": 0.5, "elapsed_ms": 1}
    return course.failed(backend, error, **values | changes)


def _where(following: NextAttempt | None) -> tuple[float, set[str], set[str]]:
    assert following is not None
    return following.wait_ms, set(following.usable), set(following.avoid)


def test_every_backend_is_tried_at_once_before_anybody_waits() -> None:
    course = _course("a", "b", "c")
    assert _where(course.first()) == (0, {"a", "b", "c"}, set())
    assert _where(_after(course, "a")) == (0, {"a", "b", "c"}, {"a"})
    assert _where(_after(course, "b")) == (0, {"a", "b", "c"}, {"a", "b"})
    assert _where(_after(course, "c")) == (100, {"a", "b", "c"}, {"c"})  # a new round, elsewhere than just now
    assert _where(_after(course, "a")) == (200, {"a", "b", "c"}, {"a", "c"})


def test_waits_double_up_to_their_cap_and_are_a_random_part_of_it() -> None:
    course = _course("a", base_ms=200, cap_ms=700)
    waits = [_where(_after(course, "a", jitter=jitter))[0] for jitter in (0.5, 0.999, 0.0, 1.0)]
    assert waits == pytest.approx([100, 399.6, 0, 700])


def test_retries_end_with_the_attempts_the_deadline_and_final_errors() -> None:
    course = _course("a", max_attempts=2)
    assert _after(course, "a") is not None
    assert _after(course, "a") is None
    assert _after(_course("a"), "a", remaining_ms=0) is None
    assert _after(_course("a"), "a", BackendError("bad voice", "status", 404, False)) is None


def test_attempts_that_find_nobody_there_count_only_when_patience_is_over() -> None:
    course = _course("a", patient_until_ms=1_000, max_attempts=2)
    assert all(_after(course, "a", NOBODY, now_ms=999.0) for _ in range(50))
    assert _after(course, "a", NOBODY, now_ms=1_001.0) is not None
    assert _after(course, "a", NOBODY, now_ms=1_001.0) is None


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_answers_of_a_server_that_is_away_do_not_count_either(status: int) -> None:
    course = _course("a", patient_until_ms=1_000, max_attempts=1)
    assert all(_after(course, "a", BackendError("away", "status", status)) for _ in range(50))
    assert _after(course, "a", BackendError("a fault", "status", 500)) is None


def test_timeouts_do_not_count_while_nobody_else_gets_an_answer_there() -> None:
    late = BackendError("late", "timeout")
    course = _course("a", patient_until_ms=1_000, max_attempts=2)
    late_here: dict[str, Any] = {"backend": "a", "error": late, "elapsed_ms": TIMEOUT_MS, "jitter": 0.0}
    assert all(_after(course, silent=True, **late_here) for _ in range(50))
    assert _after(course, **late_here) is not None
    assert _after(course, **late_here) is None


@pytest.mark.parametrize(
    "error",
    [
        *(BackendError("not you", "status", status, False) for status in (401, 402, 403, 404)),
        BackendError("who is that", "tls", None, False),
        BackendError("without end", "reply_too_large", 200, False),
    ],
)
def test_who_will_not_speak_for_us_is_not_asked_again_but_the_others_are(error: BackendError) -> None:
    course = _course("a", "b")
    assert _where(_after(course, "a", error)) == (0, {"b"}, {"a"})
    assert _where(_after(course, "b"))[1] == {"b"}
    assert _after(course, "b", error) is None


def test_a_text_that_was_refused_is_refused_everywhere() -> None:
    assert _after(_course("a", "b"), "a", BackendError("bad text", "status", 400, False)) is None


def test_a_wish_to_wait_keeps_from_its_own_backend_only() -> None:
    asked = BackendError("slow down", "status", 429, True, 7.0)
    course = _course("a", "b")
    assert _where(_after(course, "a", asked)) == (0, {"b"}, {"a"})
    assert _where(_after(course, "b", now_ms=2.0)) == (100, {"b"}, {"b"})  # a rests, b may be asked again
    assert _where(_after(course, "b", now_ms=7_000.0)) == (200, {"a", "b"}, {"b"})


def test_a_wish_to_wait_is_honoured_up_to_the_deadline_where_there_is_nobody_else() -> None:
    asked = BackendError("slow down", "status", 429, True, 7.0)
    assert _where(_after(_course("a"), "a", asked)) == (7_000, {"a"}, {"a"})
    assert _where(_after(_course("a"), "a", asked, remaining_ms=2_000)) == (2_000, {"a"}, {"a"})


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 2 * TIMEOUT_MS), st.floats(0, 0.999)), min_size=20, max_size=20
    ),
    st.integers(1, 20),
    st.integers(1, 20),
)
@settings(deadline=None, max_examples=50)
def test_no_course_breaks_the_bound_and_none_ends_before_its_timeouts(
    failures: list[tuple[str, int, float]], max_attempts: int, max_timeouts: int
) -> None:
    policy = RetryPolicy(max_attempts=max_attempts, max_timeouts=max_timeouts)
    course = Course(policy, "abc", TIMEOUT_MS, patient_until_ms=0)
    spent_ms, attempts = 0.0, 0
    for backend, elapsed_ms, jitter in failures:
        attempts += 1
        following = _after(course, backend, elapsed_ms=elapsed_ms, jitter=jitter)
        spent_ms += min(elapsed_ms, TIMEOUT_MS)
        if following is None:
            break
        spent_ms += following.wait_ms
    assert min(max_attempts, max_timeouts) <= attempts <= max_attempts
    assert spent_ms <= policy.longest_ms(TIMEOUT_MS)


def test_the_bound_counts_timeouts_and_the_waits_between_them() -> None:
    assert RetryPolicy(max_attempts=3, base_ms=200, cap_ms=300).longest_ms(1_000) == 3_500
    assert RetryPolicy(max_attempts=8, max_timeouts=3, base_ms=200).longest_ms(1_000) == 3_600
    assert RetryPolicy(max_attempts=1).longest_ms(1_000) == 1_000


def _args(folder: Path, urls: list[str], **retry: Any) -> AppArgs:
    backends = [{"name": f"b{n}", "protocol": "openai", "url": f"{url}/v1", "model": "m"} for n, url in enumerate(urls)]
    values = {"store_url": f"sqlite+aiosqlite:///{folder}/jobs.db", "clip_url": f"file://{folder}/clips"}
    return AppArgs.model_validate(values | {"backends": backends, "retry": retry})


async def test_a_backend_that_wants_to_be_left_alone_for_an_hour_does_not_delay_a_job(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        busy = await stack.enter_async_context(running_backend(Faults(always="429", retry_after="3600")))
        free = await stack.enter_async_context(running_backend())
        service = await stack.enter_async_context(running_service(_args(tmp_path, [busy.url, free.url])))
        job = (await service.service.create("", SpeechRequest("m", "default"), "One. Two. Three. Four. Five.")).job
        job = await service.service.wait("", job.id, 30)
        assert (job.state, job.chunks_completed) == (JobState.COMPLETED, 5)
        assert busy.calls
        views = await service.service.chunks("", job.id)
        assert {view.result.backend for view in views if view.result} == {"b1"}


async def test_every_fifth_call_may_fail_and_jobs_complete_with_the_default_attempts(tmp_path: Path) -> None:
    kinds = ["500", "502", "429", "drop", "truncate", "silence", "html", "empty", "garbage", "clipped"]
    async with AsyncExitStack() as stack:
        faults = [Faults(seed=seed, fail_rate=0.2, fail_kinds=kinds, fixed_audio_ms=1_500) for seed in range(3)]
        backends = [await stack.enter_async_context(running_backend(each)) for each in faults]
        args = _args(tmp_path, [backend.url for backend in backends], base_ms=1, cap_ms=1)
        service = await stack.enter_async_context(running_service(args))
        text = " ".join(f"Sentence number {n} of the text is spoken here." for n in range(80))
        job = (await service.service.create("", SpeechRequest("m", "default"), text)).job
        job = await service.service.wait("", job.id, 60)
        assert (job.state, job.chunks_completed) == (JobState.COMPLETED, 80)
        views = await service.service.chunks("", job.id)
        assert max(len(view.result.attempts) for view in views if view.result) > 2


RELOAD_SECONDS = 0.9
SHORTENED = {"base_ms": 2, "cap_ms": 50, "outage_ms": 1_200}
"""The defaults (200, 5,000 and 120,000 ms) a hundred times as fast; so is a reload of 90 s."""

SHORT_TIMEOUTS = {"base_ms": 50, "per_character_ms": 0, "backend_cap_ms": 50, "margin_ms": 50, "cap_ms": 100}


@pytest.mark.parametrize("while_loading", ["503", "502", "hang", "nobody"])
async def test_a_job_outlasts_a_reload_of_its_only_backend(tmp_path: Path, while_loading: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    args = _args(tmp_path, [f"http://127.0.0.1:{port}"], **SHORTENED)
    args = args.model_copy(update={"timeouts": args.timeouts.model_copy(update=SHORT_TIMEOUTS)})
    async with AsyncExitStack() as stack:
        backend: FakeBackend | None = None
        if while_loading != "nobody":
            backend = await stack.enter_async_context(running_backend(Faults(always=while_loading), port=port))
        service = await stack.enter_async_context(running_service(args))
        text = "This is the first sentence. This is the second one."
        job = (await service.service.create("", SpeechRequest("m", "default"), text)).job
        await asyncio.sleep(RELOAD_SECONDS)
        assert (await service.service.get("", job.id)).state not in TERMINAL
        if backend is None:
            await stack.enter_async_context(running_backend(port=port))
        else:
            backend.set_faults(always=None)
        job = await service.service.wait("", job.id, 30)
        assert (job.state, job.chunks_completed) == (JobState.COMPLETED, 2)
        views = await service.service.chunks("", job.id)
        assert max(len(view.result.attempts) for view in views if view.result) > 3


async def test_a_text_that_hangs_is_given_up_after_its_timeouts_while_others_are_spoken(tmp_path: Path) -> None:
    async with running_backend(Faults(delay_ms=10)) as backend:
        args = _args(tmp_path, [backend.url], base_ms=2, cap_ms=50, outage_ms=60_000)
        args = args.model_copy(update={"timeouts": args.timeouts.model_copy(update=SHORT_TIMEOUTS)})
        async with running_service(args) as service:
            text = "[[fault:hang]] Nobody can say this. " + " ".join(f"Sentence number {n}." for n in range(400))
            request = SpeechRequest("m", "default", on_chunk_failure=OnChunkFailure.SILENCE)
            job = (await service.service.create("", request, text)).job
            await service.service.wait("", job.id, 60)
            result = (await service.service.chunks("", job.id))[0].result
            assert result is not None
            assert [attempt.outcome for attempt in result.attempts] == ["timeout"] * 3


async def test_a_backend_whose_key_has_expired_costs_no_chunk_and_is_left_alone(tmp_path: Path) -> None:
    async with (
        running_backend(Faults(always="401")) as locked,
        running_backend() as well,
        running_service(_args(tmp_path, [locked.url, well.url], base_ms=1, cap_ms=1)) as service,
    ):
        text = " ".join(f"Sentence number {n} of the text." for n in range(60))
        job = (await service.service.create("", SpeechRequest("m", "default"), text)).job
        job = await service.service.wait("", job.id, 30)
        assert (job.state, job.chunks_completed) == (JobState.COMPLETED, 60)
        assert len(locked.calls) < 20
