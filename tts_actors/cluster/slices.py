"""The inside of a chunk-worker task: one event loop and open tools a process, and a slice spoken on them.

Only worker processes import this: it brings the HTTP client and the codecs.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import uvloop
from ray.exceptions import RayError

from tts_actors.chunk_worker import WorkerTools, synthesize_chunks
from tts_actors.cluster.metrics import record_with_ray
from tts_actors.cluster.tools import worker_tools
from tts_actors.config import AppArgs
from tts_actors.logs import configure_logs
from tts_actors.messages import SliceOrder, SliceProgress
from tts_actors.trace_export import export_traces


class _Process:
    """What this worker process keeps from task to task: an event loop, and tools for one configuration and one pool.

    The process can outlive the pool: that one dies with the directory, and the next one is another.
    """

    def __init__(self, args_json: str, pool: Any) -> None:
        self.args_json, self.pool = args_json, pool
        args = AppArgs.model_validate_json(args_json)
        configure_logs()
        record_with_ray()
        export_traces(args.tracing)
        self.loop = uvloop.new_event_loop()
        self._open = contextlib.AsyncExitStack()
        self.tools = self.loop.run_until_complete(self._open.enter_async_context(worker_tools(args, pool)))

    def close(self) -> None:
        self.loop.run_until_complete(self._open.aclose())
        self.loop.close()


_process: _Process | None = None


def _prepared(args_json: str, pool: Any) -> _Process:
    global _process
    if _process is not None and (_process.args_json, _process.pool) != (args_json, pool):
        _process.close()
        _process = None
    if _process is None:
        _process = _Process(args_json, pool)
    return _process


def speak_slice(order: SliceOrder, args_json: str, pool: Any, job_actor: Any) -> Iterator[SliceProgress]:
    """Speak a slice in this worker process. Ray refuses ``async def`` tasks, so the loop is stepped by hand."""
    process = _prepared(args_json, pool)
    loop = process.loop
    # Between tasks the loop stands still: let it see first which kept connections were closed meanwhile.
    loop.run_until_complete(asyncio.sleep(0))
    stream = _until_stopped(order, process.tools, pool, job_actor)
    try:
        while True:
            try:
                progress = loop.run_until_complete(anext(stream))
            except StopAsyncIteration:
                return
            yield progress
    finally:
        loop.run_until_complete(stream.aclose())


async def _until_stopped(
    order: SliceOrder, tools: WorkerTools, pool: Any, job_actor: Any
) -> AsyncGenerator[SliceProgress]:
    """The slice's results, ended early when the job actor says stop or is no more.

    (``ray.cancel`` is best effort, and its KeyboardInterrupt would hit the event loop at any place: it is not used.)
    """
    stop = asyncio.ensure_future(_stopped(job_actor))
    try:
        async with contextlib.aclosing(synthesize_chunks(order, tools)) as results:
            while True:
                following = asyncio.ensure_future(anext(results, None))
                await asyncio.wait({following, stop}, return_when=asyncio.FIRST_COMPLETED)
                if stop.done():
                    following.cancel()
                    await asyncio.wait({following})
                    pool.forget.remote(order.job_id)  # an open question for leases would be answered to a still loop
                    return
                progress = following.result()
                if progress is None:
                    await tools.leases.settle()
                    return
                yield progress
    finally:
        stop.cancel()
        await asyncio.wait({stop})


async def _stopped(job_actor: Any) -> None:
    with contextlib.suppress(RayError):
        await job_actor.until_stopped.remote()
