"""Clips and outputs as write-once objects, through obstore: a local directory or S3, GCS, Azure by URL."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from tts_actors import metrics
from tts_actors.errors import ConfigError, StoreUnavailable
from tts_actors.stores.durable_files import DurableFiles
from tts_actors.stores.troubles import clip_trouble

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_CLIENT: "ClientConfig" = {
    "connect_timeout": "3s",
    "allow_http": True,  # for servers beside this one: the endpoint's URL says which it is
}
_RETRY: "RetryConfig" = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
"""Short: who calls repeats by himself, and a request is better answered with 503 than after minutes."""

CALL_SECONDS = 30.0
"""How long one request may take before it is made again."""

REQUEST_SECONDS = 60.0
"""How long one step may take, repeats included: a disk or a share that hangs does not say so itself. A step is a clip,
or, where nobody knows how much there is, one page of a listing or what is removed of it."""

SLOWEST_BYTES_PER_SECOND = 2**20
"""A finished file has as much more time as it takes at this rate: a book of ten hours as MP3 has ten minutes."""


def clip_directory(clip_url: str) -> Path | None:
    """The local directory of a ``file://`` URL, or None for an object store."""
    parts = urlsplit(clip_url)
    return Path(parts.netloc + parts.path) if parts.scheme == "file" else None


def _open(clip_url: str, seconds: float) -> ObjectStore:
    """Credentials and endpoint of an object store come from the environment (``AWS_...``), never from the URL.

    One request, its body included, may take so many seconds.
    """
    directory = clip_directory(clip_url)
    if directory is None:
        options: ClientConfig = {**_CLIENT, "timeout": timedelta(seconds=seconds)}
        return from_url(clip_url, client_options=options, retry_config=_RETRY)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise clip_trouble(error) from error
    return LocalStore(directory)


REMOTE_SCHEMES = frozenset({"s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "https"})
"""What obstore opens that other processes see too (``memory`` is lost with its process)."""


def check_clip_url(clip_url: str) -> None:
    """Raise :class:`ConfigError` for a URL that no store of clips is behind. Nothing is opened."""
    parts = urlsplit(clip_url)
    known = parts.path if parts.scheme == "file" else parts.scheme in REMOTE_SCHEMES and parts.netloc
    if not known:
        raise ConfigError("clip_url: must be file:///DIRECTORY, or s3://, gs:// or az:// with a bucket", "clip_url")


DELETE_TRIES = 10
"""How often the objects of a job are listed anew because one had gone when it was to be deleted."""

_MISSING = (NotFoundError, FileNotFoundError)
_THERE = (AlreadyExistsError, FileExistsError)


class ObjectClipStore:
    """The :class:`~tts_actors.protocols.ClipStore` on obstore. Opening it makes the local directory."""

    def __init__(self, clip_url: str, *, call_seconds: float = CALL_SECONDS) -> None:
        self._url = clip_url
        self._store = _open(clip_url, call_seconds)
        directory = clip_directory(clip_url)
        self._files = DurableFiles(directory) if directory else None

    async def prepare(self, prefix: str) -> None:
        if self._files is not None:
            async with _step():
                await self._files.prepare(prefix)

    async def put(self, key: str, body: bytes) -> bool:
        with metrics.timed(metrics.STORE, "clip_write"):
            return await self._put(self._store, key, body, REQUEST_SECONDS)

    async def put_file(self, key: str, path: str) -> bool:
        size = os.stat(path).st_size  # made by this process a moment ago
        seconds = REQUEST_SECONDS + size / SLOWEST_BYTES_PER_SECOND
        store = self._store if self._files is not None else _open(self._url, seconds)
        return await self._put(store, key, Path(path), seconds)

    async def _put(self, store: ObjectStore, key: str, body: bytes | Path, seconds: float) -> bool:
        try:
            async with _step(seconds, passing=_THERE):
                if self._files is None:
                    await obstore.put_async(store, key, body, mode="create")
                elif isinstance(body, Path):
                    await self._files.put_file(key, body)
                else:
                    await self._files.put(key, body)
        except _THERE:
            return False
        return True

    async def get(self, key: str) -> bytes | None:
        try:
            with metrics.timed(metrics.STORE, "clip_read"):
                async with _step(passing=_MISSING):
                    if self._files is not None:
                        return await self._files.get(key)
                    result = await obstore.get_async(self._store, key)
                    return bytes(await result.bytes_async())
        except _MISSING:
            return None

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        async with _step():
            return bytes(await obstore.get_range_async(self._store, key, start=start, end=end))

    async def size(self, key: str) -> int | None:
        try:
            async with _step(passing=_MISSING):
                return int((await obstore.head_async(self._store, key))["size"])
        except _MISSING:
            return None

    async def remove(self, key: str) -> None:
        with contextlib.suppress(*_MISSING):
            async with _step(passing=_MISSING):
                await obstore.delete_async(self._store, key)

    async def delete_prefix(self, prefix: str, *, older_than_seconds: float = 0.0) -> None:
        for _ in range(DELETE_TRIES):
            with contextlib.suppress(*_MISSING):  # what was listed has gone: a killed writer's last file, say
                await self._delete_listed(prefix, older_than_seconds)
                break
        else:
            raise StoreUnavailable("the clip store lists what it has not", 1.0)
        if self._files is not None:
            async with _step():
                await asyncio.to_thread(_remove_empty, self._files.root / prefix)

    async def _delete_listed(self, prefix: str, older_than_seconds: float) -> None:
        pages = aiter(obstore.list(self._store, prefix=prefix))
        while True:
            async with _step(passing=_MISSING):
                page = await anext(pages, None)
                if page is None:
                    return
                if older_than_seconds:
                    before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
                    page = [item for item in page if item["last_modified"] < before]
                await obstore.delete_async(self._store, [item["path"] for item in page])

    async def ping(self) -> None:
        await self.size("ping")


@contextlib.asynccontextmanager
async def _step(seconds: float | None = None, *, passing: tuple[type[Exception], ...] = ()) -> AsyncIterator[None]:
    """One step, :data:`REQUEST_SECONDS` long unless told otherwise; fails as :class:`StoreUnavailable`, or passes."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS if seconds is None else seconds):
            yield
    except passing:
        raise
    except (BaseError, OSError) as error:  # a time-out is an OSError
        raise clip_trouble(error) from error


def _remove_empty(directory: Path) -> None:
    """Object stores have no folders; on disk an emptied one would stay behind."""
    for folder, _, _ in os.walk(directory, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
