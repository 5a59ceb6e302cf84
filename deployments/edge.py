"""What every request passes before any route: request id, size bound, key, and the last catch.

Plain ASGI, so that nothing is buffered and every answer, errors included, gets its headers.
"""

import re
import secrets
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.demand import on_demand
from deployments.envelopes import error_response
from deployments.keys import Keys, RequestRate, bearer_is
from deployments.permits import Permits
from deployments.window import channel
from tts_actors import tracing
from tts_actors.errors import RequestTooLarge, Unauthorized

OPEN_PATHS = frozenset({"/", "/health", "/readyz", "/docs", "/openapi.json"})
"""Paths that need no key: they show nothing of any job."""

EXPOSED_HEADERS = ("x-request-id", "x-tts-job-id", "retry-after", "location", "etag", "content-range")
"""Response headers that scripts of allowed origins may read."""

SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""On every answer, unless its route says otherwise: only two pages are documents, the rest is data."""

DOCS_POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline' https://cdn.jsdelivr.net;"
    " style-src 'unsafe-inline' https://cdn.jsdelivr.net; img-src data: https://fastapi.tiangolo.com;"
    " frame-ancestors 'none'"
)
"""FastAPI's page takes Swagger UI from there; without a network it stays empty."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")

log = structlog.get_logger()


class Edge:
    """The outermost layer around the routes.

    ``adds_request_id`` is off behind Serve, which puts ``x-request-id`` on every answer itself (the same id: it hands
    its own, or the client's, on with the request).
    """

    def __init__(
        self, app: ASGIApp, *, keys: Keys, rate: RequestRate, max_body_bytes: int, adds_request_id: bool
    ) -> None:
        self._app = app
        self._rate = rate
        self._adds_request_id = adds_request_id
        self._keys = keys
        self._permits = Permits(keys)
        self._max_body_bytes = max_body_bytes

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """What is inside, for tools that look at it."""
        return getattr(self._app, "routes", ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        receive, send = channel(scope, on_demand(receive), send)
        request_id = _request_id(Headers(scope=scope))
        started = time.monotonic()
        status, answered = 0, False

        async def send_marked(message: Message) -> None:
            nonlocal status, answered
            answered = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                if self._adds_request_id:
                    headers["x-request-id"] = request_id
                _make_safe(headers, scope["path"])
            await send(message)

        with _traced(scope, request_id) as span, structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._admit(scope)
                await self._app(scope, _bounded(receive, self._max_body_bytes), send_marked)
            except Exception as error:
                if answered:  # Starlette has sent our 500 and raises what caused it all the same
                    log.exception("request_failed", path=_route(scope))
                    return
                if status:
                    # The answer has begun: an abrupt end is the only honest one left. A body without its end makes the
                    # server close the connection; what is raised it would log, and that may quote a text.
                    # Starlette wraps what it would have answered to ("response already started").
                    log.error("response_aborted", path=_route(scope), kind=type(error.__cause__ or error).__name__)
                    span.fail("aborted")
                    return
                response = error_response(scope["path"], error)
                if response.status_code == 500:
                    log.exception("request_failed", path=_route(scope))
                await response(scope, receive, send_marked)
            finally:
                _tell(span, scope, status)
                elapsed_ms = round((time.monotonic() - started) * 1_000, 1)
                note = log.debug if scope["method"] in ("GET", "HEAD") and status < 400 else log.info
                note("request", method=scope["method"], path=_route(scope), status=status, ms=elapsed_ms)

    async def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        state: dict[str, Any] = scope.setdefault("state", {})
        state["tenant"] = ""
        if scope["path"] not in OPEN_PATHS and not scope["path"].startswith("/ui/"):
            permitted = self._permits.tenant(scope)
            state["tenant"] = self._keys.tenant(headers) if permitted is None else permitted
            self._rate.take(state["tenant"])
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise _too_large(self._max_body_bytes)


class OneKey:
    """A whole application behind one key, but for ``/health``: nobody else than our own workers calls it."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        closed = scope["type"] == "http" and not scope["path"].endswith("/health")
        if closed and not bearer_is(Headers(scope=scope), self._key):
            refusal = error_response("/v1", Unauthorized("this engine answers its own service alone"))
            await refusal(scope, receive, send)
            return
        await self._app(scope, on_demand(receive), send)


def _traced(scope: Scope, request_id: str) -> AbstractContextManager[tracing.Span]:
    """The request's span, under the caller's own if it sent one. What needs no key is not worth a trace."""
    if scope["path"] in OPEN_PATHS or scope["path"].startswith("/ui/"):
        return tracing.NO_SPAN
    attributes = {"http.request.method": scope["method"], "tts.request.id": request_id}
    parent = Headers(scope=scope).get("traceparent")
    return tracing.span(scope["method"], attributes, parent=parent, kind=tracing.SpanKind.SERVER)


def _tell(span: tracing.Span, scope: Scope, status: int) -> None:
    """How the request ended, and its route: known only when one has been found."""
    route = _route(scope)
    span.rename(f"{scope['method']} {route}")
    span.set("http.route", route)
    span.set("http.response.status_code", status)
    if status >= 500 or not status:
        span.fail(str(status))


def _route(scope: Scope) -> str:
    """The route's pattern if one matched: paths hold job ids, and those are not for every log reader."""
    return str(getattr(scope.get("route"), "path", "unmatched"))


def _make_safe(headers: MutableHeaders, path: str) -> None:
    if path == "/docs":
        headers.setdefault("content-security-policy", DOCS_POLICY)
    for name, value in SAFE_HEADERS.items():
        headers.setdefault(name, value)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if REQUEST_ID.match(given) else secrets.token_hex(8)


def _bounded(receive: Receive, max_bytes: int) -> Receive:
    """Bodies without a declared length are counted while they arrive."""
    total = 0

    async def receive_counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > max_bytes:
            raise _too_large(max_bytes)
        return message

    return receive_counted


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(f"the body is larger than limits.max_body_bytes ({max_bytes})", None)
