"""What a team would write with Celery 5 and Redis: the same split, fan-out, retries and join.

Tasks are acknowledged late (a lost worker's tasks run again), failures are tried three times with back-off, takes are
checked as far as one does without a library for it, clips and the joined file are written to a folder.
"""

import os
import threading
import time
import wave
from pathlib import Path
from typing import Any

import requests
from celery import Celery

TIMEOUT_SECONDS = 75
app = Celery("benchmark", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    result_expires=600,
)
_thread = threading.local()


@app.task(autoretry_for=(requests.RequestException, wave.Error, ValueError), max_retries=2, retry_backoff=0.2)
def speak(url: str, folder: str, index: int, text: str) -> list[Any]:
    """One chunk: its number and the name of its clip."""
    body = {"model": "stub", "input": text, "voice": "tone", "response_format": "wav"}
    response = _session().post(f"{url}/v1/audio/speech", json=body, timeout=TIMEOUT_SECONDS)
    response.raise_for_status()
    clip = Path(folder, f"{index}.wav")
    partial = clip.with_suffix(".part")
    partial.write_bytes(response.content)
    with wave.open(str(partial)) as audio:
        if audio.getnframes() == 0:
            raise ValueError("no audio")
    partial.replace(clip)
    return [index, clip.name]


@app.task
def join(clips: list[list[Any]], folder: str) -> list[Any]:
    """One file of all clips in order: its path, and when the last chunk was there."""
    spoken = time.time()
    joined = Path(folder, "joined.wav")
    with wave.open(str(joined), "wb") as output:
        for _, name in sorted(clips):
            with wave.open(str(Path(folder, name))) as clip:
                if output.getnframes() == 0:
                    output.setparams(clip.getparams())
                output.writeframes(clip.readframes(clip.getnframes()))
    return [str(joined), spoken]


def _session() -> requests.Session:
    if not hasattr(_thread, "session"):
        _thread.session = requests.Session()
    return _thread.session  # type: ignore[no-any-return]
