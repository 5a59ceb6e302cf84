"""40 chunks of 200 ms, 64 in flight: from the POST to the last chunk read, and what an initiate costs.

The stub speech server runs in its own process. Beside the service, in the same rounds: the same 40 calls made directly
(the limit), and a route of the service that does nothing (what Serve itself costs a request).
"""

import asyncio
import time
from typing import Any

import aiohttp

from benchmarks.figures import median, milliseconds, show
from benchmarks.service import running, stub_config
from tts_actors.testing import FakeBackendProcess, Faults

ROUNDS = 12
CHUNKS = 40
DELAY_SECONDS = 0.2
SENTENCE = "This is one of the sentences of the text. "
INITIATE = {
    "text": SENTENCE * CHUNKS,
    "voiceId": "default",
    "model": "stub",
    "splittingPreference": "sentence",
}


def main(**environment: str) -> None:
    """Run and print."""
    faults = Faults(delay_ms=round(DELAY_SECONDS * 1_000), fixed_audio_ms=1_000, log_text=False)
    with (
        FakeBackendProcess(faults) as backend,
        running(stub_config(backend.url, concurrency=64), **environment) as (url, _),
    ):
        asyncio.run(_measure(url, backend.url))


async def _measure(url: str, backend_url: str) -> None:
    figures: dict[str, list[float]] = {}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        for round_number in range(ROUNDS + 2):
            measured = {
                "direct": await _direct(session, backend_url),
                "empty": await _timed(_get(session, f"{url}/health")),
                **await _job(session, url),
                "live": await _live(session, url),
            }
            if round_number >= 2:  # the first two warm everything up
                for name, seconds in measured.items():
                    figures.setdefault(name, []).append(seconds)
            await asyncio.sleep(3.0)  # spares are refilled
    show("the 40 calls made directly", milliseconds(figures["direct"]))
    show("a route that does nothing", milliseconds(figures["empty"]))
    show("initiate", milliseconds(figures["initiate"]), "20 ms, 10 ms with HAProxy")
    show("POST to job completed", milliseconds(figures["completed"]))
    show("POST to all 40 chunks read as one file", milliseconds(figures["file"]), "300 ms")
    show("POST to last byte of the live pcm stream", milliseconds(figures["live"]), "300 ms")
    show("POST to last of 40 single chunk reads, 16 at once", milliseconds(figures["chunks"]))
    show("ratio: POST to file / ideal 200 ms", f"{median(figures['file']) / DELAY_SECONDS:.2f}")
    show("ratio: POST to file / direct", f"{median(figures['file']) / median(figures['direct']):.2f}")


async def _job(session: aiohttp.ClientSession, url: str) -> dict[str, float]:
    started = time.perf_counter()
    async with session.post(f"{url}/api/tts-initiate", json=INITIATE) as response:
        job_id = (await response.json())["jobId"]
    initiate = time.perf_counter() - started
    base = f"{url}/v1/audio/speech/jobs/{job_id}"
    job = await _get(session, f"{base}?wait=30")
    assert b'"completed"' in job, job
    completed = time.perf_counter() - started
    await _get(session, f"{base}/audio?format=pcm")
    file = time.perf_counter() - started
    gate = asyncio.Semaphore(16)

    async def read(index: int) -> None:
        async with gate:
            await _get(session, f"{url}/api/tts-chunk?jobId={job_id}&chunkIndex={index}")

    reading = time.perf_counter()
    await asyncio.gather(*map(read, range(CHUNKS)))
    chunks = completed + time.perf_counter() - reading
    return {"initiate": initiate, "completed": completed, "file": file, "chunks": chunks}


async def _live(session: aiohttp.ClientSession, url: str) -> float:
    """All chunks read as they come: one listener from right after the POST to the last byte."""
    started = time.perf_counter()
    async with session.post(f"{url}/api/tts-initiate", json=INITIATE) as response:
        job_id = (await response.json())["jobId"]
    body = await _get(session, f"{url}/v1/audio/speech/jobs/{job_id}/audio?live=1&format=pcm")
    elapsed = time.perf_counter() - started
    assert len(body) > CHUNKS * 48_000 * 0.9, len(body)  # 40 clips of one second at 24 kHz, 16 bit, less their edges
    await asyncio.sleep(3.0)
    return elapsed


async def _direct(session: aiohttp.ClientSession, backend_url: str) -> float:
    body = {"model": "stub", "input": SENTENCE.strip(), "voice": "tone", "response_format": "wav"}

    async def call() -> None:
        async with session.post(f"{backend_url}/v1/audio/speech", json=body) as response:
            await response.read()

    return await _timed(asyncio.gather(*(call() for _ in range(CHUNKS))))


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url) as response:
        body = await response.read()
        assert response.status == 200, body
        return body


async def _timed(work: Any) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started
