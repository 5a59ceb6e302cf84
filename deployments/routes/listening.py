"""The permit with which a browser's own means, ``<audio>`` and download links, hear a job of a key."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from deployments.permits import JOBS, Permits
from deployments.routes import tenant_of
from tts_actors.job_service import JobService

Job = Annotated[str, Path(max_length=128)]


def listening_routes(service: JobService, permits: Permits) -> APIRouter:
    """``POST /v1/audio/speech/jobs/{id}/listen``."""
    router = APIRouter(prefix=JOBS, tags=["jobs"])

    @router.post("/{job_id}/listen", status_code=204)
    async def listen(job_id: Job, request: Request) -> Response:
        await service.get(tenant_of(request), job_id)
        response = Response(status_code=204)
        permits.grant(request, job_id, response)
        return response

    return router
