"""Chunk-worker tasks: a slice of a job as one streaming Ray task with asyncio inside."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any, cast

import ray
import uvloop
from ray.exceptions import RayError, RayTaskError

from tts_actors.chunk_worker import WorkerTools, synthesize_chunks
from tts_actors.cluster.metrics import record_with_ray
from tts_actors.cluster.tools import worker_tools
from tts_actors.config import AppArgs
from tts_actors.errors import TtsError
from tts_actors.job_actor import WorkerLost
from tts_actors.logs import configure_logs
from tts_actors.messages import SliceOrder, SliceProgress
from tts_actors.trace_export import export_traces


class _Process:
    """What this worker process keeps from task to task: an event loop, and tools for one configuration and one pool.

    The process can outlive the pool: that one dies with the directory, and the next one is another.
    """

    def __init__(self, args: AppArgs, pool: Any) -> None:
        configure_logs()
        record_with_ray()
        export_traces(args.tracing)
        self.args, self.pool = args, pool
        self.loop = uvloop.new_event_loop()
        self._open = contextlib.AsyncExitStack()
        self.tools = self.loop.run_until_complete(self._open.enter_async_context(worker_tools(args, pool)))

    def close(self) -> None:
        self.loop.run_until_complete(self._open.aclose())
        self.loop.close()


_process: _Process | None = None


def _prepared(args: AppArgs, pool: Any) -> _Process:
    global _process
    if _process is not None and (_process.args, _process.pool) != (args, pool):
        _process.close()
        _process = None
    if _process is None:
        _process = _Process(args, pool)
    return _process


def _synthesize_slice(order: SliceOrder, args: AppArgs, pool: Any, job_actor: Any) -> Iterator[SliceProgress]:
    """Speak a slice in this worker process. Ray refuses ``async def`` tasks, so the loop is stepped by hand."""
    process = _prepared(args, pool)
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
                    return
                yield progress
    finally:
        stop.cancel()
        await asyncio.wait({stop})


async def _stopped(job_actor: Any) -> None:
    with contextlib.suppress(RayError):
        await job_actor.until_stopped.remote()


class RayDispatch:
    """The :class:`~tts_actors.protocols.Dispatch` of a job actor; must be made inside that actor's process."""

    def __init__(self, args: AppArgs, pool: Any) -> None:
        self._args = args
        self._pool = pool
        self._job_actor = ray.get_runtime_context().current_actor

    async def __call__(self, order: SliceOrder) -> AsyncGenerator[SliceProgress]:
        if order.adopt:
            # A worker of this job has died, or was killed by Ray along with the actor before this one: nobody else can
            # give back the leases it held.
            self._pool.forget.remote(order.job_id)
        try:
            async for reference in synthesize_slice.remote(order, self._args, self._pool, self._job_actor):
                yield await reference
        except RayTaskError as error:
            if isinstance(error.cause, TtsError):
                raise error.cause from None
            raise
        except RayError as error:
            raise WorkerLost(f"the chunk worker died: {type(error).__name__}") from error


def _warm_worker() -> None:
    """Nothing: running it brings up a worker process with all of this module imported."""


# No CPU is reserved: admission bounds the jobs and leases bound the calls. No retries by Ray: the job actor knows what
# is outstanding and Ray does not. (Ray's own types lack these options, hence the cast.)
_remote = cast("Any", ray.remote)
synthesize_slice = _remote(num_cpus=0, max_retries=0, num_returns="streaming", enable_task_events=False)(
    _synthesize_slice
)
warm_worker = _remote(num_cpus=0, enable_task_events=False)(_warm_worker)
