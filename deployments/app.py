"""Builds and binds: the only file where plain classes meet Ray Serve.

``build_app`` and ``build_engine`` are the import paths of ``serve_config.yaml``. Scale (replicas, requests at once)
is the YAML's business. ``from __future__ import annotations`` must not appear here: Serve validates ``args`` only if
the annotation is a class at run time.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp

from deployments.ingress import build_http_app
from deployments.local_tts import HibariEngine, build_engine_api
from tts_actors.chunk_worker import WorkerTools
from tts_actors.cluster import Gateway
from tts_actors.cluster.tools import worker_tools
from tts_actors.config import AppArgs
from tts_actors.errors import BackendError
from tts_actors.job_service import JobService
from tts_actors.logs import configure_logs
from tts_actors.single_call import SingleCall
from tts_actors.stores import ObjectClipStore, SqlJobStore, migrate


@serve.deployment(name="ingress")
@serve.ingress()
class Ingress:
    """The HTTP door of the service; every replica is alike and keeps nothing that is not in the stores."""

    def __init__(self, args: AppArgs) -> None:
        configure_logs()
        self._args = args
        self._gateway = Gateway(args)
        self._store = SqlJobStore(args.store_url)
        self._clips = ObjectClipStore(args.clip_url)
        self._open = AsyncExitStack()
        self._tools: WorkerTools | None = None
        self._opening = asyncio.Lock()
        self._prepared = False

    def __serve_build_asgi_app__(self) -> ASGIApp:
        service = JobService(self._args, store=self._store, clips=self._clips, directory=self._gateway)
        checks = {
            "job_store": self._store.ping,
            "clip_store": self._clips.ping,
            "directory": self._gateway.check,
            "backends": self._check_backends,
        }
        single_call = SingleCall(self._args, self._call_tools)
        return build_http_app(self._args, service, single_call, checks, adds_request_id=False)

    async def check_health(self) -> None:
        """Serve's health check; its first call prepares the stores and the directory."""
        if not self._prepared:
            await migrate(self._args.store_url)
            await self._gateway.figures()
            self._prepared = True

    async def _call_tools(self) -> WorkerTools:
        async with self._opening:
            if self._tools is None:
                pool = await self._gateway.pool()
                self._tools = await self._open.enter_async_context(worker_tools(self._args, pool))
            return self._tools

    async def _check_backends(self) -> None:
        """Passes if at least one backend answers."""
        tools = await self._call_tools()
        checks = (backend.check() for backend in tools.backends.values())
        failures = [r for r in await asyncio.gather(*checks, return_exceptions=True) if r is not None]
        if len(failures) == len(tools.backends):
            reason = failures[0].message if isinstance(failures[0], BackendError) else type(failures[0]).__name__
            raise BackendError(f"no backend answers: {reason}", "connect")


class EngineArgs(BaseModel):
    """Arguments of the embedded engine."""

    model_config = ConfigDict(extra="forbid")
    max_characters: int = Field(1_000, ge=1, le=2_000, description="Longest input of one call")


@serve.deployment(name="engine")
@serve.ingress()
class Engine:
    """The embedded speech engine behind OpenAI's protocol; one engine and one call at a time a replica."""

    def __init__(self, args: EngineArgs) -> None:
        self._engine = HibariEngine(max_characters=args.max_characters)

    def __serve_build_asgi_app__(self) -> Any:
        return build_engine_api(self._engine)


def build_app(args: AppArgs) -> Application:
    """The service. ``args`` is the YAML's ``args`` tree; a field it does not know fails the deploy by name."""
    return cast("Any", Ingress).bind(args)  # type: ignore[no-any-return]


def build_engine(args: EngineArgs) -> Application:
    """The embedded engine as an application of its own."""
    return cast("Any", Engine).bind(args)  # type: ignore[no-any-return]
