"""Starts what is measured: the service and the stub speech server, each in processes of their own."""

import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.harness import ROOT
from benchmarks.processes import cpu_seconds, kill_family
from tts_actors.testing import FakeBackendProcess, Faults

START_SECONDS = 180.0
CONCURRENCY = 64
CLIP_MS = 1_000
USUAL: dict[str, Any] = {"delay_ms": 200, "fixed_audio_ms": CLIP_MS, "always": None}
"""What the stub does at the beginning of a measurement."""

SENTENCE = "This is one of the sentences of the text. "
REFILL_SECONDS = 1.3
"""A little longer than the directory waits before it starts an actor for the one that a job has taken."""

REFILL_TWO_SECONDS = 3.0
"""The same for two: it waits again between them, and is quiet meanwhile."""

LOOK_SECONDS = 0.4
QUIET = 0.45
"""Of one core: less than a starting actor needs, more than an idle service (0.1 to 0.25)."""

MOST_SECONDS = 15.0

PEER = {"name": "peer", "route_prefix": "/peer", "import_path": "benchmarks.peers.empty_app:app"}


@dataclass
class Stage:
    """A running service with the stub behind it and the empty deployment (``peer``) beside it, in the same Serve."""

    url: str
    pid: int
    folder: Path
    session: aiohttp.ClientSession
    backend: FakeBackendProcess

    @property
    def peer(self) -> str:
        return f"{self.url}/peer"

    async def get(self, url: str) -> bytes:
        """The body of a 200."""
        async with self.session.get(url if url.startswith("http") else self.url + url) as response:
            body = await response.read()
            assert response.status == 200, (response.status, body[:300])
            return body

    async def post(self, url: str, body: Any) -> Any:
        """The JSON of a 2xx."""
        async with self.session.post(url if url.startswith("http") else self.url + url, json=body) as response:
            assert response.ok, (response.status, await response.text())
            return await response.json()

    async def open_peer(self) -> None:
        """Have the peer open what it needs to do more than nothing."""
        await self.post(f"{self.peer}/open?folder={self.folder.parent / 'peer'}", {})

    async def start_job(self, text: str, **fields: Any) -> str:
        """Path of a new job."""
        body = {"model": "stub", "input": text, "chunking": {"mode": "sentence"}, **fields}
        answer = await self.post("/v1/audio/speech/jobs", body)
        return str(answer["links"]["self"])

    async def finished(self, job: str) -> dict[str, Any]:
        """The job when it is completed."""
        while True:
            async with self.session.get(f"{self.url}{job}?wait=60") as response:
                answer = await response.json()
            if answer["status"] not in ("queued", "in_progress"):
                assert answer["status"] == "completed", answer
                return dict(answer)

    async def rest(self, refill_seconds: float = REFILL_SECONDS) -> None:
        """Until warm actors are there again: seen by the service's processes having nothing to do."""
        await rest(self.pid, refill_seconds)


async def rest(pid: int, refill_seconds: float = REFILL_SECONDS) -> None:
    """Until the service's processes have nothing to do; it starts actors for the next jobs when a job is over."""
    give_up = time.monotonic() + MOST_SECONDS
    await asyncio.sleep(refill_seconds)
    used, before = LOOK_SECONDS, sum(cpu_seconds(pid).values())
    while used > LOOK_SECONDS * QUIET and time.monotonic() < give_up:
        await asyncio.sleep(LOOK_SECONDS)
        now = sum(cpu_seconds(pid).values())
        used, before = now - before, now


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stub_config(backend_url: str, *, concurrency: int = CONCURRENCY) -> dict[str, Any]:
    """``serve_config.yaml`` with one stub backend of so many calls at once, and the empty deployment."""
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text().replace("{PORT}", "0"))
    service, _engine = document["applications"]
    service["args"] |= {
        "backends": [
            {
                "name": "stub",
                "protocol": "openai",
                "url": f"{backend_url}/v1",
                "model": "stub",
                "voices": {"default": "tone"},
                "max_concurrency": concurrency,
                "max_characters": 400,
            }
        ],
        "limits": {"max_queued_jobs": 100_000},  # thousands are accepted while none ends
        # HAProxy listens on all interfaces: the harness runs it where loopback is the only one.
        "auth": {"allow_open_network": True},
    }
    document["applications"] = [service, PEER]
    return dict(document)


def engine_config() -> dict[str, Any]:
    """``serve_config.yaml`` as it is, but that HAProxy may listen where loopback is the only interface."""
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    document["applications"][0]["args"]["auth"] = {"allow_open_network": True}
    return dict(document)


@asynccontextmanager
async def stub_stage() -> AsyncIterator[Stage]:
    """The service on a stub that takes 200 ms a call and gives clips of one second (48 kB)."""
    faults = Faults(**USUAL, log_text=False)
    with FakeBackendProcess(faults) as backend, running(stub_config(backend.url)) as (url, pid, folder):
        async with open_session() as session:
            stage = Stage(url, pid, folder, session, backend)
            await stage.finished(await stage.start_job(SENTENCE * 40))
            await stage.rest()
            yield stage


def open_session() -> aiohttp.ClientSession:
    """A client without limits of its own."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=600))


@contextmanager
def running(document: dict[str, Any] | None = None) -> Iterator[tuple[str, int, Path]]:
    """URL, pid and data folder of a service that is killed with the block; None: on ``serve_config.yaml`` as it is."""
    port = free_port()
    text = (ROOT / "serve_config.yaml").read_text() if document is None else yaml.safe_dump(document)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        config, log_path = folder / "config.yaml", folder / "log"
        config.write_text(text)
        command = [sys.executable, "-m", "deployments.runner", "--config", str(config)]
        command += ["--port", str(port), "--data", str(folder / "data")]
        with log_path.open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_ready(process, log_path)
            yield f"http://127.0.0.1:{port}", process.pid, folder / "data"
        finally:
            kill_family(process.pid)  # at once: an orderly stop takes ten seconds, with HAProxy a minute
            process.wait()


def _wait_ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up = time.monotonic() + START_SECONDS
    while "ready at" not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"the service did not start:\n{log.read_text(errors='replace')[-3_000:]}")
        time.sleep(0.1)
