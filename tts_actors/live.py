"""A job's audio while it is being rendered: chunks leave in index order, encoded once however many listen.

A :class:`Track` follows one job and lays its chunks out as they come. WAV and PCM need no encoder: every listener reads
the clips as fast as it takes them. Other formats have one encoder for all listeners of a job, which writes to a
temporary file that each reads from its start. What a listener does not take is not read for it, so memory per listener
is bounded by two blocks (``READ_BYTES``), and the encoder stays at most ``AHEAD_BYTES`` ahead of the fastest one.
It must not know HTTP.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from tts_actors.audio import open_encoder, wav_header
from tts_actors.errors import HasGaps, JobExpired, NotFound, RetryLater, StoreUnavailable, TtsError
from tts_actors.models import ChunkResult, JobInput, JobRecord, JobState
from tts_actors.outputs import JoinedOutput, Segment, lay_out
from tts_actors.protocols import ClipStore, Directory, JobStore
from tts_actors.states import TERMINAL

T = TypeVar("T")

LOOK_AGAIN_SECONDS = 5.0
"""A follower looks into the store at least this often: the actor that it listens to may have been replaced."""

LINGER_SECONDS = 0.05
"""Once there is something to hear, news come at most this often: a look is an actor call, a read and a block for every
listener, and a job of short chunks has fifty commits a second."""

STORE_RETRY_SECONDS = 0.5
"""Pause before a follower asks a store again that was away."""

AHEAD_BYTES = 8 * 2**20
"""How far an encoder runs ahead of its fastest listener: 17 minutes of MP3."""

BLOCK_BYTES = 256 * 1024
"""Encoded bytes read at once for one listener."""


@dataclass(frozen=True, slots=True)
class News:
    """What has happened to a job since an earlier look: results with the version they came with, in that order."""

    job: JobRecord
    results: tuple[tuple[int, ChunkResult], ...]


async def follow(
    store: JobStore, directory: Directory, job: JobRecord, since: int, *, every_seconds: float = LINGER_SECONDS
) -> AsyncGenerator[News]:
    """News of the job after version ``since``, at once if there are any, until it has ended.

    From the first chunk on they come once in ``every_seconds``. The last news has a terminal state. Raises
    :class:`NotFound` when the job is deleted meanwhile and :class:`JobExpired` when its life is over. A store that is
    away is waited for.
    """
    created_at_ms = job.created_at_ms
    linger_seconds = 0.0
    while True:
        try:
            found = await store.get_news(job.id, since)
        except RetryLater:
            await asyncio.sleep(STORE_RETRY_SECONDS)
            continue
        if found is None or found[0].created_at_ms != created_at_ms:
            raise NotFound("the job was deleted", "job_id")
        job, results = found
        if job.state is JobState.EXPIRED:
            raise JobExpired("the job has expired and its audio is gone", "job_id")
        if job.version > since:
            yield News(job, tuple(results))
            since = job.version
            linger_seconds = every_seconds if job.chunks_completed else 0.0
        if job.state in TERMINAL:
            return
        await directory.wait(job.id, since, LOOK_AGAIN_SECONDS, linger_seconds=linger_seconds)


class Signal:
    """Wakes everybody who waits for it. Look first, then wait: nothing can happen between the two."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def send(self) -> None:
        """Wake who waits now."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Until the next :meth:`send`."""
        await self._event.wait()


class Track:
    """The segments of one job in text order, as far as they are known without a hole.

    It ends when the job has, so that who has heard all of it finds it finished. With ``fills_gaps`` a chunk that failed
    becomes a gap, without it the track ends there with :class:`HasGaps`. ``error`` is why the track ended early.
    """

    def __init__(self, given: JobInput, *, fills_gaps: bool) -> None:
        self._spans = given.plan.spans
        self._fills_gaps = fills_gaps
        self._results: dict[int, ChunkResult] = {}
        self.segments: list[Segment] = []
        self._early = False
        self.ended = False
        self.error: TtsError | None = None
        self.changed = Signal()

    def begin(self, first: Segment) -> None:
        """Take the first segment from the one who speaks it, ahead of the news that its clip is stored."""
        if not self.segments and not self.ended:
            self._early = True
            self.segments.append(first)
            self.changed.send()

    async def fill(self, news: AsyncGenerator[News]) -> None:
        """Lay out what comes until the job has ended."""
        try:
            async with contextlib.aclosing(news):
                async for item in news:
                    self._take(item)
                    if self.ended:
                        return
        except TtsError as error:
            self._end(error)
        finally:
            if not self.ended:  # nobody may wait for ever, whatever went wrong
                self._end(StoreUnavailable("the job could not be followed to its end"))

    def _take(self, news: News) -> None:
        self._results.update((result.index, result) for _, result in news.results)
        over = news.job.state in TERMINAL
        if not self._begins_as_heard(over=over):
            self._end(StoreUnavailable("the take that was heard is not the one that was stored"))
            return
        while len(self.segments) < len(self._spans):
            index = len(self.segments)
            result = self._results.pop(index, None)
            if result is None and not over:
                break
            if (result is None or result.clip is None) and not self._fills_gaps:
                reason = (result and result.error) or f"the job ended {news.job.state.value}"
                self._end(HasGaps(f"chunk {index} is missing: {reason}", "gaps"))
                return
            self.segments += lay_out([self._spans[index]], [result] if result else [], news.job.request.speed)
        if over:
            nothing = all(segment.clip is None for segment in self.segments)
            self._end(HasGaps("nothing of this job was spoken", "gaps") if nothing else None)
        self.changed.send()

    def _begins_as_heard(self, *, over: bool) -> bool:
        """A first segment that was heard early is the stored one, unless its speaker was given up for dead."""
        stored = self._results.get(0)
        if not self._early or (stored is None and not over):
            return True
        return stored is not None and stored.clip == self.segments[0].clip

    def _end(self, error: TtsError | None) -> None:
        self.ended, self.error = True, error
        self.changed.send()

    async def batch(self, position: int) -> list[Segment]:
        """The segments from ``position`` on, waiting for at least one; empty at the end. Raises the track's error."""
        while True:
            if position < len(self.segments):
                return self.segments[position:]
            if self.error is not None:
                raise self.error
            if self.ended:
                return []
            await self.changed.wait()


async def joined_live(track: Track, fmt: str, clips: ClipStore) -> AsyncGenerator[bytes]:
    """A ``wav`` (with streaming sizes) or ``pcm`` body from a track; raises the track's error at the hole."""
    head = wav_header(None) if fmt == "wav" else b""
    position = 0
    while batch := await track.batch(position):
        position += len(batch)
        output = JoinedOutput(batch, "pcm", clips)
        async for block in output.read(0, output.size):
            yield head + block
            head = b""


class Spool:
    """One encoder's bytes in a temporary file: written once, read by any number of listeners from any byte."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close()
        self._size = 0
        self._furthest = 0
        self._ended = False
        self._error: TtsError | None = None
        self._grown = Signal()
        self._taken = Signal()

    async def fill(self, track: Track, fmt: str, clips: ClipStore) -> None:
        """Encode the track as it grows, never too far ahead of the fastest listener."""
        try:
            encoder = open_encoder(fmt)
            async for block in joined_live(track, "pcm", clips):
                await self._append(await asyncio.to_thread(encoder.feed, np.frombuffer(block, "<i2")))
            await self._append(await asyncio.to_thread(encoder.finish))
            self._ended = True
        except TtsError as error:
            self._error = error
        finally:
            if not self._ended and self._error is None:  # nobody may wait for ever, whatever went wrong
                self._error = StoreUnavailable("the audio could not be encoded")
            self._grown.send()

    async def _append(self, data: bytes) -> None:
        if data:
            # Not in a thread: a cancelled one would go on writing, into whatever has the descriptor by then. The page
            # cache takes a block in well under a millisecond.
            view = memoryview(data)
            while view:
                view = view[os.write(self._file.fileno(), view) :]
            self._size += len(data)
            self._grown.send()
        while self._size > self._furthest + AHEAD_BYTES:
            await self._taken.wait()

    async def read(self) -> AsyncGenerator[bytes]:
        """All bytes from the first on, as they come; raises what ended the encoding early."""
        position = 0
        while True:
            if position < self._size:
                size = min(BLOCK_BYTES, self._size - position)
                block = os.pread(self._file.fileno(), size, position)
                position += len(block)
                self._furthest = max(self._furthest, position)
                self._taken.send()
                yield block
            elif self._error is not None:
                raise self._error
            elif self._ended:
                return
            else:
                await self._grown.wait()

    def close(self) -> None:
        """Free the file's space."""
        self._file.close()


class _Shared(Generic[T]):
    """Something with a task that works on it, and how many use it; the last one takes both along."""

    def __init__(self, value: T, task: asyncio.Task[None]) -> None:
        self.value = value
        self.task = task
        self.users = 0

    def leave(self) -> bool:
        """One user fewer; True if it was the last. Nothing is waited for: who leaves is often being cancelled."""
        self.users -= 1
        if not self.users:
            self.task.cancel()
        return not self.users


_TrackKey = tuple[str, int, bool]


class LiveAudio:
    """Hands out live bodies; whatever listens to the same job here shares its track and, by format, its encoder."""

    def __init__(self, store: JobStore, clips: ClipStore, directory: Directory) -> None:
        self._store = store
        self._clips = clips
        self._directory = directory
        self._tracks: dict[_TrackKey, _Shared[Track]] = {}
        self._spools: dict[tuple[_TrackKey, str], _Shared[Spool]] = {}
        self._openings: dict[str, Segment] = {}

    @property
    def encoders(self) -> int:
        """Encoders at work or kept for a listener."""
        return len(self._spools)

    @contextlib.contextmanager
    def opening(self, job_id: str) -> Iterator[Callable[[Segment], None]]:
        """While it is open, what is put into it is the job's first segment for all who listen here."""

        def put(first: Segment) -> None:
            self._openings[job_id] = first
            for key, shared in self._tracks.items():
                if key[0] == job_id:
                    shared.value.begin(first)

        try:
            yield put
        finally:
            self._openings.pop(job_id, None)

    def has_listeners(self, job_id: str) -> bool:
        """If somebody listens to the job here."""
        return any(key[0] == job_id for key in self._tracks)

    async def listen(self, job: JobRecord, given: JobInput, fmt: str, *, fills_gaps: bool) -> AsyncGenerator[bytes]:
        """The job's audio in ``fmt`` from its start, as it is rendered; the generator must be closed.

        Raises :class:`HasGaps` at a chunk that has failed unless ``fills_gaps``, and what the stores raise.
        """
        key = (job.id, job.created_at_ms, fills_gaps)
        async with self._track(key, job, given) as track:
            if fmt in ("wav", "pcm"):
                async with contextlib.aclosing(joined_live(track, fmt, self._clips)) as body:
                    async for block in body:
                        yield block
                return
            async with self._spool(key, track, fmt) as spool, contextlib.aclosing(spool.read()) as body:
                async for block in body:
                    yield block

    @contextlib.asynccontextmanager
    async def _track(self, key: _TrackKey, job: JobRecord, given: JobInput) -> AsyncIterator[Track]:
        shared = self._tracks.get(key)
        if shared is None:
            track = Track(given, fills_gaps=key[2])
            if (first := self._openings.get(job.id)) is not None:
                track.begin(first)
            task = asyncio.create_task(track.fill(follow(self._store, self._directory, job, 0)))
            shared = self._tracks[key] = _Shared(track, task)
        shared.users += 1
        try:
            yield shared.value
        finally:
            if shared.leave():
                del self._tracks[key]

    @contextlib.asynccontextmanager
    async def _spool(self, key: _TrackKey, track: Track, fmt: str) -> AsyncIterator[Spool]:
        shared = self._spools.get((key, fmt))
        if shared is None:
            spool = Spool()
            task = asyncio.create_task(spool.fill(track, fmt, self._clips))
            shared = self._spools[key, fmt] = _Shared(spool, task)
        shared.users += 1
        try:
            yield shared.value
        finally:
            if shared.leave():
                del self._spools[key, fmt]
                shared.task.add_done_callback(lambda _: shared.value.close())
