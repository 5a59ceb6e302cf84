"""``speed`` through both doors: a backend is asked for what it can do, and its audio is stretched for the rest."""

from collections.abc import Iterator

import numpy as np
import pytest
import requests
from pydantic import ValidationError

from tests.unit.http_service import HttpService, http_service
from tests.unit.job_door.door import ANSWER_SECONDS, RATE_HZ, Door, problem
from tts_actors.audio import decode_take
from tts_actors.config import BackendArgs

TEXT = "The lamp is lit and the sea is calm. Nobody sails tonight, for the ice is thin and the wind is high."
SPEEDS = [0.25, 0.5, 0.8, 1.25, 2.0, 4.0]
SLOWEST, FASTEST = 0.8, 1.5


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with http_service(tmp_path_factory.mktemp("speed"), backend={"speed_range": [SLOWEST, FASTEST]}) as running:
        yield running


@pytest.fixture(scope="module")
def door(service: HttpService) -> Door:
    return Door(service.url)


def spoken_seconds(service: HttpService, text: str, speed: float) -> float:
    body = {"model": "tts-1", "input": text, "voice": "alloy", "response_format": "wav", "speed": speed}
    answer = requests.post(f"{service.url}/v1/audio/speech", json=body, timeout=ANSWER_SECONDS)
    assert answer.status_code == 200, answer.text
    return decode_take(answer.content, "audio/wav").size / RATE_HZ


@pytest.mark.parametrize("text", [TEXT, TEXT[:36]])
@pytest.mark.parametrize("speed", SPEEDS)
def test_the_speech_lasts_as_long_as_its_speed_says(service: HttpService, text: str, speed: float) -> None:
    assert spoken_seconds(service, text, speed) == pytest.approx(spoken_seconds(service, text, 1.0) / speed, rel=0.03)


@pytest.mark.parametrize("speed", SPEEDS)
def test_offsets_and_lengths_are_those_of_the_stretched_audio(door: Door, speed: float) -> None:
    job = door.finished(TEXT, speed=speed)
    pcm = np.frombuffer(door.get(f"/{job['id']}/audio?format=pcm").content, "<i2").astype(np.int32)
    found = door.get(f"/{job['id']}/captions.json").json()
    assert found["audio_seconds"] == pytest.approx(pcm.size / RATE_HZ, abs=1e-4)
    first, second = found["captions"]
    assert second["start"] - first["end"] == pytest.approx(0.3 / speed, abs=1e-3)
    assert second["end"] == pytest.approx(pcm.size / RATE_HZ, abs=1e-4)
    gap = pcm[round(first["end"] * RATE_HZ) + 3 : round(second["start"] * RATE_HZ) - 3]
    assert np.abs(gap).max() == 0


def test_the_backend_is_never_asked_for_more_than_it_can_do(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A backend that was given a speed as well would be twice as fast."""
    ranges = {"speed_range": [1, 1]}
    with http_service(tmp_path_factory.mktemp("fixed"), backend=ranges) as service:
        assert spoken_seconds(service, TEXT, 2.0) == pytest.approx(spoken_seconds(service, TEXT, 1.0) / 2, rel=0.03)


@pytest.mark.parametrize("speed", [5, 0.2, 0, -1])
def test_a_speed_out_of_bounds_is_refused_at_both_doors_before_any_byte(
    service: HttpService, door: Door, speed: float
) -> None:
    body = {"model": "tts-1", "input": TEXT, "voice": "alloy", "speed": speed}
    before = len(service.backend.calls)
    problem(requests.post(f"{service.url}/v1/audio/speech", json=body, timeout=ANSWER_SECONDS), 400, "invalid_request")
    problem(door.create(speed=speed), 400, "invalid_request")
    assert len(service.backend.calls) == before


def test_a_protocol_without_speed_is_stretched_without_being_told() -> None:
    entry = {"name": "a", "url": "http://127.0.0.1:1"}
    assert BackendArgs(protocol="raw_tts", **entry).speeds == (1.0, 1.0)
    assert BackendArgs(protocol="openai", **entry).speeds == (0.25, 4.0)
    for wrong in ([2, 1], [0, 1], [1, 11], [1]):
        with pytest.raises(ValidationError, match="speed_range"):
            BackendArgs.model_validate(entry | {"protocol": "openai", "speed_range": wrong})
