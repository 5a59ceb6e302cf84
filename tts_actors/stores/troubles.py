"""What the drivers of the stores raise, as :class:`StoreUnavailable` with a reason that an operator can act on.

The drivers' own messages are not handed on: they hold statements with their parameters, the caller's text.
"""

import errno
import sqlite3

from tts_actors.errors import StoreUnavailable

RETRY_SECONDS = 5.0
"""What a caller is told to wait: a restart of a database takes a few seconds."""

_SQLITE = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "the data directory is read-only",
    "SQLITE_CANTOPEN": "its file cannot be opened",
    "SQLITE_IOERR": "the disk reports an error (full?)",
    "SQLITE_BUSY": "another process holds the file",
    "SQLITE_CORRUPT": "the file is damaged: restore a backup",
    "SQLITE_NOTADB": "the file is not a database",
}
_OS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the data directory is read-only",
    errno.EACCES: "the data directory may not be written",
}


def reason_of(origin: Exception) -> str:
    """In a few words, none of them the driver's."""
    if isinstance(origin, sqlite3.Error):
        name = str(getattr(origin, "sqlite_errorname", ""))
        return next((words for prefix, words in _SQLITE.items() if name.startswith(prefix)), name or "SQLite error")
    if isinstance(origin, OSError) and origin.errno in _OS:
        return _OS[origin.errno]
    return type(origin).__name__


def clip_trouble(error: Exception) -> StoreUnavailable:
    """What the clip store raised, for its callers."""
    return StoreUnavailable(f"the clip store failed: {reason_of(error)}", RETRY_SECONDS)
