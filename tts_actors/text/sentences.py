"""Where sentences end: sentencex, and a pass behind it that mends what sentencex is known to miss.

Only boundaries move; the text is never changed. What sentencex misses was measured on 58 hand-written cases
in 29 languages: titles of several languages, the ellipsis, Khmer, German ordinals, marks at a sentence's head.
"""

import re
from collections.abc import Iterator

import regex
import sentencex

from tts_actors.text.abbreviations import BEFORE_GERMAN_ORDINAL, GERMAN_MONTHS, is_glued, is_glued_to_digit
from tts_actors.text.paragraphs import paragraph_spans
from tts_actors.text.speakable import after_blanks, before_blanks, first_speakable

_WINDOW = 2_000
"""Characters handed to sentencex at once. Its time grows with the square of the length for Chinese (64,000
characters: 610 ms, 2,000: under 1 ms) and for opening quotes that are never closed (1,319 ms)."""

_TAIL = 32  # characters looked at before a boundary: longer than any abbreviation with the word in front of it

_CJK = r"\p{Han}\p{Hiragana}\p{Katakana}"
_MISSED_END = regex.compile(
    # an ellipsis before an upper-case letter, or before a CJK one even without a space
    r"(?<![.…])(?:\.{3,}+|…++)[\"'”’»)\]」』）]*+(?:\s++(?=[\"'“‘«(\[¿¡]*+\p{Lu})|\s*+(?=[「『（]?[" + _CJK + r"]))"
    # the Khmer full stop, unless it is half of the word for "and so on"
    r"|(?<!ល)[។៕](?!ល។)[\"'”’»)\]]*+"
    # a list item on a line of its own
    r"|[\n\r][ \t]*+(?=[-*•‣◦▪]\s)"
)
_DEPENDENT = regex.compile(r"[\p{M}\u200c-\u200f]*+")  # marks, joiners, direction marks: part of what is before them
_ENUMERATOR = re.compile(r"(?:[-*•]\s*)?(?:\d{1,3}|[^\W\d_]|[ivxIVX]{1,5})[.)]")


def sentence_ends(text: str, language: str = "en") -> list[int]:
    """Offsets behind each sentence of ``text``, ascending; the last one is ``len(text)``.

    No sentence reaches over a blank line, except to take in what cannot be spoken: every sentence has a
    letter or digit unless the whole text has none. Whitespace belongs to the sentence before it. ``language``
    is a BCP 47 tag of which the first part counts; an unknown one gets rules that hold for most languages.
    """
    base = _base_language(language)
    ends: list[int] = []
    for start, end in paragraph_spans(text):
        if first_speakable(text, start, end) is not None:
            ends.extend(_ends_in_paragraph(text, start, end, base))
        elif ends:
            ends[-1] = end
    return ends or [len(text)]


def _base_language(tag: str) -> str:
    base = re.split(r"[-_]", tag.strip(), maxsplit=1)[0].lower()
    return base if base.isascii() and base.isalpha() else "en"


def _ends_in_paragraph(text: str, start: int, end: int, language: str) -> list[int]:
    """Ends of the sentences in a paragraph that has something speakable; the last one is ``end``."""
    kept: list[int] = []
    first: int | None = None  # first letter or digit of the sentence being put together
    sentence = at = start
    for here in _pieces(text, start, end, language):
        found = first_speakable(text, at, here)
        at_boundary = first is not None and found is not None
        if at_boundary and not _belong_together(text, sentence, at, first or 0, language):
            kept.append(at)
            sentence, first = at, None
        first = found if first is None else first
        at = here
    return [*kept, end]


def _pieces(text: str, start: int, end: int, language: str) -> list[int]:
    """Ends of all candidate sentences, each moved behind the marks and the whitespace that follow it."""
    found = set(_sentencex_ends(text, start, end, language))
    found.update(match.end() for match in _MISSED_END.finditer(text, start, end))
    moved = {_behind_dependents(text, at, end) for at in found}
    return sorted(moved | {end})


def _behind_dependents(text: str, at: int, end: int) -> int:
    match = _DEPENDENT.match(text, at, end)
    return after_blanks(text, match.end() if match else at, end)


def _sentencex_ends(text: str, start: int, end: int, language: str) -> Iterator[int]:
    """Run sentencex on windows; an end in a window's last quarter waits for the next, which sees further."""
    while end - start > _WINDOW:
        ends = list(_offsets(text, start, start + _WINDOW, language))[:-1]
        if ends:
            sure = [at for at in ends if at <= start + _WINDOW * 3 // 4] or ends[:1]
            yield from sure
            start = sure[-1]
        else:  # no end in sight: go on in the same sentence, behind a space if there is one
            start = max(text.rfind(" ", start, start + _WINDOW) + 1, start + _WINDOW // 2)
    yield from _offsets(text, start, end, language)


def _offsets(text: str, start: int, end: int, language: str) -> Iterator[int]:
    for piece in sentencex.segment(language, text[start:end]):
        start += len(piece)
        yield start


def _belong_together(text: str, sentence: int, at: int, first: int, language: str) -> bool:
    """Whether the boundary at ``at`` is none: the sentence that starts at ``sentence`` goes on behind it.

    ``first`` is the sentence's first letter or digit. A lower-case letter behind the boundary means "goes on"
    only if the sentence itself did not start with one: some people write everything in lower case.
    """
    if text[at].islower() and not text[first].islower():
        return True
    stop = before_blanks(text, sentence, at)
    if text[stop - 1] not in ".)":
        return False
    if stop - sentence < _TAIL and _ENUMERATOR.fullmatch(text, sentence, stop):
        return True
    words = text[max(sentence, stop - _TAIL) : stop - 1].split()
    return text[stop - 1] == "." and bool(words) and _goes_on(words, text[at : at + _TAIL], language)


def _goes_on(words: list[str], following: str, language: str) -> bool:
    """Whether a full stop behind ``words`` is an abbreviation's or an ordinal's, given what follows."""
    last = words[-1].lstrip("([{\"'“‘„«")
    if is_glued(last, language) or (following[0].isdigit() and is_glued_to_digit(last)):
        return True
    if language != "de" or not (last.isdecimal() and len(last) <= 2):
        return False
    before = words[-2].lower() if len(words) > 1 else ""
    next_word = re.split(r"\W", following, maxsplit=1)[0]
    return before in BEFORE_GERMAN_ORDINAL or next_word in GERMAN_MONTHS
