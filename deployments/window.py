"""How far an answer may run ahead of its client through Serve's Python proxy.

Serve's replicas hand what they send to the proxy at once, and the proxy keeps it until the client has taken it: without
a bound, all of it. So the proxy says on the request's own message channel how many bytes it has passed on, and the
replica waits when more than a window is on the way. Without that proxy (HAProxy mode, tests) the server's socket holds
the replica back by itself, and nobody waits here.

A module of both sides: :class:`TakenReported` belongs into the proxy, :class:`Window` into the replica.
"""

import asyncio
from collections import deque
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

EXTENSION = "tts.taken"
"""In a scope's ``extensions``: the proxy reports what was taken. The type of those messages, too."""

WINDOW_BYTES = 2 * 2**20
"""On the way to one client at most, and one piece more: 40 s of WAV, 4 minutes of MP3."""

PIECE_BYTES = WINDOW_BYTES // 8
"""Longer blocks go in such pieces: what is on the way lies in replica and proxy, a whole block more would in both."""

REPORT_BYTES = WINDOW_BYTES // 4
"""The proxy reports whenever so much more was taken: short answers cost no message at all."""


class TakenReported:
    """In the proxy: tells the application behind it how many bytes of its answer the client's socket has taken."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reports = _Reports(receive)

        async def send_counted(message: Message) -> None:
            await send(message)  # waits while the client's socket is full
            reports.add(len(message.get("body", b"")))

        extensions = {**scope.get("extensions", {}), EXTENSION: {}}
        try:
            await self._app({**scope, "extensions": extensions}, reports.receive, send_counted)
        finally:
            reports.close()


class _Reports:
    """The client's messages, and ours between them."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._coming: asyncio.Task[Message] | None = None
        self._due: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begun = False
        self._taken = self._reported = 0

    def add(self, size: int) -> None:
        """So many bytes more were taken."""
        self._taken += size
        if self._taken - self._reported >= REPORT_BYTES and not self._due.done():
            self._due.set_result(None)

    async def receive(self) -> Message:
        """The next message, whoever has one. The first one is the request: it is there, and nothing is answered yet."""
        if not self._begun:
            self._begun = True
            return await self._receive()
        if self._coming is None:
            self._coming = asyncio.ensure_future(_message(self._receive))
        await asyncio.wait((self._coming, self._due), return_when=asyncio.FIRST_COMPLETED)
        if self._coming.done():
            coming, self._coming = self._coming, None
            return coming.result()
        self._due = asyncio.get_running_loop().create_future()
        self._reported = self._taken
        return {"type": EXTENSION, "bytes": self._taken}

    def close(self) -> None:
        """Nobody receives any more."""
        if self._coming is not None:
            self._coming.cancel()


async def _message(receive: Receive) -> Message:
    return await receive()


class Window:
    """In the replica: one request's channel. ``send`` waits while the window is full, ``receive`` hides the reports."""

    def __init__(self, receive: Receive, send: Send, window_bytes: int = WINDOW_BYTES) -> None:
        self._receive = receive
        self._send = send
        self._window_bytes = window_bytes
        self._sent = self._taken = 0
        self._others: deque[Message] = deque()
        self._reading = False
        self._moved = asyncio.Event()

    async def send(self, message: Message) -> None:
        """Send once there is room, a long body piece by piece. A client that is gone fills no window."""
        body, sent = message.get("body", b""), 0
        while len(body) - sent > PIECE_BYTES:
            await self._send_piece({**message, "body": body[sent : sent + PIECE_BYTES], "more_body": True})
            sent += PIECE_BYTES
        await self._send_piece({**message, "body": body[sent:]} if sent else message)

    async def _send_piece(self, message: Message) -> None:
        size = len(message.get("body", b""))
        while size and self._sent - self._taken >= self._window_bytes and not self._gone():
            await self._read()
        self._sent += size
        await self._send(message)

    async def receive(self) -> Message:
        """The client's next message."""
        while not self._others:
            await self._read()
        return self._others.popleft()

    def _gone(self) -> bool:
        return any(message["type"] == "http.disconnect" for message in self._others)

    async def _read(self) -> None:
        """One message, by whoever comes first; the others wait for what it is."""
        if self._reading:
            await self._moved.wait()
            return
        self._reading = True
        try:
            message = await self._receive()
            if message["type"] == EXTENSION:
                self._taken = message["bytes"]
            else:
                self._others.append(message)
        finally:
            self._reading = False
            self._moved.set()
            self._moved = asyncio.Event()


def channel(scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """What an application should receive from and send to: through a window if the proxy reports."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    if EXTENSION not in extensions:
        return receive, send
    window = Window(receive, send)
    return window.receive, window.send
