"""Speech at another speed and its own pitch: length, pitch, edges, and no seam of the pieces it is made of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_audio_joins import steepest_step
from tts_actors.audio import Pcm, tone, trim_and_fade, wav_bytes
from tts_actors.audio.stretch import CUT_TO_SAMPLES, stretched
from tts_actors.audio.takes import prepare_clip

FACTORS = [0.25, 0.5, 0.8, 1.3, 2.0, 4.0]


def pitch_hz(pcm: Pcm) -> float:
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(pcm.size)))
    return float(spectrum.argmax()) * 24_000 / pcm.size


@pytest.mark.parametrize("factor", FACTORS)
def test_the_length_is_exact_and_the_pitch_is_kept(factor: float) -> None:
    clip = tone("a long held note", seconds=5.0)
    other = stretched(clip, factor)
    assert other.size == round(clip.size / factor)
    assert pitch_hz(other) == pytest.approx(pitch_hz(clip), rel=0.01)
    assert np.abs(other.astype(np.int32)).max() > 5_000


@pytest.mark.parametrize("factor", FACTORS)
def test_it_has_no_click_and_begins_and_ends_at_zero(factor: float) -> None:
    words = [tone(f"word {n}", seconds=0.3 + 0.07 * n) for n in range(12)]
    clip = trim_and_fade(np.concatenate([part for word in words for part in (word, np.zeros(1_500, np.int16))]))
    assert clip.size > 2 * CUT_TO_SAMPLES
    other = stretched(clip, factor)
    assert other[0] == other[-1] == 0
    assert steepest_step(other) <= 1.5 * steepest_step(clip)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_what_is_spoken_stays_where_it_was_in_proportion(factor: float) -> None:
    clip = np.concatenate([part for n in range(8) for part in (tone(f"{n}", seconds=0.5), np.zeros(12_000, np.int16))])
    levels = np.abs(stretched(clip, factor).astype(np.int32))
    width = round(24_000 / factor)
    for n in range(8):
        word, silence = levels[n * width : n * width + width // 2], levels[n * width + width // 2 : (n + 1) * width]
        assert word[width // 8 : -width // 8].mean() > 20 * silence[width // 8 : -width // 8].mean()


@given(samples=st.integers(0, 3_000), factor=st.floats(0.25, 4.0))
@settings(max_examples=40, deadline=None)
def test_any_clip_at_any_speed_has_its_length(samples: int, factor: float) -> None:
    assert stretched(tone("x", seconds=0.2)[:samples], factor).size == round(min(samples, 4_800) / factor)


def test_the_same_take_gives_the_same_bytes() -> None:
    take = wav_bytes(tone("The lamp is lit and the sea is calm tonight.", seconds=4.0))
    first, second = (prepare_clip(take, "audio/wav", "The lamp is lit.", stretch=1.7) for _ in range(2))
    assert np.array_equal(first, second)


def test_a_speed_is_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        stretched(tone("x"), 0.0)
