"""OpenAI's door: how late the first byte of a long text is, what a short text costs, how many of them a second.

The stub speech server runs in its own process and is asked directly in the same rounds: what differs is ours. The empty
route (``/health``) passes the same proxy, replica and edge: it stands for an empty FastAPI deployment.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import aiohttp

from benchmarks.figures import median, milliseconds, show
from benchmarks.service import running, stub_config
from tts_actors.testing import FakeBackendProcess, Faults

ROUNDS = 15
DELAY_MS = 50
SENTENCE = "This is one of the sentences of the text."
AT_ONCE = 16
RATE_SECONDS = 6.0


def main(**environment: str) -> None:
    """Run and print."""
    faults = Faults(delay_ms=DELAY_MS, log_text=False)  # clips as long as their texts: chunks grow
    with (
        FakeBackendProcess(faults) as backend,
        running(stub_config(backend.url, concurrency=64), **environment) as (url, _),
    ):
        asyncio.run(_measure(url, backend))


async def _measure(url: str, backend: FakeBackendProcess) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    figures: dict[str, list[float]] = {"direct": [], "empty": [], "short": [], "again": [], "long": []}
    async with aiohttp.ClientSession(connector=connector) as session:
        for round_number in range(ROUNDS + 2):
            text = " ".join([f"Round {round_number}.", *[SENTENCE] * 39])
            measured = {
                "direct": await _first_byte(session, backend.url, SENTENCE),
                "empty": await _timed(_get(session, f"{url}/health")),
                "short": await _first_byte(session, url, SENTENCE),
                "again": await _first_byte(session, url, SENTENCE),
                "long": await _first_byte(session, url, text),
            }
            if round_number >= 2:  # the first two warm everything up
                for name, seconds in measured.items():
                    figures[name].append(seconds)
            await asyncio.sleep(3.0)  # spares are refilled
        direct = median(figures["direct"])
        show("first sentence from the backend itself", milliseconds(figures["direct"]))
        show("first byte of 40 sentences", milliseconds(figures["long"]))
        show("first byte later than directly, p50", f"{(median(figures['long']) - direct) * 1_000:.1f} ms", "50 ms")
        show("empty route", milliseconds(figures["empty"]))
        for name, words in (("short", "one chunk after a pause"), ("again", "one chunk soon after another")):
            show(words, milliseconds(figures[name]))
            overhead = f"{(median(figures[name]) - direct) * 1_000:.1f} ms"
            show(f"{words}, more than directly, p50", overhead, "8 ms, 5 ms with HAProxy")
        backend.set_faults(delay_ms=0)
        empty = await _rate(lambda: _get(session, f"{url}/health"))
        spoken = await _rate(lambda: _first_byte(session, url, SENTENCE))
        show(f"empty route, {AT_ONCE} at once", f"{empty:.0f} requests/s")
        show(f"one chunk, {AT_ONCE} at once", f"{spoken:.0f} requests/s ({spoken / empty:.2f} of it)", "0.5")


async def _first_byte(session: aiohttp.ClientSession, url: str, text: str) -> float:
    """Seconds to the first byte of audio; the rest is read too."""
    body = {"model": "stub", "input": text, "voice": "tone", "response_format": "pcm"}
    started = time.perf_counter()
    async with session.post(f"{url}/v1/audio/speech", json=body) as response:
        assert response.status == 200, await response.text()
        await response.content.readany()
        first = time.perf_counter() - started
        await response.read()
    return first


async def _get(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(url) as response:
        await response.read()


async def _timed(call: Coroutine[Any, Any, None]) -> float:
    started = time.perf_counter()
    await call
    return time.perf_counter() - started


async def _rate(call: Any) -> float:
    """Calls a second with ``AT_ONCE`` callers."""
    done = 0
    end = time.perf_counter() + RATE_SECONDS

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call()
            done += 1

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return done / RATE_SECONDS
