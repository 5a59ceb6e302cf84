"""Database access: plain functions on a connection, run where they do not block the event loop.

A store operation is one function, so it is one hop: SQLite's runs in a thread with the standard driver, PostgreSQL's on
asyncpg. (Through aiosqlite every step of a read, cursor, execute, fetch, close, is a hop of its own.)
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy import event

T = TypeVar("T")

BUSY_TIMEOUT_MS = 10_000
"""How long an SQLite writer waits for another before the store counts as unavailable."""

READERS = 4
"""Threads that read SQLite: readers do not wait for the writer (WAL), and more than cores would only switch."""


class Database(Protocol):
    """Runs functions on connections: ``read`` outside a transaction, ``write`` inside one that commits at the end."""

    async def read(self, operation: Callable[[sa.Connection], T]) -> T: ...

    async def write(self, operation: Callable[[sa.Connection], T]) -> T: ...

    async def close(self) -> None: ...


def open_database(store_url: str) -> Database:
    """The database of the URL; connections are made at first use."""
    if sa.make_url(store_url).get_backend_name() == "sqlite":
        return SqliteDatabase(store_url)
    return AsyncDatabase(store_url)


class SqliteDatabase:
    """SQLite in WAL mode: every commit reaches the disk before it is answered (``synchronous=FULL``)."""

    def __init__(self, store_url: str) -> None:
        url = sa.make_url(store_url).set(drivername="sqlite")
        self._engine = sa.create_engine(url, pool_size=READERS + 1, pool_reset_on_return=None)
        event.listen(self._engine, "connect", _configure_sqlite)
        self._readers = ThreadPoolExecutor(READERS, "sqlite-read")
        # One writer a process: a second one would only wait for the first, and wait badly (SQLite polls).
        self._writer = ThreadPoolExecutor(1, "sqlite-write")
        self._local = threading.local()

    async def read(self, operation: Callable[[sa.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._run, operation)

    async def write(self, operation: Callable[[sa.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._transact, operation)

    async def close(self) -> None:
        for executor in (self._readers, self._writer):
            await asyncio.to_thread(executor.shutdown)
        self._engine.dispose()

    def _run(self, operation: Callable[[sa.Connection], T]) -> T:
        return operation(self._connection())

    def _transact(self, operation: Callable[[sa.Connection], T]) -> T:
        connection = self._connection()
        # At once the write lock: a transaction that reads first and then writes could fail half-way.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            result = operation(connection)
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")
        return result

    def _connection(self) -> sa.Connection:
        """This thread's own connection, kept open: opening one costs more than a read."""
        connection: sa.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._local.connection = connection
        return connection


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class AsyncDatabase:
    """A database server through SQLAlchemy's asyncio engine."""

    def __init__(self, store_url: str) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        self._engine = create_async_engine(store_url, pool_pre_ping=True)
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    async def read(self, operation: Callable[[sa.Connection], T]) -> T:
        async with self._reading.connect() as connection:
            return await connection.run_sync(operation)

    async def write(self, operation: Callable[[sa.Connection], T]) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(operation)

    async def close(self) -> None:
        await self._engine.dispose()
