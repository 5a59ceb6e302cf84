"""The audio that the fault-injecting server sends: tones, spoilt on request, encoded once and kept.

The same request gives the same bytes. The cache is what lets the server take thousands of calls a second.
"""

import io
import wave
from functools import lru_cache

import numpy as np

from tts_actors.audio.encoders import MEDIA_TYPES, encode_file
from tts_actors.audio.pcm import Pcm
from tts_actors.audio.tone import tone
from tts_actors.models import SAMPLE_RATE_HZ

PIPER_RATE_HZ = 22_050
"""What Piper's medium and high voices speak."""

SHORT_CLIP_SECONDS = 0.05
GARBAGE = bytes(range(128, 256)) * 64
CACHED_CLIPS = 256
"""Clips kept: at 48 kB a second of speech and 100 characters a text about 80 MB at most."""


@lru_cache(maxsize=CACHED_CLIPS)
def clip_bytes(
    text: str,
    fmt: str,
    *,
    rate_hz: int = SAMPLE_RATE_HZ,
    speed: float = 1.0,
    seconds: float | None = None,
    fault: str | None = None,
) -> bytes:
    """``text`` as a tone in ``fmt`` (a key of ``MEDIA_TYPES``), spoilt by ``fault`` if that is one of the audio.

    ``seconds`` fixes the length, else it follows from the text and ``speed``. Only wav and pcm know other rates
    than 24 kHz.
    """
    if fault == "empty":
        return b""
    if fault == "garbage":
        return GARBAGE
    pcm = _spoil(_tone_at(text, rate_hz, speed, seconds), fault)
    if fault == "wrong_type":
        fmt = "wav"
    data = _encode(pcm, fmt, rate_hz)
    return _cut(data, fmt) if fault == "cut" else data


def media_type(fmt: str, fault: str | None) -> str:
    """What the answer calls the bytes of :func:`clip_bytes`."""
    return MEDIA_TYPES["mp3" if fault == "wrong_type" else fmt]


def _tone_at(text: str, rate_hz: int, speed: float, seconds: float | None) -> Pcm:
    if seconds is not None:
        return tone("", rate_hz=rate_hz, seconds=seconds)
    pcm = tone(text, rate_hz=rate_hz)
    return pcm if speed == 1 else tone(text, rate_hz=rate_hz, seconds=pcm.size / rate_hz / speed)


def _spoil(pcm: Pcm, fault: str | None) -> Pcm:
    match fault:
        case "silence":
            return np.zeros_like(pcm)
        case "clipped":
            return np.where(pcm < 0, -32_768, 32_767).astype(np.int16)
        case "short":
            return pcm[: round(SHORT_CLIP_SECONDS * SAMPLE_RATE_HZ)]
    return pcm


def _encode(pcm: Pcm, fmt: str, rate_hz: int) -> bytes:
    file = io.BytesIO()
    if fmt == "wav" and rate_hz != SAMPLE_RATE_HZ:
        with wave.open(file, "wb") as wav:
            wav.setnchannels(1)
            wav.setsampwidth(2)
            wav.setframerate(rate_hz)
            wav.writeframes(pcm.astype("<i2", copy=False).tobytes())
    else:
        encode_file(fmt, [pcm], file)
    return file.getvalue()


def _cut(data: bytes, fmt: str) -> bytes:
    """The first half of the audio; the header, if there is one, still declares all of it."""
    header = 44 if fmt == "wav" else 0
    return data[: header + (len(data) - header) // 4 * 2]
