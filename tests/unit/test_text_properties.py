"""What the splitter promises for every text, tried on generated texts of mixed scripts."""

import re
from itertools import pairwise

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tts_actors.models import Boundary, ChunkingMode, ChunkSpan, SplitText
from tts_actors.text import is_speakable, sentence_ends, split_text, spoken_text

PIECES = [
    *("a", "Zoe", "word", "Mr.", "No.", "5", "3.", "z.B.", "M.", "well-known", "x" * 30),
    *("你好", "。", "，", "これは本です", "！", "「", "」", "……"),
    *("مرحبا", "؟", "،", "שלום", "\u200f", "नमस्ते", "।", "क्षि", "ภาษาไทย", "សួស្តី", "។", "한국어"),
    *("👩‍👩‍👧", "🇩🇪", "👍🏽", "e\u0301\u0302", "\u0301", "\ufe0f", "\u200d"),
    *(".", "!", "?!", "...", "…", ",", ";", ":", "—", " - ", "–", "***", "-" * 40, '"', "“", "”", "(", ")", "'"),
    *(" ", "  ", "\u00a0", "\t", "\n", "\r\n", "\r", "\n\n", "\r\n\r\n", "\n \t\n", "\u2028", "\u2029", "\x85"),
    *("\x01", "\x1c", "\x7f", "\x0b", "\x0c", " " * 50, "\n* ", "\n2. "),
]
ANY_CHARACTER = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.sampled_from(PIECES), ANY_CHARACTER), max_size=60).map("".join)
SPOKEN_TEXTS = TEXTS.filter(lambda text: not text.isspace() and text != "")
MODES = st.sampled_from(list(ChunkingMode))
CAPS = st.sampled_from([1, 2, 3, 7, 20, 60, 400])
LANGUAGES = st.sampled_from(["en", "de", "fr", "pt-BR", "zh-Hant", "th", "hi", "xx", "", "é", "en_US"])
CASES = given(text=SPOKEN_TEXTS, mode=MODES, cap=CAPS, language=LANGUAGES)
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine must not fail a test: speed is measured by ``benchmarks/split_growth.py``."""


def split(text: str, mode: ChunkingMode, cap: int, language: str) -> SplitText:
    return split_text(text, mode=mode, max_characters=cap, language=language)


def of(text: str, span: ChunkSpan) -> str:
    return text[span.char_start : span.char_end]


@UNTIMED
@CASES
@example(text="  ** \n\n Hi.  ", mode=ChunkingMode.SENTENCE, cap=1, language="en")
def test_spans_give_back_the_text_character_for_character(
    text: str, mode: ChunkingMode, cap: int, language: str
) -> None:
    spans = split(text, mode, cap, language).spans
    assert [span.index for span in spans] == list(range(len(spans)))
    assert spans[0].char_start == 0
    assert all(before.char_end == after.char_start for before, after in pairwise(spans))
    assert all(span.char_start < span.char_end for span in spans)
    assert "".join(of(text, span) for span in spans) == text


@UNTIMED
@given(text=SPOKEN_TEXTS, language=LANGUAGES)
@example(text="No. 5 is lit. ", language="en")
def test_a_text_that_fits_is_one_chunk_if_it_is_one_sentence(text: str, language: str) -> None:
    spans = split(text, ChunkingMode.SENTENCE, len(text), language).spans
    assert (len(spans) == 1) == (len(sentence_ends(text, language)) == 1)


@UNTIMED
@CASES
@example(text="a" + " " * 500 + "b", mode=ChunkingMode.NONE, cap=400, language="en")
@example(text="Hi. " + "-" * 10_000 + " more", mode=ChunkingMode.SENTENCE, cap=400, language="en")
def test_no_chunk_is_longer_than_the_cap(text: str, mode: ChunkingMode, cap: int, language: str) -> None:
    for span in split(text, mode, cap, language).spans:
        assert len(of(text, span).strip()) <= cap
        assert len(spoken_text(of(text, span))) <= cap


@UNTIMED
@CASES
def test_whitespace_stays_with_the_chunk_before_it(text: str, mode: ChunkingMode, cap: int, language: str) -> None:
    spans = split(text, mode, cap, language).spans
    assert all(not text[span.char_start].isspace() for span in spans[1:])
    assert all(of(text, span).strip() for span in spans)


@UNTIMED
@CASES
def test_marks_are_ordered_and_lie_inside_their_chunks(text: str, mode: ChunkingMode, cap: int, language: str) -> None:
    result = split(text, mode, cap, language)
    assert {mark.chunk_index for mark in result.marks} == set(range(len(result.spans)))
    assert {mark.sentence_index for mark in result.marks} == set(range(len(sentence_ends(text, language))))
    for before, after in pairwise(result.marks):
        assert before.char_end <= after.char_start
        assert (before.sentence_index, before.chunk_index) < (after.sentence_index, after.chunk_index)
    for mark in result.marks:
        span = result.spans[mark.chunk_index]
        assert span.char_start <= mark.char_start < mark.char_end <= span.char_end
        held = text[mark.char_start : mark.char_end]
        assert held == held.strip()


@UNTIMED
@CASES
def test_marks_cover_all_that_is_not_whitespace(text: str, mode: ChunkingMode, cap: int, language: str) -> None:
    marks = split(text, mode, cap, language).marks
    covered = "".join(text[mark.char_start : mark.char_end] for mark in marks)
    assert "".join(covered.split()) == "".join(text.split())


@UNTIMED
@CASES
@example(text="a" * 21 + " ***", mode=ChunkingMode.SENTENCE, cap=22, language="en")
def test_every_chunk_can_be_spoken_if_the_text_can_and_junk_is_short(
    text: str, mode: ChunkingMode, cap: int, language: str
) -> None:
    longest_junk = max(len(run) for run in re.findall(r"[\W_]*", text))
    if is_speakable(text) and longest_junk <= cap // 4:
        assert all(is_speakable(of(text, span)) for span in split(text, mode, cap, language).spans)


@UNTIMED
@CASES
def test_only_the_last_chunk_ends_the_text(text: str, mode: ChunkingMode, cap: int, language: str) -> None:
    *others, last = split(text, mode, cap, language).spans
    assert last.boundary is Boundary.END
    assert all(span.boundary is not Boundary.END for span in others)


@UNTIMED
@CASES
def test_equal_arguments_give_equal_answers(text: str, mode: ChunkingMode, cap: int, language: str) -> None:
    assert split(text, mode, cap, language) == split(text, mode, cap, language)


@UNTIMED
@given(text=SPOKEN_TEXTS, cap=CAPS, language=LANGUAGES)
def test_packing_never_makes_more_chunks_than_sentences_would(text: str, cap: int, language: str) -> None:
    packed = split(text, ChunkingMode.CHARACTER_COUNT, cap, language).spans
    assert len(packed) <= len(split(text, ChunkingMode.SENTENCE, cap, language).spans)


@UNTIMED
@given(text=SPOKEN_TEXTS)
def test_a_text_that_fits_is_one_chunk_in_mode_none(text: str) -> None:
    assert len(split(text, ChunkingMode.NONE, len(text), "en").spans) == 1


@given(text=st.lists(st.sampled_from(["Yes, it is. ", "No", "! ", "好。", "“", "…"]), min_size=800).map("".join))
@settings(max_examples=20, deadline=None)
def test_texts_longer_than_a_sentencex_window_keep_the_promises(text: str) -> None:
    spans = split(text, ChunkingMode.SENTENCE, 100, "en").spans
    assert "".join(of(text, span) for span in spans) == text
    assert all(len(of(text, span).strip()) <= 100 for span in spans)
