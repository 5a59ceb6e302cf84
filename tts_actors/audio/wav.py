"""Our own WAV files: one 44-byte header, then mono 16-bit PCM.

Stored clips and ``wav`` outputs have this shape. The module must not know other people's WAV
files: those go through ``takes.py``.
Layout: "Multimedia Programming Interface and Data Specifications 1.0" (IBM, Microsoft, 1991), chunks ``fmt``
and ``data``.
"""

import struct

import numpy as np

from tts_actors.audio.pcm import Pcm, require_pcm
from tts_actors.models import SAMPLE_RATE_HZ

BYTES_PER_SAMPLE = 2
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")

WAV_HEADER_BYTES = 44
"""Size of every header that :func:`wav_header` makes: sample ``n`` starts at byte ``44 + 2 * n``."""

UNKNOWN_SIZE = 0xFFFF_FFFF
"""What stands where a size belongs if the length is not known yet (ffmpeg's convention for pipes)."""

_BYTES_BEHIND_RIFF_SIZE = WAV_HEADER_BYTES - 8
_FMT_BYTES = 16
_FORMAT_PCM = 1
_MONO = 1


def wav_header(samples: int | None) -> bytes:
    """The 44 bytes in front of ``samples`` samples of PCM.

    ``None``, and a length that 32 bits cannot hold (24.8 hours), give the streaming sizes: both
    size fields are ``0xFFFFFFFF`` and readers read to the end.
    """
    data_bytes = UNKNOWN_SIZE if samples is None else samples * BYTES_PER_SAMPLE
    riff_bytes = data_bytes + _BYTES_BEHIND_RIFF_SIZE
    if riff_bytes >= UNKNOWN_SIZE:
        data_bytes = riff_bytes = UNKNOWN_SIZE
    return _HEADER.pack(
        b"RIFF",
        riff_bytes,
        b"WAVE",
        b"fmt ",
        _FMT_BYTES,
        _FORMAT_PCM,
        _MONO,
        SAMPLE_RATE_HZ,
        SAMPLE_RATE_HZ * BYTES_PER_SAMPLE,
        BYTES_PER_SAMPLE,
        8 * BYTES_PER_SAMPLE,
        b"data",
        data_bytes,
    )


def bytes_of_pcm(pcm: Pcm) -> bytes:
    """The samples as little-endian bytes, two a sample. Raises ``TypeError`` for an array that is not PCM."""
    require_pcm(pcm)
    return pcm.astype("<i2", copy=False).tobytes()


def wav_bytes(pcm: Pcm) -> bytes:
    """A whole WAV file with true sizes."""
    return wav_header(pcm.size) + bytes_of_pcm(pcm)


def pcm_of_wav(data: bytes) -> Pcm:
    """The samples of a file that :func:`wav_bytes` made, as a read-only view of ``data`` (no copy).

    Raises ``ValueError`` if ``data`` is anything else: another header, or another size than it declares.
    """
    samples, odd = divmod(len(data) - WAV_HEADER_BYTES, BYTES_PER_SAMPLE)
    if samples < 0 or odd or data[:WAV_HEADER_BYTES] != wav_header(samples):
        raise ValueError(f"not a stored clip: {len(data)} bytes without the header that belongs to that length")
    return np.frombuffer(data, "<i2", offset=WAV_HEADER_BYTES).astype(np.int16, copy=False)
