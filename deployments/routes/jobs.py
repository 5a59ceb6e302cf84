"""The job door, ``/v1/audio/speech/jobs``: durable jobs in OpenAI's words."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from deployments.delivery import deliver, deliver_live
from deployments.events import Place, event_response
from deployments.routes import tenant_of
from deployments.schemas import JobBody, chunk_answer, job_answer, manifest_answer
from tts_actors.audio import MEDIA_TYPES, require_format, wav_header
from tts_actors.backends.gauge import BackendFigures
from tts_actors.errors import InvalidRequest, NotFound, NotReady, TtsError
from tts_actors.job_service import JobService
from tts_actors.models import JobRecord, JobState, SpeechRequest
from tts_actors.planning import estimated_audio_seconds, estimated_finish_seconds
from tts_actors.tenancy import JOB_ID

Job = Annotated[str, Path(max_length=128)]
Index = Annotated[int, Path(ge=0, le=10**9)]
Figures = Callable[[], Awaitable[list[BackendFigures]]]

FIGURES_SECONDS = 2.0
"""A plan does not wait longer for the backends' figures: it is told without the time that it may take."""

Format = Annotated[str | None, Query(max_length=16)]


def _answer(job: JobRecord, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(job_answer(job, int(time.time() * 1_000)), status, headers)


def _accepted(job: JobRecord, status: int) -> JSONResponse:
    headers = {
        "Location": f"/v1/audio/speech/jobs/{job.id}",
        "Retry-After": str(-(-job.poll_after_ms // 1_000)),
        "X-TTS-Job-Id": job.id,
        "X-TTS-Orchestrator-Timeout-Ms": str(job.orchestrator_timeout_ms),
    }
    return _answer(job, status, headers)


def _hash(body: JobBody) -> str:
    return hashlib.sha256(body.model_dump_json().encode()).hexdigest()


def job_routes(service: JobService, figures: Figures) -> APIRouter:
    """The router of ``/v1/audio/speech/jobs``; ``figures`` of the backends tell how long a plan may take."""
    router = APIRouter(prefix="/v1/audio/speech/jobs", tags=["jobs"])
    _add_creation(router, service, figures)
    _add_reading(router, service)
    _add_audio(router, service)
    _add_control(router, service)
    return router


def _add_creation(router: APIRouter, service: JobService, figures: Figures) -> None:
    @router.post("", status_code=202)
    async def create(
        body: JobBody,
        request: Request,
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
        dry_run: bool = False,
    ) -> Any:
        if dry_run:
            return await _dry_run(service, body, figures)
        return await _create(service, tenant_of(request), body, idempotency_key=idempotency_key)

    @router.put("/{client_id}", status_code=202)
    async def put(client_id: Job, body: JobBody, request: Request) -> Any:
        if not JOB_ID.match(client_id):
            raise InvalidRequest("client_id: 3 to 64 of A-Z a-z 0-9 . _ -", "client_id")
        return await _create(service, tenant_of(request), body, job_id=client_id)


async def _create(
    service: JobService, tenant: str, body: JobBody, *, job_id: str | None = None, idempotency_key: str | None = None
) -> JSONResponse:
    accepted = await service.create(
        tenant,
        body.request(),
        body.input,
        job_id=job_id,
        idempotency_key=idempotency_key,
        request_hash=_hash(body),
        encode_ahead=body.names_format,
    )
    return _accepted(accepted.job, 202 if accepted.made else 200)


def _add_reading(router: APIRouter, service: JobService) -> None:
    @router.get("")
    async def list_jobs(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=128)] = None,
        status: JobState | None = None,
    ) -> Any:
        if after is not None and not JOB_ID.match(after):
            raise NotFound("no job has the id given as after", "after")
        jobs = await service.list_jobs(tenant_of(request), limit=limit + 1, after=after, state=status)
        now_ms = int(time.time() * 1_000)
        data = [job_answer(job, now_ms) for job in jobs[:limit]]
        return JSONResponse({"object": "list", "data": data, "has_more": len(jobs) > limit})

    @router.get("/{job_id}")
    async def get(job_id: Job, request: Request, wait: Annotated[float, Query(ge=0, le=60)] = 0) -> Any:
        tenant = tenant_of(request)
        return _answer(await service.wait(tenant, job_id, wait) if wait else await service.get(tenant, job_id))

    @router.get("/{job_id}/chunks")
    async def chunks(job_id: Job, request: Request) -> Any:
        views = await service.chunks(tenant_of(request), job_id)
        return JSONResponse({"object": "list", "data": [chunk_answer(view) for view in views]})

    @router.get("/{job_id}/chunks/{index}")
    async def chunk(job_id: Job, index: Index, request: Request) -> Any:
        view, _, _ = await service.chunk(tenant_of(request), job_id, index)
        return JSONResponse(chunk_answer(view))

    @router.get("/{job_id}/events")
    async def events(
        job_id: Job, request: Request, last_event_id: Annotated[str, Header(max_length=64)] = ""
    ) -> Response:
        place = Place(last_event_id)
        job, given, news = await service.events(tenant_of(request), job_id, place.since)
        return event_response(job, given, news, place)

    @router.get("/{job_id}/manifest")
    async def manifest(job_id: Job, request: Request) -> Any:
        job, _, segments = await service.layout(tenant_of(request), job_id)
        return JSONResponse(manifest_answer(job, await service.chunks(tenant_of(request), job_id), segments))


def _add_audio(router: APIRouter, service: JobService) -> None:
    @router.head("/{job_id}/audio", include_in_schema=False)
    @router.get("/{job_id}/audio")
    async def audio(
        job_id: Job,
        request: Request,
        format: Format = None,
        gaps: Format = None,
        live: bool = False,
    ) -> Any:
        if format is not None:
            require_format(format, "format")
        if gaps not in (None, "silence"):
            raise InvalidRequest("gaps: must be silence", "gaps")
        silence = gaps == "silence"
        if live:
            job, body = await service.live(tenant_of(request), job_id, format, silence_for_gaps=silence)
            return await deliver_live(request, body, MEDIA_TYPES[format or job.request.response_format], job)
        job, output = await service.output(tenant_of(request), job_id, format, silence_for_gaps=silence)
        return await deliver(request, output, f"{job.id}.{format or job.request.response_format}")

    @router.get("/{job_id}/chunks/{index}/audio")
    async def chunk_audio(job_id: Job, index: Index, request: Request, format: Format = None) -> Any:
        if format not in (None, "wav", "pcm"):
            raise InvalidRequest("format: a single chunk comes as wav or pcm", "format")
        view, _, job = await service.chunk(tenant_of(request), job_id, index)
        try:
            pcm = await service.chunk_audio(view, job)
        except NotReady:
            pending = chunk_answer(view) | {"poll_after_ms": job.poll_after_ms}
            return JSONResponse(pending, 202, {"Retry-After": str(-(-job.poll_after_ms // 1_000))})
        fmt = format or "wav"
        body = wav_header(len(pcm) // 2) + pcm if fmt == "wav" else pcm
        return Response(body, media_type=MEDIA_TYPES[fmt])


def _add_control(router: APIRouter, service: JobService) -> None:
    @router.post("/{job_id}/cancel", status_code=202)
    async def cancel(job_id: Job, request: Request) -> Any:
        return _answer(await service.cancel(tenant_of(request), job_id), 202)

    @router.post("/{job_id}/retry", status_code=202)
    async def retry(job_id: Job, request: Request) -> Any:
        return _answer(await service.retry(tenant_of(request), job_id), 202)

    @router.delete("/{job_id}", status_code=204)
    async def delete(job_id: Job, request: Request) -> Response:
        await service.delete(tenant_of(request), job_id)
        return Response(status_code=204)


async def _dry_run(service: JobService, body: JobBody, figures: Figures) -> JSONResponse:
    request = body.request()
    plan = await service.plan(request, body.input)
    chunks = [
        {
            "index": span.index,
            "char_start": span.char_start,
            "char_end": span.char_end,
            "characters": span.characters,
            "timeout_ms": plan.timeouts.timeout_ms(span.characters),
        }
        for span in plan.spans
    ]
    return JSONResponse(
        {
            "chunks": chunks,
            "character_count": len(body.input),
            "orchestrator_timeout_ms": plan.orchestrator_timeout_ms,
            "job_timeout_ms": plan.run_timeout_ms,
            "estimated_audio_seconds": round(estimated_audio_seconds(len(body.input), request.speed), 1),
            "estimated_finish_seconds": await _finish_seconds(service, request, len(chunks), figures),
            "warnings": [],
        }
    )


async def _finish_seconds(service: JobService, request: SpeechRequest, chunks: int, figures: Figures) -> float | None:
    usable = service.catalog.route(request.model, request.voice).targets
    try:
        async with asyncio.timeout(FIGURES_SECONDS):
            known = [each for each in await figures() if each.name in usable and each.healthy]
    except (TimeoutError, TtsError):
        return None
    seconds = estimated_finish_seconds(chunks, [(each.limit, each.p50_ms) for each in known if each.p50_ms is not None])
    return None if seconds is None else round(seconds, 1)
