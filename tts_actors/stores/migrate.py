"""Brings a job store's schema to the version this code needs, through Alembic."""

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from tts_actors.errors import ConfigError
from tts_actors.stores.database_troubles import translated
from tts_actors.stores.engines import Database, open_database

MIGRATIONS = Path(__file__).parent / "migrations"


def sqlite_path(store_url: str) -> Path | None:
    """The database file of an SQLite URL, or None for another database."""
    url = sa.make_url(store_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database)


async def migrate(store_url: str) -> None:
    """Create or upgrade the schema; does nothing when it is current. Safe to call from several processes at once.

    Raises :class:`StoreUnavailable` if the database cannot be reached or written, and :class:`ConfigError` if a newer
    version of this package has upgraded it.
    """
    try:
        with translated():
            await _migrate(store_url)
    except CommandError as error:
        reason = "its schema is newer than this code: start the version that has written it, or restore a backup"
        raise ConfigError(f"store_url: {reason}", "store_url") from error


async def _migrate(store_url: str) -> None:
    path = sqlite_path(store_url)
    if path is None:
        await _upgrade(store_url)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".migrate-lock"), "w") as lock:  # noqa: ASYNC230 - one tiny local file
        # SQLite's DDL is transactional but Alembic's version check is not: one process at a time.
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        await _upgrade(store_url)


async def _upgrade(store_url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    needed = ScriptDirectory.from_config(config).get_current_head()
    # Nearly always there is nothing to do; and only an upgrade may last: a database that hangs is unavailable.
    async with _opened(store_url) as database:
        if await database.read(_revision) == needed:
            return

    def upgrade(connection: sa.Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async with _opened(store_url, bounded=False) as database:
        await database.write(upgrade, alone=True)


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@asynccontextmanager
async def _opened(store_url: str, *, bounded: bool = True) -> AsyncIterator[Database]:
    database = open_database(store_url, bounded=bounded)
    try:
        yield database
    finally:
        await database.close()
