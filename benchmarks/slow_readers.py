"""Clients that ask for a long job's audio and read nothing: the memory that the service keeps for each of them."""

import asyncio
import socket
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

from benchmarks.harness import Report
from benchmarks.processes import family, pss_mb, role
from benchmarks.service import SENTENCE, Stage

READERS = 8
SENTENCES = 900
BOUND_MIB = 8
"""What docs/api.md promises."""

STILL_SECONDS = 2.0
STILL_MIB = 0.5
LOOK_SECONDS = 0.25
QUERIES = {"a file": "format=pcm", "live audio": "format=pcm&live=1", "live mp3": "format=mp3&live=1"}


async def measure(stage: Stage, report: Report) -> None:
    """Run and report."""
    job = await stage.start_job(SENTENCE * report.count(SENTENCES, quick=300))
    await stage.finished(job)
    for query in QUERIES.values():  # what is allocated once is there after this
        size = len(await stage.get(f"{job}/audio?{query}"))
        report.note(f"{query}: {size / 2**20:.1f} MiB each")
    for what, query in QUERIES.items():
        before = await _still(stage.pid)
        with ExitStack() as clients:
            for _ in range(READERS):
                clients.enter_context(_asking(f"{stage.url}{job}/audio?{query}"))
            after = await _still(stage.pid)
        grown = {name: (after[name] - before[name]) / READERS for name in before}
        for name, size_mib in grown.items():
            report.row(f"{what}: growth of the {name} for each of {READERS} clients", size_mib, " MiB")
        report.row(f"{what}: in all for each client", sum(grown.values()), " MiB", at_most=BOUND_MIB)
        await stage.rest()


def _asking(url: str) -> socket.socket:
    """A client with a small buffer that asks and reads nothing."""
    parts = urlsplit(url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    client.connect((parts.hostname, parts.port))
    client.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    return client


async def _still(pid: int) -> dict[str, float]:
    """MiB of the ingress and the proxy, once they stand still."""
    last, since = await asyncio.to_thread(_memory, pid), time.monotonic()
    while time.monotonic() - since < STILL_SECONDS:
        await asyncio.sleep(LOOK_SECONDS)
        now = await asyncio.to_thread(_memory, pid)
        if any(abs(now[name] - last[name]) > STILL_MIB for name in now):
            last, since = now, time.monotonic()
    return last


def _memory(pid: int) -> dict[str, float]:
    used = {"ingress": 0.0, "proxy": 0.0}
    for process in family(pid):
        name = role(process)
        if name in used:
            used[name] += pss_mb(process)
    return used
