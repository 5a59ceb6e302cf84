"""Speaks chunks: the only code that calls backends, and the only place where the timeout rule is applied.

Plain asyncio: it knows neither Ray nor the job store. A slice's results are streamed as they become ready and are
metadata only; the audio goes straight to the clip store.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

import structlog

from tts_actors import metrics, tracing
from tts_actors.attempts import Call, CallContext, Piece, WorkerTools, attempt_chunk
from tts_actors.audio import pcm_of_wav
from tts_actors.errors import RetryLater, TtsError
from tts_actors.logs import place_of
from tts_actors.messages import SliceOrder, SliceProgress
from tts_actors.models import Attempt, ChunkResult, Clip, Loudness, OnChunkFailure, SpeechRequest
from tts_actors.protocols import ClipStore
from tts_actors.retry import Course, NextAttempt

__all__ = [
    "CallContext",
    "Piece",
    "WorkerTools",
    "call_backend_tts",
    "clip_folder",
    "clip_key",
    "describe_clip",
    "judge_clip",
    "keep_clip",
    "synthesize_chunks",
]

T = TypeVar("T")

STORE_RETRY_SECONDS = 1.0
"""Pause between two tries to store a clip while the clip store is away; the spoken take is kept meanwhile."""

LINGER_SECONDS = 0.03
"""How long results wait for company before they are yielded: the event loop stands still while Ray takes them (0.6 ms),
and each arrival becomes a commit. A slice's first result does not wait, for somebody may be listening, nor do its last
ones."""

log = structlog.get_logger()


def clip_folder(job_id: str) -> str:
    """What the keys of a job's clips begin with."""
    return f"{job_id}/clips"


def clip_key(job_id: str, index: int, text: str, request: SpeechRequest) -> str:
    """Where a chunk's clip belongs: the same job, index and content always give the same key."""
    loudness = "\0loudness" if request.loudness is Loudness.ON else ""
    content = f"{request.model}\0{request.voice}\0{request.speed}\0{request.instructions}\0{text}{loudness}"
    return f"{clip_folder(job_id)}/{index:06d}-{hashlib.sha256(content.encode()).hexdigest()[:16]}.wav"


Hear = Callable[[Clip, bytes], Awaitable[None]]


async def synthesize_chunks(
    order: SliceOrder, tools: WorkerTools, hear: Hear | None = None
) -> AsyncGenerator[SliceProgress]:
    """Speak a slice, ``order.max_in_flight`` chunks at once, and yield results as they become ready.

    ``hear`` gets each accepted take (a WAV file) and what its clip will be, before it is stored.

    A chunk that fails for good is a result too. Closing the generator cancels the running calls and closes their
    sockets.
    """
    if not order.pieces:
        return
    route = tools.catalog.route(order.request.model, order.request.voice)
    slots = asyncio.Semaphore(order.max_in_flight)
    context = CallContext(
        order.job_id, order.request, route, order.timeouts, order.deadline_at_ms, tools, slots, order.traceparent
    )
    pieces = iter([Piece(*piece) for piece in order.pieces])
    ready: list[ChunkResult] = []
    news = asyncio.Event()

    # While the first words are spoken, the folder is made: forcing it to the disk takes as long as storing the clip.
    folder = asyncio.create_task(_folder(order.job_id, tools.clips))

    async def lane() -> None:
        for piece in pieces:
            started = time.monotonic()
            result = await _settled(piece, context, folder, hear, adopt=order.adopt)
            outcome = "ok" if result.clip else "failed"
            metrics.record(metrics.CHUNK, time.monotonic() - started, result.backend or "none", outcome)
            if result.backend is not None:
                metrics.record(metrics.RETRIES, len(result.attempts) - 1, result.backend)
            ready.append(result)
            news.set()
            if result.error is not None and order.request.on_chunk_failure is OnChunkFailure.FAIL:
                context.stopping = True
            if context.stopping:
                return

    lanes = [asyncio.create_task(lane()) for _ in range(min(_lanes(order.max_in_flight), len(order.pieces)))]
    everything = asyncio.gather(*lanes)
    everything.add_done_callback(lambda _: news.set())
    yielded = False
    try:
        while ready or not everything.done():
            await news.wait()
            news.clear()
            if yielded:
                await asyncio.wait({everything}, timeout=LINGER_SECONDS)
            results, ready[:] = tuple(ready), []
            if results:
                yielded = True
                yield SliceProgress(results, context.calls)
        everything.result()
    finally:
        everything.cancel()
        await asyncio.gather(everything, *lanes, folder, return_exceptions=True)


def _lanes(max_in_flight: int) -> int:
    """Chunks under way at once: more than calls, for a chunk whose call is over is still checked and stored."""
    return max_in_flight + (max_in_flight + 1) // 2


async def _folder(job_id: str, clips: ClipStore) -> None:
    with contextlib.suppress(TtsError):  # the first clip tries again, and waits if it must
        await clips.prepare(clip_folder(job_id))


async def _settled(
    piece: Piece, context: CallContext, folder: asyncio.Task[None], hear: Hear | None, *, adopt: bool
) -> ChunkResult:
    """The chunk's result, whatever happens: a fault of this code fails the chunk it befell, and no other."""
    try:
        return await _chunk(piece, context, folder, hear, adopt=adopt)
    except TtsError:
        raise
    except Exception as error:  # noqa: BLE001 - the boundary of one chunk; its message may hold text and is not told
        kind = type(error).__name__
        log.error("chunk_crashed", job_id=context.job_id, chunk=piece.index, kind=kind, place=place_of(error))
        timeout_ms = context.timeouts.timeout_ms(piece.characters)
        return ChunkResult(piece.index, timeout_ms, None, f"a fault in the chunk worker: {kind}", ())


async def _chunk(
    piece: Piece, context: CallContext, folder: asyncio.Task[None], hear: Hear | None, *, adopt: bool
) -> ChunkResult:
    key = clip_key(context.job_id, piece.index, piece.text, context.request)
    clips = context.tools.clips
    if adopt and (stored := await _patiently(lambda: clips.get(key))) is not None:
        # An earlier activation stored it and died before its row was written: taken over, not spoken again.
        if (clip := judge_clip(key, stored, piece.text)) is not None:
            return ChunkResult(piece.index, context.timeouts.timeout_ms(piece.characters), clip, None, ())
        log.warning("damaged_clip", job_id=context.job_id, chunk=piece.index, size_bytes=len(stored))

    async def keep(wav: bytes) -> Clip:
        if hear is not None:
            await hear(describe_clip(key, wav), wav)
        await asyncio.wait({folder})
        return await _patiently(lambda: keep_clip(clips, key, wav, piece.text))

    return await call_backend_tts(piece, context, keep)


async def call_backend_tts(piece: Piece, context: CallContext, keep: Callable[[bytes], Awaitable[Clip]]) -> ChunkResult:
    """Have one chunk spoken: lease, call, check, keep; repeat, elsewhere first, while the retry policy allows.

    The chunk's timeout, ``timeouts.timeout_ms(piece.characters)`` milliseconds, bounds each attempt from connecting to
    the last byte (``attempts.py`` has the clock), and is returned with the result, also of a chunk that failed.
    ``keep`` takes the accepted take (a WAV file) before the result is made. Never raises for a backend's fault.
    """
    attributes = {"tts.chunk.index": piece.index, "tts.chunk.characters": piece.characters}
    with tracing.span("tts.chunk", attributes, parent=context.traceparent) as span:
        result = await _spoken(piece, context, keep)
        span.set("tts.chunk.attempts", len(result.attempts))
        if result.error is not None:
            span.fail(result.attempts[-1].outcome if result.attempts else "deadline")
        return result


async def _spoken(piece: Piece, context: CallContext, keep: Callable[[bytes], Awaitable[Clip]]) -> ChunkResult:
    timeout_ms = context.timeouts.timeout_ms(piece.characters)
    attempts: list[Attempt] = []
    course = _course(context, timeout_ms)
    following = course.first()
    while context.remaining_ms() > 0:
        calls = await attempt_chunk(piece, context, timeout_ms, following)
        attempts += [call.attempt for call in calls]
        if calls[-1].error is None:
            with tracing.span("tts.clip.keep"):
                clip = await keep(calls[-1].wav)
            return ChunkResult(piece.index, timeout_ms, clip, None, tuple(attempts))
        decisions = [_decision(course, context, call) for call in calls]
        if None in decisions or context.stopping:
            return ChunkResult(piece.index, timeout_ms, None, calls[-1].error.message, tuple(attempts))
        following = decisions[-1] or following
        await asyncio.sleep(following.wait_ms / 1_000)
    reason = "the job's deadline passed before this chunk was spoken"
    return ChunkResult(piece.index, timeout_ms, None, reason, tuple(attempts))


def _decision(course: Course, context: CallContext, call: Call) -> NextAttempt | None:
    assert call.error is not None  # noqa: S101 - a good take would have been the last
    silent = context.tools.experience.is_silent(call.attempt.backend, call.attempt.elapsed_ms / 1_000)
    return course.failed(
        call.attempt.backend,
        call.error,
        call.attempt.elapsed_ms,
        now_ms=time.monotonic() * 1_000,
        remaining_ms=context.remaining_ms(),
        jitter=context.tools.dice(),
        silent=silent,
    )


def _course(context: CallContext, timeout_ms: int) -> Course:
    policy = context.tools.retry
    patience_ms = policy.outage_ms if context.request.patient else 0
    patient_until_ms = time.monotonic() * 1_000 + patience_ms
    return Course(policy, context.route.targets, timeout_ms, patient_until_ms=patient_until_ms)


def describe_clip(key: str, wav: bytes) -> Clip:
    """A stored clip's metadata, from its bytes. Raises ``ValueError`` if they are no clip."""
    return Clip(key, len(pcm_of_wav(wav)), hashlib.sha256(wav).hexdigest())


def judge_clip(key: str, stored: bytes, text: str) -> Clip | None:
    """The metadata of a stored clip of ``text`` that no row tells of, or None if it is damaged.

    Damaged is what is not as long as its header says, and silence for text with letters: what is left of a file whose
    blocks never reached the disk. There is nothing yet that a changed sample could be noticed by.
    """
    try:
        silent = not pcm_of_wav(stored).any()
    except ValueError:
        return None
    return None if silent and any(map(str.isalnum, text)) else describe_clip(key, stored)


async def keep_clip(clips: ClipStore, key: str, wav: bytes, text: str) -> Clip:
    """Store a clip; what lies there already is kept instead, unless it is damaged. Returns what lies there then.

    (A worker that was given up may store its take of the chunk first: the row must tell of that one.)
    """
    while not await clips.put(key, wav):
        stored = await clips.get(key)
        if stored is not None:
            if (clip := judge_clip(key, stored, text)) is not None:
                return clip
            await clips.remove(key)
    return describe_clip(key, wav)


async def _patiently(operation: Callable[[], Awaitable[T]]) -> T:
    """Repeat while the clip store is away: paid-for audio is not thrown away; the job's own deadline ends it."""
    while True:
        try:
            return await operation()
        except RetryLater:
            await asyncio.sleep(STORE_RETRY_SECONDS)
