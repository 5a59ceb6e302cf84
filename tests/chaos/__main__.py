"""``python -m tests.chaos [ROW ...]``: the named faults, or all of them; one line each, exit code 1 if any fails.

``python -m tests.chaos nodes [ROW ...]`` is the table of a cluster of several nodes.
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "token")

from tests.chaos import nodes
from tests.chaos.faults import FAULTS
from tests.chaos.stage import Stage
from tests.chaos.trial import HEAD, Report, Undisturbed, run
from tts_actors.testing import FakeBackendProcess


def main(names: list[str]) -> int:
    """Run the faults on one service; returns the exit code."""
    if names and names[0] == "nodes":
        return nodes.main(names[1:])
    if unknown := [name for name in names if name not in FAULTS]:
        print(f"error: no fault {unknown[0]!r}; there are: {', '.join(FAULTS)}, nodes", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no service behind
    failed, started = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, FakeBackendProcess() as backend:
        stage = Stage(Path(folder), backend)
        undisturbed = Undisturbed(stage)
        stage.start()
        try:
            print(HEAD, flush=True)
            for name in names or FAULTS:
                report = _attempt(name, stage, undisturbed)
                failed += bool(report.problems)
                print(report, flush=True)
        finally:
            stage.kill_all()
    print(f"{failed} failed; {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


def _attempt(name: str, stage: Stage, undisturbed: Undisturbed) -> Report:
    try:
        return run(name, FAULTS[name], stage, undisturbed)
    except Exception as error:  # noqa: BLE001 - one fault that could not be staged must not hide the others
        stage.kill_all()
        stage.start()
        return Report(name, problems=[f"{type(error).__name__}: {error}"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
