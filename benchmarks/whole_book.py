"""25,000 characters on the embedded engine, mp3 at the end: the service, and a plain script on both cores. [aim 10]

In fifths that take turns, so that the drift of the machine hits both alike. Less than the aim names, for the sake of
the time: ``BENCH=whole_book_full`` is all of it.
"""

import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import aiohttp

from benchmarks.harness import ROOT, Contender, Report, rounds, timed
from benchmarks.peers import engine_caller
from benchmarks.peers.plain_script import PlainScript
from benchmarks.processes import cpu_by_role, cpu_seconds, memory_mb
from benchmarks.service import rest

FIFTH = 5_000
"""As long as a text must be for its file to be encoded while it is spoken."""

STORY = ROOT / "examples" / "the_lighthouse_keeper.txt"
WARM_CHARACTERS = 2_000
ROLES = ("engine", "ingress", "proxy", "job actor", "chunk worker", "pool", "Ray itself")


class _Found(NamedTuple):
    """Seconds of each contender's rounds, and what they spent."""

    seconds: dict[str, list[float]]
    encoding: list[float]
    script_cpu: list[float]
    service_cpu: list[Counter[str]]


async def measure(
    session: aiohttp.ClientSession,
    url: str,
    pid: int,
    folder: Path,
    report: Report,
    *,
    fifth: int = FIFTH,
    floor: bool = False,
) -> None:
    """Run and report; ``floor``: beside a script that calls the service's engines, too."""
    story = STORY.read_text()
    fifth = 2_000 if report.quick else fifth
    text = (story * (5 * fifth // len(story) + 2))[: 5 * fifth]
    parts = [text[start : start + fifth] for start in range(0, len(text), fifth)]
    encoding, turn = [], {"service": 0, "script": 0, "floor": 0}
    spent: list[Counter[str]] = []
    script_spent: list[float] = []

    def part(who: str) -> str:
        turn[who] += 1
        return parts[(turn[who] - 1) % len(parts)]

    async def service() -> float:
        used = cpu_seconds(pid)
        spoken, encoded = await _service(session, url, part("service"))
        spent.append(cpu_by_role(used, cpu_seconds(pid)))
        encoding.append(encoded)
        await rest(pid)  # the start of the next job's actor is not to fall into the script's turn
        return spoken + encoded

    with PlainScript() as script:

        async def plain() -> float:
            text = part("script")
            chunks = await _chunks(session, url, text)
            started, used = time.perf_counter(), script.cpu_seconds()
            await script.mp3(text, chunks, folder / "plain.mp3")
            took = time.perf_counter() - started
            script_spent.append(script.cpu_seconds() - used)
            return took

        async def caller() -> float:
            text = part("floor")
            chunks = await _chunks(session, url, text)
            return await timed(engine_caller.mp3(session, url, text, chunks, folder / "floor.mp3"))

        await _service(session, url, story[:WARM_CHARACTERS])
        await script.mp3(story, await _chunks(session, url, story[:WARM_CHARACTERS]), folder / "plain.mp3")
        before = memory_mb(pid)
        contenders: dict[str, Contender] = {"service": service, "script": plain}
        found = await rounds(report.count(5), contenders | ({"floor": caller} if floor else {}), warm=0)
        after = memory_mb(pid)
    _tell(report, fifth, len(parts), _Found(found, encoding, script_spent, spent))
    report.row("growth of all processes' memory (PSS) over it", after - before, " MB", at_most=300)


def _tell(report: Report, fifth: int, parts: int, of: _Found) -> None:
    count, whole = f"{fifth:,} characters", f"{parts * fifth:,} characters in all"
    seconds = of.seconds
    report.row(f"{count}: a plain script, two processes, mp3 included", seconds["script"], " s")
    if "floor" in seconds:
        report.row(f"{count}: the floor, a script that calls the service's engines", seconds["floor"], " s")
        report.row(f"{whole}: the floor over the script", sum(seconds["floor"]) / sum(seconds["script"]), "x")
    report.row(f"{count}: the service, POST to the last byte of the mp3", seconds["service"], " s")
    report.row(f"{count}: of this the rest of the mp3, when all is spoken", of.encoding, " s")
    report.row(f"{count}: CPU of the script", of.script_cpu, " s")
    report.row(f"{count}: CPU of the service", [sum(one.values()) for one in of.service_cpu], " s")
    for who in ROLES:
        report.row(f"{count}: of it, {who}", [one[who] for one in of.service_cpu], " s")
    total = sum(seconds["service"]) / sum(seconds["script"])
    report.row(f"{whole}: the service over the script", total, "x", at_most=1.2)


async def _chunks(session: aiohttp.ClientSession, url: str, text: str) -> list[tuple[int, int]]:
    """The spans that the service would speak."""
    body = {"model": "hibari", "input": text}
    async with session.post(f"{url}/v1/audio/speech/jobs?dry_run=true", json=body) as response:
        assert response.status == 200, await response.text()
        return [(chunk["char_start"], chunk["char_end"]) for chunk in (await response.json())["chunks"]]


async def _service(session: aiohttp.ClientSession, url: str, text: str) -> tuple[float, float]:
    """Seconds to completed, and from there to the last byte of the mp3."""
    body = {"model": "hibari", "input": text, "response_format": "mp3"}  # named, so it is encoded ahead
    started = time.perf_counter()
    async with session.post(f"{url}/v1/audio/speech/jobs", json=body) as response:
        assert response.status == 202, await response.text()
        link = (await response.json())["links"]["self"]
    status = "queued"
    while status in ("queued", "in_progress"):
        async with session.get(f"{url}{link}?wait=60") as response:
            status = (await response.json())["status"]
    assert status == "completed", status
    spoken = time.perf_counter() - started
    async with session.get(f"{url}{link}/audio?format=mp3") as response:
        assert len(await response.read()) > len(text) * 100
    return spoken, time.perf_counter() - started - spoken
