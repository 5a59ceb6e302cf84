"""Celery with Redis on 640 and on 2,000 chunks, and with Redis forcing every write, as the service does."""

from benchmarks.harness import Contender, Report, ratios, rounds
from benchmarks.many_chunks import WHAT_CELERY_IS, ideal
from benchmarks.peers.celery_peer import celery_peer
from benchmarks.service import CONCURRENCY, SENTENCE, Stage

SIZES = (640, 2_000)


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    sizes = (100, 200) if report.quick else SIZES
    with celery_peer(stage.backend.url, CONCURRENCY, stage.folder) as celery:

        async def speak(count: int, policy: str) -> float:
            celery.set_appendfsync(policy)
            return (await celery.speak(SENTENCE * count))["spoken"]

        await speak(sizes[0] // 10, "everysec")
        contenders: dict[str, Contender] = {
            f"{count:,} chunks, appendfsync {policy}": lambda count=count, policy=policy: speak(count, policy)  # type: ignore[misc]
            for count, policy in ((sizes[0], "everysec"), (sizes[1], "everysec"), (sizes[1], "always"))
        }
        found = await rounds(report.count(3), contenders, warm=0)
    for what, count in zip(contenders, (sizes[0], sizes[1], sizes[1]), strict=True):
        report.row(f"{what}: text to all chunks spoken, over the ideal", ratios(found[what], ideal(count)), "x")
    report.note(WHAT_CELERY_IS)
