"""Pronunciations and loudness through the job door: what backends are asked, and what comes out."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.http_service import HttpService, http_service
from tests.unit.job_door.door import RATE_HZ, Door, formula_ms
from tts_actors.audio import decode_take, tone, wav_bytes
from tts_actors.audio.loudness import TARGET_LUFS, loudness_lufs

TEXT = "Dr. Xu runs nginx. The SQL is old, but nobody minds!"
LEXICON = [{"text": "Xu", "say": "shoo"}, {"text": "nginx", "say": "engine x"}, {"text": "SQL", "say": "sequel"}]
SENTENCES = " ".join(f"This is sentence number {n}." for n in range(12))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with http_service(tmp_path_factory.mktemp("sound")) as running:
        yield running


@pytest.fixture(scope="module")
def door(service: HttpService) -> Door:
    return Door(service.url)


def test_backends_are_asked_for_what_is_to_be_said_and_offsets_stay_the_callers(
    service: HttpService, door: Door
) -> None:
    job = door.finished(TEXT, lexicon=LEXICON)
    asked = {call["text"] for call in service.backend.calls}
    assert {"Dr. shoo runs engine x.", "The sequel is old, but nobody minds!"} <= asked
    chunks = door.get(f"/{job['id']}/chunks").json()["data"]
    assert "".join(TEXT[c["char_start"] : c["char_end"]] for c in chunks) == TEXT
    assert [c["timeout_ms"] for c in chunks] == [formula_ms(c["characters"]) for c in chunks]
    captions = door.get(f"/{job['id']}/captions.json").json()["captions"]
    assert [c["text"] for c in captions] == ["Dr. Xu runs nginx.", "The SQL is old, but nobody minds!"]


def test_a_chunk_holds_its_cap_when_it_is_spoken(service: HttpService, door: Door) -> None:
    entry = {"text": "ox", "say": "a very large animal with horns"}
    text = "ox ox ox ox ox ox ox ox ox."
    job = door.finished(text, lexicon=[entry], chunking={"max_characters": 70})
    spoken = [call["text"] for call in service.backend.calls if "large animal" in call["text"]]
    assert job["chunks"]["total"] == len(spoken) >= 5
    assert max(map(len, spoken)) <= 70
    assert sum(call.count("large animal") for call in spoken) == 9


@pytest.mark.parametrize(
    ("lexicon", "param"),
    [
        ("nginx", "lexicon"),
        ([{"text": "a"}], "lexicon.0.say"),
        ([{"text": "a", "say": "b", "ipa": "c"}], "lexicon.0.ipa"),
        ([{"text": "", "say": "b"}], "lexicon.0.text"),
        ([{"text": "a" * 101, "say": "b"}], "lexicon.0.text"),
        ([{"text": "a", "say": "b" * 201}], "lexicon.0.say"),
        ([{"text": "a", "say": "?!"}], "lexicon.0.say"),
        ([{"text": "a", "say": "b"}, {"text": "a", "say": "c"}], "lexicon.1.text"),
        ([{"text": str(n), "say": "b"} for n in range(501)], "lexicon"),
    ],
)
@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_bad_lexicon_is_refused_by_name_and_nothing_is_stored(
    door: Door, lexicon: Any, param: str, query: str
) -> None:
    before = door.ids("?limit=100")
    answer = door.ask("POST", query, json={"model": "fake-tts", "input": TEXT, "lexicon": lexicon})
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]["param"] == param
    assert door.ids("?limit=100") == before


def test_a_lexicon_belongs_to_what_an_idempotency_key_stands_for(door: Door) -> None:
    assert door.put("said-so", TEXT, lexicon=LEXICON).status_code == 202
    assert door.put("said-so", TEXT, lexicon=LEXICON).status_code == 200
    assert door.put("said-so", TEXT, lexicon=LEXICON[:1]).status_code == 422


@contextmanager
def quiet_backend() -> Iterator[str]:
    """A speech server whose voice is 20 dB quieter than the fake backend's."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
            body = wav_bytes((tone(text) // 10).astype(np.int16))
            self.send_response(200)
            self.send_header("Content-Type", "audio/wav")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def loudness_by_backend(door: Door, **fields: Any) -> dict[str, list[float]]:
    """LUFS of every clip of a job on the two backends."""
    job = door.finished(SENTENCES, **fields)
    found: dict[str, list[float]] = {}
    for chunk in door.get(f"/{job['id']}/manifest").json()["chunks"]:
        audio = door.get(f"/{job['id']}/chunks/{chunk['index']}/audio?format=pcm").content
        clip = np.frombuffer(audio, "<i2")[: chunk["audio_samples"]].astype(np.int16)
        found.setdefault(chunk["backend"], []).append(loudness_lufs(clip) or 0.0)
    return found


def test_voices_of_different_backends_are_equally_loud_unless_asked_not_to(tmp_path: Path) -> None:
    quiet = {"name": "quiet", "protocol": "openai", "model": "fake-tts", "voices": {"default": "tone"}}
    with quiet_backend() as url, http_service(tmp_path, more_backends=[quiet | {"url": url}]) as service:
        door = Door(service.url)
        evened = loudness_by_backend(door)
        assert set(evened) == {"fake", "quiet"}
        levels = [level for clips in evened.values() for level in clips]
        assert levels == pytest.approx([TARGET_LUFS] * 12, abs=0.1)
        plain = loudness_by_backend(door, loudness="off")
        assert min(plain["fake"]) - max(plain["quiet"]) > 15
        shorts = [door.speech(f"This is sentence number {n}.", response_format="wav") for n in range(6)]
        clips = [decode_take(short.content, "audio/wav") for short in shorts]
        assert [loudness_lufs(clip) for clip in clips] == pytest.approx([TARGET_LUFS] * 6, abs=0.1)
        assert not any("x-tts-job-id" in short.headers for short in shorts)


def test_one_backend_alone_is_left_as_it_is_unless_asked_for(service: HttpService, door: Door) -> None:
    auto = loudness_by_backend(door)["fake"]
    assert auto == loudness_by_backend(door, loudness="off")["fake"]
    assert min(auto) > TARGET_LUFS + 3
    assert loudness_by_backend(door, loudness="on")["fake"] == pytest.approx([TARGET_LUFS] * 12, abs=0.1)
    refused = door.create(loudness="loud")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "loudness")


def test_a_recovered_or_repeated_job_gives_the_same_bytes(door: Door) -> None:
    first, second = (door.finished(SENTENCES, loudness="on")["id"] for _ in range(2))
    audio = [door.get(f"/{job_id}/audio?format=wav").content for job_id in (first, second)]
    assert audio[0] == audio[1]
    assert len(audio[0]) > RATE_HZ
