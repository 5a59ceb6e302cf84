"""One attempt at a chunk: a lease, a call or several, the check of what came back.

An attempt is one call at one backend, unless the chunk's text goes in parts (a take of the whole was bad everywhere) or
a second backend is asked because the first is slower than usual. Whatever it is, ``timeout_ms`` bounds all of it.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tts_actors import metrics, tracing
from tts_actors.audio import Pcm, pause_samples, prepare_clip, wav_bytes
from tts_actors.audio.loudness import even_loudness, load_meter_soon
from tts_actors.backends.catalog import Catalog, Route
from tts_actors.errors import BackendError, HastyTake
from tts_actors.experience import Experience
from tts_actors.messages import Lease
from tts_actors.models import SAMPLE_RATE_HZ, Attempt, Boundary, ChunkingMode, Loudness, SpeechRequest
from tts_actors.protocols import Backend, ClipStore, LeaseSource, Reply, Utterance
from tts_actors.retry import NextAttempt, RetryPolicy
from tts_actors.text import split_text, spoken_text
from tts_actors.timeouts import TimeoutPolicy
from tts_actors.tracing import SpanKind

THREAD_BYTES = 256 * 1024
"""Replies larger than this are decoded in a thread: about 2 ms of work, the most the event loop is held up."""

SHORTEST_IN_PARTS = 20
"""Characters below which a text is not cut further."""

LARGEST_PART = 0.6
"""Of the text: room to find a better place to cut at than the very middle."""

AGREES = 1.2
"""Parts that together are not longer than this times a hasty take of the whole: then the text is simply spoken fast."""


@dataclass(frozen=True, slots=True)
class WorkerTools:
    """What a worker process keeps open between slices."""

    backends: Mapping[str, Backend]
    catalog: Catalog
    leases: LeaseSource
    clips: ClipStore
    retry: RetryPolicy
    dice: Callable[[], float] = random.random
    now: Callable[[], float] = time.time
    experience: Experience = field(default_factory=Experience)


@dataclass(slots=True)
class Piece:
    """One chunk on its way through a worker. ``characters`` is the length of its span in the caller's text.

    ``hasty_samples`` is the longest take of the whole text that was refused for nothing but its pace.
    """

    index: int
    characters: int
    text: str
    hasty_samples: int = 0


@dataclass(slots=True)
class CallContext:
    """What the chunks of one slice share. ``slots`` bounds the calls at once, whatever leases there are.

    ``calls`` counts the backend calls running now. Once ``stopping`` is set no new call starts: the running ones may
    end, for what they bring is paid for.
    """

    job_id: str
    request: SpeechRequest
    route: Route
    timeouts: TimeoutPolicy
    deadline_at_ms: int
    tools: WorkerTools
    slots: asyncio.Semaphore
    traceparent: str | None = None
    calls: int = 0
    stopping: bool = False

    def remaining_ms(self) -> float:
        """Milliseconds to the job's deadline."""
        return self.deadline_at_ms - self.tools.now() * 1_000


@dataclass(frozen=True, slots=True)
class Call:
    """How one leased call went: the WAV of a good take, or the error."""

    attempt: Attempt
    wav: bytes = b""
    error: BackendError | None = None


async def attempt_chunk(piece: Piece, context: CallContext, timeout_ms: int, where: NextAttempt) -> list[Call]:
    """The calls of one attempt; the last one decides. Never raises for a backend's fault."""
    parts = parts_of(piece.text, context.request.language) if where.in_parts else ()
    lease = await _lease(context, where.usable, where.avoid)
    context.tools.experience.begins()
    patience_ms = None
    if lease.backend in context.route.hedged and not parts:
        patience_ms = context.tools.experience.patience_ms(lease.backend, len(piece.text))
    if patience_ms is None or patience_ms >= timeout_ms:
        return [await _call(piece, context, lease, timeout_ms, parts)]
    return await _hedged(piece, context, lease, timeout_ms, patience_ms)


async def _lease(context: CallContext, usable: frozenset[str], avoid: frozenset[str]) -> Lease:
    with metrics.timed(metrics.LEASE_WAIT), tracing.span("tts.lease.wait"):
        return await context.tools.leases.acquire(
            context.job_id, usable=usable, avoid=avoid, priority=context.request.priority
        )


async def _hedged(piece: Piece, context: CallContext, lease: Lease, timeout_ms: int, patience_ms: float) -> list[Call]:
    """Call, and after ``patience_ms`` call elsewhere too: the first good take wins and the other call is given up.

    (What the loser did says nothing of it to the pool. A backend that hangs is found out by the calls that are not
    hedged, and there are always nineteen of them.)
    """
    began = time.monotonic()
    others = frozenset(context.route.targets) - {lease.backend}
    second_lease: Lease | None = None

    async def second() -> Call | None:
        nonlocal second_lease
        second_lease = await _lease(context, others, frozenset())
        metrics.record(metrics.HEDGES, 1, second_lease.backend)
        left_ms = timeout_ms - round((time.monotonic() - began) * 1_000)
        return await _call(piece, context, second_lease, max(1, left_ms), ())

    running: dict[asyncio.Task[Call | None], str] = {}
    running[asyncio.ensure_future(_call(piece, context, lease, timeout_ms, ()))] = lease.backend
    try:
        done, _ = await asyncio.wait(running, timeout=patience_ms / 1_000)
        if not done and others and context.tools.experience.may_hedge() and not context.stopping:
            context.tools.experience.hedged()
            running[asyncio.ensure_future(second())] = ""
        calls: list[Call] = []
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            ended = [call for task in done if running.pop(task) is not None and (call := task.result()) is not None]
            calls += sorted(ended, key=lambda call: call.error is None)
            if calls and (calls[-1].error is None or (running and second_lease is None)):
                break
        given_up_ms = round((time.monotonic() - began) * 1_000)
        losers = [name or (second_lease.backend if second_lease else "") for name in running.values()]
        reason = "another backend was asked too and was quicker"
        return [Call(Attempt(name, "cancelled", given_up_ms, reason=reason)) for name in losers if name] + calls
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _call(
    piece: Piece, context: CallContext, lease: Lease, timeout_ms: int, parts: tuple[tuple[str, Boundary], ...]
) -> Call:
    """One leased call, or one after the other for ``parts``, under one clock. The lease is given back."""
    began = time.monotonic()
    attempt = Attempt(lease.backend, "cancelled", 0)
    context.calls += 1
    try:
        error: BackendError | None = None
        wav = b""
        try:
            async with context.slots:
                began = time.monotonic()
                with tracing.span("tts.backend.call", {"tts.backend": lease.backend}, kind=SpanKind.CLIENT):
                    async with asyncio.timeout(timeout_ms / 1_000):
                        wav = await _take(piece, context, lease.backend, parts)
        except TimeoutError:
            error = BackendError(f"no complete reply within {timeout_ms} ms", "timeout")
        except BackendError as failure:
            error = failure
        elapsed_ms = round((time.monotonic() - began) * 1_000)
        attempt = Attempt(
            backend=lease.backend,
            outcome="ok" if error is None else error.kind,
            elapsed_ms=elapsed_ms,
            status=None if error is None else error.status,
            reason=None if error is None else error.message,
            parts=len(parts) or 1,
        )
        if error is None and not parts:
            context.tools.experience.answered(lease.backend, len(piece.text), elapsed_ms)
        return Call(attempt, wav, error)
    finally:
        metrics.record(metrics.ATTEMPT, time.monotonic() - began, attempt.backend, attempt.outcome)
        context.calls -= 1
        context.tools.leases.release(lease, attempt)


async def _take(piece: Piece, context: CallContext, backend: str, parts: tuple[tuple[str, Boundary], ...]) -> bytes:
    even = context.request.loudness is Loudness.ON
    if even:
        load_meter_soon()  # while the backend speaks
    clips = [await _spoken(text, context, backend) for text, _ in parts or ((piece.text, Boundary.END),)]
    pauses = [pause_samples(boundary, speed=context.request.speed) for _, boundary in parts[:-1]]
    pcm = clips[0] if not parts else _joined(clips, pauses)
    _check_pace(piece, context, backend, pcm, in_parts=bool(parts))
    return wav_bytes(await asyncio.to_thread(even_loudness, pcm) if even else pcm)


async def _spoken(text: str, context: CallContext, backend: str) -> Pcm:
    model, voice = context.route.targets[backend]
    request = context.request
    speed = context.route.speed_at(backend, request.speed)
    stretch = request.speed / speed
    reply: Reply = await context.tools.backends[backend].speak(
        Utterance(text, model, voice, speed, request.instructions, request.language)
    )

    def accept() -> Pcm:
        return prepare_clip(
            reply.body, reply.content_type, text, speed=speed, stretch=stretch, raw_rate_hz=reply.raw_rate_hz
        )

    if len(reply.body) > THREAD_BYTES or stretch != 1:
        return await asyncio.to_thread(accept)
    return accept()


def _check_pace(piece: Piece, context: CallContext, backend: str, pcm: Pcm, *, in_parts: bool) -> None:
    """Raise :class:`HastyTake` if ``pcm`` is much shorter than the voice usually is; learn from it if not.

    Of parts that are no longer than the whole was there is nothing missing in either: the text is one that is spoken
    fast, and no good speech may be refused for ever.
    """
    experience, speed = context.tools.experience, context.route.speed_at(backend, context.request.speed)
    voice = (backend, *context.route.targets[backend], speed)
    seconds = pcm.size / SAMPLE_RATE_HZ * context.request.speed / speed  # as it was before it was stretched
    shortest = experience.shortest_seconds(voice, piece.text, speed)
    if seconds >= shortest:
        if not in_parts:
            experience.spoken(voice, piece.text, seconds)
    elif not in_parts:
        piece.hasty_samples = max(piece.hasty_samples, pcm.size)
        raise HastyTake(f"the take is too short for this voice: {seconds:.2f} s, at least {shortest:.2f} s expected")
    elif not piece.hasty_samples or pcm.size > AGREES * piece.hasty_samples:
        raise HastyTake(f"the parts are too short for this voice: {seconds:.2f} s, at least {shortest:.2f} s expected")


def parts_of(text: str, language: str | None) -> tuple[tuple[str, Boundary], ...]:
    """``text``, as it is sent to backends, in two or three parts with what follows each; empty if it is too short."""
    if len(text) < SHORTEST_IN_PARTS:
        return ()
    cap = round(LARGEST_PART * len(text))
    spans = split_text(text, mode=ChunkingMode.CHARACTER_COUNT, max_characters=cap, language=language or "en").spans
    parts = tuple((spoken_text(text[span.char_start : span.char_end]), span.boundary) for span in spans)
    return parts if len(parts) > 1 and all(part for part, _ in parts) else ()


def _joined(clips: list[Pcm], pauses: list[int]) -> Pcm:
    """Clips one behind the other, silence of so many samples between them."""
    pieces = [clips[0]]
    for pause, clip in zip(pauses, clips[1:], strict=True):
        pieces += [np.zeros(pause, np.int16), clip]
    return np.concatenate(pieces)
