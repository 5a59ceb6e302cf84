"""Clips and outputs as write-once objects, through obstore: a local directory or S3, GCS, Azure by URL."""

import asyncio
import contextlib
import os
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from tts_actors import metrics
from tts_actors.errors import StoreUnavailable


def clip_directory(clip_url: str) -> Path | None:
    """The local directory of a ``file://`` URL, or None for an object store."""
    parts = urlsplit(clip_url)
    return Path(parts.netloc + parts.path) if parts.scheme == "file" else None


def _open(clip_url: str) -> ObjectStore:
    directory = clip_directory(clip_url)
    if directory is None:
        return from_url(clip_url)
    directory.mkdir(parents=True, exist_ok=True)
    return LocalStore(directory)


class ObjectClipStore:
    """The :class:`~tts_actors.protocols.ClipStore` on obstore. Opening it makes the local directory."""

    def __init__(self, clip_url: str) -> None:
        self._store = _open(clip_url)

    async def put(self, key: str, body: bytes) -> None:
        try:
            with metrics.timed(metrics.STORE, "clip_write"):
                await obstore.put_async(self._store, key, body, mode="create")
        except AlreadyExistsError:
            return
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def put_file(self, key: str, path: str) -> None:
        try:
            await obstore.put_async(self._store, key, Path(path), mode="create")
        except AlreadyExistsError:
            return
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def get(self, key: str) -> bytes | None:
        try:
            with metrics.timed(metrics.STORE, "clip_read"):
                result = await obstore.get_async(self._store, key)
                return bytes(await result.bytes_async())
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        try:
            return bytes(await obstore.get_range_async(self._store, key, start=start, end=end))
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def size(self, key: str) -> int | None:
        try:
            return int((await obstore.head_async(self._store, key))["size"])
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error

    async def delete_prefix(self, prefix: str) -> None:
        try:
            async for batch in obstore.list(self._store, prefix=prefix):
                await obstore.delete_async(self._store, [item["path"] for item in batch])
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        if isinstance(self._store, LocalStore) and self._store.prefix is not None:
            await asyncio.to_thread(_remove_empty, Path(self._store.prefix) / prefix)

    async def ping(self) -> None:
        await self.size("ping")


def _remove_empty(directory: Path) -> None:
    """Object stores have no folders; on disk an emptied one would stay behind."""
    for folder, _, _ in os.walk(directory, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the clip store failed: {type(error).__name__}", 5.0)
