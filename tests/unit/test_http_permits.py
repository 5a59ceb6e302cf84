"""A permit lets a browser hear one job without its key, and opens nothing else."""

from collections.abc import Iterator

import pytest
import requests
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from deployments.keys import Keys
from deployments.permits import COOKIE, JOBS, LIFE_SECONDS, Permits
from tests.unit.http_service import HttpService, http_service
from tts_actors.config import AuthArgs
from tts_actors.errors import Unauthorized

ALICE, BOB = {"Authorization": "Bearer alice-secret"}, {"Authorization": "Bearer bob-secret"}
KEYS = {"TTS_API_KEYS": "alice:alice-secret,bob:bob-secret"}
NOW = 1_000_000.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTS_API_KEYS", KEYS["TTS_API_KEYS"])
        with http_service(tmp_path_factory.mktemp("permits")) as running:
            yield running


def _job(service: HttpService, key: dict[str, str]) -> str:
    body = {"model": "fake-tts", "input": "The lamp is lit."}
    job_id = str(requests.post(service.url + JOBS, json=body, headers=key, timeout=60).json()["id"])
    assert requests.get(f"{service.url}{JOBS}/{job_id}?wait=60", headers=key, timeout=90).json()["progress"] == 1
    return job_id


def _status(service: HttpService, path: str, cookie: str, method: str = "GET", **headers: str) -> int:
    sent = {"cookie": f"{COOKIE}={cookie}", **headers}
    return requests.request(method, service.url + path, headers=sent, timeout=60).status_code


def test_a_permit_opens_the_audio_of_its_job_for_reading_and_nothing_else(service: HttpService) -> None:
    mine, other = _job(service, ALICE), _job(service, ALICE)
    given = requests.post(f"{service.url}{JOBS}/{mine}/listen", headers=ALICE, timeout=60)
    assert given.status_code == 204
    cookie = given.cookies[COOKIE]
    said = given.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert f"path={JOBS}/{mine};" in said
    assert "alice" not in said
    for path in ("/audio?format=mp3", "/audio?live=1", "/captions.srt", "/captions.json", "/manifest"):
        assert _status(service, f"{JOBS}/{mine}{path}", cookie) == 200, path
        assert _status(service, f"{JOBS}/{other}{path}", cookie) == 401, path
    assert _status(service, f"{JOBS}/{mine}/audio", cookie, Range="bytes=0-9") == 206
    for method, path in (
        ("GET", ""),
        ("GET", "/chunks"),
        ("GET", "/events"),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/listen"),
        ("POST", "/audio"),
    ):
        assert _status(service, f"{JOBS}/{mine}{path}", cookie, method) == 401, f"{method} {path}"
    assert _status(service, JOBS, cookie) == 401


def test_only_the_jobs_own_key_gets_a_permit(service: HttpService) -> None:
    url = f"{service.url}{JOBS}/{_job(service, ALICE)}/listen"
    assert requests.post(url, timeout=60).status_code == 401
    refused = requests.post(url, headers=BOB, timeout=60)
    assert refused.status_code == 404
    assert not refused.cookies


def test_a_key_that_is_sent_counts_and_not_the_permit(service: HttpService) -> None:
    job = _job(service, ALICE)
    cookie = requests.post(f"{service.url}{JOBS}/{job}/listen", headers=ALICE, timeout=60).cookies[COOKIE]
    assert _status(service, f"{JOBS}/{job}/audio", cookie, **BOB) == 404
    assert _status(service, f"{JOBS}/{job}/audio", cookie, **{"api-key": "wrong"}) == 401


def _request(job_id: str, headers: dict[str, str]) -> Request:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    path = f"{JOBS}/{job_id}/audio"
    return Request({"type": "http", "method": "GET", "path": path, "headers": raw, "query_string": b""})


def _granted(permits: Permits, job_id: str) -> str:
    response = Response()
    permits.grant(_request(job_id, ALICE), job_id, response)
    return response.headers["set-cookie"].partition(";")[0]


def _tenant(permits: Permits, job_id: str, cookie: str) -> str | None:
    return permits.tenant(_request(job_id, {"cookie": cookie}).scope)


def test_a_permit_ends_with_its_time_and_with_its_key() -> None:
    keys = Keys(AuthArgs(), KEYS)
    cookie = _granted(Permits(keys, lambda: NOW), "job-1")
    assert _tenant(Permits(keys, lambda: NOW + LIFE_SECONDS - 1), "job-1", cookie) == "alice"
    assert _tenant(Permits(keys, lambda: NOW + LIFE_SECONDS), "job-1", cookie) is None
    others = Keys(AuthArgs(), {"TTS_API_KEYS": "alice:another,bob:bob-secret"})
    assert _tenant(Permits(others, lambda: NOW), "job-1", cookie) is None


def test_a_permit_that_was_changed_opens_nothing() -> None:
    permits = Permits(Keys(AuthArgs(), KEYS), lambda: NOW)
    cookie = _granted(permits, "job-1")
    name, _, value = cookie.partition("=")
    end, _, seal = value.partition(".")
    changed = (
        f"{name}={int(end) + 1}.{seal}",
        f"{name}={end}.{'0' * 64}",
        f"{name}={end}",
        f"{name}=",
        f"{name}={'9' * 4_000}.{seal}",
    )
    assert [_tenant(permits, "job-1", each) for each in changed] == [None] * len(changed)
    assert _tenant(permits, "job-2", cookie) is None


def test_without_keys_there_is_nothing_to_permit() -> None:
    keys = Keys(AuthArgs(), {})
    response = Response()
    Permits(keys).grant(_request("job-1", {}), "job-1", response)
    assert "set-cookie" not in response.headers
    with pytest.raises(Unauthorized):
        Keys(AuthArgs(), KEYS).seal(Headers({}), "anything")
