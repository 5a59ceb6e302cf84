"""OpenAI's door on Ray Serve: the SDK, live audio, events, broken streams."""

import itertools

import openai
import pytest
import requests
from openai import OpenAI

from tests.integration.service import Service
from tests.integration.test_service import _until
from tts_actors.audio import decode_take

_numbers = itertools.count()
LONG = "The lamp is lit. The sea is calm tonight! Does nobody sail?"


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


def test_events_and_live_audio_follow_a_job_to_its_end(service: Service) -> None:
    job = service.create("The lamp is lit. [[delay:700]] The sea is calm.")
    events = requests.get(f"{service.url}{job['links']['events']}", timeout=60).text
    assert events.count("event: chunk") == 2
    assert events.rstrip().splitlines()[-2:][0].startswith("event: status")
    _until(lambda: service.job(job["id"])["status"] == "completed")
    live = requests.get(f"{service.url}{job['links']['audio']}?live=1&format=pcm", timeout=60)
    assert live.content == requests.get(f"{service.url}{job['links']['audio']}?format=pcm", timeout=60).content
