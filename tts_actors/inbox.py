"""What the streams of a slice bring, in batches: what comes while one batch is worked on makes up the next."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Reads streams beside its owner's work."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Have a batch come at once, though there may be nothing in it."""
        self._news.set()

    async def batches(self, streams: Sequence[AsyncGenerator[T]]) -> AsyncGenerator[list[T]]:
        """Batches until all streams have ended. The first error of one of them is raised behind what came before it.

        Closing the generator closes the streams.
        """
        readers = [asyncio.create_task(self._read(stream)) for stream in streams]
        for reader in readers:
            reader.add_done_callback(lambda _: self._news.set())
        try:
            while self._items or not all(reader.done() for reader in readers):
                await self._news.wait()
                self._news.clear()
                batch, self._items = self._items, []
                yield batch
                if not self._items:
                    for reader in readers:
                        if reader.done():
                            reader.result()
        finally:
            self._items = []
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)

    async def _read(self, stream: AsyncGenerator[T]) -> None:
        async with contextlib.aclosing(stream):
            async for item in stream:
                self._items.append(item)
                self._news.set()
