"""Peers inside the same Serve: an empty FastAPI deployment, and bare named Ray actors made by its replica."""

import asyncio
import time
from typing import Any

import aiohttp
import ray
from fastapi import FastAPI, Request, Response
from ray import serve

from benchmarks.peers.bare_actor import BareActor

api = FastAPI()
FIFTY_KB = bytes(50_000)


@serve.deployment(name="peer", num_replicas=1, max_ongoing_requests=1_000, ray_actor_options={"num_cpus": 0})
@serve.ingress(api)
class Peer:
    """As many replicas and requests at once as the service's ingress has in ``serve_config.yaml``."""

    _session: aiohttp.ClientSession | None = None

    @api.get("/nothing")
    @api.post("/nothing")
    async def nothing(self) -> dict[str, Any]:
        """The empty deployment."""
        return {}

    @api.get("/fifty")
    async def fifty(self) -> Response:
        """The empty deployment, with an answer of 50 kB."""
        return Response(FIFTY_KB, media_type="audio/wav")

    @api.post("/relay")
    async def relay(self, request: Request, to: str) -> Response:
        """Passes the request's body on to a speech server and its audio back, unread: the least that a service does."""
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        headers = {"content-type": "application/json"}
        async with self._session.post(to, data=await request.body(), headers=headers) as answer:
            return Response(await answer.read(), answer.status, media_type="audio/wav")

    @api.post("/actors")
    async def actors(self, count: int, at_once: int) -> dict[str, float]:
        """Named actors a second: made, called once, ended, by so many hands at once."""
        started, left = time.monotonic(), iter(range(count))

        async def hand() -> None:
            for number in left:
                name = f"bare-{number}-{time.monotonic_ns()}"
                actor: Any = BareActor.options(name=name, namespace="bare", num_cpus=0).remote(name)  # type: ignore[attr-defined]
                await actor.run.remote()
                ray.kill(actor)

        await asyncio.gather(*(hand() for _ in range(at_once)))
        return {"rate": count / (time.monotonic() - started)}


app = Peer.bind()  # type: ignore[attr-defined]
