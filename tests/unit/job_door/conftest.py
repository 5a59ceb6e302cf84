"""One service with jobs in every state for all tests of the job door."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.http_service import HttpService, http_service
from tests.unit.job_door.door import BROKEN, Door


@pytest.fixture(scope="package")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="package")
def service(directory: Path) -> Iterator[HttpService]:
    with http_service(directory) as running:
        yield running


@pytest.fixture(scope="package")
def door(service: HttpService) -> Door:
    return Door(service.url)


@pytest.fixture(scope="package")
def done(door: Door) -> str:
    """A completed job of four chunks with sentence and paragraph pauses between them."""
    job = door.finished()
    assert (job["status"], job["chunks"]["total"]) == ("completed", 4)
    return str(job["id"])


@pytest.fixture(scope="package")
def pcm(door: Door, done: str) -> bytes:
    return door.get(f"/{done}/audio?format=pcm").content


@pytest.fixture(scope="package")
def gappy(door: Door) -> str:
    job = door.finished(BROKEN, on_chunk_failure="silence")
    assert job["status"] == "completed_with_gaps"
    return str(job["id"])


@pytest.fixture
def running(door: Door) -> Iterator[str]:
    """A job whose first chunk comes and whose second one does not."""
    job_id = door.slow()
    yield job_id
    door.ask("DELETE", f"/{job_id}")
