"""The API's description: FastAPI's own, and which answer's ``id`` is which request's ``job_id`` (OpenAPI links)."""

from typing import Any

from fastapi import FastAPI

JOBS = "/v1/audio/speech/jobs"


def describe(api: FastAPI) -> None:
    """Give ``/openapi.json`` a link from making a job to every route about one, so that tools can follow jobs."""
    plain = api.openapi

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            _link(plain())
        return plain()

    api.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way


def _link(document: dict[str, Any]) -> None:
    paths = document["paths"]
    made: dict[str, Any] = paths.get(JOBS, {}).get("post", {}).get("responses", {}).get("202", {})
    links = made.setdefault("links", {})
    for path, operations in paths.items():
        for operation in operations.values() if "{job_id}" in path else ():
            links[operation["operationId"]] = {
                "operationId": operation["operationId"],
                "parameters": {"path.job_id": "$response.body#/id"},
            }
