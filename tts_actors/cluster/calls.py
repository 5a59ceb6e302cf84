"""Calls of Ray actors whose errors are ours: what Ray wraps is unwrapped, what Ray loses says so."""

import asyncio
from typing import Any

from ray.exceptions import RayActorError, RayTaskError

from tts_actors.errors import DirectoryUnavailable, TtsError

RESTART_SECONDS = 2.0
"""How long a killed actor with restarts takes to be back."""


async def answer(reference: Any, timeout_seconds: float | None = None) -> Any:
    """The result of an actor call.

    Raises the callee's own :class:`TtsError`, or :class:`DirectoryUnavailable` when the actor is dead, restarting or
    silent for longer than ``timeout_seconds``.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            return await reference
    except RayTaskError as error:
        if isinstance(error.cause, TtsError):
            raise error.cause from None
        raise
    except (RayActorError, TimeoutError) as error:
        raise DirectoryUnavailable(
            f"an actor does not answer ({type(error).__name__}); nothing is lost", RESTART_SECONDS
        ) from error
