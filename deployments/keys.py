"""Who may call: API keys, how often each may ask, and on which addresses the service may do without any."""

import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.datastructures import Headers

from tts_actors.config import AuthArgs
from tts_actors.errors import ConfigError, LimitExceeded, Unauthorized

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
"""A tenant's name: it is stored with every job."""

HAPROXY_SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"
"""With this variable at 1 Serve binds all interfaces, whatever ``http_options.host`` says."""


class Keys:
    """The configured API keys: who has which. With none, everybody is the one tenant ``""``.

    A name may have several keys, so that one can be replaced without a gap. Keys are kept as hashes and compared in a
    time that tells nothing of them. Raises :class:`ConfigError` for a list that cannot be meant.
    """

    def __init__(self, args: AuthArgs, environ: Mapping[str, str]) -> None:
        entries = (environ.get(args.keys_env, "") if args.keys_env else "").split(",")
        if args.keys_file:
            entries += _lines(args.keys_file)
        self._keys: list[tuple[bytes, str]] = []
        for entry in filter(None, (e.strip() for e in entries)):
            name, _, key = (part.strip() for part in entry.partition(":"))
            if not NAME.match(name) or not key:
                raise ConfigError("auth: each key is written name:key, the name 1 to 64 of A-Z a-z 0-9 . _ -", "auth")
            self._keys.append((_digest(key.encode()), name))
        if len({digest for digest, _ in self._keys}) < len(self._keys):
            raise ConfigError("auth: the same key is given twice", "auth")

    def __bool__(self) -> bool:
        return bool(self._keys)

    def tenant(self, headers: Headers) -> str:
        """The tenant whose key the request carries. Raises :class:`Unauthorized`."""
        if not self._keys:
            return ""
        given = _digest(_given(headers))
        found = [name for digest, name in self._keys if hmac.compare_digest(digest, given)]
        if not found:
            raise Unauthorized("a valid API key is needed: Authorization: Bearer <key>")
        return found[0]

    def seal(self, headers: Headers, message: str) -> str | None:
        """A seal on the message with the key that the request carries; None if there are no keys.

        Raises :class:`Unauthorized`. Made from the key's hash: every process with the same keys knows it, and it ends
        with the key.
        """
        if not self._keys:
            return None
        self.tenant(headers)
        return _seal(_digest(_given(headers)), message)

    def sealed_by(self, message: str, seal: str) -> str | None:
        """The tenant with one of whose keys this very message was sealed."""
        found = [name for key, name in self._keys if hmac.compare_digest(_seal(key, message), seal)]
        return found[0] if found else None


def bearer_is(headers: Headers, key: str) -> bool:
    """Whether the request carries this very key."""
    return hmac.compare_digest(_digest(key.encode()), _digest(_given(headers)))


def _given(headers: Headers) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    # HTTP hands bytes on as Latin-1: this gives back the bytes that were sent.
    return (token.strip() if scheme.lower() == "bearer" else headers.get("api-key", "")).encode("latin-1")


def _digest(key: bytes) -> bytes:
    """All keys at one length: a comparison does not even tell how long one is."""
    return hashlib.sha256(key).digest()


def _seal(key: bytes, message: str) -> str:
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


def _lines(path: str) -> list[str]:
    try:
        return [line for line in Path(path).read_text().splitlines() if not line.startswith("#")]
    except (OSError, ValueError) as error:
        raise ConfigError(f"auth.keys_file: {path} cannot be read ({type(error).__name__})", "auth.keys_file") from None


class RequestRate:
    """``limits.per_key.requests_per_minute``: a bucket per tenant that holds one minute's worth and refills evenly."""

    def __init__(self, per_minute: int | None, now: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._now = now
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, tenant: str) -> None:
        """Count one request. Raises :class:`LimitExceeded` with the time until the next one is free."""
        if self._per_minute is None:
            return
        now = self._now()
        left, since = self._buckets.get(tenant, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - since) * self._per_minute / 60)
        self._buckets[tenant] = (left - 1 if left >= 1 else left, now)
        if left < 1:
            name = "limits.per_key.requests_per_minute"
            raise LimitExceeded(f"{name} is {self._per_minute}", (1 - left) * 60 / self._per_minute, name)


def check_exposure(args: AuthArgs, host: str, environ: Mapping[str, str]) -> None:
    """Raise :class:`ConfigError` if the service would be open to other machines without anybody having said so."""
    where = reachable_at(host, environ)
    if where is None or args.allow_open_network or Keys(args, environ):
        return
    raise ConfigError(
        f"auth: the service would listen on {where} without any API key; "
        f"set {args.keys_env or 'auth.keys_env'} or auth.keys_file, or say auth.allow_open_network: true",
        "auth",
    )


def reachable_at(host: str, environ: Mapping[str, str]) -> str | None:
    """On which of its addresses Serve can be reached from other machines, in words; None: from none."""
    if environ.get(HAPROXY_SWITCH) == "1":
        return f"all interfaces ({HAPROXY_SWITCH}=1 makes Serve do that, whatever http_options.host says)"
    return None if _is_loopback(host) else f"http_options.host {host}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
