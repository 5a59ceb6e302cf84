"""The HTTP application: routes on one service, behind the edge. It knows neither Ray nor Serve."""

import os
from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Match
from starlette.types import ASGIApp

from deployments.edge import EXPOSED_HEADERS, Edge
from deployments.envelopes import error_response
from deployments.keys import Keys, RequestRate
from deployments.openapi import describe
from deployments.permits import Permits
from deployments.routes.captions import caption_routes
from deployments.routes.discovery import discovery_routes
from deployments.routes.jobs import job_routes
from deployments.routes.listening import listening_routes
from deployments.routes.operations import Check, operation_routes
from deployments.routes.original import original_routes
from deployments.routes.page import page_routes
from deployments.routes.speech import speech_routes
from tts_actors import __version__
from tts_actors.backends.gauge import BackendFigures
from tts_actors.config import AppArgs
from tts_actors.errors import TtsError
from tts_actors.job_service import JobService
from tts_actors.single_call import SingleCall
from tts_actors.speech import SpeechDoor

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")


def build_http_app(
    args: AppArgs,
    service: JobService,
    single_call: SingleCall,
    checks: Mapping[str, Check],
    figures: Callable[[], Awaitable[list[BackendFigures]]],
    *,
    adds_request_id: bool = True,
) -> ASGIApp:
    """All routes of the service as one ASGI application."""
    api = FastAPI(title="tts-actors", version=__version__, redoc_url=None)
    speech = SpeechDoor(args, service, single_call)
    keys = Keys(args.auth, os.environ)
    prefixes = ("/v1", "")  # clients differ in whether their base URL ends in /v1
    for router in (
        *(speech_routes(speech, prefix) for prefix in prefixes),
        original_routes(service, single_call),
        job_routes(service, figures),
        caption_routes(service),
        listening_routes(service, Permits(keys)),
        operation_routes(checks, service.unattended_jobs, args.backends, figures),
        *(discovery_routes(service.catalog, prefix) for prefix in prefixes),
        page_routes(args.limits),
    ):
        # The routes themselves instead of ``include_router``: FastAPI looks through an included router twice a request,
        # which cost 40 % of a small answer (/health: 449 us of CPU, 266 us so).
        api.router.routes += router.routes
    describe(api)
    # Exception too: Starlette would answer what nobody expected in plain text, before the edge hears of it.
    for kind in (TtsError, RequestValidationError, HTTPException, Exception):
        api.add_exception_handler(kind, _handle)
    edge = Edge(
        api,
        keys=keys,
        rate=RequestRate(args.limits.per_key.requests_per_minute),
        max_body_bytes=args.limits.max_body_bytes,
        adds_request_id=adds_request_id,
    )
    if not args.cors_origins:
        return edge
    # Outermost, so that errors of the edge itself carry the headers too.
    return CORSMiddleware(
        edge,
        allow_origins=args.cors_origins,
        allow_methods=METHODS,
        allow_headers=["*"],
        expose_headers=EXPOSED_HEADERS,
    )


async def _handle(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException) and error.status_code == 405:
        error = HTTPException(405, error.detail, {"Allow": ", ".join(_allowed(request))})
    return error_response(request.url.path, error)


def _allowed(request: Request) -> list[str]:
    """The methods of all routes with this path. (Starlette names only those of the first.)"""
    routes = request.app.router.routes
    scopes = ({**request.scope, "method": method} for method in METHODS)
    return [scope["method"] for scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)]
