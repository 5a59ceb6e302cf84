"""Whatever a client sends wrong is answered with the right status, in the right shape, and leaves nothing behind."""

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from deployments.ingress import build_http_app
from tests.unit.http_service import HttpService, http_service
from tts_actors.chunk_worker import WorkerTools
from tts_actors.single_call import SingleCall

JOBS = "/v1/audio/speech/jobs"
INITIATE = "/api/tts-initiate"
RAW = "/api/rawtts"
SUBMITTED = "zanzibar"
"""Part of every submitted text: no answer may repeat it."""

MAX_CHARACTERS = 500
MAX_BODY_BYTES = 20_000
DONE = "done-before"
ORIGIN = "https://app.example"
OTHER_ORIGIN = "https://evil.example"
NAN, INFINITY = float("nan"), float("inf")


@dataclass(frozen=True)
class Answer:
    """What came back."""

    path: str
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def message(self) -> str:
        """The error's message, after a look at the shape that belongs to the path."""
        document = json.loads(self.body)
        if self.path.startswith("/api/"):
            assert set(document) == {"error", "code"}
            return str(document["error"])
        assert set(document) == {"error"}
        assert set(document["error"]) == {"message", "type", "param", "code"}
        return str(document["error"]["message"])

    @property
    def code(self) -> str:
        document = json.loads(self.body)
        return str(document["code"] if self.path.startswith("/api/") else document["error"]["code"])


def ask(url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
    """One request, exactly as written: no client tidies up the path. Bodies that are not bytes become JSON."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    payload = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.putrequest(method, path)
        if payload is not None:
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(payload)))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders(payload)
        response = connection.getresponse()
        return Answer(path, response.status, response.headers, response.read())
    finally:
        connection.close()


def refused(answer: Answer, status: int, *words: str) -> None:
    """The answer is this error; its message has all ``words`` and none of the caller's text."""
    assert answer.status == status, answer.body[:300]
    assert answer.headers["x-request-id"]
    for word in words:
        assert word in answer.message
    assert SUBMITTED not in answer.body.decode()
    assert len(answer.body) < 2_000


def stored(url: str, headers: dict[str, str] | None = None) -> list[str]:
    return [job["id"] for job in json.loads(ask(url, "GET", f"{JOBS}?limit=100", None, headers).body)["data"]]


def initiate_body(**fields: Any) -> dict[str, Any]:
    return {"text": f"Sail to {SUBMITTED}.", "voiceId": "default", "model": "fake-tts"} | fields


def job_body(**fields: Any) -> dict[str, Any]:
    return {"input": f"Sail to {SUBMITTED}.", "model": "fake-tts"} | fields


def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    limits = {"max_characters": MAX_CHARACTERS, "max_body_bytes": MAX_BODY_BYTES, "max_chunks": 20}
    with http_service(tmp_path_factory.mktemp("bad-input"), limits=limits) as running:
        assert ask(running.url, "PUT", f"{JOBS}/{DONE}", {"input": "All is well.", "model": "fake-tts"}).status == 202
        ended = ask(running.url, "GET", f"{JOBS}/{DONE}?wait=60")
        assert json.loads(ended.body)["status"] == "completed"
        yield running


@pytest.fixture
def url(service: HttpService) -> Iterator[str]:
    """The service's address; afterwards it has the same jobs as before and no backend was called."""
    before = stored(service.url), len(service.backend.calls)
    yield service.url
    assert (stored(service.url), len(service.backend.calls)) == before


CREATING = [
    ("POST", INITIATE),
    ("POST", RAW),
    ("POST", JOBS),
    ("PUT", f"{JOBS}/new-one"),
    ("POST", f"{JOBS}?dry_run=1"),
]
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


# -- numbers and ids in addresses -----------------------------------------------------------


@pytest.mark.parametrize("index", ["-1", "one", "1.5", "", "1e3", "0x1", str(10**10), "9" * 5_000, "%00", "NaN"])
def test_a_chunk_index_is_a_small_number(url: str, index: str) -> None:
    refused(ask(url, "GET", f"/api/tts-chunk?jobId={DONE}&chunkIndex={index}"), 400, "chunkIndex")
    if index:
        refused(ask(url, "GET", f"{JOBS}/{DONE}/chunks/{index}"), 400, "index")
        refused(ask(url, "GET", f"{JOBS}/{DONE}/chunks/{index}/audio"), 400, "index")


@pytest.mark.parametrize("index", ["1", "10000", str(10**9)])
def test_a_chunk_that_the_job_has_not_is_not_found(url: str, index: str) -> None:
    refused(ask(url, "GET", f"/api/tts-chunk?jobId={DONE}&chunkIndex={index}"), 404, "chunks 0 to 0")
    refused(ask(url, "GET", f"{JOBS}/{DONE}/chunks/{index}"), 404, "chunks 0 to 0")
    refused(ask(url, "GET", f"{JOBS}/{DONE}/chunks/{index}/audio"), 404, "chunks 0 to 0")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("tts-chunk", "jobId"),
        ("tts-chunk?jobId=done-before", "chunkIndex"),
        ("tts-chunk?chunkIndex=0", "jobId"),
        ("tts-chunk?jobId=&chunkIndex=0", "jobId"),
        ("tts-chunk?jobId=done-before&chunkIndex=0&format=mp3", "format"),
        ("tts-chunk?jobId=done-before&chunkIndex=0&format=", "format"),
        ("tts-job", "jobId"),
        ("tts-job?jobId=", "jobId"),
        (f"tts-job?jobId={'x' * 129}", "jobId"),
    ],
)
def test_the_original_needs_its_query(url: str, query: str, field: str) -> None:
    refused(ask(url, "GET", f"/api/{query}"), 400, field)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *[(f"?limit={value}", "limit") for value in ("0", "-1", "101", "many", "1.5", "", "9" * 5_000)],
        *[(f"?status={value}", "status") for value in ("done", "COMPLETED", "")],
        (f"?after={'x' * 129}", "after"),
        *[(f"/{DONE}?wait={value}", "wait") for value in ("-1", "61", "long", "nan", "inf", "")],
        *[(f"/{DONE}/audio?format={value}", "format") for value in ("mp4", "aac", "", "MP3", "x" * 17)],
        *[(f"/{DONE}/audio?gaps={value}", "gaps") for value in ("noise", "")],
        *[(f"/{DONE}/chunks/0/audio?format={value}", "format") for value in ("mp3", "")],
    ],
)
def test_the_job_door_refuses_bad_queries(url: str, query: str, field: str) -> None:
    refused(ask(url, "GET", JOBS + query), 400, field)


@pytest.mark.parametrize("after", ["unknown-job", "%00", "..%2f..", "a'--", "x"])
def test_a_list_after_a_job_that_is_not_there_is_not_found(url: str, after: str) -> None:
    refused(ask(url, "GET", f"{JOBS}?after={after}"), 404, "after")


ODD_IDS = [
    "unknown-job",
    "job-000000000000000000000000",
    "..",
    "%2e%2e",
    "%2e%2e%2fdone-before",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%00",
    "done-before%00",
    "done-before%0a",
    "done-before%20",
    "DONE-BEFORE",
    "x" * 65,
    "x" * 128,
    "%F0%9F%90%9E%F0%9F%90%9E",
    "%ff%fe%fd",
    "a'%20OR%20'1'='1",
    "%25s%25n",
]
JOB_ROUTES = [
    ("GET", ""),
    ("GET", "?wait=1"),
    ("GET", "/audio"),
    ("HEAD", "/audio"),
    ("GET", "/audio?format=wav&gaps=silence"),
    ("GET", "/chunks"),
    ("GET", "/chunks/0"),
    ("GET", "/chunks/0/audio"),
    ("GET", "/manifest"),
    ("GET", "/events"),
    ("GET", "/captions.srt"),
    ("POST", "/cancel"),
    ("POST", "/retry"),
    ("DELETE", ""),
]


@pytest.mark.parametrize("job_id", ODD_IDS)
def test_an_id_that_no_job_has_is_not_found_on_every_route(url: str, job_id: str) -> None:
    for method, path in JOB_ROUTES:
        answer = ask(url, method, f"{JOBS}/{job_id}{path}")
        assert answer.status == 404, (method, path, answer.status)
        assert answer.headers["x-request-id"]
        if method != "HEAD":
            refused(answer, 404)
    refused(ask(url, "GET", f"/api/tts-job?jobId={job_id}"), 404)
    refused(ask(url, "GET", f"/api/tts-chunk?jobId={job_id}&chunkIndex=0"), 404)


@pytest.mark.parametrize(
    "job_id", ["unknown-job", "..", "../done-before", "done-before\x00", "x" * 128, "🐞🐞🐞", "done-before\n", "."]
)
def test_an_id_that_no_job_has_cannot_be_deleted(url: str, job_id: str) -> None:
    refused(ask(url, "POST", "/api/tts-delete", {"jobId": job_id}), 404)
    assert DONE in stored(url)
    assert ask(url, "GET", f"{JOBS}/{DONE}/audio").status == 200


@pytest.mark.parametrize(
    "job_id", ["..", "ab", "x" * 65, "%2e%2e", "a%00b", "a%20b%20c", "%F0%9F%90%9E", "abc%0a", "a:b"]
)
def test_a_job_cannot_be_made_under_an_odd_id(url: str, job_id: str) -> None:
    refused(ask(url, "PUT", f"{JOBS}/{job_id}", job_body()), 400, "client_id", "3 to 64")


def test_an_id_too_long_to_look_at_is_refused(url: str) -> None:
    for method, path in (("GET", ""), ("GET", "/audio"), ("DELETE", ""), ("POST", "/cancel")):
        assert ask(url, method, f"{JOBS}/{'x' * 5_000}{path}").status in (400, 404)


# -- methods, routes, odd requests ----------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", INITIATE),
        ("PUT", INITIATE),
        ("POST", f"/api/tts-job?jobId={DONE}"),
        ("DELETE", f"/api/tts-chunk?jobId={DONE}"),
        ("GET", RAW),
        ("GET", "/api/tts-delete"),
        ("DELETE", JOBS),
        ("PATCH", JOBS),
        ("POST", f"{JOBS}/{DONE}"),
        ("DELETE", f"{JOBS}/{DONE}/audio"),
        ("GET", f"{JOBS}/{DONE}/cancel"),
        ("POST", "/health"),
    ],
)
def test_a_wrong_method_is_not_allowed(url: str, method: str, path: str) -> None:
    answer = ask(url, method, path)
    refused(answer, 405)
    assert answer.code == "method_not_allowed"
    assert answer.headers["allow"]
    assert method not in answer.headers["allow"].split(", ")


def test_allow_names_the_methods_of_all_routes_with_the_path(url: str) -> None:
    answer = ask(url, "PATCH", f"{JOBS}/some-job", None)
    assert set(answer.headers["allow"].split(", ")) == {"GET", "PUT", "DELETE"}


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/nothing", "/api/", "/v1/nothing", f"{JOBS}/{DONE}/nothing", "/v1/readyz", "/%2e%2e/etc"]
)
def test_an_unknown_route_is_not_found(url: str, path: str) -> None:
    answer = ask(url, "GET", path)
    refused(answer, 404)
    assert answer.code == "not_found"


@pytest.mark.parametrize("host", ["[", "a/api/", "x:y:z", "%00"])
def test_the_host_header_does_not_change_the_shape_of_an_error(url: str, host: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.putrequest("GET", f"{JOBS}/unknown-job", skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        response = connection.getresponse()
        refused(Answer(JOBS, response.status, response.headers, response.read()), 404)
    finally:
        connection.close()


def test_a_request_id_comes_back_if_it_is_one(url: str) -> None:
    given = ask(url, "GET", f"{JOBS}/unknown-job", None, {"x-request-id": "my-id.1"})
    assert given.headers["x-request-id"] == "my-id.1"
    for odd in ("two words", "x" * 129, "<b>", ""):
        made = ask(url, "GET", f"{JOBS}/unknown-job", None, {"x-request-id": odd}).headers["x-request-id"]
        assert made
        assert made != odd


async def test_what_nobody_expected_is_answered_in_the_same_shape_and_says_nothing_of_itself(
    service: HttpService,
) -> None:
    async def broken() -> None:
        raise RuntimeError(SUBMITTED)

    async def tools() -> WorkerTools:
        return service.parts.tools

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    args = service.parts.args
    app = build_http_app(
        args, service.parts.service, SingleCall(args, tools), {"broken": broken}, service.parts.pool.figures
    )
    scope = {"type": "http", "method": "GET", "path": "/readyz", "query_string": b"", "headers": []}
    await app(scope, receive, send)
    headers = http.client.HTTPMessage()
    for name, value in sent[0]["headers"]:
        headers[name.decode()] = value.decode()
    answer = Answer("/readyz", sent[0]["status"], headers, b"".join(message["body"] for message in sent[1:]))
    refused(answer, 500)
    assert answer.code == "internal_error"


# -- keys and origins -----------------------------------------------------------------------

ANN = {"Authorization": "Bearer key-of-ann"}
BOB = {"api-key": "key-of-bob"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    """A service with two tenants and one allowed origin; Ann has a finished job."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTS_TEST_HTTP_KEYS", "ann:key-of-ann, bob:key-of-bob")
        directory = tmp_path_factory.mktemp("guarded")
        changes = {"auth": {"keys_env": "TTS_TEST_HTTP_KEYS"}, "cors_origins": [ORIGIN]}
        with http_service(directory, limits={"max_body_bytes": MAX_BODY_BYTES}, **changes) as running:
            assert ask(running.url, "PUT", f"{JOBS}/of-ann", job_body(input="Mine."), ANN).status == 202
            assert ask(running.url, "GET", f"{JOBS}/of-ann?wait=60", None, ANN).status == 200
            yield running


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": "key-of-ann"},
        {"Authorization": "Basic key-of-ann"},
        {"Authorization": "Bearer key-of-ann2"},
        {"Authorization": "Bearer key-of-an"},
        {"Authorization": "Bearer ann:key-of-ann"},
        {"api-key": "wrong"},
        {"api-key": ""},
        {"api-key": "clé"},
    ],
    ids=repr,
)
def test_without_a_valid_key_nothing_is_answered(guarded: HttpService, headers: dict[str, str]) -> None:
    requests = [
        *[(method, path, job_body() | initiate_body()) for method, path in CREATING],
        *[(method, f"{JOBS}/of-ann{path}", None) for method, path in JOB_ROUTES if method != "HEAD"],
        ("GET", JOBS, None),
        ("GET", "/api/tts-job?jobId=of-ann", None),
        ("GET", "/api/tts-chunk?jobId=of-ann&chunkIndex=0", None),
        ("POST", "/api/tts-delete", {"jobId": "of-ann"}),
        ("GET", "/v1/nothing", None),
    ]
    for method, path, body in requests:
        answer = ask(guarded.url, method, path, body, headers)
        refused(answer, 401, "key")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "key-of" not in answer.body.decode()
    assert stored(guarded.url, ANN) == ["of-ann"]


@pytest.mark.parametrize("path", ["/health", "/readyz", "/openapi.json", "/docs"])
def test_what_shows_no_job_needs_no_key(guarded: HttpService, path: str) -> None:
    assert ask(guarded.url, "GET", path).status == 200


@pytest.mark.parametrize(
    "headers",
    [ANN, {"Authorization": "bearer key-of-ann"}, {"api-key": "key-of-ann"}],
    ids=["Bearer", "bearer", "api-key"],
)
def test_a_key_opens_its_own_jobs(guarded: HttpService, headers: dict[str, str]) -> None:
    assert ask(guarded.url, "GET", f"{JOBS}/of-ann", None, headers).status == 200
    assert ask(guarded.url, "GET", f"{JOBS}/of-ann/audio", None, headers).status == 200
    assert ask(guarded.url, "GET", "/api/tts-chunk?jobId=of-ann&chunkIndex=0", None, headers).status == 200


def test_another_tenants_job_is_not_found_on_every_route(guarded: HttpService) -> None:
    for method, path in JOB_ROUTES:
        mine = ask(guarded.url, method, f"{JOBS}/of-ann{path}", None, BOB)
        nobodys = ask(guarded.url, method, f"{JOBS}/of-nobody{path}", None, BOB)
        assert (mine.status, mine.body) == (nobodys.status, nobodys.body) == (404, mine.body), (method, path)
    for query in (
        "tts-job?jobId=of-ann",
        "tts-chunk?jobId=of-ann&chunkIndex=0",
        "tts-chunk?jobId=of-ann&chunkIndex=99",
    ):
        refused(ask(guarded.url, "GET", f"/api/{query}", None, BOB), 404, "no such job")
    refused(ask(guarded.url, "POST", "/api/tts-delete", {"jobId": "of-ann"}, BOB), 404, "no such job")
    refused(ask(guarded.url, "GET", f"{JOBS}?after=of-ann", None, BOB), 404, "after")
    assert ask(guarded.url, "GET", f"{JOBS}/of-ann", None, ANN).status == 200


def test_another_tenants_id_cannot_be_taken_over(guarded: HttpService) -> None:
    answer = ask(guarded.url, "PUT", f"{JOBS}/of-ann", job_body(input="Mine."), BOB)
    refused(answer, 404, "no such job")
    assert "of-ann" in stored(guarded.url, ANN)
    assert "of-ann" not in stored(guarded.url, BOB)


def test_lists_and_idempotency_keys_are_each_tenants_own(guarded: HttpService) -> None:
    made = {}
    for name, key in (("ann", ANN), ("bob", BOB)):
        answer = ask(guarded.url, "POST", JOBS, job_body(), key | {"Idempotency-Key": "same"})
        assert answer.status == 202
        made[name] = json.loads(answer.body)["id"]
    assert made["ann"] != made["bob"]
    assert made["bob"] in stored(guarded.url, BOB)
    assert made["bob"] not in stored(guarded.url, ANN)
    assert set(stored(guarded.url, ANN)).isdisjoint(stored(guarded.url, BOB))
    for name, key in (("ann", ANN), ("bob", BOB)):
        assert ask(guarded.url, "DELETE", f"{JOBS}/{made[name]}", None, key).status == 204


LARGE = json.dumps({"input": "x" * MAX_BODY_BYTES}).encode()
CORS_CASES = [
    (200, "GET", f"{JOBS}/of-ann", None, ANN),
    (200, "GET", f"{JOBS}/of-ann/audio", None, ANN),
    (206, "GET", f"{JOBS}/of-ann/audio", None, ANN | {"Range": "bytes=0-9"}),
    (416, "GET", f"{JOBS}/of-ann/audio", None, ANN | {"Range": "bytes=999999999-"}),
    (200, "GET", "/api/tts-job?jobId=of-ann", None, ANN),
    (200, "GET", "/health", None, {}),
    (400, "POST", INITIATE, {}, ANN),
    (400, "POST", JOBS, b"{", ANN),
    (401, "GET", f"{JOBS}/of-ann", None, {}),
    (401, "POST", INITIATE, initiate_body(), {}),
    (404, "GET", f"{JOBS}/unknown-job", None, ANN),
    (404, "GET", "/nothing", None, ANN),
    (405, "PATCH", JOBS, None, ANN),
    (413, "POST", JOBS, LARGE, ANN),
    (413, "POST", INITIATE, LARGE, ANN),
    (422, "POST", JOBS, job_body(colour="red"), ANN),
]


@pytest.mark.parametrize(("status", "method", "path", "body", "headers"), CORS_CASES)
def test_an_allowed_origin_may_read_every_answer(
    guarded: HttpService, status: int, method: str, path: str, body: Any, headers: dict[str, str]
) -> None:
    answer = ask(guarded.url, method, path, body, headers | {"Origin": ORIGIN})
    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "Origin" in answer.headers["vary"]
    exposed = answer.headers["access-control-expose-headers"].lower()
    for name in ("x-request-id", "x-tts-job-id", "retry-after", "location", "etag", "content-range"):
        assert name in exposed


@pytest.mark.parametrize(("status", "method", "path", "body", "headers"), CORS_CASES)
@pytest.mark.parametrize("origin", [OTHER_ORIGIN, f"{ORIGIN}.evil", "null", None])
def test_no_other_origin_may_read_any_answer(
    guarded: HttpService, status: int, method: str, path: str, body: Any, headers: dict[str, str], origin: str | None
) -> None:
    answer = ask(guarded.url, method, path, body, headers | ({"Origin": origin} if origin else {}))
    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] is None


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_browser_may_ask_beforehand_without_a_key(guarded: HttpService, method: str) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization, range, prefer"}
    allowed = ask(guarded.url, "OPTIONS", JOBS, None, asked | {"Origin": ORIGIN})
    assert allowed.status == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert method in allowed.headers["access-control-allow-methods"]
    assert {"authorization", "range", "prefer"} <= set(
        allowed.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    )
    other = ask(guarded.url, "OPTIONS", JOBS, None, asked | {"Origin": OTHER_ORIGIN})
    assert other.status == 400
    assert other.headers["access-control-allow-origin"] is None


def test_without_configured_origins_nobody_gets_the_headers(url: str) -> None:
    for path in (f"{JOBS}/{DONE}", f"{JOBS}/unknown-job", "/health"):
        assert ask(url, "GET", path, None, {"Origin": ORIGIN}).headers["access-control-allow-origin"] is None
