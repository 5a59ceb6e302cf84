"""A job's first chunk while the door speaks it: what the job's actor knows of it.

The other side is ``opening.py``.
"""

import asyncio
import math
import time

from tts_actors.models import ChunkResult

SILENT_SECONDS = 5.0
"""A door that was not heard of for so long has died: ten times as long as it says nothing by itself."""


class AwaitedChunk:
    """A chunk that somebody else speaks, who says so again and again."""

    def __init__(self) -> None:
        self._heard = asyncio.Event()
        self._heard_at = time.monotonic()
        self._result: ChunkResult | None = None

    def hear(self, result: ChunkResult | None) -> None:
        """Take the result, or that it is being worked on."""
        self._result = self._result or result
        self._heard_at = time.monotonic()
        self._heard.set()

    def give_up(self) -> None:
        """Nobody needs the result any more."""
        self._heard_at = -math.inf
        self._heard.set()

    async def result(self) -> ChunkResult | None:
        """The result; None once nothing was heard for :data:`SILENT_SECONDS`, or it was given up."""
        while self._result is None:
            self._heard.clear()
            try:
                async with asyncio.timeout(self._heard_at + SILENT_SECONDS - time.monotonic()):
                    await self._heard.wait()
            except TimeoutError:
                return None
        return self._result
