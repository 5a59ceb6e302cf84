"""Whether and when a failed attempt is repeated: a pure decision that never sleeps."""

from dataclasses import dataclass

from tts_actors.errors import BackendError

RETRYABLE_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP answers after which the same call may succeed (AIP-194 widened by what speech servers do while they load)."""


def is_outage(error: BackendError) -> bool:
    """Nobody was there to speak (no connection, 503): what a server does that restarts or loads its model.

    Such an attempt costs the backend nothing, so patience is measured in time and not in attempts.
    """
    return error.kind == "connect" or error.status == 503


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most ``max_attempts`` calls a chunk; between them full jitter below a doubling ceiling (milliseconds).

    Attempts that found nobody there (:func:`is_outage`) do not count as long as the chunk's first failure is not older
    than ``outage_ms``.
    """

    max_attempts: int = 3
    base_ms: int = 200
    cap_ms: int = 5_000
    outage_ms: int = 120_000

    def ceiling_ms(self, failures: int) -> int:
        """Upper bound of the wait after ``failures`` failed attempts: ``min(cap, base * 2**(failures-1))``."""
        return int(min(self.cap_ms, self.base_ms * 2 ** max(0, failures - 1)))

    def wait_ms(
        self, error: BackendError, failures: int, *, jitter: float, remaining_ms: float, outages: int = 0
    ) -> float | None:
        """Milliseconds to wait before the next attempt, or None if there must not be one.

        ``failures`` is all failed attempts so far; ``outages`` of them are not counted against ``max_attempts``.
        ``jitter`` in [0, 1) is the caller's dice (full jitter: AWS Architecture Blog, "Exponential Backoff And
        Jitter"). A backend's Retry-After is honoured as a lower bound and clamped to ``remaining_ms``, the time left
        to the job's deadline; with no time left there is no next attempt.
        """
        if not error.may_retry or failures - outages >= self.max_attempts or remaining_ms <= 0:
            return None
        wait_ms = jitter * self.ceiling_ms(failures)
        if error.retry_after_seconds is not None:
            wait_ms = max(wait_ms, error.retry_after_seconds * 1_000)
        return min(wait_ms, remaining_ms)

    def longest_ms(self, timeout_ms: int) -> int:
        """The longest that all counted attempts of one chunk can take when each runs into ``timeout_ms``."""
        waits_ms = sum(self.ceiling_ms(failures) for failures in range(1, self.max_attempts))
        return self.max_attempts * timeout_ms + waits_ms
