"""Speech made faster or slower at its own pitch, for speeds that a backend cannot speak itself.

It must not know who asked for which speed.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from python_stretch.Signalsmith import Stretch

from tts_actors.audio.pcm import FULL_SCALE, Frames, Pcm, pcm_of_frames
from tts_actors.audio.trim import fade_edges
from tts_actors.models import SAMPLE_RATE_HZ

SEED = 1
"""The stretcher dithers phases; with a fixed seed a recovered job gives the same bytes."""

CONTEXT_SAMPLES = SAMPLE_RATE_HZ // 10
"""Sound around a piece that is stretched along and dropped: the stretcher's windows are 120 ms long."""

CUT_FROM_SAMPLES, CUT_TO_SAMPLES = SAMPLE_RATE_HZ, SAMPLE_RATE_HZ * 2
"""A piece ends at the quietest place so far from its start. The stretcher holds the GIL, 10 to 20 ms for each second of
its output: a whole chunk at once would stop all else in the process for a second."""

_HOP = SAMPLE_RATE_HZ // 100
_CROSSFADE_SAMPLES = SAMPLE_RATE_HZ // 200


def stretched(pcm: Pcm, factor: float) -> Pcm:
    """``pcm`` spoken ``factor`` times as fast: ``round(pcm.size / factor)`` samples, the same pitch, faded edges.

    The same arguments always give the same samples. ``ValueError`` unless ``factor`` is positive.
    """
    if factor <= 0:
        raise ValueError("a factor of speed is positive")
    if factor == 1 or not pcm.size:
        return pcm
    around = CONTEXT_SAMPLES + round(_CROSSFADE_SAMPLES * factor) + 1
    frames = np.pad(pcm * np.float32(1 / FULL_SCALE), around)
    out = np.zeros(round(pcm.size / factor), np.float32)
    rise = np.linspace(0, 1, _CROSSFADE_SAMPLES, endpoint=False, dtype=np.float32)
    for start, end in pairwise(_cuts(pcm)):
        at, stop = round(start / factor), round(end / factor)
        piece = _piece(frames[start : end + 2 * around], factor, around, stop - at + _CROSSFADE_SAMPLES)
        fading = min(_CROSSFADE_SAMPLES, piece.size, out.size - at)
        if start:
            piece[:fading] = out[at : at + fading] * (1 - rise[:fading]) + piece[:fading] * rise[:fading]
        out[at : at + piece.size] = piece[: out.size - at]
    clip = pcm_of_frames(out)
    fade_edges(clip)
    return clip


def _piece(frames: Frames, factor: float, around: int, samples: int) -> Frames:
    """The stretched middle of ``frames``, ``samples`` long; ``around`` samples before it are context."""
    stretch = Stretch(SEED)
    stretch.preset(1, float(SAMPLE_RATE_HZ))
    stretch.setTimeFactor(factor)
    whole = np.asarray(stretch.process(frames[np.newaxis, :]), np.float32)[0]
    at = round(around / factor)
    piece = whole[at : at + samples].copy()
    return np.pad(piece, (0, samples - piece.size))


def _cuts(pcm: Pcm) -> Iterator[int]:
    """Where pieces begin, and the end: the quietest 10 ms of every second or two."""
    start = 0
    while pcm.size - start > CUT_TO_SAMPLES + CUT_FROM_SAMPLES:
        yield start
        window = pcm[start + CUT_FROM_SAMPLES : start + CUT_TO_SAMPLES].astype(np.int32)
        levels = np.abs(window).reshape(-1, _HOP).max(axis=1)
        start += CUT_FROM_SAMPLES + int(levels.argmin()) * _HOP + _HOP // 2
    yield start
    yield pcm.size
