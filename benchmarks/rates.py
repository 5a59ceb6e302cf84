"""Requests a second of many clients in a closed loop: each asks again when it has its answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

CLIENTS = 16
WINDOW_SECONDS = 1.2


async def rate(call: Callable[[], Awaitable[Any]], seconds: float = WINDOW_SECONDS, clients: int = CLIENTS) -> float:
    """Calls a second."""
    return len(await latencies(call, seconds, clients)) / seconds


async def latencies(
    call: Callable[[], Awaitable[Any]], seconds: float = WINDOW_SECONDS, clients: int = CLIENTS
) -> list[float]:
    """Seconds of every call that ended within the window."""
    end = time.perf_counter() + seconds
    took: list[float] = []

    async def client() -> None:
        while (started := time.perf_counter()) < end:
            await call()
            if (done := time.perf_counter()) <= end:
                took.append(done - started)

    await asyncio.gather(*(client() for _ in range(clients)))
    return took
