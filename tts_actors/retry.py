"""Whether, when and where a failed attempt is repeated: pure decisions that never sleep."""

from collections.abc import Collection
from dataclasses import dataclass

from tts_actors.errors import BackendError

RETRYABLE_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP answers after which the same call may succeed (AIP-194 widened by what speech servers do while they load)."""

OUTAGE_STATUSES = frozenset({429, 502, 503, 504})
"""HTTP answers of a server that is not there for anybody now: too busy, or its model or a proxy's server is away."""

ACCOUNT_STATUSES = frozenset({401, 402, 403, 404})
"""Refusals that are about our key, our account or what the server has, not about the text: others may speak it."""

BAD_TAKES, MOST_BAD_TAKES = 2, 3
"""Bad takes of a text, each at another backend if there are so many, before it is spoken in parts."""


def is_outage(error: BackendError, *, silent: bool = False) -> bool:
    """Nobody was there to speak: what a server does that restarts, loads its model or is crowded.

    That is: no connection, one of :data:`OUTAGE_STATUSES`, or a time-out at a backend that was ``silent``: it has not
    answered any other call meanwhile. Such attempts cost the backend little, so patience is measured in time and not in
    attempts.
    """
    return error.kind == "connect" or error.status in OUTAGE_STATUSES or (silent and error.kind == "timeout")


def is_elsewhere_only(error: BackendError) -> bool:
    """This backend will not speak for us or spoke without end; that says nothing about the next one."""
    return error.kind in ("tls", "reply_too_large") or error.status in ACCOUNT_STATUSES


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most ``max_attempts`` calls a chunk, which together take no longer than ``max_timeouts`` that run into the
    chunk's timeout; between them full jitter below a doubling ceiling (milliseconds).

    Quick failures are cheap and, at flaky backends, independent: many of them may be tried. Slow ones are not.

    Attempts that found nobody there (:func:`is_outage`) do not count as long as the chunk's first attempt is not older
    than ``outage_ms``.
    """

    max_attempts: int = 8
    base_ms: int = 200
    cap_ms: int = 5_000
    outage_ms: int = 120_000
    max_timeouts: int = 3

    def ceiling_ms(self, waits: int) -> int:
        """Upper bound of a chunk's wait number ``waits``: ``min(cap, base * 2**(waits-1))``."""
        return int(min(self.cap_ms, self.base_ms * 2 ** max(0, waits - 1)))

    def longest_ms(self, timeout_ms: int) -> int:
        """The longest that all counted attempts of one chunk can take, waits between them included."""
        timeouts = min(self.max_attempts, self.max_timeouts)
        return timeouts * timeout_ms + sum(self.ceiling_ms(waits) for waits in range(1, timeouts))


@dataclass(frozen=True, slots=True)
class NextAttempt:
    """When and where: wait so many milliseconds, then call one of ``usable``, of ``avoid`` only if no other is well.

    ``in_parts``: the text has been bad as a whole, here and elsewhere, and is to be spoken in smaller parts.
    """

    wait_ms: float
    usable: frozenset[str]
    avoid: frozenset[str]
    in_parts: bool = False


class Course:
    """One chunk's attempts so far, and what follows from them. Moments are milliseconds of a clock of the caller's.

    ``backends`` can speak the chunk, each attempt is bounded by ``timeout_ms``, and attempts that find nobody there do
    not count until ``patient_until_ms``.
    """

    def __init__(
        self, policy: RetryPolicy, backends: Collection[str], timeout_ms: int, *, patient_until_ms: float
    ) -> None:
        self._policy = policy
        self._backends = frozenset(backends)
        self._timeout_ms = timeout_ms
        self._patient_until_ms = patient_until_ms
        self._failures = self._waits = 0
        self._spent_ms = 0.0
        self._tried: set[str] = set()
        self._avoid: set[str] = set()
        self._rests_until_ms: dict[str, float] = {}
        self._bad_takes = 0
        self._bad_at: set[str] = set()

    def first(self) -> NextAttempt:
        """The first attempt: anywhere, now."""
        return NextAttempt(0.0, self._backends, frozenset())

    def failed(
        self,
        backend: str,
        error: BackendError,
        elapsed_ms: int,
        *,
        now_ms: float,
        remaining_ms: float,
        jitter: float,
        silent: bool = False,
    ) -> NextAttempt | None:
        """Take in a failure; what to do next, or None if there must not be another attempt.

        A backend that has not been tried yet is tried at once. Otherwise ``jitter`` in [0, 1), the caller's dice,
        decides the wait (full jitter: AWS Architecture Blog, "Exponential Backoff And Jitter"). A backend's Retry-After
        keeps this chunk from that backend alone. No wait is longer than ``remaining_ms``, the time to the job's
        deadline; with no time left there is no next attempt. ``silent``: see :func:`is_outage`.
        """
        if is_elsewhere_only(error):
            self._backends -= {backend}
            if not self._backends:
                return None
        self._avoid = {backend} if self._avoid | {backend} >= self._backends else self._avoid | {backend}
        self._tried.add(backend)
        if error.kind == "bad_take":
            self._bad_takes += 1
            self._bad_at.add(backend)
        if error.retry_after_seconds is not None:
            self._rests_until_ms[backend] = now_ms + error.retry_after_seconds * 1_000
        counted = not (is_outage(error, silent=silent) and now_ms < self._patient_until_ms)
        self._failures += counted
        final = not error.may_retry and not is_elsewhere_only(error)
        if final or self._failures >= self._policy.max_attempts or remaining_ms <= 0:
            return None
        wait_ms = 0.0
        if self._tried >= self._backends:
            self._waits += 1
            wait_ms = jitter * self._policy.ceiling_ms(self._waits)
        if counted:
            self._spent_ms += min(elapsed_ms, self._timeout_ms) + wait_ms
            if self._spent_ms + self._timeout_ms > self._policy.longest_ms(self._timeout_ms):
                return None  # the next attempt could break the bound that the job was promised
        return self._next(wait_ms, now_ms, remaining_ms)

    def _next(self, wait_ms: float, now_ms: float, remaining_ms: float) -> NextAttempt:
        fresh = self._backends - self._tried
        rests_ms = {name: self._rests_until_ms.get(name, 0.0) - now_ms for name in fresh or self._backends}
        wait_ms = min(max(wait_ms, min(rests_ms.values())), remaining_ms)
        usable = {name for name in self._backends if self._rests_until_ms.get(name, 0.0) - now_ms <= wait_ms}
        return NextAttempt(wait_ms, frozenset(usable) or self._backends, frozenset(self._avoid), self._in_parts())

    def _in_parts(self) -> bool:
        """Bad takes from every backend, from three of them, or up to the last attempt; two in any case."""
        needed = max(BAD_TAKES, min(len(self._backends), MOST_BAD_TAKES, self._policy.max_attempts - 1))
        return self._bad_takes >= needed and len(self._bad_at) >= min(needed, len(self._backends))
