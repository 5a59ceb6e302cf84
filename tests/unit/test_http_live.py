"""Live audio and events of a job over a real socket."""

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import structlog

from tests.unit.http_service import HttpService, http_service
from tts_actors.audio import MEDIA_TYPES, decode_take
from tts_actors.testing import Faults

JOBS = "/v1/audio/speech/jobs"
TEXT = "The lamp is lit. The sea is calm tonight!\n\nA new paragraph. Does nobody sail?"
SLOW = "The lamp is lit. The sea is [[delay:600000]] calm tonight."
BROKEN = "The lamp is lit. The sea is [[fault:400]][[delay:300]] calm tonight. Nobody sails."
ANSWER_SECONDS = 90
FORMATS = ["wav", "pcm", "mp3", "flac", "opus"]
PADDING = {"mp3": 3_000, "opus": 0, "flac": 0, "wav": 0, "pcm": 0}
"""Samples by which a stream may be longer than the clips: LAME's delay and its last frame."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    # Time-outs beyond the slow chunk's delay: on a machine under load its job failed before the test had looked at it.
    patient = {"base_ms": 3_000_000, "backend_cap_ms": 3_000_000, "cap_ms": 3_600_000}
    with http_service(tmp_path_factory.mktemp("live"), timeouts=patient) as running:
        yield running


@pytest.fixture(autouse=True)
def _healthy(service: HttpService) -> Iterator[None]:
    yield
    service.backend.faults = Faults()


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up, "the condition did not come true"
        time.sleep(0.01)  # the condition lies in another thread


def create(service: HttpService, text: str = TEXT, **fields: Any) -> str:
    body = {"model": "fake-tts", "input": text} | fields
    answer = requests.post(service.url + JOBS, json=body, timeout=ANSWER_SECONDS)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def get(service: HttpService, path: str, **options: Any) -> requests.Response:
    return requests.get(f"{service.url}{JOBS}/{path}", timeout=ANSWER_SECONDS, **options)


def finished(service: HttpService, text: str = TEXT, **fields: Any) -> str:
    job_id = create(service, text, **fields)
    assert get(service, f"{job_id}?wait=60").json()["finished_at"] is not None
    return job_id


def cancel(service: HttpService, job_id: str) -> None:
    requests.post(f"{service.url}{JOBS}/{job_id}/cancel", timeout=ANSWER_SECONDS)


def samples(data: bytes, fmt: str) -> "np.ndarray[Any, np.dtype[np.int16]]":
    if fmt == "pcm":
        return np.frombuffer(data, "<i2")
    return decode_take(data, MEDIA_TYPES[fmt])


def events(answer: requests.Response) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """Name, id (None: without one) and data of each event."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    fields: dict[str, str] = {}
    for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields["event"], fields.get("id"), json.loads(fields["data"])
            fields = {}


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_live_stream_decodes_to_the_finished_file(service: HttpService, fmt: str) -> None:
    service.backend.faults = Faults(jitter_ms=100, seed=4)  # chunks finish in any order
    job_id = create(service)
    live = get(service, f"{job_id}/audio?live=1&format={fmt}")
    assert live.status_code == 200
    assert live.headers["x-tts-job-id"] == job_id
    assert live.headers["x-accel-buffering"] == "no"
    file = get(service, f"{job_id}/audio?format={fmt}")
    assert live.headers["content-type"] == file.headers["content-type"]
    heard, wanted = samples(live.content, fmt), samples(file.content, fmt)
    assert 0 <= len(heard) - len(wanted) <= PADDING[fmt]
    np.testing.assert_array_equal(heard[: len(wanted)], wanted)


def test_a_finished_job_just_streams(service: HttpService) -> None:
    job_id = finished(service)
    live = get(service, f"{job_id}/audio?live=1&format=pcm")
    assert live.content == get(service, f"{job_id}/audio?format=pcm").content


def test_a_streamed_wav_says_that_its_size_is_unknown(service: HttpService) -> None:
    job_id = finished(service)
    head = get(service, f"{job_id}/audio?live=1&format=wav").content[:44]
    assert head[4:8] == head[40:44] == b"\xff\xff\xff\xff"


def test_a_streamed_mp3_has_neither_tags_nor_a_xing_frame(service: HttpService) -> None:
    data = get(service, f"{finished(service)}/audio?live=1&format=mp3").content
    assert data[0] == 0xFF
    assert data[1] & 0xE0 == 0xE0
    assert not any(mark in data for mark in (b"ID3", b"Xing", b"Info", b"LAME3"))


def test_the_first_chunk_is_heard_while_the_second_is_being_spoken(service: HttpService) -> None:
    job_id = create(service, SLOW)
    with get(service, f"{job_id}/audio?live=1&format=pcm", stream=True) as answer:
        blocks = answer.iter_content(1_024)
        assert len(next(blocks)) == 1_024
        assert get(service, job_id).json()["status"] == "in_progress"
        cancel(service, job_id)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(blocks)


def test_a_failure_midway_breaks_the_stream_off(service: HttpService) -> None:
    for fmt in ("mp3", "wav"):
        job_id = create(service, BROKEN)
        answer = get(service, f"{job_id}/audio?live=1&format={fmt}", stream=True)
        assert answer.status_code == 200
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            answer.content  # noqa: B018 - reading it is what fails


def test_of_a_stream_that_breaks_off_the_log_has_our_line_and_not_the_reason(
    service: HttpService, caplog: pytest.LogCaptureFixture
) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = get(service, f"{create(service, BROKEN)}/audio?live=1&format=wav", stream=True)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            answer.content  # noqa: B018 - reading it is what fails
        until(lambda: any("without completing" in record.message for record in caplog.records))
    aborted = [log for log in logs if log["event"] == "response_aborted"]
    assert [(log["kind"], log["path"]) for log in aborted] == [("HasGaps", f"{JOBS}/{{job_id}}/audio")]
    assert not [record for record in caplog.records if record.exc_info]


def test_a_job_that_fails_before_its_first_chunk_is_an_error_and_not_a_stream(service: HttpService) -> None:
    job_id = create(service, "The lamp [[fault:400]] is lit. The sea is calm.")
    answer = get(service, f"{job_id}/audio?live=1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "has_gaps")


def test_gaps_are_silent_in_a_stream_on_request_only(service: HttpService) -> None:
    job_id = create(service, BROKEN, on_chunk_failure="silence")
    live = get(service, f"{job_id}/audio?live=1&format=pcm&gaps=silence")
    assert live.content == get(service, f"{job_id}/audio?format=pcm&gaps=silence").content


def test_a_lost_clip_is_an_error_and_not_a_stream(service: HttpService) -> None:
    job_id = finished(service)
    for clip in Path(service.parts.args.clip_url.removeprefix("file://"), job_id, "clips").iterdir():
        clip.unlink()
    for path in ("audio?format=wav", "audio?live=1&format=wav", "audio?live=1&format=mp3"):
        answer = get(service, f"{job_id}/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable"), path


def test_twenty_listeners_share_one_encoder_and_hear_the_same(service: HttpService) -> None:
    live = service.parts.service._live
    job_id = create(service, SLOW.replace("600000", "1500"))
    before = threading.Barrier(20)

    def listen() -> bytes:
        before.wait(ANSWER_SECONDS)
        return get(service, f"{job_id}/audio?live=1&format=mp3").content

    with ThreadPoolExecutor(20) as pool:
        heard = [pool.submit(listen) for _ in range(20)]
        until(lambda: live.encoders)
        most = max(live.encoders for _ in itertools.takewhile(lambda _: not heard[0].done(), itertools.count()))
        assert len({future.result() for future in heard}) == 1
    assert most == 1
    until(lambda: not live.encoders and not live._tracks)


def test_a_late_listener_hears_the_stream_from_its_start(service: HttpService) -> None:
    job_id = create(service, SLOW.replace("600000", "1500"))
    with get(service, f"{job_id}/audio?live=1&format=mp3", stream=True) as early:
        blocks = early.iter_content(100)
        first = next(blocks)
        late = get(service, f"{job_id}/audio?live=1&format=mp3")
        assert late.content == first + b"".join(blocks)


def test_a_listener_who_leaves_takes_the_encoder_along(service: HttpService) -> None:
    live = service.parts.service._live
    job_id = create(service, SLOW)
    with get(service, f"{job_id}/audio?live=1&format=mp3", stream=True) as answer:
        blocks = answer.iter_content(100)
        assert answer.status_code == 200, next(blocks)
        next(blocks)
        assert live.encoders == 1
    until(lambda: not live.encoders and not live._tracks)
    cancel(service, job_id)


def test_what_a_slow_listener_does_not_take_is_not_encoded_for_it(
    service: HttpService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound: two blocks a listener, and AHEAD_BYTES on disk ahead of the fastest."""
    monkeypatch.setattr("tts_actors.live.AHEAD_BYTES", 4_096)
    monkeypatch.setattr("tts_actors.live.BLOCK_BYTES", 1_024)
    monkeypatch.setattr("tts_actors.outputs.READ_BYTES", 2_048)
    text = "The lamp is lit. The sea is calm. " * 100
    job_id = finished(service, text)
    live = service.parts.service._live

    async def slow() -> tuple[int, int, int]:
        job, given = await service.parts.service.input("", job_id)
        body = live.listen(job, given, "flac", fills_gaps=False)
        taken = len(await anext(body))
        spool = next(iter(live._spools.values())).value
        while spool._size <= spool._furthest + 4_096:  # noqa: ASYNC110 - nothing tells that the encoder has stopped
            await asyncio.sleep(0.01)
        size = spool._size
        rest = b"".join([block async for block in body])
        return taken, size, taken + len(rest)

    loop = service.loop
    taken, ahead, whole = asyncio.run_coroutine_threadsafe(slow(), loop).result(ANSWER_SECONDS)
    assert taken <= 1_024
    assert ahead < 100_000 < whole


def test_head_of_a_live_stream_has_its_headers_and_starts_nothing(service: HttpService) -> None:
    job_id = create(service, SLOW)
    answer = requests.head(f"{service.url}{JOBS}/{job_id}/audio?live=1", timeout=ANSWER_SECONDS)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")
    assert not service.parts.service._live.encoders
    cancel(service, job_id)


def test_events_tell_every_chunk_once_and_end_with_the_end(service: HttpService) -> None:
    job_id = create(service)
    seen = list(events(get(service, f"{job_id}/events", stream=True)))
    assert sorted(data["index"] for name, _, data in seen if name == "chunk") == [0, 1, 2, 3]
    assert all(data["state"] == "completed" for name, _, data in seen if name == "chunk")
    name, last_id, job = seen[-1]
    assert (name, job["status"]) == ("status", "completed")
    assert {event[0] for event in seen} == {"status", "chunk", "progress"}
    progress = [data["progress"] for name, _, data in seen if name == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert get(service, f"{job_id}/events", headers={"Last-Event-ID": str(last_id)}).status_code == 204


def test_events_go_on_behind_any_id(service: HttpService) -> None:
    service.backend.faults = Faults(jitter_ms=200, seed=3)
    job_id = create(service)
    seen = list(events(get(service, f"{job_id}/events", stream=True)))
    chunks = [data["index"] for name, _, data in seen if name == "chunk"]
    for position, (_, event_id, _) in enumerate(seen[:-1]):
        if event_id is None:
            continue
        had = [data["index"] for name, _, data in seen[: position + 1] if name == "chunk"]
        answer = get(service, f"{job_id}/events", headers={"Last-Event-ID": event_id}, stream=True)
        rest = list(events(answer))
        assert had + [data["index"] for name, _, data in rest if name == "chunk"] == chunks
        assert rest[-1][0] == "status"


def test_events_of_a_running_job_begin_with_its_state(service: HttpService) -> None:
    job_id = create(service, SLOW)
    with get(service, f"{job_id}/events", stream=True) as answer:
        stream = events(answer)
        name, event_id, job = next(stream)
        assert (name, event_id, job["id"]) == ("status", None, job_id)
        chunk = next(data for name, _, data in stream if name == "chunk")
        assert chunk["index"] == 0
        cancel(service, job_id)
        assert [data["status"] for name, _, data in stream if name == "status"][-1] == "cancelled"


def test_the_events_of_a_job_that_is_deleted_end(service: HttpService) -> None:
    job_id = create(service, SLOW)
    with get(service, f"{job_id}/events", stream=True) as answer:
        stream = events(answer)
        next(stream)
        requests.delete(f"{service.url}{JOBS}/{job_id}", timeout=ANSWER_SECONDS)
        list(stream)
    assert get(service, f"{job_id}/events").status_code == 404


def test_an_id_that_is_none_of_ours_means_from_the_start(service: HttpService) -> None:
    job_id = finished(service)
    for given in ("x", "-1", "99999999999999", "1-2-3"):
        answer = get(service, f"{job_id}/events", headers={"Last-Event-ID": given}, stream=True)
        assert sum(name == "chunk" for name, _, _ in events(answer)) == 4
