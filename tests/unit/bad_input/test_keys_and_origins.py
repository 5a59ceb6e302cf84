"""Keys of two tenants and origins of browsers: nobody reads what is not theirs."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.bad_input.asking import (
    CREATING,
    DONE,
    INITIATE,
    JOB_ROUTES,
    JOBS,
    MAX_BODY_BYTES,
    ask,
    initiate_body,
    job_body,
    refused,
    stored,
)
from tests.unit.http_service import HttpService, http_service

ORIGIN = "https://app.example"
OTHER_ORIGIN = "https://evil.example"

ANN = {"Authorization": "Bearer key-of-ann"}
BOB = {"api-key": "key-of-bob"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    """A service with two tenants and one allowed origin; Ann has a finished job."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTS_TEST_HTTP_KEYS", "ann:key-of-ann, bob:key-of-bob")
        directory = tmp_path_factory.mktemp("guarded")
        changes = {"auth": {"keys_env": "TTS_TEST_HTTP_KEYS"}, "cors_origins": [ORIGIN]}
        with http_service(directory, limits={"max_body_bytes": MAX_BODY_BYTES}, **changes) as running:
            assert ask(running.url, "PUT", f"{JOBS}/of-ann", job_body(input="Mine."), ANN).status == 202
            assert ask(running.url, "GET", f"{JOBS}/of-ann?wait=60", None, ANN).status == 200
            yield running


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": "key-of-ann"},
        {"Authorization": "Basic key-of-ann"},
        {"Authorization": "Bearer key-of-ann2"},
        {"Authorization": "Bearer key-of-an"},
        {"Authorization": "Bearer ann:key-of-ann"},
        {"api-key": "wrong"},
        {"api-key": ""},
        {"api-key": "clé"},
    ],
    ids=repr,
)
def test_without_a_valid_key_nothing_is_answered(guarded: HttpService, headers: dict[str, str]) -> None:
    requests = [
        *[(method, path, job_body() | initiate_body()) for method, path in CREATING],
        *[(method, f"{JOBS}/of-ann{path}", None) for method, path in JOB_ROUTES if method != "HEAD"],
        ("GET", JOBS, None),
        ("GET", "/api/tts-job?jobId=of-ann", None),
        ("GET", "/api/tts-chunk?jobId=of-ann&chunkIndex=0", None),
        ("POST", "/api/tts-delete", {"jobId": "of-ann"}),
        ("GET", "/v1/nothing", None),
    ]
    for method, path, body in requests:
        answer = ask(guarded.url, method, path, body, headers)
        refused(answer, 401, "key")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "key-of" not in answer.body.decode()
    assert stored(guarded.url, ANN) == ["of-ann"]


@pytest.mark.parametrize("path", ["/health", "/readyz", "/openapi.json", "/docs"])
def test_what_shows_no_job_needs_no_key(guarded: HttpService, path: str) -> None:
    assert ask(guarded.url, "GET", path).status == 200


@pytest.mark.parametrize(
    "headers",
    [ANN, {"Authorization": "bearer key-of-ann"}, {"api-key": "key-of-ann"}],
    ids=["Bearer", "bearer", "api-key"],
)
def test_a_key_opens_its_own_jobs(guarded: HttpService, headers: dict[str, str]) -> None:
    assert ask(guarded.url, "GET", f"{JOBS}/of-ann", None, headers).status == 200
    assert ask(guarded.url, "GET", f"{JOBS}/of-ann/audio", None, headers).status == 200
    assert ask(guarded.url, "GET", "/api/tts-chunk?jobId=of-ann&chunkIndex=0", None, headers).status == 200


def test_another_tenants_job_is_not_found_on_every_route(guarded: HttpService) -> None:
    for method, path in JOB_ROUTES:
        mine = ask(guarded.url, method, f"{JOBS}/of-ann{path}", None, BOB)
        nobodys = ask(guarded.url, method, f"{JOBS}/of-nobody{path}", None, BOB)
        assert (mine.status, mine.body) == (nobodys.status, nobodys.body) == (404, mine.body), (method, path)
    for query in (
        "tts-job?jobId=of-ann",
        "tts-chunk?jobId=of-ann&chunkIndex=0",
        "tts-chunk?jobId=of-ann&chunkIndex=99",
    ):
        refused(ask(guarded.url, "GET", f"/api/{query}", None, BOB), 404, "no such job")
    refused(ask(guarded.url, "POST", "/api/tts-delete", {"jobId": "of-ann"}, BOB), 404, "no such job")
    refused(ask(guarded.url, "GET", f"{JOBS}?after=of-ann", None, BOB), 404, "after")
    assert ask(guarded.url, "GET", f"{JOBS}/of-ann", None, ANN).status == 200


def test_another_tenants_id_cannot_be_taken_over(guarded: HttpService) -> None:
    answer = ask(guarded.url, "PUT", f"{JOBS}/of-ann", job_body(input="Mine."), BOB)
    refused(answer, 404, "no such job")
    assert "of-ann" in stored(guarded.url, ANN)
    assert "of-ann" not in stored(guarded.url, BOB)


def test_lists_and_idempotency_keys_are_each_tenants_own(guarded: HttpService) -> None:
    made = {}
    for name, key in (("ann", ANN), ("bob", BOB)):
        answer = ask(guarded.url, "POST", JOBS, job_body(), key | {"Idempotency-Key": "same"})
        assert answer.status == 202
        made[name] = json.loads(answer.body)["id"]
    assert made["ann"] != made["bob"]
    assert made["bob"] in stored(guarded.url, BOB)
    assert made["bob"] not in stored(guarded.url, ANN)
    assert set(stored(guarded.url, ANN)).isdisjoint(stored(guarded.url, BOB))
    for name, key in (("ann", ANN), ("bob", BOB)):
        assert ask(guarded.url, "DELETE", f"{JOBS}/{made[name]}", None, key).status == 204


LARGE = json.dumps({"input": "x" * MAX_BODY_BYTES}).encode()
CORS_CASES = [
    (200, "GET", f"{JOBS}/of-ann", None, ANN),
    (200, "GET", f"{JOBS}/of-ann/audio", None, ANN),
    (206, "GET", f"{JOBS}/of-ann/audio", None, ANN | {"Range": "bytes=0-9"}),
    (416, "GET", f"{JOBS}/of-ann/audio", None, ANN | {"Range": "bytes=999999999-"}),
    (200, "GET", "/api/tts-job?jobId=of-ann", None, ANN),
    (200, "GET", "/health", None, {}),
    (400, "POST", INITIATE, {}, ANN),
    (400, "POST", JOBS, b"{", ANN),
    (401, "GET", f"{JOBS}/of-ann", None, {}),
    (401, "POST", INITIATE, initiate_body(), {}),
    (404, "GET", f"{JOBS}/unknown-job", None, ANN),
    (404, "GET", "/nothing", None, ANN),
    (405, "PATCH", JOBS, None, ANN),
    (413, "POST", JOBS, LARGE, ANN),
    (413, "POST", INITIATE, LARGE, ANN),
    (422, "POST", JOBS, job_body(colour="red"), ANN),
]


@pytest.mark.parametrize(("status", "method", "path", "body", "headers"), CORS_CASES)
def test_an_allowed_origin_may_read_every_answer(
    guarded: HttpService, status: int, method: str, path: str, body: Any, headers: dict[str, str]
) -> None:
    answer = ask(guarded.url, method, path, body, headers | {"Origin": ORIGIN})
    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "Origin" in answer.headers["vary"]
    exposed = answer.headers["access-control-expose-headers"].lower()
    for name in ("x-request-id", "x-tts-job-id", "retry-after", "location", "etag", "content-range"):
        assert name in exposed


@pytest.mark.parametrize(("status", "method", "path", "body", "headers"), CORS_CASES)
@pytest.mark.parametrize("origin", [OTHER_ORIGIN, f"{ORIGIN}.evil", "null", None])
def test_no_other_origin_may_read_any_answer(
    guarded: HttpService, status: int, method: str, path: str, body: Any, headers: dict[str, str], origin: str | None
) -> None:
    answer = ask(guarded.url, method, path, body, headers | ({"Origin": origin} if origin else {}))
    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] is None


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_browser_may_ask_beforehand_without_a_key(guarded: HttpService, method: str) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization, range, prefer"}
    allowed = ask(guarded.url, "OPTIONS", JOBS, None, asked | {"Origin": ORIGIN})
    assert allowed.status == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert method in allowed.headers["access-control-allow-methods"]
    assert {"authorization", "range", "prefer"} <= set(
        allowed.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    )
    other = ask(guarded.url, "OPTIONS", JOBS, None, asked | {"Origin": OTHER_ORIGIN})
    assert other.status == 400
    assert other.headers["access-control-allow-origin"] is None


def test_without_configured_origins_nobody_gets_the_headers(url: str) -> None:
    for path in (f"{JOBS}/{DONE}", f"{JOBS}/unknown-job", "/health"):
        assert ask(url, "GET", path, None, {"Origin": ORIGIN}).headers["access-control-allow-origin"] is None
