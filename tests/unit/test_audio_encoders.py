"""Outputs: every format, fed in any pieces, has the right length, and no encoder keeps what it has given out."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_actors.audio import (
    MEDIA_TYPES,
    OUTPUT_FORMATS,
    decode_take,
    encode_file,
    open_encoder,
    require_format,
    tone,
    wav_bytes,
)
from tts_actors.audio.encoders import _Sink, _SoundfileEncoder
from tts_actors.errors import InvalidRequest

PIECES = [tone(f"piece {n}", seconds=seconds) for n, seconds in enumerate((0.5, 0.01, 1.3, 0.0, 0.7))]
JOINED = np.concatenate(PIECES)
CODEC_PADDING_SAMPLES = 1_680  # 70 ms: decoder delay and the last frame of an MP3
EXACT_FORMATS = ("wav", "pcm", "flac", "opus")


def streamed(fmt: str, pieces: list[npt.NDArray[np.int16]], total_samples: int | None = None) -> bytes:
    encoder = open_encoder(fmt, total_samples=total_samples)
    return b"".join([*(encoder.feed(piece) for piece in pieces), encoder.finish()])


def filed(fmt: str, pieces: list[npt.NDArray[np.int16]]) -> bytes:
    out = io.BytesIO()
    encode_file(fmt, pieces, out)
    return out.getvalue()


def decoded(fmt: str, body: bytes) -> npt.NDArray[np.int16]:
    return decode_take(body, MEDIA_TYPES[fmt])


def split(pcm: npt.NDArray[np.int16], cuts: list[int]) -> list[npt.NDArray[np.int16]]:
    return np.split(pcm, sorted(cut % (pcm.size + 1) for cut in cuts))


@pytest.mark.parametrize("make", [streamed, filed])
@pytest.mark.parametrize("fmt", ["wav", "pcm", "flac"])
def test_lossless_outputs_come_back_exactly(fmt: str, make) -> None:  # type: ignore[no-untyped-def]
    assert np.array_equal(decoded(fmt, make(fmt, PIECES)), JOINED)


@pytest.mark.parametrize("make", [streamed, filed])
def test_opus_has_the_exact_length(make) -> None:  # type: ignore[no-untyped-def]
    assert decoded("opus", make("opus", PIECES)).size == JOINED.size


@pytest.mark.parametrize("make", [streamed, filed])
def test_mp3_is_at_most_70_ms_longer(make) -> None:  # type: ignore[no-untyped-def]
    assert 0 <= decoded("mp3", make("mp3", PIECES)).size - JOINED.size <= CODEC_PADDING_SAMPLES


@given(cuts=st.lists(st.integers(0, JOINED.size), max_size=12))
@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize("fmt", OUTPUT_FORMATS)
def test_the_length_does_not_depend_on_the_pieces(fmt: str, cuts: list[int]) -> None:
    extra = decoded(fmt, streamed(fmt, split(JOINED, cuts))).size - JOINED.size
    assert extra == 0 if fmt in EXACT_FORMATS else 0 <= extra <= CODEC_PADDING_SAMPLES


@given(samples=st.integers(1, 3_000))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("fmt", EXACT_FORMATS)
def test_short_outputs_have_their_exact_length(fmt: str, samples: int) -> None:
    assert decoded(fmt, streamed(fmt, [JOINED[:samples]])).size == samples


@pytest.mark.parametrize("fmt", ["wav", "mp3", "pcm"])
def test_the_same_samples_give_the_same_bytes(fmt: str) -> None:
    assert streamed(fmt, PIECES) == streamed(fmt, PIECES)


@pytest.mark.parametrize("make", [streamed, filed])
@pytest.mark.parametrize("fmt", OUTPUT_FORMATS)
def test_silence_is_encoded_like_anything_else(fmt: str, make) -> None:  # type: ignore[no-untyped-def]
    silence = np.zeros(24_000, np.int16)
    pcm = decoded(fmt, make(fmt, [silence]))
    assert 0 <= pcm.size - silence.size <= CODEC_PADDING_SAMPLES
    assert np.abs(pcm).max() <= 1


@pytest.mark.parametrize("make", [streamed, filed])
@pytest.mark.parametrize("pieces", [[], [np.zeros(0, np.int16)]])
@pytest.mark.parametrize("fmt", ["wav", "mp3", "opus", "flac"])
def test_an_output_without_samples_is_still_a_file_that_opens(fmt: str, pieces, make) -> None:  # type: ignore[no-untyped-def]
    body = make(fmt, pieces)
    assert body
    assert decoded(fmt, body).size <= {"wav": 0, "mp3": 2_000}.get(fmt, 1)


@pytest.mark.parametrize("make", [streamed, filed])
def test_pcm_without_samples_is_empty(make) -> None:  # type: ignore[no-untyped-def]
    assert make("pcm", []) == b""


@pytest.mark.parametrize("fmt", OUTPUT_FORMATS)
def test_bytes_flow_before_the_output_is_complete(fmt: str) -> None:
    encoder = open_encoder(fmt)  # opus is the slowest: one page a second, behind 869 bytes of header
    assert sum(len(encoder.feed(tone("x", seconds=0.5))) for _ in range(4)) > 1_000


def test_a_streamed_mp3_has_neither_tags_nor_a_header_frame() -> None:
    body = streamed("mp3", PIECES)
    first_frame = body[:192]  # 64 kbit/s at 24 kHz; LAME's name in the padding of later frames is no tag
    assert first_frame[:2] == body[192:194] == b"\xff\xf3"
    assert b"LAME" not in first_frame
    assert b"Xing" not in body
    assert b"Info" not in body
    assert body[-128:-125] != b"TAG"


def test_an_mp3_has_64_kbit_per_second() -> None:
    body = streamed("mp3", [tone("minute", seconds=60.0)])
    assert abs(len(body) - 480_000) < 1_000


def test_a_streamed_wav_of_unknown_length_says_so() -> None:
    assert streamed("wav", PIECES)[40:44] == b"\xff\xff\xff\xff"


def test_a_streamed_wav_of_known_length_is_the_same_as_a_finished_one() -> None:
    known = streamed("wav", PIECES, total_samples=JOINED.size)
    assert known == wav_bytes(JOINED) == filed("wav", PIECES)


def test_a_wav_must_keep_the_promise_of_its_header() -> None:
    short, long = open_encoder("wav", total_samples=10), open_encoder("wav", total_samples=10)
    short.feed(JOINED[:9])
    with pytest.raises(ValueError, match="9 of the 10 samples"):
        short.finish()
    with pytest.raises(ValueError, match="more than the 10 samples"):
        long.feed(JOINED[:11])


def test_a_finished_flac_knows_its_length_and_its_md5() -> None:
    body = filed("flac", PIECES)
    total_samples = int.from_bytes(body[21:26], "big") & 0xF_FFFF_FFFF
    assert total_samples == JOINED.size
    assert body[26:42] != bytes(16)


def test_a_streamed_flac_begins_like_a_finished_one_and_is_as_long() -> None:
    stream, file = streamed("flac", PIECES), filed("flac", PIECES)
    assert stream[42:] == file[42:]


@pytest.mark.parametrize("fmt", OUTPUT_FORMATS)
def test_a_finished_output_is_written_to_a_real_file(fmt: str, tmp_path: Path) -> None:
    path = tmp_path / f"speech.{fmt}"
    with path.open("wb") as out:
        encode_file(fmt, PIECES, out)
        assert not out.closed
    body = path.read_bytes()
    assert 0 <= decoded(fmt, body).size - JOINED.size <= CODEC_PADDING_SAMPLES
    if fmt != "pcm":
        assert soundfile.info(str(path)).samplerate == 24_000


def test_an_output_file_is_written_from_its_start() -> None:
    out = io.BytesIO()
    out.write(b"something")
    with pytest.raises(ValueError, match="from its start"):
        encode_file("wav", PIECES, out)


def test_pieces_are_taken_one_at_a_time() -> None:
    handed_out = 0
    sizes: list[int] = []
    out = io.BytesIO()

    def pieces() -> Iterator[npt.NDArray[np.int16]]:
        nonlocal handed_out
        for _ in range(5):
            sizes.append(len(out.getvalue()))
            handed_out += 1
            yield tone("x", seconds=1.0)

    encode_file("wav", pieces(), out)
    assert handed_out == 5
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(("container", "codec"), [("FLAC", "PCM_16"), ("OGG", "OPUS")])
def test_an_encoder_keeps_nothing_that_it_has_given_out(container: str, codec: str) -> None:
    encoder = _SoundfileEncoder(container, codec)
    piece = tone("again and again", seconds=1.0)
    given_out = [len(encoder.feed(piece)) for _ in range(20)]
    assert encoder._sink._pending == b""
    assert encoder._sink.tell() == sum(given_out)
    assert max(given_out[10:]) <= 1.1 * max(given_out[:10])


def test_a_sink_drops_what_is_written_anywhere_but_at_the_end() -> None:
    sink = _Sink()
    sink.write(b"header")
    sink.seek(0)
    sink.write(b"HEADER")
    assert sink.tell() == 6
    sink.seek(0, io.SEEK_END)
    sink.write(b"more")
    assert sink.drain() == b"headermore"
    assert sink.drain() == b""


@pytest.mark.parametrize("fmt", OUTPUT_FORMATS)
def test_what_is_not_pcm_is_not_encoded(fmt: str) -> None:
    encoder = open_encoder(fmt)
    with pytest.raises(TypeError, match="int16"):
        encoder.feed(np.zeros(100, np.float32))


@pytest.mark.parametrize("fmt", OUTPUT_FORMATS)
def test_an_encoder_may_be_dropped_halfway(fmt: str) -> None:
    encoder = open_encoder(fmt)
    encoder.feed(JOINED)
    del encoder


@pytest.mark.parametrize("fmt", ["aac", "MP3", "", "webm"])
def test_a_format_that_we_do_not_have_is_refused_by_name_of_its_field(
    fmt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(MEDIA_TYPES, "aac", raising=False)  # a machine with the extra has it
    for attempt in (lambda: open_encoder(fmt), lambda: encode_file(fmt, [], io.BytesIO()), lambda: require_format(fmt)):
        with pytest.raises(InvalidRequest, match="response_format") as caught:
            attempt()
        assert caught.value.param == "response_format"
        assert ("'av' extra" in caught.value.message) == (fmt == "aac")


def test_every_output_has_a_media_type() -> None:
    assert set(OUTPUT_FORMATS) - {"aac"} == {"mp3", "opus", "flac", "wav", "pcm"}
    assert list(itertools.chain(MEDIA_TYPES)) == list(OUTPUT_FORMATS)
