"""The limit: a plain asyncio script that calls the speech server itself, with the same concurrency."""

import asyncio

from benchmarks.harness import timed
from benchmarks.service import SENTENCE, Stage

BODY = {"model": "stub", "input": SENTENCE.strip(), "voice": "tone", "response_format": "wav"}


async def direct_calls(stage: Stage, count: int, at_once: int) -> float:
    """Seconds for so many calls."""
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            async with stage.session.post(f"{stage.backend.url}/v1/audio/speech", json=BODY) as response:
                assert response.status == 200
                await response.read()

    return await timed(asyncio.gather(*(caller() for _ in range(min(at_once, count)))))
