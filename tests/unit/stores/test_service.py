"""The whole service on the stores of both kinds: outages, two services on one store, backup and restore."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
import requests

from tests.unit.http_service import HttpService, http_service
from tests.unit.stores.servers import BUCKET, Postgres, s3_environment
from tests.unit.tcp_proxy import Proxy, threaded_proxy
from tts_actors.config import AppArgs
from tts_actors.directory import JobDirectory
from tts_actors.errors import StoreUnavailable
from tts_actors.models import JobState, SpeechRequest
from tts_actors.stores import clips, engines
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import migrate
from tts_actors.testing import FakeBackend, Faults, running_backend
from tts_actors.testing.in_process import LocalService, LocalSpawner, running_service

TEXT = "".join(f"This is sentence number {number} of the text. " for number in range(24))
BODY = {"model": "fake-tts", "voice": "default", "input": TEXT, "chunking": {"max_characters": 50}}
PATIENCE_SECONDS = 60


def _slow(service: HttpService) -> None:
    service.backend.faults = Faults(delay_ms=300)


def _create(service: HttpService) -> requests.Response:
    return requests.post(f"{service.url}/v1/audio/speech/jobs", json=BODY, timeout=PATIENCE_SECONDS)


def _job(service: HttpService, job_id: str) -> dict[str, object]:
    answer = requests.get(f"{service.url}/v1/audio/speech/jobs/{job_id}?wait=20", timeout=PATIENCE_SECONDS)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _ended(service: HttpService, job_id: str) -> dict[str, object]:
    for _ in range(5):
        job = _job(service, job_id)
        if job["status"] not in ("queued", "in_progress"):
            return job
    raise AssertionError(f"the job did not end: {job}")


def _spoken_once(service: HttpService) -> bool:
    texts = [call["text"] for call in service.backend.calls]
    return len(texts) == len(set(texts)) == 24


@pytest.fixture
def remote(postgres: Postgres, s3_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """The cluster's stores, as the two URLs of the configuration."""
    for name, value in s3_environment(s3_port).items():
        monkeypatch.setenv(name, value)
    return {"store_url": postgres.url(postgres.new_database()), "clip_url": f"s3://{BUCKET}/{tmp_path.name}"}


def test_a_job_runs_on_postgresql_and_s3(remote: dict[str, str], tmp_path: Path) -> None:
    with http_service(tmp_path, **remote) as service:
        job = _ended(service, _create(service).json()["id"])
        assert job["status"] == "completed"
        assert _spoken_once(service)
        for fmt in ("wav", "mp3"):
            url = f"{service.url}/v1/audio/speech/jobs/{job['id']}/audio?format={fmt}"
            audio = requests.get(url, timeout=PATIENCE_SECONDS)
            assert audio.status_code == 200
            part = requests.get(url, headers={"Range": "bytes=1000-1999"}, timeout=PATIENCE_SECONDS)
            assert (part.status_code, part.content) == (206, audio.content[1000:2000])
        assert requests.delete(f"{service.url}/v1/audio/speech/jobs/{job['id']}", timeout=60).status_code == 204


def _refused(answer: requests.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] == "store_unavailable"
    assert int(answer.headers["Retry-After"]) >= 1


def _until_called(service: HttpService, calls: int) -> None:
    for _ in range(600):
        if len(service.backend.calls) >= calls:
            return
        asyncio.run(asyncio.sleep(0.05))
    raise AssertionError("the backend was not called")


@contextmanager
def _speaking_behind_a_door(
    postgres: Postgres, remote: dict[str, str], tmp_path: Path
) -> Iterator[tuple[HttpService, Proxy, str]]:
    """A service, the door to its database, and its running job: four of the job's chunks have gone to the backend."""
    with threaded_proxy(postgres.socket_path) as door:
        database = remote["store_url"].split("/")[3].split("?")[0]
        url = f"postgresql+asyncpg://postgres@127.0.0.1:{door.port}/{database}"
        with http_service(tmp_path, **(remote | {"store_url": url})) as service:
            _slow(service)
            job_id = _create(service).json()["id"]
            _until_called(service, 4)
            yield service, door, job_id


def test_while_the_database_is_away_creates_wait_and_running_jobs_go_on(
    postgres: Postgres, remote: dict[str, str], tmp_path: Path
) -> None:
    with _speaking_behind_a_door(postgres, remote, tmp_path) as (service, door, job_id):
        door.shut()
        _refused(_create(service))
        _until_called(service, 12)  # speaking goes on meanwhile
        _refused(_create(service))
        door.open()
        assert _ended(service, job_id)["status"] == "completed"
        assert _spoken_once(service)
        assert _create(service).status_code == 202


def test_while_the_database_hangs_creates_are_told_so_in_time_and_running_jobs_go_on(
    postgres: Postgres, remote: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("COMMAND_SECONDS", 1.0), ("CONNECT_SECONDS", 1.0), ("OPERATION_SECONDS", 2.0)):
        monkeypatch.setattr(engines, name, seconds)
    with _speaking_behind_a_door(postgres, remote, tmp_path) as (service, door, job_id):
        door.stall()
        _refused(_create(service))  # on connections that were open
        _until_called(service, 12)  # speaking goes on meanwhile
        _refused(_create(service))  # on one that does not come to be
        door.open()
        assert _ended(service, job_id)["status"] == "completed"
        assert _spoken_once(service)
        assert _create(service).status_code == 202


async def test_a_start_on_a_database_that_hangs_is_told_so_and_the_next_one_works(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgres.new_database()
    async with Proxy(postgres.socket_path).running() as door:
        url = f"postgresql+asyncpg://postgres@127.0.0.1:{door.port}/{database}"
        await migrate(url)
        with monkeypatch.context() as patch:
            for name, seconds in (("COMMAND_SECONDS", 0.5), ("CONNECT_SECONDS", 0.5), ("OPERATION_SECONDS", 1.0)):
                patch.setattr(engines, name, seconds)
            door._flowing.clear()
            with pytest.raises(StoreUnavailable):
                async with asyncio.timeout(30):
                    await migrate(url)
        door._flowing.set()
        await migrate(url)


def test_while_the_object_store_hangs_what_was_spoken_is_kept(
    s3_port: int, remote: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "REQUEST_SECONDS", 1.0)
    with threaded_proxy(s3_port) as door:
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{door.port}")
        with http_service(tmp_path, **remote) as service:
            done = _ended(service, _create(service).json()["id"])["id"]
            service.backend.log.records.clear()
            _slow(service)
            job_id = _create(service).json()["id"]
            _until_called(service, 6)
            door.stall()
            _refused(requests.get(f"{service.url}/v1/audio/speech/jobs/{done}/chunks/0/audio", timeout=60))
            door.open()
            assert _ended(service, job_id)["status"] == "completed"
            assert _spoken_once(service)


def test_while_the_object_store_is_away_what_was_spoken_is_kept(
    s3_port: int, remote: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with threaded_proxy(s3_port) as door:
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{door.port}")
        with http_service(tmp_path, **remote) as service:
            done = _ended(service, _create(service).json()["id"])["id"]
            service.backend.log.records.clear()
            _slow(service)
            job_id = _create(service).json()["id"]
            _until_called(service, 6)
            door.shut()
            _until_called(service, 9)
            _refused(requests.get(f"{service.url}/v1/audio/speech/jobs/{done}/chunks/0/audio", timeout=60))
            door.open()
            assert _ended(service, job_id)["status"] == "completed"
            assert _spoken_once(service)


@asynccontextmanager
async def _second_directory(first: LocalService, owner: str) -> AsyncIterator[JobDirectory]:
    """Another service's directory on the same stores."""
    store = SqlJobStore(first.args.store_url)
    spawner = LocalSpawner(first.args, first.spawner.dispatch, store, owner)
    directory = JobDirectory(spawner=spawner, store=store, clips=first.clips, args=first.args, owner=owner)
    serving = asyncio.create_task(directory.serve())
    try:
        yield directory
    finally:
        serving.cancel()
        await asyncio.wait({serving})
        await spawner.stop()
        await store.close()


async def test_two_services_on_one_postgresql_share_the_jobs_and_none_is_run_twice(
    remote: dict[str, str], tmp_path: Path
) -> None:
    backend_args = {"name": "fake", "protocol": "openai", "model": "fake-tts"}
    async with running_backend(Faults(delay_ms=50)) as backend:
        args = _args(remote, backend, backend_args)
        async with running_service(args) as first, _second_directory(first, "second") as second:
            ids = []
            for number in range(8):
                made = await first.service.create("", SpeechRequest("fake-tts", "default"), f"Job {number}. " + TEXT)
                ids.append(made.job.id)
                await second.start(made.job.id)  # both want it
            for job_id in ids:
                job = await first.service.wait("", job_id, 60)
                assert (job.state, job.epoch) == (JobState.COMPLETED, 1)
            texts = [call["text"] for call in backend.calls]
            assert len(texts) == len(ids) * len(TEXT.split(". ")[:-1]) + len(ids)


def _args(stores: dict[str, str], backend: FakeBackend, values: dict[str, str]) -> AppArgs:
    return AppArgs.model_validate({**stores, "backends": [{**values, "url": f"{backend.url}/v1"}]})


def test_a_backup_made_while_jobs_run_serves_the_same_bytes(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    with http_service(tmp_path / "live") as service:
        done = _ended(service, _create(service).json()["id"])["id"]
        audio = f"/v1/audio/speech/jobs/{done}/audio?format=wav"
        expected = requests.get(service.url + audio, timeout=PATIENCE_SECONDS).content
        _slow(service)
        running = _create(service).json()["id"]
        _until_called(service, 37)  # the second job has clips
        source, target = sqlite3.connect(tmp_path / "live" / "jobs.db"), sqlite3.connect(copy / "jobs.db")
        with closing(source), closing(target):
            source.backup(target)
        shutil.copytree(tmp_path / "live" / "clips", copy / "clips", ignore=shutil.ignore_patterns(".*"))
    with http_service(copy) as restored:
        assert requests.get(restored.url + audio, timeout=PATIENCE_SECONDS).content == expected
        job = _ended(restored, running)
        assert job["status"] == "completed"
        assert len(restored.backend.calls) < 24


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_clip_that_is_not_as_it_was_stored_is_never_served(tmp_path: Path, damage: str) -> None:
    with http_service(tmp_path) as service:
        job_id = _ended(service, _create(service).json()["id"])["id"]
        clip = min((tmp_path / "clips" / str(job_id) / "clips").iterdir())
        body = bytearray(clip.read_bytes())
        clip.unlink()
        if damage == "cut":
            clip.write_bytes(body[: len(body) // 2])
        elif damage == "changed":
            body[len(body) // 2] ^= 0xFF
            clip.write_bytes(body)
        for path in ("audio?format=mp3", "chunks/0/audio"):
            answer = requests.get(f"{service.url}/v1/audio/speech/jobs/{job_id}/{path}", timeout=PATIENCE_SECONDS)
            assert answer.status_code == 503, path
            assert answer.json()["error"]["code"] == "store_unavailable"
