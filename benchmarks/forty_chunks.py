"""40 chunks of 200 ms, 64 in flight: from the POST to the last chunk read. [aim 1]"""

import asyncio
import time

from benchmarks.harness import Report, milliseconds, ratios, rounds, timed
from benchmarks.peers.direct import direct_calls
from benchmarks.peers.one_process import job_in_one_process, one_process
from benchmarks.service import CONCURRENCY, REFILL_TWO_SECONDS, SENTENCE, Stage

CHUNKS = 40
IDEAL_SECONDS = 0.2
READERS = 16
BYTES = CHUNKS * 48_000 * 0.9  # clips of one second at 24 kHz, 16 bit, less their edges
INITIATE = {"text": SENTENCE * CHUNKS, "voiceId": "default", "model": "stub", "splittingPreference": "sentence"}


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    async with one_process(stage.backend.url) as local:
        found = await rounds(
            report.count(5),
            {
                "direct": lambda: direct_calls(stage, CHUNKS, CONCURRENCY),
                "inside": lambda: job_in_one_process(local, SENTENCE * CHUNKS),
                "nothing": lambda: timed(stage.get(f"{stage.peer}/nothing")),
                "job": lambda: _job(stage),
            },
        )
    report.row("the 40 calls made directly by a script", milliseconds(found["direct"]), " ms")
    report.row("the job in one process: text to last sample", milliseconds(found["inside.file"]), " ms")
    report.row("an empty deployment answers in", milliseconds(found["nothing"]), " ms")
    floor = [sum(each) for each in zip(found["inside.file"], found["nothing"], found["nothing"], strict=True)]
    report.row("the floor: that and two empty requests, over the ideal", ratios(floor, IDEAL_SECONDS), "x")
    report.row("POST to its answer", milliseconds(found["job.initiate"]), " ms")
    report.row("POST to job completed", milliseconds(found["job.completed"]), " ms")
    report.row("POST to all 40 chunks read as one file", milliseconds(found["job.file"]), " ms")
    report.row("POST to last byte of the live stream", milliseconds(found["job.live"]), " ms")
    report.row("POST to the last of 40 single reads, 16 at once", milliseconds(found["job.chunks"]), " ms")
    report.row("one file: over the ideal 200 ms", ratios(found["job.file"], IDEAL_SECONDS), "x", at_most=1.40)
    report.row("one file: over the direct calls", ratios(found["job.file"], found["direct"]), "x")


async def _job(stage: Stage) -> dict[str, float]:
    started = time.perf_counter()
    job_id = (await stage.post("/api/tts-initiate", INITIATE))["jobId"]
    initiate = time.perf_counter() - started
    job = f"/v1/audio/speech/jobs/{job_id}"
    await stage.finished(job)
    completed = time.perf_counter() - started
    assert len(await stage.get(f"{job}/audio?format=pcm")) > BYTES
    file = time.perf_counter() - started
    live = await timed(_live(stage))  # the second warm actor's; a third one is not begun before it is over
    await stage.rest(REFILL_TWO_SECONDS)
    gate = asyncio.Semaphore(READERS)

    async def read(index: int) -> None:
        async with gate:
            await stage.get(f"/api/tts-chunk?jobId={job_id}&chunkIndex={index}")

    chunks = completed + await timed(asyncio.gather(*map(read, range(CHUNKS))))
    return {"initiate": initiate, "completed": completed, "file": file, "live": live, "chunks": chunks}


async def _live(stage: Stage) -> None:
    """All chunks read as they come: one listener from right after the POST to the last byte."""
    job_id = (await stage.post("/api/tts-initiate", INITIATE))["jobId"]
    assert len(await stage.get(f"/v1/audio/speech/jobs/{job_id}/audio?live=1&format=pcm")) > BYTES
