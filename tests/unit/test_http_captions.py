"""Captions over HTTP, held against the decoded audio of the same job."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from tests.unit.http_service import HttpService, http_service
from tests.unit.job_door.door import BROKEN, RATE_HZ, SLOW, Door, problem, until
from tts_actors.audio import wav_bytes

TEXT = (
    "The lamp is lit.  The sea is calm,\nand nobody sails!\n\n  A new paragraph: 5 < 7 & 9 --> 3. Ok. "
    "Does nobody sail where the water is deep, where the ice is thin, and where the lighthouse is dark?"
)
QUIET = 33
"""16-bit level of -60 dBFS."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with http_service(tmp_path_factory.mktemp("captions"), backend={"speed_range": [0.8, 4]}) as running:
        yield running


@pytest.fixture(scope="module")
def door(service: HttpService) -> Door:
    return Door(service.url)


@pytest.mark.parametrize(
    "sound",
    [
        {},
        {"speed": 2.0},
        {"speed": 0.5},  # stretched: the backend speaks 0.8
        {"speed": 0.7, "loudness": "on", "lexicon": [{"text": "lamp", "say": "very large lantern"}]},
    ],
)
@pytest.mark.parametrize(
    "chunking", [{"mode": "sentence"}, {"mode": "sentence", "max_characters": 40}, {"mode": "character_count"}]
)
def test_captions_are_speech_and_what_is_between_them_is_silence(
    door: Door, chunking: dict[str, object], sound: dict[str, object]
) -> None:
    job = door.finished(TEXT, chunking=chunking, **sound)
    found = door.get(f"/{job['id']}/captions.json").json()
    pcm = np.frombuffer(door.get(f"/{job['id']}/audio?format=pcm").content, "<i2").astype(np.int32)
    entries = found["captions"]
    assert (found["object"], found["status"], found["final"]) == ("audio.speech.captions", "completed", True)
    assert found["audio_seconds"] == pytest.approx(pcm.size / RATE_HZ, abs=1e-4)
    assert [entry["index"] for entry in entries] == list(range(5))
    assert " ".join(entry["text"] for entry in entries).split() == TEXT.split()
    spoken = np.zeros(pcm.size, bool)
    for entry in entries:
        assert entry["text"] == TEXT[entry["char_start"] : entry["char_end"]]
        start, end = round(entry["start"] * RATE_HZ), round(entry["end"] * RATE_HZ)
        assert np.abs(pcm[start:end]).max() > 2_000
        spoken[max(0, start - 3) : end + 3] = True  # times are rounded to a tenth of a millisecond
    assert np.abs(pcm[~spoken]).max(initial=0) <= QUIET
    assert all(first["end"] <= second["start"] for first, second in pairwise(entries))


def test_the_written_formats_agree_with_the_json(door: Door) -> None:
    job = door.finished(TEXT)
    subrip, webvtt = (door.get(f"/{job['id']}/captions.{kind}") for kind in ("srt", "vtt"))
    assert subrip.headers["content-type"] == "application/x-subrip; charset=utf-8"
    assert webvtt.headers["content-type"] == "text/vtt; charset=utf-8"
    assert subrip.text.startswith("1\n00:00:00,000 --> ")
    assert webvtt.text.startswith("WEBVTT\n\n0\n00:00:00.000 --> ")
    assert "A new paragraph: 5 &lt; 7 &amp; 9 --&gt; 3." in webvtt.text
    assert "The sea is calm, and nobody sails!\n" in subrip.text
    assert subrip.text.count(" --> ") == webvtt.text.count(" --> ") == 5
    assert door.get(f"/{job['id']}").json()["links"]["captions"].endswith("/captions.vtt")


def test_a_running_job_has_captions_for_programs_as_far_as_it_is_spoken(door: Door) -> None:
    job_id = door.slow()
    until(lambda: len(door.get(f"/{job_id}/captions.json").json()["captions"]) == 1)
    answer = door.get(f"/{job_id}/captions.json")
    assert answer.headers["retry-after"]
    assert (answer.json()["final"], answer.json()["captions"][0]["text"]) == (False, "The lamp is lit.")
    for kind in ("srt", "vtt"):
        refused = door.get(f"/{job_id}/captions.{kind}")
        problem(refused, 409, "not_ready")
        assert refused.headers["retry-after"]
    door.ask("POST", f"/{job_id}/cancel")
    ended = door.get(f"/{job_id}/captions.json").json()
    assert ended["final"] is True
    assert [entry["state"] for entry in ended["captions"]] == ["spoken", "missing"]
    assert ended["captions"][1]["text"] == SLOW[17:]
    assert door.get(f"/{job_id}/captions.srt").text.count("-->") == 1


def test_captions_of_a_job_with_gaps_fit_the_file_with_silence_in_them(door: Door) -> None:
    job = door.finished(BROKEN, on_chunk_failure="silence")
    entries = door.get(f"/{job['id']}/captions.json").json()["captions"]
    audio = door.get(f"/{job['id']}/audio?format=pcm&gaps=silence").content
    assert [(entry["state"], entry["start"] is None) for entry in entries] == [
        ("spoken", False),
        ("missing", True),
        ("spoken", False),
    ]
    assert entries[2]["end"] == pytest.approx(len(audio) / 2 / RATE_HZ, abs=1e-4)
    pcm = np.abs(np.frombuffer(audio, "<i2").astype(np.int32))
    heard = [pcm[round(e["start"] * RATE_HZ) : round(e["end"] * RATE_HZ)] for e in entries if e["start"] is not None]
    assert all(part.max() > 3_000 for part in heard)
    assert pcm[round(entries[0]["end"] * RATE_HZ) + 3 : round(entries[2]["start"] * RATE_HZ) - 3].max() == 0


@pytest.mark.parametrize("kind", ["srt", "vtt", "json"])
def test_no_captions_of_a_job_that_is_not_there(door: Door, kind: str) -> None:
    problem(door.get(f"/job-nobody/captions.{kind}"), 404, "not_found")
    assert door.get("/job-nobody/captions.txt").status_code == 404


@pytest.mark.parametrize("chunking", [{"mode": "sentence", "max_characters": 40}, {"mode": "none"}])
def test_the_receipt_can_be_checked_against_the_text_and_the_audio(door: Door, chunking: dict[str, object]) -> None:
    job = door.finished(TEXT, chunking=chunking)
    receipt = door.get(f"/{job['id']}/manifest").json()
    pcm = np.frombuffer(door.get(f"/{job['id']}/audio?format=pcm").content, "<i2").astype(np.int16)
    at = 0
    for chunk in receipt["chunks"]:
        clip = pcm[at : at + chunk["audio_samples"]]
        assert hashlib.sha256(wav_bytes(clip)).hexdigest() == chunk["sha256"]
        assert chunk["audio_start_seconds"] == pytest.approx(at / RATE_HZ, abs=1e-4)
        assert chunk["attempts"][-1]["backend"] == chunk["backend"] == "fake"
        at += chunk["audio_samples"] + round(chunk["pause_seconds"] * RATE_HZ)
    assert at == pcm.size
    assert "".join(TEXT[c["char_start"] : c["char_end"]] for c in receipt["chunks"]) == TEXT
    assert (receipt["status"], receipt["coverage"], receipt["gaps"]) == ("completed", 1.0, [])


@pytest.mark.parametrize("policy", ["fail", "silence"])
def test_only_a_receipt_with_every_chunk_says_completed(door: Door, policy: str) -> None:
    job = door.finished(BROKEN, on_chunk_failure=policy)
    receipt = door.get(f"/{job['id']}/manifest").json()
    missing = [chunk for chunk in receipt["chunks"] if chunk["sha256"] is None]
    share = 1 - sum(chunk["characters"] for chunk in missing) / len(BROKEN)
    assert receipt["status"] == job["status"] != "completed"
    assert receipt["coverage"] == pytest.approx(share, abs=1e-6)
    assert [chunk["index"] for chunk in missing] == receipt["gaps"] != []
    assert all(chunk["reason"] for chunk in missing)
