"""What strangers try: everything that the API's description allows, and more; slow, huge and misleading requests."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
import structlog
from hypothesis import HealthCheck, given, settings

from tests.unit.http_service import HttpService, http_service
from tts_actors.logs import configure_logs

JOBS = "/v1/audio/speech/jobs"
ANSWER_SECONDS = 90
BODY_BYTES = 20_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    limits = {"max_body_bytes": BODY_BYTES, "max_characters": 10_000}
    with http_service(tmp_path_factory.mktemp("security"), limits=limits) as running:
        yield running


BOUNDED = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


@pytest.fixture(scope="module")
def schema(service: HttpService) -> Any:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


@pytest.mark.filterwarnings("ignore")
def test_whatever_the_description_allows_is_never_a_server_error(schema: Any) -> None:
    asked: set[str] = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=10, **BOUNDED)
        @given(operation.as_strategy())
        def stranger(case: Any) -> None:
            answer = case.call(timeout=ANSWER_SECONDS)
            assert answer.status_code < 500, f"{case.method} {case.path}: {answer.text}"
            asked.add(case.operation.label)

        stranger()
    assert len(asked) > 15


@pytest.mark.filterwarnings("ignore")
def test_following_the_links_from_a_job_to_all_its_routes_is_never_a_server_error(schema: Any) -> None:
    asked: dict[str, set[int]] = {}

    class Stranger(schema.as_state_machine()):  # type: ignore[misc]
        """Makes jobs and goes from each answer to what it links to."""

        def before_call(self, case: Any) -> None:
            if case.operation.label == f"POST {JOBS}" and isinstance(case.body, dict):
                # A model that exists, most of the time: otherwise hardly a job is ever made.
                case.body = {"model": "fake-tts", "input": str(case.body.get("input")) + " spoken."}
                case.query, case.headers = {}, {}

        def validate_response(self, response: Any, case: Any, *_: Any, **__: Any) -> None:
            asked.setdefault(case.operation.label, set()).add(response.status_code)
            assert response.status_code < 500, f"{case.method} {case.path}: {response.text}"

    Stranger.run(settings=settings(max_examples=15, stateful_step_count=12, **BOUNDED))
    followed = [label for label, statuses in asked.items() if "{job_id}" in label and statuses & {200, 202, 204, 409}]
    assert len(followed) >= 3, asked


def test_every_answer_forbids_what_a_browser_might_do_with_it(service: HttpService) -> None:
    for path in ("/health", JOBS, "/nowhere", f"{JOBS}/job-nobody/audio", "/docs"):
        headers = requests.get(service.url + path, timeout=ANSWER_SECONDS).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
    docs = requests.get(f"{service.url}/docs", timeout=ANSWER_SECONDS).headers["content-security-policy"]
    data = requests.get(f"{service.url}/health", timeout=ANSWER_SECONDS).headers["content-security-policy"]
    assert "script-src" in docs
    assert data.startswith("default-src 'none'")
    assert "script-src" not in data


def _raw(service: HttpService, *parts: bytes) -> bytes:
    """What the service answers to bytes on a socket, until it closes or has said enough."""
    address = urlsplit(service.url)
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=ANSWER_SECONDS) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while more := connection.recv(65_536):
            answer += more
        return answer


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(service: HttpService) -> None:
    head = (
        f"POST {JOBS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {BODY_BYTES + 1}\r\n\r\n"
    )
    answer = _raw(service, head.encode())
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"limits.max_body_bytes" in answer


def test_a_body_without_a_length_is_refused_where_it_passes_the_bound(service: HttpService) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"model": "fake-tts", "input": "'
        for _ in range(10_000):
            yield b"a" * 1_000

    try:
        answer = requests.post(service.url + JOBS, data=endless(), timeout=ANSWER_SECONDS)
    except requests.ConnectionError:
        return  # refused and hung up while we were still sending: what is wanted
    assert answer.status_code == 413


def test_many_slow_requests_do_not_keep_others_waiting(service: HttpService) -> None:
    address = urlsplit(service.url)
    slow = [socket.create_connection((str(address.hostname), address.port or 0)) for _ in range(100)]
    try:
        for connection in slow:
            connection.sendall(f"POST {JOBS} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
        body = {"model": "fake-tts", "input": "The lamp is lit."}
        made = requests.post(service.url + JOBS, json=body, timeout=ANSWER_SECONDS)
        assert made.status_code == 202
        done = requests.get(f"{service.url}{JOBS}/{made.json()['id']}?wait=60", timeout=ANSWER_SECONDS)
        assert done.json()["status"] == "completed"
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize("forged", ['x\n{"event": "forged"}', "a\u2028b", "\x1b[2J", "a" * 129, "id with spaces"])
def test_a_request_id_that_could_forge_a_log_line_is_not_taken_over(service: HttpService, forged: str) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: " + forged.encode() + b"\r\n\r\n"
    answer = _raw(service, head)
    assert b"forged" not in answer
    if answer.startswith(b"HTTP/1.1 200"):
        taken = answer.lower().partition(b"x-request-id: ")[2].partition(b"\r\n")[0].decode()
        assert len(taken) == 16
        assert taken.isalnum()


def test_a_log_line_is_one_line_whatever_a_caller_writes(capfd: pytest.CaptureFixture[str]) -> None:
    structlog.reset_defaults()
    configure_logs()
    structlog.get_logger().warning("job_fenced", reason='two\nlines {"event": "forged"}\r\x1b[2J\u2028')
    structlog.reset_defaults()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["event"] == "job_fenced"
