"""A TCP proxy in front of a server, which breaks connections on order: cut short, refused, or silent for ever."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

HOST = "127.0.0.1"
PATIENCE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Cut:
    """What is done to one connection: pass this many bytes of answers on, then hang up."""

    after_bytes: int


class Proxy:
    """A port that leads to ``target``: another port of this machine, or the path of a Unix socket.

    Connections are treated as :attr:`orders` say, one each: a :class:`Cut`, or bytes to answer with; without an order
    they are passed through. ``heads`` are the first lines that clients sent. Its methods may be called from other
    threads than the one it runs in.
    """

    def __init__(self, target: int | str) -> None:
        self._target = target
        self.orders: deque[Cut | bytes] = deque()
        self.heads: list[str] = []
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def order(self, *treatments: Cut | bytes) -> None:
        """Break what is open now, and treat the next connections so."""
        self.orders.extend(treatments)
        self._do(self._hang_up())

    def shut(self) -> None:
        """Cut all connections and refuse new ones, as a dead server does."""
        self._do(self._shut())

    def stall(self) -> None:
        """Accept connections and pass nothing on, as a server does that hangs."""
        self._do(self._stall())

    def open(self) -> None:
        """Let everything through again."""
        self._do(self._open())

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        """Serves inside the block, on this event loop."""
        self._loop = asyncio.get_running_loop()
        await self._open()
        try:
            yield self
        finally:
            await self._shut()

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE_SECONDS)

    async def _open(self) -> None:
        self._flowing.set()
        if self._listening is None:
            self._listening = await asyncio.start_server(self._accept, HOST, self.port, reuse_address=True)
            self.port = self._listening.sockets[0].getsockname()[1]

    async def _stall(self) -> None:
        self._flowing.clear()

    async def _shut(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
            await asyncio.sleep(0.01)  # a connection that was just accepted is not among ours yet
        await self._hang_up()

    async def _hang_up(self) -> None:
        tasks = set(self._connections)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            await asyncio.sleep(0.01)  # aborted transports close in the loop's next rounds

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task that is cancelled before it has begun runs no "finally": its end is what closes the connection.
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(lambda _: writer.transport.abort())
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order = self.orders.popleft() if self.orders else None
        with contextlib.suppress(OSError):
            await self._treat(reader, writer, order)
            writer.close()
            await writer.wait_closed()

    async def _treat(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, order: Cut | bytes | None
    ) -> None:
        first = await reader.read(65_536)
        self.heads.append(first.partition(b"\r\n\r\n")[0].decode("latin-1"))
        if isinstance(order, bytes):
            writer.write(order)
            await writer.drain()
            return
        await self._flowing.wait()
        if reader.at_eof():  # the client has not waited
            return
        answers, requests = await self._connect()
        requests.write(first)
        ways = [
            asyncio.create_task(self._pump(reader, requests)),
            asyncio.create_task(self._pump(answers, writer, order.after_bytes if order else None)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            requests.transport.abort()  # first: whoever hangs up now cancels the wait below
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, str):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(HOST, self._target)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None = None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._flowing.wait()
                if limit is not None and passed + len(data) >= limit:
                    writer.write(data[: limit - passed])
                    await writer.drain()
                    return
                passed += len(data)
                writer.write(data)
                await writer.drain()


@contextmanager
def threaded_proxy(target: int | str) -> Iterator[Proxy]:
    """A proxy with an event loop in a thread of its own, for tests that have none."""
    proxy, ready, stop = Proxy(target), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with proxy.running():
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(PATIENCE_SECONDS)
    try:
        yield proxy
    finally:
        assert proxy._loop is not None
        proxy._loop.call_soon_threadsafe(stop.set)
        thread.join()
