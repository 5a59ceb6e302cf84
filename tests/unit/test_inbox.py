"""Several streams read beside their owner's work."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from tts_actors.inbox import Inbox


async def numbers(*values: int, error: Exception | None = None) -> AsyncGenerator[int]:
    for value in values:
        yield value
    if error is not None:
        raise error


async def test_what_comes_meanwhile_comes_together() -> None:
    inbox: Inbox[int] = Inbox()
    batches = []
    async with aclosing(inbox.batches([numbers(1, 2), numbers(3)])) as found:
        async for batch in found:
            batches.append(sorted(batch))
            await asyncio.sleep(0.01)
    assert batches[0] == [1, 2, 3]
    assert sorted(value for batch in batches for value in batch) == [1, 2, 3]


async def test_an_error_comes_behind_what_came_before_it_and_ends_the_others() -> None:
    inbox: Inbox[int] = Inbox()
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[int]:
        try:
            yield 7
            await asyncio.Event().wait()
        finally:
            closed.set()

    seen: list[int] = []

    async def read() -> None:
        async with aclosing(inbox.batches([numbers(1, error=RuntimeError("lost")), endless()])) as found:
            async for batch in found:
                seen.extend(batch)

    with pytest.raises(RuntimeError, match="lost"):
        await read()
    assert sorted(seen) == [1, 7]
    assert closed.is_set()


async def test_a_wake_up_brings_an_empty_batch() -> None:
    inbox: Inbox[int] = Inbox()

    async def silent() -> AsyncGenerator[int]:
        await asyncio.Event().wait()
        yield 0

    async with aclosing(inbox.batches([silent()])) as found:
        inbox.wake()
        assert await anext(found) == []
