"""CPU per chunk in the service's processes, for clips of 1 kB and of 50 kB. [aim 11]"""

from collections import Counter

from benchmarks.harness import Curve, Report
from benchmarks.processes import cpu_by_role, cpu_seconds
from benchmarks.service import CLIP_MS, Stage

CHUNKS = 320
CLIPS_MS = {"1 kB": 21, "50 kB": 1_050}
WORDS = "Yes, go on. "
"""Short: a sound of 21 ms cannot be speech of a long sentence."""

HOT = ("ingress", "job actor", "chunk worker", "pool")


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    chunks = report.count(CHUNKS, quick=100)
    lines: dict[str, list[tuple[float | str, float]]] = {}
    for name, clip_ms in CLIPS_MS.items():
        stage.backend.set_faults(fixed_audio_ms=clip_ms)
        spent: list[Counter[str]] = []
        for _ in range(report.count(5)):
            before = cpu_seconds(stage.pid)
            await stage.finished(await stage.start_job(WORDS * chunks))
            spent.append(cpu_by_role(before, cpu_seconds(stage.pid)))
            await stage.rest()
        for who in (*HOT, "directory", "proxy", "Ray itself"):
            took = [1_000 * one[who] / chunks for one in spent]
            row = report.row(f"clips of {name}: CPU per chunk, {who}", took, " ms")
            lines.setdefault(who, []).append((f"clips of {name}", row.median))
        took = [1_000 * sum(one[who] for who in HOT) / chunks for one in spent]
        report.row(f"clips of {name}: CPU per chunk, {', '.join(HOT)} together", took, " ms")
    report.curves.append(Curve("chunk_cost", "CPU per chunk by process", "", "milliseconds of CPU per chunk", lines))
    stage.backend.set_faults(fixed_audio_ms=CLIP_MS)
