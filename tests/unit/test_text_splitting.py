"""Chunks by example: the three modes, cuts inside long sentences, boundaries and marks."""

import pytest

from tts_actors.errors import InvalidRequest
from tts_actors.models import Boundary, ChunkingMode
from tts_actors.text import split_text, spoken_text

SENTENCE, COUNT, NONE = ChunkingMode.SENTENCE, ChunkingMode.CHARACTER_COUNT, ChunkingMode.NONE


def chunks(text: str, mode: ChunkingMode, cap: int, language: str = "en") -> list[str]:
    spans = split_text(text, mode=mode, max_characters=cap, language=language).spans
    return [text[span.char_start : span.char_end] for span in spans]


def boundaries(text: str, mode: ChunkingMode, cap: int) -> list[Boundary]:
    return [span.boundary for span in split_text(text, mode=mode, max_characters=cap).spans]


def test_sentence_mode_makes_one_chunk_a_sentence() -> None:
    assert chunks("One. Two!\n\nThree?", SENTENCE, 400) == ["One. ", "Two!\n\n", "Three?"]


def test_character_count_packs_whole_sentences_within_a_paragraph() -> None:
    text = "First one. Second. Third is longer.\n\nFourth."
    assert chunks(text, COUNT, 20) == ["First one. Second. ", "Third is longer.\n\n", "Fourth."]


def test_none_is_one_chunk_if_the_text_fits_and_packed_if_not() -> None:
    text = "One. Two.\n\nThree. Four."
    assert chunks(text, NONE, len(text)) == [text]
    assert chunks(text, NONE, len(text) - 1) == chunks(text, COUNT, len(text) - 1)


def test_whitespace_around_does_not_count_against_the_cap() -> None:
    assert chunks("  Hello.  ", NONE, 6) == ["  Hello.  "]


def test_a_sentence_as_long_as_the_cap_is_not_cut_for_its_trailing_space() -> None:
    assert chunks("Abcde fghi. Next.", SENTENCE, 11) == ["Abcde fghi. ", "Next."]


@pytest.mark.parametrize(
    ("text", "cap", "expected"),
    [
        ("The lamp, which was old; it burned all night", 30, ["The lamp, which was old; ", "it burned all night"]),
        ("The lamp was lit — nobody knew why it burned", 30, ["The lamp was lit — ", "nobody knew why it burned"]),
        ("The lamp was lit - nobody knew why it burned", 30, ["The lamp was lit - ", "nobody knew why it burned"]),
        ("灯塔在悬崖上，没有人知道是谁建造的", 12, ["灯塔在悬崖上，", "没有人知道是谁建造的"]),
        ("المنارة قديمة، لا أحد يعرف من بناها", 22, ["المنارة قديمة، ", "لا أحد يعرف من بناها"]),
        ("it costs 1,000,000 dollars at 10:30", 18, ["it costs ", "1,000,000 dollars ", "at 10:30"]),
    ],
)
def test_a_long_sentence_is_cut_behind_the_last_clause_mark(text: str, cap: int, expected: list[str]) -> None:
    assert chunks(text, SENTENCE, cap) == expected


def test_without_a_clause_mark_the_cut_is_at_the_last_space() -> None:
    assert chunks("the lamp burned all night long", SENTENCE, 17) == ["the lamp burned ", "all night long"]


def test_without_a_space_the_cut_is_between_graphemes() -> None:
    family = "👩‍👩‍👧"
    assert chunks("a" + family * 3 + "b", SENTENCE, 12) == ["a" + family * 2, family + "b"]
    assert chunks("e\u0301e\u0301e\u0301", SENTENCE, 3) == ["e\u0301", "e\u0301", "e\u0301"]


def test_a_grapheme_longer_than_the_cap_is_cut_by_code_point() -> None:
    assert chunks("e" + "\u0301" * 5, SENTENCE, 4) == ["e" + "\u0301" * 3, "\u0301" * 2]


def test_a_tiny_head_is_avoided_if_a_worse_place_is_further_on() -> None:
    assert chunks("Oh, the lamp burned all night", SENTENCE, 20) == ["Oh, the lamp burned ", "all night"]


def test_a_tiny_head_is_better_than_a_broken_word() -> None:
    assert chunks("A " + "x" * 19 + " end", SENTENCE, 20) == ["A ", "x" * 19 + " ", "end"]


def test_a_tiny_head_is_no_better_if_the_word_breaks_anyway() -> None:
    assert chunks("A " + "x" * 30, SENTENCE, 20) == ["A " + "x" * 18, "x" * 12]


def test_long_quoted_speech_is_cut_behind_its_sentences() -> None:
    text = "“I came to the town yesterday. Nobody was there.”"
    assert chunks(text, SENTENCE, 40) == ["“I came to the town yesterday. ", "Nobody was there.”"]
    assert boundaries(text, SENTENCE, 40) == [Boundary.SENTENCE, Boundary.END]


def test_the_tail_of_a_cut_has_something_to_speak() -> None:
    assert chunks("the lamp burned ***", SENTENCE, 18) == ["the lamp ", "burned ***"]


def test_a_run_that_cannot_be_spoken_respects_the_cap() -> None:
    parts = chunks("Hi. " + "-" * 10_000, SENTENCE, 400)
    assert max(map(len, parts)) == 400
    assert parts[0].startswith("Hi. -")


def test_text_without_anything_to_speak_is_one_chunk() -> None:
    assert chunks("🎉 🎈!\n\n👍", SENTENCE, 400) == ["🎉 🎈!\n\n👍"]


def test_boundaries_say_what_follows() -> None:
    text = "One two three, four five six. Seven.\n\nEight.\n\n***\n\nNine."
    assert boundaries(text, SENTENCE, 20) == [
        Boundary.COMMA,
        Boundary.SENTENCE,
        Boundary.PARAGRAPH,
        Boundary.PARAGRAPH,
        Boundary.END,
    ]


@pytest.mark.parametrize(
    ("text", "boundary"),
    [
        ("One two three, four five six.", Boundary.COMMA),
        ("“One two three,” four five six.", Boundary.COMMA),
        ("一二三四五六七八九十一二三四五，二三四五六七八九十。", Boundary.COMMA),
        ("One two three; four five six.", Boundary.CLAUSE),
        ("One two three: four five six.", Boundary.CLAUSE),
        ("One two three – four five six.", Boundary.CLAUSE),
        ("One two three — four five six.", Boundary.CLAUSE),
        ("One two three four five six.", Boundary.CUT),
        ("One-two-three-four-five-six.", Boundary.CUT),
        ("1,000,000,000,000,000,000,000", Boundary.CUT),
        ("One two three? Four five six.", Boundary.QUESTION),
        ("“One two three!” Four five six.", Boundary.QUESTION),
        ("一二三四五六？一二三四五六七八九十一二三。", Boundary.QUESTION),
        ("One two three? \n\n Four five six.", Boundary.PARAGRAPH),
        ("One two three. Four five six.", Boundary.SENTENCE),
    ],
)
def test_the_mark_at_a_chunks_end_decides_its_pause(text: str, boundary: Boundary) -> None:
    assert boundaries(text, SENTENCE, 20) == [boundary, Boundary.END]


def test_marks_follow_a_sentence_through_its_chunks() -> None:
    text = "One two three, four five six.  Seven."
    marks = split_text(text, mode=SENTENCE, max_characters=20).marks
    assert [(m.sentence_index, m.chunk_index, text[m.char_start : m.char_end]) for m in marks] == [
        (0, 0, "One two three,"),
        (0, 1, "four five six."),
        (1, 2, "Seven."),
    ]


def test_marks_name_every_sentence_of_a_packed_chunk() -> None:
    marks = split_text(" One. Two.\n\nThree.", mode=NONE, max_characters=400).marks
    assert [(m.sentence_index, m.chunk_index, m.char_start, m.char_end) for m in marks] == [
        (0, 0, 1, 5),
        (1, 0, 6, 10),
        (2, 0, 12, 18),
    ]


@pytest.mark.parametrize("text", ["", "  ", "\n\n\u00a0\t", "a\0b", "a\ud800"])
@pytest.mark.parametrize("mode", list(ChunkingMode))
def test_text_that_no_chunk_can_carry_is_refused(text: str, mode: ChunkingMode) -> None:
    with pytest.raises(InvalidRequest) as refused:
        split_text(text, mode=mode, max_characters=400)
    assert refused.value.param == "text"


def test_a_cap_below_one_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at least 1"):
        split_text("Hello.", mode=SENTENCE, max_characters=0)


def test_a_stream_begins_with_a_short_chunk_and_grows() -> None:
    text = "The old lamp is lit again, and so it will be tomorrow. " * 60
    spans = split_text(text, mode=ChunkingMode.SENTENCE, max_characters=1_000, first_characters=60).spans
    assert "".join(text[span.char_start : span.char_end] for span in spans) == text
    assert spans[0].characters == 55
    for span, bound in zip(spans[1:], [120, 240, 480, 960, *[1_000] * 60], strict=False):
        assert bound / 2 < span.characters <= bound or span is spans[-1]


def test_a_long_first_sentence_of_a_stream_is_cut_and_paragraphs_end_chunks() -> None:
    text = "The lamp, which was old, is lit again, and so it will be. One.\n\nTwo. Three."
    spans = split_text(text, mode=ChunkingMode.SENTENCE, max_characters=400, first_characters=25).spans
    assert [text[span.char_start : span.char_end].strip() for span in spans] == [
        "The lamp, which was old,",
        "is lit again, and so it will be. One.",
        "Two. Three.",
    ]


ENGINES_OWN = [
    "Read https://example.org/a.b/c?d=1,2&e=3#f and www.example.com.",
    "It costs $3.50, i.e. 1,234.56 in v2.0.1!",
    "At 7:30 a.m. on 3.5.2026 call +44 20 7946 0958, or write to a.b@example.org?",
    "The box is 192.168.0.1:8080 and 50 % full.",
    "See http://x.org/?q=a!b.",
]


@pytest.mark.parametrize("mode", ChunkingMode)
def test_addresses_and_numbers_are_left_to_the_engine(mode: ChunkingMode) -> None:
    text = " ".join(ENGINES_OWN)
    spoken = [spoken_text(chunk) for chunk in chunks(text, mode, 90)]
    assert " ".join(spoken) == text, "they are asked for as they were written"
    assert spoken == ENGINES_OWN or mode is not SENTENCE, "none of them ends a sentence"
    for word in text.split():
        assert any(word in chunk.split() for chunk in spoken), f"{word} is cut"
