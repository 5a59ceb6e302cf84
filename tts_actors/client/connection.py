"""One HTTP connection to the service: requests, typed errors, and repeats of what may be repeated.

It knows nothing of jobs. A repeat is only ever made of requests that are safe to send twice; the caller says so.
"""

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase
from urllib3.exceptions import NewConnectionError

from tts_actors import __version__
from tts_actors.errors import RetryLater, TtsError

T = TypeVar("T")

CONNECT_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
RETRYABLE_STATUSES = frozenset({408, 429, 502, 503, 504})
SHOWN_CHARACTERS = 200
"""How much of an answer that is not ours (a proxy's page, say) goes into a message."""


class Unreachable(RetryLater):
    """The service does not answer: nothing listens there, the name is unknown, or the connection broke.

    ``refused`` says that no connection came about at all, so that the request cannot have arrived.
    """

    code = "unreachable"

    def __init__(self, message: str, refused: bool = False) -> None:
        Exception.__init__(self, message, refused)
        self.message = message
        self.param = None
        self.retry_after_seconds = FIRST_PAUSE_SECONDS
        self.refused = refused


class ApiError(TtsError):
    """The service answered, and not with what was asked for.

    ``status`` is the HTTP status, ``code`` the contract's word for the error, ``retry_after_seconds`` what the service
    asked for, ``request_id`` finds the request in the service's log. ``retryable``: the same request can succeed later.
    """

    code: str  # type: ignore[misc] # one class carries all of the service's codes
    retryable: bool  # type: ignore[misc] # the status decides

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        retry_after_seconds: float | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        Exception.__init__(self, status, code, message, param, retry_after_seconds, request_id, retryable)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id
        again = status in RETRYABLE_STATUSES or (status == 409 and retry_after_seconds is not None)
        self.retryable = again if retryable is None else retryable


class _Bearer(AuthBase):
    """Sends the key. As an ``auth`` object, so that requests does not put a password from ~/.netrc in its place."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class Connection:
    """A ``requests`` session bound to one service. Not for several threads at once.

    ``timeout_seconds`` bounds each silence of the service within one request.
    """

    def __init__(self, url: str, api_key: str | None, timeout_seconds: float) -> None:
        self.url = url.rstrip("/")
        self.reached = False
        self._timeout_seconds = timeout_seconds
        self._session = requests.Session()
        self._session.auth = _Bearer(api_key)
        self._session.headers["User-Agent"] = f"tts-actors/{__version__}"
        # A proxy configured for the internet does not lead to this machine's own ports.
        self._session.trust_env = urlsplit(self.url).hostname not in LOOPBACK

    def close(self) -> None:
        """Close the sockets."""
        self._session.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        document: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        extra_seconds: float = 0.0,
    ) -> requests.Response:
        """One request, sent once; the answer if its status is below 400.

        ``extra_seconds`` is how long the service was asked to wait before it answers. Raises :class:`Unreachable` and
        :class:`ApiError`.
        """
        try:
            response = self._session.request(
                method,
                self.url + path,
                json=document,
                params={name: value for name, value in (query or {}).items() if value is not None},
                headers=headers,
                stream=stream,
                timeout=(CONNECT_SECONDS, self._timeout_seconds + extra_seconds),
            )
        except requests.RequestException as error:
            raise unreachable(self.url, error) from error
        self.reached = True
        if broke_off(response):
            response.close()
            raise Unreachable(f"the connection to {self.url} broke in the middle of an answer")
        if response.status_code >= 400:
            with response:
                raise api_error(response)
        return response

    def insist(self, call: Callable[[], T], patience_seconds: float) -> T:
        """The result of ``call``, repeated while the service is away, for ``patience_seconds`` of it at the most.

        Away is: no connection, a broken one, or a 429, 502, 503 or 504. Pauses double and honour ``Retry-After``. A
        service that was never reached and refuses the connection is not waited for: it is probably not there.
        """
        give_up = time.monotonic() + patience_seconds
        pause_seconds = FIRST_PAUSE_SECONDS
        failure: TtsError
        while True:
            try:
                return call()
            except Unreachable as error:
                if error.refused and not self.reached:
                    raise
                asked_seconds, failure = 0.0, error
            except ApiError as error:
                if error.status not in RETRYABLE_STATUSES or not error.retryable:
                    raise
                asked_seconds, failure = error.retry_after_seconds or 0.0, error
            wait_seconds = max(asked_seconds, pause_seconds * random.uniform(0.75, 1.25))  # noqa: S311 - spreads clients
            if time.monotonic() + wait_seconds > give_up:
                raise failure
            time.sleep(wait_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)


def unreachable(url: str, error: requests.RequestException) -> Unreachable:
    """What ``requests`` raised, in words for a person."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(error, requests.ConnectTimeout):
        return Unreachable(f"{url} does not answer within {CONNECT_SECONDS:.0f} s", refused=True)
    if isinstance(reason, NewConnectionError):
        return Unreachable(f"nothing answers at {url}: is the service running there?", refused=True)
    if isinstance(error, requests.Timeout):
        return Unreachable(f"{url} took the request and went silent")
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return Unreachable(f"{url} is not an http:// or https:// URL", refused=True)
    return Unreachable(f"the connection to {url} broke ({type(error).__name__})")


def broke_off(response: requests.Response) -> bool:
    """True if the connection ended within the headers, which Python's ``http.client`` takes for their end.

    An answer that has a body says how it is framed; the service's always do.
    """
    bodiless = response.status_code in (204, 304) or response.request.method == "HEAD"
    return not bodiless and not {"content-length", "transfer-encoding"} & {name.lower() for name in response.headers}


def api_error(response: requests.Response) -> ApiError:
    """The error in an answer: the contract's shape, or whatever stands in front of the service said."""
    status = response.status_code
    try:
        details = response.json()["error"]
        code, message, param = str(details["code"]), str(details["message"]), details.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        text = " ".join(response.text.split())[:SHOWN_CHARACTERS]
        code, message, param = "http_error", text or response.reason or f"HTTP status {status}", None
    return ApiError(
        status,
        code,
        message,
        param,
        retry_after_seconds(response),
        response.headers.get("x-request-id"),
        False if response.headers.get("x-should-retry") == "false" else None,
    )


def retry_after_seconds(response: requests.Response) -> float | None:
    """The ``Retry-After`` header in seconds; None if there is none (or a date, which this service never sends)."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None
