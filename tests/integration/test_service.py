"""The whole service on Ray Serve, from the YAML that users run, over real sockets."""

import io
import re
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile

from tests.integration.service import Service, until
from tts_actors.client import TtsClient
from tts_actors.timeouts import TimeoutPolicy

STORY = (Path(__file__).parents[2] / "examples" / "the_lighthouse_keeper.txt").read_text()
TEST_POLICY = TimeoutPolicy(base_ms=3_000, per_character_ms=1, backend_cap_ms=4_000, margin_ms=0, cap_ms=4_000)


def test_a_story_becomes_one_file_in_every_format(service: Service, tmp_path: Path) -> None:
    text = STORY[:2_500]
    client = TtsClient(service.url)
    job = client.wait(client.create(text, model="hibari").id, 120)
    assert job.status == "completed"
    manifest = client.manifest(job.id)
    assert manifest["coverage"] == 1.0
    parts = sum(chunk["audio_seconds"] + chunk["pause_seconds"] for chunk in manifest["chunks"])
    spans = [(chunk["char_start"], chunk["char_end"]) for chunk in manifest["chunks"]]
    assert "".join(text[start:end] for start, end in spans) == text
    for fmt, slack_seconds in (("wav", 0.02), ("flac", 0.02), ("opus", 0.02), ("mp3", 0.1)):
        path = tmp_path / f"story.{fmt}"
        client.download(job.id, path, format=fmt)
        samples, rate = soundfile.read(path)
        assert len(samples) / rate == pytest.approx(parts, abs=slack_seconds), fmt
    samples, rate = soundfile.read(tmp_path / "story.wav")
    assert _longest_gap_seconds(samples, rate, manifest) <= 1.2
    assert _largest_jump_at_seams(samples, rate, manifest) < 0.02


def _longest_gap_seconds(samples: "np.ndarray[tuple[int], np.dtype[np.float64]]", rate: int, manifest: dict) -> float:
    """The longest run of quiet inside a paragraph: between the starts of paragraphs, their own pauses left out."""
    longest, begin = 0.0, 0.0
    for chunk in manifest["chunks"]:
        end = chunk["audio_start_seconds"] + chunk["audio_seconds"]
        if chunk["boundary"] in ("paragraph", "end"):
            loud = np.abs(samples[round(begin * rate) : round(end * rate)]) > 10 ** (-45 / 20)
            edges = np.flatnonzero(np.concatenate(([True], loud, [True])))
            longest = max(longest, float(np.diff(edges).max() - 1) / rate)
            begin = end + chunk["pause_seconds"]
    return longest


def _largest_jump_at_seams(samples: "np.ndarray[tuple[int], np.dtype[np.float64]]", rate: int, manifest: dict) -> float:
    """The largest difference of neighbouring samples within 2 ms of a seam; full scale is 1."""
    seams = [chunk["audio_start_seconds"] for chunk in manifest["chunks"][1:]]
    seams += [chunk["audio_start_seconds"] + chunk["audio_seconds"] for chunk in manifest["chunks"]]
    span = rate // 500
    return max(
        float(np.abs(np.diff(samples[max(0, round(s * rate) - span) : round(s * rate) + span])).max()) for s in seams
    )


@pytest.mark.parametrize("text", ["你好世界。今天天气很好。", "🎉🎉🎉"])
def test_what_the_engine_cannot_speak_is_a_clear_error_on_the_chunk(service: Service, text: str) -> None:
    job = service.create(text, model="hibari")
    job = service.job(job["id"], wait=30)
    assert job["status"] == "failed"
    assert "cannot speak" in job["error"]["message"]


def test_the_originals_door_answers_before_synthesis_and_keeps_its_promise(service: Service) -> None:
    body = {"text": "First. [[delay:1500]] Second one is slow.", "voiceId": "default", "model": "fake-tts"}
    answer = requests.post(f"{service.url}/api/tts-initiate", json=body, timeout=30).json()
    assert answer["orchestratorTimeoutMs"] == max(map(TEST_POLICY.timeout_ms, answer["chunkLengths"]))
    job = requests.get(f"{service.url}/api/tts-job", params={"jobId": answer["jobId"]}, timeout=30).json()
    assert job["status"] == "processing"
    assert job["orchestratorTimeoutMs"] == answer["orchestratorTimeoutMs"]
    assert service.job(answer["jobId"], wait=30)["status"] == "completed"
    waited = requests.post(
        f"{service.url}/api/tts-initiate", json=body, headers={"Prefer": "wait=20"}, timeout=60
    ).json()
    chunk = requests.get(f"{service.url}/api/tts-chunk", params={"jobId": waited["jobId"], "chunkIndex": 0}, timeout=30)
    assert chunk.status_code == 200
    assert chunk.json()["timeoutMs"] == TEST_POLICY.timeout_ms(waited["chunkLengths"][0])


def test_calls_at_once_stay_within_the_limit_over_all_jobs(service: Service) -> None:
    service.backend.set_faults(delay_ms=50)
    jobs = [service.create("This is a sentence of a text. " * 20) for _ in range(6)]
    assert {service.job(job["id"], wait=60)["status"] for job in jobs} == {"completed"}
    assert service.backend.stats()["max_in_flight"] <= 8
    assert service.backend.stats()["calls"] == 120


def test_a_hanging_backend_ends_within_the_jobs_own_bound(service: Service) -> None:
    service.backend.set_faults(always="hang")
    started = time.monotonic()
    job = service.create("Nobody will ever say this.")
    job = service.job(job["id"], wait=60)
    assert job["status"] == "failed"
    assert time.monotonic() - started <= job["job_timeout_ms"] / 1_000
    chunks = requests.get(f"{service.url}{job['links']['chunks']}", timeout=30).json()["data"]
    assert [attempt["outcome"] for attempt in chunks[0]["attempts"]] == ["timeout", "timeout"]
    assert chunks[0]["timeout_ms"] == job["orchestrator_timeout_ms"]


def test_cancel_stops_calls_within_a_second_and_closes_their_sockets(service: Service) -> None:
    service.backend.set_faults(always="hang")
    job = service.create("This is a sentence of a text. " * 20)
    until(lambda: service.backend.stats()["in_flight"] == 8)
    answer = requests.post(f"{service.url}{job['links']['cancel']}", timeout=30)
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    until(lambda: service.backend.stats()["in_flight"] == 0, seconds=1)
    assert service.backend.stats()["calls"] == 8
    service.backend.reset_faults()
    after = service.create("The leases are free again.")
    assert service.job(after["id"], wait=20)["status"] == "completed"


def test_a_cancelled_job_that_waits_for_its_first_call_makes_none(service: Service) -> None:
    """Its first chunk is the door's, which hears of the cancel half a second later at most."""
    service.backend.set_faults(always="hang")
    many = service.create("This is a sentence of a text. " * 20)
    until(lambda: service.backend.stats()["in_flight"] == 8)
    waits = service.create("It is said by nobody.")
    time.sleep(0.2)  # the door asks for it 25 ms after the answer
    for job in (waits, many):
        assert requests.post(f"{service.url}{job['links']['cancel']}", timeout=30).status_code == 202
    time.sleep(0.7)
    assert (service.backend.stats()["calls"], service.backend.stats()["in_flight"]) == (8, 0)


def test_what_a_deleted_job_held_is_there_for_the_next_at_once(service: Service) -> None:
    """Its worker is killed with its actor, mostly before it has given its leases back: those would be lost for long."""
    service.backend.set_faults(delay_ms=5)

    def is_running(job_id: str) -> bool:
        return bool(service.job(job_id)["status"] == "in_progress")

    for number in range(2):
        job = service.create(f"Round {number}. " + "This is a sentence of a text. " * 300)
        until(partial(is_running, job["id"]))
        time.sleep(0.1 * number)  # to hit it in one place and another
        answer = requests.delete(f"{service.url}{job['links']['self']}", timeout=30)
        assert answer.status_code == 204, answer.text
        after = service.create("The leases are free again.")
        assert service.job(after["id"], wait=8)["status"] == "completed"


def test_scipy_is_in_the_http_replica_and_not_in_what_never_measures_loudness(service: Service) -> None:
    """Two backends, so the replica evens short texts: it has loaded that before the first of them."""

    def loaded(title: str) -> list[bool]:
        maps = [Path(f"/proc/{process.pid}/maps") for process in service.processes(title)]
        return ["/scipy/" in each.read_text() for each in maps]

    until(lambda: loaded("ServeReplica:tts:ingress") == [True])
    for title in ("PoolActor", "DirectoryActor", "JobActor", "ProxyActor"):
        assert loaded(title)
        assert not any(loaded(title)), title


def test_a_deleted_job_is_gone_with_its_clips(service: Service) -> None:
    job = service.create("Soon gone.")
    assert service.job(job["id"], wait=20)["status"] == "completed"
    assert list((service.folder / "clips" / job["id"]).rglob("*.wav"))
    assert requests.delete(f"{service.url}{job['links']['self']}", timeout=30).status_code == 204
    assert requests.get(f"{service.url}{job['links']['self']}", timeout=30).status_code == 404
    assert not [path for path in (service.folder / "clips" / job["id"]).rglob("*") if path.is_file()]


def test_health_readiness_and_the_api_description_answer(service: Service) -> None:
    assert requests.get(f"{service.url}/health", timeout=30).json()["status"] == "ok"
    ready = requests.get(f"{service.url}/readyz", timeout=30)
    assert (ready.status_code, set(ready.json()["checks"].values())) == (200, {"ok"})
    assert ready.json()["details"] == {"unattended_jobs": 0}
    assert "/api/tts-initiate" in requests.get(f"{service.url}/openapi.json", timeout=30).json()["paths"]
    assert requests.get(f"{service.url}/docs", timeout=30).status_code == 200
    answer = requests.get(f"{service.url}/health", headers={"x-request-id": "mine"}, timeout=30)
    assert answer.headers["x-request-id"] == "mine"


def test_a_client_cannot_steer_serve_with_its_own_headers(service: Service) -> None:
    headers = {"x-request-timeout-seconds": "0.001", "x-request-disconnect-disabled": "?1"}
    body = {"text": "One sentence.", "voiceId": "default", "model": "fake-tts"}
    answer = requests.post(
        f"{service.url}/api/tts-initiate", json=body, headers=headers | {"Prefer": "wait=10"}, timeout=60
    )
    assert answer.status_code == 200


def test_a_request_id_that_is_no_text_is_not_a_server_error(service: Service) -> None:
    answer = requests.get(f"{service.url}/health", headers={"x-request-id": b"m\xfcll"}, timeout=30)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"].isascii()


def test_the_spoken_file_starts_and_ends_without_a_click(service: Service) -> None:
    job = service.create("A short one.")
    service.job(job["id"], wait=20)
    body = requests.get(f"{service.url}{job['links']['audio']}?format=wav", timeout=30).content
    samples, _ = soundfile.read(io.BytesIO(body))
    assert abs(samples[0]) < 0.001
    assert abs(samples[-1]) < 0.001


def test_logs_carry_ids_and_never_the_text(service: Service) -> None:
    job = service.create("Pineapple marmalade is a secret recipe.")
    service.job(job["id"], wait=20)
    until(lambda: job["id"] in service.log)
    assert not re.search("pineapple|marmalade", service.log, re.IGNORECASE)
