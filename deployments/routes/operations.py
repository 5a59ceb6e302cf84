"""What operators and load balancers ask: is the process up, can it work."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from tts_actors import __version__
from tts_actors.backends.gauge import BackendFigures
from tts_actors.config import BackendArgs
from tts_actors.errors import TtsError

CHECK_SECONDS = 5.0
"""A part that does not answer within this time is not ready."""

Check = Callable[[], Awaitable[Any]]


def operation_routes(
    checks: Mapping[str, Check],
    unattended_jobs: Callable[[], Awaitable[int]],
    backends: Sequence[BackendArgs],
    figures: Callable[[], Awaitable[list[BackendFigures]]],
) -> APIRouter:
    """``/health`` says that the process answers, ``/readyz`` runs the named checks, ``/v1/backends`` shows ``figures``
    of the configured ``backends``.

    ``/readyz`` tells ``unattended_jobs`` too (null while the store is away), which does not decide the answer: the jobs
    of a service that has just been started again wait for its first sweep, and restarting it again would not help.
    """
    router = APIRouter(tags=["operations"])

    @router.get("/health")
    async def health() -> Any:
        return JSONResponse({"status": "ok", "version": __version__})

    @router.get("/readyz")
    async def ready() -> Any:
        results = dict(zip(checks, await asyncio.gather(*map(_outcome, checks.values())), strict=True))
        failed = {name: reason for name, reason in results.items() if reason}
        body = {
            "status": "unavailable" if failed else "ready",
            "checks": {name: reason or "ok" for name, reason in results.items()},
            "details": {"unattended_jobs": await _figure(unattended_jobs)},
        }
        return JSONResponse(body, 503 if failed else 200, {"Retry-After": "2"} if failed else {})

    @router.get("/v1/backends")
    async def list_backends() -> Any:
        protocols = {backend.name: backend.protocol for backend in backends}
        documents = [
            {"name": each.name, "protocol": protocols.get(each.name)} | dataclasses.asdict(each)
            for each in await figures()
        ]
        return JSONResponse({"object": "list", "data": documents})

    return router


async def _figure(figure: Callable[[], Awaitable[int]]) -> int | None:
    with contextlib.suppress(TimeoutError, TtsError):
        async with asyncio.timeout(CHECK_SECONDS):
            return await figure()
    return None


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
