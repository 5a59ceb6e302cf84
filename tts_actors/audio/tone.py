"""A voice without a voice: a tone whose pitch and length follow from the text.

For tests, demos and fake backends. Pure integer arithmetic on one sine table: the same text gives the same bytes
on every machine.
"""

import math
import zlib

import numpy as np
import numpy.typing as npt

from tts_actors.audio.pcm import FULL_SCALE, Pcm

LETTERS_PER_SECOND = 15
"""The pace of the tone: English speech was measured at 13-20 characters a second on three engines."""

SHORTEST_SECONDS = 0.08
AMPLITUDE = 0.3
FADE_MS = 5
LOWEST_HZ = 160
HIGHEST_HZ = 640

_TABLE_BITS = 12
_PHASE_BITS = 32
_SINE: npt.NDArray[np.int16] = np.array(
    [round(AMPLITUDE * FULL_SCALE * math.sin(2 * math.pi * i / 2**_TABLE_BITS)) for i in range(2**_TABLE_BITS)],
    np.int16,
)


def tone(text: str, *, rate_hz: int = 24_000, seconds: float | None = None) -> Pcm:
    """A sine for ``text``: 160-640 Hz, amplitude 0.3, faded over 5 ms at both ends, at ``rate_hz``.

    ``seconds`` defaults to the time that speech would take: letters and digits / 15, at least 0.08.
    Equal arguments give equal samples, always.
    """
    if seconds is None:
        seconds = max(SHORTEST_SECONDS, sum(map(str.isalnum, text)) / LETTERS_PER_SECOND)
    samples = round(seconds * rate_hz)
    step = _pitch_hz(text) * 2**_PHASE_BITS // rate_hz
    phase = np.arange(samples, dtype=np.uint32) * np.uint32(step)  # wraps once a period, as it should
    wave: Pcm = _SINE[phase >> np.uint32(_PHASE_BITS - _TABLE_BITS)]
    _fade(wave, min(FADE_MS * rate_hz // 1_000, samples // 2))
    return wave


def _pitch_hz(text: str) -> int:
    """A whole number of Hz that depends on nothing but ``text`` (CRC-32: ``hash()`` changes with the
    process)."""
    return LOWEST_HZ + zlib.crc32(text.encode("utf-8", "surrogatepass")) % (HIGHEST_HZ - LOWEST_HZ + 1)


def _fade(wave: Pcm, samples: int) -> None:
    """Linear fades of ``samples`` samples at both ends, in place and in integers."""
    if samples == 0:
        return
    ramp = np.arange(samples, dtype=np.int32)
    wave[:samples] = wave[:samples] * ramp // samples
    wave[-samples:] = wave[-samples:] * ramp[::-1] // samples
