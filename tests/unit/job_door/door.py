"""The job door as its tests use it: requests, texts with faults, and what errors look like."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests

JOBS = "/v1/audio/speech/jobs"
TEXT = "The lamp is lit. The sea is calm tonight!\n\nA new paragraph. Does nobody sail?"
SLOW = "The lamp is lit. The sea is [[delay:60000]] calm tonight."
BROKEN = "The lamp is lit. The sea is [[fault:400]] calm tonight. Nobody sails."
RATE_HZ = 24_000
ANSWER_SECONDS = 90
MEDIA_TYPES = {
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/ogg",
}


@dataclass(frozen=True)
class Door:
    """The job door of a running service."""

    url: str

    def ask(self, method: str, path: str = "", **options: Any) -> requests.Response:
        return requests.request(method, self.url + JOBS + path, timeout=ANSWER_SECONDS, **options)

    def get(self, path: str = "", **options: Any) -> requests.Response:
        return self.ask("GET", path, **options)

    def create(self, text: str = TEXT, headers: dict[str, str] | None = None, **fields: Any) -> requests.Response:
        body = {"model": "fake-tts", "input": text} | fields
        return self.ask("POST", json=body, headers=headers)

    def speech(self, text: str, **fields: Any) -> requests.Response:
        body = {"model": "fake-tts", "input": text} | fields
        return requests.post(f"{self.url}/v1/audio/speech", json=body, timeout=ANSWER_SECONDS)

    def put(self, job_id: str, text: str = TEXT, **fields: Any) -> requests.Response:
        return self.ask("PUT", f"/{job_id}", json={"model": "fake-tts", "input": text} | fields)

    def finished(self, text: str = TEXT, **fields: Any) -> dict[str, Any]:
        created = self.create(text, **fields)
        assert created.status_code == 202, created.text
        job = dict(self.get(f"/{created.json()['id']}?wait=60").json())
        assert job["finished_at"] is not None, job
        return job

    def slow(self) -> str:
        return str(self.create(SLOW).json()["id"])

    def ids(self, query: str = "") -> list[str]:
        return [job["id"] for job in self.get(query).json()["data"]]


def until(condition: Callable[[], bool]) -> None:
    """Return once ``condition`` holds; the suite's own time limit ends what never does."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.01)


def problem(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    """The error of an answer in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["x-request-id"]
    error = dict(answer.json()["error"])
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    return error


def formula_ms(characters: int) -> int:
    return min(min(5_000 + 35 * characters, 70_000) + 5_000, 75_000)
