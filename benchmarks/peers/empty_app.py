"""Peers inside the same Serve: an empty FastAPI deployment, the same with what no service can leave out, and bare named
Ray actors made by its replica.
"""

import asyncio
import itertools
import os
import time
from pathlib import Path
from typing import Any

import aiohttp
import ray
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from ray import serve

from benchmarks.peers.bare_actor import BareActor, BareJob
from benchmarks.peers.on_disk import CLIPS, OnDisk

api = FastAPI()
FIFTY_KB = bytes(50_000)
WARM_ACTORS = 2


class Ask(BaseModel):
    """A job as it is asked for."""

    model: str
    input: str
    chunking: dict[str, str] = {}


class Taken(BaseModel):
    """The answer to that."""

    id: str
    status: str
    links: dict[str, str]


async def _rate(count: int, at_once: int, one: Any) -> float:  # above the class: Serve pickles it as it is there
    started, left = time.monotonic(), iter(range(count))

    async def hand() -> None:
        for number in left:
            await one(f"bare-{number}-{time.monotonic_ns()}")

    await asyncio.gather(*(hand() for _ in range(at_once)))
    return count / (time.monotonic() - started)


@serve.deployment(name="peer", num_replicas=1, max_ongoing_requests=1_000, ray_actor_options={"num_cpus": 0})
@serve.ingress(api)
class Peer:
    """As many replicas and requests at once as the service's ingress has in ``serve_config.yaml``."""

    _session: aiohttp.ClientSession | None = None
    _disk: OnDisk | None = None

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

    @api.post("/open")
    async def open(self, folder: str) -> dict[str, Any]:
        """Before ``/accept``, ``/stored``, ``/start`` and ``/jobs``: a database, clips and warm actors."""
        if self._disk is None:
            self._disk = OnDisk(Path(folder), FIFTY_KB)
            self._actor: Any = BareActor.options(num_cpus=0).remote("directory")  # type: ignore[attr-defined]
            warm = [BareJob.remote() for _ in range(WARM_ACTORS)]
            await asyncio.gather(self._actor.run.remote(), *(job.run.remote() for job in warm))
            self._warm = itertools.cycle(warm)
        return {}

    @api.post("/accept", status_code=202)
    async def accept(self, ask: Ask) -> Taken:
        """The least of accepting a job: checked, committed, an actor told (nobody waits for that), answered."""
        job_id = f"job-{os.urandom(12).hex()}"
        assert self._disk is not None
        await self._disk.commit(job_id, ask.input)
        self._actor.run.remote()
        return Taken(id=job_id, status="queued", links={"self": f"/jobs/{job_id}"})

    @api.get("/stored")
    async def stored(self, number: int) -> Response:
        """The least of reading a finished chunk: its row, its file, 50 kB of answer."""
        assert self._disk is not None
        return Response(await self._disk.clip(number % CLIPS), media_type="audio/wav")

    @api.post("/start")
    async def start(self, request: Request, to: str) -> dict[str, Any]:
        """The least of starting a job: a warm actor is told, and has a warm worker call the speech server."""
        next(self._warm).run.remote(to, await request.body())
        return {}

    @api.post("/actors")
    async def actors(self, count: int, at_once: int) -> dict[str, float]:
        """Named actors a second: made, called once, ended, by so many hands at once."""
        return {"rate": await _rate(count, at_once, self._bare_actor)}

    @api.post("/jobs")
    async def jobs(self, count: int, at_once: int, store: bool = False) -> dict[str, float]:
        """The same with the least that a job does: one streaming task, one more call, and with ``store`` one commit."""
        return {"rate": await _rate(count, at_once, lambda name: self._bare_job(name, store))}

    async def _bare_actor(self, name: str) -> None:
        actor: Any = BareActor.options(name=name, namespace="bare", num_cpus=0).remote(name)  # type: ignore[attr-defined]
        await actor.run.remote()
        ray.kill(actor)

    async def _bare_job(self, name: str, store: bool) -> None:
        assert self._disk is not None
        actor: Any = BareJob.options(name=name, namespace="bare").remote(self._disk.url if store else "")
        await actor.run.remote()
        await actor.wait.remote()
        ray.kill(actor)


app = Peer.bind()  # type: ignore[attr-defined]
