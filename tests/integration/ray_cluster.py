"""A real Ray cluster of several nodes on this machine, with PostgreSQL and S3, and the service deployed on it.

Every node is what an operator types, ``ray start --block``, with processes, folder and loopback address of its own. The
head lends out no CPUs. (At 127.0.0.1 itself Ray would take the machine's outer address instead.)
"""

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import obstore
import psutil
import requests
import yaml
from obstore.store import S3Store

from deployments.environment import RAY_DEFAULTS
from tests.chaos.stage import Door, Row, title_of, until
from tests.integration.service import ROOT, free_port
from tests.unit.stores.servers import BUCKET, Postgres, running_postgres, running_s3, s3_environment
from tts_actors.testing import FakeBackendProcess

NODE_SECONDS, NODE_TRIES = 90.0, 3
DEPLOY_SECONDS = 180.0
AGENT_PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
)
"""All given: a raylet waits 15 s for ports that its agent chooses, and then ends; a busy machine needs longer."""

OBJECT_STORE_BYTES = 100 * 2**20
WORKERS = "ray::_synthesize_slice"


class DeployFailed(Exception):
    """Serve refused the configuration; the message is Serve's."""


@dataclass(eq=False)
class Node:
    """One node: the ``ray start`` in the foreground and everything below it."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    @property
    def started(self) -> bool:
        """Whether it has joined the cluster."""
        return "Ray runtime started" in self.log()

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def log(self) -> str:
        """What ``ray start`` has said."""
        return (self.folder / "log").read_text(errors="replace")

    def family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        return []

    def running(self, title: str) -> list[psutil.Process]:
        """Its processes whose title begins so."""
        return [process for process in self.family() if title_of(process).startswith(title)]

    def signal(self, number: signal.Signals) -> int:
        """Send a signal to all its processes at once; how many there were."""
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return len(family)

    def lose(self) -> None:
        """``kill -9`` of all its processes: the machine is gone, nobody is told."""
        family = self.family()
        self.signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=30)
        self.process.wait()


def _wait_for(node: Node) -> None:
    until(lambda: node.started or node.ended, "a node is up", NODE_SECONDS)


class Cluster(Door):
    """A cluster and the service on it. Nothing runs before :meth:`start`, nothing is deployed before :meth:`deploy`."""

    def __init__(
        self, folder: Path, backend: FakeBackendProcess, postgres: Postgres, environment: dict[str, str]
    ) -> None:
        super().__init__(backend)
        self.folder = folder
        self.environment = environment
        self.workers: list[Node] = []
        self._head: Node | None = None
        self._addresses = itertools.count(2)
        self._postgres = postgres
        self._database = postgres.new_database()
        self._gcs = self._dashboard = ""
        environment["TTS_STORE_URL"] = postgres.url(self._database)

    # -- nodes ------------------------------------------------------------------------------

    def add_worker(self, cpus: int = 1) -> Node:
        """Start one more worker; it has joined when the next :meth:`fill` returns."""
        node = self._start_node("worker", f"--address={self._gcs}", f"--num-cpus={cpus}")
        self.workers.append(node)
        return node

    def lose(self, node: Node) -> None:
        """Take a worker away, not gracefully."""
        self.workers.remove(node)
        node.lose()

    def fill(self, count: int) -> None:
        """Start workers until so many have joined. (Ray ends a start after 30 s, and a busy machine may need more.)"""
        for _ in range(NODE_TRIES):
            for _ in range(count - len(self.workers)):
                self.add_worker()
            for node in list(self.workers):
                _wait_for(node)
                if node.ended:
                    self.lose(node)
            if len(self.workers) == count:
                return
        raise AssertionError(f"{count} workers do not start: {node.log()}")

    def _start_node(self, name: str, *options: str) -> Node:
        folder = self.folder / f"{name}{free_port()}"  # short: a socket's path is limited to 107 bytes
        folder.mkdir()
        address = f"127.0.0.{next(self._addresses)}"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={address}"]
        command += [f"--temp-dir={folder}", f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats"]
        command += [f"--{name}={free_port()}" for name in AGENT_PORTS]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, *options], env=self.environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        return Node(process, folder)

    def start(self, workers: int) -> None:
        """The head, then all workers at once."""
        port, dashboard = free_port(), free_port()
        self._gcs, self._dashboard = f"127.0.0.2:{port}", f"http://127.0.0.1:{dashboard}"
        head = ["--head", f"--port={port}", "--num-cpus=0", f"--dashboard-port={dashboard}"]
        self._head = self._start_node("head", *head, f"--ray-client-server-port={free_port()}")
        _wait_for(self._head)
        assert not self._head.ended, self._head.log()
        self.fill(workers)

    def stop(self) -> None:
        """End every process of the cluster."""
        for node in [*self.workers, *([self._head] if self._head else [])]:
            node.lose()

    def places(self, job_ids: list[str]) -> dict[str, Node]:
        """On which worker each job's actor is, as Ray says and the processes confirm."""
        homes = {process.pid: node for node in self.workers for process in node.family()}
        return {job_id: homes[pid] for job_id, pid in self.actors(job_ids).items() if pid in homes}

    def actors(self, job_ids: list[str]) -> dict[str, int]:
        """The process of each job's actor, as Ray says."""
        actors = self._ask("GET", "v0/actors?limit=10000").json()["data"]["result"]["result"]
        pids = {actor["name"]: actor["pid"] for actor in actors if actor["state"] == "ALIVE"}
        return {job_id: pids[job_id] for job_id in job_ids if job_id in pids}

    def at_work(self) -> list[Node]:
        """The nodes on which chunks are being spoken, the head included."""
        nodes = [*self.workers, *([self._head] if self._head else [])]
        return [node for node in nodes if node.running(WORKERS)]

    # -- deployment -------------------------------------------------------------------------

    def config(self, **args: Any) -> dict[str, Any]:
        """``serve_config.yaml`` as docs/operations.md has it for a cluster, on the fault-injecting server."""
        document: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
        document["http_options"]["port"] = self.port
        document["applications"] = document["applications"][:1]
        (application,) = document["applications"]
        application["args"] = {
            "store_url": "{env:TTS_STORE_URL}",
            "clip_url": "{env:TTS_CLIP_URL}",
            "backends": [
                {
                    "name": "fake",
                    "protocol": "openai",
                    "url": f"{self.backend.url}/v1",
                    "model": "fake-tts",
                    "voices": {"default": "tone"},
                    "max_concurrency": 12,
                    "min_concurrency": 12,
                }
            ],
            "timeouts": {"base_ms": 20_000, "backend_cap_ms": 30_000, "margin_ms": 0, "cap_ms": 30_000},
            "limits": {"spare_actors": 1},
        } | args
        (ingress,) = application["deployments"]
        ingress |= {"num_replicas": 2, "max_replicas_per_node": 1, "ray_actor_options": {"num_cpus": 0.5}}
        return document

    def deploy(self, document: dict[str, Any], *, typed: bool = False) -> float:
        """Have Serve take the document, by the command ``serve deploy`` or, quicker, by the request that it sends.

        Returns once all of it runs, with the seconds since then. :class:`DeployFailed` if Serve refuses it.
        """
        if typed:
            path = self.folder / "deployed.yaml"
            path.write_text(yaml.safe_dump(document))
            command = [sys.executable, "-m", "ray.serve.scripts", "deploy", str(path), "--address", self._dashboard]
            subprocess.run(command, env=self.environment, cwd=self.folder, capture_output=True, check=True)
        else:
            self._ask("PUT", "serve/applications/", document)
        began = time.monotonic()
        until(lambda: self._deployed() and self.ready(), "the service is deployed", DEPLOY_SECONDS)
        return time.monotonic() - began

    def _deployed(self) -> bool:
        applications = self._ask("GET", "serve/applications/").json()["applications"]
        for application in applications.values():
            if application["status"] == "DEPLOY_FAILED":
                raise DeployFailed(application["message"])
        return bool(applications) and all(a["status"] == "RUNNING" for a in applications.values())

    def _ask(self, method: str, what: str, document: Any = None) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        answer = requests.request(method, f"{self._dashboard}/api/{what}", json=document, headers=headers, timeout=60)
        answer.raise_for_status()
        return answer

    # -- stores, looked into from outside ----------------------------------------------------

    def rows(self, job_ids: list[str] | None = None) -> list[Row]:
        names = ", ".join(Row.__dataclass_fields__)
        query = f"select {names} from jobs where "  # noqa: S608
        if job_ids is None:
            return self._read(query + "state in ('queued', 'in_progress')")
        found = {row.id: row for row in self._read(query + "id = any($1)", job_ids)}
        return [found[job_id] for job_id in job_ids]

    def _read(self, query: str, *arguments: Any) -> list[Row]:
        async def read() -> list[Row]:
            connection = await asyncpg.connect(
                host=str(self._postgres.directory), user="postgres", database=self._database
            )
            try:
                return [Row(**row) for row in await connection.fetch(query, *arguments)]
            finally:
                await connection.close()

        return asyncio.run(read())

    def clips(self, job_ids: list[str]) -> set[tuple[str, int]]:
        store = S3Store(
            BUCKET,
            endpoint=self.environment["AWS_ENDPOINT"],
            access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region=self.environment["AWS_REGION"],
            client_options={"allow_http": True},
        )
        prefix = self.environment["TTS_CLIP_URL"].removeprefix(f"s3://{BUCKET}/")
        found = set()
        for job_id in job_ids:
            for page in obstore.list(store, prefix=f"{prefix}/{job_id}/clips"):
                names = [Path(entry["path"]).name for entry in page]
                found |= {(job_id, int(name[:6])) for name in names if name.endswith(".wav")}
        return found


@contextmanager
def running_cluster(workers: int) -> Iterator[Cluster]:
    """A cluster with a head and so many workers, and nothing deployed yet; all of it ends with the block."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line a request otherwise
    folder = Path(tempfile.mkdtemp(prefix="ttsray"))
    try:
        with FakeBackendProcess() as backend, running_postgres() as postgres, running_s3() as s3_port:
            environment = os.environ | RAY_DEFAULTS | s3_environment(s3_port)
            environment |= {
                "PYTHONPATH": str(ROOT),
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": secrets.token_hex(32),
                "TTS_CLIP_URL": f"s3://{BUCKET}/cluster",
            }
            cluster = Cluster(folder, backend, postgres, environment)
            try:
                cluster.start(workers)
                yield cluster
            finally:
                cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
