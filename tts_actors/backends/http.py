"""What all HTTP adapters share: one bounded, redirect-free request and the meaning of its failures."""

import email.utils
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tts_actors.config import BackendArgs
from tts_actors.errors import BackendError, BadTake
from tts_actors.protocols import Reply
from tts_actors.retry import RETRYABLE_STATUSES
from tts_actors.tracing import trace_headers

REASON_CHARACTERS = 200
"""How much of a server's own explanation is kept."""


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections to speech servers, shared by all adapters of a process.

    No limits and no timeouts of the client's own: leases bound the calls, the chunk timeout bounds each of them. No
    cookies: two servers on one host would see each other's.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield session


class HttpEndpoint:
    """One configured server: sends requests to it and to nothing else.

    Knows no timeouts: the caller bounds the whole call. Raises :class:`BackendError`.
    """

    def __init__(self, args: BackendArgs, session: aiohttp.ClientSession, environ: Mapping[str, str]) -> None:
        self.args = args
        self._session = session
        key = environ.get(args.api_key_env) if args.api_key_env else None
        self._headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})

    async def request(
        self, method: str, path: str, *, body: dict[str, Any] | None = None, good: tuple[int, ...] = (200,)
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send and read the whole answer; any status outside ``good`` is an error."""
        url = self.args.url.rstrip("/") + path
        try:
            async with self._session.request(
                method, url, json=body, headers=self._headers | trace_headers(), allow_redirects=False
            ) as response:
                payload = await self._read(response)
                if response.status not in good:
                    raise _status_error(response.status, response.headers, payload)
                return response.status, response.headers, payload
        except aiohttp.ClientPayloadError as error:
            raise BadTake("the reply was cut off before its announced end") from error
        except aiohttp.ClientSSLError as error:
            raise BackendError(f"no trusted connection: {type(error).__name__}", "tls", None, False) from error
        except (aiohttp.ClientConnectorError, ConnectionRefusedError) as error:
            raise BackendError(f"no connection: {type(error).__name__}", "connect") from error
        except (aiohttp.ClientError, OSError) as error:
            raise BackendError(f"the connection was lost: {type(error).__name__}", "disconnect") from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        total, limit = 0, self.args.max_reply_bytes
        if (response.content_length or 0) <= limit:
            async for part in response.content.iter_any():
                total += len(part)
                if total > limit:
                    break
                parts.append(part)
            else:
                return b"".join(parts)
        raise BackendError(
            f"the reply is larger than max_reply_bytes ({limit})",
            "reply_too_large",
            response.status,
            False,
        )

    def reply(self, headers: Mapping[str, str], payload: bytes) -> Reply:
        """An audio answer as it came."""
        return Reply(payload, headers.get("Content-Type"), self.args.raw_rate_hz)


def _status_error(status: int, headers: Mapping[str, str], payload: bytes) -> BackendError:
    reason = _reason(payload)
    return BackendError(
        f"HTTP {status}" + (f": {reason}" if reason else ""),
        "status",
        status,
        status in RETRYABLE_STATUSES,
        retry_after_seconds(headers.get("Retry-After")),
    )


def json_of(payload: bytes) -> Any:
    """A server's JSON; ``ValueError`` if it is none, or nested deeper than Python can follow."""
    try:
        return json.loads(payload)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def retry_after_seconds(value: str | None, now: float | None = None) -> float | None:
    """Seconds from a Retry-After header (RFC 9110 10.2.3: seconds or a date); None if absent or unreadable."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, moment - (time.time() if now is None else now))


def _reason(payload: bytes) -> str:
    """The message of an error answer in the shapes that speech servers use; empty if there is none."""
    try:
        document = json_of(payload[:65_536])
    except ValueError:
        return ""
    if not isinstance(document, dict):
        return ""
    found = document.get("error", document.get("detail", document.get("message", "")))
    if isinstance(found, dict):
        found = found.get("message", "")
    return " ".join(str(found).split())[:REASON_CHARACTERS] if isinstance(found, str) else ""
