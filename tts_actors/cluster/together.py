"""One call for many callers: an actor call costs its sender 0.5 to 2 ms of CPU, whatever travels with it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Together(Generic[Question, Answer]):
    """Questions that come up while a call is under way go with the next one. One alone goes at once.

    ``ask`` answers several questions in their order; what it raises is raised to all who asked with that call.
    """

    def __init__(self, ask: Callable[[list[Question]], Awaitable[Sequence[Answer]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def __call__(self, question: Question) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())
        return await future

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._ask_batch(batch)
        finally:
            self._asking = None

    async def _ask_batch(self, batch: list[tuple[Question, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._ask([question for question, _ in batch])
        except BaseException as error:  # handed on to those who asked
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), found in zip(batch, answers, strict=True):
            if not future.done():  # who has given up meanwhile is not told
                future.set_result(found)
