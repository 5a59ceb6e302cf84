"""OpenAI's door through OpenAI's own SDK, unmodified but for its base URL."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.unit.http_service import HttpService, http_service
from tts_actors.audio import MEDIA_TYPES, decode_take
from tts_actors.testing import Faults

SHORT = "The lamp is lit."
LONG = "The lamp is lit. The sea is calm tonight! Does nobody sail?"
_numbers = itertools.count()


def fresh(text: str = LONG) -> str:
    """A text that no other test has sent."""
    return f"{text} This is number {next(_numbers)}."


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with http_service(tmp_path_factory.mktemp("sdk"), streams={"grace_seconds": 1.5}) as running:
        yield running


@pytest.fixture(autouse=True)
def _healthy(service: HttpService) -> Iterator[None]:
    yield
    service.backend.faults = Faults()


@pytest.fixture
def client(service: HttpService) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0, timeout=90) as client:
        yield client


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up, "the condition did not come true"
        time.sleep(0.01)  # the condition lies in another thread


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
@pytest.mark.parametrize("text", [SHORT, LONG])
def test_every_format_decodes_to_speech(client: OpenAI, fmt: str, text: str) -> None:
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input=text, response_format=fmt)  # type: ignore[arg-type]
    assert answer.response.headers["content-type"] == MEDIA_TYPES[fmt]
    declared = f"{MEDIA_TYPES[fmt]};rate=24000" if fmt == "pcm" else MEDIA_TYPES[fmt]
    assert decode_take(answer.content, declared, raw_rate_hz=24_000).size > 24_000 * len(text) / 40


def test_mp3_is_the_default_and_a_stream_goes_to_a_file(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "speech.mp3"
    with client.audio.speech.with_streaming_response.create(model="tts-1", voice="nova", input=fresh()) as answer:
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["x-tts-job-id"].startswith("job-")
        assert int(answer.headers["x-tts-orchestrator-timeout-ms"]) > 10_000
        answer.stream_to_file(path)
    data = path.read_bytes()
    assert data[0] == 0xFF
    assert b"Xing" not in data
    assert decode_take(data, "audio/mpeg").size > 24_000


async def test_the_async_client_works_too(service: HttpService) -> None:
    async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        text = fresh()
        answers = await asyncio.gather(
            *(client.audio.speech.create(model="tts-1", voice="alloy", input=text) for _ in range(3))
        )
        async with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input=SHORT) as one:
            assert len(b"".join([block async for block in one.iter_bytes()])) > 1_000
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.response.headers["x-tts-job-id"] for answer in answers}) == 1


def test_two_clients_of_one_text_cost_one_synthesis(service: HttpService, client: OpenAI) -> None:
    before = len(service.backend.calls)
    text = fresh("The lamp is lit. The sea is [[delay:800]] calm tonight!")
    with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input=text) as first:
        second = client.audio.speech.create(model="tts-1", voice="alloy", input=text, response_format="wav")
        assert decode_take(second.content, "audio/wav").size > 24_000
        assert second.response.headers["x-tts-job-id"] == first.headers["x-tts-job-id"]
        first.read()
    assert len(service.backend.calls) - before == 2


def test_the_decoded_stream_is_the_finished_file(service: HttpService, client: OpenAI) -> None:
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input=fresh(), response_format="pcm")
    job = answer.response.headers["x-tts-job-id"]
    file = client.get(
        f"/audio/speech/jobs/{job}/audio?format=pcm", cast_to=openai._legacy_response.HttpxBinaryResponseContent
    )
    assert file.content == answer.content


def test_one_chunk_makes_no_job(client: OpenAI, service: HttpService) -> None:
    answer = client.audio.speech.create(model="fake-tts", voice="tone", input=SHORT)
    assert "x-tts-job-id" not in answer.response.headers


@pytest.mark.parametrize(
    ("changes", "param", "status"),
    [
        ({"response_format": "ogg"}, "response_format", 400),
        ({"response_format": "aac"}, "response_format", 400),
        ({"speed": 5}, "speed", 400),
        ({"input": ""}, "input", 400),
        ({"input": "   "}, "input", 400),
        ({"model": ""}, "model", 400),
        ({"model": "nobody"}, "model", 404),
        ({"voice": "nobody"}, "voice", 404),
        ({"input": "a" * 1_000_001}, "input", 413),
        ({"stream_format": "video"}, "stream_format", 400),
    ],
)
def test_bad_input_is_an_error_of_the_sdk_before_any_audio(
    client: OpenAI, changes: dict[str, object], param: str, status: int
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.audio.speech.create(**{"model": "tts-1", "voice": "alloy", "input": SHORT} | changes)  # type: ignore[arg-type]
    assert caught.value.status_code == status
    assert caught.value.param == param
    assert caught.value.code
    assert caught.value.request_id


@pytest.mark.parametrize("text", [SHORT, LONG])
@pytest.mark.parametrize("fault", ["503", "drop"])
def test_all_backends_down_is_503_with_retry_after(service: HttpService, client: OpenAI, text: str, fault: str) -> None:
    service.backend.faults = Faults(always=fault)
    with pytest.raises(openai.InternalServerError) as caught:
        client.audio.speech.create(model="tts-1", voice="alloy", input=fresh(text))
    assert (caught.value.status_code, caught.value.code) == (503, "backends_unavailable")
    assert int(caught.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("text", [SHORT, LONG])
def test_what_failed_for_good_is_not_tried_again_by_the_sdk(service: HttpService, client: OpenAI, text: str) -> None:
    service.backend.faults = Faults(always="400")
    before = len(service.backend.calls)
    with pytest.raises(openai.InternalServerError) as caught:
        client.with_options(max_retries=2).audio.speech.create(model="tts-1", voice="alloy", input=f"[[]] {text}")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(service.backend.calls) - before <= 4


def test_the_sdks_own_repeat_hears_the_same_job_with_what_it_has(service: HttpService) -> None:
    text = fresh("The lamp is lit. The sea is [[delay:700]] calm tonight!")
    before = len(service.backend.calls)
    service.proxy.order(b"HTTP/1.1 503 Busy\r\nretry-after-ms: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    with OpenAI(base_url=f"{service.proxy.url}/v1", api_key="none", max_retries=2, timeout=90) as client:
        answer = client.audio.speech.create(model="tts-1", voice="alloy", input=text)
    assert "x-stainless-retry-count: 1" in service.proxy.heads[-1].lower()
    assert decode_take(answer.content, "audio/mpeg").size > 24_000
    assert len(service.backend.calls) - before == 2


def test_a_failure_midway_is_no_end_for_the_sdk(client: OpenAI) -> None:
    with (
        client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input=fresh("The lamp is lit. The sea [[delay:300]][[fault:400]] is calm.")
        ) as answer,
        pytest.raises(Exception, match=r"peer closed connection|incomplete"),
    ):
        answer.read()


def test_who_leaves_and_comes_back_hears_the_same_job_from_its_start(service: HttpService, client: OpenAI) -> None:
    text = fresh("The lamp is lit. The sea is [[delay:1200]] calm tonight!")
    before = len(service.backend.calls)
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=text, response_format="pcm"
    ) as left:
        head = next(left.iter_bytes(100))
        job = left.headers["x-tts-job-id"]
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input=text, response_format="pcm")
    assert answer.response.headers["x-tts-job-id"] == job
    assert answer.content.startswith(head)
    assert len(service.backend.calls) - before == 2


def test_a_job_that_nobody_hears_any_more_is_cancelled_after_the_grace(service: HttpService, client: OpenAI) -> None:
    text = fresh("The lamp is lit. The sea is [[delay:60000]] calm tonight!")
    with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input=text) as left:
        next(left.iter_bytes(100))
        job = left.headers["x-tts-job-id"]
    jobs = openai._legacy_response.HttpxBinaryResponseContent
    assert b'"in_progress"' in client.get(f"/audio/speech/jobs/{job}", cast_to=jobs).content
    until(lambda: b'"cancelled"' in client.get(f"/audio/speech/jobs/{job}", cast_to=jobs).content)


def test_sse_brings_the_audio_in_pieces_and_then_the_usage(client: OpenAI) -> None:
    import base64
    import json

    for text in (SHORT, fresh()):
        with client.audio.speech.with_streaming_response.create(
            model="gpt-4o-mini-tts", voice="alloy", input=text, stream_format="sse", response_format="pcm"
        ) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
        assert [event["type"] for event in events[:-1]] == ["speech.audio.delta"] * (len(events) - 1)
        assert len(b"".join(base64.b64decode(event["audio"]) for event in events[:-1])) > 24_000
        usage = events[-1]["usage"]
        assert events[-1]["type"] == "speech.audio.done"
        assert usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"]


def test_models_are_listed_and_found(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["fake-tts"]
    assert client.models.retrieve("fake-tts").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")
