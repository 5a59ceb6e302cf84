"""What Ray keeps of named actors that have ended, in the process that made and called them: no code of the service."""

import asyncio

from benchmarks.harness import Report
from benchmarks.many_jobs import AT_ONCE, look
from benchmarks.service import Stage

WARM_ACTORS, ACTORS = 24, 240


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    await _made(stage, report.count(WARM_ACTORS, quick=8))
    before = look(stage.pid)
    actors = report.count(ACTORS, quick=16)
    await _made(stage, actors)
    after = look(stage.pid)
    more = after.memory_mb["peer"] - before.memory_mb["peer"]
    report.row(f"memory more after {actors} bare actors: who made them", more, " MB")
    report.row("for each actor", 1_024 * more / actors, " kB")
    report.row("open files more: who made them", after.files["peer"] - before.files["peer"])


async def _made(stage: Stage, count: int) -> None:
    """So many actors made, called and ended by the empty deployment's replica."""
    await stage.post(f"{stage.peer}/actors?count={count}&at_once={AT_ONCE}", {})
    await asyncio.sleep(5.0)  # the processes end
