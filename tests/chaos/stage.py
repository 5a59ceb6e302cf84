"""The service under attack: how it is started, looked into from outside, and hit."""

import contextlib
import itertools
import os
import re
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.integration import service as services
from tts_actors.testing import FakeBackendProcess

WAIT_SECONDS = 90.0
"""For anything that has to come true in another process; far longer than it should take."""

_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]


def story(number: int, sentences: int, last: str = "") -> str:
    """A text of so many different sentences; each has a name of its own, so that the call log tells them apart."""
    names = itertools.product(_SYLLABLES, repeat=2)
    return "".join(
        f"The keeper {_SYLLABLES[number]}{''.join(name)} {last if index == sentences - 1 else ''}lit the lamp. "
        for index, name in enumerate(itertools.islice(names, sentences))
    ).strip()


def until(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS, pause: float = 0.01) -> None:
    """Wait for something in another process."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise AssertionError(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(pause)


@dataclass(frozen=True)
class Row:
    """What the store says about a job."""

    id: str
    state: str
    epoch: int
    version: int
    chunks_completed: int
    deadline_at_ms: int
    orchestrator_timeout_ms: int
    job_timeout_ms: int

    @property
    def promised(self) -> tuple[int, int, int]:
        """The bounds in the first answer: no crash moves them."""
        return self.deadline_at_ms, self.orchestrator_timeout_ms, self.job_timeout_ms


class Door:
    """What can be asked of a service from outside, wherever it runs, and of its fault server."""

    def __init__(self, backend: FakeBackendProcess) -> None:
        self.backend = backend
        self.port = services.free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """Whether the service would be sent work now."""
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.url}/readyz", timeout=6).status_code == 200
        return False

    def create(self, text: str, job_id: str | None = None) -> str:
        """A job, by an id of the test's if one is given (it has no warm actor then)."""
        link = f"{self.url}/v1/audio/speech/jobs"
        body = {"model": "fake-tts", "input": text}
        if job_id is None:
            answer = requests.post(link, json=body, timeout=60)
        else:
            answer = requests.put(f"{link}/{job_id}", json=body, timeout=60)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def audio(self, job_id: str) -> bytes:
        answer = requests.get(f"{self.url}/v1/audio/speech/jobs/{job_id}/audio?format=wav", timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.content

    def calls(self) -> Counter[str]:
        """How often the backend was asked for each sentence, by the keeper's name in it."""
        return Counter(_keeper(call["text"] or "") for call in self.backend.calls())

    def rows(self, job_ids: list[str] | None = None) -> list[Row]:
        """The jobs' rows in the order of the ids; without ids all rows of jobs that have not ended."""
        raise NotImplementedError

    def clips(self, job_ids: list[str]) -> set[tuple[str, int]]:
        """Job and chunk of every clip that is stored now."""
        raise NotImplementedError


class Stage(Door):
    """One service on this machine with its fault server. ``url`` stays the same over restarts."""

    def __init__(self, folder: Path, backend: FakeBackendProcess) -> None:
        super().__init__(backend)
        self.folder = folder
        self._process: Any = None
        self._family: list[psutil.Process] = []

    # -- the service ------------------------------------------------------------------------

    def start(self, *, grace_seconds: float = 1) -> None:
        """Start the service; returns when it says that it is ready."""
        document = services.config_with(self.backend.url)
        document["applications"] = document["applications"][:1]  # the embedded engine is not needed
        args = document["applications"][0]["args"]
        args["backends"] = args["backends"][1:]
        # Deadlines with room for a restart of the whole service on a busy machine.
        args["timeouts"] = {"base_ms": 20_000, "backend_cap_ms": 30_000, "margin_ms": 0, "cap_ms": 30_000}
        self._process = services.start(self.folder, document, self.port, grace_seconds=grace_seconds)

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to the runner alone."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Until the runner has ended by itself; returns its exit code."""
        return int(self._process.wait(WAIT_SECONDS))

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill_all(self) -> int:
        """``kill -9`` of every process of the service, those whose parent died before included."""
        family = {*self.family(), *self._family}
        killed = sum(_kill(process) for process in family)
        psutil.wait_procs(family, timeout=30)
        services.kill(self._process)
        return killed

    def family(self) -> list[psutil.Process]:
        """All processes of the service."""
        try:
            runner = psutil.Process(self._process.pid)
            return [runner, *runner.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def processes(self, title: str) -> list[psutil.Process]:
        """Those whose name or title begins with ``title``."""
        return [process for process in self.family() if title_of(process).startswith(title)]

    def kill(self, *titles: str) -> int:
        """``kill -9`` of all processes with one of the titles; how many there were."""
        self._family = self.family()  # who is orphaned by this can still be found
        return sum(_kill(process) for title in titles for process in self.processes(title))

    @contextlib.contextmanager
    def halted(self, *titles: str) -> Iterator[None]:
        """The processes stand still inside the block."""
        found = [process for title in titles for process in self.processes(title)]
        assert found, f"no process called {titles}"
        for process in found:
            process.suspend()
        try:
            yield
        finally:
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    # -- the store, read and locked from outside --------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.folder / "jobs.db", timeout=60, isolation_level=None)
        connection.row_factory = sqlite3.Row
        return connection

    def rows(self, job_ids: list[str] | None = None) -> list[Row]:
        names = ", ".join(Row.__dataclass_fields__)
        with contextlib.closing(self._connect()) as connection:
            if job_ids is None:
                where = "state in ('queued', 'in_progress')"
                return [Row(**row) for row in connection.execute(f"select {names} from jobs where {where}")]  # noqa: S608
            query = f"select {names} from jobs where id = ?"  # noqa: S608
            return [Row(**row) for job_id in job_ids for row in connection.execute(query, (job_id,))]

    def ids(self) -> set[str]:
        """The ids of all jobs."""
        with contextlib.closing(self._connect()) as connection:
            return {row["id"] for row in connection.execute("select id from jobs")}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else can write to the job store inside the block; reading goes on."""
        with contextlib.closing(self._connect()) as connection:
            connection.execute("begin immediate")
            try:
                yield
            finally:
                connection.execute("rollback")

    def clips(self, job_ids: list[str]) -> set[tuple[str, int]]:
        found = set()
        for job_id in job_ids:
            with contextlib.suppress(FileNotFoundError):
                names = os.listdir(self.folder / "clips" / job_id / "clips")
                found |= {(job_id, int(name[:6])) for name in names if name.endswith(".wav")}
        return found


def keepers(text: str) -> list[str]:
    """The names in a story, one a chunk."""
    return re.findall(r"keeper (\w+)", text)


def _keeper(text: str) -> str:
    found = re.search(r"keeper (\w+)", text)
    return found[1] if found else text


def title_of(process: psutil.Process) -> str:
    """What the process calls itself."""
    with contextlib.suppress(psutil.Error):
        return process.name() if process.name() in ("raylet", "gcs_server") else " ".join(process.cmdline())
    return ""


def _kill(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)
        return True
    return False
