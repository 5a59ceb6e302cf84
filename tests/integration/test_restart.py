"""The service is stopped, or killed with everything it started, and started again on the same data."""

import socket
from collections import Counter
from pathlib import Path

import pytest
import requests

from tests.integration.service import StartFailed, audio, config_with, free_port, kill, start, stop
from tts_actors.testing import FakeBackendProcess, Faults

SENTENCES = 60
STORY = Path(__file__).parents[2] / "examples" / "the_lighthouse_keeper.txt"


def test_a_job_survives_a_kill_of_the_whole_service_and_a_restart(tmp_path: Path) -> None:
    with FakeBackendProcess(Faults(delay_ms=300)) as backend:
        document, port = config_with(backend.url), free_port()
        url = f"http://127.0.0.1:{port}"
        text = "".join(f"This is sentence number {number} of a text. " for number in range(SENTENCES))
        body = {"model": "fake-tts", "input": text}
        process = start(tmp_path, document, port)
        try:
            job = requests.post(f"{url}/v1/audio/speech/jobs", json=body, timeout=30).json()
            link = f"{url}{job['links']['self']}"
            while requests.get(link, timeout=30).json()["chunks"]["completed"] < 8:
                pass
        finally:
            kill(process)
        before = backend.stats()["calls"]
        stored = len(list(tmp_path.rglob(f"{job['id']}/clips/*.wav")))
        process = start(tmp_path, document, port)
        try:
            after = requests.get(link, params={"wait": 60}, timeout=90).json()
            again = requests.get(f"{url}/api/tts-job", params={"jobId": job["id"]}, timeout=30).json()
            times = Counter(call["text"] for call in backend.calls())
            backend.reset_faults()
            undisturbed = requests.post(f"{url}/v1/audio/speech/jobs", json=body, timeout=30).json()
            requests.get(f"{url}{undisturbed['links']['self']}", params={"wait": 60}, timeout=90)
            assert audio(url, job["id"]) == audio(url, undisturbed["id"])
        finally:
            code = stop(process)
        assert after["status"] == "completed"
        assert after["orchestrator_timeout_ms"] == job["orchestrator_timeout_ms"]
        assert again["orchestratorTimeoutMs"] == job["orchestrator_timeout_ms"]
        assert after["job_timeout_ms"] == job["job_timeout_ms"]
        assert before < SENTENCES
        assert stored >= 8
        assert times.total() == before + SENTENCES - stored, "what has a stored clip is not spoken again"
        assert max(times.values()) <= 2
        assert code == 0
        socket.create_server(("127.0.0.1", port)).close()  # the port is free again


def test_a_stop_in_the_middle_of_a_job_on_the_embedded_engine_loses_nothing(tmp_path: Path) -> None:
    document, port = config_with("http://127.0.0.1:1"), free_port()
    url = f"http://127.0.0.1:{port}"
    text = STORY.read_text() * 2
    process = start(tmp_path, document, port)
    try:
        body = {"model": "hibari", "input": text}
        job = requests.post(f"{url}/v1/audio/speech/jobs", json=body, timeout=30).json()
        link = f"{url}{job['links']['self']}"
        while requests.get(link, timeout=30).json()["chunks"]["completed"] < 8:
            pass
    finally:
        assert stop(process) == 0
    process = start(tmp_path, document, port)
    try:
        before = requests.get(link, timeout=30).json()
        after = requests.get(link, params={"wait": 60}, timeout=90).json()
    finally:
        stop(process)
    assert before["chunks"]["completed"] < job["chunks"]["total"]
    assert (after["status"], after["chunks"]["failed"]) == ("completed", 0)


def test_a_typo_in_the_configuration_stops_the_start_and_names_the_field(tmp_path: Path) -> None:
    document = config_with("http://127.0.0.1:1")
    document["applications"][0]["args"]["limits"] = {"max_charcters": 5}
    with pytest.raises(StartFailed, match=r"limits\.max_charcters"):
        start(tmp_path, document, free_port())


def test_a_taken_port_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartFailed, match=f"port {port}"):
            start(tmp_path, config_with("http://127.0.0.1:1"), port)
