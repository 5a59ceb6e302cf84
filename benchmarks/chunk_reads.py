"""Reading finished chunks of 50 kB with 16 clients, beside an empty deployment that returns 50 kB. [aim 6]"""

import itertools

from benchmarks.harness import Report, ratios, rounds
from benchmarks.rates import rate
from benchmarks.service import SENTENCE, Stage

CHUNKS = 40
CLIP_MS = 740
"""With the pause behind it 50 kB."""


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    stage.backend.set_faults(fixed_audio_ms=CLIP_MS)
    job = await stage.start_job(SENTENCE * CHUNKS)
    await stage.finished(job)
    indices = itertools.cycle(range(CHUNKS))
    size = len(await stage.get(f"{job}/chunks/0/audio"))
    await stage.open_peer()
    found = await rounds(
        report.count(5),
        {
            "peer": lambda: rate(lambda: stage.get(f"{stage.peer}/fifty")),
            "floor": lambda: rate(lambda: stage.get(f"{stage.peer}/stored?number={next(indices)}")),
            "chunks": lambda: rate(lambda: stage.get(f"{job}/chunks/{next(indices)}/audio")),
        },
    )
    report.row("empty deployment that returns 50 kB, 16 clients", found["peer"], "/s")
    report.row("a deployment that reads a row and a file of 50 kB, 16 clients", found["floor"], "/s")
    report.row("its rate over the empty deployment's", ratios(found["floor"], found["peer"]), "x")
    report.row(f"finished chunks of {size / 1_000:.0f} kB, 16 clients", found["chunks"], "/s")
    report.row(
        "finished chunks: rate over the empty deployment's", ratios(found["chunks"], found["peer"]), "x", at_least=0.6
    )
    over = ratios(found["chunks"], found["floor"])
    report.row("finished chunks: rate over the deployment's that reads a row and a file", over, "x")
