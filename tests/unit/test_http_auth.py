"""Keys and tenants over a real socket: who gets in, who sees what, how much each may ask for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fastapi.routing import APIRoute
from starlette.datastructures import Headers

from deployments.edge import OPEN_PATHS, OneKey
from deployments.keys import HAPROXY_SWITCH, Keys, RequestRate, check_exposure
from tests.unit.http_service import HttpService, http_service
from tts_actors.config import AuthArgs
from tts_actors.errors import ConfigError, LimitExceeded, Unauthorized

JOBS = "/v1/audio/speech/jobs"
ALICE, BOB = {"Authorization": "Bearer alice-secret"}, {"api-key": "bob-secret"}
TEXT = "The lamp is lit. The sea is calm tonight."
ANSWER_SECONDS = 90
METHODS = ("get", "put", "post", "delete", "patch")
JOB_PARAMETERS = {"job_id", "client_id", "jobId"}
"""Names of parameters and body fields that hold a job's id."""
JOBLESS = {
    ("post", JOBS),
    ("get", JOBS),
    ("post", "/v1/audio/speech"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{model_id}"),
    ("get", "/v1/audio/models"),
    ("get", "/v1/audio/voices"),
    ("get", "/v1/backends"),
    ("post", "/api/tts-initiate"),
    ("post", "/api/rawtts"),
}
"""Routes that name no job of anybody's; what they make or list is the caller's own, or the same for all."""
HIDDEN = {
    ("head", JOBS + "/{job_id}/audio"),
    ("post", "/audio/speech"),
    ("get", "/models"),
    ("get", "/models/{model_id:path}"),
    ("get", "/audio/models"),
    ("get", "/audio/voices"),
}
"""Routes that the description leaves out: the ones above under other names."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTS_API_KEYS", "alice:alice-secret,bob:bob-secret")
        with http_service(tmp_path_factory.mktemp("auth")) as running:
            yield running


@pytest.fixture(scope="module")
def alices_job(service: HttpService) -> str:
    created = _ask(
        service, "POST", JOBS, json={"model": "fake-tts", "input": TEXT}, headers={**ALICE, "Idempotency-Key": "k"}
    )
    job_id = str(created.json()["id"])
    done = _ask(service, "GET", f"{JOBS}/{job_id}?wait=60", headers=ALICE)
    assert done.json()["status"] == "completed", done.text
    return job_id


def _ask(service: HttpService, method: str, path: str, **options: Any) -> requests.Response:
    return requests.request(method, service.url + path, timeout=ANSWER_SECONDS, **options)


def _operations(service: HttpService) -> list[tuple[str, str, dict[str, Any]]]:
    paths = _ask(service, "GET", "/openapi.json").json()["paths"]
    return [(method, path, paths[path][method]) for path in paths for method in METHODS if method in paths[path]]


def _request_for(path: str, operation: dict[str, Any], job_id: str) -> tuple[str, dict[str, Any]]:
    """The path and options of a well-formed request that names ``job_id`` wherever a job is named."""
    query = {}
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        value = job_id if name in JOB_PARAMETERS else "0"
        if parameter["in"] == "path":
            path = path.replace("{" + name + "}", value)
        elif parameter["in"] == "query" and parameter.get("required"):
            query[name] = value
    options: dict[str, Any] = {"params": query}
    if "requestBody" in operation:
        # Each route picks what it knows; those that refuse unknown fields get their own.
        options["json"] = {"model": "fake-tts", "input": TEXT}
        if path.startswith("/api/"):
            options["json"] = {"jobId": job_id, "text": TEXT, "voiceId": "default", "model": "fake-tts"}
    return path, options


def _names_a_job(path: str, operation: dict[str, Any]) -> bool:
    parameters = {parameter["name"] for parameter in operation.get("parameters", [])}
    return bool(parameters & JOB_PARAMETERS) or path.endswith("-delete")


def test_no_route_but_the_open_ones_answers_without_a_key(service: HttpService) -> None:
    operations = _operations(service)
    assert len(operations) > 15
    for method, path, operation in operations:
        url, options = _request_for(path, operation, "job-nobody")
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic alice-secret"},
            {"api-key": ""},
        ):
            answer = _ask(service, method, url, headers=headers, **options)
            expected = path in OPEN_PATHS
            assert (answer.status_code != 401) is expected, f"{method} {path}: {answer.status_code}"
            if not expected:
                assert answer.headers["www-authenticate"] == "Bearer"


def test_on_every_route_another_tenants_job_is_not_there(service: HttpService, alices_job: str) -> None:
    checked = 0
    for method, path, operation in _operations(service):
        url, options = _request_for(path, operation, alices_job)
        answer = _ask(service, method, url, headers=BOB, **options)
        if method == "put":
            assert answer.status_code == 404, f"an id that is taken: {method} {path}: {answer.text}"
        elif _names_a_job(path, operation):
            assert answer.status_code == 404, f"{method} {path}: {answer.status_code} {answer.text}"
            checked += 1
        else:
            assert (method, path) in JOBLESS or path in OPEN_PATHS, f"whose is what {method} {path} shows?"
        assert alices_job not in answer.text, f"{method} {path}"
    assert checked >= 10
    still = _ask(service, "GET", f"{JOBS}/{alices_job}/audio", headers=ALICE)
    assert still.status_code == 200, "and none of that has touched the job"


def test_a_route_that_the_description_leaves_out_is_known_here_and_keeps_tenants_apart(
    service: HttpService, alices_job: str
) -> None:
    routes = {
        (method.lower(), route.path)
        for route in service.routes
        if isinstance(route, APIRoute) and not route.include_in_schema
        for method in route.methods
    }
    open_ = {(method, path) for method, path in routes if path in OPEN_PATHS or path.startswith("/ui/")}
    assert routes - open_ == HIDDEN
    audio = f"{JOBS}/{alices_job}/audio"
    assert _ask(service, "HEAD", audio, headers=BOB).status_code == 404
    assert _ask(service, "HEAD", audio, headers=ALICE).status_code == 200
    for method, path in HIDDEN:
        assert _ask(service, method.upper(), path.replace("{job_id}", alices_job)).status_code == 401, path


def test_the_same_words_of_two_tenants_are_spoken_in_two_jobs(service: HttpService) -> None:
    words = "The lamp [[delay:300]] is lit. " + "The sea is calm tonight, as it was before. " * 60

    def speak(headers: dict[str, str]) -> str:
        body = {"model": "fake-tts", "voice": "alloy", "input": words, "response_format": "pcm"}
        again = {"x-stainless-retry-count": "1"}
        answer = _ask(service, "POST", "/v1/audio/speech", json=body, headers=headers | again)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-tts-job-id"]

    hers, his, hers_again = speak(ALICE), speak(BOB), speak(ALICE)
    assert his != hers
    assert hers_again == hers, "who has the key comes back to the job"
    assert _ask(service, "GET", f"{JOBS}/{hers}", headers=BOB).status_code == 404


def test_what_all_tenants_see_of_backends_names_nobody_and_no_job(service: HttpService, alices_job: str) -> None:
    shown = _ask(service, "GET", "/v1/backends", headers=BOB)
    assert shown.status_code == 200
    assert [backend["name"] for backend in shown.json()["data"]] == ["fake"]
    for word in ("alice", alices_job, "job-", "lamp"):
        assert word not in shown.text


def test_the_list_and_idempotency_keys_belong_to_the_tenant(service: HttpService, alices_job: str) -> None:
    mine = [job["id"] for job in _ask(service, "GET", JOBS, headers=ALICE).json()["data"]]
    theirs = [job["id"] for job in _ask(service, "GET", JOBS, headers=BOB).json()["data"]]
    assert alices_job in mine
    assert not set(mine) & set(theirs)
    assert _ask(service, "GET", JOBS, params={"after": alices_job}, headers=BOB).status_code == 404
    same = {"json": {"model": "fake-tts", "input": TEXT}}
    again = _ask(service, "POST", JOBS, headers={**ALICE, "Idempotency-Key": "k"}, **same)
    other = _ask(service, "POST", JOBS, headers={**BOB, "Idempotency-Key": "k"}, **same)
    assert (again.status_code, again.json()["id"]) == (200, alices_job)
    assert other.status_code == 202
    assert other.json()["id"] != alices_job


@pytest.fixture
def limited(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[HttpService]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTS_API_KEYS", "alice:alice-secret,bob:bob-secret")
        with http_service(tmp_path, limits={"per_key": request.param}) as running:
            yield running


def _assert_limited(answer: requests.Response, name: str) -> None:
    assert answer.status_code == 429, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("rate_limit_exceeded", f"limits.per_key.{name}")
    assert name in error["message"]


def _create(service: HttpService, headers: dict[str, str], text: str = TEXT) -> requests.Response:
    return _ask(service, "POST", JOBS, json={"model": "fake-tts", "input": text}, headers=headers)


@pytest.mark.parametrize("limited", [{"active_jobs": 1}], indirect=True)
def test_a_key_has_no_more_active_jobs_than_allowed(limited: HttpService) -> None:
    slow = _create(limited, ALICE, "The sea is [[delay:60000]] calm tonight.")
    assert slow.status_code == 202
    _assert_limited(_create(limited, ALICE), "active_jobs")
    assert _create(limited, BOB).status_code == 202, "another key has its own count"
    assert _ask(limited, "POST", f"{JOBS}/{slow.json()['id']}/cancel", headers=ALICE).status_code == 202
    assert _create(limited, ALICE).status_code == 202, "an ended job counts no more"


@pytest.mark.parametrize("limited", [{"characters_per_day": 100}], indirect=True)
def test_a_keys_characters_are_counted_by_the_day_and_deleting_gives_none_back(limited: HttpService) -> None:
    first = _create(limited, ALICE, "a" * 60 + ".")
    assert first.status_code == 202
    job_id = first.json()["id"]
    assert _ask(limited, "DELETE", f"{JOBS}/{job_id}", headers=ALICE).status_code == 204
    _assert_limited(_create(limited, ALICE, "b" * 60), "characters_per_day")
    assert _create(limited, ALICE, "It still fits.").status_code == 202, "what was refused is not counted"
    raw = {"text": "c" * 40, "voiceId": "default", "model": "fake-tts"}
    refused = _ask(limited, "POST", "/api/rawtts", json=raw, headers=ALICE)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limit_exceeded")
    assert _create(limited, BOB, "b" * 60).status_code == 202


@pytest.mark.parametrize("limited", [{"characters_per_day": 100}], indirect=True)
def test_speech_of_one_chunk_makes_no_job_and_is_counted_all_the_same(limited: HttpService) -> None:
    def speak(headers: dict[str, str], text: str) -> requests.Response:
        body = {"model": "fake-tts", "voice": "alloy", "input": text, "response_format": "wav"}
        return _ask(limited, "POST", "/v1/audio/speech", json=body, headers=headers)

    assert speak(ALICE, "The lamp is lit. " + "a" * 42 + ".").status_code == 200
    assert _ask(limited, "GET", JOBS, headers=ALICE).json()["data"] == []
    _assert_limited(speak(ALICE, "b" * 60), "characters_per_day")
    assert speak(ALICE, "It still fits.").status_code == 200, "what was refused is not counted"
    assert speak(BOB, "b" * 60).status_code == 200


@pytest.mark.parametrize("limited", [{"active_jobs": 1}], indirect=True)
def test_long_speech_counts_as_an_active_job_and_is_refused_by_the_limits_name(limited: HttpService) -> None:
    assert _create(limited, ALICE, "The sea is [[delay:60000]] calm tonight.").status_code == 202
    words = "The sea is calm tonight, as it was before. " * 60
    body = {"model": "fake-tts", "voice": "alloy", "input": words, "response_format": "pcm"}
    _assert_limited(_ask(limited, "POST", "/v1/audio/speech", json=body, headers=ALICE), "active_jobs")
    assert _ask(limited, "POST", "/v1/audio/speech", json=body, headers=BOB).status_code == 200


@pytest.mark.parametrize("limited", [{"requests_per_minute": 3}], indirect=True)
def test_speech_requests_count_towards_the_minute(limited: HttpService) -> None:
    body = {"model": "fake-tts", "voice": "alloy", "input": "The lamp is lit.", "response_format": "pcm"}
    answers = [_ask(limited, "POST", "/v1/audio/speech", json=body, headers=ALICE) for _ in range(4)]
    assert [answer.status_code for answer in answers[:3]] == [200] * 3
    _assert_limited(answers[3], "requests_per_minute")


@pytest.mark.parametrize("limited", [{"requests_per_minute": 3}], indirect=True)
def test_a_keys_requests_are_limited_but_never_the_health_checks(limited: HttpService) -> None:
    answers = [_ask(limited, "GET", JOBS, headers=ALICE) for _ in range(4)]
    assert [answer.status_code for answer in answers[:3]] == [200] * 3
    _assert_limited(answers[3], "requests_per_minute")
    assert _ask(limited, "GET", JOBS, headers=BOB).status_code == 200
    assert _ask(limited, "GET", "/health", headers=ALICE).status_code == 200


def test_requests_come_back_evenly() -> None:
    now = [0.0]
    rate = RequestRate(60, lambda: now[0])
    for _ in range(60):
        rate.take("alice")
    with pytest.raises(LimitExceeded) as refused:
        rate.take("alice")
    assert refused.value.retry_after_seconds == pytest.approx(1.0)
    now[0] += 1.0
    rate.take("alice")
    with pytest.raises(LimitExceeded):
        rate.take("alice")


def test_keys_come_from_the_environment_and_a_file_and_one_name_may_have_two(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# rotated in May\nalice: new-key\n\ncarol:schl\u00fcssel\n")
    keys = Keys(AuthArgs(keys_file=str(file)), {"TTS_API_KEYS": "alice:old-key"})
    for key, name in (("old-key", "alice"), ("new-key", "alice"), ("schl\u00fcssel", "carol")):
        sent = Headers(raw=[(b"authorization", f"Bearer {key}".encode())])
        assert keys.tenant(sent) == name
    with pytest.raises(Unauthorized):
        keys.tenant(Headers({"authorization": "Bearer alice"}))


@pytest.mark.parametrize("given", ["alice", "alice:", ":s3cret", "al ice:key", "a:same,b:same", "x" * 65 + ":key"])
def test_a_list_of_keys_that_cannot_be_meant_is_refused_without_showing_it(given: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Keys(AuthArgs(), {"TTS_API_KEYS": given})
    assert given not in str(refused.value)


def test_a_key_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="/nowhere/keys"):
        Keys(AuthArgs(keys_file="/nowhere/keys"), {})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "example.org"])  # noqa: S104 - refused, not bound
def test_without_keys_only_loopback_is_served_unless_told_so(host: str) -> None:
    with pytest.raises(ConfigError, match="without any API key"):
        check_exposure(AuthArgs(), host, {})
    check_exposure(AuthArgs(allow_open_network=True), host, {})
    check_exposure(AuthArgs(), host, {"TTS_API_KEYS": "alice:key"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_key_until_haproxy_mode_opens_all_interfaces(host: str) -> None:
    check_exposure(AuthArgs(), host, {})
    with pytest.raises(ConfigError, match=HAPROXY_SWITCH):
        check_exposure(AuthArgs(), host, {HAPROXY_SWITCH: "1"})


async def test_the_engine_behind_its_key_answers_its_service_alone() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def status(path: str, headers: list[tuple[bytes, bytes]]) -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
        await OneKey(app, "secret")(scope, None, send)  # type: ignore[arg-type]
        return int(sent[0]["status"])

    assert await status("/v1/audio/speech", []) == 401
    assert await status("/v1/audio/speech", [(b"authorization", b"Bearer wrong")]) == 401
    assert await status("/v1/audio/speech", [(b"authorization", b"Bearer secret")]) == 200
    assert await status("/health", []) == 200
