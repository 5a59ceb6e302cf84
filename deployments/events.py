"""A job's news as server-sent events, with ids from which a listener goes on after a break.

One look at the store becomes one block of bytes: every message costs a trip through Serve's proxy. The id of a chunk's
event is ``VERSION-INDEX``, that of the last event of a look ``VERSION``: the rows of one version are committed together
and sent by index, so an id says exactly what its listener has.
"""

import re
import time
from collections.abc import AsyncGenerator
from typing import Any

from sse_starlette import EventSourceResponse, JSONServerSentEvent
from starlette.responses import Response

from deployments.schemas import chunk_answer, job_answer
from tts_actors.errors import JobExpired, NotFound
from tts_actors.live import News
from tts_actors.models import JobInput, JobRecord, JobState
from tts_actors.states import TERMINAL
from tts_actors.views import ChunkView

EVENT_ID = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?\Z")

PING_SECONDS = 15
"""Between two comments on a quiet stream: proxies cut connections that are silent for a minute."""

PROGRESS_FIELDS = ("id", "status", "chunks", "progress", "eta_seconds", "audio_seconds_ready")
"""What of the job goes into a ``progress`` event: what moves."""


class Place:
    """What a listener has seen already, from its ``Last-Event-ID``; what is no id of ours means: nothing."""

    def __init__(self, last_event_id: str) -> None:
        match = EVENT_ID.match(last_event_id.strip())
        self.version = int(match[1]) if match else 0
        self.index = int(match[2]) if match and match[2] is not None else None

    @property
    def since(self) -> int:
        """The last version that was seen whole."""
        return self.version if self.index is None else self.version - 1

    def has(self, version: int, index: int) -> bool:
        """If the listener had this chunk's event."""
        return version == self.version and self.index is not None and index <= self.index


def event_response(job: JobRecord, given: JobInput, news: AsyncGenerator[News], place: Place) -> Response:
    """The stream from ``place`` on; 204, which stops a browser's reconnecting, to who has seen the end."""
    if job.state in TERMINAL and place.index is None and place.version == job.version:
        return Response(status_code=204)
    return EventSourceResponse(_blocks(job, given, news, place), ping=PING_SECONDS)


async def _blocks(job: JobRecord, given: JobInput, news: AsyncGenerator[News], place: Place) -> AsyncGenerator[bytes]:
    told: JobState | None = None
    if job.state not in TERMINAL:
        told = job.state
        yield _event("status", job_answer(job, _now_ms()))
    try:
        async for item in news:
            yield b"".join(_events(item, given, place, told))
            told = item.job.state
    except (NotFound, JobExpired):  # deleted meanwhile: who reconnects is told so
        return
    finally:
        await news.aclose()


def _events(news: News, given: JobInput, place: Place, told: JobState | None) -> list[bytes]:
    job, version = news.job, str(news.job.version)
    spans = given.plan.spans
    events = [
        _event("chunk", chunk_answer(ChunkView(spans[result.index], result, job.state)), f"{came}-{result.index}")
        for came, result in news.results
        if not place.has(came, result.index)
    ]
    answer = job_answer(job, _now_ms())
    changed = job.state is not told
    progress = {name: answer[name] for name in PROGRESS_FIELDS}
    events.append(_event("progress", progress, None if changed else version))
    if changed:
        events.append(_event("status", answer, version))
    return events


def _event(name: str, data: dict[str, Any], event_id: str | None = None) -> bytes:
    return JSONServerSentEvent(data, event=name, id=event_id, sep="\n").encode()


def _now_ms() -> int:
    return int(time.time() * 1_000)
