"""What the tests of bad input share: requests exactly as written, and what an answer to a wrong one looks like."""

import http.client
import json
from dataclasses import dataclass
from typing import Any

JOBS = "/v1/audio/speech/jobs"
INITIATE = "/api/tts-initiate"
RAW = "/api/rawtts"
SPEECH = "/v1/audio/speech"
SUBMITTED = "zanzibar"
"""Part of every submitted text: no answer may repeat it."""

MAX_CHARACTERS = 500
MAX_BODY_BYTES = 20_000
DONE = "done-before"

CREATING = [
    ("POST", INITIATE),
    ("POST", RAW),
    ("POST", JOBS),
    ("PUT", f"{JOBS}/new-one"),
    ("POST", f"{JOBS}?dry_run=1"),
]
JOB_ROUTES = [
    ("GET", ""),
    ("GET", "?wait=1"),
    ("GET", "/audio"),
    ("HEAD", "/audio"),
    ("GET", "/audio?format=wav&gaps=silence"),
    ("GET", "/chunks"),
    ("GET", "/chunks/0"),
    ("GET", "/chunks/0/audio"),
    ("GET", "/manifest"),
    ("GET", "/events"),
    ("GET", "/captions.srt"),
    ("POST", "/cancel"),
    ("POST", "/retry"),
    ("DELETE", ""),
]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    path: str
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def message(self) -> str:
        """The error's message, after a look at the shape that belongs to the path."""
        document = json.loads(self.body)
        if self.path.startswith("/api/"):
            assert set(document) == {"error", "code"}
            return str(document["error"])
        assert set(document) == {"error"}
        assert set(document["error"]) == {"message", "type", "param", "code"}
        return str(document["error"]["message"])

    @property
    def code(self) -> str:
        document = json.loads(self.body)
        return str(document["code"] if self.path.startswith("/api/") else document["error"]["code"])


def ask(url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
    """One request, exactly as written: no client tidies up the path. Bodies that are not bytes become JSON."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    payload = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.putrequest(method, path)
        if payload is not None:
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(payload)))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders(payload)
        response = connection.getresponse()
        return Answer(path, response.status, response.headers, response.read())
    finally:
        connection.close()


def refused(answer: Answer, status: int, *words: str) -> None:
    """The answer is this error; its message has all ``words`` and none of the caller's text."""
    assert answer.status == status, answer.body[:300]
    assert answer.headers["x-request-id"]
    for word in words:
        assert word in answer.message
    assert SUBMITTED not in answer.body.decode()
    assert len(answer.body) < 2_000


def stored(url: str, headers: dict[str, str] | None = None) -> list[str]:
    return [job["id"] for job in json.loads(ask(url, "GET", f"{JOBS}?limit=100", None, headers).body)["data"]]


def initiate_body(**fields: Any) -> dict[str, Any]:
    return {"text": f"Sail to {SUBMITTED}.", "voiceId": "default", "model": "fake-tts"} | fields


def job_body(**fields: Any) -> dict[str, Any]:
    return {"input": f"Sail to {SUBMITTED}.", "model": "fake-tts"} | fields


def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}
