"""Stores of both kinds: a test that asks for ``store_url`` or ``clip_url`` runs on the embedded and the remote one."""

import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.unit.stores.servers import BUCKET, Postgres, running_postgres, running_s3, s3_environment
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import migrate


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line a request otherwise
    with running_s3() as port:
        yield port


@pytest.fixture
def s3_url(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3_environment(s3_port).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/jobs.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.url(server.new_database())


@pytest.fixture(params=["directory", "s3"])
def clip_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "directory":
        return f"file://{tmp_path}/clips"
    return str(request.getfixturevalue("s3_url"))


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[SqlJobStore]:
    await migrate(store_url)
    store = SqlJobStore(store_url)
    yield store
    await store.close()
