"""What is removed stays removed: a file that is being encoded meanwhile leaves nothing behind, a cancel stops calls.

And the invariant that finds a job which nobody looks after.
"""

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.unit.jobs import NOW_MS, new_job
from tests.unit.local_service import REQUEST
from tts_actors.chunk_worker import synthesize_chunks
from tts_actors.config import AppArgs
from tts_actors.errors import NotFound
from tts_actors.models import JobRecord, JobState, SpeechRequest
from tts_actors.stores.clips import ObjectClipStore
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import migrate
from tts_actors.testing import FakeBackend, Faults, running_backend
from tts_actors.testing.in_process import LocalService, running_service


class PausedClips(ObjectClipStore):
    """A clip store in which an encoded file waits at the door until it is let in."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.waiting, self.go = asyncio.Event(), asyncio.Event()

    async def put_file(self, key: str, path: str) -> None:
        self.waiting.set()
        await self.go.wait()
        await super().put_file(key, path)


@asynccontextmanager
async def _running(directory: Path, faults: Faults) -> AsyncIterator[tuple[LocalService, FakeBackend]]:
    async with running_backend(faults) as backend:
        args = AppArgs.model_validate(
            {
                "store_url": f"sqlite+aiosqlite:///{directory}/jobs.db",
                "clip_url": f"file://{directory}/clips",
                "backends": [{"name": "fake", "protocol": "openai", "url": f"{backend.url}/v1", "model": "fake-tts"}],
            }
        )
        async with running_service(args) as service:
            yield service, backend


async def _job(service: LocalService, text: str, ttl_seconds: int | None = None) -> JobRecord:
    request = SpeechRequest(model="fake-tts", voice="default", ttl_seconds=ttl_seconds)
    return (await service.service.create("", request, text)).job


def _files(directory: Path) -> list[Path]:
    return [path for path in (directory / "clips").rglob("*") if path.is_file()]


@pytest.mark.parametrize("ends_by", ["delete", "expiry"])
async def test_a_job_that_goes_while_its_file_is_encoded_leaves_no_file(tmp_path: Path, ends_by: str) -> None:
    async with _running(tmp_path, Faults()) as (service, _):
        job = await _job(service, "Soon gone.")
        assert (await service.service.wait("", job.id, 30)).state is JobState.COMPLETED
        clips = PausedClips(service.args.clip_url)
        service.service._renderer._clips = clips
        asked = asyncio.create_task(service.service.output("", job.id, "mp3", silence_for_gaps=False))
        async with asyncio.timeout(30):
            await clips.waiting.wait()
        if ends_by == "delete":
            await service.service.delete("", job.id)
        else:
            service.directory._now = lambda: 10_000_000_000.0
            await service.directory.sweep()
        clips.go.set()
        with pytest.raises(NotFound):
            await asked
        assert _files(tmp_path) == []


async def test_after_a_cancel_no_backend_is_called_any_more(tmp_path: Path) -> None:
    async with _running(tmp_path, Faults(delay_ms=50)) as (service, backend):
        job = await _job(service, "This is a sentence of the text. " * 200)
        async with asyncio.timeout(30):
            while len(backend.calls) < 5:  # noqa: ASYNC110 - the condition lies in a server
                await asyncio.sleep(0.01)
        await service.service.cancel("", job.id)
        calls = len(backend.calls)
        await asyncio.sleep(0.5)  # ten times a call's length: the next ones would have come
        assert len(backend.calls) == calls < 200
        chunks = await service.service.chunks("", job.id)
        kept = [view for view in chunks if view.result]
        assert len(kept) == (await service.service.get("", job.id)).chunks_completed


@pytest.mark.parametrize(
    ("changes", "unattended"),
    [
        ({}, 0),
        ({"state": "in_progress", "owner": "a"}, 0),
        ({"state": "in_progress"}, 1),
        ({"state": "in_progress", "owner": "a", "next_alarm_at_ms": NOW_MS - 61_000}, 1),
        ({"next_alarm_at_ms": NOW_MS - 61_000}, 0),  # it waits in the queue
        ({"deadline_at_ms": NOW_MS - 61_000}, 1),
        ({"state": "failed", "deadline_at_ms": NOW_MS - 61_000}, 0),
    ],
)
async def test_a_job_that_nobody_brings_to_an_end_is_counted(
    tmp_path: Path, changes: dict[str, object], unattended: int
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/jobs.db"
    await migrate(url)
    store = SqlJobStore(url)
    await store.create_job(new_job(), lambda _: 0)
    assignments = ", ".join(f"{name} = :{name}" for name in changes) or "owner = owner"
    engine = sa.create_engine(f"sqlite:///{tmp_path}/jobs.db")
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE jobs SET {assignments}"), changes)  # noqa: S608 - names from above
    engine.dispose()
    assert await store.unattended_jobs(now_ms=NOW_MS) == unattended
    await store.close()


async def test_a_job_without_its_text_is_counted(tmp_path: Path) -> None:
    await migrate(f"sqlite+aiosqlite:///{tmp_path}/jobs.db")
    store = SqlJobStore(f"sqlite+aiosqlite:///{tmp_path}/jobs.db")
    await store.create_job(new_job(), lambda _: 0)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/jobs.db")
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM job_inputs"))
    engine.dispose()
    assert await store.unattended_jobs(now_ms=NOW_MS) == 1
    await store.close()


class LateClips(ObjectClipStore):
    """A clip store in which one clip arrives when it is let in, whatever has become of its worker meanwhile."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.waiting, self.go, self.arrived = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.arriving: asyncio.Task[None] | None = None

    async def put(self, key: str, body: bytes) -> bool:
        self.arriving = asyncio.create_task(self._arrive(key, body))
        await asyncio.shield(self.arriving)
        return True

    async def _arrive(self, key: str, body: bytes) -> None:
        self.waiting.set()
        await self.go.wait()
        await super().put(key, body)


@pytest.mark.parametrize("ends_by", ["delete", "expiry"])
@pytest.mark.parametrize("again", [False, True])
async def test_a_clip_that_arrives_when_its_job_has_gone_is_removed_later_and_never_a_new_jobs(
    tmp_path: Path, ends_by: str, again: bool
) -> None:
    async with _running(tmp_path, Faults()) as (service, _):
        clips = LateClips(service.args.clip_url)
        service.tools = dataclasses.replace(service.tools, clips=clips)
        service.spawner.dispatch = lambda order: synthesize_chunks(order, service.tools)
        service.spawner.handles.clear()
        await service.service.create("", REQUEST, "Soon gone.", job_id="my-book")
        async with asyncio.timeout(30):
            await clips.waiting.wait()
        now = service.directory._now
        if ends_by == "delete":
            await service.service.delete("", "my-book")
        else:
            await service.service.cancel("", "my-book")
            service.directory._now = lambda: now() + 10_000_000
            await service.directory.sweep()
        clips.go.set()
        assert clips.arriving is not None
        await clips.arriving
        (late,) = _files(tmp_path)
        os.utime(late, (0, 0))  # it has lain there since then
        if again and ends_by == "delete":
            await service.service.create("", REQUEST, "Another text.", job_id="my-book")
            assert (await service.service.wait("", "my-book", 30)).state is JobState.COMPLETED
        service.directory._now = lambda: now() + (601 if ends_by == "delete" else 10_000_601)
        await service.directory.sweep()
        living = again and ends_by == "delete"
        assert (late in _files(tmp_path), len(_files(tmp_path))) == (living, 2 if living else 0)
