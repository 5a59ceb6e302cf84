"""Opens what a process needs from the configuration: backends, clips, leases."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tts_actors.backends.adapters import open_backend
from tts_actors.backends.catalog import Catalog
from tts_actors.backends.http import open_session
from tts_actors.chunk_worker import WorkerTools
from tts_actors.cluster.leases import IDLE_SHARE, RemoteLeases
from tts_actors.config import AppArgs
from tts_actors.stores.clips import ObjectClipStore


@asynccontextmanager
async def worker_tools(
    args: AppArgs,
    pool: Any,
    *,
    keeps_leases: bool = False,
    find_pool: Callable[[], Awaitable[Any]] | None = None,
) -> AsyncIterator[WorkerTools]:
    """Tools for speaking chunks; the HTTP connections live as long as the context.

    ``keeps_leases`` is for callers of many single calls: idle leases of large backends are kept for the next ones.
    ``find_pool`` finds the pool that is there now, for tools that outlive one.
    """
    kept = {b.name: b.max_concurrency // IDLE_SHARE for b in args.backends} if keeps_leases else None
    async with open_session() as session:
        yield WorkerTools(
            backends={b.name: open_backend(b, session, os.environ) for b in args.backends},
            catalog=Catalog(args.backends, args.aliases),
            leases=RemoteLeases(pool, kept, find_pool),
            clips=ObjectClipStore(args.clip_url),
            retry=args.retry.policy(),
        )
