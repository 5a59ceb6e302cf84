"""What speech servers do on the wire, each over a real socket: the adapters against servers of a few lines."""

import asyncio
import base64
import datetime
import gzip
import ipaddress
import json
import socket
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.local_service import SILENT, args_for
from tts_actors.audio import Pcm, prepare_clip, tone, wav_bytes, wav_header
from tts_actors.backends.adapters import open_backend
from tts_actors.backends.http import open_session, retry_after_seconds
from tts_actors.backends.probe import Probe
from tts_actors.config import BackendArgs
from tts_actors.errors import BackendError, BadTake
from tts_actors.models import Attempt, ChunkResult
from tts_actors.protocols import Reply, Utterance
from tts_actors.testing.in_process import running_service

HOST = "127.0.0.1"
TEXT = "The lamp was lit at dusk, and the keeper slept."
UTTERANCE = Utterance(TEXT, "m", "default", 1.0, None, None)
PCM = tone(TEXT)
WAV = wav_bytes(PCM)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def _server(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers every request with ``handler``."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0, ssl_context=tls).start()
        yield f"{'https' if tls else 'http'}://{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _speak(url: str, environ: dict[str, str] | None = None, **fields: Any) -> Reply:
    args = BackendArgs.model_validate({"name": "b", "protocol": "openai", "url": url} | fields)
    async with open_session() as session:
        return await open_backend(args, session, environ or {}).speak(UTTERANCE)


def _answering(body: bytes, content_type: str = "audio/wav", status: int = 200, **headers: str) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={"Content-Type": content_type} | headers)

    return answer


# -- how much is read ---------------------------------------------------------------------------


def _in_pieces(body: bytes, sent: list[int], **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "audio/wav"} | headers)
        await response.prepare(request)
        for start in range(0, len(body), 65_536):
            await response.write(body[start : start + 65_536])
            sent.append(len(body[start : start + 65_536]))
        return response

    return answer


async def test_a_reply_as_large_as_it_may_be_is_read_and_one_byte_more_is_not() -> None:
    async with _server(_answering(bytes(100_000))) as url:
        assert len((await _speak(url, max_reply_bytes=100_000)).body) == 100_000
        with pytest.raises(BackendError, match="larger than max_reply_bytes") as caught:
            await _speak(url, max_reply_bytes=99_999)
    assert (caught.value.kind, caught.value.status) == ("reply_too_large", 200)


async def test_a_reply_without_a_length_is_cut_off_at_the_limit() -> None:
    sent: list[int] = []
    async with _server(_in_pieces(bytes(64 * 2**20), sent)) as url:
        with pytest.raises(BackendError, match="max_reply_bytes"):
            await _speak(url, max_reply_bytes=2**20)
    assert sum(sent) < 32 * 2**20  # the limit, and what the sockets hold


async def test_what_counts_of_a_compressed_reply_is_its_size_unpacked() -> None:
    bomb = gzip.compress(bytes(80 * 2**20), 1)
    assert len(bomb) < 2**20
    async with _server(_in_pieces(bomb, [], **{"Content-Encoding": "gzip"})) as url:
        with pytest.raises(BackendError, match=r"max_reply_bytes \(67108864\)"):
            await _speak(url)


@pytest.mark.parametrize(
    ("body", "encoding"), [(zlib.compress(WAV)[:-100], "deflate"), (b"no gzip at all", "gzip"), (b"\0" * 99, "deflate")]
)
async def test_a_compressed_reply_that_is_damaged_is_an_error_of_the_backend(body: bytes, encoding: str) -> None:
    async with _server(_in_pieces(body, [], **{"Content-Encoding": encoding})) as url:
        with pytest.raises(BackendError) as caught:
            await _speak(url)
    assert caught.value.may_retry


async def test_a_compressed_reply_that_is_whole_is_taken_though_nobody_asked_for_it() -> None:
    seen = _Seen(_in_pieces(zlib.compress(WAV), [], **{"Content-Encoding": "deflate"}))
    async with _server(seen) as url:
        assert (await _speak(url)).body == WAV
    assert seen.headers[0]["Accept-Encoding"] == "identity"


# -- where requests and keys go -----------------------------------------------------------------


class _Seen:
    """A server that notes what it is sent."""

    def __init__(self, answer: Handler) -> None:
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self._answer = answer

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        self.paths.append(request.path)
        return await self._answer(request)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("protocol", ["openai", "raw_tts", "piper_http"])
async def test_redirects_are_not_followed(status: int, protocol: str) -> None:
    elsewhere = _Seen(_answering(WAV))
    async with _server(elsewhere) as there:
        here = _Seen(_answering(b"", status=status, Location=f"{there}/v1/audio/speech"))
        async with _server(here) as url:
            with pytest.raises(BackendError, match=f"HTTP {status}"):
                await _speak(url, {"KEY": "secret"}, protocol=protocol, api_key_env="KEY")
    assert (len(here.paths), elsewhere.paths) == (1, [])


async def test_every_backend_gets_its_own_key_and_nothing_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_A", "secret-a")
    monkeypatch.setenv("KEY_B", "secret-b")
    failing = _Seen(_answering(b"{}", "application/json", 500, **{"Set-Cookie": "session=of-a"}))
    other, open_one = _Seen(_answering(b"", status=503)), _Seen(_answering(WAV))
    async with _server(failing) as a, _server(other) as b, _server(open_one) as c:
        urls = [url.replace(HOST, "localhost") for url in (a, b, c)]  # (an address would get no cookies anyway)
        backends = [
            {"name": name, "protocol": "openai", "url": f"{url}/v1", "model": "fake-tts", "api_key_env": key}
            for name, url, key in zip("abc", urls, ["KEY_A", "KEY_B", None], strict=True)
        ]
        args = args_for(tmp_path, c, backends=backends, retry={"base_ms": 1, "cap_ms": 1, "outage_ms": 0})
        async with running_service(args) as service:
            job = (await service.service.create("", SILENT, " ".join(f"Sentence {n}." for n in range(5)))).job
            await service.service.wait("", job.id, 60)
    assert {headers["Authorization"] for headers in failing.headers} == {"Bearer secret-a"}
    assert {headers["Authorization"] for headers in other.headers} == {"Bearer secret-b"}
    assert len(failing.headers) > 1
    assert open_one.headers
    assert not any("Authorization" in headers for headers in open_one.headers)
    assert not any("Cookie" in headers for seen in (failing, other, open_one) for headers in seen.headers)


def _certificate(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS whose certificate nobody has vouched for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


async def test_a_server_whose_certificate_nobody_vouches_for_is_not_spoken_to(tmp_path: Path) -> None:
    seen = _Seen(_answering(WAV))
    async with _server(seen, _certificate(tmp_path)) as url:
        with pytest.raises(BackendError, match="no trusted connection: ClientConnectorCertificateError") as caught:
            await _speak(url, {"KEY": "secret"}, api_key_env="KEY")
        assert (caught.value.kind, caught.value.may_retry, seen.headers) == ("tls", False, [])
        async with aiohttp.ClientSession() as session, session.get(url, ssl=False) as answer:
            assert await answer.read() == WAV  # it is the certificate and nothing else


# -- how long is waited -------------------------------------------------------------------------

TIMEOUTS = {"base_ms": 150, "per_character_ms": 0, "backend_cap_ms": 150, "margin_ms": 50, "cap_ms": 200}


async def _attempts(folder: Path, url: str, **backend: Any) -> tuple[Attempt, ...]:
    """The attempts of one chunk through the whole service."""
    args = args_for(folder, url, backend={"url": url} | backend, timeouts=TIMEOUTS)
    async with running_service(args) as service:
        job = (await service.service.create("", SILENT, TEXT)).job
        await service.service.wait("", job.id, 60)
        (view,) = await service.service.chunks("", job.id)
        assert view.result is not None
        return view.result.attempts


def _is_cut_off(attempts: tuple[Attempt, ...]) -> bool:
    return {attempt.outcome for attempt in attempts} == {"timeout"} and all(
        150 <= attempt.elapsed_ms < 2_000 for attempt in attempts
    )


async def test_a_connection_that_nobody_accepts_is_given_up(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0), backlog=0) as listening:
        address = listening.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)  # the queue is full now
            assert _is_cut_off(await _attempts(tmp_path, f"http://{HOST}:{address[1]}"))


async def test_headers_that_drip_are_cut_off(tmp_path: Path) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1_000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(drip, HOST, 0) as server:
        assert _is_cut_off(await _attempts(tmp_path, f"http://{HOST}:{server.sockets[0].getsockname()[1]}"))


async def test_one_clock_covers_the_call_and_its_polling(tmp_path: Path) -> None:
    never = _answering(b'{"jobId": "j"}', "application/json", 202)
    async with _server(never) as url:
        assert _is_cut_off(await _attempts(tmp_path, url, protocol="raw_tts"))


# -- what comes back ----------------------------------------------------------------------------


def _streamed_wav() -> bytes:
    header = bytearray(wav_header(None))
    struct.pack_into("<I", header, 40, 0xFFFF_FFFF)
    return bytes(header) + PCM.tobytes()


def _big_document() -> bytes:
    return b'{"audio": ' + b"[" * 50_000


GOOD = {
    "wav": (WAV, "application/octet-stream"),
    "wav with sizes of 0xFFFFFFFF": (_streamed_wav(), "audio/wav"),
    "wav that is called a page": (WAV, "text/html; charset=utf-8"),
    "raw with a rate": (tone(TEXT, rate_hz=16_000).tobytes(), "audio/L16;rate=16000"),
    "raw without a rate": (PCM.tobytes(), "audio/pcm"),
}
BAD = {
    "nothing": (b"", "audio/wav"),
    "a page": (b"<!DOCTYPE html><title>Gateway</title>", "audio/wav"),
    "a page that says so": (b"<html>busy</html>", "text/html"),
    "an error": (b'{"error": {"message": "CUDA out of memory"}}', "application/json"),
    "JSON without an end": (_big_document(), "application/json"),
    "half a file": (WAV[: len(WAV) // 2], "audio/wav"),
    "silence": (wav_bytes(np.zeros_like(PCM)), "audio/wav"),
    "a rate that is none": (PCM.tobytes(), "audio/L16;rate=fast"),
}


async def _clip(body: bytes, content_type: str, protocol: str) -> Pcm:
    """What is kept of such an answer."""
    async with _server(_answering(body, content_type)) as url:
        reply = await _speak(url, protocol=protocol)
    return prepare_clip(reply.body, reply.content_type, TEXT, raw_rate_hz=reply.raw_rate_hz)


@pytest.mark.parametrize("protocol", ["openai", "raw_tts", "piper_http"])
@pytest.mark.parametrize("kind", GOOD)
async def test_the_bytes_decide_what_an_answer_is(protocol: str, kind: str) -> None:
    body, content_type = GOOD[kind]
    if protocol == "raw_tts" and not content_type.startswith("audio/"):
        body = json.dumps({"base64Audio": base64.b64encode(body).decode(), "mimeType": content_type}).encode()
        content_type = "application/json"
    clip = await _clip(body, content_type, protocol)
    assert clip.size == pytest.approx(PCM.size, abs=2_400)  # silence at its ends is cut off


@pytest.mark.parametrize("protocol", ["openai", "raw_tts", "piper_http"])
@pytest.mark.parametrize("kind", BAD)
async def test_a_200_without_speech_is_a_bad_take(protocol: str, kind: str) -> None:
    with pytest.raises(BadTake):
        await _clip(*BAD[kind], protocol)


@pytest.mark.parametrize("field", ["audioContentBase64", "base64Audio"])
async def test_base64_in_json_is_as_good_as_the_bytes(field: str) -> None:
    document = {field: base64.b64encode(PCM.tobytes()).decode(), "mimeType": "audio/L16;rate=24000"}
    async with _server(_answering(json.dumps(document).encode(), "application/json")) as url:
        reply = await _speak(url, protocol="raw_tts")
    assert (reply.body, reply.content_type) == (PCM.tobytes(), "audio/L16;rate=24000")


@pytest.mark.parametrize(
    "document", [b"[]", b"{}", b'{"audioContentBase64": 7}', b'{"audioContentBase64": "?"}', b"[" * 50_000, b"\xff"]
)
async def test_json_without_audio_is_a_bad_take(document: bytes) -> None:
    async with _server(_answering(document, "application/json")) as url:
        with pytest.raises(BadTake):
            await _speak(url, protocol="raw_tts")


@pytest.mark.parametrize("body", [b"{" * 50_000, b"[" * 70_000, b'{"error": ["x"]}', b"\xff\xfe", b"null"])
async def test_an_error_whose_explanation_cannot_be_read_is_still_that_error(body: bytes) -> None:
    async with _server(_answering(body, "application/json", 503)) as url:
        with pytest.raises(BackendError, match=r"^HTTP 503$"):
            await _speak(url)


async def test_a_server_that_speaks_another_language_is_an_error_of_the_backend() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, HOST, 0) as server:
        with pytest.raises(BackendError) as caught:
            await _speak(f"http://{HOST}:{server.sockets[0].getsockname()[1]}")
    assert caught.value.kind == "disconnect"


# -- when to come back --------------------------------------------------------------------------


async def _first_refused(url_of: Callable[[Handler], Any], retry_after: str, folder: Path) -> ChunkResult:
    refused = False

    async def answer(_: web.Request) -> web.StreamResponse:
        nonlocal refused
        if refused:
            return web.Response(body=WAV)
        refused = True
        return web.Response(status=503, headers={"Retry-After": retry_after})

    async with url_of(answer) as url, running_service(args_for(folder, url)) as service:
        began = asyncio.get_running_loop().time()
        job = (await service.service.create("", SILENT, TEXT)).job
        await service.service.wait("", job.id, 60)
        (view,) = await service.service.chunks("", job.id)
        assert view.result is not None
        assert asyncio.get_running_loop().time() - began > 0.9
        return view.result


@pytest.mark.parametrize("as_date", [True, False])
async def test_a_wish_to_wait_is_honoured_as_seconds_and_as_a_date(tmp_path: Path, as_date: bool) -> None:
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3)  # (dates have no fractions)
    wish = moment.strftime("%a, %d %b %Y %H:%M:%S GMT") if as_date else "1"
    result = await _first_refused(_server, wish, tmp_path)
    assert [(attempt.outcome, attempt.status) for attempt in result.attempts] == [("status", 503), ("ok", None)]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("9" * 400, float("inf")),
        ("Thu, 01 Jan 99999 00:00:00 GMT", None),
        ("\u00b2", None),
        ("-7", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
    ],
)
def test_no_wish_is_too_strange_to_read(value: str, seconds: float | None) -> None:
    assert retry_after_seconds(value, now=10.0) == seconds


# -- what a server has --------------------------------------------------------------------------

LISTS: dict[str, Any] = {
    "strings": ["ann", "bob"],
    "voices of strings": {"voices": ["ann", "bob"]},
    "voices with ids": {"voices": [{"id": "ann", "name": "Ann"}, {"id": "bob", "name": "Bob"}]},
    "voices with names": {"voices": [{"name": "ann"}, {"name": "bob"}]},
    "data": {"object": "list", "data": [{"id": "ann"}, {"id": "bob"}]},
    "items": {"items": [{"id": "ann"}, {"id": "bob"}]},
    "piper's map": {"ann": {"audio": {"sample_rate": 22_050}}, "bob": {"audio": {"sample_rate": 16_000}}},
}


@pytest.mark.parametrize("shape", LISTS)
async def test_voice_lists_of_every_shape_are_read_from_a_server(shape: str) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path in ("/v1/audio/voices", "/voices") and request.method == "GET":
            return web.json_response(LISTS[shape])
        if request.path in ("/v1/audio/speech", "/synthesize") and request.method == "POST":
            asked.append((await request.json()).get("voice", ""))
            return web.Response(body=WAV)
        return web.Response(status=404)

    async with _server(answer) as url, open_session() as session:
        for protocol in ("openai", "piper_http") if shape == "piper's map" else ("openai",):
            base = f"{url}/v1" if protocol == "openai" else url
            found = await Probe(session, base, protocol=protocol).run(limits=False)  # type: ignore[arg-type]
            assert (found.voices, found.problems) == (["ann", "bob"], [])
            assert asked[-1] == "ann"
