"""Runs the service on this machine in the foreground: what ``make serve`` starts.

It fills ``{PORT}`` and ``{DATA}`` into the YAML, starts a Ray of its own (it never joins one that is already running),
hands the YAML to Serve, says when the service is ready, and on Ctrl-C or SIGTERM drains it and takes everything down.
"""

import _thread
import functools
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import ray
import requests
import typer
import yaml
from pydantic import ValidationError
from ray import serve
from ray.serve.scripts import run as serve_run

from deployments.environment import RAY_DEFAULTS
from deployments.keys import check_exposure
from tts_actors.cluster.gateway import stop_directory
from tts_actors.config import AuthArgs
from tts_actors.errors import ConfigError

START_SECONDS = 180.0
"""Longest start that still counts as one: a cold machine needs about 30 s."""

OBJECT_STORE_BYTES = 256 * 2**20
"""Ray's shared memory. Only HTTP bodies on their way between processes lie there (audio goes to the clip store); by
default Ray takes 30 % of the machine and touches all of it before it uses anything twice."""


def main(
    config: Annotated[Path, typer.Option(exists=True, dir_okay=False)] = Path("serve_config.yaml"),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    data: Path = Path("data"),
    metrics_port: Annotated[int | None, typer.Option(min=1, max=65535)] = None,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that running jobs have to end after Ctrl-C.")] = 3.0,
) -> None:
    """Serve CONFIG on 127.0.0.1:PORT with its data in DATA until Ctrl-C."""
    document = filled_config(config.read_text(), port=port, data=data)
    http = document["http_options"]
    _check_port_free(http["host"], http["port"])
    for name, value in RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    # A secret between this service and the engine that it starts: nobody else may use the engine.
    os.environ.setdefault("TTS_ENGINE_KEY", secrets.token_urlsafe(32))
    _check_exposure(document, http["host"])
    watcher = _Watcher(f"http://{http['host']}:{http['port']}")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as filled:
        yaml.safe_dump(document, filled)
        filled.flush()
        ray.init(
            address="local",
            include_dashboard=False,
            namespace="serve",
            logging_level=logging.WARNING,
            object_store_memory=OBJECT_STORE_BYTES,
            _metrics_export_port=metrics_port,
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            # After Ray, which sets its own; and a shell may have started us with SIGINT ignored.
            signal.signal(number, functools.partial(_interrupt, grace))
        watcher.start()
        try:
            serve_run.main([filled.name], standalone_mode=False)
        except (KeyboardInterrupt, SystemExit):
            serve.shutdown()  # type: ignore[no-untyped-call] # a no-op if Serve's own handler came first
        finally:
            watcher.stop()
            ray.shutdown()
    if watcher.failure:
        sys.exit(1)


def filled_config(text: str, *, port: int, data: Path) -> dict[str, Any]:
    """The YAML as a document with placeholders filled and the HTTP address set: loopback unless it says otherwise."""
    text = text.replace("{PORT}", str(port)).replace("{DATA}", str(data.resolve()))
    document = yaml.safe_load(text)
    if not isinstance(document, dict):
        raise typer.BadParameter("the configuration is not a YAML mapping")
    http = document.setdefault("http_options", {})
    http.setdefault("host", "127.0.0.1")
    http["port"] = port
    return document


def _check_port_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            sys.exit(f"error: port {port} on {host} is taken ({error.strerror}); choose another with PORT=")


def _check_exposure(document: dict[str, Any], host: str) -> None:
    """Refuse what the deployment would refuse, before anything starts."""
    for application in document.get("applications", []):
        auth = (application.get("args") or {}).get("auth") or {}
        if application.get("import_path") == "deployments.app:build_app":
            try:
                check_exposure(AuthArgs.model_validate(auth), host, os.environ)
            except ValidationError:
                return  # the deployment names the field
            except ConfigError as error:
                sys.exit(f"error: {error}")


def _interrupt(grace_seconds: float, _signal: int, _frame: Any) -> None:
    """Drain first: jobs end or are put back while all they need is there. Serve takes its speech engine down before
    anything else. A second signal ends the waiting.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _hurry)
    stop_directory(grace_seconds)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _hurry(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


class _Watcher(threading.Thread):
    """Says when the service is ready; ends the process if an application cannot be deployed."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._stopped = threading.Event()
        self.failure = ""

    def run(self) -> None:
        give_up = time.monotonic() + START_SECONDS
        while not self._stopped.wait(0.2) and not self.failure:
            if self._ready():
                print(f"ready at {self._url} (API at {self._url}/docs); Ctrl-C stops it", flush=True)  # noqa: T201
                return
            if time.monotonic() > give_up:
                self.failure = f"not ready within {START_SECONDS:.0f} s"
            for name, application in serve.status().applications.items():
                if application.status == "DEPLOY_FAILED":
                    self.failure = f"application {name!r} cannot be deployed: {application.message}"
        if self.failure:
            print(f"error: {self.failure}", file=sys.stderr, flush=True)  # noqa: T201
            _thread.interrupt_main()

    def stop(self) -> None:
        """End the watching; no call into Ray is left running when this returns."""
        self._stopped.set()
        if self is not threading.current_thread():
            self.join(timeout=10)

    def _ready(self) -> bool:
        try:
            return requests.get(f"{self._url}/readyz", timeout=6).status_code == 200
        except requests.RequestException:
            return False


if __name__ == "__main__":
    typer.run(main)
