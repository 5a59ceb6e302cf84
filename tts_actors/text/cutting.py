"""Cutting a sentence that is longer than one chunk may be, at the place where it hurts least.

In order of preference: behind a sentence that sentencex left inside (quoted speech), behind a clause mark, at
whitespace, between two graphemes, between two code points. Lengths are in characters (code points) and are
counted from the first to the last character of a part that is not whitespace.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import regex

from tts_actors.models import Boundary
from tts_actors.text.paragraphs import ends_paragraph
from tts_actors.text.speakable import after_blanks, before_blanks, first_speakable, last_speakable

_TINY = 0.25
"""A head shorter than this share of the cap sounds clipped: a worse place further on is taken instead."""

_LOOKAHEAD = 8  # characters seen beyond the cap, to know what follows a mark that ends at it

_CLOSERS = r"\p{M}*[\"'”’»)\]」』）】》〉]*"
_INNER_END = regex.compile(
    r"(?:[!?]+|(?<=\p{L}{4})\.)" + _CLOSERS + r"(?=\s+[\"'“‘„«(\[¿¡]?[\p{Lu}\p{Lt}\p{Lo}\p{N}])"
    r"|[。！？｡।॥።។៕؟۔။]+" + _CLOSERS
)
_CLAUSE_END = regex.compile(
    r"(?:[;:,]+" + _CLOSERS + r"|(?<=\s)(?:–|-{1,3}))(?=\s)"  # ASCII marks also stand inside numbers: 1,000 and 10:30
    r"|(?:[、，；：､،؛፣፤፥៖]|—+|…+)" + _CLOSERS
)
_LAST_MARKS = 16
"""Characters looked at for the mark before a boundary: more than any run of closing quotes and blanks that is meant."""

_MARKS = (
    (Boundary.SENTENCE, Boundary.QUESTION, regex.compile(r"[!?！？؟፧]+" + _CLOSERS + r"\s*\Z")),
    (Boundary.CUT, Boundary.COMMA, regex.compile(rf",{_CLOSERS}\s+\Z|[、，،፣]{_CLOSERS}\s*\Z")),
    (
        Boundary.CUT,
        Boundary.CLAUSE,
        regex.compile(rf"(?:[;:]|(?<=\s)(?:–|-{{1,3}})){_CLOSERS}\s+\Z|[；：؛፤፥៖—…]{_CLOSERS}\s*\Z"),
    ),
)
"""Marks of ASCII count before a blank only: they also stand inside numbers and words."""

_BLANK_RUN = re.compile(r"\s+")
_GRAPHEME = regex.compile(r"\X")


@dataclass(frozen=True, slots=True)
class _Reach:
    """Where the next cut may be: a part that starts at ``start`` may end at any of ``low`` to ``high``."""

    start: int
    low: int
    high: int
    end: int
    cap: int


def cut_sentence(text: str, start: int, end: int, cap: int) -> list[tuple[int, Boundary]]:
    """Cut ``[start, end)`` into parts of at most ``cap`` characters: the end of each, and its kind.

    Whitespace belongs to the part before it and comes on top of the cap. Every part has a letter or digit,
    unless a run without one is too long for that. The last part ends at ``end``.
    """
    if end - start <= cap:
        return [(end, Boundary.PARAGRAPH if ends_paragraph(text, start, end) else Boundary.SENTENCE)]
    content_end = before_blanks(text, start, end)
    last = last_speakable(text, start, content_end)
    parts: list[tuple[int, Boundary]] = []
    here, content = start, after_blanks(text, start, end)
    while content_end - content > cap:
        stop, boundary = _best_cut(text, _reach(text, content, content_end, cap, last))
        behind = after_blanks(text, stop, end)
        parts.append((behind, Boundary.PARAGRAPH if ends_paragraph(text, here, behind) else boundary))
        here = content = behind
    parts.append((end, Boundary.PARAGRAPH if ends_paragraph(text, here, end) else Boundary.SENTENCE))
    return parts


def boundary_by_mark(text: str, end: int, boundary: Boundary) -> Boundary:
    """The boundary at ``end``, told apart further by the mark that stands before it."""
    before = text[max(0, end - _LAST_MARKS) : end]
    for plain, marked, mark in _MARKS:
        if boundary is plain and mark.search(before):
            return marked
    return boundary


def _reach(text: str, start: int, end: int, cap: int, last: int | None) -> _Reach:
    """The cap's window, narrowed so that both the part and the rest have something to say, if possible."""
    limit = start + cap
    first = first_speakable(text, start, limit - 1)
    low = start + 1 if first is None else first + 1
    tail_fits = last is not None and end - last <= cap
    high = last if last is not None and tail_fits and low <= last < limit else limit
    return _Reach(start, low, high, end, cap)


def _best_cut(text: str, reach: _Reach) -> tuple[int, Boundary]:
    """Where the part ends, before the whitespace that it takes along, and what that means for the pause."""
    tiny: tuple[int, Boundary] | None = None
    for finder, boundary in _FINDERS:
        stop = _last_stop(text, reach, finder)
        if stop is None:
            continue
        if stop - reach.start >= reach.cap * _TINY:
            return stop, boundary
        tiny = stop, boundary
    if tiny is not None and _next_word_fits(text, tiny[0], reach):
        return tiny
    stops = [found.end() for found in _GRAPHEME.finditer(text, reach.start, min(reach.high + 1, reach.end))]
    return max((at for at in stops if reach.low <= at <= reach.high), default=reach.high), Boundary.CUT


def _last_stop(text: str, reach: _Reach, finder: Callable[[str, _Reach], Iterator[int]]) -> int | None:
    """The last stop in reach, or the last whose whitespace still fits under the cap, if that is not tiny."""
    stops = [at for at in finder(text, reach) if reach.low <= at <= reach.high]
    if not stops:
        return None
    for at in reversed(stops):
        if at - reach.start < reach.cap * _TINY:
            break
        if after_blanks(text, at, reach.end) - reach.start <= reach.cap:
            return at
    return stops[-1]


def _inner_ends(text: str, reach: _Reach) -> Iterator[int]:
    return (found.end() for found in _INNER_END.finditer(text, reach.start, _sight(reach)))


def _clause_ends(text: str, reach: _Reach) -> Iterator[int]:
    return (found.end() for found in _CLAUSE_END.finditer(text, reach.start, _sight(reach)))


def _word_ends(text: str, reach: _Reach) -> Iterator[int]:
    return (found.start() for found in _BLANK_RUN.finditer(text, reach.start, _sight(reach)))


def _sight(reach: _Reach) -> int:
    return min(reach.high + _LOOKAHEAD, reach.end)


_FINDERS = ((_inner_ends, Boundary.SENTENCE), (_clause_ends, Boundary.CUT), (_word_ends, Boundary.CUT))


def _next_word_fits(text: str, stop: int, reach: _Reach) -> bool:
    """Whether the word behind ``stop`` fits one part: then a tiny head is better than a broken word."""
    word = after_blanks(text, stop, reach.end)
    return reach.end - word <= reach.cap or _BLANK_RUN.search(text, word, word + reach.cap + 1) is not None
