"""OpenAI's door as other clients knock: their very requests, as raw as they send them."""

import io
import wave
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.unit.http_service import HttpService, http_service
from tts_actors.audio import decode_take

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
