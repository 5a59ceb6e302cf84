"""OpenAI's door on Ray Serve: the SDK, live audio, events, broken streams."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import pytest
import requests
from openai import OpenAI

from tests.integration import service as services
from tests.integration.service import Service, until
from tests.integration.test_service import STORY
from tts_actors.audio import decode_take

_numbers = itertools.count()
LONG = "The lamp is lit. The sea is calm tonight! Does nobody sail?"
PLACES = 8
"""Calls that the fault server may have at once."""

RATE_HZ = 24_000
FRAME = RATE_HZ // 50
AUDIBLE = 32_768 // 178
"""-45 dBFS."""


def client(service: Service) -> OpenAI:
    return OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0, timeout=90)


def test_the_sdk_streams_a_long_text_and_gets_a_short_one(service: Service) -> None:
    with client(service) as sdk:
        for text, has_job in ((LONG, True), ("The lamp is lit.", False)):
            answer = sdk.audio.speech.create(model="fake-tts", voice="tone", input=text)
            assert decode_take(answer.content, "audio/mpeg").size > 12_000
            assert ("x-tts-job-id" in answer.response.headers) is has_job


def test_the_first_words_come_while_the_rest_is_spoken_and_who_leaves_ends_the_listening(service: Service) -> None:
    body = {"model": "fake-tts", "input": "The lamp is lit. [[delay:2500]] The sea is calm.", "response_format": "pcm"}
    with requests.post(f"{service.url}/v1/audio/speech", json=body, stream=True, timeout=60) as answer:
        assert len(next(answer.iter_content(1_000))) == 1_000
        job = answer.headers["x-tts-job-id"]
        assert service.job(job)["status"] == "in_progress"
    again = requests.post(f"{service.url}/v1/audio/speech", json=body, timeout=60)
    assert again.headers["x-tts-job-id"] == job
    file = requests.get(f"{service.url}/v1/audio/speech/jobs/{job}/audio?format=pcm", timeout=30)
    assert again.content == file.content
    assert service.backend.stats()["calls"] == 2


def test_a_failure_midway_never_looks_like_an_end(service: Service) -> None:
    body = {"model": "fake-tts", "input": "The lamp is lit. The sea [[delay:500]][[fault:400]] is calm."}
    with pytest.raises(requests.exceptions.RequestException):
        requests.post(f"{service.url}/v1/audio/speech", json=body, timeout=60)


def test_backends_that_are_down_are_an_error_before_any_audio(service: Service) -> None:
    service.backend.set_faults(always="503")
    for text in (LONG, "The lamp is lit."):
        with client(service) as sdk, pytest.raises(openai.InternalServerError) as caught:
            sdk.audio.speech.create(model="fake-tts", voice="tone", input=text)
        assert caught.value.status_code == 503
        assert caught.value.response.headers["retry-after"]


@pytest.mark.parametrize(
    ("changes", "param", "status"),
    [
        ({"response_format": "ogg"}, "response_format", 400),
        ({"speed": 5}, "speed", 400),
        ({"input": ""}, "input", 400),
        ({"model": None}, "model", 400),
        ({"input": "a" * 1_000_001}, "input", 413),
        ({"voice": "nobody"}, "voice", 404),
    ],
)
def test_what_is_wrong_with_a_request_is_said_before_any_audio(
    service: Service, changes: dict[str, object], param: str, status: int
) -> None:
    asked = {"model": "fake-tts", "voice": "tone", "input": LONG} | changes
    body = {name: value for name, value in asked.items() if value is not None}
    answer = requests.post(f"{service.url}/v1/audio/speech", json=body, timeout=60)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert service.backend.stats()["calls"] == 0


def test_captions_of_the_real_engine_are_speech_and_between_them_is_silence(service: Service) -> None:
    text = STORY[:700]
    job = service.create(text, model="hibari")
    assert service.job(job["id"], wait=60)["status"] == "completed"
    audio = requests.get(f"{service.url}{job['links']['audio']}?format=pcm", timeout=60).content
    levels = np.abs(np.frombuffer(audio, "<i2").astype(np.int32))
    path = f"{service.url}/v1/audio/speech/jobs/{job['id']}/captions.json"
    captions = requests.get(path, timeout=30).json()["captions"]
    assert " ".join(caption["text"] for caption in captions).split() == text.split()
    between = np.ones(levels.size, bool)
    for caption in captions:
        assert caption["text"] == text[caption["char_start"] : caption["char_end"]]
        start, end = (round(caption[name] * RATE_HZ) for name in ("start", "end"))
        frames = levels[start : end - (end - start) % FRAME].reshape(-1, FRAME).max(axis=1)
        assert (frames > AUDIBLE).mean() > 0.5, caption["text"]
        between[max(0, start - 3) : end + 3] = False  # times are rounded to a tenth of a millisecond
    assert between.sum() > 0.1 * len(captions) * RATE_HZ
    assert levels[between].max() == 0


def test_events_and_live_audio_follow_a_job_to_its_end(service: Service) -> None:
    job = service.create("The lamp is lit. [[delay:700]] The sea is calm.")
    events = requests.get(f"{service.url}{job['links']['events']}", timeout=60).text
    assert events.count("event: chunk") == 2
    assert events.rstrip().splitlines()[-2:][0].startswith("event: status")
    until(lambda: service.job(job["id"])["status"] == "completed")
    live = requests.get(f"{service.url}{job['links']['audio']}?live=1&format=pcm", timeout=60)
    assert live.content == requests.get(f"{service.url}{job['links']['audio']}?format=pcm", timeout=60).content


def test_a_door_that_is_killed_leaves_the_first_chunk_to_a_worker(service: Service) -> None:
    body = {"model": "fake-tts", "input": "The lamp [[delay:2500]] is lit. The sea is calm. Nobody sails."}
    with ThreadPoolExecutor(1) as callers:
        answer = callers.submit(requests.post, f"{service.url}/v1/audio/speech", json=body, timeout=60)
        until(lambda: service.backend.stats()["in_flight"] and service.backend.stats()["completed"])
        newest = requests.get(f"{service.url}/v1/audio/speech/jobs?limit=1", timeout=30).json()["data"][0]
        assert newest["status"] == "in_progress"
        (door,) = service.processes("ray::ServeReplica:tts:ingress")
        door.kill()
        with pytest.raises(requests.exceptions.RequestException):
            answer.result().raise_for_status()
    until(lambda: requests.get(f"{service.url}/readyz", timeout=30).status_code == 200)
    job = service.job(newest["id"], wait=60)
    assert job["status"] == "completed"
    assert "door_lost" in service.log
    assert service.backend.stats()["calls"] == job["chunks"]["total"] + 1


@pytest.mark.long
def test_what_a_killed_door_held_is_free_long_before_its_time(tmp_path: Path) -> None:
    patient = {"base_ms": 60_000, "per_character_ms": 1, "backend_cap_ms": 60_000, "margin_ms": 0, "cap_ms": 60_000}
    with services.running(tmp_path, timeouts=patient) as service, ThreadPoolExecutor(PLACES) as callers:
        body = {"model": "fake-tts", "input": "The lamp [[fault:hang]] is lit."}  # no job: the door's call alone
        url = f"{service.url}/v1/audio/speech"
        held = [callers.submit(requests.post, url, json=body, timeout=60) for _ in range(PLACES)]
        until(lambda: service.backend.stats()["in_flight"] == PLACES)
        (door,) = service.processes("ray::ServeReplica:tts:ingress")
        door.kill()
        for answer in held:
            with pytest.raises(requests.exceptions.RequestException):
                answer.result().raise_for_status()
        until(lambda: requests.get(f"{service.url}/readyz", timeout=30).status_code == 200)
        job = service.create("The places are free again.")
        assert service.job(job["id"], wait=30)["status"] == "completed"
