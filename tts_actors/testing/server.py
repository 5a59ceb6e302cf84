"""The fault-injecting server itself: three protocols on one port of 127.0.0.1, every call recorded.

In a test: ``async with running_backend(Faults(...)) as backend``. At run time: ``GET``/``POST``/``DELETE
/_control/faults`` (read, change the fields sent, reset), ``GET``/``DELETE /_control/calls``, ``GET /_control/stats``.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from tts_actors.testing import protocols
from tts_actors.testing.calls import CallLog, CallRecord
from tts_actors.testing.faults import Faults, choose_fault, delay_ms_of
from tts_actors.testing.protocols import Answer, Ask

HOST = "127.0.0.1"
MAX_BODY_BYTES = 8 * 1024 * 1024
LISTEN_BACKLOG = 4_096
"""Benchmarks open a thousand connections at once; the default of 128 would make some of them wait a second."""

SHUTDOWN_SECONDS = 0.2
"""Hanging calls are not worth waiting for."""

DRIPS_PER_SECOND = 10
_TRANSPORT_FAULTS = ("slow_drip", "truncate")


class FakeBackend:
    """The server without its socket. ``faults`` may be changed at any time; the next call sees the change."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.log = CallLog()
        self.url = ""
        self._results: dict[str, _Result] = {}
        self._stopping = False

    @property
    def calls(self) -> list[CallRecord]:
        """All calls so far, oldest first; records of running calls are still changing."""
        return list(self.log.records)

    @property
    def max_in_flight(self) -> int:
        """The most calls that were ever in flight together."""
        return self.log.max_in_flight

    def set_faults(self, **changes: Any) -> Faults:
        """Change the named fields, keep the others, and start the counters of faults again.

        Raises ``pydantic.ValidationError`` for an unknown name or a wrong value; then nothing changes.
        """
        self.faults = Faults.model_validate({**self.faults.model_dump(), **changes})
        self.log.recount()
        return self.faults

    def app(self) -> web.Application:
        """The aiohttp application; its runner needs ``handler_cancellation=True`` to notice clients that go."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/audio/speech", self._openai)
        app.router.add_get("/v1/models", protocols.list_models)
        app.router.add_get("/v1/audio/voices", protocols.list_voices)
        app.router.add_post("/api/rawtts", self._raw_tts)
        app.router.add_get("/api/tts-result", self._poll)
        app.router.add_post("/", self._piper)
        app.router.add_post("/synthesize", self._piper)
        app.router.add_get("/voices", protocols.list_piper_voices)
        app.router.add_get("/_control/faults", self._show_faults)
        app.router.add_post("/_control/faults", self._change_faults)
        app.router.add_delete("/_control/faults", self._reset_faults)
        app.router.add_get("/_control/calls", self._show_calls)
        app.router.add_delete("/_control/calls", self._clear_calls)
        app.router.add_get("/_control/stats", self._show_stats)
        app.on_shutdown.append(self._stop)
        return app

    async def _stop(self, app: web.Application) -> None:
        self._stopping = True

    # -- speech -----------------------------------------------------------------------------

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        return await self._speak(request, "openai")

    async def _raw_tts(self, request: web.Request) -> web.StreamResponse:
        return await self._speak(request, "raw_tts")

    async def _piper(self, request: web.Request) -> web.StreamResponse:
        return await self._speak(request, "piper_http")

    async def _speak(self, request: web.Request, protocol: str) -> web.StreamResponse:
        asked = _read_ask(protocol, await request.read())
        text = asked.text if isinstance(asked, Ask) else ""
        record, call, attempt = self.log.start(
            protocol, text, log_text=self.faults.log_text, traceparent=request.headers.get("traceparent")
        )
        try:
            if isinstance(asked, Answer):
                return await self._send(request, asked, record)
            return await self._answer(request, asked, record, call, attempt)
        except asyncio.CancelledError:
            record["client_gone"] = not self._stopping
            raise
        except ConnectionError:
            record["client_gone"] = not self._stopping
            return web.Response()  # there is nobody left to send it to
        finally:
            self.log.end(record)

    async def _answer(
        self, request: web.Request, ask: Ask, record: CallRecord, call: int, attempt: int
    ) -> web.StreamResponse:
        faults, in_flight = self.faults, record["in_flight_at_start"]
        if faults.max_concurrency and in_flight > faults.max_concurrency:
            busy = protocols.refusal(ask.protocol, 429, f"{faults.max_concurrency} calls are in flight already")
            return await self._send(request, busy, record)
        try:
            fault = choose_fault(faults, ask.text, call=call, attempt=attempt)
        except ValueError as problem:
            return await self._send(request, protocols.refusal(ask.protocol, 400, str(problem)), record)
        record["fault"] = fault
        if delay_ms := delay_ms_of(faults, ask.text, attempt=attempt, in_flight=in_flight):
            await asyncio.sleep(delay_ms / 1_000)
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "drop":
            _close(request)
            return web.Response()
        if fault and fault.isdigit():
            return await self._send(request, protocols.refusal(ask.protocol, int(fault), "as ordered"), record)
        if ask.protocol == "raw_tts" and faults.async_202_polls is not None:
            return await self._accept(request, ask, record)
        return await self._send(request, protocols.speech(ask, faults, fault), record)

    async def _send(
        self, request: web.Request, answer: Answer, record: CallRecord, job_id: str | None = None
    ) -> web.StreamResponse:
        """Send all of ``answer``, as far as the record's fault lets it."""
        headers = {"Content-Type": answer.content_type}
        if job_id:
            headers["X-Processing-Job-Id"] = job_id
        if answer.status in (429, 503) and self.faults.retry_after is not None:
            headers["Retry-After"] = self.faults.retry_after
        record["status"] = answer.status
        if answer.status < 400 and record["fault"] in _TRANSPORT_FAULTS:
            return await self._send_badly(request, answer, record, headers)
        response = web.Response(status=answer.status, body=answer.body, headers=headers)
        await response.prepare(request)
        await response.write_eof()
        record["completed"] = True
        return response

    async def _send_badly(
        self, request: web.Request, answer: Answer, record: CallRecord, headers: dict[str, str]
    ) -> web.StreamResponse:
        """``truncate``: half of what Content-Length declares. ``slow_drip``: all of it, at ``bytes_per_second``."""
        response = web.StreamResponse(status=answer.status, headers=headers)
        response.content_length = len(answer.body)
        await response.prepare(request)
        if record["fault"] == "truncate":
            response.force_close()
            await response.write(answer.body[: len(answer.body) // 2])
            _close(request)
            return response
        piece = max(1, self.faults.bytes_per_second // DRIPS_PER_SECOND)
        pause = piece / self.faults.bytes_per_second
        for start in range(0, len(answer.body), piece):
            await asyncio.sleep(pause)
            await response.write(answer.body[start : start + piece])
        await response.write_eof()
        record["completed"] = True
        return response

    # -- raw_tts: 202 and polling -----------------------------------------------------------

    async def _accept(self, request: web.Request, ask: Ask, record: CallRecord) -> web.StreamResponse:
        job_id = f"fake-{record['seq']}"
        self._results[job_id] = _Result(ask, record["fault"], self.faults.async_202_polls or 0)
        in_header = self.faults.async_id_in != "body"
        answer = protocols.accepted(job_id, self.faults)
        return await self._send(request, answer, record, job_id if in_header else None)

    async def _poll(self, request: web.Request) -> web.Response:
        self.log.polls += 1
        result = self._results.get(request.query.get("jobId", ""))
        if result is None:
            return _plain(protocols.refusal("raw_tts", 404, "no such job"))
        if result.polls_left > 0:
            result.polls_left -= 1
            return _plain(protocols.refusal("raw_tts", self.faults.async_not_yet, "not yet"))
        if self.faults.async_error:
            return _plain(protocols.refusal("raw_tts", self.faults.async_error, "as ordered"))
        return _plain(protocols.speech(result.ask, self.faults, result.fault))

    # -- control ----------------------------------------------------------------------------

    async def _show_faults(self, request: web.Request) -> web.Response:
        return web.json_response(self.faults.model_dump(mode="json"))

    async def _change_faults(self, request: web.Request) -> web.Response:
        try:
            changes = await request.json()
            return web.json_response(self.set_faults(**changes).model_dump(mode="json"))
        except (ValidationError, ValueError, TypeError) as problem:
            return web.json_response({"error": str(problem)}, status=400)

    async def _reset_faults(self, request: web.Request) -> web.Response:
        self.faults = Faults()
        self.log.recount()
        return await self._show_faults(request)

    async def _show_calls(self, request: web.Request) -> web.Response:
        return web.json_response(list(self.log.records))

    async def _clear_calls(self, request: web.Request) -> web.Response:
        self.log.clear()
        return web.Response(status=204)

    async def _show_stats(self, request: web.Request) -> web.Response:
        return web.json_response(self.log.stats())


@dataclass(slots=True)
class _Result:
    """A raw_tts job: what was asked for, how it is spoilt, and how many polls still hear 'not yet'."""

    ask: Ask
    fault: str | None
    polls_left: int


def _read_ask(protocol: str, body: bytes) -> Ask | Answer:
    try:
        return protocols.parse_ask(protocol, body)
    except protocols.BadBody as problem:
        return protocols.refusal(protocol, 400, str(problem))


def _plain(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers={"Content-Type": answer.content_type})


def _close(request: web.Request) -> None:
    """Close the connection once what was written is out."""
    if request.transport is not None:
        request.transport.close()


@asynccontextmanager
async def running_backend(faults: Faults | None = None, *, port: int = 0) -> AsyncIterator[FakeBackend]:
    """Serve on ``127.0.0.1`` while the block runs; ``port`` 0 takes a free one. Calls that still run are cut off."""
    backend = FakeBackend(faults)
    runner = web.AppRunner(backend.app(), handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port, backlog=LISTEN_BACKLOG).start()
        backend.url = f"http://{HOST}:{runner.addresses[0][1]}"
        yield backend
    finally:
        await runner.cleanup()
