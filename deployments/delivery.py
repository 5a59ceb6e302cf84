"""Audio over HTTP: files, whole or one range, with validators (RFC 9110 sections 13 and 14), and live streams.

A status is sent when the first bytes are in hand, never before: what fails until then gets an error's answer.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from deployments.envelopes import error_response
from tts_actors.errors import NotReady
from tts_actors.models import JobRecord
from tts_actors.outputs import OutputFile

RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)\Z", re.IGNORECASE)

MAX_DIGITS = 18
"""A position of more digits is beyond every file; Python refuses to read one of more than 4,300."""

FIRST_BYTES_SECONDS = 50.0
"""How long a live stream waits for its first chunk: below the minute at which proxies give up."""

STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""For bodies that grow while they are sent: nobody on the way may collect them."""


def job_headers(job: JobRecord) -> dict[str, str]:
    """What tells a client of a stream which job it hears, so that it can come back."""
    return {"X-TTS-Job-Id": job.id, "X-TTS-Orchestrator-Timeout-Ms": str(job.orchestrator_timeout_ms)}


async def begun(body: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The same body, its first block in hand; raises what hinders that. Closing it closes the body."""
    try:
        first = await anext(body, b"")
    except BaseException:
        await body.aclose()
        raise
    return _rest(first, body)


async def _rest(first: bytes, body: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(body):
        yield first
        async for block in body:
            yield block


async def deliver_live(request: Request, body: AsyncGenerator[bytes], media_type: str, job: JobRecord) -> Response:
    """200 with a body that grows as the job is rendered; it breaks off without an end if the job does.

    Raises what ends the job before its first chunk, and :class:`NotReady` when that takes too long.
    """
    headers = STREAM_HEADERS | job_headers(job)
    if request.method == "HEAD":
        await body.aclose()
        return Response(headers=headers, media_type=media_type)
    try:
        async with asyncio.timeout(FIRST_BYTES_SECONDS):
            ready = await begun(body)
    except TimeoutError:
        raise NotReady("nothing of the job is spoken yet", job.poll_after_ms / 1_000) from None
    return StreamingResponse(ready, headers=headers, media_type=media_type)


async def deliver(request: Request, output: OutputFile, file_name: str) -> Response:
    """200 with the file, 206 with the one range asked for, 304 if the caller has it, 416 for a range beyond it.

    Several ranges at once, and what is no range, get the whole file, as the RFC allows.
    """
    etag = f'"{output.etag}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=0, must-revalidate",
        "Content-Disposition": f'inline; filename="{file_name}"',
    }
    if _lists(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    span = _range(_asked(request, etag), output.size)
    start, end = span or (0, output.size)
    if start >= end:
        return error_response(
            request.scope["path"],
            HTTPException(416, f"range: the file has {output.size} bytes", {"Content-Range": f"bytes */{output.size}"}),
        )
    status = 206 if span else 200
    if span:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{output.size}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=output.media_type)
    ready = await begun(output.read(start, end))
    return StreamingResponse(ready, status_code=status, headers=headers, media_type=output.media_type)


def _lists(header: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or "*" in tags


def _asked(request: Request, etag: str) -> str:
    """The Range header as far as it counts: only for GET, and only of the file that If-Range names, if it names one."""
    if request.method != "GET" or request.headers.get("if-range", etag) != etag:
        return ""
    return request.headers.get("range", "")


def _range(asked: str, size: int) -> tuple[int, int] | None:
    """``[start, end)`` of the asked range, empty if it lies beyond the file; None if there is no usable one."""
    match = RANGE.match(asked)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - _number(last)), size
    if last and _number(last) < _number(first):
        return None
    return min(_number(first), size), min(_number(last) + 1, size) if last else size


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= MAX_DIGITS else 10**MAX_DIGITS
