"""OpenAI's door through OpenAI's own SDK, unmodified but for its base URL."""

import asyncio
import base64
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from openai import AsyncOpenAI, OpenAI, Stream

from tests.unit.http_service import HttpService, http_service
from tests.unit.tcp_proxy import Cut
from tts_actors.audio import MEDIA_TYPES, decode_take
from tts_actors.testing import Faults

SHORT = "The lamp is lit."
LONG = "The lamp is lit. The sea is calm tonight! Does nobody sail?"
RAW = openai._legacy_response.HttpxBinaryResponseContent
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


Answer = tuple[bytes, Any]
"""The whole body and the headers."""


def _create(client: OpenAI, **asked: Any) -> Answer:
    answer = client.audio.speech.create(**asked)
    return answer.content, answer.response.headers


def _streamed(client: OpenAI, **asked: Any) -> Answer:
    with client.audio.speech.with_streaming_response.create(**asked) as answer:
        return b"".join(answer.iter_bytes(1_000)), answer.headers


async def _create_async(client: AsyncOpenAI, **asked: Any) -> Answer:
    answer = await client.audio.speech.create(**asked)
    return answer.content, answer.response.headers


async def _streamed_async(client: AsyncOpenAI, **asked: Any) -> Answer:
    async with client.audio.speech.with_streaming_response.create(**asked) as answer:
        return b"".join([block async for block in answer.iter_bytes(1_000)]), answer.headers


WAYS = {"sync": _create, "sync, streamed": _streamed, "async": _create_async, "async, streamed": _streamed_async}
"""The ways in which the SDK asks for speech."""


def ask(way: str, url: str, *, retries: int = 0, timeout: float = 90, **asked: Any) -> Answer:
    """What the SDK gets in one of its ways, with a client of its own."""
    options: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": retries, "timeout": timeout}
    asked = {"model": "tts-1", "voice": "alloy"} | asked

    async def asynchronously(speak: Any) -> Answer:
        async with AsyncOpenAI(**options) as client:
            return await speak(client, **asked)  # type: ignore[no-any-return]

    if way.startswith("async"):
        return asyncio.run(asynchronously(WAYS[way]))
    with OpenAI(**options) as client:
        return WAYS[way](client, **asked)  # type: ignore[operator]


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_the_sdk_gets_every_format_whole(service: HttpService, way: str, fmt: str) -> None:
    body, headers = ask(way, service.url, input=LONG, response_format=fmt)
    assert headers["content-type"] == MEDIA_TYPES[fmt]
    declared = f"{MEDIA_TYPES[fmt]};rate=24000" if fmt == "pcm" else MEDIA_TYPES[fmt]
    assert decode_take(body, declared, raw_rate_hz=24_000).size > 24_000 * len(LONG) / 20


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
    file = client.get(f"/audio/speech/jobs/{job}/audio?format=pcm", cast_to=RAW)
    assert file.content == answer.content


def test_one_chunk_makes_no_job(client: OpenAI, service: HttpService) -> None:
    answer = client.audio.speech.create(model="fake-tts", voice="tone", input=SHORT)
    assert "x-tts-job-id" not in answer.response.headers


@pytest.mark.parametrize("fault", ["503", "drop", "silence", "truncate", "html"])
def test_one_chunk_is_tried_and_judged_as_a_jobs_chunk_is(client: OpenAI, service: HttpService, fault: str) -> None:
    before = len(service.backend.calls)
    text = f"The lamp [[fault:{fault}*1]] is lit."
    answer = client.audio.speech.create(model="fake-tts", voice="tone", input=text, response_format="wav")
    assert np.abs(decode_take(answer.content, "audio/wav").astype(np.int32)).max() > 1_000
    assert "x-tts-job-id" not in answer.response.headers
    assert len(service.backend.calls) - before == 2


def test_one_chunk_that_takes_too_long_is_504_and_not_for_the_sdk_to_repeat(tmp_path: Path) -> None:
    short = {"base_ms": 200, "per_character_ms": 0, "margin_ms": 0}
    with http_service(tmp_path, timeouts=short) as service, pytest.raises(openai.InternalServerError) as caught:
        ask("sync", service.url, retries=2, input="The lamp [[fault:hang]] is lit.")
    assert (caught.value.status_code, caught.value.code) == (504, "backend_error")
    assert caught.value.response.headers["x-should-retry"] == "false"


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


def test_backends_that_nobody_serves_are_503_with_retry_after(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and never listens
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        with http_service(tmp_path, backend={"url": url}) as service:
            for way, text in itertools.product(WAYS, (SHORT, LONG)):
                with pytest.raises(openai.InternalServerError) as caught:
                    ask(way, service.url, input=text)
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


def retries(service: HttpService) -> list[str]:
    """How often the SDK said that it had asked before, request by request."""
    lines = [line for head in service.proxy.heads for line in head.lower().split("\r\n")]
    return [line.rpartition(" ")[2] for line in lines if line.startswith("x-stainless-retry-count:")]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_an_answer_that_breaks_off_midway_is_repeated_by_the_sdk_and_costs_one_synthesis(
    service: HttpService, client: OpenAI, way: str
) -> None:
    text = fresh("The lamp is lit. The sea is [[delay:900]] calm tonight!")
    before, asked = len(service.backend.calls), len(retries(service))
    service.proxy.order(Cut(after_bytes=5_000))  # in the first chunk, while the second is being spoken
    body, headers = ask(way, service.proxy.url, retries=2, input=text, response_format="pcm")
    assert retries(service)[asked:] == ["0", "1"]
    assert len(service.backend.calls) - before == 2
    job = headers["x-tts-job-id"]
    file = client.get(f"/audio/speech/jobs/{job}/audio?format=pcm", cast_to=RAW)
    assert body == file.content


@pytest.mark.parametrize("way", ["sync, streamed", "async, streamed"])
def test_a_stream_that_is_late_is_asked_for_again_and_costs_one_synthesis(
    service: HttpService, client: OpenAI, way: str
) -> None:
    text = fresh("The lamp is [[delay:1500]] lit. The sea is calm tonight!")
    before, asked = len(service.backend.calls), len(retries(service))
    body, headers = ask(way, service.proxy.url, retries=9, timeout=1.0, input=text, response_format="pcm")
    assert retries(service)[asked : asked + 2] == ["0", "1"]
    assert len(service.backend.calls) - before == 2
    job = headers["x-tts-job-id"]
    file = client.get(f"/audio/speech/jobs/{job}/audio?format=pcm", cast_to=RAW)
    assert body == file.content


def test_what_was_delivered_whole_is_heard_again_by_a_repeat_and_spoken_anew_for_a_new_request(tmp_path: Path) -> None:
    repeat = {"x-stainless-retry-count": "1"}  # what the SDK sends if the last bytes were lost on their way
    with http_service(tmp_path, streams={"grace_seconds": 60}) as service:
        first, at = ask("sync", service.url, input=LONG)
        calls = len(service.backend.calls)
        again, after = ask("sync", service.url, input=LONG, extra_headers=repeat)
        assert (again, after["x-tts-job-id"]) == (first, at["x-tts-job-id"])
        assert len(service.backend.calls) == calls
        anew, then = ask("sync", service.url, input=LONG)
        assert then["x-tts-job-id"] != at["x-tts-job-id"]
        assert (anew, len(service.backend.calls)) == (first, 2 * calls)


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
    assert b'"in_progress"' in client.get(f"/audio/speech/jobs/{job}", cast_to=RAW).content
    until(lambda: b'"cancelled"' in client.get(f"/audio/speech/jobs/{job}", cast_to=RAW).content)


def events(client: OpenAI, text: str) -> Iterator[dict[str, Any]]:
    """The events of a speech answer, through the SDK's own decoder."""
    body = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": text, "response_format": "pcm"}
    stream = client.post(
        "/audio/speech", body=body | {"stream_format": "sse"}, cast_to=object, stream=True, stream_cls=Stream[object]
    )
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    for event in stream:
        assert isinstance(event, dict)
        yield event


def test_sse_brings_the_audio_in_pieces_and_then_the_usage(client: OpenAI) -> None:
    for text in (SHORT, fresh()):
        *deltas, done = events(client, text)
        assert {event["type"] for event in deltas} == {"speech.audio.delta"}
        audio = b"".join(base64.b64decode(event["audio"]) for event in deltas)
        assert (
            audio
            == client.audio.speech.create(
                model="gpt-4o-mini-tts", voice="alloy", input=text, response_format="pcm"
            ).content
        )
        usage = done["usage"]
        assert done["type"] == "speech.audio.done"
        assert usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"] > 0


def test_a_failure_midway_of_sse_is_no_end_either(client: OpenAI) -> None:
    heard: list[str] = []
    stream = events(client, fresh("The lamp is lit. The sea [[delay:300]][[fault:400]] is calm."))
    with pytest.raises(Exception, match=r"peer closed connection|incomplete|Connection error"):
        heard.extend(event["type"] for event in stream)
    assert set(heard) == {"speech.audio.delta"}


def test_backends_that_are_down_are_an_error_of_sse_too(service: HttpService, client: OpenAI) -> None:
    service.backend.faults = Faults(always="503")
    with pytest.raises(openai.InternalServerError) as caught:
        next(events(client, fresh()))
    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_models_are_listed_and_found(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["fake-tts"]
    assert client.models.retrieve("fake-tts").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")
