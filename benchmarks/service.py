"""Starts what is measured: the service in a process of its own, on a configuration made for the measurement."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

START_SECONDS = 180.0


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stub_config(backend_url: str, *, concurrency: int) -> dict[str, Any]:
    """A configuration with one stub backend that takes ``concurrency`` calls at once."""
    document = yaml.safe_load(Path("serve_config.yaml").read_text().replace("{PORT}", "0"))
    service, _engine = document["applications"]
    service["args"]["backends"] = [
        {
            "name": "stub",
            "protocol": "openai",
            "url": f"{backend_url}/v1",
            "model": "stub",
            "voices": {"default": "tone"},
            "max_concurrency": concurrency,
            "max_characters": 400,
        }
    ]
    # HAProxy listens on all interfaces: ``--haproxy`` puts the whole measurement where loopback is the only one.
    service["args"]["auth"] = {"allow_open_network": True}
    document["applications"] = [service]
    return dict(document)


@contextmanager
def running(document: dict[str, Any] | None = None, **environment: str) -> Iterator[tuple[str, int]]:
    """``(url, pid)`` of a running service; None: on ``serve_config.yaml`` as it is. It stops with the block."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(Path("serve_config.yaml").read_text() if document is None else yaml.safe_dump(document))
        command = [sys.executable, "-m", "deployments.runner", "--config", str(config)]
        command += ["--port", str(port), "--data", str(Path(folder, "data"))]
        log_path = Path(folder, "log")
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | environment, start_new_session=True
            )
        try:
            _wait_ready(process, log_path)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise


def _wait_ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up = time.monotonic() + START_SECONDS
    while "ready at" not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"the service did not start:\n{log.read_text(errors='replace')[-3_000:]}")
        time.sleep(0.1)
