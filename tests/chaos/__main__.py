"""``python -m tests.chaos [ROW ...]``: the named faults, or all of them; one line each, exit code 1 if any fails."""

import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "token")

from tests.chaos.faults import FAULTS, Strike
from tests.chaos.stage import Stage, keepers, until
from tts_actors.testing import FakeBackendProcess

RESUME_SECONDS = 15.0
"""The promise: a job goes on within this time after what it needs is up."""

END_SECONDS = 90.0
HEAD = f"{'fault':<28}{'kills':>6}{'jobs':>6}{'lost':>6}{'twice':>7}{'again':>7}{'bytes':>8}{'resumed':>9}{'took':>7}"


@dataclass
class Report:
    """One line. ``twice``: chunks spoken again although their clip was stored. ``again``: calls that were running
    when the process died and were made again.
    """

    fault: str
    kills: int = 0
    jobs: int = 0
    lost: int = 0
    twice: int = 0
    again: int = 0
    equal: bool = False
    resumed_seconds: float = float("nan")
    took_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    note: str = ""

    def __str__(self) -> str:
        numbers = f"{self.kills:>6}{self.jobs:>6}{self.lost:>6}{self.twice:>7}{self.again:>7}"
        equal = "equal" if self.equal else "DIFFER"
        line = f"{self.fault:<28}{numbers}{equal:>8}{self.resumed_seconds:>7.1f} s{self.took_seconds:>5.0f} s"
        remarks = [f"FAILED: {problem}" for problem in self.problems] + ([self.note] if self.note else [])
        return "\n      ".join([line, *remarks])


class Undisturbed:
    """What a text's audio is when nobody kills anything; asked once a text, before the fault."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._audio: dict[str, bytes] = {}

    def audio(self, text: str) -> bytes:
        if text not in self._audio:
            self._stage.backend.reset_faults()
            job_id = self._stage.create(text)
            until(lambda: self._stage.rows([job_id])[0].state == "completed", "an undisturbed job is done")
            self._audio[text] = self._stage.audio(job_id)
        return self._audio[text]


def run(fault: str, stage: Stage, undisturbed: Undisturbed) -> Report:
    """One fault from a healthy service to the verdict."""
    report, started = Report(fault), time.monotonic()
    until(stage.ready, "the service is ready before the fault")
    stage.backend.clear_calls()
    strike = FAULTS[fault](stage)
    ids = list(strike.texts)
    report.kills, report.jobs, report.note, report.problems = strike.kills, len(ids), strike.note, strike.extra
    _watch(stage, strike, report)
    _count_calls(stage, strike, report)
    rows = stage.rows(ids)
    report.lost = sum(row.state != "completed" for row in rows) + len(ids) - len(rows)
    if not report.lost:
        report.equal = all(stage.audio(job_id) == undisturbed.audio(text) for job_id, text in strike.texts.items())
    if any(row.promised != earlier.promised for row, earlier in zip(rows, strike.before, strict=True)):
        report.problems.append("a deadline or a timeout moved")
    report.took_seconds = time.monotonic() - started
    _judge(report)
    return report


def _watch(stage: Stage, strike: Strike, report: Report) -> None:
    """Until every job has ended; notes when the last of them went on."""
    ids, waiting, resumed_at = list(strike.texts), set(strike.texts), strike.up_at
    give_up = time.monotonic() + END_SECONDS
    while time.monotonic() < give_up:
        rows = stage.rows(ids)
        for before, now in zip(strike.before, rows, strict=True):
            if now.id in waiting and (strike.resumed(before, now) or before.state == "completed"):
                waiting.remove(now.id)
                resumed_at = max(resumed_at, strike.resumed_at or time.monotonic())
        if all(row.state not in ("queued", "in_progress") for row in rows):
            break
        time.sleep(0.02)
    if waiting:
        report.problems.append(f"{len(waiting)} jobs did not go on")
    else:
        report.resumed_seconds = resumed_at - strike.up_at
    if left := stage.rows():
        report.problems.append(f"not ended: {[(row.id, row.state) for row in left]}")


def _count_calls(stage: Stage, strike: Strike, report: Report) -> None:
    calls = stage.calls()
    for job_id, text in strike.texts.items():
        for index, keeper in enumerate(keepers(text)):
            repeats = calls[keeper] - 1
            if repeats < 0:
                report.problems.append(f"chunk {index} was never spoken")
            elif (job_id, index) in strike.stored:
                report.twice += repeats
            else:
                report.again += repeats
                if repeats > strike.crashes:
                    report.problems.append(f"chunk {index}: {repeats} repeats, {strike.crashes} crashes")


def _judge(report: Report) -> None:
    if not report.kills:
        report.problems.append("nothing was killed")
    if report.lost:
        report.problems.append(f"{report.lost} jobs did not complete")
    if report.twice:
        report.problems.append("chunks with a stored clip were spoken again")
    if not report.lost and not report.equal:
        report.problems.append("the audio is not that of an undisturbed run")
    if not report.resumed_seconds <= RESUME_SECONDS:
        report.problems.append(f"resumed later than {RESUME_SECONDS:.0f} s")


def main(names: list[str]) -> int:
    """Run the faults on one service; returns the exit code."""
    if unknown := [name for name in names if name not in FAULTS]:
        print(f"error: no fault {unknown[0]!r}; there are: {', '.join(FAULTS)}", file=sys.stderr)
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
        return run(name, stage, undisturbed)
    except Exception as error:  # noqa: BLE001 - one fault that could not be staged must not hide the others
        stage.kill_all()
        stage.start()
        return Report(name, problems=[f"{type(error).__name__}: {error}"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
