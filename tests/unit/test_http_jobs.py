"""The job door, ``/v1/audio/speech/jobs``, over a real socket: creation, reading, files, control, removal."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import soundfile

from tests.unit.http_service import HttpService, http_service
from tts_actors.audio import wav_bytes
from tts_actors.planning import estimated_finish_seconds

JOBS = "/v1/audio/speech/jobs"
TEXT = "The lamp is lit. The sea is calm tonight!\n\nA new paragraph. Does nobody sail?"
SLOW = "The lamp is lit. The sea is [[delay:60000]] calm tonight."
BROKEN = "The lamp is lit. The sea is [[fault:400]] calm tonight. Nobody sails."
RATE_HZ = 24_000
ANSWER_SECONDS = 90
MEDIA_TYPES = {
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/ogg",
}


@dataclass(frozen=True)
class Door:
    """The job door of a running service."""

    url: str

    def ask(self, method: str, path: str = "", **options: Any) -> requests.Response:
        return requests.request(method, self.url + JOBS + path, timeout=ANSWER_SECONDS, **options)

    def get(self, path: str = "", **options: Any) -> requests.Response:
        return self.ask("GET", path, **options)

    def create(self, text: str = TEXT, headers: dict[str, str] | None = None, **fields: Any) -> requests.Response:
        body = {"model": "fake-tts", "input": text} | fields
        return self.ask("POST", json=body, headers=headers)

    def speech(self, text: str, **fields: Any) -> requests.Response:
        body = {"model": "fake-tts", "input": text} | fields
        return requests.post(f"{self.url}/v1/audio/speech", json=body, timeout=ANSWER_SECONDS)

    def put(self, job_id: str, text: str = TEXT, **fields: Any) -> requests.Response:
        return self.ask("PUT", f"/{job_id}", json={"model": "fake-tts", "input": text} | fields)

    def finished(self, text: str = TEXT, **fields: Any) -> dict[str, Any]:
        created = self.create(text, **fields)
        assert created.status_code == 202, created.text
        job = dict(self.get(f"/{created.json()['id']}?wait=60").json())
        assert job["finished_at"] is not None, job
        return job

    def slow(self) -> str:
        return str(self.create(SLOW).json()["id"])

    def ids(self, query: str = "") -> list[str]:
        return [job["id"] for job in self.get(query).json()["data"]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def service(directory: Path) -> Iterator[HttpService]:
    with http_service(directory) as running:
        yield running


@pytest.fixture(scope="module")
def door(service: HttpService) -> Door:
    return Door(service.url)


@pytest.fixture(scope="module")
def done(door: Door) -> str:
    """A completed job of four chunks with sentence and paragraph pauses between them."""
    job = door.finished()
    assert (job["status"], job["chunks"]["total"]) == ("completed", 4)
    return str(job["id"])


@pytest.fixture(scope="module")
def pcm(door: Door, done: str) -> bytes:
    return door.get(f"/{done}/audio?format=pcm").content


@pytest.fixture(scope="module")
def gappy(door: Door) -> str:
    job = door.finished(BROKEN, on_chunk_failure="silence")
    assert job["status"] == "completed_with_gaps"
    return str(job["id"])


@pytest.fixture
def running(door: Door) -> Iterator[str]:
    """A job whose first chunk comes and whose second one does not."""
    job_id = door.slow()
    yield job_id
    door.ask("DELETE", f"/{job_id}")


def until(condition: Callable[[], bool]) -> None:
    """Return once ``condition`` holds; the suite's own time limit ends what never does."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.01)


def problem(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    """The error of an answer in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["x-request-id"]
    error = dict(answer.json()["error"])
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    return error


def formula_ms(characters: int) -> int:
    return min(min(5_000 + 35 * characters, 70_000) + 5_000, 75_000)


# -- creation -------------------------------------------------------------------------------


def test_a_job_is_accepted_with_its_address_and_all_its_fields(door: Door) -> None:
    answer = door.create(voice={"id": "tone"}, response_format="wav", metadata={"book": "one"})
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"{JOBS}/{job['id']}"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-tts-job-id"] == job["id"]
    assert answer.headers["x-tts-orchestrator-timeout-ms"] == str(job["orchestrator_timeout_ms"])
    names = """id object status created_at started_at finished_at expires_at orchestrator_timeout_ms job_timeout_ms
        poll_after_ms character_count chunks progress eta_seconds audio_seconds_ready model voice response_format
        metadata error links"""
    assert set(job) == set(names.split())
    assert set(job["chunks"]) == {"total", "completed", "failed", "in_flight"}
    assert set(job["links"]) == {"self", "audio", "events", "chunks", "captions", "manifest", "cancel"}
    assert job["object"] == "audio.speech.job"
    assert job["status"] in ("queued", "in_progress")  # with a warm actor it runs at once
    assert (job["model"], job["voice"], job["response_format"]) == ("fake-tts", "tone", "wav")
    assert (job["character_count"], job["metadata"], job["progress"]) == (len(TEXT), {"book": "one"}, 0)
    assert type(job["created_at"]) is int
    assert door.get(f"/{job['id']}").json()["id"] == job["id"]


def test_a_finished_job_says_so_in_every_field(door: Door, done: str) -> None:
    job = door.get(f"/{done}").json()
    assert job["chunks"] == {"total": 4, "completed": 4, "failed": 0, "in_flight": 0}
    assert (job["progress"], job["eta_seconds"], job["error"]) == (1, 0, None)
    assert job["created_at"] <= job["started_at"] <= job["finished_at"] < job["expires_at"]
    assert job["audio_seconds_ready"] > 1


def test_the_orchestrator_timeout_never_changes_and_is_the_maximum_of_the_chunks(door: Door) -> None:
    created = door.create().json()
    ended = door.get(f"/{created['id']}?wait=60").json()
    chunks = door.get(f"/{created['id']}/chunks").json()["data"]
    assert created["orchestrator_timeout_ms"] == ended["orchestrator_timeout_ms"]
    assert ended["orchestrator_timeout_ms"] == max(chunk["timeout_ms"] for chunk in chunks)
    assert [chunk["timeout_ms"] for chunk in chunks] == [formula_ms(chunk["characters"]) for chunk in chunks]


def test_put_makes_a_job_once_and_refuses_another_body(door: Door) -> None:
    first = door.put("my.own_id-1")
    again = door.put("my.own_id-1")
    other = door.put("my.own_id-1", "Another text.")
    assert (first.status_code, first.json()["id"]) == (202, "my.own_id-1")
    assert first.headers["location"] == f"{JOBS}/my.own_id-1"
    assert (again.status_code, again.json()["id"]) == (200, "my.own_id-1")
    assert again.json()["created_at"] == first.json()["created_at"]
    problem(other, 422, "request_mismatch")
    assert door.get("/my.own_id-1?wait=60").json()["status"] == "completed"
    assert door.put("my.own_id-1").status_code == 200
    problem(door.put("my.own_id-1", speed=2.0), 422, "request_mismatch")


def test_an_id_is_free_again_after_its_job_was_deleted(door: Door) -> None:
    assert door.put("used-twice", "The first text is this.").status_code == 202
    door.get("/used-twice?wait=60")
    assert door.ask("DELETE", "/used-twice").status_code == 204
    assert door.put("used-twice", "One. Two other sentences.").status_code == 202
    assert door.get("/used-twice?wait=60").json()["status"] == "completed"
    assert len(door.get("/used-twice/chunks").json()["data"]) == 2
    assert len(door.get("/used-twice/audio?format=pcm").content) > RATE_HZ


def test_a_repeated_idempotency_key_gives_the_same_job(door: Door) -> None:
    key = {"Idempotency-Key": "order 66"}
    first, again = door.create(headers=key), door.create(headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    problem(door.create("Another text.", headers=key), 422, "request_mismatch")
    problem(door.create(metadata={"a": "b"}, headers=key), 422, "request_mismatch")
    assert door.create(headers={"Idempotency-Key": "order 67"}).json()["id"] != first.json()["id"]


def test_without_a_key_each_request_is_a_job_of_its_own(door: Door) -> None:
    assert door.create().json()["id"] != door.create().json()["id"]


def test_the_same_key_at_the_same_time_makes_one_job(door: Door, service: HttpService) -> None:
    text = "Only once may this be spoken."
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: door.create(text, headers={"Idempotency-Key": "rush"}), range(8)))
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    door.get(f"/{answers[0].json()['id']}?wait=60")
    assert len([call for call in service.backend.calls if call["text"] == text]) == 1


def test_of_different_bodies_for_one_id_at_the_same_time_one_wins(door: Door) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: door.put("wanted", f"This is text number {n}."), range(8)))
    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) == [202] + [422] * 7
    winner = f"This is text number {statuses.index(202)}."
    assert door.get("/wanted?wait=60").json()["character_count"] == len(winner)


def test_every_front_door_sees_the_new_job_under_an_old_id(tmp_path: Path) -> None:
    with http_service(tmp_path) as one, http_service(tmp_path) as other:
        door, second = Door(one.url), Door(other.url)
        door.put("again", "One sentence. And another sentence.")
        door.get("/again?wait=60")
        assert len(second.get("/again/chunks").json()["data"]) == 2
        assert door.ask("DELETE", "/again").status_code == 204
        door.put("again", "Only one sentence.")
        door.get("/again?wait=60")
        assert second.get("/again/chunks").json() == door.get("/again/chunks").json()


@pytest.mark.parametrize("mode", ["sentence", "character_count", "none"])
def test_a_dry_run_shows_the_plan_and_makes_no_job(door: Door, mode: str) -> None:
    before = door.ids("?limit=100")
    body = {"model": "fake-tts", "input": TEXT, "chunking": {"mode": mode, "max_characters": 45}}
    answer = door.ask("POST", "?dry_run=true", json=body)
    plan = answer.json()
    assert answer.status_code == 200
    assert set(plan) >= {"chunks", "character_count", "orchestrator_timeout_ms", "job_timeout_ms", "warnings"}
    assert {"estimated_audio_seconds", "estimated_finish_seconds"} <= set(plan)
    assert set(plan["chunks"][0]) == {"index", "char_start", "char_end", "characters", "timeout_ms"}
    assert "".join(TEXT[c["char_start"] : c["char_end"]] for c in plan["chunks"]) == TEXT
    assert plan["orchestrator_timeout_ms"] == max(formula_ms(c["characters"]) for c in plan["chunks"])
    assert plan["character_count"] == len(TEXT)
    assert "location" not in answer.headers
    assert door.ids("?limit=100") == before


def test_a_dry_run_promises_what_the_job_then_does(door: Door, done: str) -> None:
    plan = door.ask("POST", "?dry_run=true", json={"model": "fake-tts", "input": TEXT}).json()
    chunks = door.get(f"/{done}/chunks").json()["data"]
    for name in ("index", "char_start", "char_end", "characters", "timeout_ms"):
        assert [c[name] for c in plan["chunks"]] == [c[name] for c in chunks]


def test_a_plan_says_when_it_may_be_ready_once_a_backend_has_spoken(tmp_path: Path) -> None:
    with http_service(tmp_path) as service:
        door = Door(service.url)
        body = {"model": "fake-tts", "input": TEXT}
        assert door.ask("POST", "?dry_run=true", json=body).json()["estimated_finish_seconds"] is None
        door.get(f"/{door.ask('POST', '', json=body).json()['id']}?wait=60")
        assert door.ask("POST", "?dry_run=true", json=body).json()["estimated_finish_seconds"] >= 0


def test_ten_calls_take_as_long_as_the_backends_together_need_and_no_less_than_one() -> None:
    assert estimated_finish_seconds(10, []) is None
    assert estimated_finish_seconds(10, [(2, 1_000)]) == 5
    assert estimated_finish_seconds(10, [(2, 1_000), (6, 2_000)]) == 2
    assert estimated_finish_seconds(1, [(4, 1_000)]) == 1


# -- reading --------------------------------------------------------------------------------


def test_the_list_is_newest_first_and_pages_without_a_gap(tmp_path: Path) -> None:
    with http_service(tmp_path) as service:
        door = Door(service.url)
        made = [door.finished(f"Number {n}.")["id"] for n in range(5)]
        first = door.get("?limit=2").json()
        second = door.get(f"?limit=2&after={first['data'][-1]['id']}").json()
        third = door.get(f"?limit=2&after={second['data'][-1]['id']}").json()
        assert {page["object"] for page in (first, second, third)} == {"list"}
        assert [page["has_more"] for page in (first, second, third)] == [True, True, False]
        paged = [job["id"] for page in (first, second, third) for job in page["data"]]
        assert paged == made[::-1] == door.ids()
        assert door.get(f"?after={made[0]}").json() == {"object": "list", "data": [], "has_more": False}
        assert door.get("?limit=5").json()["has_more"] is False


def test_the_list_can_be_of_one_status(door: Door, gappy: str, done: str, running: str) -> None:
    until(lambda: door.get(f"/{running}").json()["status"] == "in_progress")
    assert gappy in door.ids("?status=completed_with_gaps&limit=100")
    assert done in door.ids("?status=completed&limit=100")
    assert running in door.ids("?status=in_progress&limit=100")
    for status in ("completed", "completed_with_gaps", "in_progress", "failed"):
        assert {job["status"] for job in door.get(f"?status={status}&limit=100").json()["data"]} <= {status}


def test_get_waits_for_the_end(door: Door) -> None:
    job = door.create("[[delay:300]] Not at once.").json()
    assert door.get(f"/{job['id']}").json()["status"] in ("queued", "in_progress")
    assert door.get(f"/{job['id']}?wait=60").json()["status"] == "completed"


def test_get_answers_with_a_running_job_when_the_wait_is_over(door: Door, running: str) -> None:
    assert door.get(f"/{running}?wait=0.2").json()["status"] in ("queued", "in_progress")


def test_chunks_carry_spans_states_and_attempts(door: Door, done: str) -> None:
    listing = door.get(f"/{done}/chunks").json()
    chunks = listing["data"]
    assert listing["object"] == "list"
    assert "".join(TEXT[c["char_start"] : c["char_end"]] for c in chunks) == TEXT
    for index, chunk in enumerate(chunks):
        names = {"index", "char_start", "char_end", "state", "timeout_ms", "attempts", "backend", "reason"}
        assert names <= set(chunk)
        assert (chunk["index"], chunk["state"], chunk["backend"]) == (index, "completed", "fake")
        assert [attempt["outcome"] for attempt in chunk["attempts"]] == ["ok"]
        assert door.get(f"/{done}/chunks/{index}").json() == chunk


def test_a_failed_chunk_carries_its_reason(door: Door, gappy: str) -> None:
    chunks = door.get(f"/{gappy}/chunks").json()["data"]
    failed = [chunk for chunk in chunks if chunk["state"] == "failed"]
    assert ["[[fault" in BROKEN[c["char_start"] : c["char_end"]] for c in chunks].count(True) == len(failed) == 1
    assert "HTTP 400" in failed[0]["reason"]
    assert failed[0]["attempts"][0]["status"] == 400
    assert failed[0]["timeout_ms"] == formula_ms(failed[0]["characters"])


# -- audio ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
def test_the_file_decodes_in_every_format_and_is_as_long_as_its_parts(door: Door, done: str, fmt: str) -> None:
    answer = door.get(f"/{done}/audio?format={fmt}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == MEDIA_TYPES[fmt]
    assert int(answer.headers["content-length"]) == len(answer.content)
    if fmt == "pcm":
        frames, rate_hz = len(answer.content) // 2, RATE_HZ
    else:
        samples, rate_hz = soundfile.read(io.BytesIO(answer.content))
        frames = len(samples)
    manifest = door.get(f"/{done}/manifest").json()
    parts = sum(chunk["audio_seconds"] + chunk["pause_seconds"] for chunk in manifest["chunks"])
    padding_seconds = 0.1 if fmt == "mp3" else 0.02  # LAME pads: a decoder delay and up to two frames of 24 ms
    assert -0.02 <= frames / rate_hz - parts <= padding_seconds


@pytest.mark.parametrize("fmt", ["wav", "flac"])
def test_lossless_files_hold_the_very_same_samples(door: Door, done: str, pcm: bytes, fmt: str) -> None:
    samples, rate_hz = soundfile.read(io.BytesIO(door.get(f"/{done}/audio?format={fmt}").content), dtype="int16")
    assert rate_hz == RATE_HZ
    assert samples.astype("<i2").tobytes() == pcm


def test_a_wav_file_declares_its_true_sizes(door: Door, done: str) -> None:
    body = door.get(f"/{done}/audio?format=wav").content
    assert int.from_bytes(body[4:8], "little") == len(body) - 8
    assert int.from_bytes(body[40:44], "little") == len(body) - 44


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
def test_the_job_keeps_the_format_it_was_made_with(door: Door, fmt: str) -> None:
    job = door.finished("Short.", response_format=fmt)
    assert door.get(f"/{job['id']}/audio").headers["content-type"] == MEDIA_TYPES[fmt]


def test_speed_shortens_what_is_spoken(door: Door, done: str, pcm: bytes) -> None:
    fast = door.finished(speed=2)
    assert len(door.get(f"/{fast['id']}/audio?format=pcm").content) < 0.7 * len(pcm)


def borders(door: Door, job_id: str) -> list[int]:
    """Bytes of the pcm output at which speech ends and a pause begins, or the other way round."""
    position, found = 0, []
    for chunk in door.get(f"/{job_id}/manifest").json()["chunks"]:
        for seconds in (chunk["audio_seconds"], chunk["pause_seconds"]):
            position += round(seconds * RATE_HZ) * 2
            found.append(position)
    return found


def test_every_range_of_a_joined_file_is_that_part_of_the_whole(door: Door, done: str, pcm: bytes) -> None:
    spans = [(0, 0), (0, 99), (1, 2), (len(pcm) - 1, len(pcm) - 1)]
    spans += [(at - 101, at + 100) for at in borders(door, done)[:-2]]
    spans += [(at - 1, at) for at in borders(door, done)[:-2]]
    spans += [(borders(door, done)[0] - 5, borders(door, done)[-2] + 5)]
    for first, last in spans:
        part = door.get(f"/{done}/audio?format=pcm", headers={"Range": f"bytes={first}-{last}"})
        whole = pcm[first : last + 1]
        assert (part.status_code, part.content) == (206, whole), (first, last)
        assert part.headers["content-range"] == f"bytes {first}-{first + len(whole) - 1}/{len(pcm)}"
        assert int(part.headers["content-length"]) == len(whole)


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
@pytest.mark.parametrize("asked", ["0-9", "10-", "-100", "40-50", "5-99999999", "-99999999", "0-"])
def test_ranges_of_every_format_are_parts_of_the_whole(door: Door, done: str, fmt: str, asked: str) -> None:
    whole = door.get(f"/{done}/audio?format={fmt}").content
    part = door.get(f"/{done}/audio?format={fmt}", headers={"Range": f"bytes={asked}"})
    first, _, last = asked.partition("-")
    start = int(first) if first else max(0, len(whole) - int(last))
    end = min(int(last) + 1, len(whole)) if first and last else len(whole)
    assert (part.status_code, part.content) == (206, whole[start:end])
    assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(whole)}"


@pytest.mark.parametrize("fmt", ["wav", "mp3"])
@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=99999999-100000000", "bytes=-0", f"bytes={'9' * 5_000}-"])
def test_a_range_beyond_the_end_is_refused_with_the_true_size(door: Door, done: str, fmt: str, asked: str) -> None:
    size = len(door.get(f"/{done}/audio?format={fmt}").content)
    answer = door.get(f"/{done}/audio?format={fmt}", headers={"Range": asked})
    problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    "asked",
    ["bytes=9-3", "bytes=-", "bytes=a-b", "lines=1-2", "bytes 1-2", "bytes=0-1,4-5", ""],
    ids=["backwards", "empty", "words", "unit", "syntax", "several", "nothing"],
)
def test_a_range_that_means_nothing_is_ignored(door: Door, done: str, pcm: bytes, asked: str) -> None:
    answer = door.get(f"/{done}/audio?format=pcm", headers={"Range": asked})
    assert answer.status_code == 200
    assert answer.content == pcm
    assert "content-range" not in answer.headers


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
def test_the_etag_stays_and_spares_a_second_transfer(door: Door, done: str, fmt: str) -> None:
    path = f"/{done}/audio?format={fmt}"
    first, second = door.get(path), door.get(path)
    etag = first.headers["etag"]
    assert etag == second.headers["etag"]
    assert first.content == second.content
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = door.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert door.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_formats_and_jobs_have_etags_of_their_own(door: Door, done: str, gappy: str) -> None:
    tags = [door.ask("HEAD", f"/{done}/audio?format={fmt}").headers["etag"] for fmt in MEDIA_TYPES]
    tags += [door.ask("HEAD", f"/{gappy}/audio?format=wav&gaps=silence").headers["etag"]]
    assert len(set(tags)) == len(tags)


def test_if_range_gives_the_part_only_of_the_same_file(door: Door, done: str, pcm: bytes) -> None:
    path = f"/{done}/audio?format=pcm"
    etag = door.ask("HEAD", path).headers["etag"]
    same = door.get(path, headers={"Range": "bytes=4-9", "If-Range": etag})
    assert (same.status_code, same.content) == (206, pcm[4:10])
    for other in ('"other"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        whole = door.get(path, headers={"Range": "bytes=4-9", "If-Range": other})
        assert (whole.status_code, whole.content) == (200, pcm)


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
def test_head_tells_size_and_type_without_the_file(door: Door, done: str, fmt: str) -> None:
    path = f"/{done}/audio?format={fmt}"
    whole, head = door.get(path), door.ask("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]
    assert door.ask("HEAD", path, headers={"Range": "bytes=0-1"}).headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize("path", ["/audio", "/audio?format=wav&gaps=silence", "/manifest"])
def test_before_the_end_the_file_is_not_ready(door: Door, running: str, path: str) -> None:
    answer = door.get(f"/{running}{path}")
    problem(answer, 409, "not_ready")
    assert int(answer.headers["retry-after"]) >= 1


def test_a_file_with_gaps_is_given_only_to_who_accepts_silence(door: Door, gappy: str) -> None:
    error = problem(door.get(f"/{gappy}/audio?format=pcm"), 409, "has_gaps")
    manifest = door.get(f"/{gappy}/manifest").json()
    (gap,) = manifest["gaps"]
    assert str(gap) in error["message"]
    assert "gaps=silence" in error["message"]
    answer = door.get(f"/{gappy}/audio?format=pcm&gaps=silence")
    assert answer.status_code == 200
    samples = np.frombuffer(answer.content, "<i2")
    assert abs(samples.size / RATE_HZ - manifest["audio_seconds"]) < 0.001
    start = round(manifest["chunks"][gap]["audio_start_seconds"] * RATE_HZ)
    assert not samples[start + 5 : start + RATE_HZ - 5].any()
    assert samples[:start].any()
    assert samples[start + RATE_HZ :].any() == (gap + 1 < len(manifest["chunks"]))


def test_a_failed_job_has_a_reason_and_keeps_what_was_spoken(door: Door) -> None:
    job = door.finished("The lamp is lit. The sea [[delay:300]] is [[fault:400]] calm tonight.")
    assert (job["status"], job["error"]["code"]) == ("failed", "chunk_failed")
    assert "HTTP 400" in job["error"]["message"]
    assert door.get(f"/{job['id']}/chunks/0/audio").status_code == 200
    problem(door.get(f"/{job['id']}/audio"), 409, "has_gaps")


def test_silence_alone_is_not_a_file(door: Door) -> None:
    job = door.finished("[[fault:400]] is everything", on_chunk_failure="silence")
    assert job["status"] == "failed"
    problem(door.get(f"/{job['id']}/audio?gaps=silence"), 409, "has_gaps")


def test_a_chunks_audio_comes_alone_and_all_of_them_are_the_file(door: Door, done: str, pcm: bytes) -> None:
    joined = b""
    for index in range(4):
        wav = door.get(f"/{done}/chunks/{index}/audio")
        raw = door.get(f"/{done}/chunks/{index}/audio?format=pcm")
        assert (wav.headers["content-type"], raw.headers["content-type"]) == ("audio/wav", "audio/pcm")
        samples, _ = soundfile.read(io.BytesIO(wav.content), dtype="int16")
        assert samples.astype("<i2").tobytes() == raw.content
        joined += raw.content
    assert joined == pcm


def test_a_chunks_audio_may_be_pending_or_gone(door: Door, running: str, gappy: str) -> None:
    pending = door.get(f"/{running}/chunks/1/audio")
    assert pending.status_code == 202
    assert int(pending.headers["retry-after"]) >= 1
    assert (pending.json()["state"], pending.json()["poll_after_ms"] > 0) == ("pending", True)
    (gap,) = door.get(f"/{gappy}/manifest").json()["gaps"]
    assert "HTTP 400" in problem(door.get(f"/{gappy}/chunks/{gap}/audio"), 410, "chunk_failed")["message"]


def test_a_lost_clip_never_makes_a_short_file(door: Door, directory: Path) -> None:
    job_id = door.finished()["id"]
    clips = sorted((directory / "clips" / job_id / "clips").iterdir())
    clips[2].unlink()
    for path in (*(f"/audio?format={fmt}" for fmt in MEDIA_TYPES), "/chunks/2/audio"):
        answer = door.get(f"/{job_id}{path}")
        problem(answer, 503, "store_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    assert door.get(f"/{job_id}/chunks/1/audio").status_code == 200


# -- manifest -------------------------------------------------------------------------------


def test_the_manifest_names_the_stored_clip_by_its_hash(door: Door, done: str, pcm: bytes, directory: Path) -> None:
    stored = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (directory / "clips" / done).rglob("*.wav")}
    manifest = door.get(f"/{done}/manifest").json()
    position = 0
    for chunk in manifest["chunks"]:
        count, pause = (round(chunk[name] * RATE_HZ) for name in ("audio_seconds", "pause_seconds"))
        audio = np.frombuffer(door.get(f"/{done}/chunks/{chunk['index']}/audio?format=pcm").content, "<i2")
        clip = audio[: audio.size - pause]
        assert abs(clip.size - count) <= 2
        assert hashlib.sha256(wav_bytes(clip.astype(np.int16))).hexdigest() == chunk["sha256"]
        assert chunk["sha256"] in stored
        assert abs(chunk["audio_start_seconds"] * RATE_HZ - position) <= 2
        assert not audio[clip.size :].any()
        position += audio.size
    assert position * 2 == len(pcm)


def test_the_manifest_of_a_complete_job_covers_everything(door: Door, done: str) -> None:
    manifest = door.get(f"/{done}/manifest").json()
    assert (manifest["coverage"], manifest["gaps"], manifest["status"]) == (1.0, [], "completed")
    assert [(c["char_start"], c["char_end"]) for c in manifest["chunks"]] == [
        (c["char_start"], c["char_end"]) for c in door.get(f"/{done}/chunks").json()["data"]
    ]
    assert {chunk["backend"] for chunk in manifest["chunks"]} == {"fake"}
    assert all(chunk["attempts"] for chunk in manifest["chunks"])


def test_the_manifest_of_a_job_with_gaps_counts_them(door: Door, gappy: str) -> None:
    manifest = door.get(f"/{gappy}/manifest").json()
    (gap,) = manifest["gaps"]
    missing = manifest["chunks"][gap]
    assert (missing["sha256"], missing["audio_seconds"]) == (None, 0)
    assert manifest["coverage"] == pytest.approx(1 - missing["characters"] / len(BROKEN), abs=1e-6)


# -- control and removal --------------------------------------------------------------------


def test_cancel_stops_a_job_and_can_be_repeated(door: Door, running: str) -> None:
    first, second = door.ask("POST", f"/{running}/cancel"), door.ask("POST", f"/{running}/cancel")
    assert (first.status_code, first.json()["status"]) == (202, "cancelled")
    assert (second.status_code, second.json()["finished_at"]) == (202, first.json()["finished_at"])
    assert door.get(f"/{running}").json()["status"] == "cancelled"
    problem(door.get(f"/{running}/chunks/1/audio"), 410, "chunk_failed")


def test_cancel_leaves_a_finished_job_as_it_is(door: Door, done: str) -> None:
    answer = door.ask("POST", f"/{done}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "completed")
    assert door.get(f"/{done}/audio").status_code == 200


def test_retry_speaks_only_what_failed(door: Door, service: HttpService) -> None:
    text = "This one is fine today. This one says [[fault:400*1]] once."
    job = door.finished(text, on_chunk_failure="silence")
    assert job["status"] == "completed_with_gaps"
    before = len(service.backend.calls)
    answer = door.ask("POST", f"/{job['id']}/retry")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    ended = door.get(f"/{job['id']}?wait=60").json()
    assert (ended["status"], ended["error"], ended["chunks"]["failed"]) == ("completed", None, 0)
    assert ended["orchestrator_timeout_ms"] == job["orchestrator_timeout_ms"]
    assert ["fault" in str(call["text"]) for call in service.backend.calls[before:]] == [True]
    assert door.get(f"/{job['id']}/audio?format=wav").status_code == 200


def test_only_failed_jobs_can_be_retried(door: Door, done: str, running: str) -> None:
    for job_id in (done, running):
        problem(door.ask("POST", f"/{job_id}/retry"), 409, "conflict")


def test_a_deleted_job_is_gone_with_its_audio(door: Door, directory: Path) -> None:
    job_id = door.finished()["id"]
    assert door.get(f"/{job_id}/audio?format=mp3").status_code == 200
    assert (directory / "clips" / job_id).exists()
    gone = door.ask("DELETE", f"/{job_id}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert not (directory / "clips" / job_id).exists() or not list((directory / "clips" / job_id).rglob("*.*"))
    for path in ("", "/audio", "/chunks", "/chunks/0", "/chunks/0/audio", "/manifest"):
        problem(door.get(f"/{job_id}{path}"), 404, "not_found")
    problem(door.ask("DELETE", f"/{job_id}"), 404, "not_found")
    assert job_id not in door.ids("?limit=100")


def test_deleting_a_job_spares_those_whose_ids_begin_alike(door: Door) -> None:
    for job_id in ("alike", "alike-2"):
        door.put(job_id)
        assert door.get(f"/{job_id}?wait=60").json()["status"] == "completed"
    assert door.ask("DELETE", "/alike").status_code == 204
    assert door.get("/alike-2/audio?format=pcm").status_code == 200


def test_deleting_a_running_job_stops_it(door: Door, running: str) -> None:
    assert door.ask("DELETE", f"/{running}").status_code == 204
    problem(door.get(f"/{running}"), 404, "not_found")


def test_an_expired_job_is_gone_for_good_but_not_unknown(door: Door, directory: Path) -> None:
    job_id = door.finished("Short life.", ttl_seconds=1)["id"]
    until(lambda: door.get(f"/{job_id}").status_code != 200)
    for path in ("", "/audio", "/chunks", "/chunks/0", "/chunks/0/audio", "/manifest"):
        problem(door.get(f"/{job_id}{path}"), 410, "expired")
    problem(door.ask("POST", f"/{job_id}/cancel"), 410, "expired")
    problem(door.ask("POST", f"/{job_id}/retry"), 410, "expired")
    assert list((directory / "clips" / job_id).rglob("*.wav")) == []
    assert door.ask("DELETE", f"/{job_id}").status_code == 204
