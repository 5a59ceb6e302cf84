"""Clips and outputs as write-once objects, through obstore: a local directory or S3, GCS, Azure by URL."""

import asyncio
import contextlib
import os
import secrets
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from tts_actors import metrics
from tts_actors.stores.troubles import clip_trouble

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_CLIENT: "ClientConfig" = {
    "connect_timeout": "3s",
    "timeout": "30s",
    "allow_http": True,  # for servers beside this one: the endpoint's URL says which it is
}
_RETRY: "RetryConfig" = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
"""Short: who calls repeats by himself, and a request is better answered with 503 than after minutes."""


def clip_directory(clip_url: str) -> Path | None:
    """The local directory of a ``file://`` URL, or None for an object store."""
    parts = urlsplit(clip_url)
    return Path(parts.netloc + parts.path) if parts.scheme == "file" else None


def _open(clip_url: str) -> ObjectStore:
    """Credentials and endpoint of an object store come from the environment (``AWS_...``), never from the URL."""
    directory = clip_directory(clip_url)
    if directory is None:
        return from_url(clip_url, client_options=_CLIENT, retry_config=_RETRY)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise clip_trouble(error) from error
    return LocalStore(directory)


class ObjectClipStore:
    """The :class:`~tts_actors.protocols.ClipStore` on obstore. Opening it makes the local directory."""

    def __init__(self, clip_url: str) -> None:
        self._store = _open(clip_url)

    async def prepare(self, prefix: str) -> None:
        if not isinstance(self._store, LocalStore):
            return
        root = Path(str(self._store.prefix))
        try:
            await asyncio.to_thread(_make_folder, root, root / prefix)
        except OSError as error:
            raise clip_trouble(error) from error

    async def put(self, key: str, body: bytes) -> bool:
        with metrics.timed(metrics.STORE, "clip_write"):
            return await self._put(key, body)

    async def put_file(self, key: str, path: str) -> bool:
        return await self._put(key, Path(path))

    async def _put(self, key: str, body: bytes | Path) -> bool:
        try:
            if isinstance(self._store, LocalStore):
                await asyncio.to_thread(_write_once, Path(str(self._store.prefix)), key, body)
            else:
                await obstore.put_async(self._store, key, body, mode="create")
        except (AlreadyExistsError, FileExistsError):
            return False
        except (BaseError, OSError) as error:
            raise clip_trouble(error) from error
        return True

    async def get(self, key: str) -> bytes | None:
        try:
            with metrics.timed(metrics.STORE, "clip_read"):
                result = await obstore.get_async(self._store, key)
                return bytes(await result.bytes_async())
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            raise clip_trouble(error) from error

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        try:
            return bytes(await obstore.get_range_async(self._store, key, start=start, end=end))
        except (BaseError, OSError) as error:
            raise clip_trouble(error) from error

    async def size(self, key: str) -> int | None:
        try:
            return int((await obstore.head_async(self._store, key))["size"])
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            raise clip_trouble(error) from error

    async def remove(self, key: str) -> None:
        try:
            await obstore.delete_async(self._store, key)
        except (NotFoundError, FileNotFoundError):
            return
        except (BaseError, OSError) as error:
            raise clip_trouble(error) from error

    async def delete_prefix(self, prefix: str) -> None:
        try:
            async for batch in obstore.list(self._store, prefix=prefix):
                await obstore.delete_async(self._store, [item["path"] for item in batch])
        except (BaseError, OSError) as error:
            raise clip_trouble(error) from error
        if isinstance(self._store, LocalStore) and self._store.prefix is not None:
            await asyncio.to_thread(_remove_empty, Path(self._store.prefix) / prefix)

    async def ping(self) -> None:
        await self.size("ping")


def _write_once(root: Path, key: str, body: bytes | Path) -> None:
    """Write a file under a name that is not there yet; on the disk, name included, when this returns.

    obstore's local store does the same without forcing anything to the disk: after a power cut it can have a name with
    no content. Raises :class:`FileExistsError` if the name is taken.
    """
    target = root / key
    if target.exists():
        raise FileExistsError(key)
    made = _make_directories(root, target.parent)
    staging = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with open(staging, "xb") as file:
            if isinstance(body, Path):
                with open(body, "rb") as source:
                    shutil.copyfileobj(source, file, 1024 * 1024)
            else:
                file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.link(staging, target)
    finally:
        with contextlib.suppress(OSError):
            staging.unlink(missing_ok=True)
    for directory in (target.parent, *made):
        _sync_directory(directory)


def _make_folder(root: Path, directory: Path) -> None:
    """Make ``directory``; its name, and those above it, are on the disk when this returns."""
    for changed in _make_directories(root, directory):
        _sync_directory(changed)


def _make_directories(root: Path, directory: Path) -> list[Path]:
    """Make what is missing down to ``directory``; returns the directories that got a new entry by that."""
    changed: list[Path] = []
    missing = directory
    while missing != root and not missing.is_dir():
        missing = missing.parent
        changed.append(missing)
    directory.mkdir(parents=True, exist_ok=True)
    return changed


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_empty(directory: Path) -> None:
    """Object stores have no folders; on disk an emptied one would stay behind."""
    for folder, _, _ in os.walk(directory, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
