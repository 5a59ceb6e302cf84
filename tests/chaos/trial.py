"""One trial: a fault is struck, jobs are watched to their end, and a line says what was lost."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tests.chaos.faults import Strike
from tests.chaos.stage import Door, keepers, until

Where = TypeVar("Where", bound=Door)

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

    def __init__(self, stage: Door) -> None:
        self._stage = stage
        self._audio: dict[str, bytes] = {}

    def audio(self, text: str) -> bytes:
        if text not in self._audio:
            self._stage.backend.reset_faults()
            job_id = self._stage.create(text)
            until(lambda: self._stage.rows([job_id])[0].state == "completed", "an undisturbed job is done")
            self._audio[text] = self._stage.audio(job_id)
        return self._audio[text]


def run(name: str, fault: Callable[[Where], Strike], stage: Where, undisturbed: Undisturbed) -> Report:
    """One fault from a healthy service to the verdict."""
    report, started = Report(name), time.monotonic()
    until(stage.ready, "the service is ready before the fault")
    until(lambda: not stage.rows(), "no job is left from the fault before")
    stage.backend.clear_calls()
    strike = fault(stage)
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
    _judge(report, strike.within_seconds)
    return report


def _watch(stage: Door, strike: Strike, report: Report) -> None:
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


def _count_calls(stage: Door, strike: Strike, report: Report) -> None:
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


def _judge(report: Report, within_seconds: float) -> None:
    if not report.kills:
        report.problems.append("nothing was killed")
    if report.lost:
        report.problems.append(f"{report.lost} jobs did not complete")
    if report.twice:
        report.problems.append("chunks with a stored clip were spoken again")
    if not report.lost and not report.equal:
        report.problems.append("the audio is not that of an undisturbed run")
    if not report.resumed_seconds <= within_seconds:
        report.problems.append(f"resumed later than {within_seconds:.0f} s")
