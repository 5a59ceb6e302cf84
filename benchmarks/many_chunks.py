"""2,000 chunks of 200 ms, 64 in flight: the service, Celery with Redis, and a plain script, turn by turn. [aim 2]"""

import time
from contextlib import AsyncExitStack

from benchmarks.harness import Contender, NotPossible, Report, ratios, rounds
from benchmarks.peers.celery_peer import CeleryPeer, celery_peer
from benchmarks.peers.direct import direct_calls
from benchmarks.peers.one_process import job_in_one_process, one_process
from benchmarks.service import CONCURRENCY, SENTENCE, Stage

CHUNKS = 2_000
DELAY_SECONDS = 0.2


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    count = report.count(CHUNKS, quick=200)
    text = SENTENCE * count
    calls = count // 4 // CONCURRENCY * CONCURRENCY or count  # whole waves
    ideal = count * DELAY_SECONDS / CONCURRENCY
    contenders: dict[str, Contender] = {
        "job": lambda: _job(stage, text),
        "direct": lambda: direct_calls(stage, calls, CONCURRENCY),
    }
    async with AsyncExitStack() as peers:
        local = await peers.enter_async_context(one_process(stage.backend.url))
        contenders["inside"] = lambda: job_in_one_process(local, text)
        stage.backend.clear_calls()
        await _job(stage, text[: len(text) // 10])
        most = stage.backend.stats()["max_in_flight"]
        celery = _celery(stage, report, peers)
        if celery is not None:
            contenders["celery"] = lambda: celery.speak(text)
            await celery.speak(text[: len(text) // 10])
        found = await rounds(report.count(5), contenders, warm=0)
        alone = ratios(found["direct"], calls * DELAY_SECONDS / CONCURRENCY)
        report.row(f"a script, {calls:,} calls: over the ideal", alone, "x")
        report.row("the job in one process: over the ideal", ratios(found["inside.completed"], ideal), "x")
        over = ratios(found["job.spoken"], ideal)
        report.row(f"the service, POST to completed: over the ideal {ideal:.2f} s", over, "x", at_most=1.06)
        report.row("one file of it, read over HTTP", found["job.file"], " s")
        if celery is not None:
            _say_celery(report, found, ideal)
            await _say_always(report, celery, text, ideal)
    report.row("most calls in flight, counted by the backend", most, at_most=CONCURRENCY)


def _celery(stage: Stage, report: Report, peers: AsyncExitStack) -> CeleryPeer | None:
    """The peer, running; without Redis the others are measured all the same."""
    try:
        return peers.enter_context(celery_peer(stage.backend.url, CONCURRENCY, stage.folder))
    except NotPossible as error:
        report.note(f"Celery was not measured: {error}")
        return None


def _say_celery(report: Report, found: dict[str, list[float]], ideal: float) -> None:
    report.row("Celery, text to all chunks spoken: over the ideal", ratios(found["celery.spoken"], ideal), "x")
    over = ratios(found["job.spoken"], found["celery.spoken"])
    report.row("all chunks spoken: the service over Celery", over, "x", at_most=1)
    report.row("one file of it by Celery, joined on the disk", found["celery.file"], " s")
    report.row("one file of it: the service over Celery", ratios(found["job.file"], found["celery.file"]), "x")


async def _say_always(report: Report, celery: CeleryPeer, text: str, ideal: float) -> None:
    """What the service promises (an accepted job survives a power cut) costs Celery this."""
    celery.set_appendfsync("always")
    found = [(await celery.speak(text))["spoken"] / ideal for _ in range(report.count(1, quick=1))]
    report.row("Celery with Redis forcing every write (appendfsync always)", found, "x")
    report.note(
        "Celery 5: one worker, 64 processes, late acknowledgement, 3 tries, results joined by a chord; Redis with "
        "appendonly yes and appendfsync everysec (its default) unless it says otherwise. Unlike the service it does "
        "not force clips to the disk"
    )


async def _job(stage: Stage, text: str) -> dict[str, float]:
    started = time.perf_counter()
    job = await stage.start_job(text)
    await stage.finished(job)
    spoken = time.perf_counter() - started
    size = 0
    async with stage.session.get(f"{stage.url}{job}/audio?format=wav") as response:
        async for piece in response.content.iter_any():
            size += len(piece)
    assert response.status == 200
    assert size > 40_000
    file = time.perf_counter() - started
    await stage.rest()
    return {"spoken": spoken, "file": file}
