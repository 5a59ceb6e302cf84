"""What a clip store must do; every test runs on a directory and on an S3 server."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from tests.unit.tcp_proxy import Proxy
from tts_actors.errors import StoreUnavailable
from tts_actors.stores import clips as clip_stores
from tts_actors.stores.clips import ObjectClipStore

KEY = "job-1/clips/0.wav"


@pytest.fixture
def clips(clip_url: str) -> ObjectClipStore:
    return ObjectClipStore(clip_url)


async def test_what_is_put_is_read_back_whole_and_in_parts(clips: ObjectClipStore) -> None:
    await clips.put(KEY, b"first")
    assert await clips.get(KEY) == b"first"
    assert await clips.get_range(KEY, 1, 3) == b"ir"
    assert await clips.size(KEY) == 5


async def test_a_clip_is_written_once(clips: ObjectClipStore, tmp_path: Path) -> None:
    await clips.put(KEY, b"first")
    await clips.put(KEY, b"second")
    (tmp_path / "third").write_bytes(b"third")
    await clips.put_file(KEY, str(tmp_path / "third"))
    assert await clips.get(KEY) == b"first"


async def test_two_may_delete_the_same_objects_at_once(clips: ObjectClipStore) -> None:
    for number in range(100):
        await clips.put(f"job-1/clips/{number}.wav", b"spoken")
    await asyncio.gather(*(clips.delete_prefix("job-1") for _ in range(4)))
    assert [await clips.size(f"job-1/clips/{number}.wav") for number in range(100)] == [None] * 100


async def test_of_writers_at_once_one_wins_and_nobody_sees_a_mixture(clips: ObjectClipStore) -> None:
    bodies = [bytes([number]) * 100_000 for number in range(8)]
    await asyncio.gather(*(clips.put(KEY, body) for body in bodies))
    assert await clips.get(KEY) in bodies


async def test_what_is_not_there_is_none(clips: ObjectClipStore) -> None:
    assert await clips.get(KEY) is None
    assert await clips.size(KEY) is None
    await clips.ping()
    with pytest.raises(StoreUnavailable):
        await clips.get_range(KEY, 0, 1)


async def test_large_files_come_back_in_ranges(clips: ObjectClipStore, tmp_path: Path) -> None:
    body = os.urandom(1024 * 1024) * 24
    (tmp_path / "large").write_bytes(body)
    await clips.put_file("job-1/outputs/large.mp3", str(tmp_path / "large"))
    assert await clips.size("job-1/outputs/large.mp3") == len(body)
    middle = 12 * 1024 * 1024 - 7
    assert await clips.get_range("job-1/outputs/large.mp3", middle, middle + 99) == body[middle : middle + 99]
    assert await clips.get("job-1/outputs/large.mp3") == body


async def test_deleting_a_job_spares_others_with_a_similar_name(clips: ObjectClipStore, tmp_path: Path) -> None:
    for number in range(3):
        await clips.put(f"job-1/clips/{number}.wav", b"a")
    await clips.put("job-10/clips/0.wav", b"other")
    await clips.delete_prefix("job-1")
    await clips.delete_prefix("job-1")
    assert await clips.get("job-1/clips/1.wav") is None
    assert await clips.get("job-10/clips/0.wav") == b"other"
    assert not (tmp_path / "clips" / "job-1").exists()


async def test_a_new_clip_is_on_the_disk_before_put_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    clips = ObjectClipStore(f"file://{tmp_path}/clips")
    await clips.put(KEY, b"a")
    assert synced[0].startswith(".0.wav.")
    assert set(synced[1:]) == {"clips", "job-1"}
    assert os.listdir(tmp_path / "clips" / "job-1" / "clips") == ["0.wav"]


async def test_a_prepared_folder_is_on_the_disk_and_the_first_clip_only_adds_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    store = ObjectClipStore(f"file://{tmp_path}/store")
    await store.prepare("job-1/clips")
    await store.prepare("job-1/clips")
    assert synced == ["job-1", "store"]
    synced.clear()
    await store.put(KEY, b"a")
    assert len(synced) == 2
    assert synced[1] == "clips"


async def test_clips_that_come_together_are_forced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    store = ObjectClipStore(f"file://{tmp_path}/store")
    await store.prepare("job-1/clips")
    await store.put("job-1/clips/0.wav", b"first")
    monkeypatch.setattr(os, "fsync", noting)
    stored = await asyncio.gather(*(store.put(f"job-1/clips/{n}.wav", b"%d" % n) for n in range(20)))
    assert stored == [False] + [True] * 19
    assert len(set(synced)) == 20
    assert synced[-1] == "clips"
    assert synced.count("clips") == 1
    assert await store.get("job-1/clips/0.wav") == b"first"
    assert await store.get("job-1/clips/19.wav") == b"19"
    assert len(os.listdir(tmp_path / "store" / "job-1" / "clips")) == 20


async def test_a_clip_that_cannot_be_written_fails_alone(tmp_path: Path) -> None:
    store = ObjectClipStore(f"file://{tmp_path}/store")
    await store.put("job-1/clips", b"a file where a folder should be")
    outcomes = await asyncio.gather(
        *(store.put(key, b"a") for key in ("job-0/clips/0.wav", "job-1/clips/0.wav", "job-2/clips/0.wav")),
        return_exceptions=True,
    )
    assert outcomes[0] is True
    assert isinstance(outcomes[1], StoreUnavailable)
    assert outcomes[2] is True


async def test_preparing_harms_nothing_that_is_there(clips: ObjectClipStore) -> None:
    await clips.put(KEY, b"first")
    await clips.prepare("job-1/clips")
    await clips.prepare("job-2/clips")
    assert await clips.get(KEY) == b"first"
    await clips.put("job-2/clips/0.wav", b"second")
    assert await clips.get("job-2/clips/0.wav") == b"second"


STEPS: dict[str, Callable[[ObjectClipStore, str], Awaitable[object]]] = {
    "prepare": lambda clips, _: clips.prepare("job-2/clips"),
    "put": lambda clips, _: clips.put("job-2/clips/0.wav", b"a"),
    "put_file": lambda clips, file: clips.put_file("job-2/outputs/0.mp3", file),
    "get": lambda clips, _: clips.get(KEY),
    "get_range": lambda clips, _: clips.get_range(KEY, 0, 1),
    "size": lambda clips, _: clips.size(KEY),
    "remove": lambda clips, _: clips.remove(KEY),
    "delete_prefix": lambda clips, _: clips.delete_prefix("job-1"),
}


async def _fails_in_time(clips: ObjectClipStore, steps: Sequence[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a file")
    for step in steps:
        with pytest.raises(StoreUnavailable):
            async with asyncio.timeout(20):  # a hundred times what it may take
                await STEPS[step](clips, str(tmp_path / "file"))


async def test_an_object_store_that_hangs_is_unavailable_whatever_is_asked_of_it(
    s3_url: str, s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_stores, "REQUEST_SECONDS", 0.2)
    async with Proxy(s3_port).running() as door:
        monkeypatch.setenv("AWS_ENDPOINT", door.url)
        clips = ObjectClipStore(s3_url)
        door._flowing.clear()
        await _fails_in_time(clips, [step for step in STEPS if step != "prepare"], tmp_path)
        door._flowing.set()
        assert await clips.put(KEY, b"again")
        assert await clips.get(KEY) == b"again"


async def test_a_file_may_take_longer_than_a_request_for_a_clip(
    s3_url: str, s3_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"a book")
    async with Proxy(s3_port).running() as door:
        monkeypatch.setenv("AWS_ENDPOINT", door.url)
        clips = ObjectClipStore(s3_url, call_seconds=0.1)
        door._flowing.clear()
        stored = asyncio.create_task(clips.put_file("job-1/outputs/0.mp3", str(tmp_path / "file")))
        with pytest.raises(StoreUnavailable):  # each of its three requests was given up
            await clips.put(KEY, b"a clip")
        door._flowing.set()
        assert await stored
        assert await clips.get("job-1/outputs/0.mp3") == b"a book"


async def test_a_disk_that_hangs_is_unavailable_and_what_waits_behind_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_stores, "REQUEST_SECONDS", 0.2)
    clips = ObjectClipStore(f"file://{tmp_path}/clips")
    well, fsync = threading.Event(), os.fsync

    def hanging(handle: int) -> None:
        assert well.wait(60)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", hanging)
    os.makedirs(tmp_path / "clips" / "job-1" / "clips")
    os.mkfifo(tmp_path / "clips" / KEY)  # reading it hangs as long as nobody writes
    await _fails_in_time(clips, ["prepare", "put", "put", "put_file", "get"], tmp_path)
    well.set()
    os.close(os.open(tmp_path / "clips" / KEY, os.O_WRONLY))  # lets the reader go
    monkeypatch.setattr(clip_stores, "REQUEST_SECONDS", 60.0)
    assert await clips.put("job-3/clips/0.wav", b"again")
    assert await clips.get("job-3/clips/0.wav") == b"again"
