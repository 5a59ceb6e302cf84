"""Seams between chunks of the embedded engine: quiet as long as the text asks for, and without a click."""

from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest

from deployments.local_tts import HibariEngine
from tts_actors.audio import Pcm, pause_samples, trim_and_fade
from tts_actors.models import SAMPLE_RATE_HZ, Boundary, ChunkingMode, ChunkSpan
from tts_actors.text import split_text, spoken_text

TEXT = (
    "Chapter one\n\nThe keeper climbed the stairs, one hand on the rail, while the wind outside rose and fell. "
    "Was the lamp still burning? He waited… Nobody spoke!\n\nIn the morning the sea was calm again."
)
BOUNDARIES = (Boundary.COMMA, Boundary.SENTENCE, Boundary.QUESTION, Boundary.PARAGRAPH)

SILENT = 33
"""16-bit level of -60 dBFS."""

CLICK = 1_000
"""A jump between two samples beside a seam that would be heard; fades leave some tens."""


@lru_cache(maxsize=1)
def _clips() -> list[tuple[ChunkSpan, Pcm]]:
    engine = HibariEngine()
    spans = split_text(TEXT, mode=ChunkingMode.SENTENCE, max_characters=60).spans
    return [(span, trim_and_fade(engine.speak(spoken_text(TEXT[span.char_start : span.char_end])))) for span in spans]


def _joined(speed: float) -> tuple[Pcm, list[tuple[Boundary, int]]]:
    """The file, and where each seam begins in it."""
    parts: list[Pcm] = []
    seams, at = [], 0
    for span, clip in _clips():
        pause = pause_samples(span.boundary, speed=speed)
        parts += [clip, np.zeros(pause, np.int16)]
        seams.append((span.boundary, at + clip.size))
        at += clip.size + pause
    return np.concatenate(parts), seams[:-1]


def _silences_ms(pcm: Pcm, seams: list[tuple[Boundary, int]]) -> dict[Boundary, list[float]]:
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > SILENT)
    found: dict[Boundary, list[float]] = {}
    for boundary, at in seams:
        gap = loud[loud >= at].min() - loud[loud < at].max()
        found.setdefault(boundary, []).append(float(gap) * 1_000 / SAMPLE_RATE_HZ)
    return found


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_a_cut_pauses_less_than_a_sentence_and_a_sentence_less_than_a_paragraph(speed: float) -> None:
    silences = _silences_ms(*_joined(speed))
    assert set(silences) == set(BOUNDARIES)
    for shorter, longer in pairwise(BOUNDARIES):
        assert max(silences[shorter]) < min(silences[longer]), (shorter, longer)


def test_no_pause_is_doubled_and_none_inside_a_paragraph_is_long() -> None:
    silences = _silences_ms(*_joined(1.0))
    for boundary, found in silences.items():
        pause_ms = pause_samples(boundary) * 1_000 / SAMPLE_RATE_HZ
        assert all(pause_ms <= silence <= pause_ms + 60 for silence in found), boundary
    assert max(max(silences[boundary]) for boundary in BOUNDARIES[:-1]) < 1_200


def test_no_seam_clicks() -> None:
    pcm, seams = _joined(1.0)
    for _, at in seams:
        near = pcm[at - 120 : at + 120].astype(np.int32)
        assert np.abs(np.diff(near)).max() < CLICK
        assert pcm[at - 1] == 0
