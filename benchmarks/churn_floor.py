"""The floor of small jobs: bare Ray's actors again, each with the one task, the one commit and the calls of a job."""

from benchmarks.churn import AT_ONCE, bare_rate
from benchmarks.harness import Report, ratios, rounds
from benchmarks.service import Stage

COUNT = 8


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    await stage.open_peer()
    count = f"count={report.count(COUNT, quick=4)}&at_once={AT_ONCE}"
    found = await rounds(
        report.count(5),
        {
            "bare": lambda: bare_rate(stage, f"actors?{count}"),
            "jobs": lambda: bare_rate(stage, f"jobs?{count}"),
            "store": lambda: bare_rate(stage, f"jobs?{count}&store=1"),
        },
        warm=0,
    )
    report.row(f"bare Ray: named actors made, called and ended, {AT_ONCE} at once", found["bare"], "/s")
    report.row(
        "with one streaming task and one more call each: over bare Ray's", ratios(found["jobs"], found["bare"]), "x"
    )
    what = "and one commit by the actor, which loads SQLAlchemy for it: over bare Ray's"
    report.row(what, ratios(found["store"], found["bare"]), "x")
