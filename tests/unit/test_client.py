"""The client against the real HTTP application over real sockets."""

import io
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from tests.unit.http_service import BUSY, HttpService, http_service
from tests.unit.tcp_proxy import Cut
from tts_actors.client import ApiError, Job, TtsClient, Unreachable, open_job
from tts_actors.client.connection import Connection
from tts_actors.errors import ConfigError, NotReady, TtsError
from tts_actors.models import JobState

TEXT = "The lamp is lit. The sea is calm tonight. Nobody sails."
HANGING = "The lamp is lit. The sea is [[fault:hang]] calm tonight."
BROKEN = "The lamp is lit. The sea is [[fault:400]] calm tonight. Nobody sails."


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with http_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def client(service: HttpService) -> Iterator[TtsClient]:
    with TtsClient(service.url) as client:
        yield client


@pytest.fixture
def shaky(service: HttpService) -> Iterator[TtsClient]:
    """A client whose connections the proxy may break."""
    with TtsClient(service.proxy.url) as client:
        yield client
    service.proxy.order()


def spoken(client: TtsClient, text: str = TEXT) -> Job:
    job = client.wait(client.create(text, response_format="wav").id)
    assert job.complete
    return job


def test_a_text_becomes_a_file_that_decodes(client: TtsClient, tmp_path: Path) -> None:
    job = client.wait(client.create(TEXT, metadata={"book": "lighthouse"}).id)
    assert (job.status, job.chunks_completed, job.chunks_failed) == (JobState.COMPLETED, 3, 0)
    assert job.character_count == len(TEXT)
    assert job.metadata == {"book": "lighthouse"}
    assert job.raw["links"]["audio"].endswith("/audio")
    for fmt in ("mp3", "wav", "flac"):
        path = client.download(job.id, tmp_path / f"out.{fmt}", format=fmt)
        audio, rate_hz = soundfile.read(path)
        assert rate_hz == 24_000
        assert len(audio) / rate_hz > job.audio_seconds_ready
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".flac", ".mp3", ".wav"]


def test_options_reach_the_service_under_the_contracts_names(client: TtsClient) -> None:
    plan = client.plan("one two three four five six", chunking="character_count", max_characters=10)
    assert len(plan["chunks"]) > 1
    assert max(chunk["characters"] for chunk in plan["chunks"]) <= 10
    with pytest.raises(TypeError, match="colour"):
        client.create(TEXT, colour="red")  # type: ignore[call-arg]


def test_a_plan_makes_no_job(client: TtsClient) -> None:
    before = client.list(limit=1).jobs
    assert client.plan(TEXT)["character_count"] == len(TEXT)
    assert client.list(limit=1).jobs == before


def test_watching_shows_progress_and_the_end(client: TtsClient) -> None:
    job = client.create(HANGING)
    seen = []
    for change in client.watch(job.id):
        seen.append(change)
        if change.chunks_completed == 1:
            client.cancel(job.id)
    assert any(0 < change.progress < 1 and change.status is JobState.IN_PROGRESS for change in seen)
    assert [change.ended for change in seen[:-1]] == [False] * (len(seen) - 1)
    assert seen[-1].status is JobState.CANCELLED
    assert [change.progress for change in seen] == sorted(change.progress for change in seen)


def test_watching_survives_an_absence_of_the_service(service: HttpService, shaky: TtsClient) -> None:
    job = shaky.create(HANGING)
    changes = shaky.watch(job.id)
    assert not next(changes).ended
    service.proxy.order(Cut(0), BUSY, Cut(20))
    with TtsClient(service.url) as other:
        other.cancel(job.id)
    assert list(changes)[-1].status is JobState.CANCELLED
    assert not service.proxy.orders


def test_watching_gives_up_when_the_service_stays_away(service: HttpService, shaky: TtsClient) -> None:
    job = shaky.create(HANGING)
    changes = shaky.watch(job.id, away_seconds=0)
    next(changes)
    service.proxy.order(*[BUSY] * 3)
    with pytest.raises(ApiError) as caught:
        list(changes)
    assert (caught.value.status, caught.value.retryable) == (503, True)
    service.proxy.orders.clear()
    shaky.cancel(job.id)


def test_waiting_for_too_long_is_not_ready(client: TtsClient) -> None:
    job = client.create(HANGING)
    with pytest.raises(NotReady, match="0 s"):
        client.wait(job.id, timeout_seconds=0)
    assert client.cancel(job.id).status is JobState.CANCELLED
    assert client.cancel(job.id).status is JobState.CANCELLED


def test_a_create_whose_answer_is_lost_makes_one_job(service: HttpService, shaky: TtsClient) -> None:
    newest = shaky.list(limit=1).jobs
    service.proxy.order(Cut(0))
    job = shaky.create(TEXT)
    assert not service.proxy.orders
    after = shaky.list(limit=2).jobs
    assert [after[0].id, *(j.id for j in after[1:])] == [job.id, *(j.id for j in newest)]


def test_the_same_key_or_id_is_the_same_job(client: TtsClient) -> None:
    first = client.create(TEXT, idempotency_key="chapter-1")
    assert client.create(TEXT, idempotency_key="chapter-1").id == first.id
    assert client.create(TEXT).id != first.id
    assert client.create(TEXT, job_id="my-chapter").id == "my-chapter"
    assert client.create(TEXT, job_id="my-chapter").id == "my-chapter"
    for again in ({"idempotency_key": "chapter-1"}, {"job_id": "my-chapter"}):
        with pytest.raises(ApiError) as caught:
            client.create("Another text.", **again)  # type: ignore[arg-type]
        assert (caught.value.status, caught.value.code) == (422, "request_mismatch")


def test_a_broken_download_goes_on_where_it_broke(service: HttpService, shaky: TtsClient, tmp_path: Path) -> None:
    job = spoken(shaky)
    whole = shaky.download(job.id, tmp_path / "whole.wav").read_bytes()
    service.proxy.heads.clear()
    service.proxy.order(Cut(len(whole) // 2), Cut(len(whole) // 4))
    parts = shaky.download(job.id, tmp_path / "parts.wav").read_bytes()
    assert parts == whole
    ranges = [head for head in service.proxy.heads if "range: bytes=" in head.lower()]
    assert len(ranges) == 2
    assert all("if-range:" in head.lower() for head in ranges)
    assert soundfile.info(io.BytesIO(parts)).frames > 0


def test_a_download_that_cannot_be_finished_leaves_the_target_alone(
    service: HttpService, client: TtsClient, tmp_path: Path
) -> None:
    target = tmp_path / "book.wav"
    target.write_bytes(b"before")
    job = client.create(HANGING)
    with pytest.raises(ApiError) as caught:
        client.download(job.id, target, wait_seconds=0)
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (409, "not_ready", True)
    client.cancel(job.id)
    assert [path.name for path in tmp_path.iterdir()] == ["book.wav"]
    assert target.read_bytes() == b"before"


def test_a_download_waits_for_the_file(client: TtsClient, tmp_path: Path) -> None:
    job = client.create("The lamp [[delay:300]] is lit.")
    assert client.download(job.id, tmp_path / "out.mp3").stat().st_size > 0


def test_gaps_are_refused_unless_silence_is_wanted(client: TtsClient, tmp_path: Path) -> None:
    job = client.wait(client.create(BROKEN, on_chunk_failure="silence").id)
    assert (job.status, job.chunks_failed) == (JobState.COMPLETED_WITH_GAPS, 1)
    with pytest.raises(ApiError) as caught:
        client.download(job.id, tmp_path / "out.wav", format="wav")
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (409, "has_gaps", False)
    assert client.download(job.id, tmp_path / "out.wav", format="wav", gaps="silence").stat().st_size > 44
    manifest = client.manifest(job.id)
    assert manifest["gaps"] == [1]
    assert manifest["coverage"] < 1
    assert [chunk["state"] for chunk in client.chunks(job.id)] == ["completed", "failed", "completed"]


def test_a_failed_job_says_why_and_can_be_tried_again(client: TtsClient) -> None:
    job = client.wait(client.create(BROKEN).id)
    assert (job.status, job.error_code) == (JobState.FAILED, "chunk_failed")
    assert job.error_message
    assert client.retry(job.id).status in (JobState.QUEUED, JobState.IN_PROGRESS)
    assert client.wait(job.id).status is JobState.FAILED


def test_a_deleted_job_is_gone(client: TtsClient) -> None:
    job = spoken(client)
    client.delete(job.id)
    with pytest.raises(ApiError) as caught:
        client.get(job.id)
    assert caught.value.status == 404


def test_lists_are_paged_newest_first(client: TtsClient) -> None:
    made = [client.create(f"Text number {n}.").id for n in range(3)]
    first = client.list(limit=2)
    second = client.list(limit=2, after=first.jobs[-1].id)
    assert [job.id for job in (*first.jobs, *second.jobs)][:3] == made[::-1]
    assert first.has_more
    for job_id in made:
        client.wait(job_id)
    assert {job.status for job in client.list(status="completed").jobs} == {JobState.COMPLETED}


def test_refusals_carry_all_that_the_service_said(client: TtsClient) -> None:
    with pytest.raises(ApiError) as caught:
        client.create(TEXT, speed=9.0)
    error = caught.value
    assert (error.status, error.code, error.param, error.retryable) == (400, "invalid_request", "speed", False)
    assert error.request_id
    assert isinstance(error, TtsError)
    assert "speed" in str(error)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (copy.status, copy.code, copy.request_id) == (error.status, error.code, error.request_id)


@pytest.mark.parametrize("job_id", ["job-0", "", "..", "a/b", "job?x=1", "ünknown"])
def test_unknown_jobs_are_not_found(client: TtsClient, job_id: str) -> None:
    with pytest.raises(ApiError) as caught:
        client.get(job_id)
    assert caught.value.status == 404


def test_keys_are_sent_and_missing_ones_refused(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("me:secret\n")
    with http_service(tmp_path, auth={"keys_env": None, "keys_file": str(keys)}) as locked:
        with TtsClient(locked.url) as stranger, pytest.raises(ApiError) as caught:
            stranger.list()
        assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
        with TtsClient(locked.url, "secret") as known:
            assert known.list().jobs == ()
            assert known.ready()


def test_a_service_that_is_not_there_is_unreachable_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with TtsClient(f"http://127.0.0.1:{port}") as client:
        assert not client.ready()
        with pytest.raises(Unreachable, match=str(port)) as caught:
            client.create(TEXT)
        assert caught.value.retryable
        assert caught.value.refused


def test_an_answer_of_something_else_is_said_to_be_that(service: HttpService, shaky: TtsClient) -> None:
    body = b"<html>hello</html>"
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    service.proxy.order(head + body)
    with pytest.raises(ApiError) as caught:
        shaky.list()
    assert caught.value.code == "unexpected_answer"
    service.proxy.order(head.replace(b"200 OK", b"418 Teapot") + body)
    with pytest.raises(ApiError, match="hello") as caught:
        shaky.list()
    assert (caught.value.status, caught.value.code) == (418, "http_error")


def test_proxies_of_the_environment_are_for_other_machines() -> None:
    for url, trusts in (("http://127.0.0.1:1", False), ("http://localhost:1", False), ("https://tts.example", True)):
        connection = Connection(url, None, 1.0)
        assert connection._session.trust_env is trusts
        connection.close()


def test_opening_a_job_without_a_cluster_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"ray\.init"):
        open_job("job-1")
