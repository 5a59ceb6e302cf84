"""Database access: plain functions on a connection, run where they do not block the event loop.

A store operation is one function, so it is one hop: SQLite's runs in a thread with the standard driver, PostgreSQL's on
asyncpg. (Through aiosqlite every step of a read, cursor, execute, fetch, close, is a hop of its own.)
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import event

from tts_actors.stores.notes import AFTER, BEFORE
from tts_actors.together import Together

T = TypeVar("T")

BUSY_TIMEOUT_MS = 10_000
"""How long an SQLite writer waits for another before the store counts as unavailable."""

COMMAND_SECONDS = 10.0
"""How long a database server may take for one statement before it counts as unavailable: some never answer."""

OPERATION_SECONDS = 20.0
"""How long a whole operation may take, the waiting for its turn included, before its caller is told that the store is
unavailable. What has not begun by then is dropped; what hangs in the middle may still be made: nobody can know."""

CONNECT_SECONDS = 5.0
"""How long opening a connection, or waiting for a free one, may take."""

POOL_SIZE = 2
"""Connections to a database server that a process keeps. Every job actor is a process and needs one; a server's default
is 100 in all."""

POOL_OVERFLOW = 8
"""Further connections while many requests come at once; they are closed afterwards."""

ADMISSION_LOCK = 0x7474_735F_6A6F_6273
"""PostgreSQL's advisory lock of this service ("tts_jobs"): one admission, or one migration, at a time."""

READERS = 4
"""Threads that read SQLite: readers do not wait for the writer (WAL). One is enough for short reads, which go together
(side by side they fight for the interpreter: 16 at once cost 0.5 ms of CPU each, together 0.25); the others are there
for those that come during a long one."""

LONG_READ_SECONDS = 0.02
"""Reads that come later than this after the ones under way do not wait for them."""

TOGETHER_SECONDS = 0.01
"""Reads, or writes, that go together are answered when they have taken so long, and one more; the rest goes next."""

GATHER_TURNS = 8
"""A write waits so many turns of the event loop for company. Without it the first of several requests has a transaction
of its own, and the writer fights for the interpreter with those that prepare the next one: 16 clients got 0.8 times the
jobs accepted a second, and waited 1.25 times as long (99th percentile). Fewer turns gain less."""


class Database(Protocol):
    """Runs functions on connections: ``read`` outside a transaction, ``write`` inside one that commits at the end.

    Between the start and the commit of a write that wants to be ``alone`` no other such write runs, in any process.
    """

    async def read(self, operation: Callable[[sa.Connection], T]) -> T: ...

    async def write(self, operation: Callable[[sa.Connection], T], *, alone: bool = False) -> T: ...

    async def close(self) -> None: ...


def open_database(store_url: str, *, bounded: bool = True) -> Database:
    """The database of the URL; connections are made at first use. Not ``bounded``, an operation may last for ever."""
    seconds = OPERATION_SECONDS if bounded else None
    if sa.make_url(store_url).get_backend_name() == "sqlite":
        return SqliteDatabase(store_url, seconds)
    return AsyncDatabase(store_url, seconds, COMMAND_SECONDS if bounded else None)


@dataclass(slots=True)
class _Asked:
    """An operation, and whether its caller has been told that the store is away: then it is not begun any more."""

    run: Callable[[sa.Connection], Any]
    given_up: bool = False


class SqliteDatabase:
    """SQLite in WAL mode: every commit reaches the disk before it is answered (``synchronous=FULL``)."""

    def __init__(self, store_url: str, seconds: float | None) -> None:
        self._seconds = seconds
        url = sa.make_url(store_url).set(drivername="sqlite")
        self._engine = sa.create_engine(url, pool_size=READERS + 1, pool_reset_on_return=None)
        event.listen(self._engine, "connect", _configure_sqlite)
        self._readers = ThreadPoolExecutor(READERS, "sqlite-read")
        self._reads: Together[_Asked, Any] = Together(self._read_all, patience_seconds=LONG_READ_SECONDS)
        # One writer a process: a second one would only wait for the first, and wait badly (SQLite polls).
        self._writer = ThreadPoolExecutor(1, "sqlite-write")
        self._writes: Together[_Asked, Any] = Together(self._write_all, gather_turns=GATHER_TURNS)
        self._local = threading.local()
        self._connections: list[sa.Connection] = []

    async def read(self, operation: Callable[[sa.Connection], T]) -> T:
        return await self._ask(self._reads, operation)

    async def write(self, operation: Callable[[sa.Connection], T], *, alone: bool = False) -> T:
        # SQLite has one writer at a time: each is alone.
        return await self._ask(self._writes, operation)

    async def _ask(self, together: "Together[_Asked, Any]", operation: Callable[[sa.Connection], T]) -> T:
        asked = _Asked(operation)
        try:
            async with asyncio.timeout(self._seconds):
                return cast(T, await together(asked))
        finally:
            asked.given_up = True

    async def close(self) -> None:
        for executor in (self._readers, self._writer):
            await asyncio.to_thread(executor.shutdown)
        for connection in self._connections:
            connection.close()
        self._engine.dispose()

    async def _read_all(self, operations: list[_Asked]) -> list[Any]:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._look, operations)

    async def _write_all(self, operations: list[_Asked]) -> list[Any]:
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._transact, operations)

    def _look(self, operations: list[_Asked]) -> list[Any]:
        connection = self._connection()

        def one(operation: _Asked) -> Any:
            try:
                return operation.run(connection)
            except Exception as error:  # noqa: BLE001 - raised to the one who asked
                return error

        return _in_time(operations, one)

    def _transact(self, operations: list[_Asked]) -> list[Any]:
        """One transaction, forced to the disk once; what one operation did before it failed is undone by itself."""
        connection = self._connection()
        raw = cast(sqlite3.Connection, connection.connection.driver_connection)
        connection.info.pop(AFTER, None)

        def one(operation: _Asked) -> Any:
            if operation.given_up:
                return None
            connection.info[BEFORE] = connection.info.pop(AFTER, None)
            if len(operations) == 1:
                return operation.run(connection)
            raw.execute("SAVEPOINT one")  # not through SQLAlchemy: 8 % of the time of a batch of new jobs
            try:
                return operation.run(connection)
            except Exception as error:
                if not raw.in_transaction:
                    raise  # a full disk: SQLite has undone all of them
                raw.execute("ROLLBACK TO one")
                return error
            finally:
                if raw.in_transaction:
                    raw.execute("RELEASE one")

        # At once the write lock: a transaction that reads first and then writes could fail half-way.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            answers = _in_time(operations, one)
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            # A full disk has rolled it back already, or has left a failed commit open.
            if raw.in_transaction:
                connection.exec_driver_sql("ROLLBACK")
            raise
        return answers

    def _connection(self) -> sa.Connection:
        """This thread's own connection, kept open: opening one costs more than a read."""
        connection: sa.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._local.connection = connection
            self._connections.append(connection)
        return connection


def _in_time(operations: list[_Asked], one: Callable[[_Asked], Any]) -> list[Any]:
    """The answers of ``one`` to the first operations, as many as there is time for."""
    answers: list[Any] = []
    until = time.monotonic() + TOGETHER_SECONDS
    for operation in operations:
        answers.append(one(operation))
        if time.monotonic() > until:
            break
    return answers


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class AsyncDatabase:
    """A database server through SQLAlchemy's asyncio engine, at PostgreSQL's READ COMMITTED.

    That is enough: every claim and every fenced write is one ``UPDATE`` whose condition PostgreSQL checks again on the
    newest row after waiting for another writer. Only admission counts rows of others; it runs ``alone``.
    """

    def __init__(self, store_url: str, seconds: float | None, command_seconds: float | None) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        self._seconds = seconds
        self._engine = create_async_engine(
            store_url,
            pool_size=POOL_SIZE,
            max_overflow=POOL_OVERFLOW,
            pool_timeout=CONNECT_SECONDS,
            pool_pre_ping=True,
            connect_args={"timeout": CONNECT_SECONDS, "command_timeout": command_seconds},
        )
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    async def read(self, operation: Callable[[sa.Connection], T]) -> T:
        async with asyncio.timeout(self._seconds), self._reading.connect() as connection:
            return await connection.run_sync(operation)

    async def write(self, operation: Callable[[sa.Connection], T], *, alone: bool = False) -> T:
        async with asyncio.timeout(self._seconds), self._engine.begin() as connection:
            if alone:
                # Held until the commit: the next one counts what this one has made.
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADMISSION_LOCK)))
            return await connection.run_sync(operation)

    async def close(self) -> None:
        await self._engine.dispose()
