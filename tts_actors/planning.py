"""From accepted text to a job's plan: chunks, timeouts and bounds, all before the first backend call."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tts_actors.errors import RequestTooLarge
from tts_actors.models import ChunkingMode, JobPlan, SpeechRequest
from tts_actors.retry import RetryPolicy
from tts_actors.text import check_text, lexicon_of, split_text
from tts_actors.timeouts import TimeoutPolicy

PACKED_CHARACTERS = 1_500
"""Largest chunk of ``character_count`` mode: the original orchestrator's figure."""

SPEECH_CHARACTERS_PER_SECOND = 15.0
"""English speech at speed 1: engines measured speak 13 to 20 characters a second."""

ACTIVATION_ALLOWANCE_MS = 30_000
"""Added to a job's bound for starting actors and for two recoveries (sweep plus lease: under 15 s each)."""


@dataclass(frozen=True, slots=True)
class PlanBounds:
    """What limits a plan: the service's own limits and what the usable backends can take.

    ``chunk_characters`` is the longest text of one call, ``concurrency`` the calls at once that the job can count on
    in the worst case, when all other active jobs want the same backends. With ``first_characters`` the plan is for a
    listener: a short first chunk, then growing ones.
    """

    max_characters: int
    max_chunks: int
    chunk_characters: int
    concurrency: float
    first_characters: int | None = None


def plan_job(
    text: str, request: SpeechRequest, *, bounds: PlanBounds, timeouts: TimeoutPolicy, retry: RetryPolicy
) -> JobPlan:
    """Split ``text`` and compute the job's time bounds.

    Raises :class:`InvalidRequest` for text that cannot be spoken or stored and :class:`RequestTooLarge` beyond a bound.
    The job's ``orchestratorTimeoutMs`` is the largest chunk timeout; the policy is monotonic, so the longest decides.
    """
    check_text(text)
    if len(text) > bounds.max_characters:
        raise RequestTooLarge(
            f"the text has {len(text)} characters; limits.max_characters is {bounds.max_characters}", "input"
        )
    split = split_text(
        text,
        mode=request.chunking_mode,
        max_characters=_chunk_characters(request, bounds),
        language=request.language or "en",
        lexicon=lexicon_of(request.lexicon),
        first_characters=bounds.first_characters,
    )
    if len(split.spans) > bounds.max_chunks:
        raise RequestTooLarge(
            f"the text makes {len(split.spans)} chunks; limits.max_chunks is {bounds.max_chunks}", "input"
        )
    longest = max(span.characters for span in split.spans)
    timeout_ms = timeouts.timeout_ms(longest)
    patience_ms = retry.outage_ms if request.patient else 0
    waves = math.ceil(len(split.spans) / bounds.concurrency)
    return JobPlan(
        spans=split.spans,
        marks=split.marks,
        orchestrator_timeout_ms=timeout_ms,
        run_timeout_ms=ACTIVATION_ALLOWANCE_MS + patience_ms + waves * retry.longest_ms(timeout_ms),
        poll_after_ms=min(5_000, max(250, 50 * waves)),
        timeouts=timeouts,
    )


def _chunk_characters(request: SpeechRequest, bounds: PlanBounds) -> int:
    wanted = request.chunking_max_characters
    if wanted is None:
        wanted = PACKED_CHARACTERS if request.chunking_mode is ChunkingMode.CHARACTER_COUNT else bounds.chunk_characters
    return min(wanted, bounds.chunk_characters)


def estimated_audio_seconds(characters: int, speed: float) -> float:
    """Length of the speech to expect, seconds."""
    return characters / (SPEECH_CHARACTERS_PER_SECOND * speed)


def estimated_finish_seconds(chunks: int, paces: Sequence[tuple[int, int]]) -> float | None:
    """How long so many calls take on backends with these (calls at once, median milliseconds), and nothing else to do.

    None without any: nobody has spoken yet. The median is that of the calls so far, whatever their lengths.
    """
    if not paces:
        return None
    per_second = sum(limit * 1_000 / max(1, median_ms) for limit, median_ms in paces)
    return max(chunks / per_second, min(median_ms for _, median_ms in paces) / 1_000)
