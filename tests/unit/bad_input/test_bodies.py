"""Bodies that are no object, too large, or wrong in a field: the right error, and nothing is left behind."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.unit.bad_input.asking import (
    CREATING,
    INITIATE,
    JOBS,
    MAX_BODY_BYTES,
    MAX_CHARACTERS,
    RAW,
    SPEECH,
    SUBMITTED,
    Answer,
    ask,
    initiate_body,
    job_body,
    refused,
    stored,
    without,
)
from tests.unit.http_service import HttpService, http_service

NAN, INFINITY = float("nan"), float("inf")
DEEP = 100_000

# -- bodies that are no object --------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [*CREATING, ("POST", "/api/tts-delete")])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"zanzibar",
        b'{"text": "zanzibar',
        b'["zanzibar"]',
        b"5",
        b"null",
        b'"zanzibar"',
        b'{"text": "zanzibar \xff\xfe"}',
        b"\xff\xfe\x00zanzibar",
        b"[" * 10_000,
        b'{"zanzibar":' * 1_500,
        b'{"speed": ' + b"9" * 5_000 + b"}",
    ],
    ids=[
        "nothing",
        "half an object",
        "a word",
        "half a string",
        "a list",
        "a number",
        "null",
        "a string",
        "broken UTF-8 in a string",
        "no UTF-8 at all",
        "lists without end",
        "objects without end",
        "a number without end",
    ],
)
def test_a_body_that_is_no_json_object_is_refused(url: str, method: str, path: str, body: bytes) -> None:
    refused(ask(url, method, path, body), 400, "body")


def test_nesting_beyond_any_stack_is_refused(tmp_path: Path) -> None:
    with http_service(tmp_path) as service:
        for path in (INITIATE, JOBS):
            refused(ask(service.url, "POST", path, b'{"a":' * DEEP), 400, "body")
            refused(ask(service.url, "POST", path, b'{"a":' * DEEP + b"1" + b"}" * DEEP), 400, "body")


# -- fields of the original's door ----------------------------------------------------------


@pytest.mark.parametrize("path", [INITIATE, RAW])
@pytest.mark.parametrize("field", ["text", "voiceId", "model"])
def test_the_original_needs_its_fields(url: str, path: str, field: str) -> None:
    refused(ask(url, "POST", path, without(initiate_body(), field)), 400, field)


@pytest.mark.parametrize("path", [INITIATE, RAW])
@pytest.mark.parametrize("field", ["text", "voiceId", "model"])
@pytest.mark.parametrize("value", [5, 1.5, None, True, [], {}, [SUBMITTED], {"a": SUBMITTED}, ""], ids=repr)
def test_the_original_needs_words_in_its_fields(url: str, path: str, field: str, value: Any) -> None:
    refused(ask(url, "POST", path, initiate_body(**{field: value})), 400, field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("splittingPreference", value) for value in (5, None, [], "", "SENTENCE", "words", "character_count")],
        *[("speed", value) for value in ("fast", "1", True, [], 0, 0.2, 4.1, 5, -1, NAN, INFINITY, 10**400)],
        *[("language", value) for value in (5, [], "x" * 36)],
        *[(name, "x" * 129) for name in ("voiceId", "model")],
    ],
)
def test_the_original_refuses_values_out_of_bounds(url: str, field: str, value: Any) -> None:
    refused(ask(url, "POST", INITIATE, initiate_body(**{field: value})), 400, field)


@pytest.mark.parametrize("path", [INITIATE, RAW])
@pytest.mark.parametrize(("field", "word"), [("voiceId", "voice"), ("model", "model")])
def test_the_original_answers_400_for_a_voice_or_model_that_nobody_has(
    url: str, path: str, field: str, word: str
) -> None:
    answer = ask(url, "POST", path, initiate_body(**{field: "nobody"}))
    refused(answer, 400, word)
    assert answer.code == f"{word}_not_found"


def test_the_original_ignores_unknown_fields(service: HttpService) -> None:
    answer = ask(service.url, "POST", INITIATE, initiate_body(surprise={"deep": [1]}), {"Prefer": "wait=60"})
    assert answer.status == 200
    deleted = ask(service.url, "POST", "/api/tts-delete", {"jobId": json.loads(answer.body)["jobId"]})
    assert deleted.status == 200


@pytest.mark.parametrize("value", [5, None, [], "", "x" * 129])
def test_delete_needs_the_id_of_a_job(url: str, value: Any) -> None:
    refused(ask(url, "POST", "/api/tts-delete", {"jobId": value}), 400, "jobId")


# -- fields of the job door -----------------------------------------------------------------

PAIRS_17 = {f"key{n}": "value" for n in range(17)}
BAD_JOB_VALUES: list[tuple[str, Any]] = [
    *[(name, value) for name in ("input", "model") for value in (5, None, True, [], {}, [SUBMITTED], "")],
    ("model", "x" * 129),
    *[("voice", value) for value in (5, [], "", {}, {"id": 5}, {"id": ""}, {"id": "tone", "x": SUBMITTED}, "x" * 129)],
    *[("instructions", value) for value in (5, [], {}, "x" * 4_097)],
    *[("response_format", value) for value in (5, None, [], "", "mp4", "MP3", "aac")],
    *[("speed", value) for value in ("fast", "1", True, None, [], 0, 0.2, 4.1, 5, -1, NAN, INFINITY, 10**400)],
    *[("stream_format", value) for value in (5, None, "", "video")],
    *[("chunking", value) for value in (5, "sentence", [], {"mode": "words"}, {"mode": None})],
    *[("chunking", {"max_characters": value}) for value in (0, -1, 1.5, "9", True, 10**9, [])],
    *[("on_chunk_failure", value) for value in (5, None, "", "panic")],
    *[("priority", value) for value in (5, None, "", "urgent")],
    *[("language", value) for value in (5, [], "x" * 36)],
    *[("metadata", value) for value in (5, None, [], "x", PAIRS_17, {"a": 5}, {"a": None}, {"a": {"b": "c"}})],
    *[("metadata", value) for value in ({"a": "x" * 513}, {"k" * 65: "v"})],
    *[("ttl_seconds", value) for value in (0, -1, 1.5, "60", True, [], 10**12)],
]


@pytest.mark.parametrize(("field", "value"), BAD_JOB_VALUES)
def test_a_job_refuses_values_of_the_wrong_kind_or_size(url: str, field: str, value: Any) -> None:
    answers = [
        ask(url, "POST", JOBS, job_body(**{field: value})),
        ask(url, "POST", f"{JOBS}?dry_run=true", job_body(**{field: value})),
        ask(url, "PUT", f"{JOBS}/new-one", job_body(**{field: value})),
    ]
    for answer in answers:
        refused(answer, 400, field)
        param = json.loads(answer.body)["error"]["param"]
        assert param.split(".")[0] == field


@pytest.mark.parametrize("field", ["model", "input"])
def test_a_job_needs_its_fields(url: str, field: str) -> None:
    refused(ask(url, "POST", JOBS, without(job_body(), field)), 400, field)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"respons_format": "wav"}, "respons_format"),
        ({"text": f"again {SUBMITTED}"}, "text"),
        ({"stream": True}, "stream"),
        ({"body": 1}, "body"),
        ({"chunking": {"size": 5}}, "chunking.size"),
        ({"voices": [{"id": SUBMITTED}]}, "voices"),
        ({"x" * 5_000: 1}, "x" * 100),
        ({"ünï": 1}, "ünï"),
    ],
)
def test_a_job_refuses_fields_that_it_does_not_know(url: str, fields: dict[str, Any], name: str) -> None:
    for method, path in (("POST", JOBS), ("PUT", f"{JOBS}/new-one")):
        answer = ask(url, method, path, job_body(**fields))
        refused(answer, 422, name)
        assert answer.code == "unknown_field"


@pytest.mark.parametrize(("field", "code"), [("voice", "voice_not_found"), ("model", "model_not_found")])
def test_a_job_for_a_voice_or_model_that_nobody_has_is_not_found(url: str, field: str, code: str) -> None:
    for path in (JOBS, f"{JOBS}?dry_run=true"):
        answer = ask(url, "POST", path, job_body(**{field: "nobody"}))
        refused(answer, 404, field)
        assert (answer.code, json.loads(answer.body)["error"]["param"]) == (code, field)


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_an_idempotency_key_has_1_to_255_characters(url: str, key: str) -> None:
    refused(ask(url, "POST", JOBS, job_body(), {"Idempotency-Key": key}), 400, "idempotency-key")


# -- text that cannot be spoken -------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "\n\t \r\n",
        "\u3000\u2003",
        f"{SUBMITTED}\x00tail",
        f"{SUBMITTED}\ud800",
        f"\udc00{SUBMITTED}",
        "\x01 \x7f\x02",
    ],
    ids=["blank", "blank lines", "wide blanks", "NUL", "high surrogate", "low surrogate", "control characters"],
)
def test_text_that_nobody_can_speak_or_store_is_refused(url: str, text: str) -> None:
    for path in (INITIATE, RAW):
        refused(ask(url, "POST", path, initiate_body(text=text)), 400, "text")
    refused(ask(url, "POST", INITIATE, {"fullText": text} | without(initiate_body(), "text")), 400)
    for method, path in (("POST", JOBS), ("PUT", f"{JOBS}/new-one"), ("POST", f"{JOBS}?dry_run=true")):
        answer = ask(url, method, path, job_body(input=text))
        refused(answer, 400, "input")
        assert json.loads(answer.body)["error"]["param"] == "input"


@pytest.mark.parametrize("field", ["model", "voice", "instructions", "language", "metadata"])
def test_half_a_surrogate_pair_is_refused_in_every_field(url: str, field: str) -> None:
    value: Any = {"key": "a\ud800"} if field == "metadata" else "a\ud800"
    refused(ask(url, "POST", JOBS, job_body(**{field: value})), 400, field)


def test_half_a_surrogate_pair_is_refused_in_names(url: str) -> None:
    refused(ask(url, "POST", JOBS, job_body(**{"a\ud800": 1})), 400)
    refused(ask(url, "POST", JOBS, job_body(metadata={"a\ud800": "b"})), 400, "metadata")


@pytest.mark.parametrize("text", ["x" * (MAX_CHARACTERS + 1), "Ü" * 900, "Sail on. " * 100])
def test_text_beyond_the_bound_is_refused_with_the_bound(url: str, text: str) -> None:
    for method, path in (("POST", JOBS), ("PUT", f"{JOBS}/new-one"), ("POST", f"{JOBS}?dry_run=true")):
        refused(ask(url, method, path, job_body(input=text)), 413, "limits.max_characters", str(MAX_CHARACTERS))
    refused(ask(url, "POST", INITIATE, initiate_body(text=text)), 413, "limits.max_characters", str(MAX_CHARACTERS))
    refused(ask(url, "POST", SPEECH, job_body(input=text)), 413, "limits.max_characters", str(MAX_CHARACTERS))


def test_text_at_the_bound_is_taken(url: str) -> None:
    assert ask(url, "POST", f"{JOBS}?dry_run=true", job_body(input="x" * MAX_CHARACTERS)).status == 200


def test_too_many_chunks_are_refused_with_the_bound(url: str) -> None:
    text = "Ah. Oh. Uh. " * 8
    refused(ask(url, "POST", JOBS, job_body(input=text)), 413, "limits.max_chunks", "20")
    refused(ask(url, "POST", INITIATE, initiate_body(text=text)), 413, "limits.max_chunks", "20")


def test_the_bound_is_a_million_characters_when_nothing_is_configured(tmp_path: Path) -> None:
    with http_service(tmp_path) as service:
        text = "x" * 1_000_001
        refused(ask(service.url, "POST", JOBS, job_body(input=text)), 413, "limits.max_characters", "1000000")
        refused(ask(service.url, "POST", INITIATE, initiate_body(text=text)), 413, "limits.max_characters", "1000000")
        assert stored(service.url) == []
        accepted = ask(service.url, "POST", f"{JOBS}?dry_run=true", job_body(input=text[:-1]))
        assert accepted.status == 200


def test_a_raw_call_refuses_text_that_is_too_long_for_one_call(tmp_path: Path) -> None:
    with http_service(tmp_path) as service:
        refused(ask(service.url, "POST", RAW, initiate_body(text="x" * 1_501)), 413, "text", "1500")


# -- bodies that are too large --------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), CREATING)
def test_a_body_beyond_the_bound_is_refused_before_it_is_read(url: str, method: str, path: str) -> None:
    body = json.dumps({"input": SUBMITTED * MAX_BODY_BYTES}).encode()
    refused(ask(url, method, path, body), 413, "limits.max_body_bytes", str(MAX_BODY_BYTES))


def test_a_declared_length_is_enough_to_be_refused(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = f"POST {JOBS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999999999\r\n\r\n"
        connection.sendall(head.encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        length = int(response.headers["content-length"])
        refused(Answer(JOBS, response.status, response.headers, response.read(length)), 413, "limits.max_body_bytes")


@pytest.mark.parametrize(("method", "path"), CREATING)
def test_a_chunked_body_is_counted_while_it_arrives(url: str, method: str, path: str) -> None:
    pieces = b"".join(b"1000\r\n" + b"x" * 4_096 + b"\r\n" for _ in range(8)) + b"0\r\n\r\n"
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.putrequest(method, path)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        connection.send(pieces)
        response = connection.getresponse()
        answer = Answer(path, response.status, response.headers, response.read())
    finally:
        connection.close()
    refused(answer, 413, "limits.max_body_bytes", str(MAX_BODY_BYTES))
