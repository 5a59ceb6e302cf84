"""A client that reads slowly, or not at all: what is kept for it is bounded, over real sockets."""

import asyncio
import gc
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from deployments.window import EXTENSION, PIECE_BYTES, WINDOW_BYTES, TakenReported, Window, channel
from tests.unit.http_service import HttpService, _served, http_service
from tests.unit.test_http_live import until
from tts_actors.outputs import READ_BYTES, JoinedOutput

BLOCK = bytes(range(256)) * 1_024
BLOCKS = 64
WHOLE = BLOCK * BLOCKS
SOCKET_BYTES = 8 * 2**20
"""What the two sockets and the server's own buffer may hold, whatever the system's settings are."""


class ServeLike:
    """Serve's way of an answer, without Ray: what the application sends lies in a queue until the client takes it."""

    def __init__(self) -> None:
        self.waiting: deque[Message] = deque()
        self.most_bytes = 0
        self.sent_bytes = 0
        self.gone = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The proxy's part; behind it :meth:`_answer` is the replica's."""
        more, incoming = asyncio.Event(), asyncio.Queue[Message]()

        async def enqueue(message: Message) -> None:
            self.waiting.append(message)
            self.sent_bytes += len(message.get("body", b""))
            self.most_bytes = max(self.most_bytes, sum(len(m.get("body", b"")) for m in self.waiting))
            more.set()

        async def forward() -> None:
            while True:
                message = await receive()
                incoming.put_nowait(message)
                if message["type"] == "http.disconnect":
                    self.gone.set()
                    return

        tasks = [asyncio.create_task(forward()), asyncio.create_task(self._answer(scope, incoming.get, enqueue))]
        try:
            while not self.gone.is_set():
                await more.wait()
                more.clear()
                while self.waiting:
                    message = self.waiting.popleft()
                    await send(message)
                    if message["type"] == "http.response.body" and not message.get("more_body"):
                        return
        finally:
            for task in tasks:
                task.cancel()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        receive, send = channel(scope, receive, send)
        response: Response = StreamingResponse(_blocks()) if scope["path"] == "/long" else Response(b"short")
        await response(scope, receive, send)


async def _blocks() -> AsyncIterator[bytes]:
    for _ in range(BLOCKS):
        yield BLOCK


@contextmanager
def stalled(url: str, path: str) -> Iterator[socket.socket]:
    """A client with a small buffer that asks and reads nothing yet."""
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        client.connect((host, int(port)))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        yield client


def rest_of(client: socket.socket) -> bytes:
    client.settimeout(60)
    parts = []
    while part := client.recv(2**20):
        parts.append(part)
    return b"".join(parts)


async def settled(figure: Callable[[], int]) -> int:
    """The figure once it has not moved for half a second and is above 0."""
    last, since = figure(), time.monotonic()
    while not last or time.monotonic() - since < 0.5:
        await asyncio.sleep(0.02)
        if (now := figure()) != last:
            last, since = now, time.monotonic()
    return last


async def test_a_client_that_does_not_read_holds_the_sender_back_and_gets_everything_later() -> None:
    app = ServeLike()
    async with _served(TakenReported(app)) as port:
        with stalled(f"http://127.0.0.1:{port}", "/long") as client:
            sent = await settled(lambda: app.sent_bytes)
            assert sent <= WINDOW_BYTES + len(BLOCK) + SOCKET_BYTES < len(WHOLE)
            body = await asyncio.to_thread(rest_of, client)
    assert body.endswith(b"\r\n0\r\n\r\n")
    assert body.count(BLOCK[:256]) > 0
    assert app.sent_bytes == len(WHOLE)
    assert app.most_bytes <= WINDOW_BYTES + len(BLOCK)


async def test_a_client_that_leaves_while_the_window_is_full_leaves_nobody_waiting() -> None:
    app = ServeLike()
    async with _served(TakenReported(app)) as port:
        with stalled(f"http://127.0.0.1:{port}", "/long"):
            await settled(lambda: app.sent_bytes)
        await asyncio.wait_for(app.gone.wait(), 60)


async def test_a_client_that_reads_gets_the_same_bytes_through_the_window() -> None:
    app = ServeLike()
    async with _served(TakenReported(app)) as port:
        for path, wanted in (("/long", WHOLE), ("/short", b"short")):
            answer = await asyncio.to_thread(requests.get, f"http://127.0.0.1:{port}{path}", timeout=60)
            assert answer.content == wanted


async def test_without_a_proxy_that_reports_nothing_is_counted() -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError

    assert channel({"type": "http", "extensions": {}}, never, never) == (never, never)
    receive, _ = channel({"type": "http", "extensions": {EXTENSION: {}}}, never, never)
    assert receive is not never


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
@pytest.mark.parametrize("more", [True, False])
async def test_a_long_block_goes_in_pieces_of_which_the_last_says_what_the_block_said(size: int, more: bool) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def never() -> Message:
        raise AssertionError

    body = bytes(range(251)) * (size // 251 + 1)
    await Window(never, send).send({"type": "http.response.body", "body": body[:size], "more_body": more})
    assert b"".join(message["body"] for message in sent) == body[:size]
    assert max(len(message["body"]) for message in sent) <= PIECE_BYTES
    assert [message["more_body"] for message in sent] == [True] * (len(sent) - 1) + [more]


async def test_the_senders_reading_and_the_applications_do_not_steal_from_each_other() -> None:
    incoming, sent = asyncio.Queue[Message](), []

    async def send(message: Message) -> None:
        sent.append(message)

    window = Window(incoming.get, send, window_bytes=10)
    listening = asyncio.create_task(window.receive())  # as Starlette does while it streams
    await asyncio.sleep(0)
    block = {"type": "http.response.body", "body": b"x" * 10}
    await window.send(block)
    waiting = asyncio.create_task(window.send(block))
    await asyncio.sleep(0)
    assert len(sent) == 1
    incoming.put_nowait({"type": EXTENSION, "bytes": 10})
    await waiting
    assert (len(sent), listening.done()) == (2, False)
    waiting = asyncio.create_task(window.send(block))
    await asyncio.sleep(0)
    listening.cancel()  # who was reading goes away: the sender reads on
    await asyncio.sleep(0)
    incoming.put_nowait({"type": "http.disconnect"})
    await waiting
    assert (await window.receive())["type"] == "http.disconnect"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with http_service(tmp_path_factory.mktemp("slow")) as running:
        yield running


@pytest.fixture(scope="module")
def job(service: HttpService) -> str:
    """A finished job of more audio than sockets hold."""
    body = {"model": "fake-tts", "input": "The lamp is lit. " * 1_500, "chunking": {"mode": "character_count"}}
    jobs = f"{service.url}/v1/audio/speech/jobs"
    job_id = str(requests.post(jobs, json=body, timeout=60).json()["id"])
    assert requests.get(f"{jobs}/{job_id}?wait=60", timeout=90).json()["status"] == "completed"
    return job_id


@pytest.mark.parametrize("query", ["format=pcm", "format=pcm&live=1"])
def test_clips_are_not_read_for_a_client_that_does_not_read(
    service: HttpService, job: str, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Straight to the server: the socket itself holds the reading of clips back."""
    jobs = f"{service.url}/v1/audio/speech/jobs"
    size = int(requests.head(f"{jobs}/{job}/audio?format=pcm", timeout=60).headers["content-length"])
    read, real = 0, JoinedOutput.read

    async def counted(self: JoinedOutput, start: int, end: int) -> AsyncIterator[bytes]:
        nonlocal read
        async for block in real(self, start, end):
            read += len(block)
            yield block

    monkeypatch.setattr(JoinedOutput, "read", counted)
    with stalled(service.url, f"/v1/audio/speech/jobs/{job}/audio?{query}") as client:
        taken = asyncio.run(settled(lambda: read))
        assert taken <= 2 * READ_BYTES + SOCKET_BYTES < size
        assert len(rest_of(client)) > size


@pytest.mark.parametrize("fmt", ["wav", "flac"])
def test_who_leaves_while_the_server_waits_for_its_socket_is_let_go_at_once(
    service: HttpService, job: str, fmt: str
) -> None:
    """At once: not when the garbage collector comes round to a generator that nobody has closed."""
    live = service.parts.service._live
    gc.collect()
    gc.disable()
    try:
        with stalled(service.url, f"/v1/audio/speech/jobs/{job}/audio?live=1&format={fmt}"):
            until(lambda: live._tracks)
            asyncio.run(settled(lambda: len(live._tracks)))
        until(lambda: not live._tracks and not live.encoders)
    finally:
        gc.enable()
