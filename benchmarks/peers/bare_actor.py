"""Ray actors that do nothing, or only what no job can do without, in a module without Serve: importing that would make
their start twice as dear.
"""

import urllib.request
from collections.abc import Iterator
from typing import Any, cast

import ray

_remote = cast("Any", ray.remote)  # Ray's own types know neither option


@ray.remote
class BareActor:
    """Named, async, one method."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def run(self) -> str:
        return self._name


@_remote(num_cpus=0, max_retries=0, num_returns="streaming", enable_task_events=False)
def _one_result(url: str, body: bytes) -> Iterator[int]:
    """The chunk worker of a job of one chunk: with a URL it is called, without there is nothing to speak."""
    if url:
        request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310 - the stub's
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - the same
            yield len(answer.read())
    else:
        yield 0


@_remote(num_cpus=0, enable_task_events=False)
class BareJob:
    """The least that a job's actor does: one streaming task, and with a store a commit of its result."""

    def __init__(self, store_url: str = "") -> None:
        self._database: Any = None
        if store_url:
            from tts_actors.stores.engines import open_database

            self._database = open_database(store_url)

    async def run(self, url: str = "", body: bytes = b"") -> None:
        """The job from its start to its end."""
        async for reference in _one_result.remote(url, body):
            size = await reference
            if self._database is not None:
                await self._database.write(lambda connection, size=size: _commit(connection, size))

    async def wait(self) -> None:
        """What the one who waits for the job calls."""


def _commit(connection: Any, size: int) -> None:
    connection.exec_driver_sql("INSERT INTO jobs (id, text) VALUES (hex(randomblob(12)), ?)", (str(size),))
