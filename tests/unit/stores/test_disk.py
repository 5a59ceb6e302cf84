"""A full or read-only disk: a small file system of its own, mounted for the test."""

import asyncio
import errno
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests

from tests.unit.http_service import http_service
from tts_actors.errors import ConfigError, StoreUnavailable
from tts_actors.stores.clips import ObjectClipStore
from tts_actors.stores.fitness import check_writable
from tts_actors.stores.migrate import migrate

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; CI has it")

BODY = {"model": "fake-tts", "voice": "default", "input": "A sentence for a full disk. " * 400}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return ballast


def test_a_full_disk_refuses_jobs_and_harms_none(small_disk: Path) -> None:
    with http_service(small_disk) as service:
        jobs = f"{service.url}/v1/audio/speech/jobs"
        ballast = _fill(small_disk)
        answer = requests.post(jobs, json=BODY, timeout=60)
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == "the job store failed: the disk is full"
        assert requests.get(jobs, timeout=60).json()["data"] == []
        ballast.unlink()
        body = BODY | {"input": "There is room again."}
        job = requests.post(jobs, json=body, timeout=60).json()
        assert requests.get(f"{jobs}/{job['id']}?wait=60", timeout=90).json()["status"] == "completed"
    with closing(sqlite3.connect(small_disk / "jobs.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_clip_that_does_not_fit_leaves_nothing_behind(small_disk: Path) -> None:
    clips = ObjectClipStore(f"file://{small_disk}/clips")
    await clips.put("job-1/clips/0.wav", b"fits")
    ballast = _fill(small_disk)
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        await clips.put("job-1/clips/1.wav", bytes(100_000))
    assert await clips.get("job-1/clips/1.wav") is None
    ballast.unlink()
    await clips.put("job-1/clips/1.wav", bytes(100_000))
    assert sorted(os.listdir(small_disk / "clips" / "job-1" / "clips")) == ["0.wav", "1.wav"]


async def test_a_read_only_data_directory_is_refused_at_the_start(small_disk: Path) -> None:
    store_url, clip_url = f"sqlite+aiosqlite:///{small_disk}/jobs.db", f"file://{small_disk}/clips"
    await migrate(store_url)
    await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ConfigError, match=r"store_url: .*: Read-only file system"):
        check_writable(store_url, clip_url)
    with pytest.raises(StoreUnavailable, match="read-only"):
        await migrate(store_url)
    with pytest.raises(StoreUnavailable, match="read-only"):
        ObjectClipStore(clip_url)
