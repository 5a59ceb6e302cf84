"""Where the time to the first byte of a long text goes, told by the service's own traces.

Every figure is from the request's start to that moment. Tracing costs a little of what it shows.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.harness import Report
from benchmarks.service import SENTENCE, Stage, open_session, running, stub_config
from tts_actors.testing import FakeBackendProcess, Faults

REQUESTS, DELAY_MS, EXPORT_SECONDS = 20, 50, 8.0

MOMENTS = {
    "the HTTP replica has it": ("POST /v1/audio/speech", "start_time"),
    "the first chunk is begun": ("tts.chunk", "start_time"),
    "the backend is called": ("tts.backend.call", "start_time"),
    "the backend has answered (50 ms)": ("tts.backend.call", "end_time"),
    "the clip is on the disk": ("tts.clip.keep", "end_time"),
    "meanwhile: the job is committed, and with the directory": ("tts.directory.start", "start_time"),
    "meanwhile: the job's actor has begun": ("tts.job.run", "start_time"),
}
"""Whose first span of the request's trace tells, and which end of it."""


async def measure(folder: Path, report: Report) -> None:
    """Run and report."""
    path = folder / "spans"
    with FakeBackendProcess(Faults(delay_ms=DELAY_MS, log_text=False)) as backend:
        document = stub_config(backend.url)
        document["applications"][0]["args"]["tracing"] = {"exporter": "file", "path": str(path)}
        with running(document) as service:
            async with open_session() as session:
                stage = Stage(*service, session, backend)
                await _first_byte(stage, 0)
                asked = [await _first_byte(stage, number) for number in range(1, report.count(REQUESTS, quick=4) + 1)]
                await asyncio.sleep(EXPORT_SECONDS)
    spans = list(_spans(path))
    for what, (name, end) in MOMENTS.items():
        report.row(what, [_moment(spans, name, end, number + 1) - at for number, (at, _) in enumerate(asked)], " ms")
    report.row("the first byte is at the client", [first - at for at, first in asked], " ms")


def _spans(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        yield json.loads(line)


def _moment(spans: list[dict[str, Any]], name: str, end: str, number: int) -> float:
    """Milliseconds since 1970 of the first span of that name in the request's trace."""
    trace = f"0x{number + 1:032x}"
    times = [span[end] for span in spans if span["name"] == name and span["context"]["trace_id"] == trace]
    return min(datetime.fromisoformat(found).timestamp() for found in times) * 1_000


async def _first_byte(stage: Stage, number: int) -> tuple[float, float]:
    """When it was asked, and when its first byte came: milliseconds since 1970."""
    body = {"model": "stub", "input": f"Text {number}. {SENTENCE * 39}", "voice": "tone", "response_format": "pcm"}
    headers = {"traceparent": f"00-{number + 1:032x}-{1:016x}-01"}
    asked = time.time() * 1_000
    async with stage.session.post(f"{stage.url}/v1/audio/speech", json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        await response.content.readany()
        first = time.time() * 1_000
        await response.read()
    await stage.rest()
    return asked, first
