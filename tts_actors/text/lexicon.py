"""Pronunciations: words of the caller's text that are to be spoken as other words.

The text itself never changes, so offsets, spans and timeouts stay the caller's; only what a backend is sent does.
Matching rules (documented in ``docs/api.md``): behind the text's first character that can start a match the longest
entry wins; an entry in lower case matches any case, one with an upper-case letter matches as it is written and goes
first; an entry that begins or ends with a letter or digit stands for whole words, except in scripts written without
spaces; a space matches any run of whitespace. What an entry put in is not looked at again.
"""

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache

import regex

from tts_actors.errors import InvalidRequest
from tts_actors.text.speakable import is_speakable, spoken_text

MAX_ENTRIES = 500
MAX_TEXT_CHARACTERS = 100
MAX_SAY_CHARACTERS = 200
"""Together they keep a request's lexicon below 150,000 characters: it is stored and sent with the job."""

_NO_SPACES = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
_WORD_START = r"(?<![\p{L}\p{N}\p{M}_])"
_WORD_END = r"(?![\p{L}\p{N}\p{M}_])"
_SIGN_START = r"(?<!\u200d)"
_SIGN_END = r"\ufe0f?(?![\p{M}\p{EMod}\u200d])"  # "e" is not in "e\u0301"

Entries = tuple[tuple[str, str], ...]
"""``(text, say)`` pairs as the caller wrote them."""


class Lexicon:
    """Finds entries in a text. Made once for a request (:func:`lexicon_of`), it is read-only."""

    def __init__(self, entries: Entries) -> None:
        said = {spoken_text(text): spoken_text(say) for text, say in entries}
        self._exact = {text: say for text, say in said.items() if text != text.lower()}
        self._any_case = {text: say for text, say in said.items() if text == text.lower()}
        self._patterns = [_pattern(list(self._exact), any_case=False), _pattern(list(self._any_case), any_case=True)]

    def matches(self, text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, str]]:
        """``(start, end, say)`` of what is spoken differently in ``text[start:end]``, in order, without overlaps.

        What stands outside of ``[start, end)`` does not matter, as if the text ended there.
        """
        piece = text[start:end]
        for here, stop in self._spans(piece):
            yield start + here, start + stop, self._say(piece[here:stop])

    def _spans(self, piece: str) -> Iterator[tuple[int, int]]:
        at = 0
        found = [None if pattern is None else pattern.search(piece) for pattern in self._patterns]
        while any(found):
            spans = [match.span() for match in found if match]
            start, stop = min(spans, key=lambda span: (span[0], -span[1]))
            yield start, stop
            at = stop
            found = [
                pattern.search(piece, at) if match and pattern and match.start() < at else match
                for match, pattern in zip(found, self._patterns, strict=True)
            ]

    def _say(self, matched: str) -> str:
        for text in (spoken_text(matched), spoken_text(matched).removesuffix("\ufe0f")):
            for key, said in ((text, self._exact), (text.lower(), self._any_case)):
                if key in said:
                    return said[key]
        return matched  # a letter whose lower case is not unique ("İ"): spoken as it is written

    def spoken(self, piece: str) -> str:
        """What a backend is asked to say for ``piece``."""
        parts, at = [], 0
        for start, end, say in self.matches(piece):
            parts += [piece[at:start], say]
            at = end
        return spoken_text("".join([*parts, piece[at:]]))


@lru_cache(maxsize=16)
def lexicon_of(entries: Entries) -> Lexicon | None:
    """The lexicon, or None without entries."""
    return Lexicon(entries) if entries else None


def check_lexicon(entries: Sequence[tuple[str, str]], field: str = "lexicon") -> None:
    """Raise :class:`InvalidRequest`, naming the field, for entries that cannot be meant.

    That is: nothing to match, nothing to say, a text twice (runs of whitespace are one space), or characters that no
    text may have.
    """
    seen: dict[str, int] = {}
    for index, (text, say) in enumerate(entries):
        for name, value in (("text", text), ("say", say)):
            place = f"{field}.{index}.{name}"
            if "\x00" in value:
                raise InvalidRequest(f"{place} has a NUL character", place)
            if not spoken_text(value):
                raise InvalidRequest(f"{place} has only whitespace and control characters", place)
        if not is_speakable(say):
            raise InvalidRequest(f"{field}.{index}.say has no letter or digit", f"{field}.{index}.say")
        earlier = seen.setdefault(spoken_text(text), index)
        if earlier != index:
            raise InvalidRequest(f"{field}.{index}.text is that of {field}.{earlier} too", f"{field}.{index}.text")


def _pattern(words: list[str], *, any_case: bool) -> "regex.Pattern[str] | None":
    """One expression for all words that finds the longest; a tree, so that its time does not grow with their number."""
    at_word = sorted(word for word in words if _is_word(word[0]))
    at_sign = sorted(word for word in words if not _is_word(word[0]))
    sides = [(_WORD_START, at_word), (_SIGN_START, at_sign)]
    parts = [f"{before}(?:{_tree(group, any_case=any_case)})" for before, group in sides if group]
    return regex.compile("|".join(parts)) if parts else None


def _tree(words: list[str], *, any_case: bool) -> str:
    """Alternatives for sorted ``words``, each with what must follow it, longer ones first."""
    branches = []
    by_first: dict[str, list[str]] = {}
    for word in words:
        by_first.setdefault(word[0], []).append(word)
    for group in by_first.values():
        shared = os.path.commonprefix(group)
        rest = [word[len(shared) :] for word in group if len(word) > len(shared)]
        tails = [_tree(rest, any_case=any_case)] if rest else []
        if shared in group:
            tails.append(_WORD_END if _is_word(shared[-1]) else _SIGN_END)
        branches.append(_literal(shared, any_case) + (f"(?:{'|'.join(tails)})" if len(tails) > 1 or rest else tails[0]))
    return "|".join(branches)


def _literal(text: str, any_case: bool) -> str:
    return "".join(r"\s+" if char == " " else _either_case(char) if any_case else regex.escape(char) for char in text)


def _either_case(char: str) -> str:
    upper = char.upper()
    return f"[{char}{upper}]" if upper != char and len(upper) == 1 and upper.lower() == char else regex.escape(char)


def _is_word(char: str) -> bool:
    """Whether ``char`` is part of words that spaces set apart."""
    return char.isalnum() and _NO_SPACES.match(char) is None
