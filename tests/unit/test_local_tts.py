"""The embedded engine: it speaks all of a text or says why not, and speaks OpenAI's protocol. The real voice runs."""

import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from deployments.local_tts import (
    MAX_PHONEMES,
    HibariEngine,
    UnspeakableText,
    _inferences,
    build_engine_api,
    sayable,
)
from tts_actors.audio import MEDIA_TYPES, Pcm, pcm_of_wav
from tts_actors.errors import RequestTooLarge, TtsError

RATE_HZ = 24_000
SENTENCE = "The lamp was lit at dusk."
NO_LIMIT = 24


@pytest.fixture(scope="module")
def engine() -> HibariEngine:
    return HibariEngine(max_characters=1_000)


@pytest.fixture(scope="module")
def client(engine: HibariEngine) -> Iterator[TestClient]:
    with TestClient(build_engine_api(engine), raise_server_exceptions=True) as client:
        yield client


def ask(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/audio/speech", json={"model": "hibari", "voice": "heart", "input": SENTENCE, **fields})


# -- the engine ---------------------------------------------------------------------------------


def test_it_speaks_at_a_plausible_pace_and_is_not_silent(engine: HibariEngine) -> None:
    pcm = engine.speak(SENTENCE)
    assert pcm.dtype == np.int16
    assert 1 < pcm.size / RATE_HZ < 4
    assert np.abs(pcm.astype(int)).max() > 1_000


def test_the_same_text_gives_the_same_bytes_in_another_engine_and_thread(engine: HibariEngine) -> None:
    first = engine.speak(SENTENCE)
    with ThreadPoolExecutor(4) as threads:
        others = list(threads.map(engine.speak, [SENTENCE] * 4))
    others.append(HibariEngine().speak(SENTENCE))
    assert all(np.array_equal(first, other) for other in others)


def test_speed_is_clamped_to_what_the_engine_can(engine: HibariEngine) -> None:
    normal, fast, slow = (engine.speak(SENTENCE, speed).size for speed in (1.0, 2.0, 0.5))
    assert fast < normal < slow
    assert np.array_equal(engine.speak(SENTENCE, 4.0), engine.speak(SENTENCE, 2.0))
    assert np.array_equal(engine.speak(SENTENCE, 0.25), engine.speak(SENTENCE, 0.5))


def test_longer_text_than_the_bound_is_refused_by_the_bound(engine: HibariEngine) -> None:
    with pytest.raises(RequestTooLarge, match="1001 characters; the engine takes at most 1000"):
        engine.speak("a" * 1_001)


@pytest.mark.parametrize("text", ["", " ", "...", "?!", "- --", "😀😀", "\u200b", "\u0301"])
def test_text_without_a_word_is_refused_instead_of_silence(engine: HibariEngine, text: str) -> None:
    with pytest.raises(UnspeakableText, match="no English words or numbers") as refusal:
        engine.speak(text)
    assert refusal.value.param == "input"
    assert not refusal.value.retryable


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello 世界", "Chinese"),
        ("Hello, мир", "Cyrillic"),
        ("שלום friends", "Hebrew"),
        ("مرحبا friends", "Arabic"),
        ("नमस्ते friends", "Devanagari"),
        ("こんにちは friends", "Hiragana"),
        ("안녕 friends", "Hangul"),
        ("a αβγ word", "Greek"),
        ("say /ʊʒʑ/", "phonetic"),
    ],
)
def test_a_script_that_would_be_left_out_is_refused_by_name(engine: HibariEngine, text: str, script: str) -> None:
    with pytest.raises(UnspeakableText, match=f"the text has {script}"):
        engine.speak(text)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Nguyễn Phượng", "Nguyen Phưong"),
        ("cafe\u0301", "caf\u00e9"),
        ("naïve Łódź", "naïve Łódź"),
        ("ｈｅｌｌｏ 𝐇𝐢", "hello Hi"),
        ("٤٢", "42"),
        ("①K", " 1 K"),
        ("⅓ cup", " 1/3  cup"),
        ("α-ray", " alpha -ray"),
        ("[see](/abc/)", "[see] (/abc/)"),
        ("5 €", "€5"),
        ("Hello 😀 world", "Hello 😀 world"),
        ("a" * 50, " ".join(["a" * 17, "a" * 17, "a" * 16])),
        ("9" * 25, " ".join("9" * 25)),
        ("in 2020 $5", "in 2020 $5"),
    ],
)
def test_what_the_engine_would_drop_is_written_so_that_it_speaks_it(
    engine: HibariEngine, text: str, plain: str
) -> None:
    assert sayable(text, engine._alphabet, NO_LIMIT) == plain
    assert engine.speak(text).size


def test_every_latin_letter_that_is_accepted_makes_a_sound(engine: HibariEngine) -> None:
    accepted = 0
    for code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00)):
        letter = chr(code)
        try:
            sounds = "".join(engine._phonemes(f"{letter}{letter}"))
        except UnspeakableText:
            continue
        assert any(map(str.isalpha, sounds)), f"U+{code:04X}"
        accepted += letter.isalpha()
    assert accepted > 500


def test_a_long_sentence_without_commas_runs_in_bounded_pieces() -> None:
    phonemes = "lˈæmp " * 500
    pieces = list(_inferences(phonemes.strip()))
    assert max(map(len, pieces)) <= MAX_PHONEMES
    assert " ".join(pieces) == phonemes.strip()
    assert [len(piece) for piece in _inferences("x" * 1_000)] == [400, 400, 200]


@settings(max_examples=60, deadline=None)
@given(st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("a1,.$²①'-[]() ")), max_size=40))
def test_any_text_is_spoken_or_refused_never_an_accident(engine: HibariEngine, text: str) -> None:
    try:
        samples = engine.speak(text).size
    except TtsError:
        return
    assert samples


# -- HTTP ---------------------------------------------------------------------------------------


def test_wav_is_the_default_and_holds_exactly_what_the_engine_speaks(engine: HibariEngine, client: TestClient) -> None:
    reply = ask(client)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "audio/wav"
    assert np.array_equal(pcm_of_wav(reply.content), engine.speak(SENTENCE))


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
def test_every_format_is_the_whole_speech_under_its_own_type(
    engine: HibariEngine, client: TestClient, fmt: str
) -> None:
    reply = ask(client, response_format=fmt)
    assert reply.headers["content-type"] == MEDIA_TYPES[fmt]
    spoken = engine.speak(SENTENCE).size
    assert abs(samples_of(reply.content, fmt).size - spoken) < 0.12 * RATE_HZ  # MP3 pads by up to 70 ms


def samples_of(data: bytes, fmt: str) -> Pcm:
    if fmt == "pcm":
        return np.frombuffer(data, "<i2")
    samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate_hz == RATE_HZ
    return np.asarray(samples, np.int16)


def test_absent_fields_have_defaults_and_unknown_ones_are_ignored(client: TestClient) -> None:
    plain = client.post("/v1/audio/speech", json={"input": SENTENCE})
    rich = ask(client, voice={"id": "heart"}, stream=True, user="someone", instructions=None)
    assert plain.status_code == rich.status_code == 200
    assert plain.content == rich.content


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"input": ""}, 400, "invalid_request", "input"),
        ({"input": None}, 400, "invalid_request", "input"),
        ({"input": 7}, 400, "invalid_request", "input"),
        ({"input": "你好"}, 400, "unspeakable_text", "input"),
        ({"input": "..."}, 400, "unspeakable_text", "input"),
        ({"input": "a " * 501}, 413, "too_large", "input"),
        ({"input": "a" * 200_000}, 413, "too_large", None),
        ({"speed": 0.2}, 400, "invalid_request", "speed"),
        ({"speed": 4.1}, 400, "invalid_request", "speed"),
        ({"speed": "fast"}, 400, "invalid_request", "speed"),
        ({"response_format": "aac"}, 400, "invalid_request", "response_format"),
        ({"response_format": "exe"}, 400, "invalid_request", "response_format"),
        ({"model": "tts-1"}, 404, "model_not_found", "model"),
        ({"voice": "emma"}, 404, "voice_not_found", "voice"),
        ({"voice": {"id": "emma"}}, 404, "voice_not_found", "voice"),
    ],
)
def test_bad_values_are_refused_in_openais_envelope(
    client: TestClient, fields: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    reply = ask(client, **fields)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"input": "\\ud800"}',
        b'{"input": "a", "speed": NaN}',
        b'{"input": "a", "speed": 1e999}',
        b'{"input": "a", "voice": []}',
    ],
)
def test_a_broken_body_is_a_400(client: TestClient, body: bytes) -> None:
    reply = client.post("/v1/audio/speech", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "invalid_request"


def test_an_unknown_path_and_method_answer_in_the_envelope_too(client: TestClient) -> None:
    assert client.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert client.get("/v1/audio/speech").json()["error"]["code"] == "method_not_allowed"


def test_discovery_names_the_model_and_the_voice(client: TestClient) -> None:
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["hibari"]
    voices = client.get("/v1/audio/voices").json()
    assert voices == {"voices": [{"id": "heart", "name": "Heart", "language": "en-US"}]}
    assert client.get("/health").json() == {"status": "ok"}


class CountingEngine(HibariEngine):
    """An engine that notes how many calls were inside it together."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def speak(self, text: str, speed: float = 1.0) -> Pcm:
        if not hasattr(self, "_lock"):  # the warm-up
            return super().speak(text, speed)
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            return super().speak(text, speed)
        finally:
            with self._lock:
                self.inside -= 1


def test_calls_are_synthesised_one_at_a_time_while_health_answers() -> None:
    engine = CountingEngine()
    with TestClient(build_engine_api(engine)) as client, ThreadPoolExecutor(6) as threads:
        replies = list(threads.map(lambda number: ask(client, input=f"Lamp {number}. " * 20), range(6)))
    assert [reply.status_code for reply in replies] == [200] * 6
    assert engine.most == 1


def test_no_error_repeats_the_text(client: TestClient) -> None:
    for text in ("secret 世界", "secret " * 200):
        assert "secret" not in json.dumps(ask(client, input=text).json())
