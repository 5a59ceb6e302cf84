"""Equal loudness: what comes out, and that it depends on nothing but the clip."""

import asyncio
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.unit.test_attempts import REQUEST, _running, _spoken
from tts_actors.audio import Pcm, tone, trim_and_fade
from tts_actors.audio.loudness import CEILING_DBTP, TARGET_LUFS, even_loudness, loudness_lufs
from tts_actors.models import Loudness
from tts_actors.testing import Faults


def voice(seconds: float, level: float, seed: int = 1) -> Pcm:
    """Noise in syllables: as uneven as speech, at ``level`` of full scale."""
    count = round(seconds * 24_000)
    noise = np.random.default_rng(seed).uniform(-1, 1, count)
    syllables = np.abs(np.sin(np.arange(count) * np.pi * 4 / 24_000))
    return (noise * syllables * level * 32_767).astype(np.int16)


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.39, 0.4, 0.41, 1.0, 7.3])
@pytest.mark.parametrize("level", [0.02, 0.2, 0.9])
def test_loud_and_quiet_clips_of_any_length_become_equally_loud(seconds: float, level: float) -> None:
    loudness = loudness_lufs(even_loudness(voice(seconds, level)))
    assert loudness == pytest.approx(TARGET_LUFS, abs=0.1)


def test_pauses_in_a_clip_do_not_make_the_rest_of_it_louder() -> None:
    speech = voice(2.0, 0.3)
    with_pause = np.concatenate([speech, np.zeros(48_000, np.int16), speech])
    first, second = even_loudness(speech), even_loudness(with_pause)[: speech.size]
    ratio = np.abs(second.astype(float)).mean() / np.abs(first.astype(float)).mean()
    assert 20 * np.log10(ratio) == pytest.approx(0, abs=1.0)


def test_a_peak_is_never_driven_over_the_ceiling() -> None:
    clip = voice(2.0, 0.01)
    clip[24_000:24_010] = 20_000
    evened = even_loudness(clip)
    assert np.abs(evened.astype(int)).max() <= 32_768 * 10 ** (CEILING_DBTP / 20) + 1
    assert (loudness_lufs(evened) or 0) < TARGET_LUFS


def test_silence_and_a_few_samples_stay_as_they_are() -> None:
    for clip in (np.zeros(0, np.int16), np.zeros(30_000, np.int16), np.full(100, 500, np.int16)):
        assert even_loudness(clip).tobytes() == clip.tobytes()


def test_the_edges_stay_silent_and_the_same_clip_gives_the_same_bytes() -> None:
    clip = trim_and_fade(tone("The lamp is lit."))
    evened = even_loudness(clip)
    assert evened[0] == evened[-1] == 0
    assert evened.size == clip.size
    assert even_loudness(clip.copy()).tobytes() == evened.tobytes()


async def speak_without_and_with(folder: Path) -> None:
    """In a process of its own: a job that is not evened, and one that is, whose backend never answers."""
    async with _running(folder, Faults()) as (service, (server,)):
        await _spoken(service, "The lamp is lit.")
        assert "scipy" not in sys.modules, "loaded for nothing"
        server.faults = Faults(always="hang")
        evened = dataclasses.replace(REQUEST, loudness=Loudness.ON)
        await service.service.create("", evened, "The sea is calm.")
        async with asyncio.timeout(60):
            while "pyloudnorm" not in sys.modules:  # noqa: ASYNC110 - an import tells nobody
                await asyncio.sleep(0.01)


def test_scipy_is_loaded_while_the_first_call_runs_and_only_by_who_evens(tmp_path: Path) -> None:
    here = "tests.unit.test_audio_loudness"
    code = (
        f"import asyncio, pathlib, {here} as t; asyncio.run(t.speak_without_and_with(pathlib.Path({str(tmp_path)!r})))"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=150, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
