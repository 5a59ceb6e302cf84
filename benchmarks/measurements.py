"""Which measurements there are, and what each group of them runs on. A group shares one running service."""

import ast
import asyncio
import importlib
import os
import re
import secrets
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import NotPossible, Report
from benchmarks.peers import engine_caller
from benchmarks.service import USUAL, Stage, engine_config, open_session, running, stub_stage


@dataclass(frozen=True)
class Group:
    """Measurements on one stage. ``haproxy`` are those of them that are also made in Serve's HAProxy mode."""

    names: tuple[str, ...]
    stage: Callable[[], Any]
    haproxy: tuple[str, ...] = ()
    extra: bool = False
    """Only made when asked for by name."""


@asynccontextmanager
async def _engine_stage():  # type: ignore[no-untyped-def]
    os.environ.setdefault(engine_caller.KEY, secrets.token_urlsafe(32))
    with running(engine_config()) as (url, pid, folder):
        async with open_session() as session:
            yield session, url, pid, folder


@asynccontextmanager
async def _no_stage():  # type: ignore[no-untyped-def]
    with tempfile.TemporaryDirectory() as folder:
        yield (Path(folder),)


@asynccontextmanager
async def _stub_stage():  # type: ignore[no-untyped-def]
    async with stub_stage() as stage:
        yield (stage,)


GROUPS = {
    "stub": Group(
        (
            "forty_chunks",
            "chunk_reads",
            "churn",
            "many_chunks",
            "long_text",
            "growth",
            "speech_door",  # after it the door has learnt that this voice speaks slowly, and doubts shorter clips
            "accepting",  # the last: what it has accepted stays
        ),
        _stub_stage,
        haproxy=("forty_chunks", "chunk_reads", "speech_door", "accepting"),
    ),
    "listening": Group(("listeners", "slow_readers"), _stub_stage, haproxy=("slow_readers",), extra=True),
    "engine": Group(("whole_book",), _engine_stage),
    "alone": Group(("split_growth",), _no_stage),
    "history": Group(
        ("chunk_cost", "many_jobs", "bare_actors", "churn_floor", "celery_sizes", "active_jobs", "scrape"),
        _stub_stage,
        extra=True,
    ),
    "engine_full": Group(("whole_book_full",), _engine_stage, haproxy=("whole_book", "whole_book_full"), extra=True),
    "extra": Group(
        ("first_byte", "flaky_backends", "good_speech", "pool", "long_job", "turns", "nodes"), _no_stage, extra=True
    ),
}
LIMIT_SECONDS = 300.0
"""Of one measurement: none takes half of it on a quiet machine, but for those in ``SLOW``."""

SLOW = {"many_jobs": 900.0, "bare_actors": 600.0, "nodes": 480.0, "whole_book_full": 600.0}
"""A start of an actor for each of 300 jobs; a cluster, and three deployments on it; 100,000 characters, three times."""


def limit_seconds(names: Iterable[str]) -> float:
    """How long these measurements may take together."""
    return sum(SLOW.get(name, LIMIT_SECONDS) for name in names)


def names_of(group: Group, mode: str) -> tuple[str, ...]:
    """The group's measurements in a mode, in their order."""
    return group.haproxy if mode == "haproxy" else group.names


def new_report(name: str, mode: str, quick: bool) -> Report:
    """An empty report with the title and the aims from the measurement's docstring."""
    source = Path(__file__).with_name(f"{name}.py").read_text()  # read, not imported: some import half of the world
    document = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    aims = [int(number) for number in re.findall(r"\d+", document.partition("[")[2])]
    return Report(name, document.partition(" [")[0], mode, quick, aims)


async def run_group(group: Group, names: Iterable[str], mode: str, quick: bool) -> bool:
    """Make the named measurements one after the other; each failure is kept in its report. False if any failed."""
    reports = [new_report(name, mode, quick) for name in names]
    try:
        async with group.stage() as stage:
            for report in reports:
                print(f"{report.file_name}: {report.title}", flush=True)
                await _run(report, stage)
    except Exception as error:  # noqa: BLE001 - the stage: what was not measured says why
        for report in reports:
            if not report.seconds:
                report.error = f"the stage failed: {error}"
                report.write()
        traceback.print_exc()
    return not any(report.error for report in reports)


async def _run(report: Report, stage: tuple[Any, ...]) -> None:
    report.begin()
    for part in stage:
        if isinstance(part, Stage):
            part.backend.set_faults(**USUAL)  # whatever the one before has left behind
    try:
        async with asyncio.timeout(limit_seconds([report.name])):
            await importlib.import_module(f"benchmarks.{report.name}").measure(*stage, report)
    except NotPossible as error:
        report.note(f"not measured: {error}")
    except Exception as error:  # noqa: BLE001 - the boundary: the others go on
        traceback.print_exc(file=sys.stdout)
        report.error = f"{type(error).__name__}: {str(error)[:300]}"
    report.write()
