"""From reply bytes to PCM: every container, every way to be cut short, everything that is no audio."""

import io
import struct
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_actors.audio import decode_take, encode_file, open_encoder, prepare_clip, tone, wav_bytes, wav_header
from tts_actors.audio.takes import MAX_TAKE_SECONDS
from tts_actors.errors import BadTake

VOICE = tone("a voice that says something", seconds=1.5)


def file_of(
    samples: npt.NDArray[np.int16], rate_hz: int = 24_000, container: str = "WAV", codec: str | None = None
) -> bytes:
    out = io.BytesIO()
    floats = samples.astype(np.float64) / 32_768
    soundfile.write(out, floats, rate_hz, format=container, subtype=codec)
    return out.getvalue()


def stream_of(fmt: str, pcm: npt.NDArray[np.int16] = VOICE) -> bytes:
    encoder = open_encoder(fmt)
    return encoder.feed(pcm) + encoder.finish()


def loudest_difference(one: npt.NDArray[np.int16], other: npt.NDArray[np.int16]) -> int:
    return int(np.abs(one.astype(np.int32) - other.astype(np.int32)).max())


def signal_to_noise_db(wanted: npt.NDArray[np.int16], got: npt.NDArray[np.int16]) -> float:
    middle = slice(1_200, -1_200)  # codecs and resamplers need a moment at the edges
    signal = wanted[middle].astype(np.float64)
    noise = signal - got[middle]
    return float(10 * np.log10(np.sum(signal**2) / (np.sum(noise**2) + 1e-9)))


def test_a_plain_wav_gives_its_own_samples() -> None:
    assert np.array_equal(decode_take(wav_bytes(VOICE), "audio/wav"), VOICE)


def test_a_plain_wav_is_not_copied() -> None:
    assert not decode_take(wav_bytes(VOICE), "audio/wav").flags.owndata


@pytest.mark.parametrize("placeholder", [0, 0xFFFF_FFFF, 0xFFFF_FFFF - 36, 0x7FFF_FFFF, 0x7FFF_F000])
def test_a_streamed_wav_is_read_to_its_end(placeholder: int) -> None:
    header = bytearray(wav_header(None))
    struct.pack_into("<I", header, 4, min(placeholder + 36, 0xFFFF_FFFF))
    struct.pack_into("<I", header, 40, placeholder)
    assert np.array_equal(decode_take(bytes(header) + VOICE.tobytes(), "audio/wav"), VOICE)


def test_a_wav_without_samples_decodes_to_nothing() -> None:
    assert decode_take(wav_bytes(VOICE[:0]), "audio/wav").size == 0
    assert decode_take(wav_header(None), "audio/wav").size == 0


def test_tags_around_the_samples_of_a_wav_are_not_audio() -> None:
    plain = wav_bytes(VOICE)
    tag = b"LIST" + struct.pack("<I", 5) + b"hello\0"
    assert np.array_equal(decode_take(plain[:36] + tag + plain[36:] + tag, None), VOICE)


def test_an_empty_wav_with_a_tag_behind_it_is_empty() -> None:
    tag = b"LIST" + struct.pack("<I", 4) + b"oops"
    body = bytearray(wav_header(0) + tag)
    struct.pack_into("<I", body, 4, len(body) - 8)
    assert decode_take(bytes(body), None).size == 0


@pytest.mark.parametrize("codec", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
def test_every_usual_kind_of_wav_sample_is_read(codec: str) -> None:
    allowed = {"PCM_U8": 300, "ULAW": 600, "ALAW": 600}.get(codec, 1)
    assert loudest_difference(decode_take(file_of(VOICE, codec=codec), None), VOICE) <= allowed


@pytest.mark.parametrize("codec", ["PCM_U8", "PCM_24", "FLOAT", "ULAW"])
def test_streamed_sizes_are_understood_for_other_samples_too(codec: str) -> None:
    body = bytearray(file_of(VOICE, codec=codec))
    struct.pack_into("<I", body, 4, 0xFFFF_FFFF)
    struct.pack_into("<I", body, body.index(b"data") + 4, 0xFFFF_FFFF)
    assert decode_take(bytes(body), None).size == VOICE.size


def test_an_extensible_wav_header_is_read() -> None:
    assert np.array_equal(decode_take(file_of(VOICE, container="WAVEX", codec="PCM_16"), None), VOICE)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("codec", ["PCM_16", "FLOAT"])
def test_other_rates_are_resampled_to_the_same_duration_and_pitch(rate_hz: int, codec: str) -> None:
    theirs = tone("pitch", rate_hz=rate_hz, seconds=2.0)
    ours = decode_take(file_of(theirs, rate_hz, codec=codec), None)
    assert abs(ours.size - 48_000) <= 1
    wanted = tone("pitch", seconds=2.0)
    assert signal_to_noise_db(wanted[:47_999], ours[:47_999]) > 45


@pytest.mark.parametrize("codec", ["PCM_16", "FLOAT"])
def test_stereo_becomes_the_mean_of_its_channels(codec: str) -> None:
    left, right = tone("left", seconds=1.0), tone("right", seconds=1.0)
    ours = decode_take(file_of(np.stack([left, right], axis=1), codec=codec), None)
    assert loudest_difference(ours, ((left.astype(np.int32) + right) / 2).astype(np.int16)) <= 1


def test_stereo_at_another_rate_keeps_its_duration() -> None:
    theirs = tone("both", rate_hz=44_100, seconds=1.0)
    assert abs(decode_take(file_of(np.stack([theirs, theirs], axis=1), 44_100), None).size - 24_000) <= 1


@pytest.mark.parametrize(
    ("container", "codec", "padding_samples"),
    [("FLAC", "PCM_16", 0), ("OGG", "OPUS", 0), ("OGG", "VORBIS", 0), ("MP3", None, 0)],
)
@pytest.mark.parametrize("content_type", ["audio/wav", "text/html", "application/octet-stream", None, ""])
def test_the_bytes_decide_and_not_the_content_type(
    container: str, codec: str | None, padding_samples: int, content_type: str | None
) -> None:
    ours = decode_take(file_of(VOICE, container=container, codec=codec), content_type)
    assert ours.dtype == np.int16
    assert 0 <= ours.size - VOICE.size <= padding_samples
    assert signal_to_noise_db(VOICE, ours[: VOICE.size]) > 15


def test_a_wav_that_is_called_raw_pcm_is_still_a_wav() -> None:
    assert np.array_equal(decode_take(wav_bytes(VOICE), "audio/pcm"), VOICE)
    assert np.array_equal(decode_take(wav_bytes(VOICE), None, raw_rate_hz=16_000), VOICE)


@pytest.mark.parametrize("fmt", ["wav", "flac", "pcm"])
def test_our_lossless_streams_come_back_exactly(fmt: str) -> None:
    assert np.array_equal(decode_take(stream_of(fmt), "audio/pcm" if fmt == "pcm" else None), VOICE)


def test_a_streamed_flac_longer_than_one_block_comes_back_exactly() -> None:
    long = tone("long", seconds=130.0)
    assert np.array_equal(decode_take(stream_of("flac", long), None), long)


def test_an_mp3_longer_than_one_block_keeps_its_length() -> None:
    long = tone("long", seconds=130.0)
    assert 0 <= decode_take(stream_of("mp3", long), None).size - long.size < 0.07 * 24_000


def test_tags_at_both_ends_of_an_mp3_are_not_audio() -> None:
    bare = stream_of("mp3")
    tagged = b"ID3\x04\0\0\0\0\x01\x00" + b"\0" * 128 + bare + b"TAG" + b"\0" * 125
    assert decode_take(tagged, None).size == decode_take(bare, None).size


@pytest.mark.parametrize(
    ("container", "codec"), [("OGG", "OPUS"), ("OGG", "VORBIS"), ("MP3", None), ("WAV", "PCM_16"), ("WAV", "FLOAT")]
)
def test_files_that_a_server_joined_byte_by_byte_are_heard_to_the_end(container: str, codec: str | None) -> None:
    one = file_of(VOICE, container=container, codec=codec)
    assert decode_take(one + one + one, None).size == 3 * VOICE.size


def test_joined_mp3s_without_a_header_are_heard_to_the_end() -> None:
    one = stream_of("mp3")
    assert decode_take(one + one, None).size == 2 * decode_take(one, None).size


@pytest.mark.parametrize("content_type", ["audio/L16;rate=24000", "audio/pcm", "Audio/L16; rate=24000; channels=1"])
def test_raw_pcm_is_little_endian_when_the_content_type_says_raw(content_type: str) -> None:
    assert np.array_equal(decode_take(VOICE.tobytes(), content_type), VOICE)


def test_raw_pcm_has_the_rate_of_the_content_type_or_of_the_configuration() -> None:
    theirs = tone("raw", rate_hz=16_000, seconds=1.0)
    assert abs(decode_take(theirs.tobytes(), 'audio/L16; rate="16000"').size - 24_000) <= 1
    assert abs(decode_take(theirs.tobytes(), "application/octet-stream", raw_rate_hz=16_000).size - 24_000) <= 1
    assert abs(decode_take(theirs.tobytes(), "audio/L16;rate=48000", raw_rate_hz=16_000).size - 24_000) <= 1


@pytest.mark.parametrize("first_sample", [0x3C3C, 0x7B7B, -1, -1_025, -3_073, 0x4944])
def test_raw_pcm_may_begin_like_something_else(first_sample: int) -> None:
    pcm = np.concatenate([np.array([first_sample], np.int16), VOICE])
    assert np.array_equal(decode_take(pcm.tobytes(), "audio/pcm"), pcm)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4_000), st.floats(1, 32_000))
@settings(max_examples=200, deadline=None)
def test_raw_noise_of_any_loudness_is_never_taken_for_a_container(seed: int, samples: int, loudness: float) -> None:
    noise = np.random.default_rng(seed).normal(0, loudness, samples + 32)
    pcm = np.clip(noise, -32_768, 32_767).astype(np.int16)
    assert np.array_equal(decode_take(pcm.tobytes(), "audio/pcm"), pcm)


@pytest.mark.parametrize(
    ("content_type", "reason"),
    [
        ("audio/L16;rate=fast", "no number"),
        ("audio/L16;rate=1", "1 Hz"),
        ("audio/L16;rate=24000;channels=2", "mono"),
    ],
)
def test_raw_pcm_that_is_declared_wrongly_is_refused(content_type: str, reason: str) -> None:
    with pytest.raises(BadTake, match=reason):
        decode_take(VOICE.tobytes(), content_type)


def test_raw_pcm_of_an_odd_length_is_cut_short() -> None:
    with pytest.raises(BadTake, match="cut short"):
        decode_take(VOICE.tobytes()[:-1], "audio/pcm")


@pytest.mark.parametrize("content_type", ["audio/wav", "audio/pcm", None])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty body"),
        (b"<!DOCTYPE html><html><body>Secret Gateway 17</body></html>", "HTML"),
        (b"\xef\xbb\xbf  <?xml version='1.0'?><error>Secret</error>", "HTML or XML"),
        (b'{"error": {"message": "Secret Gateway 17"}}', "JSON"),
        (b'\n[{"error": "Secret"}]', "JSON"),
        (b"\0\0\0\x20ftypM4A Secret" + b"\0" * 50, "MP4"),
        (b"\x1aE\xdf\xa3 Secret" + b"\0" * 50, "WebM"),
    ],
)
def test_what_is_no_audio_is_named_and_not_quoted(body: bytes, reason: str, content_type: str | None) -> None:
    with pytest.raises(BadTake, match=reason) as caught:
        decode_take(body, content_type)
    assert "Secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"Secret Internal Server Error", "plain text"),
        (b"\xff\xf1\x50\x80\x02\x1f\xfc" + b"\x01" * 200, "AAC"),
        (b"\x01\x02\x03\x04 Secret" * 20, "unknown data"),
        (b"RIFF", "plain text"),
    ],
)
def test_undeclared_bytes_of_unknown_kind_are_not_guessed_to_be_pcm(body: bytes, reason: str) -> None:
    with pytest.raises(BadTake, match=reason) as caught:
        decode_take(body, "application/octet-stream")
    assert "Secret" not in str(caught.value)


@pytest.mark.parametrize("missing_bytes", [1, 2, 1_000, 60_000])
@pytest.mark.parametrize("codec", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_wav_shorter_than_it_declares_is_cut_short(missing_bytes: int, codec: str) -> None:
    with pytest.raises(BadTake, match="cut short"):
        decode_take(file_of(VOICE, codec=codec)[:-missing_bytes], "audio/wav")


@pytest.mark.parametrize("kept_bytes", [12, 20, 36, 43])
def test_a_wav_that_ends_in_its_header_is_cut_short(kept_bytes: int) -> None:
    with pytest.raises(BadTake, match="cut short"):
        decode_take(wav_bytes(VOICE)[:kept_bytes], "audio/wav")


def test_a_streamed_wav_that_ends_inside_a_sample_is_cut_short() -> None:
    with pytest.raises(BadTake, match="cut short"):
        decode_take(wav_header(None) + VOICE.tobytes()[:-1], None)


def test_a_wav_with_much_more_audio_than_it_declares_is_damaged() -> None:
    with pytest.raises(BadTake, match="damaged"):
        decode_take(wav_header(1_000) + VOICE.tobytes(), None)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("container", "codec"), [("FLAC", "PCM_16"), ("OGG", "OPUS"), ("OGG", "VORBIS"), ("MP3", None)]
)
def test_a_compressed_file_that_is_cut_is_noticed(container: str, codec: str | None, kept: float) -> None:
    body = file_of(VOICE, container=container, codec=codec)
    with pytest.raises(BadTake, match="cut short"):
        decode_take(body[: int(len(body) * kept)], None)


@pytest.mark.parametrize("fmt", ["flac", "opus"])
def test_a_streamed_output_that_is_cut_is_noticed(fmt: str) -> None:
    body = stream_of(fmt)
    for kept in (len(body) // 2, len(body) - 1):
        with pytest.raises(BadTake, match="cut short"):
            decode_take(body[:kept], None)


def test_a_streamed_mp3_that_ends_inside_a_frame_is_cut_short() -> None:
    with pytest.raises(BadTake, match="cut short"):
        decode_take(stream_of("mp3")[:-10], None)


def test_an_ogg_stream_that_lost_its_last_page_is_cut_short() -> None:
    body = stream_of("opus", tone("several pages", seconds=4.0))
    with pytest.raises(BadTake, match="without its last page"):
        decode_take(body[: body.rindex(b"OggS")], None)


def test_the_first_of_two_ogg_streams_may_not_lack_its_last_page_either() -> None:
    body = stream_of("opus", tone("several pages", seconds=4.0))
    with pytest.raises(BadTake, match="without its last page"):
        decode_take(body[: body.rindex(b"OggS")] + body, None)


@pytest.mark.parametrize("magic", [b"OggS", b"fLaC", b"ID3\x04\0\0\0\0\0\x0a", b"RIFF\0\0\0\0WAVE"])
@given(rest=st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_behind_a_known_magic_end_in_audio_or_a_bad_take(magic: bytes, rest: bytes) -> None:
    try:
        pcm = decode_take(magic + rest, None)
    except BadTake:
        return
    assert pcm.dtype == np.int16


@given(position=st.integers(0, 200), value=st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_a_changed_byte_in_a_header_ends_in_audio_or_a_bad_take(position: int, value: int) -> None:
    for body in (file_of(VOICE[:2_400]), file_of(VOICE[:2_400], codec="FLOAT"), stream_of("flac", VOICE[:2_400])):
        changed = bytearray(body)
        changed[position] = value
        try:
            pcm = decode_take(bytes(changed), None)
        except BadTake:
            continue
        assert pcm.ndim == 1


def test_samples_that_are_not_numbers_are_refused() -> None:
    floats = np.zeros(24_000, np.float32)
    floats[100] = np.nan
    out = io.BytesIO()
    soundfile.write(out, floats, 24_000, format="WAV", subtype="FLOAT")
    with pytest.raises(BadTake, match="not numbers"):
        decode_take(out.getvalue(), None)


def test_floats_far_beyond_full_scale_are_clipped() -> None:
    out = io.BytesIO()
    soundfile.write(out, np.full(44_100, 1e30), 44_100, format="WAV", subtype="FLOAT")
    assert np.all(decode_take(out.getvalue(), None)[1_000:-1_000] >= 32_700)


def test_a_small_file_that_unpacks_to_hours_is_refused() -> None:
    minute = np.zeros(60 * 24_000, np.int16)
    out = io.BytesIO()
    encode_file("flac", (minute for _ in range(MAX_TAKE_SECONDS // 60 + 1)), out)
    assert len(out.getvalue()) < 1_000_000
    with pytest.raises(BadTake, match="more than 7200 seconds"):
        decode_take(out.getvalue(), None)


def _flac(seconds: int, rate_hz: int = 24_000, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", rate_hz, channels, format="FLAC") as file:
        for _ in range(seconds // 10):
            file.write(np.zeros((10 * rate_hz, channels), np.int16))
    return out.getvalue()


@pytest.mark.parametrize(("seconds", "rate_hz", "channels"), [(1_200, 24_000, 1), (40, 192_000, 8)])
def test_a_bomb_is_unpacked_no_further_than_its_text_can_take(seconds: int, rate_hz: int, channels: int) -> None:
    body = _flac(seconds, rate_hz, channels)
    tracemalloc.start()
    try:
        with pytest.raises(BadTake, match="more than 17 seconds"):
            prepare_clip(body, None, "Eight l.")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 64 * 2**20


def test_files_that_were_joined_count_together() -> None:
    one = file_of(tone("ten", seconds=10.0), container="OGG", codec="OPUS")
    assert decode_take(one * 3, None, longest_seconds=31.0).size == pytest.approx(30 * 24_000, abs=24_000)
    with pytest.raises(BadTake, match="too long"):
        decode_take(one * 3, None, longest_seconds=29.0)
    wav = wav_bytes(tone("ten", seconds=10.0))
    with pytest.raises(BadTake, match="too long"):
        decode_take(wav * 3, None, longest_seconds=29.0)


@pytest.mark.parametrize("content_type", ["audio/wav", "audio/L16;rate=4000"])
def test_a_low_rate_is_not_blown_up_before_its_length_is_judged(content_type: str) -> None:
    slow = np.ones(4_000 * 60, np.int16)
    body = file_of(slow, 4_000) if content_type == "audio/wav" else slow.tobytes()
    with pytest.raises(BadTake, match="more than 59 seconds"):
        decode_take(body, content_type, longest_seconds=59.0)
