"""Callers that share a call: who comes while one is under way goes with the next, and each gets its own answer."""

import asyncio
from collections.abc import Sequence

import pytest

from tts_actors.errors import DirectoryUnavailable
from tts_actors.together import Together


class _Doubler:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_answer = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, questions: list[int]) -> Sequence[int]:
        self.batches.append(questions)
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return [2 * question for question in questions]


async def _asked(doubler: _Doubler, questions: Sequence[int]) -> tuple[Together[int, int], list[asyncio.Task[int]]]:
    """The first question is under way, the others wait for the next call."""
    together = Together(doubler)
    tasks = []
    for question in questions:
        tasks.append(asyncio.create_task(together(question)))
        await asyncio.sleep(0.01)
    return together, tasks


async def test_who_comes_during_a_call_shares_the_next_one() -> None:
    doubler = _Doubler()
    together, tasks = await _asked(doubler, [1, 2, 3, 4])
    assert doubler.batches == [[1]]
    doubler.may_answer.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
    assert doubler.batches == [[1], [2, 3, 4]]
    assert await together(5) == 10


async def test_an_error_is_told_to_all_who_asked_and_the_next_are_asked_for_again() -> None:
    doubler = _Doubler()
    together, tasks = await _asked(doubler, [1, 2, 3])
    doubler.error = DirectoryUnavailable("gone", 1.0)
    doubler.may_answer.set()
    for task in tasks:
        with pytest.raises(DirectoryUnavailable, match="gone"):
            await task
    doubler.error = None
    assert await together(4) == 8


async def test_who_gives_up_takes_nobody_along() -> None:
    doubler = _Doubler()
    _, tasks = await _asked(doubler, [1, 2, 3])
    tasks[0].cancel()
    tasks[1].cancel()
    doubler.may_answer.set()
    assert await tasks[2] == 6
