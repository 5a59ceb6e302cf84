"""From the bytes that a backend sent to PCM that can be joined: decode, judge, trim.

A take is one answer of one backend to one text; a clip is a take that was accepted. Nothing here trusts what
the backend says about its answer, and no message carries a part of the answer or of the text.
"""

import io
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr

from tts_actors.audio.containers import Kind, WavLayout, mp3_links, ogg_links, sniff, wav_layouts
from tts_actors.audio.pcm import FULL_SCALE, Frames, Pcm, level_of_dbfs, pcm_of_frames, peak_of
from tts_actors.audio.trim import SILENCE_DBFS, trim_and_fade, voiced_bounds
from tts_actors.errors import BadTake
from tts_actors.models import SAMPLE_RATE_HZ

__all__ = ["DEFAULT_TAKE_POLICY", "TakePolicy", "check_take", "decode_take", "prepare_clip", "trim_and_fade"]

MAX_TAKE_SECONDS = 2 * 3_600
"""No take may decode to more: a few kilobytes of FLAC can otherwise claim all memory. The longest take that
is meant to happen, 100,000 characters in one piece, was measured at 5,944 s."""

_BLOCK_SAMPLES = 2**21
"""Decoded at a time, over all channels: 8 MiB."""

_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 4_000, 192_000
_MAYBE_RAW = frozenset({Kind.UNKNOWN, Kind.TEXT, Kind.AAC})
"""What raw samples can look like by chance: loud ones like letters, a sample of -15 like the start of AAC."""

_RAW_TYPES = frozenset({"audio/l16", "audio/pcm"})
_NO_SAMPLES: Pcm = np.zeros(0, np.int16)
_UNKNOWN_LENGTH_FROM = 2**62  # libsndfile's answer for FLAC that was streamed and has no length


@dataclass(frozen=True, slots=True)
class TakePolicy:
    """Bounds outside which a take is not speech of its text. They are meant to be far from any real voice: a
    false alarm costs a chunk, and what they are for (no audio, half an answer, a loop) misses them by far.
    """

    silence_dbfs: float = SILENCE_DBFS
    """Peak of the whole take below which nobody spoke."""

    clipped_level: float = 0.99
    max_clipped_fraction: float = 0.20
    """More samples than this at ``clipped_level`` of full scale is an overflow or noise. A sine normalised to
    full scale has 9 % there (2/pi * acos 0.99), speech far less."""

    max_characters_per_second: float = 120.0
    """Letters and digits per second of sound. Measured: 13-20 for English on three engines at speed 1.0. Six times
    the fastest of them, because a bound that knows nothing of the voice must never refuse a good take."""

    judged_from_characters: int = 20
    """Shorter texts are never called too short: "1/2 kg" and "OK" have no pace."""

    longest_base_seconds: float = 5.0
    longest_seconds_per_character: float = 1.5
    """Longer than base + this per character of the text is a voice that loops. Measured worst: 50 emoji
    spoken by espeak in 7.6 s, a URL by hibari in 7 s; a digit or a symbol as a word takes about 0.5 s."""

    def longest_seconds(self, text: str, speed: float) -> float:
        """The longest that ``text`` may take at ``speed``: no take is even decoded beyond it."""
        return (self.longest_base_seconds + self.longest_seconds_per_character * len(text)) / min(speed, 1.0)


DEFAULT_TAKE_POLICY = TakePolicy()


def prepare_clip(
    body: bytes,
    content_type: str | None,
    text: str,
    *,
    speed: float = 1.0,
    stretch: float = 1.0,
    raw_rate_hz: int | None = None,
    policy: TakePolicy = DEFAULT_TAKE_POLICY,
) -> Pcm:
    """The clip in a backend's answer: decoded, accepted, edges trimmed and faded, then made ``stretch`` times as fast.

    Raises ``BadTake`` if the answer is not audio or not plausibly speech of ``text`` at ``speed``, the one that the
    backend was asked for. A text without letters and digits ("* * *") may give a clip of 0 samples.
    """
    longest_seconds = policy.longest_seconds(text, speed)
    pcm = decode_take(body, content_type, raw_rate_hz=raw_rate_hz, longest_seconds=longest_seconds)
    check_take(pcm, text, speed=speed, policy=policy)
    clip = trim_and_fade(pcm)
    if stretch == 1.0:
        return clip
    # Here, not at the top: most processes never stretch anything.
    from tts_actors.audio.stretch import stretched

    return stretched(clip, stretch)


def decode_take(
    body: bytes,
    content_type: str | None,
    *,
    raw_rate_hz: int | None = None,
    longest_seconds: float = MAX_TAKE_SECONDS,
) -> Pcm:
    """PCM of a reply body: WAV, MP3, Ogg (Opus, Vorbis) or FLAC at any rate and channel count.

    The bytes decide what it is. Only what has no magic bytes, raw little-endian s16 mono, is believed from
    ``content_type`` (``audio/L16;rate=...``, ``audio/pcm``; by default at 24 kHz) or ``raw_rate_hz``, which
    wins over the header. The result may be a read-only view of ``body``.
    Raises ``BadTake`` for everything that is not audio, is cut short, cannot be decoded, or would be longer than
    ``longest_seconds`` (and :data:`MAX_TAKE_SECONDS`): then hardly more than that is decoded.
    """
    if not body:
        raise BadTake("the backend sent an empty body")
    longest_seconds = min(longest_seconds, MAX_TAKE_SECONDS)
    rate_hz = _raw_rate_hz(content_type, raw_rate_hz)
    kind = sniff(body, declared_raw=rate_hz is not None)
    match kind:
        case Kind.WAV:
            return _decode_wav(body, longest_seconds)
        case Kind.MP3:
            return _decode_links(mp3_links(body), kind, longest_seconds)
        case Kind.FLAC:
            return _decode_links([body], kind, longest_seconds)
        case Kind.OGG:
            return _decode_links(ogg_links(body), kind, longest_seconds)
    if rate_hz is None or kind not in _MAYBE_RAW:
        raise BadTake(f"the backend sent {kind} ({len(body)} bytes), which cannot be decoded as audio here")
    return _decode_raw(body, rate_hz, longest_seconds)


def _decode_links(links: list[bytes], kind: Kind, longest_seconds: float) -> Pcm:
    """Several files that were joined byte by byte, decoded one by one; ``longest_seconds`` are for all of them."""
    clips: list[Pcm] = []
    for link in links:
        clips.append(_to_pcm(*_decode_file(link, kind, longest_seconds)))
        longest_seconds -= clips[-1].size / SAMPLE_RATE_HZ
    return _joined(clips)


def _joined(clips: list[Pcm]) -> Pcm:
    return clips[0] if len(clips) == 1 else np.concatenate(clips)


def _raw_rate_hz(content_type: str | None, raw_rate_hz: int | None) -> int | None:
    """The rate of raw PCM, if anything declares the body to be raw PCM."""
    if raw_rate_hz is not None or content_type is None:
        return raw_rate_hz
    media_type, *parameters = content_type.lower().replace(" ", "").split(";")
    if media_type not in _RAW_TYPES:
        return None
    values = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
    if values.get("channels", "1").strip('"') != "1":
        raise BadTake("raw PCM with more than one channel: only mono is understood")
    rate = values.get("rate", str(SAMPLE_RATE_HZ)).strip('"')
    if not rate.isdecimal():
        raise BadTake("raw PCM whose Content-Type has a rate that is no number")
    return int(rate)


def _decode_raw(body: bytes, rate_hz: int, longest_seconds: float) -> Pcm:
    if len(body) % 2:
        raise BadTake(f"cut short: {len(body)} bytes of raw PCM end inside a sample")
    _check_rate(rate_hz)
    _check_length(len(body) // 2, rate_hz, longest_seconds)
    pcm = np.frombuffer(body, "<i2").astype(np.int16, copy=False)
    return pcm if rate_hz == SAMPLE_RATE_HZ else _to_pcm(_frames_of(pcm), rate_hz)


def _decode_wav(body: bytes, longest_seconds: float) -> Pcm:
    """16-bit PCM, nearly every take, without a decoder (1 s: 5 us, libsndfile 170 us); the rest through it."""
    clips: list[Pcm] = []
    for layout in wav_layouts(body):
        clips.append(_decode_wav_file(body, layout, longest_seconds))
        longest_seconds -= clips[-1].size / SAMPLE_RATE_HZ
    return _joined(clips)


def _decode_wav_file(body: bytes, layout: WavLayout, longest_seconds: float) -> Pcm:
    if layout.data_bytes == 0:
        return _NO_SAMPLES
    if layout.format_tag != 1 or layout.bits != 16:
        return _to_pcm(*_decode_file(_plain_wav(body, layout), Kind.WAV, longest_seconds))
    _check_rate(layout.rate_hz)
    _check_length(layout.data_bytes // 2 // layout.channels, layout.rate_hz, longest_seconds)
    samples = np.frombuffer(body, "<i2", count=layout.data_bytes // 2, offset=layout.data_start)
    pcm = samples.astype(np.int16, copy=False)
    if layout.channels == 1 and layout.rate_hz == SAMPLE_RATE_HZ:
        return pcm
    frames = _frames_of(pcm[: pcm.size // layout.channels * layout.channels])
    return _to_pcm(_mono(frames.reshape(-1, layout.channels)), layout.rate_hz)


def _plain_wav(body: bytes, layout: WavLayout) -> bytes:
    """The same samples behind a header with true sizes: libsndfile does not know every placeholder."""
    fmt = layout.fmt + b"\0" * (len(layout.fmt) & 1)
    data = body[layout.data_start : layout.data_start + layout.data_bytes]
    riff_bytes = 4 + 8 + len(fmt) + 8 + len(data)
    parts = (b"RIFF", _u32(riff_bytes), b"WAVEfmt ", _u32(len(fmt)), fmt, b"data", _u32(len(data)), data)
    return b"".join(parts)


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


class _ForwardFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is untyped here
    """A file that is only read forward: soundfile seeks after each read, which fails in streamed FLAC."""

    def seekable(self) -> bool:
        return False


def _decode_file(data: bytes, kind: Kind, longest_seconds: float) -> tuple[Frames, int]:
    """Mono samples and their rate, through libsndfile.

    ``BadTake`` if it fails, and if it gives less than the file declares: it plays half an MP3 without a word.
    """
    try:
        with _ForwardFile(io.BytesIO(data)) as file:
            _check_rate(file.samplerate)
            declared, rate_hz = file.frames, file.samplerate
            frames = _read_mono(file, longest_seconds)
    except soundfile.SoundFileError:
        # Not chained: libsndfile's message says no more than "cannot", and it would travel between processes.
        raise BadTake(f"cut short or damaged: {kind} of {len(data)} bytes cannot be decoded") from None
    if frames.size < declared < _UNKNOWN_LENGTH_FROM:
        raise BadTake(f"cut short: {kind} with {frames.size} of {declared} samples")
    if not np.isfinite(frames).all():
        raise BadTake(f"damaged: {kind} with samples that are not numbers")
    # Float files can hold any number; beyond full scale it would overflow in the resampler.
    return np.clip(frames, -1.0, 1.0), rate_hz


def _read_mono(file: soundfile.SoundFile, longest_seconds: float) -> Frames:
    """All samples, in blocks: a streamed FLAC does not know its length, and no bomb may unpack here."""
    block_frames = _BLOCK_SAMPLES // file.channels
    blocks: list[Frames] = []
    frames = 0
    while not blocks or blocks[-1].size == block_frames:
        blocks.append(_mono(file.read(block_frames, dtype="float32", always_2d=True)))
        frames += blocks[-1].size
        _check_length(frames, file.samplerate, longest_seconds)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _check_length(frames: int, rate_hz: int, longest_seconds: float) -> None:
    if frames > longest_seconds * rate_hz:
        raise BadTake(f"the take is too long: more than {max(longest_seconds, 0):.0f} seconds")


def _check_rate(rate_hz: int) -> None:
    if not _LOWEST_RATE_HZ <= rate_hz <= _HIGHEST_RATE_HZ:
        raise BadTake(f"a sample rate of {rate_hz} Hz makes no sense")


def _frames_of(pcm: Pcm) -> Frames:
    return pcm * np.float32(1 / FULL_SCALE)


def _mono(frames: Frames) -> Frames:
    """Channels averaged: the sum could clip."""
    return frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1, dtype=np.float32)


def _to_pcm(frames: Frames, rate_hz: int) -> Pcm:
    """Mono floats at any rate as PCM. soxr HQ measured 77 dB signal to noise, ``np.interp`` 9 dB."""
    if rate_hz != SAMPLE_RATE_HZ and frames.size:
        frames = soxr.resample(np.ascontiguousarray(frames), rate_hz, SAMPLE_RATE_HZ, "HQ")
    return pcm_of_frames(frames)


def check_take(pcm: Pcm, text: str, *, speed: float = 1.0, policy: TakePolicy = DEFAULT_TAKE_POLICY) -> None:
    """Raise ``BadTake`` if ``pcm`` cannot be speech of ``text``.

    That is: no or silent audio, clipped flat, far too short or far too long for the characters.

    No and silent audio are fine for a text without letters and digits: there may be nothing to say. ``speed``
    only ever widens the bounds: some backends obey it, others ignore it.
    """
    spoken = sum(map(str.isalnum, text))
    peak = peak_of(pcm)
    if pcm.size == 0 and spoken:
        raise BadTake("the backend returned no audio; it may not be able to speak this text")
    if peak < level_of_dbfs(policy.silence_dbfs) and spoken:
        raise BadTake(f"the take is silent: its peak is below {policy.silence_dbfs:g} dBFS")
    _check_clipping(pcm, peak, policy)
    if spoken >= policy.judged_from_characters:
        _check_shortest(pcm, spoken, max(speed, 1.0), policy)
    seconds = pcm.size / SAMPLE_RATE_HZ
    if seconds > policy.longest_seconds(text, speed):
        raise BadTake(f"the take is too long: {seconds:.1f} s for {len(text)} characters")


def _check_clipping(pcm: Pcm, peak: int, policy: TakePolicy) -> None:
    level = round(policy.clipped_level * FULL_SCALE)
    if peak < level:
        return
    clipped = np.count_nonzero(pcm >= level) + np.count_nonzero(pcm <= -level)
    if clipped > policy.max_clipped_fraction * pcm.size:
        raise BadTake(f"the take is clipped flat: {clipped / pcm.size:.0%} of its samples are at full scale")


def _check_shortest(pcm: Pcm, spoken: int, speed: float, policy: TakePolicy) -> None:
    start, end = voiced_bounds(pcm, level_of_dbfs(policy.silence_dbfs))
    seconds = (end - start) / SAMPLE_RATE_HZ * speed
    if spoken > policy.max_characters_per_second * seconds:
        raise BadTake(f"the take is too short: {seconds:.2f} s of sound for {spoken} letters and digits")
