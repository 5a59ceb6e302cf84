"""Addresses, methods and headers that are wrong: the right error, and nothing is left behind."""

import http.client

import pytest
from starlette.types import Message

from deployments.ingress import build_http_app
from tests.unit.bad_input.asking import (
    DONE,
    INITIATE,
    JOB_ROUTES,
    JOBS,
    RAW,
    SUBMITTED,
    Answer,
    ask,
    job_body,
    refused,
    stored,
)
from tests.unit.http_service import HttpService
from tts_actors.chunk_worker import WorkerTools
from tts_actors.single_call import SingleCall

# -- numbers and ids in addresses -----------------------------------------------------------


@pytest.mark.parametrize("index", ["-1", "one", "1.5", "", "1e3", "0x1", str(10**10), "9" * 5_000, "%00", "NaN"])
def test_a_chunk_index_is_a_small_number(url: str, index: str) -> None:
    refused(ask(url, "GET", f"/api/tts-chunk?jobId={DONE}&chunkIndex={index}"), 400, "chunkIndex")
    if index:
        refused(ask(url, "GET", f"{JOBS}/{DONE}/chunks/{index}"), 400, "index")
        refused(ask(url, "GET", f"{JOBS}/{DONE}/chunks/{index}/audio"), 400, "index")


@pytest.mark.parametrize("index", ["1", "10000", str(10**9)])
def test_a_chunk_that_the_job_has_not_is_not_found(url: str, index: str) -> None:
    refused(ask(url, "GET", f"/api/tts-chunk?jobId={DONE}&chunkIndex={index}"), 404, "chunks 0 to 0")
    refused(ask(url, "GET", f"{JOBS}/{DONE}/chunks/{index}"), 404, "chunks 0 to 0")
    refused(ask(url, "GET", f"{JOBS}/{DONE}/chunks/{index}/audio"), 404, "chunks 0 to 0")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("tts-chunk", "jobId"),
        ("tts-chunk?jobId=done-before", "chunkIndex"),
        ("tts-chunk?chunkIndex=0", "jobId"),
        ("tts-chunk?jobId=&chunkIndex=0", "jobId"),
        ("tts-chunk?jobId=done-before&chunkIndex=0&format=mp3", "format"),
        ("tts-chunk?jobId=done-before&chunkIndex=0&format=", "format"),
        ("tts-job", "jobId"),
        ("tts-job?jobId=", "jobId"),
        (f"tts-job?jobId={'x' * 129}", "jobId"),
    ],
)
def test_the_original_needs_its_query(url: str, query: str, field: str) -> None:
    refused(ask(url, "GET", f"/api/{query}"), 400, field)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *[(f"?limit={value}", "limit") for value in ("0", "-1", "101", "many", "1.5", "", "9" * 5_000)],
        *[(f"?status={value}", "status") for value in ("done", "COMPLETED", "")],
        (f"?after={'x' * 129}", "after"),
        *[(f"/{DONE}?wait={value}", "wait") for value in ("-1", "61", "long", "nan", "inf", "")],
        *[(f"/{DONE}/audio?format={value}", "format") for value in ("mp4", "aac", "", "MP3", "x" * 17)],
        *[(f"/{DONE}/audio?gaps={value}", "gaps") for value in ("noise", "")],
        *[(f"/{DONE}/chunks/0/audio?format={value}", "format") for value in ("mp3", "")],
    ],
)
def test_the_job_door_refuses_bad_queries(url: str, query: str, field: str) -> None:
    refused(ask(url, "GET", JOBS + query), 400, field)


@pytest.mark.parametrize("after", ["unknown-job", "%00", "..%2f..", "a'--", "x"])
def test_a_list_after_a_job_that_is_not_there_is_not_found(url: str, after: str) -> None:
    refused(ask(url, "GET", f"{JOBS}?after={after}"), 404, "after")


ODD_IDS = [
    "unknown-job",
    "job-000000000000000000000000",
    "..",
    "%2e%2e",
    "%2e%2e%2fdone-before",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%00",
    "done-before%00",
    "done-before%0a",
    "done-before%20",
    "DONE-BEFORE",
    "x" * 65,
    "x" * 128,
    "%F0%9F%90%9E%F0%9F%90%9E",
    "%ff%fe%fd",
    "a'%20OR%20'1'='1",
    "%25s%25n",
]


@pytest.mark.parametrize("job_id", ODD_IDS)
def test_an_id_that_no_job_has_is_not_found_on_every_route(url: str, job_id: str) -> None:
    for method, path in JOB_ROUTES:
        answer = ask(url, method, f"{JOBS}/{job_id}{path}")
        assert answer.status == 404, (method, path, answer.status)
        assert answer.headers["x-request-id"]
        if method != "HEAD":
            refused(answer, 404)
    refused(ask(url, "GET", f"/api/tts-job?jobId={job_id}"), 404)
    refused(ask(url, "GET", f"/api/tts-chunk?jobId={job_id}&chunkIndex=0"), 404)


@pytest.mark.parametrize(
    "job_id", ["unknown-job", "..", "../done-before", "done-before\x00", "x" * 128, "🐞🐞🐞", "done-before\n", "."]
)
def test_an_id_that_no_job_has_cannot_be_deleted(url: str, job_id: str) -> None:
    refused(ask(url, "POST", "/api/tts-delete", {"jobId": job_id}), 404)
    assert DONE in stored(url)
    assert ask(url, "GET", f"{JOBS}/{DONE}/audio").status == 200


@pytest.mark.parametrize(
    "job_id", ["..", "ab", "x" * 65, "%2e%2e", "a%00b", "a%20b%20c", "%F0%9F%90%9E", "abc%0a", "a:b"]
)
def test_a_job_cannot_be_made_under_an_odd_id(url: str, job_id: str) -> None:
    refused(ask(url, "PUT", f"{JOBS}/{job_id}", job_body()), 400, "client_id", "3 to 64")


def test_an_id_too_long_to_look_at_is_refused(url: str) -> None:
    for method, path in (("GET", ""), ("GET", "/audio"), ("DELETE", ""), ("POST", "/cancel")):
        assert ask(url, method, f"{JOBS}/{'x' * 5_000}{path}").status in (400, 404)


# -- methods, routes, odd requests ----------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", INITIATE),
        ("PUT", INITIATE),
        ("POST", f"/api/tts-job?jobId={DONE}"),
        ("DELETE", f"/api/tts-chunk?jobId={DONE}"),
        ("GET", RAW),
        ("GET", "/api/tts-delete"),
        ("DELETE", JOBS),
        ("PATCH", JOBS),
        ("POST", f"{JOBS}/{DONE}"),
        ("DELETE", f"{JOBS}/{DONE}/audio"),
        ("GET", f"{JOBS}/{DONE}/cancel"),
        ("POST", "/health"),
    ],
)
def test_a_wrong_method_is_not_allowed(url: str, method: str, path: str) -> None:
    answer = ask(url, method, path)
    refused(answer, 405)
    assert answer.code == "method_not_allowed"
    assert answer.headers["allow"]
    assert method not in answer.headers["allow"].split(", ")


def test_allow_names_the_methods_of_all_routes_with_the_path(url: str) -> None:
    answer = ask(url, "PATCH", f"{JOBS}/some-job", None)
    assert set(answer.headers["allow"].split(", ")) == {"GET", "PUT", "DELETE"}


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/nothing", "/api/", "/v1/nothing", f"{JOBS}/{DONE}/nothing", "/v1/readyz", "/%2e%2e/etc"]
)
def test_an_unknown_route_is_not_found(url: str, path: str) -> None:
    answer = ask(url, "GET", path)
    refused(answer, 404)
    assert answer.code == "not_found"


@pytest.mark.parametrize("host", ["[", "a/api/", "x:y:z", "%00"])
def test_the_host_header_does_not_change_the_shape_of_an_error(url: str, host: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.putrequest("GET", f"{JOBS}/unknown-job", skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        response = connection.getresponse()
        refused(Answer(JOBS, response.status, response.headers, response.read()), 404)
    finally:
        connection.close()


def test_a_request_id_comes_back_if_it_is_one(url: str) -> None:
    given = ask(url, "GET", f"{JOBS}/unknown-job", None, {"x-request-id": "my-id.1"})
    assert given.headers["x-request-id"] == "my-id.1"
    for odd in ("two words", "x" * 129, "<b>", ""):
        made = ask(url, "GET", f"{JOBS}/unknown-job", None, {"x-request-id": odd}).headers["x-request-id"]
        assert made
        assert made != odd


async def test_what_nobody_expected_is_answered_in_the_same_shape_and_says_nothing_of_itself(
    service: HttpService,
) -> None:
    async def broken() -> None:
        raise RuntimeError(SUBMITTED)

    async def tools() -> WorkerTools:
        return service.parts.tools

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    args = service.parts.args
    app = build_http_app(
        args, service.parts.service, SingleCall(args, tools), {"broken": broken}, service.parts.pool.figures
    )
    scope = {"type": "http", "method": "GET", "path": "/readyz", "query_string": b"", "headers": []}
    await app(scope, receive, send)
    headers = http.client.HTTPMessage()
    for name, value in sent[0]["headers"]:
        headers[name.decode()] = value.decode()
    answer = Answer("/readyz", sent[0]["status"], headers, b"".join(message["body"] for message in sent[1:]))
    refused(answer, 500)
    assert answer.code == "internal_error"
