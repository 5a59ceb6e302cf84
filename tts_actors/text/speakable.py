"""What can be spoken: the test for a letter or digit, the checks on input, the form sent to a backend.

Whitespace means what ``str.isspace`` means, here and in the rest of the package. The ``re`` module's ``\\s``
agrees with it; the ``regex`` module's does not: it leaves out U+001C to U+001F.
"""

import re
import unicodedata

from tts_actors.errors import InvalidRequest

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_BLANKS = re.compile(r"\s*")
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")
_CONTROLS = {code: None for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc" and not chr(code).isspace()}


def is_speakable(piece: str) -> bool:
    """Whether ``piece`` has a letter or a digit of any script; without one a backend has nothing to say."""
    return _LETTER_OR_DIGIT.search(piece) is not None


def first_speakable(text: str, start: int, end: int) -> int | None:
    """Offset of the first letter or digit in ``[start, end)``, or None."""
    found = _LETTER_OR_DIGIT.search(text, start, end)
    return None if found is None else found.start()


def last_speakable(text: str, start: int, end: int) -> int | None:
    """Offset of the last letter or digit in ``[start, end)``, or None."""
    return next((at for at in range(end - 1, start - 1, -1) if text[at].isalnum()), None)


def after_blanks(text: str, at: int, end: int) -> int:
    """Offset of the first character at or behind ``at`` that is not whitespace; ``end`` if there is none."""
    if at >= end or not text[at].isspace():
        return at
    found = _BLANKS.match(text, at, end)
    return at if found is None else found.end()


def before_blanks(text: str, start: int, end: int) -> int:
    """Offset behind the last non-whitespace character of ``[start, end)``; ``start`` if there is none."""
    while end > start and text[end - 1].isspace():
        end -= 1
    return end


def spoken_text(piece: str) -> str:
    """What a backend is asked to speak for ``piece``.

    Control characters are gone, every run of whitespace is one space and the ends are bare. Nothing else
    changes: joiners, combining marks and the normalisation form stay as the caller wrote them.
    """
    return " ".join(piece.translate(_CONTROLS).split())


def check_text(text: str) -> None:
    """Raise ``InvalidRequest`` for text that no chunk can carry.

    That is: empty text, nothing but whitespace, a NUL (PostgreSQL cannot store it) or half of a surrogate
    pair (no encoding can write it). The message gives the position in characters, never the text.
    """
    if not text:
        raise InvalidRequest("text is empty", "text")
    if text.isspace():
        raise InvalidRequest("text has only whitespace", "text")
    found = _UNUSABLE.search(text)
    if found is None:
        return
    problem = "a NUL character" if found.group() == "\x00" else f"a lone surrogate (U+{ord(found.group()):04X})"
    raise InvalidRequest(f"text has {problem} at character {found.start()}", "text")
