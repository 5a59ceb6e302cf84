"""One short text, one backend call, no job: same timeout, retry, lease and take check as a chunk of a job."""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable

from tts_actors.admission import check_accepting
from tts_actors.audio import pcm_of_wav
from tts_actors.chunk_worker import CallContext, Piece, WorkerTools, call_backend_tts
from tts_actors.config import AppArgs
from tts_actors.errors import BackendError, InvalidRequest, RequestTooLarge
from tts_actors.models import Clip, SpeechRequest
from tts_actors.text import check_text, spoken_text

NO_JOB = "-"
"""Stands for a job id towards the backend pool: all single calls share one turn."""

CALLS = 2
"""At once: the one that is meant, and another if it is hedged."""


class SingleCall:
    """Speaks texts that fit in one call. ``tools`` gives the open connections and the pool, ``draining`` says whether
    the service takes no new work.
    """

    def __init__(
        self,
        args: AppArgs,
        tools: Callable[[], Awaitable[WorkerTools]],
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._timeouts = args.timeouts.policy()
        self._retry = args.retry.policy()
        self._tools = tools
        self._draining = draining

    async def speak(self, request: SpeechRequest, text: str) -> tuple[bytes, int]:
        """A WAV file and the timeout that bounded each attempt, milliseconds.

        Raises :class:`InvalidRequest` for text with nothing to say, :class:`RequestTooLarge` for text that no backend
        takes in one call, :class:`Draining`, and :class:`BackendError` when the call failed for good.
        """
        check_accepting(self._draining())
        check_text(text)
        spoken = spoken_text(text)
        if not spoken:
            raise InvalidRequest("text has only whitespace and control characters", "text")
        tools = await self._tools()
        route = tools.catalog.route(request.model, request.voice)
        if len(text) > route.chunk_characters:
            raise RequestTooLarge(
                f"the text has {len(text)} characters; one call takes {route.chunk_characters}: make a job", "text"
            )
        taken = b""

        async def keep(wav: bytes) -> Clip:
            nonlocal taken
            taken = wav
            return Clip("", len(pcm_of_wav(wav)), "")  # nobody will look for it: no checksum

        deadline_at_ms = int(time.time() * 1_000) + self._retry.longest_ms(self._timeouts.timeout_ms(len(text)))
        request = dataclasses.replace(route.settled(request), patient=False)
        context = CallContext(NO_JOB, request, route, self._timeouts, deadline_at_ms, tools, asyncio.Semaphore(CALLS))
        result = await call_backend_tts(Piece(0, len(text), spoken), context, keep)
        if result.error is not None:
            last = result.attempts[-1] if result.attempts else None
            kind = last.outcome if last else "timeout"
            raise BackendError(result.error, kind, last.status if last else None, False)
        return taken, result.timeout_ms
