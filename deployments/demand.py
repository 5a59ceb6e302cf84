"""A request's messages are fetched from Serve's Python proxy when they are wanted, not before.

Serve begins to fetch them for every request: a call of the proxy's actor for the body, which a GET has not, and another
one that is open until the client is gone, for which most answers do not wait. The two were a third of the CPU that a
finished chunk's reading cost. So its fetching waits until somebody receives. A client that is gone is not missed: Serve
cancels the request then, whoever receives.
"""

import asyncio
from typing import Any

from starlette.types import Message, Receive

FETCH = "_receive_asgi_messages"
"""Where Serve keeps, in the ``receive`` that it passes to an application, what fetches the next messages. (There is no
public way; a test with Serve's own class notices if it moves.) In HAProxy mode nothing is fetched, or changed here."""


def on_demand(receive: Receive) -> Receive:
    """The same messages, fetched when they are received. To be called before anything is awaited: Serve begins then."""
    fetch = getattr(receive, FETCH, None)
    if fetch is None:
        return receive
    wanted = asyncio.Semaphore(0)

    async def fetch_when_wanted(request: Any) -> Any:
        await wanted.acquire()
        return await fetch(request)

    async def ask() -> Message:
        wanted.release()
        return await receive()

    setattr(receive, FETCH, fetch_when_wanted)
    return ask
