"""Rows of the job store to models and back."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from tts_actors.errors import NewerJob
from tts_actors.models import (
    JOB_FORMAT,
    Attempt,
    ChunkResult,
    Claim,
    Clip,
    JobRecord,
    JobState,
    NewJob,
    Priority,
    SpeechRequest,
)

NEWER_SECONDS = 5.0
"""When to ask again about a newer version's job: in a rolling update the next answer may come from that one."""

PRIORITIES = {Priority.INTERACTIVE: 0, Priority.BATCH: 1}
"""Sort key of the queue: lower goes first."""

_PLAIN_COLUMNS = tuple(f.name for f in dataclasses.fields(JobRecord) if f.name not in {"state", "request"})


def job_row(job: NewJob, wait_ms: int, grace_ms: int) -> dict[str, Any]:
    """The first row of a job that is not claimed yet: queued, its alarm set ``grace_ms`` ahead.

    It may take what its run may take plus ``wait_ms`` in the queue; the deadline is absolute, no restart extends it.
    """
    job_timeout_ms = job.plan.run_timeout_ms + wait_ms
    return {
        "id": job.id,
        "tenant": job.tenant,
        "state": JobState.QUEUED.value,
        "version": 1,
        "epoch": 0,
        "activations": 0,
        "owner": None,
        "next_alarm_at_ms": job.created_at_ms + grace_ms,
        "priority": PRIORITIES[job.request.priority],
        "request": job.request.to_json(),
        "request_hash": job.request_hash,
        "idempotency_key": job.idempotency_key,
        "character_count": len(job.text),
        "chunk_total": len(job.plan.spans),
        "chunks_completed": 0,
        "chunks_failed": 0,
        "chunks_in_flight": 0,
        "audio_samples": 0,
        "characters_done": 0,
        "orchestrator_timeout_ms": job.plan.orchestrator_timeout_ms,
        "job_timeout_ms": job_timeout_ms,
        "run_timeout_ms": job.plan.run_timeout_ms,
        "poll_after_ms": job.plan.poll_after_ms,
        "created_at_ms": job.created_at_ms,
        "started_at_ms": None,
        "finished_at_ms": None,
        "expires_at_ms": None,
        "deadline_at_ms": job.created_at_ms + job_timeout_ms,
        "error_code": None,
        "error_message": None,
        "traceparent": job.traceparent,
        "format": JOB_FORMAT,
    }


def claimed_row(row: dict[str, Any], claim: Claim, now_ms: int) -> dict[str, Any]:
    """The first row of a job that is claimed as it is made."""
    return row | {
        "state": JobState.IN_PROGRESS.value,
        "epoch": 1,
        "activations": 1,
        "owner": claim.owner,
        "started_at_ms": now_ms,
        "next_alarm_at_ms": claim.lease_until_ms,
    }


def job_of(row: Mapping[Any, Any]) -> JobRecord:
    """A row of ``jobs`` as a record. Raises :class:`NewerJob` for one that this code may not understand."""
    if row["format"] > JOB_FORMAT:
        raise NewerJob("the job was accepted by a newer version of this service: ask that one", NEWER_SECONDS)
    plain = {name: row[name] for name in _PLAIN_COLUMNS}
    return JobRecord(state=JobState(row["state"]), request=SpeechRequest.from_json(row["request"]), **plain)


def chunk_row(job_id: str, version: int, result: ChunkResult) -> dict[str, Any]:
    """A result as a row of ``chunks``; ``version`` is the job's version that it came with."""
    clip = result.clip
    return {
        "job_id": job_id,
        "chunk_index": result.index,
        "version": version,
        "timeout_ms": result.timeout_ms,
        "clip_key": clip.key if clip else None,
        "samples": clip.samples if clip else None,
        "sha256": clip.sha256 if clip else None,
        "error": result.error,
        "attempts": json.dumps([dataclasses.astuple(attempt) for attempt in result.attempts]),
    }


def chunk_of(row: Mapping[Any, Any]) -> ChunkResult:
    """The inverse of :func:`chunk_row`."""
    clip = None
    if row["clip_key"] is not None:
        clip = Clip(row["clip_key"], row["samples"], row["sha256"])
    attempts = tuple(Attempt(*values) for values in json.loads(row["attempts"]))
    return ChunkResult(row["chunk_index"], row["timeout_ms"], clip, row["error"], attempts)
