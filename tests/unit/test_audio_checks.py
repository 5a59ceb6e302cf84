"""Which takes are accepted as speech of their text: gross failures are not, and nothing plausible is refused."""

import numpy as np
import numpy.typing as npt
import pytest
from hibari import Hibari
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_actors.audio import TakePolicy, check_take, prepare_clip, tone, wav_bytes
from tts_actors.errors import BadTake

SENTENCE = "The quick brown fox jumps over the lazy dog."

SPOKEN = [
    "No.",
    "Stop!",
    "Hello there.",
    "7",
    "42.",
    "Dr. Smith lives at 221B Baker Street.",
    "It costs $1,234.56.",
    "On 2024-03-05 at 7:30pm we met.",
    "In 2024, 1,234,567 people paid 9.99 each.",
    "See https://example.org/docs/index.html?page=2 for more.",
    "Write to first.last@example.com, please.",
    "Is it true? Really, truly true?",
    "Well, well, well; what have we here: a surprise!",
    "He said, “I would not do that,” and left.",
    "NASA and the FBI signed an MoU.",
    "a, b, c, d, e, f, g",
    "The temperature fell to -40 °C (which is -40 °F) overnight.",
    "Supercalifragilisticexpialidocious",
    "Shh, softly now, if this is what they think of us.",
    "When the sun had gone down behind the hills, the two travellers sat by the fire and told each other, slowly and "
    "without hurry, of all the places they had seen, and of those that they would never see.",
    SENTENCE,
]


def a_take(seconds: float) -> npt.NDArray[np.int16]:
    return tone("a take", seconds=seconds)


def with_silence(pcm: npt.NDArray[np.int16], seconds: float) -> npt.NDArray[np.int16]:
    silence = np.zeros(round(seconds * 24_000), np.int16)
    return np.concatenate([silence, pcm, silence])


def test_no_samples_for_words_is_a_bad_take() -> None:
    with pytest.raises(BadTake, match="no audio; it may not be able to speak"):
        check_take(a_take(0.0), "你好")


@pytest.mark.parametrize("text", ["* * *", "—", "🙂", "...", ""])
def test_a_text_without_letters_may_be_silent_or_empty(text: str) -> None:
    check_take(a_take(0.0), text)
    check_take(np.zeros(24_000, np.int16), text)
    assert prepare_clip(wav_bytes(np.zeros(24_000, np.int16)), "audio/wav", text).size == 0
    assert prepare_clip(wav_bytes(a_take(0.0)), "audio/wav", text).size == 0


@pytest.mark.parametrize("amplitude", [0, 1, 30, 100])
def test_a_take_below_minus_50_dbfs_throughout_is_silent(amplitude: int) -> None:
    hiss = np.random.default_rng(1).integers(-amplitude, amplitude + 1, 72_000).astype(np.int16)
    with pytest.raises(BadTake, match="silent"):
        check_take(hiss, SENTENCE)


def test_a_quiet_voice_is_not_silence() -> None:
    check_take((a_take(3.0) // 64).astype(np.int16), SENTENCE)


@pytest.mark.parametrize("level", [32_767, -32_768])
def test_a_take_that_sits_at_full_scale_is_clipped(level: int) -> None:
    with pytest.raises(BadTake, match="clipped flat"):
        check_take(np.full(72_000, level, np.int16), SENTENCE)


def test_an_overdriven_voice_is_clipped() -> None:
    overdriven = np.clip(a_take(3.0).astype(np.int32) * 20, -32_768, 32_767).astype(np.int16)
    with pytest.raises(BadTake, match="clipped flat"):
        check_take(overdriven, SENTENCE)


def test_a_voice_that_is_normalised_to_full_scale_is_not_clipped() -> None:
    pcm = a_take(3.0).astype(np.float64)
    check_take((pcm * (32_767 / np.abs(pcm).max())).astype(np.int16), SENTENCE)


def test_a_tenth_of_a_second_for_a_sentence_is_too_short() -> None:
    with pytest.raises(BadTake, match="too short"):
        check_take(a_take(0.1), SENTENCE)


def test_silence_around_a_short_sound_does_not_make_it_long_enough() -> None:
    with pytest.raises(BadTake, match="too short"):
        check_take(with_silence(a_take(0.1), 2.0), SENTENCE)


def test_a_short_text_is_never_too_short() -> None:
    check_take(a_take(0.05), "Nineteen characters")


def test_minutes_for_a_word_are_too_long() -> None:
    with pytest.raises(BadTake, match="too long"):
        check_take(a_take(60.0), "Hello")


@given(
    words=st.lists(st.text("abcdefghijklmnop", min_size=1, max_size=12), min_size=1, max_size=80),
    characters_per_second=st.floats(4.0, 25.0),
    speed=st.floats(0.25, 4.0),
    obeyed=st.booleans(),
    edge_seconds=st.floats(0.0, 1.0),
)
@settings(max_examples=150, deadline=None)
def test_no_plausible_pace_is_refused_whether_the_backend_obeys_the_speed_or_not(
    words: list[str], characters_per_second: float, speed: float, obeyed: bool, edge_seconds: float
) -> None:
    text = " ".join(words)
    seconds = max(0.15, len(text) / characters_per_second / (speed if obeyed else 1.0))
    check_take(with_silence(a_take(seconds), edge_seconds), text, speed=speed)


@pytest.mark.parametrize(("seconds", "speed"), [(10.0, 4.0), (10.0, 1.0), (40.0, 0.25)])
def test_the_longest_take_is_stretched_by_a_slow_speed_and_not_shortened_by_a_fast_one(
    seconds: float, speed: float
) -> None:
    check_take(a_take(seconds), "Four", speed=speed)
    with pytest.raises(BadTake, match="too long"):
        check_take(a_take(seconds * 1.2), "Four", speed=speed)


@given(st.integers(20, 400), st.floats(0.25, 4.0))
@settings(max_examples=50, deadline=None)
def test_a_twentieth_of_the_speech_is_always_refused(letters: int, speed: float) -> None:
    with pytest.raises(BadTake, match="too short"):
        check_take(a_take(letters / 15 / 20 / max(speed, 1.0)), "a" * letters, speed=speed)


def test_the_bounds_can_be_moved() -> None:
    check_take(a_take(0.1), SENTENCE, policy=TakePolicy(max_characters_per_second=1_000))
    with pytest.raises(BadTake, match="too long"):
        check_take(a_take(3.0), SENTENCE, policy=TakePolicy(longest_base_seconds=1, longest_seconds_per_character=0))


def test_no_reason_quotes_the_text() -> None:
    for pcm in (a_take(0.0), np.zeros(99, np.int16), a_take(0.01), a_take(900.0)):
        with pytest.raises(BadTake) as caught:
            check_take(pcm, "Confidential words that nobody may read anywhere")
        assert "Confidential" not in str(caught.value)


def test_an_accepted_take_becomes_a_trimmed_clip() -> None:
    clip = prepare_clip(wav_bytes(with_silence(a_take(3.0), 0.4)), "audio/wav", SENTENCE)
    assert abs(clip.size / 24_000 - 3.04) < 0.01
    assert clip[0] == clip[-1] == 0


def test_a_refused_take_becomes_no_clip() -> None:
    with pytest.raises(BadTake, match="silent"):
        prepare_clip(wav_bytes(np.zeros(72_000, np.int16)), "audio/wav", SENTENCE)


def test_a_real_engine_raises_no_false_alarm() -> None:
    engine = Hibari(threads=1)
    for text in SPOKEN:
        for speed in (0.5, 1.0, 2.0):
            floats = engine(text, speed=speed, seed=1)
            pcm = np.rint(np.clip(floats, -1, 1) * 32_767).astype(np.int16)
            clip = prepare_clip(wav_bytes(pcm), "audio/wav", text, speed=speed)
            assert 0.1 < clip.size / 24_000 < pcm.size / 24_000
