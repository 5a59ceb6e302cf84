"""What all measurements share: alternating rounds, medians and ratios, verdicts, and the JSON that they are kept in.

A *measurement* fills one :class:`Report`. Its *contenders* (the service, a peer, the limit) take turns within a round,
and ratios are made of the figures of one round: the speed of the machine drifts by a third from minute to minute.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
QUICK_RESULTS = ROOT / "build" / "bench"
VERSIONS = ("ray", "aiohttp", "fastapi", "uvloop", "SQLAlchemy", "celery", "redis", "hibari-tts", "numpy")

Figures = Mapping[str, float]
Contender = Callable[[], Awaitable[float | Figures]]


class NotPossible(Exception):
    """Something that the measurement needs is not on this machine; the message says what and how to get it."""


@dataclass
class Row:
    """One figure, measured in several rounds; the aim, if there is one, is on the median."""

    what: str
    unit: str
    values: list[float]
    median: float
    aim: str = ""
    reached: bool | None = None
    of: int = 0
    """The aim that it is about, if its measurement is about several."""

    def text(self) -> str:
        """Median and range, with as many digits as say something."""
        low, high = min(self.values), max(self.values)
        spread = f" ({number(low)} to {number(high)})" if len(self.values) > 1 else ""
        return f"{number(self.median)}{self.unit}{spread}"


@dataclass
class Curve:
    """A picture for the page: named lines over one axis."""

    picture: str
    title: str
    x_label: str
    y_label: str
    lines: dict[str, list[tuple[float | str, float]]]
    """Points of each; bars side by side if the places are words."""


@dataclass
class Report:
    """What one measurement found, printed while it is found. ``aims`` are the numbers of the aims that it is about."""

    name: str
    title: str
    mode: str = ""
    quick: bool = False
    aims: list[int] = field(default_factory=list)
    error: str = ""
    rows: list[Row] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def count(self, rounds: int, quick: int = 2) -> int:
        """``rounds``, or fewer in a trial run."""
        return quick if self.quick else rounds

    def row(
        self,
        what: str,
        values: float | Sequence[float],
        unit: str = "",
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        of: int = 0,
    ) -> Row:
        """Note and print one figure; the median of several values is held against the aim."""
        values = [values] if isinstance(values, int | float) else list(values)
        row = Row(what, unit, [float(f"{value:.5g}") for value in values], float(f"{statistics.median(values):.5g}"))
        row.of = of
        if at_most is not None:
            row.aim, row.reached = f"at most {number(at_most)}{unit}", row.median <= at_most
        if at_least is not None:
            row.aim, row.reached = f"at least {number(at_least)}{unit}", row.median >= at_least
        self.rows.append(row)
        print(f"  {what:<66} {row.text()}{verdict(row)}", flush=True)
        return row

    def note(self, text: str) -> None:
        """A sentence that belongs beside the figures."""
        self.notes.append(text)
        print(f"  {text}", flush=True)

    def write(self) -> None:
        """Keep it as JSON, with all that says what the figures were made on."""
        self.seconds = round(time.monotonic() - self._started, 2)
        document = {key: value for key, value in asdict(self).items() if not key.startswith("_")} | circumstances()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(document, indent=1) + "\n")

    def begin(self) -> None:
        """Its time counts from now."""
        self._started = time.monotonic()

    @property
    def path(self) -> Path:
        """Where :meth:`write` keeps it."""
        return (QUICK_RESULTS if self.quick else RESULTS) / f"{self.file_name}.json"

    @property
    def file_name(self) -> str:
        """Name and mode."""
        return f"{self.name}.{self.mode}" if self.mode else self.name


def verdict(row: Row) -> str:
    """The aim beside the figure, if it has one."""
    return f"   [{row.aim}: {'reached' if row.reached else 'MISSED'}]" if row.aim else ""


def number(value: float) -> str:
    """Three significant digits, all digits before the point."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


async def rounds(
    count: int,
    contenders: Mapping[str, Contender],
    *,
    warm: int = 1,
    pause: Callable[[], Awaitable[None]] | None = None,
) -> dict[str, list[float]]:
    """``count`` rounds in which every contender has its turn, in the opposite order every second round.

    A contender gives one figure, or several by name (then called ``contender.name``). The first ``warm`` rounds are
    thrown away. ``pause`` is waited for after each turn.
    """
    figures: dict[str, list[float]] = {}
    for number_ in range(-warm, count):
        for name in list(contenders)[:: 1 if number_ % 2 == 0 else -1]:
            found = await contenders[name]()
            named = {name: found} if isinstance(found, int | float) else {f"{name}.{k}": v for k, v in found.items()}
            for key, value in named.items():
                if number_ >= 0:
                    figures.setdefault(key, []).append(value)
            if pause is not None:
                await pause()
    return figures


def ratios(figures: Sequence[float], over: Sequence[float] | float) -> list[float]:
    """Round by round: the figure over its peer's of the same round, or over a constant."""
    others = [over] * len(figures) if isinstance(over, int | float) else over
    return [figure / other for figure, other in zip(figures, others, strict=True)]


def milliseconds(seconds: Sequence[float]) -> list[float]:
    """For a row in ms."""
    return [value * 1_000 for value in seconds]


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent do not pass (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)]


async def timed(work: Awaitable[Any]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


def circumstances() -> dict[str, Any]:
    """Machine, versions, time and commit: nothing that names this very machine."""
    cpu = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory_kb = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _git("rev-parse", "--short=12", "HEAD")
        + ("+" if _git("status", "--porcelain", "-uno", "--", ".", ":!benchmarks/results", ":!docs") else ""),
        "machine": {
            "cpu": cpu[0] if cpu else platform.machine(),
            "cores": os.cpu_count(),
            "memory_gb": round(memory_kb / 2**20),
            "system": f"{platform.system()} {platform.release().partition('-')[0]}",
            "load": round(os.getloadavg()[0], 1),
        },
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in VERSIONS},
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
