"""The fault-injecting server in a process of its own, for tests and benchmarks that must not share its event loop."""

import json
import selectors
import subprocess
import sys
from typing import Any, Self, cast

import requests

from tts_actors.testing.calls import CallRecord
from tts_actors.testing.faults import Faults

START_SECONDS = 30.0
STOP_SECONDS = 5.0
CONTROL_SECONDS = 10.0


class FakeBackendProcess:
    """``with FakeBackendProcess(Faults(delay_ms=200)) as backend: ... backend.url``.

    The process ends with the block, and also when this process dies without leaving it. ``RuntimeError`` if it
    does not start within 30 seconds.
    """

    def __init__(self, faults: Faults | None = None, *, port: int = 0) -> None:
        self._faults = faults or Faults()
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._control = requests.Session()
        self._control.trust_env = False  # a proxy must not come between us and 127.0.0.1
        self.url = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the process; returns when it serves."""
        command = [sys.executable, "-m", "tts_actors.testing.fake_backend", "--exit-with-stdin"]
        command += ["--port", str(self._port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        try:
            self.url = json.loads(self._first_line())["url"]
            self.set_faults(**self._faults.model_dump(mode="json"))
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def pid(self) -> int:
        """The server's process id; ``RuntimeError`` if it was not started."""
        return self._running().pid

    def calls(self) -> list[CallRecord]:
        """All calls so far, oldest first."""
        return cast(list[CallRecord], self._ask("GET", "calls").json())

    def clear_calls(self) -> None:
        """Forget the calls so far."""
        self._ask("DELETE", "calls")

    def stats(self) -> dict[str, Any]:
        """``calls``, ``in_flight``, ``max_in_flight``, ``completed``, ``client_gone``, ``polls``."""
        return cast(dict[str, Any], self._ask("GET", "stats").json())

    def set_faults(self, **changes: Any) -> None:
        """Change the named fields of :class:`Faults`; ``ValueError`` if the server refuses them."""
        self._ask("POST", "faults", changes)

    def reset_faults(self) -> None:
        """A fast server without faults again."""
        self._ask("DELETE", "faults")

    def stop(self) -> None:
        """End the process and wait for it. Does nothing if it is not running."""
        process, self._process = self._process, None
        self._control.close()
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _ask(self, method: str, what: str, document: Any = None) -> requests.Response:
        url = f"{self.url}/_control/{what}"
        reply = self._control.request(method, url, json=document, timeout=CONTROL_SECONDS)
        if not reply.ok:
            raise ValueError(f"{method} /_control/{what}: {reply.status_code} {reply.text}")
        return reply

    def _first_line(self) -> bytes:
        output = self._running().stdout
        assert output is not None  # noqa: S101 - a pipe was asked for
        with selectors.DefaultSelector() as selector:  # (select itself takes no descriptor above 1,023)
            selector.register(output, selectors.EVENT_READ)
            if not selector.select(START_SECONDS):
                raise RuntimeError(f"the fake backend did not start within {START_SECONDS:.0f} s")
        line = output.readline()
        if not line:
            raise RuntimeError("the fake backend ended before it served: its standard error says why")
        return line

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError("the fake backend is not running")
        return self._process
