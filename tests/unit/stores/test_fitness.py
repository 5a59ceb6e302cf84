"""Stores that cannot serve the cluster are refused before anything starts."""

from pathlib import Path

import pytest

from tts_actors.errors import ConfigError
from tts_actors.stores.fitness import check_stores, check_writable

POSTGRES = "postgresql+asyncpg://tts@db/tts"


@pytest.mark.parametrize(
    ("store_url", "clip_url", "nodes", "says"),
    [
        ("sqlite+aiosqlite:////data/jobs.db", "s3://b/p", 2, "SQLite cannot serve a Ray cluster of 2 nodes"),
        (POSTGRES, "file:///data/clips", 3, "a directory cannot serve a Ray cluster of 3 nodes"),
        ("sqlite+aiosqlite:///:memory:", "s3://b/p", 1, "in memory"),
        ("sqlite+aiosqlite://", "s3://b/p", 1, "in memory"),
        ("sqlite+aiosqlite:///file:x?mode=memory&uri=true", "s3://b/p", 1, "in memory"),
        ("mysql://tts@db/tts", "s3://b/p", 1, "must be sqlite"),
        ("jobs.db", "s3://b/p", 1, "not a SQLAlchemy URL"),
    ],
)
def test_unfit_stores_are_refused_by_name(store_url: str, clip_url: str, nodes: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        check_stores(store_url, clip_url, nodes)
    assert refusal.value.param in ("store_url", "clip_url")


def test_fit_stores_pass() -> None:
    check_stores("sqlite+aiosqlite:////data/jobs.db", "file:///data/clips", 1)
    check_stores(POSTGRES, "s3://b/p", 9)


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"clip_url: .*file/clips cannot be written: Not a directory"):
        check_writable(f"sqlite+aiosqlite:///{tmp_path}/data/jobs.db", f"file://{tmp_path}/file/clips")
    check_writable(POSTGRES, "s3://b/p")
