"""From joined PCM to what the caller asked for: one encoder per output, fed piece by piece.

Encoded pieces must never be joined byte by byte (a strict decoder refuses such MP3, libsndfile drops all but
the first Ogg stream), so there is one encoder from the first sample to the last. An encoder keeps no more
than what its codec has not finished, however long the output is. It must not know jobs, chunks or HTTP.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, BinaryIO, Protocol

import lameenc
import numpy as np
import soundfile

from tts_actors.audio.pcm import Pcm, require_pcm
from tts_actors.audio.wav import bytes_of_pcm, wav_header
from tts_actors.errors import InvalidRequest
from tts_actors.models import SAMPLE_RATE_HZ

MEDIA_TYPES: dict[str, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
} | ({"aac": "audio/aac"} if find_spec("av") else {})
"""Content-Type of each output; ``pcm`` is headerless little-endian s16 mono at 24 kHz. ``aac`` (ADTS) needs PyAV: an
extra, because its wheels carry codecs under the GPL."""

OUTPUT_FORMATS = tuple(MEDIA_TYPES)

MP3_KBPS = 64
"""Constant, so that players know the duration from the size. Speech at 24 kHz mono: 480 kB a minute."""

MP3_QUALITY = 5
"""LAME's -q: 5 measured 440 times faster than speech, 2 (slower, for music) 202 times, 7 783 times."""

AAC_KBPS = 64
"""As for MP3. FFmpeg's own AAC encoder measured 95 times faster than speech."""

_ONE_SILENT_SAMPLE: Pcm = np.zeros(1, np.int16)


class StreamEncoder(Protocol):
    """Encodes one output: ``feed`` any number of pieces, then ``finish`` once; keep all bytes in order."""

    def feed(self, pcm: Pcm) -> bytes:
        """Encode ``pcm``; return the bytes that are ready (often none). ``TypeError`` if it is not PCM."""
        ...

    def finish(self) -> bytes:
        """The rest. With nothing fed still a whole file: 0 samples (wav, pcm) or one silent one (others)."""
        ...


def open_encoder(fmt: str, *, total_samples: int | None = None) -> StreamEncoder:
    """A fresh encoder for ``fmt``, one of ``OUTPUT_FORMATS``; ``InvalidRequest`` for any other.

    With ``total_samples`` a WAV header has true sizes (else streaming sizes); then ``feed`` and ``finish``
    raise ``ValueError`` if the samples do not add up to it.
    """
    match fmt:
        case "wav":
            return _WavEncoder(total_samples)
        case "pcm":
            return _PcmEncoder()
        case "mp3":
            return _Mp3Encoder()
        case "flac":
            return _SoundfileEncoder("FLAC", "PCM_16")
        case "opus":
            return _SoundfileEncoder("OGG", "OPUS")
        case "aac" if fmt in MEDIA_TYPES:
            return _AacEncoder()
    raise _refusal(fmt, "response_format")


def require_format(fmt: str, field: str = "response_format") -> None:
    """Raise ``InvalidRequest``, in the words of the field, unless this server can write ``fmt``."""
    if fmt not in MEDIA_TYPES:
        raise _refusal(fmt, field)


def encode_file(fmt: str, pieces: Iterable[Pcm], out: BinaryIO) -> None:
    """Write a finished output to ``out``, all of it; see :func:`file_encoder`."""
    with file_encoder(fmt, out) as feed:
        for pcm in pieces:
            feed(pcm)


@contextmanager
def file_encoder(fmt: str, out: BinaryIO) -> Iterator[Callable[[Pcm], None]]:
    """What takes the pieces of a finished output, which is whole in ``out`` once the block has ended well.

    ``out`` is a seekable file at its position 0, and stays open: headers carry true lengths, and FLAC gets the MD5 of
    its samples. ``InvalidRequest`` for an unknown ``fmt``, before anything is written; ``ValueError`` if ``out`` is not
    at its start. How the samples are cut into pieces makes no difference to the bytes.
    """
    require_format(fmt)
    if out.tell() != 0:
        raise ValueError("an output file is written from its start")
    samples = 0
    if fmt == "flac":
        with soundfile.SoundFile(out, "w", SAMPLE_RATE_HZ, 1, subtype="PCM_16", format="FLAC") as file:

            def keep(pcm: Pcm) -> None:
                nonlocal samples
                require_pcm(pcm)
                file.write(pcm)
                samples += pcm.size

            yield keep
            if samples == 0:
                file.write(_ONE_SILENT_SAMPLE)
        return
    encoder = open_encoder(fmt)

    def feed(pcm: Pcm) -> None:
        nonlocal samples
        out.write(encoder.feed(pcm))
        samples += pcm.size

    yield feed
    out.write(encoder.finish())
    if fmt == "wav":
        out.seek(0)
        out.write(wav_header(samples))
        out.seek(0, io.SEEK_END)


def _refusal(fmt: str, field: str) -> InvalidRequest:
    choice = f"choose one of {', '.join(OUTPUT_FORMATS)}"
    if fmt == "aac":
        return InvalidRequest(f"{field}: aac needs the 'av' extra, which this server runs without; {choice}", field)
    return InvalidRequest(f"{field}: not a known format; {choice}", field)


class _WavEncoder:
    def __init__(self, total_samples: int | None) -> None:
        self._total_samples = total_samples
        self._samples = 0
        self._header = wav_header(total_samples)

    def feed(self, pcm: Pcm) -> bytes:
        self._samples += pcm.size
        if self._total_samples is not None and self._samples > self._total_samples:
            raise ValueError(f"more than the {self._total_samples} samples that the WAV header promised")
        return self._take_header() + bytes_of_pcm(pcm)

    def finish(self) -> bytes:
        if self._total_samples is not None and self._samples != self._total_samples:
            raise ValueError(f"{self._samples} of the {self._total_samples} samples that the WAV header promised")
        return self._take_header()

    def _take_header(self) -> bytes:
        header, self._header = self._header, b""
        return header


class _PcmEncoder:
    def feed(self, pcm: Pcm) -> bytes:
        return bytes_of_pcm(pcm)

    def finish(self) -> bytes:
        return b""


class _Mp3Encoder:
    """LAME at a constant rate. lameenc writes neither ID3 tags nor a Xing/LAME frame (checked by a test)."""

    def __init__(self) -> None:
        self._lame = lameenc.Encoder()
        self._lame.silence()  # LAME's own remarks would go to stdout
        self._lame.set_bit_rate(MP3_KBPS)
        self._lame.set_in_sample_rate(SAMPLE_RATE_HZ)
        self._lame.set_channels(1)
        self._lame.set_quality(MP3_QUALITY)
        self._samples = 0

    def feed(self, pcm: Pcm) -> bytes:
        self._samples += pcm.size
        return bytes(self._lame.encode(bytes_of_pcm(pcm)))

    def finish(self) -> bytes:
        # LAME refuses to flush what never began.
        head = b"" if self._samples else self.feed(_ONE_SILENT_SAMPLE)
        return head + bytes(self._lame.flush())


class _AacEncoder:
    """AAC in ADTS frames through FFmpeg: no header, so a stream can be joined anywhere. 1,024 samples a frame."""

    def __init__(self) -> None:
        import av  # here, not at the top: an extra, and 100 MB of libraries

        self._av: Any = av
        self._sink = _Sink()
        self._container = av.open(self._sink, "w", format="adts")
        self._stream = self._container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        self._stream.bit_rate = AAC_KBPS * 1_000
        self._samples = 0

    def feed(self, pcm: Pcm) -> bytes:
        require_pcm(pcm)
        if pcm.size:
            frame = self._av.AudioFrame.from_ndarray(pcm[np.newaxis, :], format="s16", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, self._samples
            self._samples += pcm.size
            self._container.mux(self._stream.encode(frame))
        return self._sink.drain()

    def finish(self) -> bytes:
        head = b"" if self._samples else self.feed(_ONE_SILENT_SAMPLE)
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return head + self._sink.drain()


class _SoundfileEncoder:
    """FLAC and Ogg Opus through libsndfile into a sink that is emptied after every piece.

    libsndfile fills Opus pages of one second, so the first audible bytes come once more than a second was fed.
    """

    def __init__(self, container: str, codec: str) -> None:
        self._sink = _Sink()
        self._file = soundfile.SoundFile(self._sink, "w", SAMPLE_RATE_HZ, 1, subtype=codec, format=container)
        self._samples = 0

    def feed(self, pcm: Pcm) -> bytes:
        require_pcm(pcm)
        self._samples += pcm.size
        self._file.write(pcm)
        return self._sink.drain()

    def finish(self) -> bytes:
        head = b"" if self._samples else self.feed(_ONE_SILENT_SAMPLE)
        self._file.close()
        return head + self._sink.drain()


class _Sink:
    """A write-only file for libsndfile that remembers its length and nothing that was drained.

    libsndfile asks for positions and goes back to the header when it closes a FLAC. Those bytes are sent
    already, so what is written anywhere but at the end is dropped: a streamed FLAC has no length and no MD5.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._position = 0
        self._end = 0

    def write(self, data: bytes) -> int:
        if self._position == self._end:
            self._pending += data
            self._end += len(data)
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        self._position = base + offset
        return self._position

    def drain(self) -> bytes:
        """What came since the last call."""
        data = bytes(self._pending)
        self._pending.clear()
        return data
