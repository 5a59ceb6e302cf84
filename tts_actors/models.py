"""The nouns of a job, as layers hand them on and stores keep them: plain frozen data, picklable, without I/O.

What processes only tell each other is in ``messages.py``.

Offsets are Unicode code points into the caller's text, half-open ``[start, end)``. Durations end in ``_ms``
(integers, milliseconds) or ``_samples`` (integers at ``SAMPLE_RATE_HZ``). Times end in ``_at_ms`` and are Unix
milliseconds.
"""

import dataclasses
import functools
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from tts_actors.timeouts import TimeoutPolicy

SAMPLE_RATE_HZ = 24_000
"""Rate of every stored clip and every output: what OpenAI's own PCM has, and what the embedded engine speaks."""

REQUESTS_REMEMBERED = 64
"""Stored requests whose models are kept: most rows of ``jobs`` that are read have one of few, or are read again."""


class ChunkingMode(StrEnum):
    """How text becomes chunks."""

    SENTENCE = "sentence"
    CHARACTER_COUNT = "character_count"
    NONE = "none"


class Boundary(StrEnum):
    """What follows a chunk in the text: it decides the pause behind the chunk."""

    CUT = "cut"  # inside a sentence that was too long for one chunk, where nothing is written
    COMMA = "comma"  # inside a sentence, behind a comma
    CLAUSE = "clause"  # inside a sentence, behind a semicolon, a colon or a dash
    SENTENCE = "sentence"
    QUESTION = "question"  # a sentence that asks or exclaims
    PARAGRAPH = "paragraph"
    END = "end"


_BOUNDARIES = {boundary.value: boundary for boundary in Boundary}
"""By their words: ten thousand of them are looked up when a book's plan is read."""


class JobState(StrEnum):
    """States of a job; the legal moves between them are in ``states.py``."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    COMPLETED_WITH_GAPS = "completed_with_gaps"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class ChunkState(StrEnum):
    """States of a chunk as a caller sees them."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"


class OnChunkFailure(StrEnum):
    """What one permanently failed chunk does to its job."""

    FAIL = "fail"
    SILENCE = "silence"


class Priority(StrEnum):
    """Interactive work goes before batch work."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class Loudness(StrEnum):
    """Whether clips are brought to one loudness. A stored job's is never ``auto``: accepting it settles that."""

    AUTO = "auto"  # on when more than one backend can serve the request
    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class SentenceMark:
    """Part ``[char_start, char_end)`` of sentence ``sentence_index``, spoken in chunk ``chunk_index``."""

    sentence_index: int
    chunk_index: int
    char_start: int
    char_end: int


@dataclass(frozen=True, slots=True)
class ChunkSpan:
    """One chunk of the input: ``[char_start, char_end)``; all spans together are the input, character for character."""

    index: int
    char_start: int
    char_end: int
    boundary: Boundary

    @property
    def characters(self) -> int:
        """Number of Unicode characters in the span: what the timeout is computed from."""
        return self.char_end - self.char_start


@dataclass(frozen=True, slots=True)
class SplitText:
    """The splitter's answer: chunk spans and sentence marks, both in text order."""

    spans: tuple[ChunkSpan, ...]
    marks: tuple[SentenceMark, ...]


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """What the caller asked for, validated and normalised: the part of a job that never changes."""

    model: str
    voice: str
    response_format: str = "mp3"
    speed: float = 1.0
    instructions: str | None = None
    chunking_mode: ChunkingMode = ChunkingMode.SENTENCE
    chunking_max_characters: int | None = None
    on_chunk_failure: OnChunkFailure = OnChunkFailure.FAIL
    priority: Priority = Priority.INTERACTIVE
    language: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    ttl_seconds: int | None = None
    patient: bool = True
    """Whether chunks wait while a backend restarts or loads its model; nobody who listens wants that."""
    lexicon: tuple[tuple[str, str], ...] = ()  # (text, say)
    loudness: Loudness = Loudness.AUTO

    def to_json(self) -> str:
        """Canonical JSON: equal requests give equal strings."""
        # Not ``asdict``, which copies deeply.
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.dumps(values, sort_keys=True, ensure_ascii=False)

    @classmethod
    @functools.lru_cache(maxsize=REQUESTS_REMEMBERED)
    def from_json(cls, document: str) -> Self:
        """The inverse of :meth:`to_json`; fields that a newer version wrote are ignored."""
        values: dict[str, Any] = json.loads(document)
        known = {f.name for f in dataclasses.fields(cls)}
        values = {name: value for name, value in values.items() if name in known}
        for name, kind in (
            ("chunking_mode", ChunkingMode),
            ("on_chunk_failure", OnChunkFailure),
            ("priority", Priority),
            ("loudness", Loudness),
        ):
            if name in values:
                values[name] = kind(values[name])
        values["lexicon"] = tuple((text, say) for text, say in values.get("lexicon", ()))
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of one backend: how it ended and how long it took. ``outcome`` is ``ok`` or an error kind.

    ``parts`` above 1: the text went in so many calls, one after the other, whose takes were joined.
    """

    backend: str
    outcome: str
    elapsed_ms: int
    status: int | None = None
    reason: str | None = None
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Clip:
    """Stored audio of one chunk: mono s16 PCM at ``SAMPLE_RATE_HZ`` in a WAV object, edges trimmed and faded."""

    key: str
    samples: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What a worker returns for one chunk: metadata only. Exactly one of ``clip`` and ``error`` is set.

    ``timeout_ms`` is what :class:`~tts_actors.timeouts.TimeoutPolicy` gave this chunk, failed or not.
    """

    index: int
    timeout_ms: int
    clip: Clip | None
    error: str | None
    attempts: tuple[Attempt, ...]

    @property
    def backend(self) -> str | None:
        """The backend of the last attempt, if any attempt was made."""
        return self.attempts[-1].backend if self.attempts else None


JOB_FORMAT = 1
"""Version of what a stored job means. Raise it when older code could not carry out a job as it was accepted: then it
leaves such jobs alone (``stores/operations.py``) instead of doing something else."""


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What is known of a job before the first backend call; stored with it and never recomputed.

    The timeout policy is part of it: a job keeps the rule it was accepted under, whatever is configured later.
    """

    spans: tuple[ChunkSpan, ...]
    marks: tuple[SentenceMark, ...]
    orchestrator_timeout_ms: int
    run_timeout_ms: int
    poll_after_ms: int
    timeouts: TimeoutPolicy

    def to_json(self) -> str:
        """Compact JSON; a 10,000-chunk plan is about half a megabyte."""
        document = {
            "spans": [(s.char_start, s.char_end, s.boundary) for s in self.spans],
            # Written out: ``astuple`` copies deeply, and took a fifth of the time in which a book is accepted.
            "marks": [(m.sentence_index, m.chunk_index, m.char_start, m.char_end) for m in self.marks],
            "bounds_ms": [self.orchestrator_timeout_ms, self.run_timeout_ms, self.poll_after_ms],
            "timeouts": dataclasses.astuple(self.timeouts),
        }
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_json(cls, document: str) -> Self:
        """The inverse of :meth:`to_json`."""
        values = json.loads(document)
        spans = tuple(
            ChunkSpan(index, start, end, _BOUNDARIES[boundary])
            for index, (start, end, boundary) in enumerate(values["spans"])
        )
        marks = tuple(SentenceMark(*mark) for mark in values["marks"])
        orchestrator_ms, run_ms, poll_ms = values["bounds_ms"]
        return cls(spans, marks, orchestrator_ms, run_ms, poll_ms, TimeoutPolicy(*values["timeouts"]))


@dataclass(frozen=True, slots=True)
class Claim:
    """A job's first claim, made in the very commit that accepts it."""

    owner: str
    lease_until_ms: int


@dataclass(frozen=True, slots=True)
class Quota:
    """What a tenant may have: jobs that wait or run, characters accepted in one day (UTC). None is no limit."""

    active_jobs: int | None = None
    characters_per_day: int | None = None


NO_QUOTA = Quota()


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job about to be committed: into the queue or, with a ``claim``, as running if nobody waits there."""

    id: str
    tenant: str
    request: SpeechRequest
    text: str
    plan: JobPlan
    created_at_ms: int
    idempotency_key: str | None = None
    request_hash: str = ""
    claim: Claim | None = None
    quota: Quota = NO_QUOTA
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One row of the job store: all that a status answer needs, without the text."""

    id: str
    tenant: str
    state: JobState
    version: int
    epoch: int
    activations: int
    request: SpeechRequest
    character_count: int
    chunk_total: int
    chunks_completed: int
    chunks_failed: int
    chunks_in_flight: int
    audio_samples: int
    characters_done: int
    orchestrator_timeout_ms: int
    job_timeout_ms: int
    run_timeout_ms: int
    poll_after_ms: int
    created_at_ms: int
    started_at_ms: int | None
    finished_at_ms: int | None
    expires_at_ms: int | None
    deadline_at_ms: int
    error_code: str | None
    error_message: str | None
    request_hash: str
    traceparent: str | None = None
    """The span that accepted the job, as W3C writes it: every activation continues its trace."""


@dataclass(frozen=True, slots=True)
class JobInput:
    """The heavy half of a job: the caller's text and the plan."""

    text: str
    plan: JobPlan


@dataclass(frozen=True, slots=True)
class JobCounts:
    """The moving figures of a running job, as the ledger counts them (absolute values, never increments)."""

    chunks_completed: int
    chunks_failed: int
    chunks_in_flight: int
    audio_samples: int
    characters_done: int
    orchestrator_timeout_ms: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended: its terminal state, when, until when it is kept, and an error's code and message if any."""

    state: JobState
    finished_at_ms: int
    expires_at_ms: int
    error: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """Jobs waiting in the queue and the sum of their run-time bounds."""

    queued: int
    run_timeout_ms: int
