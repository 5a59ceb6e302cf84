"""The first chunk of a job, spoken by the door: if its listener waits, while the job is committed and gets its actor.

From a worker the first words come 80 ms later (measured): it begins when the job has gone through the store, the
directory and its actor, and what it has spoken comes back through the stores and the actor. So the door does for this
one chunk what a worker does, and its listeners get the take at once. The job gets it as it gets every other: the clip
is stored, then the job's actor is told, which alone writes rows. Meanwhile the actor leaves this chunk to the door for
as long as it hears that it is at work; if the door dies, a worker looks for the clip and speaks it if there is none
(``awaited.py``). If a door is taken for dead that was only slow, two takes may be spoken: the one that is stored first
counts, and a listener who has heard the other is cut off, to ask again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Self

import structlog

from tts_actors import tracing
from tts_actors.audio import pause_samples
from tts_actors.chunk_worker import WorkerTools, synthesize_chunks
from tts_actors.errors import DirectoryUnavailable
from tts_actors.live import LiveAudio
from tts_actors.logs import place_of
from tts_actors.messages import SliceOrder
from tts_actors.models import ChunkResult, Clip, JobRecord, NewJob
from tts_actors.orders import words_for
from tts_actors.outputs import Segment
from tts_actors.protocols import Directory

ANSWER_SECONDS = 0.025
"""How long a job that nobody listens to yet is left alone: its caller is answered first."""

AT_WORK_SECONDS = 0.5
"""How often the actor is told that the chunk is being spoken. What it answers ends the call when the job is over."""

GONE_SECONDS = 2.0
"""An actor that was not reached for so long is gone, with the job or without it; no other one waits for the door."""

TELL_SECONDS = 10.0
"""How long an actor is told the result that cannot be reached: it has been replaced by then, by one that looks for the
clip."""

TELL_AGAIN_SECONDS = 0.2

CALLS = 2
"""At once: the one that is meant, and another if it is hedged."""

log = structlog.get_logger()


class Opening:
    """Speaks the first chunk of a job that is about to be committed, or has just been. Leaving its context without
    :meth:`hand_over` gives it up.
    """

    def __init__(
        self,
        job: NewJob,
        tools: Callable[[], Awaitable[WorkerTools]],
        directory: Directory,
        live: LiveAudio,
        *,
        after_seconds: float = 0.0,
    ) -> None:
        self._job = job
        self._tools = tools
        self._directory = directory
        self._live = live
        self._after_seconds = after_seconds
        self._committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._traceparent = tracing.traceparent()
        self._reached_at = time.monotonic()
        self.task = asyncio.create_task(self._run())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._committed.done():
            self.task.cancel()

    def hand_over(self, record: JobRecord) -> bool:
        """The job is committed. True if it was committed as claimed: then its actor is to wait for the first chunk."""
        if record.epoch:
            self._committed.set_result(None)
        return bool(record.epoch)

    async def _run(self) -> None:
        await asyncio.sleep(self._after_seconds)
        with self._live.opening(self._job.id) as let_hear:
            speaking = asyncio.create_task(self._speak(let_hear))
            try:
                await self._committed
                while not speaking.done():
                    await asyncio.wait({speaking}, timeout=AT_WORK_SECONDS)
                    if not speaking.done() and not await self._is_wanted():
                        return
                await self._tell(speaking.result())
            except Exception as error:  # noqa: BLE001 - the boundary of the door's part: a worker takes it over
                log.error("opening_failed", job_id=self._job.id, kind=type(error).__name__, place=place_of(error))
            finally:
                speaking.cancel()
                await asyncio.wait({speaking})

    async def _speak(self, let_hear: Callable[[Segment], None]) -> ChunkResult:
        job = self._job
        span = job.plan.spans[0]
        pause = pause_samples(span.boundary, speed=job.request.speed)

        async def hear(clip: Clip, wav: bytes) -> None:
            await self._committed  # nothing is heard, or stored, of a job that there is not
            let_hear(Segment(span.index, clip, pause, wav))

        order = SliceOrder(
            job_id=job.id,
            epoch=0,
            deadline_at_ms=job.created_at_ms + job.plan.run_timeout_ms,
            request=job.request,
            pieces=((span.index, span.characters, words_for(job.request)(job.text[span.char_start : span.char_end])),),
            timeouts=job.plan.timeouts,
            max_in_flight=CALLS,
            adopt=False,
            traceparent=self._traceparent,
        )
        results = [progress async for progress in synthesize_chunks(order, await self._tools(), hear)]
        return results[0].results[0]

    async def _is_wanted(self) -> bool:
        try:
            wanted = await self._directory.opening(self._job.id, None)
        except DirectoryUnavailable:
            return time.monotonic() < self._reached_at + GONE_SECONDS
        self._reached_at = time.monotonic()
        return wanted

    async def _tell(self, result: ChunkResult) -> None:
        give_up = time.monotonic() + TELL_SECONDS
        while time.monotonic() < give_up:
            try:
                await self._directory.opening(self._job.id, result)
            except DirectoryUnavailable:
                await asyncio.sleep(TELL_AGAIN_SECONDS)
            else:
                return
