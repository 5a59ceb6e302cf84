"""One real service for the whole session: ``deployments.runner`` on the repository's YAML, in a process of its own.

The YAML is the one users run, with one more backend: the fault-injecting server in yet another process. The Ray that
the service starts is joined by the test process as a driver, to look at actors.
"""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

from tts_actors.testing import FakeBackendProcess

START_SECONDS = 180
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def config_with(backend_url: str) -> dict[str, Any]:
    """``serve_config.yaml`` with the fault server beside the embedded engine and short times, so that tests end."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    args = document["applications"][0]["args"]
    args["backends"].append(
        {
            "name": "fake",
            "protocol": "openai",
            "url": f"{backend_url}/v1",
            "model": "fake-tts",
            "voices": {"default": "tone"},
            "max_concurrency": 8,
            "min_concurrency": 8,  # the tests share one service: time-outs of one must not slow the next
        }
    )
    args["timeouts"] = {
        "base_ms": 3_000,
        "per_character_ms": 1,
        "backend_cap_ms": 4_000,
        "margin_ms": 0,
        "cap_ms": 4_000,
    }
    args["retry"] = {"max_attempts": 2, "base_ms": 10, "cap_ms": 50, "outage_ms": 0}
    args["retention"] = {"retire_after_seconds": 5}
    args["tracing"] = {"exporter": "file", "path": "{DATA}/traces.jsonl"}
    return document


class StartFailed(Exception):
    """The service ended, or was not ready in time; the message has the end of its log."""


@dataclass
class Service:
    """A running service. ``folder`` holds its data, log and configuration."""

    url: str
    port: int
    folder: Path
    backend: FakeBackendProcess
    process: "subprocess.Popen[bytes]"

    @property
    def log(self) -> str:
        """What every process of the service has logged: Ray's own files, for its forwarding to the console has gaps."""
        folder = Path(self.ray_option("--session_dir"), "logs")
        return "".join(path.read_text(errors="replace") for path in folder.glob("worker-*"))

    def ray_option(self, name: str) -> str:
        """An option that the service's raylet was started with."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            for argument in process.cmdline() if process.name() == "raylet" else []:
                if argument.startswith(f"{name}="):
                    return argument.partition("=")[2]
        raise AssertionError(f"no raylet with {name}")

    def processes(self, title: str) -> list[psutil.Process]:
        """Those of the service that have ``title`` in their own."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [process] if title in " ".join(process.cmdline()) else []
        return found

    def create(self, text: str, **fields: Any) -> dict[str, Any]:
        body = {"model": "fake-tts", "input": text, **fields}
        answer = requests.post(f"{self.url}/v1/audio/speech/jobs", json=body, timeout=30)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def job(self, job_id: str, wait: float = 0) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/v1/audio/speech/jobs/{job_id}", params={"wait": wait}, timeout=wait + 30)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def audio(self, job_id: str) -> bytes:
        return audio(self.url, job_id)


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for what another process brings about."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "the condition did not come true"
        time.sleep(0.05)


def audio(url: str, job_id: str) -> bytes:
    """The finished job's WAV file."""
    answer = requests.get(f"{url}/v1/audio/speech/jobs/{job_id}/audio", params={"format": "wav"}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.content


def start(folder: Path, document: dict[str, Any], port: int, *, grace_seconds: float = 1) -> "subprocess.Popen[bytes]":
    """Start the runner and wait until it says that it is ready; ``grace_seconds`` are its jobs' when it is stopped."""
    folder.mkdir(exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    log_path = folder / "log"
    with log_path.open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "deployments.runner",
                "--config",
                config,
                "--port",
                str(port),
                "--data",
                folder,
                "--grace",
                str(grace_seconds),
            ],
            stdout=log,
            stderr=log,
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        give_up = time.monotonic() + START_SECONDS
        while b"ready at" not in log_path.read_bytes()[begin:]:
            if process.poll() is not None or time.monotonic() > give_up:
                kill(process)
                raise StartFailed(f"the service did not start:\n{log_path.read_text(errors='replace')[-4_000:]}")
            time.sleep(0.1)  # a process that starts sets no event of ours
    except BaseException:  # an interrupted start leaves nothing behind either
        kill(process)
        raise
    return process


def stop(process: "subprocess.Popen[bytes]") -> int:
    """Ctrl-C; returns the exit code."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(90)
    finally:
        kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End the process and everything it started at once, as a power cut would."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        process.wait()  # it is gone, and the object must hear of it
        return
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=30)
    process.wait()


@contextmanager
def running(folder: Path, **args: Any) -> Iterator[Service]:
    """The service, with ``args`` besides the usual ones, and its fault server; both end with the block."""
    with FakeBackendProcess() as backend:
        port = free_port()
        document = config_with(backend.url)
        document["applications"][0]["args"] |= args
        process = start(folder, document, port)
        try:
            yield Service(f"http://127.0.0.1:{port}", port, folder, backend, process)
        finally:
            stop(process)
