"""The original orchestrator's door, ``/api/*``: what its clients call, answered the way they were meant to be."""

import base64
import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse

from deployments.routes import tenant_of
from deployments.schemas import (
    L16,
    ORIGINAL_STATUS,
    DeleteBody,
    InitiateBody,
    RawBody,
    initiate_answer,
    retrieve_answer,
    sentence_mapping,
)
from tts_actors.audio import pcm_of_wav, wav_header
from tts_actors.errors import InvalidRequest, NotReady
from tts_actors.job_service import JobService
from tts_actors.models import SpeechRequest
from tts_actors.single_call import SingleCall

MAX_WAIT_SECONDS = 60.0
"""Longest time a request is held open for a job."""

WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")

JobId = Annotated[str, Query(alias="jobId", min_length=1, max_length=128)]
ChunkIndex = Annotated[int, Query(alias="chunkIndex", ge=0, le=10**9)]


def wait_seconds(prefer: str) -> float:
    """Seconds from ``Prefer: wait=N`` (RFC 7240 section 4.3), at most 60; 0 without it."""
    match = WAIT.search(prefer)
    return min(float(match[1]), MAX_WAIT_SECONDS) if match else 0.0


def original_routes(service: JobService, single_call: SingleCall) -> APIRouter:
    """The router of ``/api/*``."""
    router = APIRouter(prefix="/api", tags=["original"])

    @router.post("/tts-initiate")
    async def initiate(body: InitiateBody, request: Request, prefer: Annotated[str, Header()] = "") -> Any:
        accepted = await service.create(tenant_of(request), body.request(), body.text)
        job = accepted.job
        seconds = wait_seconds(prefer)
        if seconds:
            job = await service.wait(tenant_of(request), job.id, seconds)
        headers = {"Preference-Applied": f"wait={seconds:.0f}"} if seconds else {}
        return JSONResponse(initiate_answer(job, accepted.plan), headers=headers)

    @router.get("/tts-chunk")
    async def chunk(
        request: Request,
        job_id: JobId,
        chunk_index: ChunkIndex,
        format: Annotated[str, Query(max_length=16)] = "l16",
    ) -> Any:
        if format not in ("l16", "wav"):
            raise InvalidRequest("format: must be l16 or wav", "format")
        view, given, job = await service.chunk(tenant_of(request), job_id, chunk_index)
        try:
            pcm = await service.chunk_audio(view, job)
        except NotReady:
            pending = {"status": ORIGINAL_STATUS[job.state], "index": chunk_index, "pollAfterMs": job.poll_after_ms}
            return JSONResponse(pending, 202, {"Retry-After": str(-(-job.poll_after_ms // 1_000))})
        audio = wav_header(len(pcm) // 2) + pcm if format == "wav" else pcm
        return JSONResponse(
            {
                "audioContentBase64": base64.b64encode(audio).decode(),
                "mimeType": "audio/wav" if format == "wav" else L16,
                "index": chunk_index,
                "status": ORIGINAL_STATUS[job.state],
                "sentenceMapping": sentence_mapping(given.plan.marks, chunk_index),
                "timeoutMs": view.result.timeout_ms if view.result else None,
            }
        )

    @router.get("/tts-job")
    async def retrieve(request: Request, job_id: JobId) -> Any:
        job, given = await service.input(tenant_of(request), job_id)
        return JSONResponse(retrieve_answer(job, given, await service.chunks(tenant_of(request), job_id)))

    @router.post("/tts-delete")
    async def delete(body: DeleteBody, request: Request) -> Any:
        await service.delete(tenant_of(request), body.jobId)
        return JSONResponse({"jobId": body.jobId, "deleted": True})

    _add_raw(router, service, single_call)
    return router


def _add_raw(router: APIRouter, service: JobService, single_call: SingleCall) -> None:
    @router.post("/rawtts")
    async def raw(body: RawBody, request: Request) -> Any:
        speech = SpeechRequest(model=body.model, voice=body.voiceId)
        await service.charge(tenant_of(request), len(body.text))
        wav, timeout_ms = await single_call.speak(speech, body.text)
        pcm = pcm_of_wav(wav).tobytes()
        return JSONResponse(
            {"audioContentBase64": base64.b64encode(pcm).decode(), "mimeType": L16, "timeoutMs": timeout_ms}
        )
