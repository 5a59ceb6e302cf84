"""Paragraphs: stretches of text between blank lines.

A single line break is a hard wrap and means nothing here.
"""

import re
from collections.abc import Iterator

from tts_actors.text.speakable import before_blanks

_NEWLINE = r"(?>\r\n|[\n\r\x85\u2028])"  # atomic: the two halves of \r\n must not count as two newlines
_BLANK_LINE = re.compile(rf"{_NEWLINE}[^\S\n\r\x85\u2028\u2029]*+{_NEWLINE}|\u2029")
_PARAGRAPH_SEPARATOR = "\u2029"
_PARAGRAPH_BREAK = re.compile(rf"(?:{_BLANK_LINE.pattern})\s*+")


def paragraph_spans(text: str) -> Iterator[tuple[int, int]]:
    """The paragraphs of ``text`` as ``(start, end)``, without gaps: each owns the whitespace behind it."""
    start = 0
    for found in _PARAGRAPH_BREAK.finditer(text):
        yield start, found.end()
        start = found.end()
    if start < len(text):
        yield start, len(text)


def ends_paragraph(text: str, start: int, end: int) -> bool:
    """Whether the whitespace at the end of ``[start, end)`` has a blank line in it."""
    blank = before_blanks(text, start, end)
    if end - blank < 2 and text[blank:end] != _PARAGRAPH_SEPARATOR:  # most ends: one space
        return False
    return _BLANK_LINE.search(text, blank, end) is not None
