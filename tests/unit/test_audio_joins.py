"""Trimming, fading, pauses, tones and our own WAV: what happens to samples between a take and an output."""

import hashlib
import itertools
import struct
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_actors.audio import (
    WAV_HEADER_BYTES,
    Pauses,
    pause_samples,
    pcm_of_wav,
    tone,
    trim_and_fade,
    wav_bytes,
    wav_header,
)
from tts_actors.models import Boundary

LOUD = np.where(np.arange(24_000) // 60 % 2, 20_000, -20_000).astype(np.int16)  # a square wave: the worst edge


def silence(seconds: float) -> npt.NDArray[np.int16]:
    return np.zeros(round(seconds * 24_000), np.int16)


def steepest_step(pcm: npt.NDArray[np.int16]) -> int:
    return int(np.abs(np.diff(pcm.astype(np.int32))).max())


def test_trimming_keeps_20_ms_of_silence_on_each_side() -> None:
    clip = trim_and_fade(np.concatenate([silence(0.31), LOUD, silence(0.49)]))
    assert clip.size == LOUD.size + 2 * 480


def test_silence_inside_a_clip_stays() -> None:
    clip = trim_and_fade(np.concatenate([silence(0.3), LOUD, silence(2.0), LOUD, silence(0.3)]))
    assert clip.size == 2 * LOUD.size + 48_000 + 2 * 480


def test_the_voice_itself_is_not_touched_when_there_is_room_for_the_fade() -> None:
    clip = trim_and_fade(np.concatenate([silence(0.3), LOUD, silence(0.3)]))
    assert np.array_equal(clip[480:-480], LOUD)


def test_noise_below_the_threshold_counts_as_silence() -> None:
    hiss = np.random.default_rng(3).integers(-100, 101, 12_000).astype(np.int16)
    assert trim_and_fade(np.concatenate([hiss, LOUD, hiss])).size == LOUD.size + 960


def test_a_quiet_voice_keeps_its_quiet_parts() -> None:
    quiet = np.where(np.arange(24_000) // 60 % 2, 150, -150).astype(np.int16)  # -47 dBFS, below the threshold
    assert trim_and_fade(np.concatenate([silence(0.3), quiet, silence(0.3)])).size == quiet.size + 960


def test_a_silent_take_trims_to_nothing() -> None:
    assert trim_and_fade(silence(1.0)).size == 0
    assert trim_and_fade(silence(0.0)).size == 0


@given(st.integers(1, 1_000), st.integers(-32_768, 32_767), st.integers(0, 30), st.integers(0, 30))
def test_every_clip_begins_and_ends_at_zero(samples: int, level: int, keep_ms: int, fade_ms: int) -> None:
    take = np.full(samples, level, np.int16)
    clip = trim_and_fade(take, keep_ms=keep_ms, fade_ms=fade_ms)
    if clip.size:
        assert clip[0] == clip[-1] == 0
        assert clip.size == samples
    assert np.array_equal(take, np.full(samples, level, np.int16))


def test_a_fade_never_makes_a_sample_louder() -> None:
    clip = trim_and_fade(LOUD)
    assert np.all(np.abs(clip.astype(np.int32)) <= np.abs(LOUD.astype(np.int32)))


def test_a_read_only_take_gives_a_clip_of_its_own() -> None:
    take = np.frombuffer(LOUD.tobytes(), np.int16)
    clip = trim_and_fade(take)
    assert clip.flags.owndata
    assert clip.flags.writeable


def test_joining_many_clips_adds_no_click() -> None:
    takes = [tone(f"sentence number {n}", seconds=0.4)[37 * n : -53 * n - 1] for n in range(40)]
    pause = np.zeros(pause_samples(Boundary.SENTENCE), np.int16)
    assert max(int(abs(take[0].item())) for take in takes) > 3_000  # cut in the middle of the wave
    joined = np.concatenate(list(itertools.chain(*([trim_and_fade(take), pause] for take in takes))))
    assert steepest_step(joined) <= 1.1 * max(steepest_step(take) for take in takes)


def test_joining_cut_clips_without_any_pause_adds_no_click_either() -> None:
    takes = [tone(f"sentence number {n}", seconds=0.4)[200:-300] for n in range(40)]
    joined = np.concatenate([trim_and_fade(take) for take in takes])
    assert steepest_step(joined) <= 1.1 * max(steepest_step(take) for take in takes)


def test_pauses_grow_from_cut_to_paragraph_and_nothing_follows_the_end() -> None:
    assert list(Boundary)[-1] is Boundary.END
    assert [pause_samples(boundary) for boundary in Boundary] == [1_920, 3_600, 5_280, 7_200, 9_120, 16_800, 0]


@pytest.mark.parametrize("boundary", list(Boundary))
def test_who_speaks_twice_as_fast_pauses_half_as_long(boundary: Boundary) -> None:
    assert pause_samples(boundary, speed=2.0) * 2 == pause_samples(boundary)
    assert pause_samples(boundary, speed=0.5) == pause_samples(boundary) * 2


def test_pauses_can_be_chosen() -> None:
    assert pause_samples(Boundary.SENTENCE, pauses=Pauses(sentence_ms=1_000)) == 24_000


def test_a_tone_is_the_same_in_another_process() -> None:
    program = "from tts_actors.audio import tone; print(tone('Grüße, 世界').tobytes().hex())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert bytes.fromhex(other.stdout) == tone("Grüße, 世界").tobytes()


def test_a_tone_never_changes() -> None:
    pinned = "46943f56f5a30eac"
    assert hashlib.sha256(tone("Hello, world.").tobytes()).hexdigest()[:16] == pinned


def test_different_texts_mostly_sound_different() -> None:
    assert len({tone(f"text {n}", seconds=0.2).tobytes() for n in range(50)}) > 40


@pytest.mark.parametrize(("text", "samples"), [("", 1_920), ("Hi", 3_200), ("a" * 150, 240_000), ("... 1 2 3", 4_800)])
def test_a_tone_lasts_as_long_as_speech_of_its_letters_would(text: str, samples: int) -> None:
    assert tone(text).size == samples


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 24_000, 48_000])
def test_a_tone_has_the_rate_and_length_asked_for(rate_hz: int) -> None:
    pcm = tone("any", rate_hz=rate_hz, seconds=2.0)
    assert pcm.size == 2 * rate_hz
    assert pcm.dtype == np.int16


def test_a_tone_has_one_frequency_within_its_range_and_no_clicks() -> None:
    pcm = tone("listen", seconds=1.0)
    spectrum = np.abs(np.fft.rfft(pcm))
    assert 160 <= int(spectrum.argmax()) <= 640
    assert abs(int(np.abs(pcm.astype(np.int32)).max()) - 0.3 * 32_768) < 50
    assert pcm[0] == pcm[-1] == 0


@pytest.mark.parametrize("seconds", [0.0, 0.00001, 0.0001, 0.001])
def test_a_very_short_tone_is_still_a_tone(seconds: float) -> None:
    assert tone("short", seconds=seconds).size == round(seconds * 24_000)


@pytest.mark.parametrize("text", ["\udc80", "🙂", "\0"])
def test_any_text_has_a_tone(text: str) -> None:
    assert tone(text).size > 0


def test_a_wav_header_has_true_sizes() -> None:
    header = wav_header(24_000)
    assert len(header) == WAV_HEADER_BYTES
    assert struct.unpack_from("<I", header, 4) == (36 + 48_000,)
    assert struct.unpack_from("<I", header, 40) == (48_000,)


@pytest.mark.parametrize("samples", [None, 2**31, 2**40])
def test_a_wav_header_without_a_length_that_fits_has_streaming_sizes(samples: int | None) -> None:
    header = wav_header(samples)
    assert struct.unpack_from("<I", header, 4) == struct.unpack_from("<I", header, 40) == (0xFFFF_FFFF,)


@given(st.lists(st.integers(-32_768, 32_767)))
def test_a_stored_clip_comes_back_exactly(samples: list[int]) -> None:
    pcm = np.array(samples, np.int16)
    assert np.array_equal(pcm_of_wav(wav_bytes(pcm)), pcm)


def test_a_stored_clip_comes_back_without_a_copy() -> None:
    assert not pcm_of_wav(wav_bytes(LOUD)).flags.owndata


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        wav_bytes(LOUD)[:-2],
        wav_bytes(LOUD)[:-1],
        wav_bytes(LOUD) + b"\0\0",
        wav_bytes(LOUD)[:20],
        wav_header(None) + LOUD.tobytes(),
        wav_bytes(LOUD).replace(b"WAVE", b"WAVX", 1),
    ],
)
def test_a_damaged_stored_clip_is_noticed(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="not a stored clip"):
        pcm_of_wav(damaged)


def test_what_is_not_pcm_is_not_stored() -> None:
    with pytest.raises(TypeError, match="int16"):
        wav_bytes(LOUD.astype(np.float32))
    with pytest.raises(TypeError, match="int16"):
        wav_bytes(LOUD.reshape(-1, 2))
