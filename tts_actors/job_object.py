"""What a job's actor answers for people who reach it through Python: the Durable Object's methods.

Reads come from the store. Writes belong to a running job and are fenced like every other write: an actor whose job has
been claimed by another since writes nothing. :class:`~tts_actors.job_actor.JobActor` brings the job to its end.
"""

import asyncio
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tts_actors.errors import BadTake, Conflict, InvalidRequest, NotFound, NotReady, StaleEpoch
from tts_actors.models import ChunkResult, ChunkSpan, Clip, JobInput, JobRecord, JobState, Loudness
from tts_actors.protocols import ClipStore, Dispatch, JobStore
from tts_actors.states import TERMINAL
from tts_actors.text import spoken_text

if TYPE_CHECKING:
    from tts_actors.config import AppArgs

MAX_AUDIO_BYTES = 64 * 2**20
"""Longest audio of one chunk that is taken: 20 minutes of WAV."""

MAX_REASON_CHARACTERS = 500
MAX_METADATA = 16
MAX_METADATA_CHARACTERS = (64, 512)
"""Bounds of what is stored in words; of a metadata pair's name and value, as at the job routes."""


@dataclass(frozen=True, slots=True)
class ActorSettings:
    """What a job's actor must know of the configuration: plain values, so that it starts without what checks them."""

    max_activations: int
    max_calls_per_job: int
    ttl_seconds: int

    @classmethod
    def of(cls, args: "AppArgs") -> "ActorSettings":
        """From the whole configuration."""
        limits = args.limits
        return cls(limits.max_activations, limits.max_calls_per_job, args.retention.ttl_seconds)


@dataclass(frozen=True, slots=True)
class ActorTools:
    """What a job actor needs from outside; made anew in its process, after construction.

    ``open_clips`` is called only by those who bring audio: a job's own audio goes past its actor.
    """

    store: JobStore
    dispatch: Dispatch
    settings: ActorSettings
    owner: str
    open_clips: Callable[[], ClipStore]
    now: Callable[[], float] = time.time


class JobObject(ABC):
    """One job under its id. Each method raises :class:`NotFound` if there is no such job."""

    def __init__(self, job_id: str, open_tools: Callable[[], ActorTools]) -> None:
        self._job_id = job_id
        self._open_tools = open_tools
        self._tools: ActorTools | None = None
        self._job: JobRecord | None = None
        self._input: JobInput | None = None
        self._stopped = asyncio.Event()

    async def retrieve(self) -> dict[str, Any]:
        """The job's metadata in the original's words, from the store (contract A, ``/api/tts-job``)."""
        job = await self._stored()
        return {
            "jobId": job.id,
            "status": job.state.value,
            "totalChunks": job.chunk_total,
            "completedChunks": job.chunks_completed,
            "failedChunks": job.chunks_failed,
            "orchestratorTimeoutMs": job.orchestrator_timeout_ms,
            "jobTimeoutMs": job.job_timeout_ms,
        }

    async def retrieve_chunk(self, index: int) -> ChunkResult | None:
        """A chunk's result, or None while there is none."""
        found = await self._warm().store.get_chunk(self._job_id, index)
        return None if found is None else found[1]

    async def store_metadata(self, metadata: Mapping[str, str]) -> None:
        """Replace the running job's ``metadata``: at most 16 pairs of strings of at most 64 and 512 characters."""
        _check_metadata(metadata)
        job, _ = await self._running()
        await self._write(lambda: self._warm().store.set_metadata(job.id, job.epoch, dict(metadata)))

    async def store_chunk(self, index: int, audio: bytes, content_type: str | None = None) -> None:
        """Give the running job a chunk's audio (WAV, MP3, Ogg, FLAC; raw PCM with its ``content_type``).

        It is checked, trimmed and levelled as a backend's answer is. Returns once it is committed. Raises
        :class:`InvalidRequest` for what is not speech of this chunk and :class:`Conflict` if the chunk has a result:
        the first one wins. A call for this chunk that is under way is not broken off; what it brings is dropped.
        """
        job, given = await self._running()
        span = _span(given, index)
        clip = await self._clip(job, given, span, audio, content_type)
        await self._settle(ChunkResult(index, given.plan.timeouts.timeout_ms(span.characters), clip, None, ()))

    async def mark_chunk_failed(self, index: int, reason: str) -> None:
        """Give a chunk of the running job up, for ``reason``; ``on_chunk_failure`` decides what that makes of the job.

        Returns once it is committed. Raises :class:`Conflict` if the chunk has a result already.
        """
        _check_reason(reason)
        _, given = await self._running()
        span = _span(given, index)
        await self._settle(ChunkResult(index, given.plan.timeouts.timeout_ms(span.characters), None, reason, ()))

    async def update_status(self, status: str, reason: str = "ended by its caller") -> str:
        """End the running job as ``cancelled``, or as ``failed`` with ``reason``; returns the status it has then.

        The status that the job has is no change. Any other raises :class:`Conflict`: it follows from the chunks.
        """
        _check_reason(reason)
        job = await self._stored()
        if status == job.state.value:
            return status
        if status not in (JobState.CANCELLED, JobState.FAILED):
            allowed = "cancelled and failed can be set, any other status follows from the chunks"
            raise Conflict(f"a job that is {job.state.value} cannot be set to {status!r:.40}: {allowed}", "status")
        await self._running()
        await self._end(None if status == JobState.CANCELLED else ("failed_by_caller", reason))
        return (await self._stored()).state.value

    async def delete(self) -> None:
        """Remove the job with its text, rows and audio; a running one is cancelled first."""
        job = await self._stored()
        if job.state not in TERMINAL:
            await self._running()
            await self._end(None)
            job = await self._stored()
        claimed_again = self._job is not None and job.epoch != self._job.epoch
        if claimed_again or not await self._warm().store.delete_job(
            job.id, now_ms=int(self._warm().now() * 1_000), epoch=job.epoch
        ):
            raise StaleEpoch("the job has been claimed by another actor meanwhile")
        await self._warm().open_clips().delete_prefix(job.id)

    async def _clip(
        self, job: JobRecord, given: JobInput, span: ChunkSpan, audio: bytes, content_type: str | None
    ) -> Clip:
        if not isinstance(audio, bytes) or not 0 < len(audio) <= MAX_AUDIO_BYTES:
            raise InvalidRequest(f"audio must be 1 to {MAX_AUDIO_BYTES} bytes", "audio")
        text = spoken_text(given.text[span.char_start : span.char_end])

        # Here: few jobs are given audio, and without its libraries an actor starts sooner.
        from tts_actors.audio import prepare_clip, wav_bytes
        from tts_actors.audio.loudness import even_loudness
        from tts_actors.chunk_worker import keep_clip

        def accept() -> bytes:
            pcm = prepare_clip(audio, content_type, text, speed=job.request.speed)
            return wav_bytes(even_loudness(pcm) if job.request.loudness is Loudness.ON else pcm)

        try:
            wav = await asyncio.to_thread(accept)
        except BadTake as error:
            raise InvalidRequest(f"audio is not speech of chunk {span.index}: {error.message}", "audio") from None
        key = f"{job.id}/clips/{span.index:06d}-{hashlib.sha256(wav).hexdigest()[:16]}.wav"
        return await keep_clip(self._warm().open_clips(), key, wav, text)

    async def _running(self) -> tuple[JobRecord, JobInput]:
        """The job that this actor works on. Raises :class:`Conflict` if it has ended, :class:`NotReady` before that."""
        if self._job is not None and self._input is not None and not self._stopped.is_set():
            return self._job, self._input
        job = await self._stored()
        if job.state in TERMINAL:
            raise Conflict(f"the job is {job.state.value}: only a running job can be written to", "status")
        if self._stopped.is_set():
            raise StaleEpoch("another actor owns the job now")
        raise NotReady(f"the job is {job.state.value} and its actor has not begun yet", job.poll_after_ms / 1_000)

    async def _stored(self) -> JobRecord:
        job = await self._warm().store.get_job(self._job_id)
        if job is None:
            raise NotFound("there is no such job", "job_id")
        return job

    def _warm(self) -> ActorTools:
        if self._tools is None:
            self._tools = self._open_tools()
        return self._tools

    @abstractmethod
    async def _write(self, operation: Callable[[], Any]) -> None:
        """Do one write of the running job, in turn with its others; its result is the new version."""

    @abstractmethod
    async def _settle(self, result: ChunkResult) -> None:
        """Take a chunk's result in and commit it."""

    @abstractmethod
    async def _end(self, error: tuple[str, str] | None) -> None:
        """End the running job as failed with ``error``, or as cancelled; returns once that is committed."""


def _span(given: JobInput, index: int) -> ChunkSpan:
    total = len(given.plan.spans)
    if type(index) is not int or not 0 <= index < total:
        raise NotFound(f"the job has chunks 0 to {total - 1}", "index")
    return given.plan.spans[index]


def _check_reason(reason: str) -> None:
    if not isinstance(reason, str) or not 0 < len(reason) <= MAX_REASON_CHARACTERS or "\0" in reason:
        raise InvalidRequest(f"reason must be 1 to {MAX_REASON_CHARACTERS} characters without NUL", "reason")


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if not isinstance(metadata, Mapping) or len(metadata) > MAX_METADATA:
        raise InvalidRequest(f"metadata must be at most {MAX_METADATA} pairs", "metadata")
    for pair in metadata.items():
        for part, longest in zip(pair, MAX_METADATA_CHARACTERS, strict=True):
            if not isinstance(part, str) or len(part) > longest:
                raise InvalidRequest("metadata must be pairs of strings of at most 64 and 512 characters", "metadata")
