"""100,000 characters through the embedded engine: time, and how much memory the service's processes grow by."""

import asyncio
import time
from pathlib import Path

import aiohttp

from benchmarks.figures import show
from benchmarks.service import running

CHARACTERS = 100_000
STORY = Path("examples/the_lighthouse_keeper.txt")


def main(**environment: str) -> None:
    """Run and print."""
    story = STORY.read_text()
    text = (story * (CHARACTERS // len(story) + 1))[:CHARACTERS]
    with running(None, **environment) as (url, pid):
        asyncio.run(_measure(url, pid, text, story))


async def _measure(url: str, pid: int, text: str, story: str) -> None:
    peak = 0.0
    body = {"model": "hibari", "input": text}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        await _warm(session, url, story)
        before = _memory_mb(pid)
        started = time.perf_counter()
        async with session.post(f"{url}/v1/audio/speech/jobs", json=body) as response:
            link = (await response.json())["links"]["self"]
        job = {"status": "queued"}
        while job["status"] in ("queued", "in_progress"):
            async with session.get(f"{url}{link}?wait=1") as response:
                job = await response.json()
            peak = max(peak, _memory_mb(pid))
        assert job["status"] == "completed", job
        spoken = time.perf_counter() - started
        async with session.get(f"{url}{link}/audio?format=mp3") as response:
            size = len(await response.read())
        encoded = time.perf_counter() - started - spoken
        peak = max(peak, _memory_mb(pid))
    show("100,000 characters spoken in", f"{spoken:.1f} s ({float(job['audio_seconds_ready']):.0f} s of audio)")
    show("encoded and downloaded as mp3 in", f"{encoded:.1f} s ({size / 1e6:.1f} MB)")
    show("memory of all processes, growth (PSS)", f"{peak - before:.0f} MB of {peak:.0f} MB", "300 MB")


async def _warm(session: aiohttp.ClientSession, url: str, story: str) -> None:
    """The engines have spoken once, and the spare actors are back."""
    body = {"model": "hibari", "input": story}
    async with session.post(f"{url}/v1/audio/speech/jobs", json=body) as response:
        assert response.status == 202, await response.text()
        link = (await response.json())["links"]["self"]
    async with session.get(f"{url}{link}?wait=60") as response:
        assert (await response.json())["status"] == "completed"
    await asyncio.sleep(3)


def _memory_mb(root: int) -> float:
    """Proportional set size of a process and all below it, MB."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(status.parent.name))
    total, todo = 0.0, [root]
    while todo:
        process = todo.pop()
        todo += parents.get(process, [])
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1_024
    return total
