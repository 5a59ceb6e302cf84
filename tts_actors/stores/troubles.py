"""What the drivers of the stores raise, as :class:`StoreUnavailable` with a reason that an operator can act on.

The drivers' own messages are not handed on: they hold statements with their parameters, the caller's text.
"""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

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


@contextmanager
def translated() -> Iterator[None]:
    """Turns what a database driver raises into :class:`StoreUnavailable`; broken constraints pass."""
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, OSError) as error:
        raise StoreUnavailable(f"the job store failed: {_reason(error)}", RETRY_SECONDS) from error
    except Exception as error:
        # While a connection is being opened SQLAlchemy lets asyncpg's own errors through ("the system is starting up").
        if type(error).__module__.partition(".")[0] != "asyncpg":
            raise
        raise StoreUnavailable(f"the job store failed: {type(error).__name__}", RETRY_SECONDS) from error


def _reason(error: Exception) -> str:
    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(origin, sqlite3.Error):
        name = str(getattr(origin, "sqlite_errorname", ""))
        return next((words for prefix, words in _SQLITE.items() if name.startswith(prefix)), name or "SQLite error")
    if isinstance(origin, OSError) and origin.errno in _OS:
        return _OS[origin.errno]
    return type(origin).__name__


def clip_trouble(error: Exception) -> StoreUnavailable:
    """The same for the clip store."""
    return StoreUnavailable(f"the clip store failed: {_reason(error)}", RETRY_SECONDS)
