"""Requests a second of many clients in a closed loop: each asks again when it has its answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

CLIENTS = 16
WINDOW_SECONDS = 1.0


async def rate(call: Callable[[], Awaitable[Any]]) -> float:
    """Calls a second."""
    return (await rate_and_latencies(call))[0]


async def rate_and_latencies(call: Callable[[], Awaitable[Any]]) -> tuple[float, list[float]]:
    """Calls a second, and the seconds that each took. None is begun after the window; all that were begun count."""
    started = time.perf_counter()
    took: list[float] = []

    async def client() -> None:
        while (begun := time.perf_counter()) < started + WINDOW_SECONDS:
            await call()
            took.append(time.perf_counter() - begun)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return len(took) / (time.perf_counter() - started), took
