"""The real HTTP application on a real socket, without Ray, in front of the fault-injecting speech server.

Everything runs on one event loop in a thread of its own, so that blocking clients can be tested from the test's thread.
A TCP proxy in front of it breaks connections on order.
"""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from deployments.ingress import build_http_app
from tests.unit.tcp_proxy import HOST, Proxy
from tts_actors.chunk_worker import WorkerTools
from tts_actors.config import AppArgs
from tts_actors.single_call import SingleCall
from tts_actors.testing import FakeBackend, running_backend
from tts_actors.testing.in_process import LocalService, running_service

START_SECONDS = 30
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 4\r\nConnection: close\r\n\r\naway"


@dataclass(frozen=True)
class HttpService:
    """A running service: its own address, the proxy in front of it, and what it is made of."""

    url: str
    proxy: Proxy
    backend: FakeBackend
    parts: LocalService
    routes: Sequence[BaseRoute]
    loop: asyncio.AbstractEventLoop


@contextmanager
def http_service(directory: Path, **changes: Any) -> Iterator[HttpService]:
    """The service with its data in ``directory``; ``changes`` are fields of :class:`AppArgs`; ``backend`` has
    fields of the fake one's entry, and ``more_backends`` stand beside it. Logs are swallowed."""
    started: Future[tuple[HttpService, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with _running(directory, changes) as service:
            started.set_result((service, asyncio.get_running_loop(), stop))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    with structlog.testing.capture_logs():
        thread = threading.Thread(target=run)
        thread.start()
        service, loop, stop = started.result(START_SECONDS)
        try:
            yield service
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()


@asynccontextmanager
async def _running(directory: Path, changes: dict[str, Any]) -> AsyncIterator[HttpService]:
    async with running_backend() as backend:
        args = _args(directory, backend.url, changes)
        async with running_service(args) as parts:
            app = _app(args, parts)
            async with _served(app) as port, Proxy(port).running() as proxy:
                url, routes = f"http://{HOST}:{port}", getattr(app, "routes", ())
                yield HttpService(url, proxy, backend, parts, routes, asyncio.get_running_loop())


def _args(directory: Path, backend_url: str, changes: dict[str, Any]) -> AppArgs:
    backend = {
        "name": "fake",
        "protocol": "openai",
        "url": f"{backend_url}/v1",
        "model": "fake-tts",
        "voices": {"default": "tone"},
    } | changes.get("backend", {})
    values: dict[str, Any] = {
        "store_url": f"sqlite+aiosqlite:///{directory}/jobs.db",
        "clip_url": f"file://{directory}/clips",
        "backends": [backend],
        "retry": {"max_attempts": 2, "base_ms": 1, "cap_ms": 1, "outage_ms": 0},
    }
    backends = {"backends": [backend, *changes.get("more_backends", [])]}
    fields = {name: value for name, value in changes.items() if name not in ("backend", "more_backends")}
    return AppArgs.model_validate(values | backends | fields)


def _app(args: AppArgs, parts: LocalService) -> ASGIApp:
    async def tools() -> WorkerTools:
        return parts.tools

    return build_http_app(
        args,
        parts.service,
        SingleCall(args, tools, lambda: parts.directory.draining),
        {"job_store": parts.store.ping},
        parts.pool.figures,
    )


class _Server(uvicorn.Server):
    """Tells when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serving.set()


@asynccontextmanager
async def _served(app: ASGIApp) -> AsyncIterator[int]:
    """The application under uvicorn; yields its port."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
    server = _Server(config)
    with socket.create_server((HOST, 0)) as listening:
        serving = asyncio.create_task(server.serve([listening]))
        await server.serving.wait()
        yield listening.getsockname()[1]
        server.should_exit = True
        await serving
