"""Serve's HAProxy mode: what ends properly is whole, and what breaks off does not end properly.

HAProxy listens on all interfaces, so all of it, the clients too, is in a network namespace that has only loopback: the
first test runs the others there.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from deployments.keys import HAPROXY_SWITCH
from tests.integration import service as services
from tests.integration.service import ROOT, Service

LOOPBACK_ONLY = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
INSIDE = os.environ.get("IN_LOOPBACK_NAMESPACE") == "1"
inside = pytest.mark.skipif(not INSIDE, reason="test_in_a_namespace_of_its_own runs it")
pytestmark = pytest.mark.long

SECONDS = 420
BROKEN = "The lamp is lit. The sea [[delay:500]][[fault:400]] is calm."
WHOLE = "The lamp is lit. The sea [[delay:500]] is calm."
CUT_OFF = (18, 56)
"""Exit codes of curl: the transfer ended before its end; the connection broke while it was being read."""


def _possible() -> bool:
    if not all(map(shutil.which, ("unshare", "ip"))):
        return False
    return subprocess.run([*LOOPBACK_ONLY, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(INSIDE or not _possible(), reason="no network namespace to be had")
def test_in_a_namespace_of_its_own(tmp_path: Path) -> None:
    command = [*LOOPBACK_ONLY, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "long", "-rs"]
    environment = {**os.environ, HAPROXY_SWITCH: "1", "IN_LOOPBACK_NAMESPACE": "1"}
    ended = subprocess.run(
        [*command, f"--basetemp={tmp_path / 'inside'}", __file__],
        env=environment,
        cwd=ROOT,
        check=False,
        timeout=SECONDS,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-6_000:] + ended.stderr[-2_000:]
    assert f"{6 + (shutil.which('curl') is not None)} passed" in ended.stdout, ended.stdout


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("haproxy")
    with services.running(folder, auth={"allow_open_network": True}) as running:  # there is only loopback
        yield running


def _asked(service: Service, text: str) -> tuple[str, dict[str, Any]]:
    return f"{service.url}/v1/audio/speech", {"model": "fake-tts", "input": text, "response_format": "pcm"}


@inside
def test_it_is_haproxy_that_answers(service: Service) -> None:
    assert service.processes("haproxy")


@inside
def test_a_long_text_is_heard_while_it_is_spoken_and_to_its_end(service: Service) -> None:
    url, body = _asked(service, WHOLE)
    with requests.post(url, json=body, stream=True, timeout=60) as answer:
        blocks = answer.iter_content(1_000)
        first = next(blocks)
        job = answer.headers["x-tts-job-id"]
        assert service.job(job)["status"] == "in_progress"
        heard = first + b"".join(blocks)
    assert service.job(job, wait=60)["status"] == "completed"
    assert heard == requests.get(f"{service.url}/v1/audio/speech/jobs/{job}/audio?format=pcm", timeout=60).content


@inside
def test_a_speech_that_fails_midway_does_not_end_properly(service: Service) -> None:
    url, body = _asked(service, BROKEN)
    answer = requests.post(url, json=body, stream=True, timeout=60)
    assert answer.status_code == 200
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        answer.content  # noqa: B018 - reading it is what fails


@inside
@pytest.mark.parametrize("fmt", ["mp3", "wav"])
def test_live_audio_of_a_job_that_fails_does_not_end_properly(service: Service, fmt: str) -> None:
    job = service.create(BROKEN)
    answer = requests.get(f"{service.url}{job['links']['audio']}?live=1&format={fmt}", stream=True, timeout=60)
    assert answer.status_code == 200
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        answer.content  # noqa: B018 - reading it is what fails
    assert service.job(job["id"])["status"] == "failed"


@inside
def test_a_job_whose_text_did_not_arrive_is_not_made(service: Service) -> None:
    before = requests.get(f"{service.url}/v1/audio/speech/jobs", timeout=30).json()["data"]
    body = b'{"model": "fake-tts", "input": "Half of'
    head = f"POST /v1/audio/speech/jobs HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body) + 9}"
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(head.encode() + b"\r\nContent-Type: application/json\r\n\r\n" + body)
        time.sleep(0.3)
    time.sleep(0.5)
    assert requests.get(f"{service.url}/v1/audio/speech/jobs", timeout=30).json()["data"] == before
    assert service.job(service.create(WHOLE)["id"], wait=60)["status"] == "completed"


@inside
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl_says_that_live_audio_was_cut_off(service: Service, tmp_path: Path) -> None:
    job = service.create(BROKEN)
    heard = tmp_path / "heard"
    url = f"{service.url}{job['links']['audio']}?live=1&format=wav"
    command = ["curl", "-sS", "--max-time", "60", "-o", heard, "-w", "%{http_code}", url]
    ended = subprocess.run(command, capture_output=True, check=False, text=True)
    assert ended.stdout == "200"
    assert ended.returncode in CUT_OFF, ended.stderr
    assert heard.stat().st_size > 1_000, "the first chunk was heard"
