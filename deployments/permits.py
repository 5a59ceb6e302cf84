"""A browser's permit to hear one job: ``<audio src>`` and download links cannot send a key.

Who has the key asks for the permit with it and gets a cookie: for one job, for reading alone, for an hour. So the key
never goes into a URL, and what is in the cookie opens nothing else. Nothing is stored: the cookie carries its end and a
seal that only the service can make (see :meth:`~deployments.keys.Keys.seal`).
"""

import re
import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from deployments.keys import Keys

COOKIE = "tts-listen"

LIFE_SECONDS = 3_600
"""The page renews it while it plays."""

JOBS = "/v1/audio/speech/jobs"
PATH = re.compile(re.escape(JOBS) + r"/([A-Za-z0-9._-]+)/(?:audio|captions\.(?:srt|vtt|json)|manifest)\Z")
VALUE = re.compile(r"(\d{1,12})\.([0-9a-f]{64})\Z")


class Permits:
    """Gives permits out and reads them; ``now`` tells the seconds since 1970."""

    def __init__(self, keys: Keys, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._now = now

    def grant(self, request: Request, job_id: str, response: Response) -> None:
        """Put a permit for the job on the response; nothing if the service has no keys."""
        ends = int(self._now()) + LIFE_SECONDS
        seal = self._keys.seal(request.headers, _message(job_id, ends))
        if seal is None:
            return
        response.set_cookie(
            COOKIE,
            f"{ends}.{seal}",
            max_age=LIFE_SECONDS,
            path=f"{JOBS}/{job_id}",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def tenant(self, scope: Scope) -> str | None:
        """Whose permit the request carries, if it asks for what a permit opens and sends no key of its own."""
        path = PATH.match(scope["path"])
        if path is None or scope["method"] not in ("GET", "HEAD"):
            return None
        request = Request(scope)
        value = VALUE.match(request.cookies.get(COOKIE, ""))
        if value is None or {"authorization", "api-key"} & set(request.headers.keys()):
            return None
        if int(value[1]) <= self._now():
            return None
        return self._keys.sealed_by(_message(path[1], int(value[1])), value[2])


def _message(job_id: str, ends: int) -> str:
    return f"{COOKIE}:{job_id}:{ends}"
