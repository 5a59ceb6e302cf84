"""Write-once files in a directory, on the disk, names included, when their writers go on; read many at a time.

Forcing a file costs a commit of the file system's journal: milliseconds that are waited for, not worked. What is put
meanwhile waits and is forced together: two commits a batch instead of two a file (a prototype on ext4, 40 clips of
48 kB that arrive together: 20 ms at best instead of 40; timings vary by a factor of three).
"""

import asyncio
import contextlib
import io
import os
import secrets
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tts_actors.together import Together

FORCED_AT_ONCE = 16
"""Files of a batch that are forced side by side, so that they share a commit; more gain nothing (measured)."""

LONG_READ_SECONDS = 0.02
"""Files asked for later than this after the ones being read do not wait for them."""


@dataclass(slots=True)
class _Write:
    """A file to be made: where, of what; ``failure`` says why it was not."""

    target: Path
    body: bytes | Path
    staging: Path
    changed: list[Path] = field(default_factory=list)
    failure: OSError | None = None


class DurableFiles:
    """Files under ``root``. obstore's local store does the same without forcing anything to the disk: after a power cut
    it can have a name with no content.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._forcers = ThreadPoolExecutor(FORCED_AT_ONCE, "clip-force")
        self._puts: Together[_Write, None] = Together(self._write_together)
        self._gets: Together[Path, bytes] = Together(_read_together, patience_seconds=LONG_READ_SECONDS)

    async def put(self, key: str, body: bytes) -> None:
        """Write a file under a name that is not there yet. Raises :class:`FileExistsError` if it is."""
        await self._puts(self._write(key, body))

    async def get(self, key: str) -> bytes:
        """A file's content. Those asked for together are one hop to a thread (of 40 clips of 48 kB
        each costs 0.1 ms of CPU time instead of 0.3). Raises :class:`OSError`.
        """
        return await self._gets(self.root / key)

    async def put_file(self, key: str, path: Path) -> None:
        """The same with another file's content, however long; nobody else waits for it."""
        write = self._write(key, path)
        await asyncio.to_thread(self._write_all, [write])
        if write.failure is not None:
            raise write.failure

    async def prepare(self, folder: str) -> None:
        """Make a folder; its name, and those above it, are on the disk when this returns."""
        await asyncio.to_thread(self._make_folder, self.root / folder)

    def _write(self, key: str, body: bytes | Path) -> _Write:
        target = self.root / key
        return _Write(target, body, target.with_name(f".{target.name}.{secrets.token_hex(8)}"))

    async def _write_together(self, writes: list[_Write]) -> list[OSError | None]:
        await asyncio.to_thread(self._write_all, writes)
        return [write.failure for write in writes]

    def _write_all(self, writes: Sequence[_Write]) -> None:
        """Stage all, force all, then give them their names and force those: no name is ever without its content."""
        with contextlib.ExitStack() as handles:
            staged = [(write, handle) for write in writes if (handle := self._stage(write, handles)) is not None]
            # A single file needs no other thread.
            each = self._forcers.map if len(staged) > 1 else map
            list(each(_force, staged))
        for write, _ in staged:
            if write.failure is None:
                _name(write)
        for write, _ in staged:
            with contextlib.suppress(OSError):
                os.unlink(write.staging)
        for directory in {d for write, _ in staged for d in (write.target.parent, *write.changed)}:
            try:
                _force_directory(directory)
            except OSError as error:
                for write, _ in staged:
                    write.failure = write.failure or error

    def _stage(self, write: _Write, handles: contextlib.ExitStack) -> int | None:
        """Write the content under a name of its own; the open file, or None if that failed."""
        try:
            if os.path.exists(write.target):
                raise FileExistsError(write.target.name)
            write.changed = _make_directories(self.root, write.target.parent)
            file = handles.enter_context(open(write.staging, "xb", buffering=0))  # noqa: SIM115 - closed by the stack
            _fill(file, write.body)
        except OSError as error:
            write.failure = error
            with contextlib.suppress(OSError):
                os.unlink(write.staging)
            return None
        return file.fileno()

    def _make_folder(self, directory: Path) -> None:
        for changed in _make_directories(self.root, directory):
            _force_directory(changed)


async def _read_together(paths: list[Path]) -> list[bytes | OSError]:
    return await asyncio.to_thread(lambda: [_content(path) for path in paths])


def _content(path: Path) -> bytes | OSError:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        return error


def _fill(file: io.FileIO, body: bytes | Path) -> None:
    if isinstance(body, Path):
        with open(body, "rb") as source:
            shutil.copyfileobj(source, file, 1024 * 1024)
        return
    view = memoryview(body)
    while view:
        view = view[file.write(view) :]


def _force(staged: tuple[_Write, int]) -> None:
    write, handle = staged
    try:
        os.fsync(handle)
    except OSError as error:
        write.failure = error


def _name(write: _Write) -> None:
    try:
        os.link(write.staging, write.target)
    except OSError as error:
        write.failure = error


def _make_directories(root: Path, directory: Path) -> list[Path]:
    """Make what is missing down to ``directory``; returns the directories that got a new entry by that."""
    changed: list[Path] = []
    missing = directory
    while missing != root and not os.path.isdir(missing):
        missing = missing.parent
        changed.append(missing)
    if changed or not os.path.isdir(directory):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # a file is in the way: that says nothing about the one that is to be written
            raise NotADirectoryError(str(directory)) from None
    return changed


def _force_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
