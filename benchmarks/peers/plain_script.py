"""The limit of the embedded engine: a script with a process per core, the same chunks, pauses and mp3 encoder."""

import asyncio
import multiprocessing
import time
from pathlib import Path
from typing import Self

import numpy as np
import psutil

from deployments.local_tts import HibariEngine
from tts_actors.audio import Pcm, encode_file, pause_samples, trim_and_fade
from tts_actors.models import Boundary
from tts_actors.text import spoken_text

PROCESSES = 2
_engine: list[HibariEngine] = []


def _load() -> None:
    _engine.append(HibariEngine())


def _speak(text: str) -> Pcm:
    return trim_and_fade(_engine[0].speak(text))


class PlainScript:
    """The processes with the engine loaded, until the block ends."""

    def __enter__(self) -> Self:
        self._pool = multiprocessing.get_context("spawn").Pool(PROCESSES, _load)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.terminate()
        self._pool.join()

    def cpu_seconds(self) -> float:
        """CPU used so far by this process, where the encoder runs, and by those of the engine."""
        engines = [psutil.Process(process.pid).cpu_times() for process in multiprocessing.active_children()]
        return time.process_time() + sum(times.user + times.system for times in engines)

    async def mp3(self, text: str, spans: list[tuple[int, int]], path: Path) -> None:
        """Speak the spans of ``text`` into one file."""
        await asyncio.to_thread(self._mp3, [spoken_text(text[start:end]) for start, end in spans], path)

    def _mp3(self, chunks: list[str], path: Path) -> None:
        pause: Pcm = np.zeros(pause_samples(Boundary.SENTENCE), np.int16)
        with path.open("wb") as file:
            encode_file("mp3", (pcm for clip in self._pool.imap(_speak, chunks) for pcm in (clip, pause)), file)
