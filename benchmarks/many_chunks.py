"""2,000 chunks of 200 ms, 64 in flight: the whole job against the ideal of 2,000 x 0.2 s / 64."""

import asyncio
import time

import aiohttp

from benchmarks.figures import show
from benchmarks.service import running, stub_config
from tts_actors.testing import FakeBackendProcess, Faults

CHUNKS = 2_000
IN_FLIGHT = 64
DELAY_SECONDS = 0.2
ROUNDS = 3


def main(**environment: str) -> None:
    """Run and print."""
    faults = Faults(delay_ms=round(DELAY_SECONDS * 1_000), fixed_audio_ms=1_000, log_text=False)
    with (
        FakeBackendProcess(faults) as backend,
        running(stub_config(backend.url, concurrency=IN_FLIGHT), **environment) as (url, _),
    ):
        asyncio.run(_measure(url, backend))


async def _measure(url: str, backend: FakeBackendProcess) -> None:
    ideal = CHUNKS * DELAY_SECONDS / IN_FLIGHT
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for _ in range(ROUNDS):
            body = {"model": "stub", "input": "This is one of the sentences of the text. " * CHUNKS}
            started = time.perf_counter()
            async with session.post(f"{url}/v1/audio/speech/jobs", json=body) as response:
                link = (await response.json())["links"]["self"]
            status = "queued"
            while status in ("queued", "in_progress"):
                async with session.get(f"{url}{link}?wait=60") as response:
                    status = (await response.json())["status"]
            seconds = time.perf_counter() - started
            assert status == "completed", status
            await asyncio.sleep(5.0)  # spares are refilled: a warm service is measured
            show(f"2,000 chunks, ideal {ideal:.2f} s", f"{seconds:.2f} s = {seconds / ideal:.3f}x", "1.10x")
    show("most calls in flight, seen by the backend", str(backend.stats()["max_in_flight"]), "64")
