"""Request bodies as clients send them, and answers as they get them. Names are the contract's, to the letter."""

import re
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictStr

from tts_actors.audio import require_format
from tts_actors.backends.catalog import DEFAULT_VOICE
from tts_actors.errors import InvalidRequest
from tts_actors.models import (
    SAMPLE_RATE_HZ,
    ChunkingMode,
    JobInput,
    JobPlan,
    JobRecord,
    JobState,
    Loudness,
    OnChunkFailure,
    Priority,
    SentenceMark,
    SpeechRequest,
)
from tts_actors.outputs import Segment
from tts_actors.states import TERMINAL
from tts_actors.text import check_lexicon
from tts_actors.text.lexicon import MAX_ENTRIES, MAX_SAY_CHARACTERS, MAX_TEXT_CHARACTERS
from tts_actors.views import ChunkView

L16 = f"audio/L16;rate={SAMPLE_RATE_HZ}"
"""What the original's door delivers: little-endian s16, whatever RFC 2586 says of L16's byte order."""

Name = Annotated[StrictStr, Field(min_length=1, max_length=128)]
SPLITTING = {
    "sentence": ChunkingMode.SENTENCE,
    "characterCount": ChunkingMode.CHARACTER_COUNT,
    "none": ChunkingMode.NONE,
}
ORIGINAL_STATUS = {
    JobState.QUEUED: "processing",
    JobState.IN_PROGRESS: "processing",
    JobState.COMPLETED: "complete",
    JobState.COMPLETED_WITH_GAPS: "partial_success",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.EXPIRED: "failed",
}

SAYABLE = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]")
"""A character that ``spoken_text`` keeps; looking for one costs nothing, making the spoken text of a book 30 ms."""


def require_speech(text: str, field: str) -> None:
    """Raise :class:`InvalidRequest`, in the words of the field, for text that cannot be stored or has nothing to say.

    (Lone surrogates never come this far: pydantic takes no such string.)
    """
    nul = text.find("\x00")
    if nul >= 0:
        raise InvalidRequest(f"{field} has a NUL character at character {nul}", field)
    if SAYABLE.search(text) is None:
        raise InvalidRequest(f"{field} has only whitespace and control characters", field)


class InitiateBody(BaseModel):
    """Body of ``/api/tts-initiate``; unknown fields are ignored, as the original did."""

    text: Annotated[StrictStr, Field(min_length=1, validation_alias=AliasChoices("text", "fullText"))]
    voiceId: Name
    model: Name
    splittingPreference: StrictStr = "sentence"
    speed: Annotated[float, Field(ge=0.25, le=4.0, strict=True)] = 1.0
    language: Annotated[StrictStr, Field(max_length=35)] | None = None

    def request(self) -> SpeechRequest:
        """The job's request: every chunk is tried, gaps are reported (the original's ``partial_success``)."""
        if self.splittingPreference not in SPLITTING:
            names = ", ".join(SPLITTING)
            raise InvalidRequest(f"splittingPreference: must be one of {names}", "splittingPreference")
        require_speech(self.text, "text")
        return SpeechRequest(
            model=self.model,
            voice=self.voiceId,
            response_format="wav",
            speed=self.speed,
            chunking_mode=SPLITTING[self.splittingPreference],
            on_chunk_failure=OnChunkFailure.SILENCE,
            language=self.language,
        )


class RawBody(BaseModel):
    """Body of ``/api/rawtts``."""

    text: Annotated[StrictStr, Field(min_length=1, validation_alias=AliasChoices("text", "fullText"))]
    voiceId: Name
    model: Name


class DeleteBody(BaseModel):
    """Body of ``/api/tts-delete``."""

    jobId: Annotated[StrictStr, Field(min_length=1, max_length=128)]


class VoiceBody(BaseModel):
    """OpenAI's second way to write a voice."""

    model_config = ConfigDict(extra="forbid")
    id: Name


class ChunkingBody(BaseModel):
    """How the text is cut."""

    model_config = ConfigDict(extra="forbid")
    mode: ChunkingMode = ChunkingMode.SENTENCE
    max_characters: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = None


class LexiconEntry(BaseModel):
    """One pronunciation: where the text says ``text``, backends are asked to speak ``say``."""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[StrictStr, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
    say: Annotated[StrictStr, Field(min_length=1, max_length=MAX_SAY_CHARACTERS)]


class JobBody(BaseModel):
    """Body of ``POST /v1/audio/speech/jobs``. A field that is not here is refused: a typo must not be ignored."""

    model_config = ConfigDict(extra="forbid")

    model: Name
    input: Annotated[StrictStr, Field(min_length=1)]
    voice: Name | VoiceBody | None = None
    instructions: Annotated[StrictStr, Field(max_length=4_096)] | None = None
    response_format: StrictStr = "mp3"
    speed: Annotated[float, Field(ge=0.25, le=4.0, strict=True)] = 1.0
    stream_format: Literal["audio", "sse"] = "audio"
    chunking: ChunkingBody = ChunkingBody()
    on_chunk_failure: OnChunkFailure = OnChunkFailure.FAIL
    priority: Priority = Priority.INTERACTIVE
    language: Annotated[StrictStr, Field(max_length=35)] | None = None
    metadata: Annotated[
        dict[Annotated[StrictStr, Field(max_length=64)], Annotated[StrictStr, Field(max_length=512)]],
        Field(max_length=16),
    ] = {}
    ttl_seconds: Annotated[int, Field(ge=1, le=31_536_000, strict=True)] | None = None
    lexicon: Annotated[list[LexiconEntry], Field(max_length=MAX_ENTRIES)] = []
    loudness: Loudness = Loudness.AUTO

    @property
    def names_format(self) -> bool:
        """If the caller said which file is wanted: then one will be asked for."""
        return "response_format" in self.model_fields_set

    def request(self) -> SpeechRequest:
        """The job's request; raises :class:`InvalidRequest` for a format that cannot be written and bad text."""
        require_format(self.response_format)
        require_speech(self.input, "input")
        lexicon = tuple((entry.text, entry.say) for entry in self.lexicon)
        check_lexicon(lexicon)
        voice = self.voice.id if isinstance(self.voice, VoiceBody) else self.voice
        return SpeechRequest(
            model=self.model,
            voice=voice or DEFAULT_VOICE,
            response_format=self.response_format,
            speed=self.speed,
            instructions=self.instructions,
            chunking_mode=self.chunking.mode,
            chunking_max_characters=self.chunking.max_characters,
            on_chunk_failure=self.on_chunk_failure,
            priority=self.priority,
            language=self.language,
            metadata=self.metadata,
            ttl_seconds=self.ttl_seconds,
            lexicon=lexicon,
            loudness=self.loudness,
        )


def job_answer(job: JobRecord, now_ms: int) -> dict[str, Any]:
    """The job object of the job routes."""
    done = job.chunks_completed + job.chunks_failed
    base = f"/v1/audio/speech/jobs/{job.id}"
    error = {"code": job.error_code, "message": job.error_message} if job.error_code else None
    return {
        "id": job.id,
        "object": "audio.speech.job",
        "status": job.state.value,
        "created_at": _seconds(job.created_at_ms),
        "started_at": _seconds(job.started_at_ms),
        "finished_at": _seconds(job.finished_at_ms),
        "expires_at": _seconds(job.expires_at_ms),
        "orchestrator_timeout_ms": job.orchestrator_timeout_ms,
        "job_timeout_ms": job.job_timeout_ms,
        "poll_after_ms": job.poll_after_ms,
        "character_count": job.character_count,
        "chunks": {
            "total": job.chunk_total,
            "completed": job.chunks_completed,
            "failed": job.chunks_failed,
            "in_flight": job.chunks_in_flight,
        },
        "progress": round(done / job.chunk_total, 4),
        "eta_seconds": _eta_seconds(job, now_ms),
        "audio_seconds_ready": round(job.audio_samples / SAMPLE_RATE_HZ, 3),
        "model": job.request.model,
        "voice": job.request.voice,
        "response_format": job.request.response_format,
        "metadata": job.request.metadata,
        "error": error,
        "links": {
            "self": base,
            "audio": f"{base}/audio",
            "events": f"{base}/events",
            "chunks": f"{base}/chunks",
            "captions": f"{base}/captions.vtt",
            "manifest": f"{base}/manifest",
            "cancel": f"{base}/cancel",
        },
    }


def _seconds(at_ms: int | None) -> int | None:
    return None if at_ms is None else at_ms // 1_000


def _eta_seconds(job: JobRecord, now_ms: int) -> float | None:
    """Time left at the pace so far (by characters); None until the first chunk is done, 0 at the end."""
    if job.state in TERMINAL:
        return 0.0
    if job.started_at_ms is None or not job.characters_done:
        return None
    elapsed_seconds = max(1, now_ms - job.started_at_ms) / 1_000
    return round(elapsed_seconds * (job.character_count - job.characters_done) / job.characters_done, 1)


def chunk_answer(view: ChunkView) -> dict[str, Any]:
    """One chunk of the job routes."""
    result = view.result
    return {
        "index": view.span.index,
        "char_start": view.span.char_start,
        "char_end": view.span.char_end,
        "characters": view.span.characters,
        "boundary": view.span.boundary.value,
        "state": view.state.value,
        "timeout_ms": result.timeout_ms if result else None,
        "audio_seconds": round(result.clip.samples / SAMPLE_RATE_HZ, 3) if result and result.clip else None,
        "backend": result.backend if result else None,
        "reason": view.reason,
        "attempts": [
            {
                "backend": attempt.backend,
                "outcome": attempt.outcome,
                "elapsed_ms": attempt.elapsed_ms,
                "status": attempt.status,
                "reason": attempt.reason,
                "parts": attempt.parts,
            }
            for attempt in (result.attempts if result else ())
        ],
    }


def sentence_mapping(marks: tuple[SentenceMark, ...], chunk_index: int | None = None) -> list[dict[str, int]]:
    """Marks in the original's words, of one chunk or of all."""
    return [
        {
            "originalSentenceIndex": mark.sentence_index,
            "chunkIndex": mark.chunk_index,
            "charStart": mark.char_start,
            "charEnd": mark.char_end,
        }
        for mark in marks
        if chunk_index is None or mark.chunk_index == chunk_index
    ]


def initiate_answer(job: JobRecord, plan: JobPlan) -> dict[str, Any]:
    """The answer of ``/api/tts-initiate``."""
    return {
        "jobId": job.id,
        "totalChunks": job.chunk_total,
        "expectedMimeType": L16,
        "chunkLengths": [span.characters for span in plan.spans],
        "sentenceMapping": sentence_mapping(plan.marks),
        "orchestratorTimeoutMs": job.orchestrator_timeout_ms,
        "jobTimeoutMs": job.job_timeout_ms,
        "pollAfterMs": job.poll_after_ms,
        "status": ORIGINAL_STATUS[job.state],
    }


def retrieve_answer(job: JobRecord, given: JobInput, views: list[ChunkView]) -> dict[str, Any]:
    """The answer of ``/api/tts-job``."""
    failed = [view.span.index for view in views if view.state.value == "failed"]
    return {
        "jobId": job.id,
        "totalChunks": job.chunk_total,
        "mimeType": L16,
        "status": ORIGINAL_STATUS[job.state],
        "failedChunkIndices": failed,
        "chunkLengths": [span.characters for span in given.plan.spans],
        "sentenceMapping": sentence_mapping(given.plan.marks),
        "orchestratorTimeoutMs": job.orchestrator_timeout_ms,
        "jobTimeoutMs": job.job_timeout_ms,
        "pollAfterMs": job.poll_after_ms,
        "details": {
            "completedChunks": job.chunks_completed,
            "failedChunks": job.chunks_failed,
            "characterCount": job.character_count,
            "audioSecondsReady": round(job.audio_samples / SAMPLE_RATE_HZ, 3),
            "createdAt": _seconds(job.created_at_ms),
            "finishedAt": _seconds(job.finished_at_ms),
            "error": job.error_message,
        },
    }


def manifest_answer(job: JobRecord, views: list[ChunkView], segments: list[Segment]) -> dict[str, Any]:
    """The receipt: what was spoken by whom, where it lies in the text and in the audio, and what is missing."""
    entries, start = [], 0
    for view, segment in zip(views, segments, strict=True):
        clip = segment.clip
        entries.append(
            chunk_answer(view)
            | {
                "sha256": clip.sha256 if clip else None,
                "audio_start_seconds": round(start / SAMPLE_RATE_HZ, 4),
                "audio_seconds": round(clip.samples / SAMPLE_RATE_HZ, 4) if clip else 0.0,
                "audio_samples": clip.samples if clip else 0,
                "pause_seconds": round(segment.pause_samples / SAMPLE_RATE_HZ, 4),
            }
        )
        start += segment.samples
    covered = sum(view.span.characters for view in views if view.result and view.result.clip)
    return {
        "id": job.id,
        "object": "audio.speech.manifest",
        "status": job.state.value,
        "model": job.request.model,
        "voice": job.request.voice,
        "character_count": job.character_count,
        "coverage": 1.0 if covered == job.character_count else round(covered / job.character_count, 6),
        "gaps": [view.span.index for view in views if not (view.result and view.result.clip)],
        "orchestrator_timeout_ms": job.orchestrator_timeout_ms,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "audio_seconds": round(start / SAMPLE_RATE_HZ, 4),
        "chunks": entries,
    }
