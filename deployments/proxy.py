"""What Serve's HTTP proxy does around a request: drop the headers that would steer Serve, report what clients take.

The proxy obeys ``x-request-timeout-seconds`` and the like before any of our routes sees the request, so they are
dropped there. Serve finds this file through the environment variable ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``.
"""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.window import TakenReported

CONTROL_HEADERS = (b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"x-serve-router-")
"""Serve's own controls (names begin so): a client must not steer our server with them."""


class ControlHeadersDropped:
    """Passes every request on without Serve's control headers, and without a request id that Serve cannot read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [(name, value) for name, value in scope["headers"] if _may_pass(name.lower(), value)]
            scope = {**scope, "headers": headers}
        await self._app(scope, receive, send)


def _may_pass(name: bytes, value: bytes) -> bool:
    if name == b"x-request-id":
        return value.isascii()  # Serve's proxy decodes it, and would answer 500
    return not name.startswith(CONTROL_HEADERS)


def proxy_middlewares() -> list[Middleware]:
    """The middlewares for Serve's proxy."""
    return [Middleware(ControlHeadersDropped), Middleware(TakenReported)]
