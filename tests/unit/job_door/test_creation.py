"""The job door, ``/v1/audio/speech/jobs``, over a real socket: making, planning, listing and reading jobs."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.http_service import HttpService, http_service
from tests.unit.job_door.door import BROKEN, JOBS, RATE_HZ, TEXT, Door, formula_ms, problem, until
from tts_actors.planning import estimated_finish_seconds

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
