"""The same as `whole_book` at the size that the aim names: 100,000 characters, in fifths of 20,000. [aim 10]"""

from pathlib import Path

import aiohttp

from benchmarks import whole_book
from benchmarks.harness import Report

FIFTH = 20_000


async def measure(session: aiohttp.ClientSession, url: str, pid: int, folder: Path, report: Report) -> None:
    """Run and report."""
    await whole_book.measure(session, url, pid, folder, report, fifth=FIFTH, floor=True)
