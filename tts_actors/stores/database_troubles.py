"""What database drivers raise, as :class:`StoreUnavailable` with a reason that an operator can act on."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from tts_actors.errors import StoreUnavailable
from tts_actors.stores.troubles import RETRY_SECONDS, reason_of


@contextmanager
def translated() -> Iterator[None]:
    """Turns what a database driver raises into :class:`StoreUnavailable`; broken constraints pass."""
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, OSError) as error:
        raise StoreUnavailable(f"the job store failed: {reason_of(_origin(error))}", RETRY_SECONDS) from error
    except Exception as error:
        # While a connection is being opened SQLAlchemy lets asyncpg's own errors through ("the system is starting up").
        # SQLite is told of savepoints without SQLAlchemy.
        if type(error).__module__.partition(".")[0] not in ("asyncpg", "sqlite3"):
            raise
        raise StoreUnavailable(f"the job store failed: {type(error).__name__}", RETRY_SECONDS) from error


def _origin(error: Exception) -> Exception:
    """The driver's own error behind SQLAlchemy's."""
    origin = error.orig if isinstance(error, DBAPIError) else None
    return origin if isinstance(origin, Exception) else error
