"""Every error this package raises on purpose, and whether trying again can help.

All of them cross process borders: each constructor hands *all* of its arguments to
``Exception.__init__``, so ``pickle`` (and with it Ray) rebuilds the same object on the other side.
Messages are written for the caller: they name the field, what is wrong with the value and the bound.
They never carry text of a job, audio, keys or tracebacks.
"""

from typing import ClassVar


class TtsError(Exception):
    """Root of all errors. ``code`` is stable and machine-readable, ``retryable`` says if a repeat can help."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return self.message


class ConfigError(TtsError):
    """The configuration cannot work; ``param`` is the dotted path of the field."""

    code = "invalid_config"


class InvalidRequest(TtsError):
    """A value is missing, of the wrong kind or out of bounds."""

    code = "invalid_request"


class UnknownField(InvalidRequest):
    """A field that this route does not know (job routes reject them: a typo must not be ignored)."""

    code = "unknown_field"


class RequestTooLarge(TtsError):
    """Beyond a configured bound; the message names the bound."""

    code = "too_large"


class Unauthorized(TtsError):
    """No key, or a key that is not known."""

    code = "invalid_api_key"


class NotFound(TtsError):
    """No such job, chunk or route (another tenant's job is not found either)."""

    code = "not_found"


class ModelNotFound(NotFound):
    """No backend has this model."""

    code = "model_not_found"


class VoiceNotFound(NotFound):
    """No backend has this voice."""

    code = "voice_not_found"


class JobExpired(TtsError):
    """The job's time to live is over and its audio is gone."""

    code = "expired"


class ChunkFailed(TtsError):
    """The chunk failed for good; the message carries the reason."""

    code = "chunk_failed"


class Conflict(TtsError):
    """The job's state does not allow this."""

    code = "conflict"


class RequestMismatch(Conflict):
    """The id or idempotency key was used before, with another request."""

    code = "request_mismatch"


class HasGaps(Conflict):
    """The audio has gaps and the caller did not ask for them to be filled with silence."""

    code = "has_gaps"


class RetryLater(TtsError):
    """Not now: the same request can succeed after ``retry_after_seconds``."""

    code = "unavailable"
    retryable = True

    def __init__(self, message: str, retry_after_seconds: float = 1.0, param: str | None = None) -> None:
        Exception.__init__(self, message, retry_after_seconds, param)
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.param = param


class NotReady(RetryLater):
    """The job is not finished yet."""

    code = "not_ready"


class QueueFull(RetryLater):
    """More jobs wait than ``limits.max_queued_jobs`` allows."""

    code = "queue_full"


class LimitExceeded(RetryLater):
    """The key has used up what one of ``limits.per_key`` allows; ``param`` is the limit's name."""

    code = "rate_limit_exceeded"


class StoreUnavailable(RetryLater):
    """The job store or the clip store does not answer."""

    code = "store_unavailable"


class NewerJob(RetryLater):
    """A newer version of the service has accepted the job; this one cannot tell what it means."""

    code = "newer_version"


class DirectoryUnavailable(RetryLater):
    """The job directory is being restarted; nothing is lost meanwhile."""

    code = "directory_unavailable"


class Draining(RetryLater):
    """The service takes no new work, because somebody has said so; what it has accepted is kept."""

    code = "draining"


class PoolRestarted(RetryLater):
    """The backend pool is another one than the asker's leases are from; once they are reported it will grant again."""

    code = "pool_restarted"


class BackendsUnavailable(RetryLater):
    """No backend could be reached, or all of them were overloaded or failing."""

    code = "backends_unavailable"


class StaleEpoch(TtsError):
    """Another actor owns the job now: whoever sees this must stop at once and write nothing more."""

    code = "stale_epoch"


class BackendError(TtsError):
    """One attempt at a backend failed.

    ``kind`` is one of ``connect`` (nobody was there), ``tls`` (somebody was, but who?), ``disconnect``, ``timeout``,
    ``status``, ``reply_too_large``, ``bad_take``, ``cancelled``;
    ``status`` is the HTTP status if there was one; ``may_retry`` says whether another attempt can help;
    ``retry_after_seconds`` is what the backend asked for, if it asked.
    """

    code = "backend_error"

    def __init__(
        self,
        message: str,
        kind: str = "status",
        status: int | None = None,
        may_retry: bool = True,
        retry_after_seconds: float | None = None,
    ) -> None:
        Exception.__init__(self, message, kind, status, may_retry, retry_after_seconds)
        self.message = message
        self.param = None
        self.kind = kind
        self.status = status
        self.may_retry = may_retry
        self.retry_after_seconds = retry_after_seconds


class BadTake(BackendError):
    """The backend answered, but what it sent is not speech of this text (empty, silent, cut short, not audio)."""

    code = "bad_take"

    def __init__(self, message: str, may_retry: bool = True) -> None:
        Exception.__init__(self, message, may_retry)
        self.message = message
        self.param = None
        self.kind = "bad_take"
        self.status = None
        self.may_retry = may_retry
        self.retry_after_seconds = None


class HastyTake(BadTake):
    """The take is good but for its length, which is far below what the voice usually needs for such a text."""
