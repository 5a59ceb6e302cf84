"""A drained service takes no new work, keeps what it has accepted, and lets another one go on at once."""

import asyncio
from pathlib import Path

import pytest
import requests

from tests.unit.http_service import HttpService, http_service
from tts_actors.cluster.names import Version
from tts_actors.models import JobRecord, JobState
from tts_actors.testing import Faults

SENTENCES = 40
TEXT = "This is a sentence of the text. " * SENTENCES


def _make(service: HttpService, text: str = TEXT) -> str:
    answer = requests.post(f"{service.url}/v1/audio/speech/jobs", json={"model": "fake-tts", "input": text}, timeout=30)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _job(service: HttpService, job_id: str, wait: int = 0) -> JobRecord:
    link = f"{service.url}/v1/audio/speech/jobs/{job_id}"
    assert requests.get(link, params={"wait": wait}, timeout=90).status_code == 200
    return _do(service, service.parts.service.get("", job_id))  # type: ignore[no-any-return]


def _do(service: HttpService, work):  # type: ignore[no-untyped-def]
    return asyncio.run_coroutine_threadsafe(work, service.loop).result(60)


def _job_under_way(service: HttpService) -> str:
    service.backend.faults = Faults(delay_ms=100)
    job_id = _make(service)
    while _job(service, job_id).chunks_completed < 5:
        pass
    return job_id


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/audio/speech/jobs", {"model": "fake-tts", "input": "Hello."}),
        ("/v1/audio/speech", {"model": "fake-tts", "input": "Hello.", "voice": "default"}),
        ("/v1/audio/speech", {"model": "fake-tts", "input": "Hello there. " * 300, "voice": "default"}),
        ("/api/tts-initiate", {"text": "Hello.", "voiceId": "default", "model": "fake-tts"}),
        ("/api/rawtts", {"text": "Hello.", "voiceId": "default", "model": "fake-tts"}),
    ],
)
def test_every_door_of_a_drained_service_answers_503_and_when_to_come_back(
    tmp_path: Path, route: str, body: dict[str, str]
) -> None:
    with http_service(tmp_path) as service:
        service.parts.directory.draining = True
        answer = requests.post(f"{service.url}{route}", json=body, timeout=30)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
        assert "drained" in answer.text
        assert _do(service, service.parts.service.list_jobs("", limit=10, after=None, state=None)) == []
        service.parts.directory.draining = False
        assert requests.post(f"{service.url}{route}", json=body, timeout=30).status_code in (200, 202)


def test_a_drained_service_still_answers_for_what_it_has(tmp_path: Path) -> None:
    with http_service(tmp_path) as service:
        key = {"Idempotency-Key": "once"}
        body = {"model": "fake-tts", "input": "Hello."}
        made = requests.post(f"{service.url}/v1/audio/speech/jobs", json=body, headers=key, timeout=30).json()
        assert _job(service, made["id"], wait=30).state is JobState.COMPLETED
        service.parts.directory.draining = True
        again = requests.post(f"{service.url}/v1/audio/speech/jobs", json=body, headers=key, timeout=30)
        assert (again.status_code, again.json()["id"]) == (200, made["id"])
        assert requests.get(f"{service.url}{made['links']['audio']}", timeout=30).status_code == 200


def test_a_pause_puts_running_jobs_back_and_a_resume_goes_on_from_their_clips(tmp_path: Path) -> None:
    with http_service(tmp_path) as service:
        job_id = _job_under_way(service)
        _do(service, service.parts.directory.pause(0))
        paused = _job(service, job_id)
        calls = len(service.backend.calls)
        assert paused.state is JobState.IN_PROGRESS
        assert 5 <= paused.chunks_completed < SENTENCES
        assert _do(service, service.parts.directory.figures())["active"] == 0
        due = _do(service, service.parts.store.due_jobs(now_ms=paused.created_at_ms + 60_000, limit=10))
        assert due == [(job_id, JobState.IN_PROGRESS)]
        queued = _make(service, "Later.")
        _do(service, service.parts.directory.sweep())
        assert _job(service, queued).state is JobState.QUEUED
        assert len(service.backend.calls) == calls
        _do(service, service.parts.directory.resume())
        assert _job(service, job_id, wait=60).state is JobState.COMPLETED
        assert _job(service, queued, wait=60).state is JobState.COMPLETED
        running_at_the_pause = 4  # the backend's max_concurrency
        assert len(service.backend.calls) <= SENTENCES + 1 + running_at_the_pause


def test_running_jobs_end_within_the_grace_of_a_pause(tmp_path: Path) -> None:
    with http_service(tmp_path) as service:
        job_id = _job_under_way(service)
        _do(service, service.parts.directory.pause(60))
        assert _job(service, job_id).state is JobState.COMPLETED
        assert len(service.backend.calls) == SENTENCES


def test_a_job_may_be_moved_more_often_than_its_actors_may_die(tmp_path: Path) -> None:
    with http_service(tmp_path, limits={"max_activations": 2}) as service:
        job_id = _job_under_way(service)
        for _ in range(4):
            _do(service, service.parts.directory.pause(0))
            before = _job(service, job_id).chunks_completed
            _do(service, service.parts.directory.resume())
            while _job(service, job_id).chunks_completed <= before:
                pass
        assert _job(service, job_id, wait=60).state is JobState.COMPLETED


def test_a_later_deployment_replaces_the_directory_and_an_earlier_one_uses_it() -> None:
    old, new = Version("0.1-a", 1_000), Version("0.1-b", 2_000)
    assert new.replaces(old)
    assert not old.replaces(new)
    assert not Version("0.1-a", 3_000).replaces(old)  # the same again: nothing to replace
    assert Version("0.1-a", 3_000).replaces(new)  # back to what was before
    assert new.replaces("0.0.9-c")  # a directory of code that knew no versions
