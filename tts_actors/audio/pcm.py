"""The one shape of sound inside the service: what a PCM array is, and the arithmetic on its levels.

PCM is a one-dimensional ``int16`` array, mono, at ``SAMPLE_RATE_HZ``. It must not know files,
codecs or texts.
"""

import math

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]
"""Mono 16-bit samples at ``SAMPLE_RATE_HZ``; may be a read-only view of somebody else's bytes."""

Frames = npt.NDArray[np.float32]
"""Samples as floats in ``[-1, 1]``, one-dimensional (mono) or ``(frame, channel)``, at any rate."""

FULL_SCALE = 32_768
"""Magnitude that 0 dBFS stands for: the largest that a 16-bit sample can have (-32,768)."""


def level_of_dbfs(dbfs: float) -> int:
    """Sample magnitude (0..32,768) of a level in dB below full scale: ``full scale * 10^(dB/20)``."""
    return round(FULL_SCALE * math.pow(10.0, dbfs / 20.0))


def peak_of(pcm: Pcm) -> int:
    """The largest magnitude in ``pcm`` (0..32,768; 0 for an empty array)."""
    if pcm.size == 0:
        return 0
    return max(int(pcm.max()), -int(pcm.min()))


def pcm_of_frames(frames: Frames) -> Pcm:
    """Mono floats as 16-bit samples, rounded to nearest; what exceeds full scale is clipped.

    A 16-bit sample divided by 32,768 comes back as itself, so lossless input stays lossless.
    """
    scaled = np.rint(frames * np.float32(FULL_SCALE))
    samples: Pcm = np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    return samples


def require_pcm(pcm: Pcm) -> None:
    """Raise ``TypeError`` unless ``pcm`` has the type and shape of PCM: others would become noise."""
    if pcm.dtype != np.int16 or pcm.ndim != 1:
        raise TypeError(f"PCM is a one-dimensional int16 array, not {pcm.ndim}-dimensional {pcm.dtype}")
