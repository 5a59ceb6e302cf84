"""A finished job's audio as one file: a table of clips and silences, readable from any byte.

The stored clips are trimmed and faded, so joining is laying them side by side with pauses between. WAV and PCM outputs
are not stored: any range of them is put together from the clips. Compressed outputs are encoded once, by one encoder,
and kept beside the clips.
"""

import asyncio
import bisect
import hashlib
import itertools
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Protocol, cast

import numpy as np

from tts_actors.audio import (
    MEDIA_TYPES,
    WAV_HEADER_BYTES,
    Pcm,
    file_encoder,
    pause_samples,
    pcm_of_wav,
    wav_header,
)
from tts_actors.errors import NotFound, StoreUnavailable
from tts_actors.models import SAMPLE_RATE_HZ, ChunkResult, ChunkSpan, Clip
from tts_actors.protocols import ClipStore

BYTES_PER_SAMPLE = 2

GAP_SAMPLES = SAMPLE_RATE_HZ
"""Silence in the place of a failed chunk: one second, longer than any pause, so that a listener notices."""

READ_BYTES = 512 * 1024
"""Size of the pieces in which a file is handed on (at most twice this): bounds memory per reader."""

DAMAGE_RETRY_SECONDS = 60.0
"""What a caller is told to wait when a clip is missing or damaged: an operator may bring it back."""

ENCODER_VERSION = "1"
"""Part of every ETag: raise it when encoders or their settings change."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One chunk's place in the output: its clip (None: a gap) and the silence behind it, in samples.

    ``body`` is the clip's object if it is at hand; otherwise the clip store has it.
    """

    index: int
    clip: Clip | None
    pause_samples: int
    body: bytes | None = None

    @property
    def samples(self) -> int:
        """Length of the segment, pause included."""
        return (self.clip.samples if self.clip else GAP_SAMPLES) + self.pause_samples


class OutputFile(Protocol):
    """A file of known size that can be read from any byte."""

    media_type: str
    etag: str
    size: int

    def read(self, start: int, end: int) -> AsyncGenerator[bytes]:
        """Bytes ``[start, end)`` in pieces of at most twice ``READ_BYTES``."""


def lay_out(spans: Sequence[ChunkSpan], results: Sequence[ChunkResult], speed: float) -> list[Segment]:
    """Segments in text order, one a chunk. A chunk without a clip becomes a gap."""
    clips = {result.index: result.clip for result in results}
    return [Segment(span.index, clips.get(span.index), pause_samples(span.boundary, speed=speed)) for span in spans]


def output_etag(segments: Sequence[Segment], fmt: str) -> str:
    """A strong validator: equal for equal bytes, because clips are named by their content."""
    digest = hashlib.sha256(f"{ENCODER_VERSION}\0{fmt}".encode())
    for segment in segments:
        digest.update(f"\0{segment.clip.sha256 if segment.clip else 'gap'}:{segment.pause_samples}".encode())
    return digest.hexdigest()[:32]


class JoinedOutput:
    """A ``wav`` or ``pcm`` output: header, clips and silences, put together where it is read."""

    def __init__(self, segments: Sequence[Segment], fmt: str, clips: ClipStore) -> None:
        self._segments = list(segments)
        self._clips = clips
        self.media_type = MEDIA_TYPES[fmt]
        self.etag = output_etag(segments, fmt)
        samples = sum(segment.samples for segment in segments)
        self._header = wav_header(samples) if fmt == "wav" else b""
        self._starts = list(itertools.accumulate((s.samples for s in segments), initial=0))
        self.size = len(self._header) + samples * BYTES_PER_SAMPLE

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes]:
        # Every block handed on costs a message to the proxy, so short clips travel together; they are read together.
        reads: list[Awaitable[bytes]] = []
        size = 0
        for piece_size, piece in self._pieces(start, end):
            reads.append(piece)
            size += piece_size
            if size >= READ_BYTES:
                yield b"".join(await asyncio.gather(*reads))
                reads, size = [], 0
        if reads:
            yield b"".join(await asyncio.gather(*reads))

    def _pieces(self, start: int, end: int) -> Iterator[tuple[int, Awaitable[bytes]]]:
        """What ``[start, end)`` is made of: sizes, and the bytes to be had."""
        if start < len(self._header):
            header = self._header[start:end]
            yield len(header), _ready(header)
        first, last = max(0, start - len(self._header)), max(0, end - len(self._header))
        position = bisect.bisect_right(self._starts, first // BYTES_PER_SAMPLE) - 1
        while first < last:
            segment, base = self._segments[position], self._starts[position] * BYTES_PER_SAMPLE
            stop = min(last, base + segment.samples * BYTES_PER_SAMPLE)
            yield from self._segment(segment, first - base, stop - base)
            first, position = stop, position + 1

    def _segment(self, segment: Segment, start: int, end: int) -> Iterator[tuple[int, Awaitable[bytes]]]:
        spoken = (segment.clip.samples if segment.clip else 0) * BYTES_PER_SAMPLE
        while start < end:
            stop = min(end, start + READ_BYTES, spoken if start < spoken else end)
            if segment.clip is not None and start < spoken:
                yield stop - start, self._spoken(segment, start, stop, whole=start == 0 and stop == spoken)
            else:
                yield stop - start, _ready(bytes(stop - start))
            start = stop

    async def _spoken(self, segment: Segment, start: int, stop: int, *, whole: bool) -> bytes:
        """Samples of a clip; a clip read as a whole is checked against its row, a part of one by its size only."""
        clip = segment.clip
        assert clip is not None  # noqa: S101 - a gap has no clip to read
        if whole:
            return checked_clip(segment, segment.body or await self._clips.get(clip.key))[WAV_HEADER_BYTES:]
        data = await self._clips.get_range(clip.key, WAV_HEADER_BYTES + start, WAV_HEADER_BYTES + stop)
        if len(data) != stop - start:
            raise StoreUnavailable(f"the clip of chunk {segment.index} is damaged", DAMAGE_RETRY_SECONDS)
        return data


def checked_clip(segment: Segment, body: bytes | None) -> bytes:
    """The clip's object if it is the one that its row tells of; raises :class:`StoreUnavailable` otherwise."""
    if body is None:
        raise StoreUnavailable(f"the clip of chunk {segment.index} is missing", DAMAGE_RETRY_SECONDS)
    if segment.clip is None or hashlib.sha256(body).hexdigest() != segment.clip.sha256:
        raise StoreUnavailable(f"the clip of chunk {segment.index} is damaged", DAMAGE_RETRY_SECONDS)
    return body


async def _ready(data: bytes) -> bytes:
    return data


class StoredOutput:
    """A compressed output that lies in the clip store as one object."""

    def __init__(self, key: str, size: int, fmt: str, etag: str, clips: ClipStore) -> None:
        self._key = key
        self._clips = clips
        self.media_type = MEDIA_TYPES[fmt]
        self.etag = etag
        self.size = size

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes]:
        while start < end:
            stop = min(end, start + READ_BYTES)
            yield await self._clips.get_range(self._key, start, stop)
            start = stop


class Renderer:
    """Makes output files; each compressed one once, however many ask for it at the same time.

    ``is_gone`` says of a job id whether the job has been deleted or has expired: what was encoded meanwhile goes too.
    """

    def __init__(self, clips: ClipStore, is_gone: Callable[[str], Awaitable[bool]]) -> None:
        self._clips = clips
        self._is_gone = is_gone
        self._rendering: dict[str, asyncio.Task[int]] = {}

    async def output(self, job_id: str, segments: Sequence[Segment], fmt: str, wait_seconds: float) -> OutputFile:
        """The output file. Raises :class:`TimeoutError` if encoding it takes longer than ``wait_seconds``.

        The encoding goes on then: ask again.
        """
        if fmt in ("wav", "pcm"):
            return JoinedOutput(segments, fmt, self._clips)
        key = _key(job_id, segments, fmt)
        size = await self._clips.size(key)
        if size is None:
            task = self._rendering.get(key)
            if task is None:
                task = self._rendering[key] = asyncio.create_task(self.render(job_id, segments, fmt))
                task.add_done_callback(lambda _: self._rendering.pop(key, None))
            async with asyncio.timeout(wait_seconds):
                size = await asyncio.shield(task)
        return StoredOutput(key, size, fmt, output_etag(segments, fmt), self._clips)

    async def render(
        self,
        job_id: str,
        segments: Sequence[Segment],
        fmt: str,
        *,
        coming: AsyncIterable[Sequence[Segment]] | None = None,
        executor: Callable[[], Executor | None] = lambda: None,
    ) -> int:
        """Encode the file and keep it; its size. One clip is in memory at a time.

        With ``coming`` its segments are encoded as they come, and ``segments`` has them all when it has ended.
        ``executor`` says for each segment where to encode it: None is the loop's own.
        """
        # For the hours that a job may take the file has no name, and goes with its process however that ends. To be
        # stored it needs one: the number of a descriptor may mean another file by the time a slow store opens it.
        with tempfile.TemporaryFile() as file:
            with file_encoder(fmt, cast("BinaryIO", file)) as feed:
                async for batch in coming or _at_once(segments):
                    for segment in batch:
                        body = await self._clips.get(segment.clip.key) if segment.clip else None
                        await _in_thread(executor(), partial(_feed, feed, segment, body))
            file.seek(0)
            key = _key(job_id, segments, fmt)
            with tempfile.NamedTemporaryFile(suffix=f".{fmt}") as named:
                await _in_thread(executor(), partial(shutil.copyfileobj, file, named, READ_BYTES))
                named.flush()
                await self._clips.put_file(key, named.name)
        # Asked after the put: whoever removes a job clears its row before its files, so one of the two sees the other.
        if await self._is_gone(job_id):
            await self._clips.delete_prefix(job_id)
            raise NotFound("the job was removed while its file was encoded", "job_id")
        # Another process may have been first, and Ogg's serial numbers differ: what lies there now is what is served.
        size = await self._clips.size(key)
        if size is None:
            raise StoreUnavailable("the encoded file is missing", 5.0)
        return size


def _key(job_id: str, segments: Sequence[Segment], fmt: str) -> str:
    return f"{job_id}/outputs/{output_etag(segments, fmt)}.{fmt}"


async def _at_once(segments: Sequence[Segment]) -> AsyncGenerator[Sequence[Segment]]:
    yield segments


def _feed(feed: Callable[[Pcm], None], segment: Segment, body: bytes | None) -> None:
    silence = segment.pause_samples
    if segment.clip is None:
        silence += GAP_SAMPLES
    else:
        feed(pcm_of_wav(checked_clip(segment, body)))
    if silence:
        feed(np.zeros(silence, np.int16))


async def _in_thread(executor: Executor | None, work: Callable[[], None]) -> None:
    """Returns, or is cancelled, only when ``work`` has ended: what it works on may be closed then."""
    running = asyncio.get_running_loop().run_in_executor(executor, work)
    try:
        await asyncio.shield(running)
    finally:
        await asyncio.wait({running})


async def chunk_pcm(segment: Segment, clips: ClipStore) -> bytes:
    """A spoken chunk as little-endian s16, with its pause: all chunks one after the other are the ``pcm`` output."""
    assert segment.clip is not None  # noqa: S101 - spoken
    body = checked_clip(segment, await clips.get(segment.clip.key))
    return body[WAV_HEADER_BYTES:] + bytes(segment.pause_samples * BYTES_PER_SAMPLE)
