"""SIGTERM to a real service: no new jobs, running ones put back with all they have got done, and gone on with later."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.chaos.stage import Stage, keepers, story, until
from tts_actors.testing import FakeBackendProcess, Faults

SENTENCES, DELAY_MS, CALLS = 120, 1_000, 8
"""Fifteen seconds on the calls at once that the service's configuration allows."""

GRACE_SECONDS = 4.0


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with FakeBackendProcess(Faults(delay_ms=DELAY_MS)) as backend:
        stage = Stage(tmp_path, backend)
        stage.start(grace_seconds=GRACE_SECONDS)
        try:
            yield stage
        finally:
            stage.kill_all()


@pytest.mark.long
def test_a_service_that_is_told_to_end_keeps_what_is_done_and_goes_on_with_it_later(stage: Stage) -> None:
    text = story(0, SENTENCES)
    job_id = stage.create(text)
    until(lambda: stage.rows([job_id])[0].chunks_completed >= 8, "a first round is done")
    stage.tell(signal.SIGTERM)
    until(lambda: not stage.ready(), "the service is drained")
    refused = requests.post(
        f"{stage.url}/v1/audio/speech/jobs", json={"model": "fake-tts", "input": "New."}, timeout=30
    )
    at_the_refusal = stage.rows([job_id])[0].chunks_completed
    assert stage.wait() == 0
    stopped, stored, calls = stage.rows([job_id])[0], stage.clips([job_id]), stage.calls()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert int(refused.headers["Retry-After"]) > 0
    assert [row.id for row in stage.rows()] == [job_id], "what was refused is not there"
    assert stopped.state == "in_progress"
    assert at_the_refusal < stopped.chunks_completed < SENTENCES, "it ran on within the grace"
    untold = len(stored) - stopped.chunks_completed  # stored in the very moment of the end: found again later
    assert 0 <= untold <= CALLS, "all that is stored, but what was on its way, is in the job's row"
    stage.backend.set_faults(delay_ms=0)
    stage.start()
    until(lambda: not stage.rows(), "the job has ended")
    assert stage.rows([job_id])[0].state == "completed"
    assert stage.rows([job_id])[0].promised == stopped.promised
    again = stage.calls()
    for index, keeper in enumerate(keepers(text)):
        assert again[keeper] == 1 if (job_id, index) in stored else again[keeper] <= calls[keeper] + 1
    undisturbed = stage.create(text)
    until(lambda: not stage.rows(), "the undisturbed job has ended")
    assert stage.audio(job_id) == stage.audio(undisturbed)
