"""Twenty listen to one job while it is rendered: how many encoders there are, and what the ingress has to do.

An encoder writes to a temporary file without a name: those that the ingress has open are counted.
"""

import asyncio
import itertools
import os
from collections.abc import Callable

from benchmarks.harness import Report, ratios, rounds
from benchmarks.processes import cpu_seconds, family, role
from benchmarks.service import SENTENCE, Stage

LISTENERS = 20
SENTENCES = 300
LOOK_SECONDS = 0.05
FORMATS = ("mp3", "opus")


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    sentences = report.count(SENTENCES, quick=60)
    numbers = itertools.count()
    ingress = next(process.pid for process in family(stage.pid) if role(process) == "ingress")
    encoders: dict[str, list[float]] = {}

    def listening(name: str, listeners: int, formats: tuple[str, ...]) -> Callable[[], "asyncio.Future[float]"]:
        async def turn() -> float:
            text = f"Round {next(numbers)}. {SENTENCE * sentences}"
            cpu, most = await _listened(stage, ingress, text, listeners, formats)
            encoders.setdefault(name, []).append(most)
            return cpu

        return lambda: asyncio.ensure_future(turn())

    found = await rounds(
        report.count(5),
        {
            "one": listening("one", 1, FORMATS[:1]),
            "twenty": listening("twenty", LISTENERS, FORMATS[:1]),
            "two formats": listening("two formats", LISTENERS, FORMATS),
        },
        pause=stage.rest,
    )
    report.row(f"encoders at most, {LISTENERS} listeners of mp3", encoders["twenty"], at_most=1)
    report.row(f"encoders at most, {LISTENERS} listeners of mp3 and opus", encoders["two formats"], at_most=2)
    report.row("CPU of the ingress, one listener of mp3", found["one"], " s")
    report.row(f"CPU of the ingress, {LISTENERS} listeners of mp3", found["twenty"], " s")
    report.row(f"CPU of the ingress, {LISTENERS} listeners over one", ratios(found["twenty"], found["one"]), "x")


async def _listened(
    stage: Stage, ingress: int, text: str, listeners: int, formats: tuple[str, ...]
) -> tuple[float, int]:
    """CPU seconds of the ingress for one job, heard live by so many; and the most encoders at once."""
    before, others, most = _cpu(stage.pid, ingress), _nameless_files(ingress), 0
    job = await stage.start_job(text)
    urls = [f"{job}/audio?live=1&format={formats[number % len(formats)]}" for number in range(listeners)]
    heard = asyncio.gather(*(stage.get(url) for url in urls))
    while not heard.done():
        most = max(most, _nameless_files(ingress) - others)
        await asyncio.wait({heard}, timeout=LOOK_SECONDS)
    assert len(set(heard.result())) == len(formats), "listeners of one format heard different bytes"
    return _cpu(stage.pid, ingress) - before, most


def _cpu(pid: int, ingress: int) -> float:
    return sum(seconds for (process, _), seconds in cpu_seconds(pid).items() if process == ingress)


def _nameless_files(pid: int) -> int:
    count = 0
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            count += os.readlink(entry.path).endswith(" (deleted)")
        except FileNotFoundError:  # closed meanwhile
            continue
    return count
