"""Captions of a job: SubRip, WebVTT and JSON."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response

from deployments.routes import tenant_of
from tts_actors.captions import Cue, Sound, caption_cues, caption_entries, srt, vtt
from tts_actors.job_service import JobService
from tts_actors.models import SAMPLE_RATE_HZ, JobInput
from tts_actors.outputs import Segment
from tts_actors.states import TERMINAL

Job = Annotated[str, Path(max_length=128)]

T = TypeVar("T")

LONG_CHARACTERS = 20_000
"""Captions of longer texts are made in a thread: a book takes some hundred milliseconds."""


def caption_routes(service: JobService) -> APIRouter:
    """The router of ``/v1/audio/speech/jobs/{id}/captions.*``."""
    router = APIRouter(prefix="/v1/audio/speech/jobs", tags=["jobs"])

    async def written(tenant: str, job_id: str, write: Callable[[str, list[Cue]], str], media_type: str) -> Response:
        _, given, segments = await service.layout(tenant, job_id)
        body = await _made(given, lambda: write(given.text, _cues(given, segments)))
        return Response(body, media_type=media_type)

    @router.get("/{job_id}/captions.srt")
    async def captions_srt(job_id: Job, request: Request) -> Any:
        return await written(tenant_of(request), job_id, srt, "application/x-subrip; charset=utf-8")

    @router.get("/{job_id}/captions.vtt")
    async def captions_vtt(job_id: Job, request: Request) -> Any:
        return await written(tenant_of(request), job_id, vtt, "text/vtt; charset=utf-8")

    @router.get("/{job_id}/captions.json")
    async def captions_json(job_id: Job, request: Request) -> Any:
        job, given, segments = await service.layout_so_far(tenant_of(request), job_id)
        entries = await _made(given, lambda: caption_entries(given.text, _cues(given, segments)))
        answer = {
            "id": job.id,
            "object": "audio.speech.captions",
            "status": job.state.value,
            "final": job.state in TERMINAL,
            "audio_seconds": round(sum(segment.samples for segment in segments) / SAMPLE_RATE_HZ, 4),
            "captions": entries,
        }
        headers = {} if answer["final"] else {"Retry-After": str(-(-job.poll_after_ms // 1_000))}
        return JSONResponse(answer, headers=headers)

    return router


async def _made(given: JobInput, make: Callable[[], T]) -> T:
    return make() if len(given.text) < LONG_CHARACTERS else await asyncio.to_thread(make)


def _cues(given: JobInput, segments: list[Segment]) -> list[Cue]:
    sounds, start = [], 0
    for segment in segments:
        sounds.append(Sound(segment.index, start, segment.clip.samples if segment.clip else 0))
        start += segment.samples
    return caption_cues(given.plan.marks, sounds)
