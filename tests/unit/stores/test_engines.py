"""SQLite's reads and writes go together, and yet each is as if it were alone."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.unit.jobs import NOW_MS, new_job
from tts_actors.errors import QueueFull
from tts_actors.models import Backlog, Claim
from tts_actors.stores import engines, operations
from tts_actors.stores.engines import SqliteDatabase
from tts_actors.stores.migrate import migrate

WAIT_SECONDS = 20.0


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    opened = SqliteDatabase(f"sqlite:///{tmp_path}/numbers.db", None)
    await opened.write(lambda connection: connection.exec_driver_sql("CREATE TABLE numbers (n INTEGER PRIMARY KEY)"))
    yield opened
    await opened.close()


def insert(*numbers: int) -> Callable[[sa.Connection], int]:
    def operation(connection: sa.Connection) -> int:
        for number in numbers:
            connection.exec_driver_sql("INSERT INTO numbers VALUES (?)", (number,))
        return len(numbers)

    return operation


async def numbers(database: SqliteDatabase) -> list[int]:
    return await database.read(
        lambda connection: list(connection.exec_driver_sql("SELECT n FROM numbers ORDER BY n").scalars())
    )


class Held:
    """An operation that keeps its thread until it is let go."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self, _: sa.Connection) -> None:
        self.begun.set()
        assert self.may_end.wait(WAIT_SECONDS)

    async def holds(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, WAIT_SECONDS)


async def _behind_a_slow_write(
    database: SqliteDatabase, operations: list[Callable[[sa.Connection], Any]]
) -> tuple[list[Any], int]:
    """What came of operations that arrive during a write, and how many transactions they took."""
    held, begun = Held(), 0

    def count(_: Any, __: Any, statement: str, *___: Any) -> None:
        nonlocal begun
        begun += statement == "BEGIN IMMEDIATE"

    slow = asyncio.create_task(database.write(held))
    await held.holds()
    sa.event.listen(database._engine, "before_cursor_execute", count)
    waiting = [asyncio.create_task(database.write(operation)) for operation in operations]
    await asyncio.sleep(0.05)
    held.may_end.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    await slow
    return answers, begun


async def test_writes_that_come_during_another_share_a_transaction(database: SqliteDatabase) -> None:
    answers, transactions = await _behind_a_slow_write(database, [insert(1), insert(2, 3), insert(4)])
    assert answers == [1, 2, 1]
    assert transactions == 1
    assert await numbers(database) == [1, 2, 3, 4]


async def test_a_write_that_fails_undoes_itself_and_no_other(database: SqliteDatabase) -> None:
    answers, transactions = await _behind_a_slow_write(database, [insert(1), insert(7, 1), insert(2)])
    assert (answers[0], answers[2], transactions) == (1, 1, 1)
    assert isinstance(answers[1], sa.exc.IntegrityError)
    assert await numbers(database) == [1, 2]


async def test_a_transaction_that_the_disk_ended_is_nobodys(database: SqliteDatabase) -> None:
    def full(connection: sa.Connection) -> None:
        connection.exec_driver_sql("ROLLBACK")  # as SQLite does by itself
        raise OSError("database or disk is full")

    answers, _ = await _behind_a_slow_write(database, [insert(1), full, insert(2)])
    assert [type(answer) for answer in answers] == [OSError] * 3
    assert await numbers(database) == []
    await database.write(insert(3))
    assert await numbers(database) == [3]


async def test_many_writes_do_not_keep_the_lock(database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tts_actors.stores.engines.TOGETHER_SECONDS", 0.0)
    answers, transactions = await _behind_a_slow_write(database, [insert(1), insert(2), insert(3)])
    assert (answers, transactions) == ([1, 1, 1], 3)


async def test_a_long_read_holds_up_no_other(database: SqliteDatabase) -> None:
    held = Held()
    long = asyncio.create_task(database.read(held))
    await held.holds()
    async with asyncio.timeout(WAIT_SECONDS / 2):
        assert await numbers(database) == []
    assert not long.done()
    held.may_end.set()
    await long


async def test_a_read_that_fails_is_nobody_elses_trouble(database: SqliteDatabase) -> None:
    def wrong(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SELECT * FROM letters")

    found = await asyncio.gather(database.read(wrong), numbers(database), return_exceptions=True)
    assert isinstance(found[0], sa.exc.OperationalError)
    assert found[1] == []


async def test_jobs_in_one_transaction_count_what_was_done_in_it_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "TOGETHER_SECONDS", WAIT_SECONDS)
    url = f"sqlite+aiosqlite:///{tmp_path}/jobs.db"
    await migrate(url)
    database, elsewhere = SqliteDatabase(url, WAIT_SECONDS), SqliteDatabase(url, WAIT_SECONDS)
    seen: list[int] = []

    def admit(backlog: Backlog) -> int:
        seen.append(backlog.queued)
        if len(seen) == 3:
            raise QueueFull("full")
        return 0

    def make(job_id: str, claim: Claim | None = None) -> Callable[[sa.Connection], Any]:
        return operations.create_job(new_job(job_id, claim=claim), admit)

    try:
        answers, transactions = await _behind_a_slow_write(
            database,
            [
                make("claimed", Claim("a", NOW_MS + 1_000)),  # goes straight to work
                make("one"),
                make("refused"),
                make("two"),
                make("one"),  # is there already
                make("three"),
                operations.claim("one", "a", NOW_MS, 1_000, only_due=False),
                make("four"),
            ],
        )
        await elsewhere.write(operations.claim("two", "a", NOW_MS, 1_000, only_due=False))
        await database.write(make("five"))
    finally:
        await database.close()
        await elsewhere.close()
    assert transactions == 1
    assert [isinstance(answer, Exception) for answer in answers] == [
        False,
        False,
        True,
        False,
        True,
        False,
        False,
        False,
    ]
    assert seen == [0, 0, 1, 1, 2, 2, 2, 2]
