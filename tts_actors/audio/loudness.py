"""Equal loudness for clips of different voices (EBU R128, ITU-R BS.1770), one clip at a time.

Each clip is measured and moved by itself, so a clip's bytes depend on nothing but its take: a recovered job gives the
same file. It must not know which backend spoke.
"""

import threading
from functools import lru_cache
from typing import Any

import numpy as np
import soxr

from tts_actors.audio.pcm import FULL_SCALE, Frames, Pcm, pcm_of_frames
from tts_actors.models import SAMPLE_RATE_HZ

TARGET_LUFS = -23.0
"""EBU R128's programme loudness. Speech peaks 12 to 18 dB above its loudness, so nearly every clip can get there."""

CEILING_DBTP = -1.0
"""EBU R128's highest true peak. A clip that would pass it is moved only as far as it allows."""

MOST_GAIN_DB = 30.0
"""A take so quiet that it would need more is mostly noise."""

BLOCK_SECONDS = 0.4
"""The gating block of BS.1770. A shorter clip is measured as one block of its own length, which gates nothing."""

SHORTEST_SECONDS = 0.02
"""Below this there is no loudness to speak of: such a clip is left as it is."""

PEAK_OVERSAMPLING = 4
"""BS.1770's factor for true peaks, enough for 48 kHz; at 24 kHz it finds them to within 0.7 dB at worst."""


def even_loudness(pcm: Pcm) -> Pcm:
    """``pcm`` at ``TARGET_LUFS``, or as near as ``CEILING_DBTP`` and ``MOST_GAIN_DB`` let it come."""
    loudness = loudness_lufs(pcm)
    if loudness is None:
        return pcm
    frames = pcm * np.float32(1 / FULL_SCALE)
    peak_dbtp = 20 * np.log10(max(_true_peak(frames), 1e-9))
    gain_db = min(TARGET_LUFS - loudness, CEILING_DBTP - peak_dbtp, MOST_GAIN_DB)
    return pcm_of_frames(frames * np.float32(10 ** (gain_db / 20)))


def loudness_lufs(pcm: Pcm) -> float | None:
    """Integrated loudness in LUFS; None for silence and for what is too short to have any."""
    if pcm.size < SHORTEST_SECONDS * SAMPLE_RATE_HZ or not pcm.any():
        return None
    block_seconds = min(BLOCK_SECONDS, pcm.size / SAMPLE_RATE_HZ)
    loudness = float(_meter(block_seconds).integrated_loudness(pcm / FULL_SCALE))
    return loudness if np.isfinite(loudness) else None


def _true_peak(frames: Frames) -> float:
    oversampled = soxr.resample(frames, SAMPLE_RATE_HZ, SAMPLE_RATE_HZ * PEAK_OVERSAMPLING, "HQ")
    return max(float(np.abs(frames).max()), float(np.abs(oversampled).max()))


@lru_cache(maxsize=1)
def load_meter_soon() -> None:
    """Begin to import what measuring needs, in a thread, once a process: the first clip shall not wait for it."""
    threading.Thread(target=_meter, args=(BLOCK_SECONDS,), name="loudness", daemon=True).start()


@lru_cache(maxsize=64)
def _meter(block_seconds: float) -> Any:
    # Here, not at the top: it brings scipy, 80 MB and half a second, into processes that mostly never need it.
    import pyloudnorm

    return pyloudnorm.Meter(SAMPLE_RATE_HZ, block_size=block_seconds)
