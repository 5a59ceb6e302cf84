"""The original's door, ``/api/*``, over a real socket: names, values and status codes to the letter of the contract."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import soundfile

from tests.unit.http_service import HttpService, http_service
from tests.unit.job_door.door import formula_ms, until

TEXT = "The lamp is lit. The sea is calm tonight! Does nobody sail?"
SENTENCES = ["The lamp is lit.", "The sea is calm tonight!", "Does nobody sail?"]
SLOW = "The lamp is lit. The sea is [[delay:60000]] calm tonight."
BROKEN = "The lamp is lit. The sea is [[fault:400]] calm tonight. Nobody sails."
SHORT_TIMEOUTS = {"base_ms": 50, "per_character_ms": 0, "backend_cap_ms": 50, "margin_ms": 50, "cap_ms": 100}
L16 = "audio/L16;rate=24000"
ANSWER_SECONDS = 30


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with http_service(tmp_path_factory.mktemp("original")) as running:
        yield running


@pytest.fixture
def url(service: HttpService) -> str:
    return service.url


def post(url: str, route: str, body: dict[str, Any], **headers: str) -> requests.Response:
    return requests.post(f"{url}/api/{route}", json=body, headers=headers, timeout=ANSWER_SECONDS * 3)


def get(url: str, route: str, **query: Any) -> requests.Response:
    return requests.get(f"{url}/api/{route}", params=query, timeout=ANSWER_SECONDS)


def initiate(url: str, text: str = TEXT, *, wait: bool = False, **fields: Any) -> dict[str, Any]:
    body = {"text": text, "voiceId": "default", "model": "fake-tts", "splittingPreference": "sentence"} | fields
    answer = post(url, "tts-initiate", body, **({"Prefer": "wait=60"} if wait else {}))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def job_of(url: str, job_id: str) -> dict[str, Any]:
    answer = get(url, "tts-job", jobId=job_id)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def chunk_samples(url: str, job_id: str, index: int) -> Any:
    answer = get(url, "tts-chunk", jobId=job_id, chunkIndex=index)
    assert answer.status_code == 200, answer.text
    return np.frombuffer(base64.b64decode(answer.json()["audioContentBase64"], validate=True), "<i2")


# -- tts-initiate ---------------------------------------------------------------------------


def test_initiate_answers_with_the_contracts_names_and_types(url: str) -> None:
    answer = initiate(url, wait=True)
    kinds = {
        "jobId": str,
        "totalChunks": int,
        "expectedMimeType": str,
        "chunkLengths": list,
        "sentenceMapping": list,
        "orchestratorTimeoutMs": int,
        "jobTimeoutMs": int,
        "pollAfterMs": int,
    }
    assert {name: type(answer[name]) for name in kinds} == kinds
    assert answer["expectedMimeType"] == L16
    assert answer["totalChunks"] == len(answer["chunkLengths"]) == 3
    assert answer["jobTimeoutMs"] > answer["orchestratorTimeoutMs"] > 0
    assert answer["pollAfterMs"] > 0


@pytest.mark.parametrize(
    "text",
    [TEXT, "  Blanks before.  And after. \n\n A new paragraph.\n", "Ein Käfer 🐞 fliegt. 日本語です。Ωmega ends."],
    ids=["plain", "blanks", "unicode"],
)
def test_chunk_lengths_count_characters_and_the_mapping_points_into_the_text(url: str, text: str) -> None:
    answer = initiate(url, text)
    assert sum(answer["chunkLengths"]) == len(text)
    starts = np.cumsum([0, *answer["chunkLengths"]])
    spoken = ""
    for mark in answer["sentenceMapping"]:
        assert set(mark) == {"originalSentenceIndex", "chunkIndex", "charStart", "charEnd"}
        chunk = mark["chunkIndex"]
        assert starts[chunk] <= mark["charStart"] < mark["charEnd"] <= starts[chunk + 1]
        spoken += text[mark["charStart"] : mark["charEnd"]]
    assert spoken.split() == text.split() or "".join(spoken.split()) == "".join(text.split())
    assert [mark["originalSentenceIndex"] for mark in answer["sentenceMapping"]] == list(
        range(len(answer["sentenceMapping"]))
    )


def test_each_sentence_is_mapped_to_its_own_words(url: str) -> None:
    answer = initiate(url)
    assert [TEXT[m["charStart"] : m["charEnd"]] for m in answer["sentenceMapping"]] == SENTENCES
    assert [m["chunkIndex"] for m in answer["sentenceMapping"]] == [0, 1, 2]


@pytest.mark.parametrize("preference", ["sentence", "characterCount", "none"])
def test_the_orchestrator_timeout_is_the_largest_of_the_chunks(url: str, preference: str) -> None:
    text = "A short one. " + "This sentence is a good deal longer than the first one was, " * 12 + "and ends. Short."
    answer = initiate(url, text, splittingPreference=preference)
    assert answer["orchestratorTimeoutMs"] == max(formula_ms(length) for length in answer["chunkLengths"])


def test_the_orchestrator_timeout_stops_at_its_cap(tmp_path: Path) -> None:
    timeouts = {"base_ms": 1_000, "per_character_ms": 10, "backend_cap_ms": 9_000, "margin_ms": 500, "cap_ms": 9_200}
    with http_service(tmp_path, timeouts=timeouts) as service:
        for characters, timeout_ms in ((300, 4_500), (770, 9_200), (1_500, 9_200)):
            plan = initiate(service.url, "x" * characters, splittingPreference="none")
            assert plan["orchestratorTimeoutMs"] == timeout_ms


def test_none_makes_one_chunk_of_many_sentences(url: str) -> None:
    answer = initiate(url, splittingPreference="none")
    assert answer["chunkLengths"] == [len(TEXT)]
    assert [m["originalSentenceIndex"] for m in answer["sentenceMapping"]] == [0, 1, 2]
    assert {m["chunkIndex"] for m in answer["sentenceMapping"]} == {0}


def test_character_count_packs_whole_sentences_greedily_up_to_1500(url: str) -> None:
    sentences = [f"Sentence number {n} has {'very ' * (n % 9)}few words. " for n in range(100)]
    text = "".join(sentences)
    answer = initiate(url, text, splittingPreference="characterCount")
    lengths, ends = answer["chunkLengths"], np.cumsum(answer["chunkLengths"])
    assert 1 < len(lengths) < len(sentences)
    assert max(lengths) <= 1_500
    assert set(ends) <= set(np.cumsum([len(sentence) for sentence in sentences]))
    for length, end in zip(lengths, ends[:-1], strict=False):
        following = next(s for s in sentences if text.index(s) == end)
        assert length + len(following.rstrip()) > 1_500 - 1


def test_character_count_cuts_a_sentence_that_is_too_long_between_words(url: str) -> None:
    text = "wordy " * 700 + "end."
    answer = initiate(url, text, splittingPreference="characterCount")
    assert all(length <= 1_501 for length in answer["chunkLengths"])
    for end in np.cumsum(answer["chunkLengths"])[:-1]:
        assert text[end - 1] == " "
    assert {m["originalSentenceIndex"] for m in answer["sentenceMapping"]} == {0}


def test_character_count_never_cuts_inside_a_grapheme(url: str) -> None:
    family = "👨‍👩‍👧"
    text = family * 800
    answer = initiate(url, text, splittingPreference="characterCount")
    assert len(answer["chunkLengths"]) > 1
    assert all(length % len(family) == 0 and length <= 1_500 for length in answer["chunkLengths"])


def test_full_text_is_another_name_for_text(url: str) -> None:
    body = {"fullText": TEXT, "voiceId": "default", "model": "fake-tts", "splittingPreference": "sentence"}
    answer = post(url, "tts-initiate", body)
    assert answer.status_code == 200
    assert sum(answer.json()["chunkLengths"]) == len(TEXT)


def test_splitting_is_by_sentence_when_nothing_is_said(url: str) -> None:
    answer = post(url, "tts-initiate", {"text": TEXT, "voiceId": "default", "model": "fake-tts"})
    assert answer.json()["totalChunks"] == 3


def test_unknown_fields_are_ignored(url: str) -> None:
    assert initiate(url, userId="u-1", stream=True, backend={"x": [1]})["totalChunks"] == 3


def test_initiate_answers_before_anything_is_spoken(url: str, service: HttpService) -> None:
    answer = initiate(url, "[[delay:60002]] The only sentence.")
    assert answer["status"] == "processing"
    assert all(call["status"] is None for call in service.backend.calls if "60002" in (call["text"] or ""))
    assert get(url, "tts-chunk", jobId=answer["jobId"], chunkIndex=0).status_code == 202
    assert post(url, "tts-delete", {"jobId": answer["jobId"]}).status_code == 200


@pytest.mark.parametrize("prefer", ["wait=60", "respond-async, wait=60", "wait=60; foo=bar"])
def test_a_preference_to_wait_holds_the_answer_until_the_chunks_are_there(url: str, prefer: str) -> None:
    body = {"text": TEXT, "voiceId": "default", "model": "fake-tts"}
    answer = post(url, "tts-initiate", body, Prefer=prefer)
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=60"
    assert answer.json()["status"] == "complete"
    assert all(
        get(url, "tts-chunk", jobId=answer.json()["jobId"], chunkIndex=n).status_code == 200
        for n in range(answer.json()["totalChunks"])
    )


def test_a_wait_that_is_too_short_answers_with_the_job_as_it_is(url: str) -> None:
    answer = post(url, "tts-initiate", {"text": SLOW, "voiceId": "default", "model": "fake-tts"}, Prefer="wait=1")
    assert (answer.status_code, answer.json()["status"]) == (200, "processing")
    assert post(url, "tts-delete", {"jobId": answer.json()["jobId"]}).status_code == 200


@pytest.mark.parametrize("prefer", ["respond-async", "wait=soon", "wait=-1", "await=5", ""])
def test_other_preferences_do_not_hold_the_answer(url: str, prefer: str) -> None:
    answer = post(url, "tts-initiate", {"text": SLOW, "voiceId": "default", "model": "fake-tts"}, Prefer=prefer)
    assert answer.json()["status"] == "processing"
    assert "preference-applied" not in answer.headers
    assert post(url, "tts-delete", {"jobId": answer.json()["jobId"]}).status_code == 200


# -- tts-chunk ------------------------------------------------------------------------------


def test_a_chunk_comes_as_base64_of_little_endian_samples(url: str) -> None:
    job = initiate(url, wait=True)
    answer = get(url, "tts-chunk", jobId=job["jobId"], chunkIndex=1)
    assert answer.status_code == 200
    body = answer.json()
    assert {"audioContentBase64", "mimeType", "index", "status", "sentenceMapping", "timeoutMs"} <= set(body)
    assert (body["mimeType"], body["index"], body["status"]) == (L16, 1, "complete")
    assert body["timeoutMs"] == formula_ms(job["chunkLengths"][1])
    assert body["sentenceMapping"] == [m for m in job["sentenceMapping"] if m["chunkIndex"] == 1]
    samples = chunk_samples(url, job["jobId"], 1)
    assert samples.size > 24_000 // 10
    assert np.abs(samples).max() > 1_000


def test_a_chunk_comes_as_a_wav_file_when_asked(url: str) -> None:
    job = initiate(url, wait=True)
    answer = get(url, "tts-chunk", jobId=job["jobId"], chunkIndex=0, format="wav")
    assert answer.json()["mimeType"] == "audio/wav"
    file = io.BytesIO(base64.b64decode(answer.json()["audioContentBase64"], validate=True))
    samples, rate_hz = soundfile.read(file, dtype="int16")
    assert rate_hz == 24_000
    assert np.array_equal(samples, chunk_samples(url, job["jobId"], 0))


def test_all_chunks_together_are_the_finished_file_sample_for_sample(url: str) -> None:
    job = initiate(url, TEXT + "\n\nA new paragraph begins. It is the last.", wait=True)
    chunks = [chunk_samples(url, job["jobId"], index) for index in range(job["totalChunks"])]
    whole = requests.get(f"{url}/v1/audio/speech/jobs/{job['jobId']}/audio?format=pcm", timeout=ANSWER_SECONDS)
    assert whole.status_code == 200
    assert np.concatenate(chunks).astype("<i2").tobytes() == whole.content


def test_a_pending_chunk_says_when_to_ask_again_and_the_others_are_there(url: str) -> None:
    job = initiate(url, SLOW)
    until(lambda: get(url, "tts-chunk", jobId=job["jobId"], chunkIndex=0).status_code == 200)
    pending = get(url, "tts-chunk", jobId=job["jobId"], chunkIndex=1)
    assert pending.status_code == 202
    assert pending.json()["status"] == "processing"
    assert pending.json()["pollAfterMs"] == job["pollAfterMs"]
    assert int(pending.headers["retry-after"]) >= 1
    assert get(url, "tts-chunk", jobId=job["jobId"], chunkIndex=0).json()["status"] == "processing"
    assert post(url, "tts-delete", {"jobId": job["jobId"]}).status_code == 200


def test_a_failed_chunk_is_gone_with_its_reason_and_the_others_are_there(url: str) -> None:
    job = initiate(url, BROKEN, wait=True)
    failed = job_of(url, job["jobId"])["failedChunkIndices"]
    answers = {n: get(url, "tts-chunk", jobId=job["jobId"], chunkIndex=n) for n in range(job["totalChunks"])}
    assert {n for n, answer in answers.items() if answer.status_code == 410} == set(failed)
    assert {answer.status_code for n, answer in answers.items() if n not in failed} == {200}
    gone = answers[failed[0]].json()
    assert (set(gone), gone["code"]) == ({"error", "code"}, "chunk_failed")
    assert "HTTP 400" in gone["error"]


# -- tts-job --------------------------------------------------------------------------------


def test_retrieve_repeats_what_initiate_promised(url: str) -> None:
    job = initiate(url, wait=True)
    answer = job_of(url, job["jobId"])
    assert {"jobId", "totalChunks", "mimeType", "status", "failedChunkIndices", "details"} <= set(answer)
    for name in ("jobId", "totalChunks", "chunkLengths", "sentenceMapping", "orchestratorTimeoutMs", "jobTimeoutMs"):
        assert answer[name] == job[name]
    assert (answer["mimeType"], answer["status"], answer["failedChunkIndices"]) == (L16, "complete", [])
    assert isinstance(answer["details"], dict)


def test_a_job_in_work_is_processing(url: str) -> None:
    job = initiate(url, SLOW)
    answer = job_of(url, job["jobId"])
    assert (answer["status"], answer["failedChunkIndices"]) == ("processing", [])
    assert answer["orchestratorTimeoutMs"] == job["orchestratorTimeoutMs"]
    assert post(url, "tts-delete", {"jobId": job["jobId"]}).status_code == 200


def test_a_job_with_some_failed_chunks_is_a_partial_success(url: str) -> None:
    job = initiate(url, BROKEN, wait=True)
    answer = job_of(url, job["jobId"])
    starts = np.cumsum([0, *job["chunkLengths"]])
    broken = [n for n in range(job["totalChunks"]) if "fault" in BROKEN[starts[n] : starts[n + 1]]]
    assert (answer["status"], answer["failedChunkIndices"]) == ("partial_success", broken)


def test_a_job_without_a_single_chunk_has_failed(url: str) -> None:
    job = initiate(url, "[[fault:400]] is all there is", wait=True)
    answer = job_of(url, job["jobId"])
    assert (answer["status"], answer["failedChunkIndices"]) == ("failed", list(range(job["totalChunks"])))


def test_a_cancelled_job_says_so(url: str) -> None:
    job = initiate(url, SLOW)
    cancel = f"{url}/v1/audio/speech/jobs/{job['jobId']}/cancel"
    assert requests.post(cancel, timeout=ANSWER_SECONDS).status_code == 202
    assert job_of(url, job["jobId"])["status"] == "cancelled"
    assert get(url, "tts-chunk", jobId=job["jobId"], chunkIndex=1).status_code == 410


# -- tts-delete -----------------------------------------------------------------------------


def test_a_deleted_job_is_gone_from_every_route(url: str) -> None:
    job_id = initiate(url, wait=True)["jobId"]
    assert post(url, "tts-delete", {"jobId": job_id}).status_code == 200
    assert get(url, "tts-job", jobId=job_id).status_code == 404
    assert get(url, "tts-chunk", jobId=job_id, chunkIndex=0).status_code == 404
    assert post(url, "tts-delete", {"jobId": job_id}).status_code == 404


def test_deleting_a_running_job_closes_its_calls(url: str, service: HttpService) -> None:
    job = initiate(url, "Stop this [[delay:60001]] at once.")

    def calls() -> list[Any]:
        return [call for call in service.backend.calls if "60001" in (call["text"] or "")]

    until(lambda: bool(calls()))
    assert post(url, "tts-delete", {"jobId": job["jobId"]}).status_code == 200
    until(lambda: all(call["client_gone"] for call in calls()))


# -- rawtts ---------------------------------------------------------------------------------


def test_a_raw_call_gives_the_audio_and_makes_no_job(url: str) -> None:
    def jobs() -> Any:
        return requests.get(f"{url}/v1/audio/speech/jobs", timeout=ANSWER_SECONDS).json()["data"][:1]

    before = jobs()
    answer = post(url, "rawtts", {"text": "Just this.", "voiceId": "default", "model": "fake-tts"})
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) >= {"audioContentBase64", "mimeType", "timeoutMs"}
    assert (body["mimeType"], body["timeoutMs"]) == (L16, formula_ms(len("Just this.")))
    samples = np.frombuffer(base64.b64decode(body["audioContentBase64"], validate=True), "<i2")
    assert np.abs(samples).max() > 1_000
    assert jobs() == before


@pytest.mark.parametrize("fault", ["400", "404", "429", "500", "503", "html", "empty", "silence", "truncate", "drop"])
def test_a_raw_call_whose_backend_fails_is_a_bad_gateway(url: str, fault: str) -> None:
    answer = post(url, "rawtts", {"text": f"Say [[fault:{fault}]] it.", "voiceId": "default", "model": "fake-tts"})
    assert answer.status_code == 502, answer.text
    assert set(answer.json()) == {"error", "code"}


@pytest.mark.parametrize("fault", ["hang", "slow_drip"])
def test_a_raw_call_whose_backend_takes_too_long_is_a_gateway_timeout(tmp_path: Path, fault: str) -> None:
    with http_service(tmp_path, timeouts=SHORT_TIMEOUTS) as service:
        body = {"text": f"Say [[fault:{fault}]] it.", "voiceId": "default", "model": "fake-tts"}
        answer = post(service.url, "rawtts", body)
        assert answer.status_code == 504, answer.text
        assert "within 100 ms" in answer.json()["error"]


def test_a_raw_call_tries_a_failing_backend_again(url: str) -> None:
    body = {"text": "Say [[fault:503*1]] it twice.", "voiceId": "default", "model": "fake-tts"}
    assert post(url, "rawtts", body).status_code == 200


# -- a full house ---------------------------------------------------------------------------


def test_a_full_queue_is_said_with_its_bound_and_a_time_to_come_back(tmp_path: Path) -> None:
    limits = {"max_active_jobs": 1, "max_queued_jobs": 0, "spare_actors": 0}
    with http_service(tmp_path, limits=limits) as service:
        running = initiate(service.url, SLOW)["jobId"]
        until(lambda: bool(service.backend.calls))
        waiting = initiate(service.url, SLOW)["jobId"]
        refused = post(service.url, "tts-initiate", {"text": TEXT, "voiceId": "default", "model": "fake-tts"})
        assert refused.status_code == 429
        assert (set(refused.json()), refused.json()["code"]) == ({"error", "code"}, "queue_full")
        assert "limits.max_queued_jobs" in refused.json()["error"]
        assert int(refused.headers["retry-after"]) >= 1
        assert job_of(service.url, waiting)["status"] == "processing"
        for job_id in (waiting, running):
            assert post(service.url, "tts-delete", {"jobId": job_id}).status_code == 200
