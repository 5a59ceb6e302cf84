"""Database engines: one that reads outside transactions, one that writes inside them."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

BUSY_TIMEOUT_MS = 10_000
"""How long an SQLite writer waits for another before the store counts as unavailable."""


def open_engines(store_url: str) -> tuple[AsyncEngine, AsyncEngine]:
    """Engines ``(reading, writing)`` for the URL; connections are made at first use."""
    if sa.make_url(store_url).get_backend_name() == "sqlite":
        reading = create_async_engine(store_url, isolation_level="AUTOCOMMIT", pool_size=4)
        # One writer per process: a second one would only wait for the first, and wait badly (SQLite polls).
        writing = create_async_engine(store_url, pool_size=1, max_overflow=0)
        event.listen(reading.sync_engine, "connect", _configure_sqlite)
        event.listen(writing.sync_engine, "connect", _configure_sqlite)
        event.listen(writing.sync_engine, "begin", _begin_immediate)
        return reading, writing
    reading = create_async_engine(store_url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
    return reading, create_async_engine(store_url, pool_pre_ping=True)


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # Autocommit at the driver: transactions are opened by _begin_immediate alone.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: sa.Connection) -> None:
    """Take the write lock at once: a transaction that reads first and then writes could fail half-way."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
