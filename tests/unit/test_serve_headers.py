"""Serve's own control headers: a client's are dropped, and ours tell it which requests need not be watched."""

import warnings

import pytest
from starlette.types import Message, Receive, Scope, Send

from deployments.window import TakenReported

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Serve's own use of pydantic
    from deployments.proxy import ControlHeaders, proxy_middlewares

SENT = [(b"Host", b"here"), (b"X-Request-Timeout-Seconds", b"1"), (b"x-request-disconnect-disabled", b"?1")]
JOBS = "/v1/audio/speech/jobs"
OURS = (b"x-request-disconnect-disabled", b"?1")


async def _passed_on(path: str, *, query: bytes = b"", unwatched: bool = True) -> list[tuple[bytes, bytes]]:
    seen: list[tuple[bytes, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(scope["headers"])

    async def receive() -> Message:
        raise AssertionError("nothing is received here")

    async def send(message: Message) -> None:
        raise AssertionError("nothing is sent here")

    scope = {"type": "http", "path": path, "query_string": query, "headers": list(SENT)}
    await ControlHeaders(app, unwatched=unwatched)(scope, receive, send)
    return seen


@pytest.mark.parametrize(
    "path", ["/health", "/api/tts-initiate", JOBS, f"{JOBS}/a-job", f"{JOBS}/a-job/chunks/3/audio"]
)
async def test_what_is_answered_at_once_is_not_watched_by_a_replica(path: str) -> None:
    assert await _passed_on(path) == [SENT[0], OURS]
    assert await _passed_on(path, query=b"wait=30") == [SENT[0]]
    assert await _passed_on(path, unwatched=False) == [SENT[0]]


@pytest.mark.parametrize(
    "path", ["/v1/audio/speech", "/audio/speech", "/api/rawtts", f"{JOBS}/a-job/audio", f"{JOBS}/a-job/events"]
)
async def test_what_the_clients_leaving_should_end_is_watched(path: str) -> None:
    assert await _passed_on(path) == [SENT[0]]


def test_outside_a_replica_serves_proxy_reports_what_was_taken() -> None:
    headers, reports = proxy_middlewares()
    assert (headers.cls, headers.kwargs, reports.cls) == (ControlHeaders, {"unwatched": False}, TakenReported)
