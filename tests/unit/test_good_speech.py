"""The learnt pace refuses no good speech of the embedded engine (500 sentences: ``benchmarks/good_speech.py``)."""

from benchmarks.good_speech import is_short, judged, sentences, spoken
from tts_actors.experience import Experience


def test_no_good_speech_is_refused_and_half_of_a_long_text_is() -> None:
    takes = spoken(sentences()[:90])
    refused, experience = judged(takes, rounds=3)
    assert refused == 0
    text, seconds = max(
        takes, key=lambda take: len(take[0]) if experience.shortest_seconds("voice", take[0], 1.0) else 0
    )
    assert not is_short(experience, text, seconds)
    assert is_short(experience, text, seconds * 0.4)
    assert not is_short(Experience(), text, seconds * 0.4)
