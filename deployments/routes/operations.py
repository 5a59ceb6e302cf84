"""What operators and load balancers ask: is the process up, can it work."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from tts_actors import __version__
from tts_actors.errors import TtsError

CHECK_SECONDS = 5.0
"""A part that does not answer within this time is not ready."""

Check = Callable[[], Awaitable[Any]]


def operation_routes(checks: Mapping[str, Check]) -> APIRouter:
    """``/health`` says that the process answers, ``/readyz`` runs the named checks."""
    router = APIRouter(tags=["operations"])

    @router.get("/health")
    async def health() -> Any:
        return JSONResponse({"status": "ok", "version": __version__})

    @router.get("/readyz")
    async def ready() -> Any:
        results = dict(zip(checks, await asyncio.gather(*map(_outcome, checks.values())), strict=True))
        failed = {name: reason for name, reason in results.items() if reason}
        body = {"status": "unavailable" if failed else "ready", "checks": {n: r or "ok" for n, r in results.items()}}
        return JSONResponse(body, 503 if failed else 200, {"Retry-After": "2"} if failed else {})

    return router


async def _outcome(check: Check) -> str | None:
    """None if the check passes, else why not."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:.0f} s"
    except TtsError as error:
        return error.message
    return None
