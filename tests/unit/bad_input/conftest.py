"""One service with low limits and one finished job for all tests of bad input."""

import json
from collections.abc import Iterator

import pytest

from tests.unit.bad_input.asking import DONE, JOBS, MAX_BODY_BYTES, MAX_CHARACTERS, ask, stored
from tests.unit.http_service import HttpService, http_service


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    limits = {"max_characters": MAX_CHARACTERS, "max_body_bytes": MAX_BODY_BYTES, "max_chunks": 20}
    with http_service(tmp_path_factory.mktemp("bad-input"), limits=limits) as running:
        assert ask(running.url, "PUT", f"{JOBS}/{DONE}", {"input": "All is well.", "model": "fake-tts"}).status == 202
        ended = ask(running.url, "GET", f"{JOBS}/{DONE}?wait=60")
        assert json.loads(ended.body)["status"] == "completed"
        yield running


@pytest.fixture
def url(service: HttpService) -> Iterator[str]:
    """The service's address; afterwards it has the same jobs as before and no backend was called."""
    before = stored(service.url), len(service.backend.calls)
    yield service.url
    assert (stored(service.url), len(service.backend.calls)) == before
