"""The job door: the receipt, cancel, retry, delete and expiry."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.unit.http_service import HttpService
from tests.unit.job_door.door import BROKEN, RATE_HZ, Door, problem, until
from tts_actors.audio import wav_bytes

# -- manifest -------------------------------------------------------------------------------


def test_the_manifest_names_the_stored_clip_by_its_hash(door: Door, done: str, pcm: bytes, directory: Path) -> None:
    stored = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (directory / "clips" / done).rglob("*.wav")}
    manifest = door.get(f"/{done}/manifest").json()
    position = 0
    for chunk in manifest["chunks"]:
        count, pause = (round(chunk[name] * RATE_HZ) for name in ("audio_seconds", "pause_seconds"))
        audio = np.frombuffer(door.get(f"/{done}/chunks/{chunk['index']}/audio?format=pcm").content, "<i2")
        clip = audio[: audio.size - pause]
        assert abs(clip.size - count) <= 2
        assert hashlib.sha256(wav_bytes(clip.astype(np.int16))).hexdigest() == chunk["sha256"]
        assert chunk["sha256"] in stored
        assert abs(chunk["audio_start_seconds"] * RATE_HZ - position) <= 2
        assert not audio[clip.size :].any()
        position += audio.size
    assert position * 2 == len(pcm)


def test_the_manifest_of_a_complete_job_covers_everything(door: Door, done: str) -> None:
    manifest = door.get(f"/{done}/manifest").json()
    assert (manifest["coverage"], manifest["gaps"], manifest["status"]) == (1.0, [], "completed")
    assert [(c["char_start"], c["char_end"]) for c in manifest["chunks"]] == [
        (c["char_start"], c["char_end"]) for c in door.get(f"/{done}/chunks").json()["data"]
    ]
    assert {chunk["backend"] for chunk in manifest["chunks"]} == {"fake"}
    assert all(chunk["attempts"] for chunk in manifest["chunks"])


def test_the_manifest_of_a_job_with_gaps_counts_them(door: Door, gappy: str) -> None:
    manifest = door.get(f"/{gappy}/manifest").json()
    (gap,) = manifest["gaps"]
    missing = manifest["chunks"][gap]
    assert (missing["sha256"], missing["audio_seconds"]) == (None, 0)
    assert manifest["coverage"] == pytest.approx(1 - missing["characters"] / len(BROKEN), abs=1e-6)


# -- control and removal --------------------------------------------------------------------


def test_cancel_stops_a_job_and_can_be_repeated(door: Door, running: str) -> None:
    first, second = door.ask("POST", f"/{running}/cancel"), door.ask("POST", f"/{running}/cancel")
    assert (first.status_code, first.json()["status"]) == (202, "cancelled")
    assert (second.status_code, second.json()["finished_at"]) == (202, first.json()["finished_at"])
    assert door.get(f"/{running}").json()["status"] == "cancelled"
    problem(door.get(f"/{running}/chunks/1/audio"), 410, "chunk_failed")


def test_cancel_leaves_a_finished_job_as_it_is(door: Door, done: str) -> None:
    answer = door.ask("POST", f"/{done}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "completed")
    assert door.get(f"/{done}/audio").status_code == 200


def test_retry_speaks_only_what_failed(door: Door, service: HttpService) -> None:
    text = "This one is fine today. This one says [[fault:400*1]] once."
    job = door.finished(text, on_chunk_failure="silence")
    assert job["status"] == "completed_with_gaps"
    before = len(service.backend.calls)
    answer = door.ask("POST", f"/{job['id']}/retry")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    ended = door.get(f"/{job['id']}?wait=60").json()
    assert (ended["status"], ended["error"], ended["chunks"]["failed"]) == ("completed", None, 0)
    assert ended["orchestrator_timeout_ms"] == job["orchestrator_timeout_ms"]
    assert ["fault" in str(call["text"]) for call in service.backend.calls[before:]] == [True]
    assert door.get(f"/{job['id']}/audio?format=wav").status_code == 200


def test_only_failed_jobs_can_be_retried(door: Door, done: str, running: str) -> None:
    for job_id in (done, running):
        problem(door.ask("POST", f"/{job_id}/retry"), 409, "conflict")


def test_a_deleted_job_is_gone_with_its_audio(door: Door, directory: Path) -> None:
    job_id = door.finished()["id"]
    assert door.get(f"/{job_id}/audio?format=mp3").status_code == 200
    assert (directory / "clips" / job_id).exists()
    gone = door.ask("DELETE", f"/{job_id}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert not (directory / "clips" / job_id).exists() or not list((directory / "clips" / job_id).rglob("*.*"))
    for path in ("", "/audio", "/chunks", "/chunks/0", "/chunks/0/audio", "/manifest"):
        problem(door.get(f"/{job_id}{path}"), 404, "not_found")
    problem(door.ask("DELETE", f"/{job_id}"), 404, "not_found")
    assert job_id not in door.ids("?limit=100")


def test_deleting_a_job_spares_those_whose_ids_begin_alike(door: Door) -> None:
    for job_id in ("alike", "alike-2"):
        door.put(job_id)
        assert door.get(f"/{job_id}?wait=60").json()["status"] == "completed"
    assert door.ask("DELETE", "/alike").status_code == 204
    assert door.get("/alike-2/audio?format=pcm").status_code == 200


def test_deleting_a_running_job_stops_it(door: Door, running: str) -> None:
    assert door.ask("DELETE", f"/{running}").status_code == 204
    problem(door.get(f"/{running}"), 404, "not_found")


def test_an_expired_job_is_gone_for_good_but_not_unknown(door: Door, directory: Path) -> None:
    job_id = door.finished("Short life.", ttl_seconds=1)["id"]
    until(lambda: door.get(f"/{job_id}").status_code != 200)
    for path in ("", "/audio", "/chunks", "/chunks/0", "/chunks/0/audio", "/manifest"):
        problem(door.get(f"/{job_id}{path}"), 410, "expired")
    problem(door.ask("POST", f"/{job_id}/cancel"), 410, "expired")
    problem(door.ask("POST", f"/{job_id}/retry"), 410, "expired")
    assert list((directory / "clips" / job_id).rglob("*.wav")) == []
    assert door.ask("DELETE", f"/{job_id}").status_code == 204
