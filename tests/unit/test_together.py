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


async def test_an_answer_that_is_an_error_is_raised_to_its_asker_alone() -> None:
    async def halve(questions: list[int]) -> Sequence[int | Exception]:
        return [ValueError(f"{question} is odd") if question % 2 else question // 2 for question in questions]

    together = Together(halve)
    found = await asyncio.gather(*(together(question) for question in (2, 3, 4)), return_exceptions=True)
    assert [str(answer) for answer in found] == ["1", "3 is odd", "2"]


async def test_what_a_call_leaves_unanswered_goes_first_with_the_next() -> None:
    batches: list[list[int]] = []

    async def two_at_most(questions: list[int]) -> Sequence[int]:
        batches.append(questions)
        await asyncio.sleep(0.01)
        return questions[:2]

    together = Together(two_at_most)
    tasks = [asyncio.create_task(together(question)) for question in (1, 2, 3, 4, 5)]
    await asyncio.sleep(0.005)
    tasks.append(asyncio.create_task(together(6)))
    assert await asyncio.gather(*tasks) == [1, 2, 3, 4, 5, 6]
    assert batches == [[1, 2, 3, 4, 5], [3, 4, 5, 6], [5, 6]]


async def test_a_long_call_holds_up_nobody_who_comes_after_it() -> None:
    doubler = _Doubler()
    together = Together(doubler, patience_seconds=0.02)
    tasks = [asyncio.create_task(together(1))]
    await asyncio.sleep(0.01)
    tasks += [asyncio.create_task(together(question)) for question in (2, 3)]
    await asyncio.sleep(0.005)
    assert doubler.batches == [[1]]
    await asyncio.sleep(0.03)
    assert doubler.batches == [[1], [2, 3]]
    doubler.may_answer.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6]


async def test_who_gives_up_before_the_call_is_not_asked_for() -> None:
    doubler = _Doubler()
    _, tasks = await _asked(doubler, [1, 2, 3])
    tasks[1].cancel()
    doubler.may_answer.set()
    assert (await tasks[0], await tasks[2]) == (2, 6)
    assert doubler.batches == [[1], [3]]


async def test_who_is_on_the_way_goes_with_the_first_call_if_it_gathers() -> None:
    doubler = _Doubler()
    doubler.may_answer.set()
    together = Together(doubler, gather_turns=3)

    async def after(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await together(turns)

    assert await asyncio.gather(*map(after, (1, 3, 5, 20))) == [2, 6, 10, 40]
    assert doubler.batches == [[1, 3, 5], [20]]


async def test_a_crowd_without_an_end_does_not_hold_the_call_up() -> None:
    doubler = _Doubler()
    doubler.may_answer.set()
    together = Together(doubler, gather_turns=3)
    tasks = []
    while not doubler.batches and len(tasks) < 1_000_000:
        tasks.append(asyncio.create_task(together(len(tasks))))
        await asyncio.sleep(0)
    assert 3 < len(doubler.batches[0]) < 1_000_000
    assert await asyncio.gather(*tasks) == [2 * number for number in range(len(tasks))]
