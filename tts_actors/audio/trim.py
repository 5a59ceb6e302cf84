"""The edges of a clip: where the voice begins and ends, and how to cut there without a click.

It must not know where the samples came from or what they say.
"""

import math
from functools import lru_cache

import numpy as np

from tts_actors.audio.pcm import Frames, Pcm, level_of_dbfs, peak_of
from tts_actors.models import SAMPLE_RATE_HZ

SILENCE_DBFS = -50.0
"""A whole take whose peak stays below this is silence. hibari speaks with peaks of -6 to -16 dBFS
(measured, speeds 0.5 to 2); dither and the noise of codecs are below -60 dBFS."""

QUIET_BELOW_PEAK_DB = 30.0
"""A quiet voice moves the threshold of silence down with it, this far below its own peak."""

LOOKED_AT_FIRST = 4_096
"""Samples from an edge in which the voice has mostly begun (170 ms)."""


def voiced_bounds(pcm: Pcm, level: int) -> tuple[int, int]:
    """``[start, end)`` from the first to the last sample that reaches ``level``; ``(0, 0)`` if none does.

    Peaks, not RMS, decide: a soft consonant at the edge ("f", "th") is noise, whose peaks in 5 ms are
    some 9 dB above its RMS, and cutting it off is worse than keeping a few milliseconds of silence.
    """
    start = _first_loud(pcm, level)
    return (0, 0) if start is None else (start, pcm.size - (_first_loud(pcm[::-1], level) or 0))


def _first_loud(pcm: Pcm, level: int) -> int | None:
    """Looks at no more than it must: takes are quiet only at their edges."""
    begin, size = 0, LOOKED_AT_FIRST
    while begin < pcm.size:
        block = pcm[begin : begin + size]
        loud = (block >= level) | (block <= -level)
        first = int(loud.argmax())
        if loud[first]:
            return begin + first
        begin, size = begin + size, 2 * size
    return None


def trim_and_fade(pcm: Pcm, *, threshold_dbfs: float = -45, keep_ms: int = 20, fade_ms: int = 5) -> Pcm:
    """A new array without the silence at the edges, faded in and out: its first and last sample are 0.

    Silence is what stays below ``threshold_dbfs``, or below 30 dB under the take's own peak if that is lower;
    ``keep_ms`` of it stay on each side. The fades are raised cosines of ``fade_ms`` (half the clip if it is
    too short for two). A take that is silent throughout gives an empty array.
    """
    peak = peak_of(pcm)
    if peak < level_of_dbfs(SILENCE_DBFS):
        return np.zeros(0, np.int16)
    quiet = round(peak * math.pow(10.0, -QUIET_BELOW_PEAK_DB / 20.0))
    start, end = voiced_bounds(pcm, max(1, min(level_of_dbfs(threshold_dbfs), quiet)))
    keep = keep_ms * SAMPLE_RATE_HZ // 1_000
    clip = pcm[max(0, start - keep) : end + keep].copy()
    fade_edges(clip, fade_ms=fade_ms)
    return clip


def fade_edges(clip: Pcm, *, fade_ms: int = 5) -> None:
    """Fade both ends of ``clip`` in place, as :func:`trim_and_fade` does; at least the outermost sample becomes 0."""
    samples = min(fade_ms * SAMPLE_RATE_HZ // 1_000, clip.size // 2)
    if samples == 0:
        clip[:1] = clip[-1:] = 0
        return
    ramp = _ramp(samples)
    clip[:samples] = np.rint(clip[:samples] * ramp)
    clip[-samples:] = np.rint(clip[-samples:] * ramp[::-1])


@lru_cache(maxsize=8)
def _ramp(samples: int) -> Frames:
    """Raised cosine from 0 up to just below 1."""
    return (0.5 - 0.5 * np.cos(np.pi * np.arange(samples) / samples)).astype(np.float32)
