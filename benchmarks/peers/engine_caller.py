"""What no service can leave out that has its engine behind HTTP: a script that calls the service's own engines, through
Serve, with the same chunks, as many calls at once, the same trimming, and one mp3 encoder.
"""

import asyncio
import os
from pathlib import Path

import aiohttp
import numpy as np

from tts_actors.audio import Pcm, decode_take, file_encoder, pause_samples, trim_and_fade
from tts_actors.models import Boundary
from tts_actors.text import spoken_text

AT_ONCE = 4  # max_concurrency of the engine in serve_config.yaml
KEY = "TTS_ENGINE_KEY"
"""The service makes one unless it is told one: the stage tells it."""


async def mp3(session: aiohttp.ClientSession, url: str, text: str, spans: list[tuple[int, int]], path: Path) -> None:
    """Speak the spans of ``text`` into one file."""
    places = asyncio.Semaphore(AT_ONCE)
    headers = {"Authorization": f"Bearer {os.environ[KEY]}"}

    async def speak(words: str) -> Pcm:
        body = {"model": "hibari", "voice": "heart", "input": words, "response_format": "wav"}
        async with (
            places,
            session.post(f"{url}/engine/v1/audio/speech", json=body, headers=headers) as answer,
        ):
            assert answer.status == 200, await answer.text()
            take, media_type = await answer.read(), answer.content_type
        return await asyncio.to_thread(lambda: trim_and_fade(decode_take(take, media_type)))

    pause: Pcm = np.zeros(pause_samples(Boundary.SENTENCE), np.int16)
    calls = [asyncio.create_task(speak(spoken_text(text[start:end]))) for start, end in spans]
    with path.open("wb") as file, file_encoder("mp3", file) as feed:
        for call in calls:
            clip = await call
            await asyncio.to_thread(lambda clip=clip: (feed(clip), feed(pause)))  # type: ignore[misc]
