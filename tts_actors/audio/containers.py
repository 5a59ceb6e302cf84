"""What a backend's reply is, read from its own bytes: which container, and whether all of it is there.

Nothing is decoded here and no header field outside the body is believed. It must not know numpy or codecs.
"""

import struct
from dataclasses import dataclass
from enum import StrEnum

from tts_actors.errors import BadTake


class Kind(StrEnum):
    """What the first bytes say; the values are words for error messages."""

    WAV = "WAV"
    MP3 = "MP3"
    OGG = "Ogg"
    FLAC = "FLAC"
    HTML = "HTML or XML"
    JSON = "JSON"
    TEXT = "plain text"
    AAC = "AAC"
    MP4 = "MP4"
    WEBM = "WebM"
    UNKNOWN = "unknown data"


@dataclass(frozen=True, slots=True)
class WavLayout:
    """Where the samples of a WAV body are and how they are written."""

    fmt: bytes  # the fmt chunk's content, as found
    format_tag: int  # 1 PCM, 3 float, 6 A-law, 7 mu-law; the sub-format's tag if the header is "extensible"
    channels: int
    rate_hz: int
    bits: int
    data_start: int
    data_bytes: int  # whole frames only
    data_end: int  # where the next chunk or file would start


_TEXT_PROBE_BYTES = 256
_CONTROL_BYTES = frozenset(range(0x20)) - frozenset(b"\t\n\f\r")

_MP3_FRAMES_TO_CONFIRM = 3
"""An MP3 sync is 11 bits, and 2,000 bytes of anything else contain one: frames must follow each other."""

_ID3_HEADER_BYTES = 10
_XING_PROBE_BYTES = 64  # frame header, checksum and at most 32 bytes of side information come first
_XING_HAS_FRAMES, _XING_HAS_BYTES = 1, 2
# kbit/s by header field (ISO 11172-3 and 13818-3, layer III); 0 stands for "free" and "forbidden".
_KBPS_MPEG1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_KBPS_MPEG2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_MPEG1 = 3
_LAYER_III = 1

_MAX_WAV_CHUNKS = 64
_STREAMED_SIZE_FROM = 0x7FFF_0000
"""Sizes from here up (12 hours of speech) are placeholders: 0xFFFFFFFF, 0x7FFFFFFF, or a bit less."""

_MAX_UNDECLARED_BYTES = 4_096
"""More than this behind the samples is no tag or padding unless it starts with a chunk's name (printable)."""

_OGG_PAGE = struct.Struct("<4sBBqIIIB")
_OGG_FIRST_PAGE = 0x02
_OGG_LAST_PAGE = 0x04


def sniff(body: bytes, *, declared_raw: bool = False) -> Kind:
    """What ``body`` is, judged by its first bytes (MP3: by up to three frames).

    MP3 has no magic bytes, and raw samples can look like one frame of it: where they are ``declared_raw``, three whole
    frames are asked for.
    """
    if body[:4] == b"RIFF" and body[8:12] == b"WAVE":
        return Kind.WAV
    if body[:4] == b"OggS":
        return Kind.OGG
    if body[:4] == b"fLaC":
        return Kind.FLAC
    if body[4:8] == b"ftyp":
        return Kind.MP4
    if body[:4] == b"\x1aE\xdf\xa3":
        return Kind.WEBM
    if body[:3] == b"ID3" or _has_mp3_frames(body, 0, may_end=not declared_raw):
        return Kind.MP3
    if len(body) > 1 and body[0] == 0xFF and body[1] & 0xF6 == 0xF0:
        return Kind.AAC
    return _sniff_text(body)


def _sniff_text(body: bytes) -> Kind:
    probe = body[:_TEXT_PROBE_BYTES].removeprefix(b"\xef\xbb\xbf")
    if not _CONTROL_BYTES.isdisjoint(probe):
        return Kind.UNKNOWN
    match probe.lstrip()[:1]:
        case b"<":
            return Kind.HTML
        case b"{" | b"[":
            return Kind.JSON
        case _:
            return Kind.TEXT


def mp3_links(body: bytes) -> list[bytes]:
    """The MP3 files that follow each other in ``body``, without ID3v2 tags; nearly always one.

    If a server joined files byte by byte, libsndfile reads as much as the first one's Xing header counts and
    drops the rest. So a Xing header's size splits, if another tag or frame begins where it says that the file
    ends.
    """
    links: list[bytes] = []
    position = 0
    while True:
        start = _behind_id3(body, position)
        end = start + _xing_bytes(body, start)
        if not (body.startswith(b"ID3", end) or _has_mp3_frames(body, end)) or end <= start:
            return [*links, body[start:]]
        links.append(body[start:end])
        position = end


def _behind_id3(body: bytes, position: int) -> int:
    """Where the frames start: behind an ID3v2 tag, if one is at ``position`` (its size has 7 bits a byte)."""
    if not body.startswith(b"ID3", position) or len(body) < position + _ID3_HEADER_BYTES:
        return position
    a, b, c, d = (byte & 0x7F for byte in body[position + 6 : position + 10])
    return position + _ID3_HEADER_BYTES + (a << 21 | b << 14 | c << 7 | d)


def _xing_bytes(body: bytes, start: int) -> int:
    """Size of the MP3 file that starts here if its first frame is a Xing header that knows it, else 0."""
    head = body[start : start + _XING_PROBE_BYTES]
    found = max(head.find(b"Xing"), head.find(b"Info"))
    if found < 0 or len(head) < found + 16:
        return 0
    flags = int.from_bytes(head[found + 4 : found + 8], "big")
    if not flags & _XING_HAS_BYTES:
        return 0
    field = found + (12 if flags & _XING_HAS_FRAMES else 8)
    return int.from_bytes(head[field : field + 4], "big")


def _has_mp3_frames(body: bytes, position: int, *, may_end: bool = True) -> bool:
    """Whether three layer III frames (fewer if the body ``may_end`` first) follow each other from ``position``."""
    for seen in range(_MP3_FRAMES_TO_CONFIRM):
        size = _mp3_frame_bytes(body, position)
        if size == 0:
            return may_end and seen > 0 and position >= len(body)
        position += size
    return True


def _mp3_frame_bytes(body: bytes, position: int) -> int:
    """Size of the layer III frame whose header is at ``position``; 0 if there is no such header."""
    header = int.from_bytes(body[position : position + 4], "big")
    version, layer, kbps_field = header >> 19 & 3, header >> 17 & 3, header >> 12 & 15
    rate_field, padding = header >> 10 & 3, header >> 9 & 1
    kbps = (_KBPS_MPEG1 if version == _MPEG1 else _KBPS_MPEG2)[kbps_field]
    rates = _RATES_HZ.get(version)
    if header >> 21 != 0x7FF or layer != _LAYER_III or kbps == 0 or rates is None or rate_field == 3:
        return 0
    samples = 1_152 if version == _MPEG1 else 576
    return samples * kbps * 125 // rates[rate_field] + padding


def wav_layouts(body: bytes) -> list[WavLayout]:
    """Format and samples of each WAV file in ``body``: nearly always one, more if a server joined files.

    Sizes of 0 and from 0x7FFF0000 up are what streaming servers write when they cannot know better: then the
    samples reach to the end of the body. Raises ``BadTake`` if a data chunk is declared longer than what is
    there, if a streamed one ends inside a sample, if the header makes no sense, and if there is much more
    behind the samples than tags: nobody may drop half an answer because its header is wrong.
    """
    layouts = [_wav_layout(body, 0)]
    while body.startswith(b"RIFF", layouts[-1].data_end):
        layouts.append(_wav_layout(body, layouts[-1].data_end))
    rest = body[layouts[-1].data_end :]
    if len(rest) > _MAX_UNDECLARED_BYTES and not _is_printable(rest[:4]):
        raise BadTake(f"damaged: a WAV with {len(rest)} bytes behind its declared samples")
    return layouts


def _is_printable(name: bytes) -> bool:
    return all(0x20 <= byte < 0x7F for byte in name)


def _wav_layout(body: bytes, file_start: int) -> WavLayout:
    fmt = b""
    position = file_start + 12
    for _ in range(_MAX_WAV_CHUNKS):
        if position + 8 > len(body):
            break
        name, size = struct.unpack_from("<4sI", body, position)
        position += 8
        if name == b"data":
            if _is_streamed(body, file_start, size):
                return _layout_of(body, fmt, position, None)
            return _layout_of(body, fmt, position, size)
        if name == b"fmt ":
            fmt = body[position : position + size]
        position += size + (size & 1)
    raise BadTake(f"cut short: a WAV of {len(body)} bytes without samples")


def _is_streamed(body: bytes, file_start: int, declared: int) -> bool:
    """Whether ``declared`` is a placeholder. A size of 0 is meant if the RIFF size is the true one."""
    if declared == 0:
        return file_start + 8 + int.from_bytes(body[file_start + 4 : file_start + 8], "little") != len(body)
    return declared >= _STREAMED_SIZE_FROM


def _layout_of(body: bytes, fmt: bytes, start: int, declared: int | None) -> WavLayout:
    if len(fmt) < 16:
        raise BadTake("a WAV whose format is missing")
    tag, channels, rate_hz, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", fmt)
    if tag == 0xFFFE and len(fmt) >= 26:  # WAVE_FORMAT_EXTENSIBLE: the real tag starts the sub-format's GUID
        tag = int.from_bytes(fmt[24:26], "little")
    if channels == 0 or frame_bytes == 0:
        raise BadTake("a WAV whose format makes no sense: no channels")
    available = len(body) - start
    if declared is None and available % frame_bytes:
        raise BadTake(f"cut short: a streamed WAV of {len(body)} bytes ends inside a sample")
    data_bytes = available if declared is None else declared
    if data_bytes > available:
        raise BadTake(f"cut short: a WAV with {available} of {data_bytes} bytes of samples")
    end = start + data_bytes + (data_bytes & 1)
    return WavLayout(fmt, tag, channels, rate_hz, bits, start, data_bytes - data_bytes % frame_bytes, end)


def ogg_links(body: bytes) -> list[bytes]:
    """The Ogg streams that follow each other in ``body``; nearly always one.

    Servers that join files byte by byte send several, of which libsndfile reads the first and silently drops
    the rest. Raises ``BadTake`` if the body ends inside a page or without the last-page flag that every
    stream must end with (RFC 3533, section 6): the decoder would play what is there and say nothing.
    """
    starts: list[int] = []
    position, flags = 0, 0
    while position < len(body):
        if body[position : position + 4] != b"OggS":
            raise BadTake(f"damaged: an Ogg stream of {len(body)} bytes with something else in it")
        if position + _OGG_PAGE.size > len(body):
            raise BadTake(f"cut short: an Ogg stream of {len(body)} bytes ends inside a page")
        *_, segments = _OGG_PAGE.unpack_from(body, position)
        before, flags = flags, body[position + 5]
        if position == 0 or (flags & _OGG_FIRST_PAGE and not before & _OGG_FIRST_PAGE):
            _require_last_page(before if starts else _OGG_LAST_PAGE, body)
            starts.append(position)
        lacing = body[position + _OGG_PAGE.size : position + _OGG_PAGE.size + segments]
        position += _OGG_PAGE.size + segments + sum(lacing)
    if position > len(body):
        raise BadTake(f"cut short: an Ogg stream of {len(body)} bytes ends inside a page")
    _require_last_page(flags, body)
    return [body[start:end] for start, end in zip(starts, [*starts[1:], len(body)], strict=True)]


def _require_last_page(flags: int, body: bytes) -> None:
    if not flags & _OGG_LAST_PAGE:
        raise BadTake(f"cut short: an Ogg stream of {len(body)} bytes without its last page")
