"""What Serve would fetch from its proxy for every request is fetched when the application receives."""

import asyncio
import pickle
import warnings
from typing import Any, cast

from starlette.types import Message

from deployments.demand import on_demand

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Serve's own use of pydantic
    from ray.serve._private.http_util import ASGIReceiveProxy

BODY: Message = {"type": "http.request", "body": b"text", "more_body": False}
GONE: Message = {"type": "http.disconnect"}


class _Proxy:
    """Serve's proxy as a replica sees it: answers each call with the messages that there are by then."""

    def __init__(self, *answers: list[Message]) -> None:
        self.calls = 0
        self._answers = list(answers)

    async def messages(self, _request: Any) -> bytes:
        self.calls += 1
        if not self._answers:
            await asyncio.Event().wait()
        return pickle.dumps(self._answers.pop(0))

    def receive(self) -> ASGIReceiveProxy:
        """Serve's own class, as it is passed to an application."""
        return ASGIReceiveProxy({"type": "http"}, cast("Any", None), self.messages)


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_without_us_serve_fetches_for_a_request_that_receives_nothing() -> None:
    proxy = _Proxy([BODY])
    fetching = asyncio.create_task(proxy.receive().fetch_until_disconnect())
    await _settle()
    assert proxy.calls == 2
    fetching.cancel()


async def test_nothing_is_fetched_before_it_is_received() -> None:
    proxy = _Proxy([BODY], [GONE])
    served = proxy.receive()
    fetching = asyncio.create_task(served.fetch_until_disconnect())
    receive = on_demand(served)
    await _settle()
    assert proxy.calls == 0
    assert await receive() == BODY
    await _settle()
    assert proxy.calls == 1
    assert [await receive(), await receive()] == [GONE, GONE]
    await fetching
    assert proxy.calls == 2


async def test_messages_that_come_together_are_all_there_and_the_next_are_fetched() -> None:
    first, last = {**BODY, "more_body": True}, {**BODY, "body": b"end"}
    proxy = _Proxy([first, last], [GONE])
    served = proxy.receive()
    fetching = asyncio.create_task(served.fetch_until_disconnect())
    receive = on_demand(served)
    assert [await receive() for _ in range(3)] == [first, last, GONE]
    await fetching


async def test_who_gave_up_receiving_loses_no_message() -> None:
    proxy = _Proxy([BODY])
    served = proxy.receive()
    fetching = asyncio.create_task(served.fetch_until_disconnect())
    receive = on_demand(served)
    waiting = asyncio.create_task(receive())
    waiting.cancel()
    await asyncio.wait({waiting})
    assert await receive() == BODY
    fetching.cancel()


async def test_other_servers_receive_as_ever() -> None:
    async def receive() -> Message:
        return BODY

    assert on_demand(receive) is receive
