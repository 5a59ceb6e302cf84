"""Pronunciations: what matches, what is refused, and that chunks hold what is spoken, on many scripts."""

from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tts_actors.errors import InvalidRequest
from tts_actors.models import ChunkingMode, SpeechRequest
from tts_actors.text import check_lexicon, is_speakable, lexicon_of, split_text, spoken_text
from tts_actors.text.lexicon import Lexicon

ENTRIES = (
    ("SQL", "sequel"),
    ("nginx", "engine x"),
    ("New York", "the Big Apple"),
    ("new", "noo"),
    ("東京", "とうきょう"),
    ("❤", "love"),
    ("c++", "see plus plus"),
    (".NET", "dot net"),
    ("US", "U S"),
    ("us", "uzz"),
    ("caf\u00e9", "kaffay"),
    ("हिन", "hin"),
    ("👩", "woman"),
    ("مرحبا", "marhaba"),
)
PIECES = [
    *[text for text, _ in ENTRIES],
    "New\nYork",
    "👩‍🚀",
    "हिन्दी",
    "e\u0301",
    "İ",
    "ΟΔΟΣ",
    "ß",
    "MySQL",
    "a",
    ".",
    "\n\n",
    "\u202e",
]
pieces = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=20)
written = st.tuples(pieces, st.sampled_from(["", " ", ". "])).map(lambda given: given[1].join(given[0]))
entry_text = st.one_of(st.sampled_from(PIECES), st.text(min_size=1, max_size=12)).filter(lambda t: bool(spoken_text(t)))
lexicons = st.dictionaries(
    entry_text.map(spoken_text), st.text("xyz é漢", min_size=1, max_size=40).filter(is_speakable), max_size=12
)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("SQL and sql", "sequel and sql"),
        ("MySQL, SQLite, SQL_1", "MySQL, SQLite, SQL_1"),
        ("Nginx's NGINX.", "engine x's engine x."),
        ("New \n York is new.", "the Big Apple is noo."),
        ("New Yorker", "noo Yorker"),
        ("東京に行く", "とうきょうに行く"),
        ("I ❤ and ❤\ufe0f it", "I love and love it"),
        ("C++ and c++.", "see plus plus and see plus plus."),
        ("a .NET app", "a dot net app"),
        ("The US told us, Us too", "The U S told uzz, uzz too"),
        ("cafe\u0301 caf\u00e9", "cafe\u0301 kaffay"),
        ("हिन्दी", "हिन्दी"),
        ("👩 👩‍🚀", "woman 👩‍🚀"),
        ("(مرحبا)", "(marhaba)"),
    ],
)
def test_entries_match_as_the_documentation_says(text: str, spoken: str) -> None:
    assert Lexicon(ENTRIES).spoken(text) == spoken


def test_what_was_put_in_is_not_looked_at_again() -> None:
    assert Lexicon((("a", "b"), ("b", "a"))).spoken("a b") == "b a"


@given(written)
def test_without_entries_nothing_is_different(text: str) -> None:
    assert lexicon_of(()) is None
    assert Lexicon((("never found here", "x"),)).spoken(text) == spoken_text(text)


@given(lexicons, written)
def test_matches_are_in_order_and_spell_an_entry(entries: dict[str, str], text: str) -> None:
    found = list(Lexicon(tuple(entries.items())).matches(text))
    assert all(first[1] <= second[0] for first, second in pairwise(found))
    for start, end, say in found:
        matched = spoken_text(text[start:end])
        assert start < end
        assert say == matched or say in {spoken_text(value) for value in entries.values()}


@given(lexicons, written, st.sampled_from(ChunkingMode), st.integers(60, 120))
@example({"a": "x" * 40}, "a a a a a. a a a a!", ChunkingMode.NONE, 60)
def test_what_is_spoken_of_a_chunk_fits_the_cap_and_the_spans_stay_the_text(
    entries: dict[str, str], text: str, mode: ChunkingMode, cap: int
) -> None:
    lexicon = Lexicon(tuple(entries.items()))
    try:
        plain = split_text(text, mode=mode, max_characters=cap)
        split = split_text(text, mode=mode, max_characters=cap, lexicon=lexicon)
    except InvalidRequest:
        assume(False)
    assert "".join(text[span.char_start : span.char_end] for span in split.spans) == text
    assert [span.index for span in split.spans] == list(range(len(split.spans)))
    for span in split.spans:
        assert len(lexicon.spoken(text[span.char_start : span.char_end])) <= cap
        assert is_speakable(text[span.char_start : span.char_end]) or not all(
            is_speakable(text[other.char_start : other.char_end]) for other in plain.spans
        )
    ends = {span.char_end for span in split.spans}
    assert {span.char_end for span in plain.spans} <= ends
    for mark in split.marks:
        span = split.spans[mark.chunk_index]
        assert span.char_start <= mark.char_start <= mark.char_end <= span.char_end


def test_a_chunk_that_grows_is_cut_between_matches() -> None:
    lexicon = Lexicon((("New York", "the city that never sleeps"),))
    text = "New York, New York, and New York again."
    split = split_text(text, mode=ChunkingMode.SENTENCE, max_characters=45, lexicon=lexicon)
    spoken = [lexicon.spoken(text[span.char_start : span.char_end]) for span in split.spans]
    assert " ".join(spoken) == lexicon.spoken(text)
    assert len(spoken) == 3


def test_a_word_whose_say_fits_no_chunk_is_refused() -> None:
    lexicon = Lexicon((("hi", "x" * 50),))
    with pytest.raises(InvalidRequest, match=r"lexicon.* 20 characters"):
        split_text("hi there, hi there.", mode=ChunkingMode.SENTENCE, max_characters=20, lexicon=lexicon)


@pytest.mark.parametrize(
    ("entries", "field"),
    [
        ([(" \t", "x")], "lexicon.0.text"),
        ([("a", "x"), ("b", "...")], "lexicon.1.say"),
        ([("a", "\n")], "lexicon.0.say"),
        ([("a\x00", "x")], "lexicon.0.text"),
        ([("a", "x\x00")], "lexicon.0.say"),
        ([("a  b", "x"), ("c", "y"), ("a\nb", "z")], "lexicon.2.text"),
    ],
)
def test_entries_that_cannot_be_meant_are_refused_by_name(entries: list[tuple[str, str]], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_lexicon(entries)
    assert caught.value.param == field
    assert field in caught.value.message


def test_a_request_with_a_lexicon_survives_the_store() -> None:
    request = SpeechRequest("m", "v", lexicon=(("a", "b"), ("漢", "kan")))
    assert SpeechRequest.from_json(request.to_json()) == request
    assert hash(SpeechRequest.from_json(request.to_json()).lexicon)


def test_many_entries_that_begin_alike_do_not_take_long_over_a_long_text() -> None:
    """A tree, not a list: one pass over each character, however many entries there are."""
    lexicon = Lexicon(tuple(("あ" * length + "い", "x") for length in range(1, 100)))
    assert len(lexicon.spoken("あ" * 300_000)) == 300_000
