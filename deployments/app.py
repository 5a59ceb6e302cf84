"""Builds and binds: the only file where plain classes meet Ray Serve.

``build_app`` and ``build_engine`` are the import paths of ``serve_config.yaml``. Scale (replicas, requests at once)
is the YAML's business. ``from __future__ import annotations`` must not appear here: Serve validates ``args`` only if
the annotation is a class at run time.
"""

import asyncio
import os
import time
from contextlib import AsyncExitStack
from typing import Any, cast

import ray
import structlog
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application
from ray.serve.context import _get_global_client
from starlette.types import ASGIApp

from deployments.edge import OneKey
from deployments.environment import missing
from deployments.ingress import build_http_app
from deployments.keys import check_exposure, reachable_at
from deployments.local_tts import HibariEngine, build_engine_api
from tts_actors.admission import check_accepting
from tts_actors.audio.loudness import load_meter_soon
from tts_actors.chunk_worker import WorkerTools
from tts_actors.cluster.gateway import Gateway
from tts_actors.cluster.metrics import record_with_ray
from tts_actors.cluster.tools import worker_tools
from tts_actors.config import AppArgs, AuthArgs
from tts_actors.errors import BackendError, ConfigError
from tts_actors.job_service import JobService
from tts_actors.logs import configure_logs
from tts_actors.single_call import SingleCall
from tts_actors.stores.clips import ObjectClipStore
from tts_actors.stores.fitness import check_stores, check_writable
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import migrate
from tts_actors.trace_export import check_tracing, export_traces

log = structlog.get_logger()


@serve.deployment(name="ingress")
@serve.ingress()
class Ingress:
    """The HTTP door of the service; every replica is alike and keeps nothing that is not in the stores."""

    def __init__(self, args: AppArgs, deployed_at_ms: int) -> None:
        configure_logs()
        record_with_ray()
        export_traces(args.tracing)
        check_exposure(args.auth, _http_host(), os.environ)
        if names := missing(os.environ):
            log.warning("environment_incomplete", missing=names, see="docs/operations.md, Ray's settings that matter")
        if len(args.backends) > 1:  # then short texts too are evened by default
            load_meter_soon()
        self._args = args
        self._gateway = Gateway(args, deployed_at_ms)
        self._store = SqlJobStore(args.store_url)
        self._clips = ObjectClipStore(args.clip_url)
        self._open = AsyncExitStack()
        self._tools: WorkerTools | None = None
        self._opening = asyncio.Lock()
        self._prepared = False

    def __serve_build_asgi_app__(self) -> ASGIApp:
        service = JobService(
            self._args, store=self._store, clips=self._clips, directory=self._gateway, tools=self._call_tools
        )
        checks = {
            "job_store": self._store.ping,
            "clip_store": self._clips.ping,
            "directory": self._gateway.check,
            "accepting": self._check_accepting,
            "backends": self._check_backends,
        }
        single_call = SingleCall(self._args, self._call_tools, lambda: self._gateway.draining)
        return build_http_app(
            self._args, service, single_call, checks, self._gateway.backend_figures, adds_request_id=False
        )

    async def check_health(self) -> None:
        """Serve's health check; its first call prepares the stores and the directory."""
        if not self._prepared:
            await migrate(self._args.store_url)
            await self._gateway.open()
            self._prepared = True

    async def _call_tools(self) -> WorkerTools:
        async with self._opening:
            if self._tools is None:
                pool = await self._gateway.pool()
                self._tools = await self._open.enter_async_context(
                    worker_tools(self._args, pool, keeps_leases=True, find_pool=self._gateway.pool)
                )
            return self._tools

    async def _check_accepting(self) -> None:
        check_accepting(self._gateway.draining)

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
    key_env: str = Field("TTS_ENGINE_KEY", description="Variable with the key that callers must have; unset: open")
    allow_open_network: bool = Field(False, description="Do without a key where others may reach the engine")

    def key(self, host: str) -> str:
        """The engine's key, or "". Raises :class:`ConfigError` if others could use the engine without one."""
        key = os.environ.get(self.key_env, "")
        others = os.environ.get(AuthArgs().keys_env or "") or reachable_at(host, os.environ)
        if others and not key and not self.allow_open_network:
            raise ConfigError(
                f"engine: it would answer without a key where the service asks for one or others reach it: set "
                f"{self.key_env} (and api_key_env of its backend entry), or say allow_open_network: true",
                "key_env",
            )
        return key


ENGINE_NICENESS = 10
"""Speaking takes whole cores for seconds; what answers callers, for milliseconds, comes first."""


@serve.deployment(name="engine")
@serve.ingress()
class Engine:
    """The embedded speech engine behind OpenAI's protocol; one engine and one call at a time a replica."""

    def __init__(self, args: EngineArgs) -> None:
        self._key = args.key(_http_host())
        os.nice(ENGINE_NICENESS)
        self._engine = HibariEngine(max_characters=args.max_characters)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        api = build_engine_api(self._engine)
        return OneKey(api, self._key) if self._key else api


def _http_host() -> str:
    """The address that Serve's HTTP proxies listen on. (Serve tells it nowhere in public.)"""
    client = _get_global_client(raise_if_no_controller_running=False)
    return "127.0.0.1" if client is None else str(client.http_config.host)


def build_app(args: AppArgs) -> Application:
    """The service. ``args`` is the YAML's ``args`` tree; a field it does not know fails the deploy by name."""
    check_exposure(args.auth, _http_host(), os.environ)  # here too: a replica's failure is tried three times first
    nodes = sum(bool(node["Alive"]) for node in cast("Any", ray).nodes()) if ray.is_initialized() else 1
    check_stores(args.store_url, args.clip_url, nodes)
    check_writable(args.store_url, args.clip_url)
    check_tracing(args.tracing)
    return cast("Any", Ingress).bind(args, int(time.time() * 1_000))  # type: ignore[no-any-return]


def build_engine(args: EngineArgs) -> Application:
    """The embedded engine as an application of its own."""
    args.key(_http_host())
    return cast("Any", Engine).bind(args)  # type: ignore[no-any-return]
