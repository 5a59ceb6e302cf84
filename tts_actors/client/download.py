"""A job's file onto the disk: whole or not at all, and a broken connection costs only what was on the wire."""

import os
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import requests

from tts_actors.client.connection import ApiError, Connection, Unreachable, unreachable

READ_BYTES = 64 * 1024
DEFAULT_PAUSE_SECONDS = 1.0
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)\Z")


class Download:
    """One file on its way. ``patience_seconds`` bounds a stretch of failures in which not one byte arrived."""

    def __init__(self, connection: Connection, path: str, query: Mapping[str, Any], *, patience_seconds: float) -> None:
        self._connection = connection
        self._path = path
        self._query = query
        self._patience_seconds = patience_seconds
        self._etag: str | None = None
        self._total: int | None = None

    def save(self, target: Path, wait_seconds: float) -> int:
        """Fetch the file to ``target`` and return its size in bytes.

        The bytes go to a temporary file beside the target, which takes the target's name when they are complete; until
        then, and after any error, the target is what it was. A file that is still being made is waited for, up to
        ``wait_seconds``. Raises :class:`ApiError`, :class:`Unreachable` and ``OSError``.
        """
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            with part.open("xb") as file:
                size = self._fill(file, wait_seconds)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        return size

    def _fill(self, file: BinaryIO, wait_seconds: float) -> int:
        give_up = time.monotonic() + wait_seconds
        while True:
            try:
                received = self._connection.insist(lambda: self._continue(file), self._patience_seconds)
            except ApiError as error:
                pause_seconds = error.retry_after_seconds or DEFAULT_PAUSE_SECONDS
                if error.code != "not_ready" or time.monotonic() + pause_seconds > give_up:
                    raise
                time.sleep(pause_seconds)
                continue
            if file.tell() == self._total:
                return self._total
            if not received:
                raise Unreachable(f"the file should have {self._total} bytes and ends after {file.tell()}")

    def _continue(self, file: BinaryIO) -> int:
        """Ask for what is missing, append it, and say how many bytes came; a break is raised if none did."""
        headers = {"Accept-Encoding": "identity"}
        if self._etag and file.tell():
            headers |= {"Range": f"bytes={file.tell()}-", "If-Range": self._etag}
        try:
            response = self._connection.send("GET", self._path, query=self._query, headers=headers, stream=True)
        except ApiError as error:
            if error.status == 416:  # the file behind the address is another and shorter one now
                self._restart(file)
                raise Unreachable("the file changed while it was fetched") from error
            raise
        received = 0
        with response:
            self._place(file, response)
            try:
                for piece in response.iter_content(READ_BYTES):
                    received += file.write(piece)
            except requests.RequestException as error:
                if not received:
                    raise unreachable(self._connection.url, error) from error
        return received

    def _place(self, file: BinaryIO, response: requests.Response) -> None:
        """Go to where the answer's bytes belong, and learn how many there should be in all."""
        match = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if response.status_code == 206 and match and int(match[1]) == file.tell():
            self._total = int(match[2])
            return
        self._restart(file)
        if response.status_code == 206:
            raise Unreachable("the answer is not the part of the file that was asked for")
        length = response.headers.get("Content-Length", "")
        if not length.isdigit():
            raise ApiError(response.status_code, "unexpected_answer", "the answer does not say how long the file is")
        self._total = int(length)
        self._etag = response.headers.get("ETag")

    def _restart(self, file: BinaryIO) -> None:
        self._etag = None
        file.seek(0)
        file.truncate()
