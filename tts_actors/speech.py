"""One request, one answer that is audio: short texts by one call, longer ones by a job that is heard as it is rendered.

Jobs made here belong to their listeners: a job that nobody has listened to for the grace time is cancelled. The same
request within that time is heard from the job that is there, from its start. It must not know HTTP.
"""

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import numpy as np
import structlog

from tts_actors.audio import open_encoder, pcm_of_wav
from tts_actors.config import AppArgs
from tts_actors.errors import BackendError, BackendsUnavailable, Conflict, HasGaps, TtsError
from tts_actors.job_service import JobService
from tts_actors.models import JobPlan, JobRecord, JobState, SpeechRequest
from tts_actors.single_call import SingleCall
from tts_actors.text import sentence_ends

RETRY_AFTER_SECONDS = 2.0
"""When to ask again after all backends have failed: a moment's overload is over by then."""

FIRST_CHARACTERS = 120
"""Longest first chunk of a stream: 8 s of speech, in which the next one, of at most twice that, is rendered."""

WORKING = (JobState.QUEUED, JobState.IN_PROGRESS, JobState.COMPLETED)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Speech:
    """An answer: its audio, and the job behind it if there is one. ``body`` must be closed."""

    body: AsyncGenerator[bytes]
    job: JobRecord | None
    timeout_ms: int


class _Stream:
    """A job of a speech request, and who listens."""

    def __init__(self, key: str, tenant: str, making: "asyncio.Task[JobRecord]") -> None:
        self.key = key
        self.tenant = tenant
        self.making = making
        self.listeners = 0
        self.delivered = False
        self.timer: asyncio.TimerHandle | None = None


class SpeechDoor:
    """Answers speech requests. It keeps nothing that a restart would miss: jobs are durable, streams are not."""

    def __init__(self, args: AppArgs, service: JobService, single_call: SingleCall) -> None:
        self._grace_seconds = args.streams.grace_seconds
        self._max_characters = args.limits.max_characters
        self._service = service
        self._single_call = single_call
        self._streams: dict[str, _Stream] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def speak(self, tenant: str, request: SpeechRequest, text: str, *, repeated: bool) -> Speech:
        """Speak ``text``. ``repeated`` says that the caller has sent this request before and got no whole answer.

        Raises, before any audio, whatever is wrong with the request, and what :func:`door_error` makes of backends'
        faults; the body of a longer text raises at its first block too.
        """
        request = dataclasses.replace(request, patient=False)
        if self._is_one_chunk(request, text):
            return await self._short(tenant, request, text)
        plan = await self._service.plan(request, text, FIRST_CHARACTERS)
        stream = await self._stream(tenant, request, text, plan, repeated=repeated)
        job = await asyncio.shield(stream.making)
        return Speech(self._heard(stream, job, request.response_format), job, job.orchestrator_timeout_ms)

    def _is_one_chunk(self, request: SpeechRequest, text: str) -> bool:
        """Whether a plan of ``text`` would have one chunk; without making one, which takes twice as long."""
        route = self._service.catalog.route(request.model, request.voice)
        if len(text) > min(route.chunk_characters, self._max_characters):
            return False
        return len(sentence_ends(text, request.language or "en")) == 1

    async def _short(self, tenant: str, request: SpeechRequest, text: str) -> Speech:
        await self._service.charge(tenant, len(text))
        try:
            wav, timeout_ms = await self._single_call.speak(request, text)
        except BackendError as error:
            raise door_error(error.message, error.kind, error.status) from error
        pcm = pcm_of_wav(wav)
        encoder = open_encoder(request.response_format)
        return Speech(_once(encoder.feed(np.asarray(pcm)) + encoder.finish()), None, timeout_ms)

    async def _stream(
        self, tenant: str, request: SpeechRequest, text: str, plan: JobPlan, *, repeated: bool
    ) -> _Stream:
        key = _key(tenant, request, text)
        stream = self._streams.get(key)
        if stream is not None and await self._joins(stream, repeated=repeated):
            return stream
        making = asyncio.create_task(self._make(tenant, request, text, plan))
        stream = self._streams[key] = _Stream(key, tenant, making)
        self._left(stream)
        try:
            await asyncio.shield(making)
        except TtsError:
            self._forget(stream)
            raise
        return stream

    async def _make(self, tenant: str, request: SpeechRequest, text: str, plan: JobPlan) -> JobRecord:
        return (await self._service.create(tenant, request, text, plan=plan, opens=True)).job

    async def _joins(self, stream: _Stream, *, repeated: bool) -> bool:
        """If the same request is heard from this stream's job: while it runs, and when the answer did not arrive."""
        stream.listeners += 1  # whoever is about to listen: its job is not abandoned between this and its first block
        try:
            return await self._may_join(stream, repeated=repeated)
        finally:
            stream.listeners -= 1
            self._left(stream)

    async def _may_join(self, stream: _Stream, *, repeated: bool) -> bool:
        try:
            made = await asyncio.shield(stream.making)
            job = await self._service.get(stream.tenant, made.id)
            if job.state is JobState.FAILED:  # only what is missing is spoken again
                await self._service.retry(stream.tenant, job.id)
                return True
        except TtsError:
            return False
        return job.state in WORKING and (repeated or not stream.delivered)

    async def _heard(self, stream: _Stream, job: JobRecord, fmt: str) -> AsyncGenerator[bytes]:
        stream.listeners += 1
        begun = False
        try:
            _, body = await self._service.live(stream.tenant, job.id, fmt, silence_for_gaps=False)
            try:
                async for block in body:
                    begun = True
                    yield block
            finally:
                await body.aclose()
            stream.delivered = True
        except HasGaps as gaps:
            if begun:
                raise
            raise await self._reason(stream.tenant, job.id) from gaps
        finally:
            stream.listeners -= 1
            self._left(stream)

    async def _reason(self, tenant: str, job_id: str) -> TtsError:
        """Why a job ended before its first chunk."""
        job = await self._service.get(tenant, job_id)
        if job.state is JobState.CANCELLED:
            return Conflict("the job was cancelled", "id")
        for view in await self._service.chunks(tenant, job_id):
            if view.result is not None and view.result.clip is None:
                last = view.result.attempts[-1] if view.result.attempts else None
                outcome, status = (last.outcome, last.status) if last else ("timeout", None)
                return door_error(view.result.error or "the chunk failed", outcome, status)
        return BackendError(job.error_message or "the job failed", "timeout", None, False)

    def _left(self, stream: _Stream) -> None:
        """Start the grace time anew if nobody listens."""
        if stream.timer is not None:
            stream.timer.cancel()
        if not stream.listeners and self._streams.get(stream.key) is stream:
            loop = asyncio.get_running_loop()
            stream.timer = loop.call_later(self._grace_seconds, self._abandon, stream)

    def _abandon(self, stream: _Stream) -> None:
        if stream.listeners:
            return
        if (
            stream.making.done()
            and not stream.making.exception()
            and self._service.has_listeners(stream.making.result().id)
        ):
            self._left(stream)  # somebody hears it through the job door
            return
        self._forget(stream)
        task = asyncio.create_task(self._end(stream))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, stream: _Stream) -> None:
        try:
            job = await stream.making
            job = await self._service.cancel(stream.tenant, job.id)
            log.info("stream_abandoned", job_id=job.id, state=job.state.value)
        except TtsError as error:
            log.warning("stream_not_cancelled", reason=error.message)

    def _forget(self, stream: _Stream) -> None:
        if stream.timer is not None:
            stream.timer.cancel()
        if self._streams.get(stream.key) is stream:
            del self._streams[stream.key]


def door_error(message: str, kind: str, status: int | None) -> TtsError:
    """A backend's last failure as the caller's: :class:`BackendsUnavailable` if a repeat can help."""
    if kind in ("connect", "disconnect") or (kind == "status" and (status in (408, 429) or (status or 0) >= 500)):
        return BackendsUnavailable(f"no backend could speak this: {message}", RETRY_AFTER_SECONDS)
    return BackendError(message, kind, status, False)


def _key(tenant: str, request: SpeechRequest, text: str) -> str:
    """Equal for requests that one synthesis serves: the format is the listener's own."""
    document = dataclasses.replace(request, response_format="").to_json()
    return hashlib.sha256(f"{tenant}\0{document}\0{text}".encode()).hexdigest()


async def _once(data: bytes) -> AsyncGenerator[bytes]:
    yield data
