"""One call for many callers: what a call costs (an actor's: 0.5 to 2 ms of CPU, a thread's: 0.1 ms and a fight for the
interpreter) does not depend on how much travels with it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

GATHER_SECONDS = 0.03
"""The longest that a call is held back for those who are on their way to it."""

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Together(Generic[Question, Answer]):
    """Questions that come up while a call is under way go with the next one. One alone goes at once.

    ``ask`` answers several questions in their order; what it raises is raised to all who asked with that call, an
    answer that is an exception to the one whose answer it is. Who gives up before the call is not asked for. It may
    answer only the first ones, at least one: the others go first with the next call. A call that takes longer than
    ``patience_seconds`` holds nobody up who comes after it: others are made beside it.

    With ``gather_turns`` no call begins before nobody has come for so many turns of the event loop (some microseconds
    each if there is nothing else to do), or :data:`GATHER_SECONDS` have passed.
    """

    def __init__(
        self,
        ask: Callable[[list[Question]], Awaitable[Sequence[Answer | Exception]]],
        *,
        patience_seconds: float | None = None,
        gather_turns: int = 0,
    ) -> None:
        self._ask = ask
        self._gather_turns = gather_turns
        self._patience_seconds = patience_seconds
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._asking: asyncio.Task[None] | None = None
        self._slow: set[asyncio.Task[None]] = set()

    async def __call__(self, question: Question) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        self._go_on()
        return await future

    def _go_on(self) -> None:
        if self._asking is None and self._waiting:
            self._asking = asyncio.create_task(self._ask_all())

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                batch = [(question, future) for question, future in self._waiting if not future.done()]
                self._waiting = []
                if self._patience_seconds is None:
                    await self._ask_batch(batch)
                else:
                    await self._ask_patiently(batch, self._patience_seconds)
        finally:
            self._asking = None

    async def _gather(self) -> None:
        quiet, until = 0, time.monotonic() + GATHER_SECONDS
        while quiet < self._gather_turns and time.monotonic() < until:
            waiting = len(self._waiting)
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._waiting) == waiting else 0

    async def _ask_patiently(self, batch: list[tuple[Question, asyncio.Future[Answer]]], seconds: float) -> None:
        call = asyncio.create_task(self._ask_batch(batch))
        self._slow.add(call)
        call.add_done_callback(self._slow.discard)
        await asyncio.wait({call}, timeout=seconds)

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
        for (_, future), found in zip(batch, answers, strict=False):
            if future.done():  # who has given up meanwhile is not told
                continue
            if isinstance(found, Exception):
                future.set_exception(found)
            else:
                future.set_result(found)
        self._waiting[:0] = batch[len(answers) :]
        self._go_on()
