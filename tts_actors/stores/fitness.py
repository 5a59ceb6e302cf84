"""Whether the configured stores can serve the cluster they are deployed on: asked before anything is started."""

import os
import tempfile
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from tts_actors.errors import ConfigError
from tts_actors.stores.clips import check_clip_url, clip_directory
from tts_actors.stores.migrate import sqlite_path


def check_stores(store_url: str, clip_url: str, nodes: int) -> None:
    """Raise :class:`ConfigError` unless every process of a cluster of ``nodes`` nodes sees the same stores."""
    try:
        url = sa.make_url(store_url)
    except ArgumentError:
        raise ConfigError("store_url: this is not a SQLAlchemy URL", "store_url") from None
    check_clip_url(clip_url)
    embedded = url.get_backend_name() == "sqlite"
    if not embedded and url.drivername != "postgresql+asyncpg":
        raise ConfigError("store_url: must be sqlite+aiosqlite:///FILE or postgresql+asyncpg://...", "store_url")
    if embedded and (url.database in (None, "", ":memory:") or "mode=memory" in store_url):
        raise ConfigError("store_url: an SQLite database in memory is lost with its process: name a file", "store_url")
    if nodes <= 1:
        return
    if embedded:
        hint = "use postgresql+asyncpg://... (the file is on one node only)"
        raise ConfigError(f"store_url: SQLite cannot serve a Ray cluster of {nodes} nodes: {hint}", "store_url")
    if clip_directory(clip_url) is not None:
        hint = "use s3://, gs:// or az:// (the directory is on one node only)"
        raise ConfigError(f"clip_url: a directory cannot serve a Ray cluster of {nodes} nodes: {hint}", "clip_url")


def check_writable(store_url: str, clip_url: str) -> None:
    """Raise :class:`ConfigError` if a local store's directory cannot be made or written. Remote ones are not asked."""
    database = sqlite_path(store_url)
    places = {"store_url": database and database.parent, "clip_url": clip_directory(clip_url)}
    for field, directory in places.items():
        if directory is not None:
            _try_to_write(field, directory)


def _try_to_write(field: str, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(4096))
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"{field}: {directory} cannot be written: {error.strerror}", field) from error
