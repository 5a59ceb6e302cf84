"""What a worker process has learnt of its backends: how fast their voices speak, how long their calls take.

Pure and small: the latest values only, none of it is stored. It must not know jobs, texts or audio.
"""

import time
import unicodedata
from collections import OrderedDict, deque
from collections.abc import Hashable

ENOUGH = 20
"""Values before anything is concluded from them: the 95th percentile of fewer is their maximum."""

REMEMBERED = 200
"""Latest values kept per key and length."""

MOST_KEYS = 500
"""Keys kept, the latest used: voices and speeds are the caller's to choose."""

SHARE_OF_HEDGES = 0.05
"""Hedged calls per first call, at most. Each process keeps it, so all together do."""

FASTEST_SPEECH = 25.0
"""Letters and digits per second at speed 1 that are always believed: whole sentences of English were measured at up to
22. A pace learnt from slow text (numbers, addresses: 3 to 7) says nothing about prose."""

WIDE_LETTERS = 3
"""What a letter of Chinese, Japanese or Korean counts: it is a syllable."""

SHORTEST_JUDGED = 20
"""Letters and digits below which a text has no pace: "1/2 kg" and "OK"."""

LONG_LETTERS = 64
SPREAD_SHORT, SPREAD_LONG = 2.0, 1.5
"""How much faster than the 95th percentile of its like a good take may be, below and from ``LONG_LETTERS``. Measured on
the embedded engine: the fastest of 500 good takes is 1.8 times (a dozen "the"), from 64 letters on 1.4 times."""


class Quantiles:
    """The latest values by key and by length; lengths that differ by less than a factor of two are alike."""

    def __init__(self) -> None:
        self._values: OrderedDict[tuple[Hashable, int], deque[float]] = OrderedDict()

    def learn(self, key: Hashable, length: int, value: float) -> None:
        """Take in one value."""
        place = (key, length.bit_length())
        values = self._values.setdefault(place, deque(maxlen=REMEMBERED))
        values.append(value)
        self._values.move_to_end(place)
        if len(self._values) > MOST_KEYS:
            self._values.popitem(last=False)

    def p95(self, key: Hashable, length: int) -> float | None:
        """What 95 % of the values of such length do not exceed; None before there are enough."""
        values = self._values.get((key, length.bit_length()))
        if values is None or len(values) < ENOUGH:
            return None
        return sorted(values)[min(len(values) - 1, len(values) * 95 // 100)]


class Experience:
    """The memory of one worker process. Times are milliseconds, paces letters per second."""

    def __init__(self) -> None:
        self._paces = Quantiles()
        self._times_ms = Quantiles()
        self._heard_at: dict[str, float] = {}
        self._calls = self._hedges = 0

    def spoken(self, voice: Hashable, text: str, seconds: float) -> None:
        """A good take of ``text``, ``seconds`` long between its silent edges. ``voice`` is what has a pace of its own:
        backend, model, voice and speed.
        """
        letters = letters_of(text)
        if letters >= SHORTEST_JUDGED and seconds > 0:
            self._paces.learn(voice, letters, letters / seconds)

    def shortest_seconds(self, voice: Hashable, text: str, speed: float) -> float:
        """A take of ``text`` by ``voice`` that is shorter than this lacks a part; 0 where nothing is known."""
        letters = letters_of(text)
        usual = self._paces.p95(voice, letters)
        if usual is None or letters < SHORTEST_JUDGED:
            return 0.0
        spread = SPREAD_SHORT if letters < LONG_LETTERS else SPREAD_LONG
        return letters / max(FASTEST_SPEECH * max(speed, 1.0), usual * spread)

    def answered(self, backend: str, characters: int, elapsed_ms: float) -> None:
        """A good call of this many characters."""
        self._heard_at[backend] = time.monotonic()
        self._times_ms.learn(backend, characters, elapsed_ms)

    def is_silent(self, backend: str, seconds: float) -> bool:
        """Whether no good call of this backend has ended in the last so many seconds."""
        return self._heard_at.get(backend, float("-inf")) < time.monotonic() - seconds

    def patience_ms(self, backend: str, characters: int) -> float | None:
        """How long such a call usually takes at most (95 %); None where that is not known yet."""
        return self._times_ms.p95(backend, characters)

    def begins(self) -> None:
        """A first call, which allows :data:`SHARE_OF_HEDGES` of a hedge."""
        self._calls += 1

    def may_hedge(self) -> bool:
        """Whether one more hedge keeps the share."""
        return self._hedges + 1 <= SHARE_OF_HEDGES * self._calls

    def hedged(self) -> None:
        """A hedge is about to be sent."""
        self._hedges += 1


def letters_of(text: str) -> int:
    """Letters and digits in ``text``, wide ones counted as what they are spoken as."""
    if text.isascii():
        return sum(map(str.isalnum, text))
    return sum(
        WIDE_LETTERS if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
        if character.isalnum()
    )
