"""The fault-injecting server does what it is told, over a real socket: a fault that does not happen tests nothing."""

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from tts_actors.audio import MEDIA_TYPES, Pcm, pcm_of_wav, tone
from tts_actors.testing import NAMED_FAULTS, FakeBackend, Faults, digest, running_backend
from tts_actors.testing.faults import choose_fault, delay_ms_of

TEXT = "The lamp was lit at dusk, and the keeper slept."
SPEECH = "/v1/audio/speech"


@pytest.fixture
async def backend() -> AsyncIterator[FakeBackend]:
    async with running_backend() as backend:
        yield backend


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


class Reply:
    """A response that was read to its end."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status, self.headers, self.body = response.status, response.headers, body

    @property
    def samples(self) -> Pcm:
        return np.asarray(soundfile.read(io.BytesIO(self.body), dtype="int16")[0], np.int16)


async def post(http: aiohttp.ClientSession, url: str, document: Any) -> Reply:
    async with http.post(url, json=document) as response:
        return Reply(response, await response.read())


async def speak(http: aiohttp.ClientSession, backend: FakeBackend, text: str = TEXT, fmt: str = "wav") -> Reply:
    body = {"model": "fake-tts", "input": text, "voice": "tone", "response_format": fmt}
    return await post(http, backend.url + SPEECH, body)


async def raw_speak(http: aiohttp.ClientSession, backend: FakeBackend, text: str = TEXT) -> Reply:
    return await post(http, backend.url + "/api/rawtts", {"text": text, "model": "m", "voiceId": "v"})


def _json(reply: Reply) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(reply.body)
    return document


async def receive(response: aiohttp.ClientResponse, into: bytearray) -> None:
    async for piece in response.content.iter_any():
        into += piece


async def until(condition: Callable[[], bool], seconds: float = 3) -> float:
    """Wait for ``condition``; the seconds it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "the condition never came true"
        await asyncio.sleep(0.005)
    return time.monotonic() - started


# -- protocols ----------------------------------------------------------------------------------


async def test_openai_speech_is_the_tone_of_the_text(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    reply = await speak(http, backend)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "audio/wav")
    assert np.array_equal(pcm_of_wav(reply.body), tone(TEXT))


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
async def test_openai_speaks_every_format(backend: FakeBackend, http: aiohttp.ClientSession, fmt: str) -> None:
    reply = await speak(http, backend, fmt=fmt)
    assert reply.headers["Content-Type"] == MEDIA_TYPES[fmt]
    samples = np.frombuffer(reply.body, "<i2") if fmt == "pcm" else reply.samples
    assert abs(samples.size - tone(TEXT).size) < 2_400


async def test_speed_changes_the_length(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    body = {"input": TEXT, "response_format": "pcm", "speed": 2}
    reply = await post(http, backend.url + SPEECH, body)
    assert len(reply.body) // 2 == tone(TEXT).size // 2


async def test_raw_tts_answers_base64_pcm(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    document = _json(await raw_speak(http, backend))
    assert document["mimeType"] == "audio/L16;rate=24000"
    assert np.array_equal(np.frombuffer(base64.b64decode(document["audioContentBase64"]), "<i2"), tone(TEXT))


@pytest.mark.parametrize("path", ["/", "/synthesize"])
async def test_piper_http_answers_wav_at_its_own_rate(
    backend: FakeBackend, http: aiohttp.ClientSession, path: str
) -> None:
    reply = await post(http, backend.url + path, {"text": TEXT})
    samples, rate_hz = soundfile.read(io.BytesIO(reply.body), dtype="int16")
    assert rate_hz == 22_050
    assert np.array_equal(samples, tone(TEXT, rate_hz=22_050))


async def test_models_and_voices_are_listed(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    async with http.get(backend.url + "/v1/models") as models:
        assert {model["id"] for model in (await models.json())["data"]} == {"fake-tts", "tts-1"}
    async with http.get(backend.url + "/v1/audio/voices") as voices:
        assert {"id": "tone", "name": "Tone"} in (await voices.json())["voices"]
    async with http.get(backend.url + "/voices") as piper:
        assert "tone" in await piper.json()


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"input": ""}', b'{"input": "a", "response_format": "exe"}'])
async def test_a_wrong_request_is_a_400_and_in_the_log(
    backend: FakeBackend, http: aiohttp.ClientSession, body: bytes
) -> None:
    async with http.post(backend.url + SPEECH, data=body) as response:
        assert response.status == 400
    assert backend.calls[0]["status"] == 400


# -- polling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("not_yet", [202, 404])
@pytest.mark.parametrize("where", ["both", "body", "header"])
@pytest.mark.parametrize("field", ["audioContentBase64", "base64Audio"])
async def test_raw_tts_can_make_its_client_poll(
    backend: FakeBackend, http: aiohttp.ClientSession, not_yet: int, where: str, field: str
) -> None:
    backend.set_faults(async_202_polls=2, async_not_yet=not_yet, async_id_in=where, raw_audio_field=field)
    accepted = await raw_speak(http, backend)
    assert accepted.status == 202
    in_body, in_header = _json(accepted).get("jobId"), accepted.headers.get("X-Processing-Job-Id")
    assert (bool(in_body), bool(in_header)) == (where != "header", where != "body")
    url = f"{backend.url}/api/tts-result?jobId={in_body or in_header}"
    statuses = []
    for _ in range(3):
        async with http.get(url) as response:
            statuses.append(response.status)
            document = await response.json()
    assert statuses == [not_yet, not_yet, 200]
    assert len(base64.b64decode(document[field])) == tone(TEXT).nbytes
    assert (len(backend.calls), backend.log.polls) == (1, 3)


async def test_a_polled_job_can_fail_at_its_end(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    backend.set_faults(async_202_polls=0, async_error=500)
    job_id = _json(await raw_speak(http, backend))["jobId"]
    async with http.get(f"{backend.url}/api/tts-result?jobId={job_id}") as response:
        assert response.status == 500
    async with http.get(f"{backend.url}/api/tts-result?jobId=unknown") as response:
        assert response.status == 404


# -- faults of the answer -----------------------------------------------------------------------


async def test_a_status_comes_in_the_protocols_shape(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    backend.faults.always = "503"
    assert _json(await speak(http, backend))["error"]["code"] == "503"
    assert _json(await raw_speak(http, backend))["code"] == "503"
    assert (await post(http, backend.url + "/", {"text": TEXT})).status == 503


@pytest.mark.parametrize("status", ["429", "503"])
async def test_retry_after_is_sent_where_it_belongs(
    backend: FakeBackend, http: aiohttp.ClientSession, status: str
) -> None:
    backend.set_faults(always=status, retry_after=7)
    assert (await speak(http, backend)).headers["Retry-After"] == "7"
    backend.set_faults(always="500")
    assert "Retry-After" not in (await speak(http, backend)).headers


async def test_faults_of_the_audio_are_what_they_say(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    replies, whole = {}, tone(TEXT)
    for fault in ("silence", "clipped", "short", "empty", "garbage", "cut", "wrong_type"):
        backend.faults.always = fault
        replies[fault] = await speak(http, backend)
        assert replies[fault].status == 200
    assert np.array_equal(replies["silence"].samples, np.zeros_like(whole))
    assert set(replies["clipped"].samples.tolist()) == {-32_768, 32_767}
    assert replies["short"].samples.size == 1_200
    assert replies["empty"].body == b""
    assert not replies["garbage"].body.startswith(b"RIFF")
    declared = int.from_bytes(replies["cut"].body[40:44], "little")
    assert (declared, len(replies["cut"].body) - 44) == (whole.nbytes, whole.nbytes // 4 * 2)
    assert replies["wrong_type"].headers["Content-Type"] == "audio/mpeg"
    assert replies["wrong_type"].body.startswith(b"RIFF")


async def test_faults_of_the_audio_reach_raw_tts_too(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    backend.faults.always = "silence"
    assert not any(base64.b64decode(_json(await raw_speak(http, backend))["audioContentBase64"]))
    backend.faults.always = "empty"
    assert _json(await raw_speak(http, backend))["audioContentBase64"] == ""
    backend.faults.always = "wrong_type"
    assert _json(await raw_speak(http, backend))["mimeType"] == "audio/mpeg"


async def test_pages_that_are_not_audio_come_with_200(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    backend.faults.always = "html"
    html = await speak(http, backend)
    assert (html.status, html.headers["Content-Type"][:9]) == (200, "text/html")
    backend.faults.always = "json_error"
    error = await speak(http, backend)
    assert (error.status, list(_json(error))) == (200, ["error"])


# -- faults of the connection -------------------------------------------------------------------


async def test_drop_closes_without_an_answer(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    backend.faults.always = "drop"
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await speak(http, backend)
    call = backend.calls[0]
    assert (call["status"], call["completed"], call["client_gone"]) == (None, False, False)


async def test_truncate_sends_half_of_what_it_declares(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    backend.faults.always = "truncate"
    whole, received = 44 + tone(TEXT).nbytes, bytearray()
    async with http.post(backend.url + SPEECH, json={"input": TEXT, "response_format": "wav"}) as response:
        assert response.content_length == whole
        with pytest.raises(aiohttp.ClientPayloadError):
            await receive(response, received)
    assert len(received) == whole // 2
    assert not backend.calls[0]["completed"]


async def test_slow_drip_keeps_to_its_rate_and_ends_whole(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    backend.set_faults(always="slow_drip", bytes_per_second=40_000, fixed_audio_ms=250)  # 12 kB: 0.3 s
    started = time.monotonic()
    reply = await speak(http, backend)
    assert time.monotonic() - started >= 0.29
    assert len(reply.body) == 44 + 12_000
    assert backend.calls[0]["completed"]


@pytest.mark.parametrize("faults", [{"always": "hang"}, {"delay_ms": 60_000}, {"always": "slow_drip"}])
async def test_a_client_that_goes_is_noticed_at_once(
    backend: FakeBackend, http: aiohttp.ClientSession, faults: dict[str, Any]
) -> None:
    backend.set_faults(**faults)
    call = asyncio.create_task(speak(http, backend))
    await until(lambda: backend.log.in_flight == 1)
    call.cancel()
    assert await until(lambda: backend.log.in_flight == 0) < 0.3
    record = backend.calls[0]
    assert (record["client_gone"], record["completed"]) == (True, False)


async def test_a_hanging_call_does_not_hold_up_the_end(http: aiohttp.ClientSession) -> None:
    async with running_backend(Faults(always="hang")) as backend:
        call = asyncio.create_task(speak(http, backend))
        await until(lambda: backend.log.in_flight == 1)
        started = time.monotonic()
    assert time.monotonic() - started < 2
    with pytest.raises(aiohttp.ClientError):
        await call
    assert not backend.calls[0]["client_gone"]


# -- when faults come ---------------------------------------------------------------------------


async def test_a_marker_in_the_text_fails_that_text_alone(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    marked = TEXT + " [[fault:502*2]]"
    statuses = [(await speak(http, backend, text)).status for text in (TEXT, marked, marked, marked, TEXT)]
    assert statuses == [200, 502, 502, 200, 200]
    assert [call["fault"] for call in backend.calls] == [None, "502", "502", None, None]
    assert [(await speak(http, backend, "[[fault:500]]")).status for _ in range(3)] == [500] * 3


async def test_an_unknown_marker_is_refused_and_markers_can_be_off(
    backend: FakeBackend, http: aiohttp.ClientSession
) -> None:
    assert (await speak(http, backend, "[[fault:nonsense]]")).status == 400
    backend.faults.text_markers = False
    assert (await speak(http, backend, "[[fault:nonsense]]")).status == 200


async def test_the_first_n_calls_fail(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    backend.set_faults(fail_first_n_calls=2, fail_kind="429")
    assert [(await speak(http, backend, str(n))).status for n in range(4)] == [429, 429, 200, 200]
    backend.set_faults(fail_first_n_calls=1)
    assert [(await speak(http, backend)).status for _ in range(2)] == [429, 200]


async def test_each_text_fails_n_times_then_works(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    backend.set_faults(fail_times_per_text=1)
    statuses = [(await speak(http, backend, text)).status for text in ("a", "b", "a", "b")]
    assert statuses == [500, 500, 200, 200]


def test_chance_follows_from_seed_and_text_and_meets_its_rates() -> None:
    faults = Faults(seed=3, statuses={429: 0.1, 500: 0.2}, fail_rate=0.5, fail_kinds=["hang", "silence"])
    texts = [f"text {n}" for n in range(2_000)]
    drawn = [choose_fault(faults, text, call=n, attempt=1) for n, text in enumerate(texts, 1)]
    again = [choose_fault(faults, text, call=7, attempt=1) for text in reversed(texts)]
    assert drawn == again[::-1]
    assert drawn != [choose_fault(Faults(seed=4, fail_rate=0.5), text, call=1, attempt=1) for text in texts]
    shares = {fault: drawn.count(fault) / len(drawn) for fault in set(drawn)}
    expected = {"429": 0.1, "500": 0.2, "hang": 0.175, "silence": 0.175, None: 0.35}
    assert shares == pytest.approx(expected, abs=0.03)


def test_delay_jitters_within_its_bound_and_grows_behind_the_knee() -> None:
    faults = Faults(delay_ms=100, jitter_ms=50, knee=4)
    calm = [delay_ms_of(faults, f"text {n}", attempt=1, in_flight=1) for n in range(100)]
    assert (round(min(calm), -1), round(max(calm), -1)) == (100, 150)
    crowded = [delay_ms_of(faults, "a", attempt=1, in_flight=n) for n in (4, 2, 8, 16)]
    assert [delay / crowded[0] for delay in crowded] == pytest.approx([1, 1, 2, 4])
    assert delay_ms_of(faults, "[[delay:1000]]", attempt=1, in_flight=1) >= 1_100


async def test_calls_beyond_max_concurrency_are_told_so_at_once(
    backend: FakeBackend, http: aiohttp.ClientSession
) -> None:
    backend.set_faults(max_concurrency=3, delay_ms=300)
    replies = await asyncio.gather(*(speak(http, backend, f"text {n}") for n in range(5)))
    assert sorted(reply.status for reply in replies) == [200, 200, 200, 429, 429]
    refused = [call for call in backend.calls if call["status"] == 429]
    assert all((call["ended_ms"] or 0) - call["started_ms"] < 200 for call in refused)
    assert 4 <= backend.max_in_flight <= 5  # a refused call may be gone before the next one comes


# -- the log and the controls -------------------------------------------------------------------


async def test_a_call_is_recorded_in_full(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    backend.faults.delay_ms = 30
    await speak(http, backend)
    record: dict[str, Any] = {**backend.calls[0]}
    assert 30 <= record.pop("ended_ms") - record.pop("started_ms") < 1_000
    assert record == {
        "seq": 1,
        "protocol": "openai",
        "text_sha256": digest(TEXT),
        "characters": len(TEXT),
        "text": TEXT,
        "status": 200,
        "fault": None,
        "completed": True,
        "client_gone": False,
        "in_flight_at_start": 1,
        "traceparent": None,
    }


async def test_the_text_can_be_kept_out_of_the_log(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    backend.faults.log_text = False
    await speak(http, backend)
    assert (backend.calls[0]["text"], backend.calls[0]["text_sha256"]) == (None, digest(TEXT))


async def test_controls_read_change_and_reset(backend: FakeBackend, http: aiohttp.ClientSession) -> None:
    control = backend.url + "/_control/"
    assert _json(await post(http, control + "faults", {"always": "500", "statuses": {"429": 0.5}}))["always"] == "500"
    assert (backend.faults.always, backend.faults.statuses) == ("500", {429: 0.5})
    await speak(http, backend)
    async with http.get(control + "stats") as stats:
        expected = {"calls": 1, "in_flight": 0, "max_in_flight": 1, "completed": 1, "client_gone": 0, "polls": 0}
        assert await stats.json() == expected
    async with http.get(control + "calls") as calls:
        assert [call["fault"] for call in await calls.json()] == ["500"]
    async with http.delete(control + "calls") as cleared:
        assert (cleared.status, backend.calls) == (204, [])
    async with http.delete(control + "faults") as reset:
        assert (reset.status, backend.faults) == (200, Faults())


@pytest.mark.parametrize("document", [{"alway": "500"}, {"always": "nonsense"}, {"fail_rate": 2}, [1], "x"])
async def test_a_wrong_fault_changes_nothing(backend: FakeBackend, http: aiohttp.ClientSession, document: Any) -> None:
    reply = await post(http, backend.url + "/_control/faults", document)
    assert (reply.status, backend.faults) == (400, Faults())
    with pytest.raises(ValidationError):
        backend.faults.always = "nonsense"


def test_every_named_fault_is_usable() -> None:
    assert all(Faults(always=name).always == name for name in NAMED_FAULTS)
