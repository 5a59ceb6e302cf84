"""Captions: when each sentence of the caller's text is heard, from the sample counts of stored clips and pauses.

Pure. It knows neither stores nor HTTP, and reads no audio: where several sentences share one clip, their borders
inside it are estimated from their lengths in characters, and the cue says so.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tts_actors.models import SAMPLE_RATE_HZ, SentenceMark
from tts_actors.text import spoken_text


class CueState(StrEnum):
    """How much of a sentence is in the audio."""

    SPOKEN = "spoken"
    PARTIAL = "partial"  # some of its chunks have no audio: they failed, or are not spoken yet
    MISSING = "missing"  # none of its chunks has audio


@dataclass(frozen=True, slots=True)
class Sound:
    """One chunk in the audio: speech at ``[start, start + samples)``, or none (``samples`` is 0) where it failed."""

    index: int
    start: int
    samples: int


@dataclass(frozen=True, slots=True)
class Cue:
    """One sentence: ``[char_start, char_end)`` of the caller's text, heard at ``[start, end)`` in samples.

    ``start`` and ``end`` are None exactly when the sentence is missing. ``exact`` is False if one of the two lies
    inside a clip that other sentences share.
    """

    sentence: int
    char_start: int
    char_end: int
    start: int | None
    end: int | None
    exact: bool
    state: CueState
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """A mark's place in the audio."""

    start: int
    end: int
    exact: bool


def caption_cues(marks: Iterable[SentenceMark], sounds: Iterable[Sound]) -> list[Cue]:
    """Cues in text order, of all sentences that begin in one of ``sounds``.

    ``sounds`` are a job's first chunks in text order: all of them, or those that are ready so far. Promises, for
    sounds that do not overlap: cues never overlap, are in order, and lie within the clips of their chunks.
    """
    placed = {sound.index: sound for sound in sounds}
    known = list(marks)
    parts = _parts(known, placed)
    cues = []
    for sentence, found in itertools.groupby(zip(known, parts, strict=True), key=lambda pair: pair[0].sentence_index):
        pairs = list(found)
        if pairs[0][0].chunk_index in placed:
            cues.append(_cue(sentence, [mark for mark, _ in pairs], [part for _, part in pairs]))
    return cues


def _parts(marks: Sequence[SentenceMark], placed: dict[int, Sound]) -> list[_Part | None]:
    """Where each mark is heard. The clip of several sentences is shared out by their lengths in characters."""
    parts: list[_Part | None] = []
    for chunk, group in itertools.groupby(marks, key=lambda mark: mark.chunk_index):
        lengths = [mark.char_end - mark.char_start for mark in group]
        sound = placed.get(chunk)
        if sound is None or not sound.samples:
            parts.extend([None] * len(lengths))
            continue
        total = max(1, sum(lengths))
        edges = [sound.start + sound.samples * upto // total for upto in itertools.accumulate(lengths, initial=0)]
        edges[-1] = sound.start + sound.samples
        parts.extend(
            _Part(start, end, exact=len(lengths) == 1) if end > start else None
            for start, end in itertools.pairwise(edges)
        )
    return parts


def _cue(sentence: int, marks: Sequence[SentenceMark], parts: Sequence[_Part | None]) -> Cue:
    heard = [part for part in parts if part is not None]
    state = CueState.SPOKEN if len(heard) == len(parts) else CueState.PARTIAL if heard else CueState.MISSING
    return Cue(
        sentence=sentence,
        char_start=marks[0].char_start,
        char_end=marks[-1].char_end,
        start=heard[0].start if heard else None,
        end=heard[-1].end if heard else None,
        exact=all(part.exact for part in (heard[:1] + heard[-1:])),
        state=state,
        chunks=tuple(mark.chunk_index for mark in marks),
    )


def srt(text: str, cues: Iterable[Cue]) -> str:
    """SubRip, numbered from 1. Sentences that are not heard have no entry.

    SubRip knows no escapes. A zero-width space keeps what looks like an arrow, a tag or a style from being one;
    the words stay as they are.
    """
    blocks = [
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{_srt_line(text[cue.char_start : cue.char_end])}\n"
        for number, (cue, start, end) in enumerate(_timed(text, cues), 1)
    ]
    return "\n".join(blocks)


def vtt(text: str, cues: Iterable[Cue]) -> str:
    """WebVTT; a cue's identifier is its sentence's index. Sentences that are not heard have no cue."""
    blocks = ["WEBVTT\n"]
    for cue, start, end in _timed(text, cues):
        line = _vtt_line(text[cue.char_start : cue.char_end])
        blocks.append(f"{cue.sentence}\n{_clock(start, '.')} --> {_clock(end, '.')}\n{line}\n")
    return "\n".join(blocks)


def caption_entries(text: str, cues: Iterable[Cue]) -> list[dict[str, Any]]:
    """Captions for programs: seconds, offsets into the caller's text, and that text as it was written."""
    return [
        {
            "index": cue.sentence,
            "start": _seconds(cue.start),
            "end": _seconds(cue.end),
            "char_start": cue.char_start,
            "char_end": cue.char_end,
            "text": text[cue.char_start : cue.char_end],
            "state": cue.state.value,
            "exact": cue.exact,
            "chunks": list(cue.chunks),
        }
        for cue in cues
    ]


_SRT_MARKUP = re.compile(r"--(?=>)|<(?=[/A-Za-z])|\{(?=\\)")
_VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def _srt_line(sentence: str) -> str:
    return _SRT_MARKUP.sub("\\g<0>\u200b", spoken_text(sentence))


def _vtt_line(sentence: str) -> str:
    return spoken_text(sentence).translate(_VTT_ESCAPES)


def _timed(text: str, cues: Iterable[Cue]) -> Iterator[tuple[Cue, int, int]]:
    """Heard cues with start and end in whole milliseconds.

    Left out is what is shorter than one, and what has nothing to show: an empty line would end its entry too early.
    """
    for cue in cues:
        if cue.start is not None and cue.end is not None and spoken_text(text[cue.char_start : cue.char_end]):
            start, end = _milliseconds(cue.start), _milliseconds(cue.end)
            if end > start:
                yield cue, start, end


def _milliseconds(samples: int) -> int:
    return samples * 1_000 // SAMPLE_RATE_HZ


def _seconds(samples: int | None) -> float | None:
    return None if samples is None else round(samples / SAMPLE_RATE_HZ, 4)


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1_000)
    return f"{seconds // 3_600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"
