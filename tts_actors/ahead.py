"""Files that will be asked for, encoded while their jobs are spoken: when a job has ended its file is nearly there.

Only a gain in time: a file that is not made here, for whatever reason, is made when somebody asks for it, from the same
clips by the same encoder. Must not know HTTP.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from tts_actors.errors import TtsError
from tts_actors.inputs import Inputs
from tts_actors.live import Track, follow
from tts_actors.logs import place_of
from tts_actors.models import JobRecord, OnChunkFailure
from tts_actors.outputs import Renderer, Segment
from tts_actors.protocols import Directory, JobStore
from tts_actors.states import TERMINAL

LOOK_SECONDS = 1.0
"""How often a job's news are looked at: each look costs an actor call and a read, and there is no hurry."""

WORTH_CHARACTERS = 5_000
"""Shorter texts are encoded within a second or so when asked for (five minutes of speech: 0.7 to 1.2 s as MP3)."""

NICENESS = 10
"""As the embedded engine's: what answers callers comes first. For a file that somebody waits for it no longer holds."""

log = structlog.get_logger()

_Key = tuple[str, int, str]
"""Job id, when it was made (an id may come again after a delete), format."""


def _key(job: JobRecord, fmt: str) -> _Key:
    return job.id, job.created_at_ms, fmt


class Ahead:
    """Encodes files of running jobs, ``at_once`` jobs at a time, in one thread of low priority; others wait in line."""

    def __init__(
        self, store: JobStore, directory: Directory, inputs: Inputs, renderer: Renderer, *, at_once: int
    ) -> None:
        self._store = store
        self._directory = directory
        self._inputs = inputs
        self._renderer = renderer
        self._slots = asyncio.Semaphore(at_once)
        self._thread = ThreadPoolExecutor(1, "encode-ahead", _step_back)
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._begun: set[_Key] = set()
        self._wanted: set[_Key] = set()

    def start(self, job: JobRecord) -> None:
        """Encode the file of a job that was just accepted, in its own format, if that is worth the trouble."""
        if job.request.response_format in ("wav", "pcm") or job.character_count < WORTH_CHARACTERS:
            return
        key = _key(job, job.request.response_format)
        self._tasks[key] = asyncio.create_task(self._in_turn(key))
        self._tasks[key].add_done_callback(lambda _: self._tasks.pop(key))

    async def settled(self, job: JobRecord, fmt: str, seconds: float) -> None:
        """Until the file is there or will not come from here; ``seconds`` at most."""
        key = _key(job, fmt)
        if key in self._begun:
            self._wanted.add(key)
            await asyncio.wait({self._tasks[key]}, timeout=seconds)

    async def _in_turn(self, key: _Key) -> None:
        """Jobs have their turn in the order in which they came, as they get actors."""
        async with self._slots:
            try:
                job = await self._store.get_job(key[0])
                if job is None or job.created_at_ms != key[1] or job.state in TERMINAL:
                    return
                self._begun.add(key)
                await self._encode(job, key)
            except TtsError as error:  # it ended without all of its audio, was deleted, or a store is away
                log.info("not_encoded_ahead", job_id=key[0], reason=error.code)
            except Exception as error:  # noqa: BLE001 - the boundary: a full disk, say, may not harm the job
                log.warning("not_encoded_ahead", job_id=key[0], kind=type(error).__name__, place=place_of(error))
            finally:
                self._begun.discard(key)
                self._wanted.discard(key)

    async def _encode(self, job: JobRecord, key: _Key) -> None:
        given = await self._inputs.of(job)
        track = Track(given, fills_gaps=job.request.on_chunk_failure is OnChunkFailure.SILENCE)
        news = follow(self._store, self._directory, job, 0, every_seconds=LOOK_SECONDS)
        following = asyncio.create_task(track.fill(news))
        try:
            await self._renderer.render(
                job.id,
                track.segments,
                job.request.response_format,
                coming=_batches(track),
                executor=lambda: None if key in self._wanted else self._thread,
            )
        finally:
            following.cancel()
            await asyncio.wait({following})


async def _batches(track: Track) -> AsyncGenerator[Sequence[Segment]]:
    """The track's segments as they come; raises what ends it early."""
    position = 0
    while batch := await track.batch(position):
        position += len(batch)
        yield batch


def _step_back() -> None:
    if sys.platform == "linux":  # where a thread has a priority of its own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
