"""Output files over HTTP: whole or one range, with validators (RFC 9110 sections 13 and 14)."""

import re

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tts_actors.outputs import OutputFile

RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")


def deliver(request: Request, output: OutputFile, file_name: str) -> Response:
    """200 with the file, 206 with the one range asked for, 304 if the caller has it, 416 for a range beyond it.

    Several ranges at once get the whole file, as the RFC allows.
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
    asked = request.headers.get("range", "")
    if request.headers.get("if-range", etag) != etag:
        asked = ""
    span = _range(asked, output.size)
    if span is None:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{output.size}"})
    start, end = span
    partial = (start, end) != (0, output.size) or RANGE.match(asked) is not None
    if partial:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{output.size}"
    headers["Content-Length"] = str(end - start)
    status = 206 if partial else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=output.media_type)
    return StreamingResponse(output.read(start, end), status_code=status, headers=headers, media_type=output.media_type)


def _lists(header: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or "*" in tags


def _range(asked: str, size: int) -> tuple[int, int] | None:
    """``[start, end)`` of the asked range, the whole file if there is no usable one, None if it lies beyond."""
    match = RANGE.match(asked.strip())
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        return (size - length, size) if length else None
    start, end = int(first), min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return 0, size
    return (start, end) if start < size else None
