"""2,000 chunks of 200 ms, 64 in flight: the service, Celery with Redis, and a plain script, turn by turn. [aim 2]"""

from contextlib import AsyncExitStack

from benchmarks.harness import Contender, NotPossible, Report, ratios, rounds, timed
from benchmarks.peers.celery_peer import CeleryPeer, celery_peer
from benchmarks.peers.direct import direct_calls
from benchmarks.peers.one_process import job_in_one_process, one_process
from benchmarks.service import CONCURRENCY, SENTENCE, Stage

CHUNKS = 2_000
PEER_CHUNKS = 448
"""Of Celery (for whose sizes there is ``BENCH=celery_sizes``) and of the job in one process."""

DELAY_SECONDS = 0.2
WHAT_CELERY_IS = (
    "Celery 5: one worker, 64 processes, late acknowledgement, 3 tries, results joined by a chord; Redis with "
    "appendonly yes and appendfsync everysec (its default) unless it says otherwise. Unlike the service it does "
    "not force clips to the disk"
)


def ideal(chunks: int) -> float:
    """Seconds that so many chunks take if nothing but the backend takes any time."""
    return chunks * DELAY_SECONDS / CONCURRENCY


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    count, peers_count = report.count(CHUNKS, quick=200), report.count(PEER_CHUNKS, quick=200)
    text, peers_text = SENTENCE * count, SENTENCE * peers_count
    calls = count // 4 // CONCURRENCY * CONCURRENCY or count  # whole waves
    contenders: dict[str, Contender] = {
        "job": lambda: _job(stage, text),
        "direct": lambda: direct_calls(stage, calls, CONCURRENCY),
    }
    async with AsyncExitStack() as peers:
        local = await peers.enter_async_context(one_process(stage.backend.url))
        contenders["inside"] = lambda: job_in_one_process(local, peers_text)
        stage.backend.clear_calls()
        await _job(stage, text[: len(text) // 10])
        most = stage.backend.stats()["max_in_flight"]
        celery = _celery(stage, report, peers)
        if celery is not None:
            contenders["celery"] = lambda: celery.speak(peers_text)
            await celery.speak(text[: len(text) // 10])
        found = await rounds(report.count(5), contenders, warm=0)
    report.row(f"a script, {calls:,} calls: over the ideal", ratios(found["direct"], ideal(calls)), "x")
    inside = ratios(found["inside.completed"], ideal(peers_count))
    report.row(f"the job in one process, {peers_count:,} chunks: over the ideal", inside, "x")
    over = ratios(found["job"], ideal(count))
    report.row(f"the service, POST to completed: over the ideal {ideal(count):.2f} s", over, "x", at_most=1.06)
    if celery is not None:
        _say_celery(report, found, count, peers_count)
    report.row("most calls in flight, counted by the backend", most, at_most=CONCURRENCY)


def _celery(stage: Stage, report: Report, peers: AsyncExitStack) -> CeleryPeer | None:
    """The peer, running; without Redis the others are measured all the same."""
    try:
        return peers.enter_context(celery_peer(stage.backend.url, CONCURRENCY, stage.folder))
    except NotPossible as error:
        report.note(f"Celery was not measured: {error}")
        return None


def _say_celery(report: Report, found: dict[str, list[float]], count: int, peers_count: int) -> None:
    over = ratios(found["celery.spoken"], ideal(peers_count))
    report.row(f"Celery, {peers_count:,} chunks, text to all chunks spoken: over the ideal", over, "x")
    chunk = ratios(ratios(found["job"], ideal(count)), over)
    report.row("all chunks spoken, a chunk: the service over Celery", chunk, "x", at_most=1)
    report.note(WHAT_CELERY_IS)


async def _job(stage: Stage, text: str) -> float:
    took = await timed(_finished(stage, text))
    await stage.rest()
    return took


async def _finished(stage: Stage, text: str) -> None:
    await stage.finished(await stage.start_job(text))
