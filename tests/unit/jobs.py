"""Small jobs, plans and results for tests."""

from tts_actors.models import (
    Attempt,
    Boundary,
    ChunkResult,
    ChunkSpan,
    Clip,
    JobPlan,
    NewJob,
    OnChunkFailure,
    SpeechRequest,
)
from tts_actors.timeouts import TimeoutPolicy

NOW_MS = 1_700_000_000_000


def plan_of(*lengths: int) -> JobPlan:
    """A plan whose chunks have these lengths in characters."""
    spans, start = [], 0
    for index, length in enumerate(lengths):
        boundary = Boundary.END if index == len(lengths) - 1 else Boundary.SENTENCE
        spans.append(ChunkSpan(index, start, start + length, boundary))
        start += length
    policy = TimeoutPolicy()
    return JobPlan(tuple(spans), (), policy.timeout_ms(max(lengths)), 60_000, 250, policy)


def new_job(job_id: str = "job-1", *lengths: int, **changes: object) -> NewJob:
    """A job ready to be committed."""
    plan = plan_of(*(lengths or (10, 20)))
    values: dict[str, object] = {
        "id": job_id,
        "tenant": "",
        "request": SpeechRequest(model="m", voice="v", on_chunk_failure=OnChunkFailure.FAIL),
        "text": "x" * plan.spans[-1].char_end,
        "plan": plan,
        "created_at_ms": NOW_MS,
    }
    return NewJob(**{**values, **changes})  # type: ignore[arg-type]


def spoken(index: int, timeout_ms: int = 10_350, samples: int = 2_400) -> ChunkResult:
    """A chunk with a clip."""
    clip = Clip(f"job-1/clips/{index:06d}.wav", samples, f"{index:064x}")
    return ChunkResult(index, timeout_ms, clip, None, (Attempt("a", "ok", 5),))


def failed(index: int, timeout_ms: int = 10_350, reason: str = "no voice") -> ChunkResult:
    """A chunk that failed for good."""
    return ChunkResult(index, timeout_ms, None, reason, (Attempt("a", "status", 5, 400, reason),))
