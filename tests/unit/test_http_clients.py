"""OpenAI's door as other clients knock: their very requests, as raw as they send them."""

import asyncio
import io
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.unit.http_service import HttpService, http_service
from tts_actors.audio import decode_take
from tts_actors.audio.tone import LETTERS_PER_SECOND
from tts_actors.models import JobRecord

ANSWER_SECONDS = 90
LONG = "The lamp is lit. The sea is calm tonight! Does nobody sail?"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    aliases = {"models": {"kokoro": "fake-tts"}, "voices": {"af_bella": "tone"}}
    with http_service(tmp_path_factory.mktemp("clients"), aliases=aliases) as running:
        yield running


def post(
    service: HttpService, body: dict[str, Any], path: str = "/v1/audio/speech", **headers: str
) -> requests.Response:
    return requests.post(service.url + path, json=body, headers=headers, timeout=ANSWER_SECONDS)


def get(service: HttpService, path: str) -> Any:
    answer = requests.get(service.url + path, timeout=ANSWER_SECONDS)
    assert answer.status_code == 200, answer.text
    return answer.json()


STAINLESS = {"x-stainless-lang": "js", "x-stainless-retry-count": "0", "accept": "application/octet-stream"}
REQUESTS: dict[str, tuple[str, dict[str, str], dict[str, Any], str]] = {
    "open webui": (
        "/v1/audio/speech",
        {"authorization": "Bearer sk-none", "x-openwebui-user-name": "Ann", "x-openwebui-user-role": "admin"},
        {"model": "tts-1", "voice": "alloy"},
        "audio/mpeg",
    ),
    "silly tavern": (
        "/v1/audio/speech",
        {"authorization": "Bearer "},
        {"model": "tts-1", "voice": "shimmer", "response_format": "mp3", "speed": 1},
        "audio/mpeg",
    ),
    "librechat": ("/v1/audio/speech", {"api-key": "none"}, {"model": "tts-1", "backend": "kokoro"}, "audio/mpeg"),
    "livekit": (
        "/v1/audio/speech",
        STAINLESS | {"x-stainless-lang": "python"},
        {"model": "gpt-4o-mini-tts", "voice": "ash", "response_format": "pcm", "speed": 1.0, "instructions": "calm"},
        "audio/pcm",
    ),
    "pipecat": (
        "/v1/audio/speech",
        STAINLESS | {"x-stainless-lang": "python"},
        {"model": "gpt-4o-mini-tts", "voice": "alloy", "response_format": "pcm"},
        "audio/pcm",
    ),
    "home assistant, openai_tts": (
        "/v1/audio/speech",
        {"authorization": "Bearer none"},
        {"model": "tts-1", "voice": "onyx", "response_format": "wav", "speed": 1.0, "instructions": None},
        "audio/wav",
    ),
    "home assistant, wyoming_openai": (
        "/v1/audio/speech",
        STAINLESS | {"x-stainless-lang": "python"},
        {"model": "tts-1", "voice": "tone", "response_format": "wav", "speed": 1.0},
        "audio/wav",
    ),
    "langchain": ("/v1/audio/speech", STAINLESS, {"model": "tts-1", "voice": "alloy"}, "audio/mpeg"),
    "n8n": (
        "/v1/audio/speech",
        {"authorization": "Bearer none", "openai-organization": "none"},
        {"model": "tts-1-hd", "voice": "nova", "response_format": "opus", "speed": 1},
        "audio/ogg",
    ),
    "openreader": (
        "/v1/audio/speech",
        STAINLESS,
        {"model": "kokoro", "voice": "af_bella", "speed": 1.25, "response_format": "mp3"},
        "audio/mpeg",
    ),
    "kokoro's own page": (
        "/v1/audio/speech",
        {},
        {"model": "kokoro", "voice": "af_bella", "stream": True, "lang_code": "a", "return_download_link": False},
        "audio/mpeg",
    ),
    "nextcloud": (
        "/v1/audio/speech",
        {"authorization": "Bearer none"},
        {"model": "tts-1-hd", "voice": "alloy", "response_format": "mp3", "speed": 1},
        "audio/mpeg",
    ),
    "fastgpt": (
        "/v1/audio/speech",
        STAINLESS,
        {"model": "tts-1", "voice": "alloy", "response_format": "mp3", "speed": 1, "user": "u"},
        "audio/mpeg",
    ),
    "epub_to_audiobook": (
        "/v1/audio/speech",
        STAINLESS | {"x-stainless-lang": "python"},
        {
            "model": "gpt-4o-mini-tts",
            "voice": "echo",
            "response_format": "flac",
            "instructions": "slowly",
            "speed": 1.0,
        },
        "audio/flac",
    ),
    "a base URL without /v1": ("/audio/speech", {}, {"model": "tts-1", "voice": {"id": "tone"}}, "audio/mpeg"),
}
"""What each client sends besides ``input``, as its code of 2025 and 2026 does."""


@pytest.mark.parametrize("text", ["Lights are on.", LONG])
@pytest.mark.parametrize("client", REQUESTS)
def test_each_client_gets_all_of_its_text_as_the_type_it_waits_for(
    service: HttpService, client: str, text: str
) -> None:
    path, headers, body, media_type = REQUESTS[client]
    answer = requests.post(service.url + path, json={"input": text} | body, headers=headers, timeout=ANSWER_SECONDS)
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type), answer.text
    assert answer.headers["x-request-id"]
    assert ("x-tts-job-id" in answer.headers) is (text == LONG)
    pcm = decode_take(answer.content, media_type, raw_rate_hz=24_000 if media_type == "audio/pcm" else None)
    letters = sum(map(str.isalnum, text))
    assert pcm.size / 24_000 > 0.95 * letters / LETTERS_PER_SECOND / (body.get("speed") or 1)


@pytest.mark.parametrize("client", REQUESTS)
def test_each_client_gets_an_error_that_it_can_show(service: HttpService, client: str) -> None:
    path, headers, body, _ = REQUESTS[client]
    answer = requests.post(service.url + path, json={"input": ""} | body, headers=headers, timeout=ANSWER_SECONDS)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "input" in error["message"]


def test_silly_tavern_sends_a_voice_typed_by_hand_and_a_speed(service: HttpService) -> None:
    body = {"model": "tts-1", "input": LONG, "voice": "shimmer", "response_format": "mp3", "speed": 1}
    answer = post(service, body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")


def test_libre_chat_sends_no_voice_and_a_backend_and_joins_mp3_bytes(service: HttpService) -> None:
    pieces = [post(service, {"input": text, "model": "tts-1", "backend": "x"}) for text in (LONG, "The end is near.")]
    assert [piece.status_code for piece in pieces] == [200, 200]
    both = decode_take(pieces[0].content + pieces[1].content, "audio/mpeg").size
    assert both > 0.95 * sum(decode_take(piece.content, "audio/mpeg").size for piece in pieces)


def test_open_webui_finds_models_and_voices_and_speaks(service: HttpService) -> None:
    assert get(service, "/v1/audio/models")["models"][0]["id"] == "fake-tts"
    voices = get(service, "/v1/audio/voices")["voices"]
    assert all(voice["id"] and voice["name"] for voice in voices)
    answer = post(service, {"model": "tts-1", "input": "Hello there, reader.", "voice": voices[0]["id"]})
    assert answer.status_code == 200
    assert post(service, {"model": "nobody", "input": "Hello."}).json()["error"]["message"]


def test_home_assistant_asks_for_wav(service: HttpService) -> None:
    body = {"model": "tts-1", "voice": "alloy", "input": "Lights are on.", "response_format": "wav", "speed": 1.0}
    with wave.open(io.BytesIO(post(service, body).content)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
    streamed = post(service, body | {"input": LONG}).content
    assert streamed[4:8] == streamed[40:44] == b"\xff\xff\xff\xff"


def test_livekit_reads_raw_pcm_of_24_khz(service: HttpService) -> None:
    body = {"model": "gpt-4o-mini-tts", "voice": "ash", "input": LONG, "response_format": "pcm", "instructions": "calm"}
    answer = post(service, body)
    assert answer.headers["content-type"] == "audio/pcm"
    assert len(answer.content) % 2 == 0


def test_a_voice_may_be_an_object_and_unknown_fields_are_ignored(service: HttpService) -> None:
    body = {"model": "tts-1", "input": "Hello there.", "voice": {"id": "tone"}, "seed": 1, "user": "u", "stream": True}
    assert post(service, body | {"lang_code": "a", "extra": {"deep": [1]}}).status_code == 200


def test_the_door_opens_without_v1_too(service: HttpService) -> None:
    assert post(service, {"model": "tts-1", "input": "Hello there."}, "/audio/speech").status_code == 200
    assert get(service, "/models") == get(service, "/v1/models")
    assert get(service, "/audio/voices") == get(service, "/v1/audio/voices")


def test_aliases_stand_for_models_and_voices(service: HttpService) -> None:
    body = {"model": "kokoro", "input": "Hello there.", "voice": "af_bella"}
    assert post(service, body).status_code == 200
    assert get(service, "/v1/models/kokoro")["object"] == "model"


def test_legacy_voices_are_a_list_of_strings(service: HttpService) -> None:
    assert get(service, "/v1/audio/voices?legacy=true&model=fake-tts")["voices"] == ["default", "tone"]
    answer = requests.get(service.url + "/v1/audio/voices?model=nobody", timeout=ANSWER_SECONDS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/v1/readyz", "/v1/test"])
def test_what_would_make_wyoming_take_us_for_another_is_not_there(service: HttpService, path: str) -> None:
    assert requests.get(service.url + path, timeout=ANSWER_SECONDS).status_code == 404


def test_what_is_missing_is_named_in_openais_envelope(service: HttpService) -> None:
    answer = post(service, {"input": "Hello there."})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["type"]) == ("model", "invalid_request_error")


def test_a_repeat_that_comes_as_the_grace_time_ends_hears_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "The lamp is lit. The sea is [[delay:3000]] calm tonight!"
    body = {"model": "tts-1", "voice": "alloy", "input": text, "response_format": "pcm"}
    with http_service(tmp_path, streams={"grace_seconds": 1.0}) as service:
        url, jobs = f"{service.url}/v1/audio/speech", service.parts.service
        with requests.post(url, json=body, stream=True, timeout=60) as left:
            next(left.iter_content(1_000))  # and goes
        look = jobs.get

        async def look_long(tenant: str, job_id: str) -> JobRecord:
            """The job as it was before the grace time ended."""
            monkeypatch.setattr(jobs, "get", look)  # only this once
            job = await look(tenant, job_id)
            await asyncio.sleep(2.0)
            return job

        monkeypatch.setattr(jobs, "get", look_long)
        again = requests.post(url, json=body, headers={"x-stainless-retry-count": "1"}, timeout=60)
        assert (again.status_code, again.headers["x-tts-job-id"]) == (200, left.headers["x-tts-job-id"])
        assert len(service.backend.calls) == 2
