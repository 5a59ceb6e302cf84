"""What can be spoken, what is sent to a backend, and which text is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_actors.errors import InvalidRequest
from tts_actors.text import check_text, is_speakable, spoken_text


@pytest.mark.parametrize("piece", ["a", "(7)", "好", "ب", "ש", "क", "ก", "ᠠ", "…ß…", "½", "Ⅳ"])
def test_a_letter_or_digit_of_any_script_can_be_spoken(piece: str) -> None:
    assert is_speakable(piece)


@pytest.mark.parametrize("piece", ["", " ", "***", "___", "👍", "“”", "。", "\u0301", "\u200d", "\x07"])
def test_marks_and_emoji_alone_cannot_be_spoken(piece: str) -> None:
    assert not is_speakable(piece)


def test_spoken_text_has_single_spaces_and_bare_ends() -> None:
    assert spoken_text(" The\r\n lamp\u00a0\t was\u2029lit. \n") == "The lamp was lit."


def test_spoken_text_has_no_control_characters() -> None:
    assert spoken_text("a\x01b \x7f \x9f c\x1fd") == "ab c d"


def test_spoken_text_keeps_joiners_marks_and_normalisation_form() -> None:
    for piece in ("👩‍👩‍👧", "e\u0301", "\u00e9", "\ufb01", "שלום\u200f"):
        assert spoken_text(piece) == piece


@settings(deadline=None)
@given(st.text())
def test_spoken_text_of_spoken_text_is_the_same(piece: str) -> None:
    assert spoken_text(spoken_text(piece)) == spoken_text(piece)
    assert is_speakable(spoken_text(piece)) == is_speakable(piece)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text is empty"),
        (" \n\u2029", "text has only whitespace"),
        ("secret\0", "text has a NUL character at character 6"),
        ("secret \udfff", "text has a lone surrogate (U+DFFF) at character 7"),
        ("😀\ud800\0", "text has a lone surrogate (U+D800) at character 1"),
    ],
)
def test_unusable_text_is_refused_with_the_place_and_without_the_text(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_text(text)
    assert refused.value.message == message
    assert refused.value.param == "text"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_all_other_text_is_accepted(text: str) -> None:
    if not text.isspace():
        check_text(text)
