"""Errors as HTTP answers: the status of each kind, and the two shapes that clients expect.

``/api/*`` answers ``{"error": text, "code": ...}``, everything else OpenAI's
``{"error": {message, type, param, code}}``.
"""

import math
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from tts_actors import errors

STATUSES: dict[type[errors.TtsError], int] = {
    errors.InvalidRequest: 400,
    errors.UnknownField: 422,
    errors.Unauthorized: 401,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.RequestMismatch: 422,
    errors.NotReady: 409,
    errors.JobExpired: 410,
    errors.ChunkFailed: 410,
    errors.RequestTooLarge: 413,
    errors.QueueFull: 429,
    errors.LimitExceeded: 429,
    errors.BackendError: 502,
    errors.RetryLater: 503,
}
"""HTTP status by error class; a class without a row has its nearest ancestor's, the rest are 500."""

PLAIN_CODES = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    416: "range_not_satisfiable",
}

PLACES = frozenset({"body", "query", "path", "header"})
"""What FastAPI puts in front of pydantic's locations: where the value stood."""

UNION_ARMS = frozenset({"[key]", "constrained-str", "VoiceBody"})
"""Parts of pydantic's locations, behind the field's name, that no caller wrote."""

MAX_NAME = 128
"""Longest field name that is repeated to the caller: an unknown one may be of any length."""


def status_of(error: errors.TtsError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, errors.BackendError) and error.kind == "timeout":
        return 504
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


def error_response(path: str, error: Exception) -> JSONResponse:
    """The answer to any exception, in the shape that belongs to the path. Unknown ones say nothing of themselves."""
    if isinstance(error, RequestValidationError):
        error = _validation_error(error)
    if isinstance(error, HTTPException) and error.status_code == 400 and error.__cause__ is not None:
        # FastAPI wraps all that happens while it reads a body: our own bounds, broken UTF-8, nesting without end.
        cause = error.__cause__
        error = cause if isinstance(cause, errors.TtsError) else errors.InvalidRequest("the body is not valid JSON")
    if isinstance(error, HTTPException):
        code = PLAIN_CODES.get(error.status_code, "http_error")
        return _answer(path, error.status_code, str(error.detail), code, None, dict(error.headers or {}))
    if not isinstance(error, errors.TtsError):
        return _answer(path, 500, "the service failed to handle this request", "internal_error", None, {})
    status, headers = status_of(error), {}
    if path.startswith("/api/") and isinstance(error, errors.ModelNotFound | errors.VoiceNotFound):
        status = 400  # there 404 means: no such job
    if isinstance(error, errors.RetryLater):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    elif status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (409, 410, 500, 502, 504) and not error.retryable:
        headers["x-should-retry"] = "false"
    return _answer(path, status, error.message, error.code, error.param, headers)


def _answer(
    path: str, status: int, message: str, code: str, param: str | None, headers: dict[str, str]
) -> JSONResponse:
    if path.startswith("/api/"):
        body: dict[str, Any] = {"error": message, "code": code}
    else:
        kind = "invalid_request_error" if status < 500 else "server_error"
        body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status, headers)


def _validation_error(error: RequestValidationError) -> errors.TtsError:
    """The first complaint in one sentence that names the field; the offending value is not repeated."""
    first = error.errors()[0]
    names = [str(part) for part in first["loc"]]
    if names and names[0] in PLACES:
        del names[0]
    names = [*names[:1], *(name for name in names[1:] if name not in UNION_ARMS)]
    param = ".".join(name[:MAX_NAME] for name in names)[:MAX_NAME] or None
    if first["type"] == "json_invalid":
        return errors.InvalidRequest("the body is not valid JSON", None)
    message = f"{param}: {first['msg']}" if param else f"the body: {first['msg']}"
    if first["type"] == "extra_forbidden":
        return errors.UnknownField(f"{param}: this route has no such field", param)
    return errors.InvalidRequest(message, param)
