"""What clients ask before they speak: which models there are, which voices."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from tts_actors.backends.catalog import Catalog
from tts_actors.errors import ModelNotFound

OWNER = "tts-actors"
CREATED = 1_767_225_600
"""OpenAI's list wants a time for every model; ours are configured, not created: the first day of 2026."""

ModelName = Annotated[str | None, Query(max_length=128)]


def discovery_routes(catalog: Catalog, prefix: str) -> APIRouter:
    """The routers of ``PREFIX/models`` and ``PREFIX/audio/...``."""
    router = APIRouter(prefix=prefix, tags=["discovery"], include_in_schema=bool(prefix))

    @router.get("/models")
    async def models() -> Any:
        return JSONResponse({"object": "list", "data": [_model(catalog, name) for name in catalog.models()]})

    @router.get("/models/{model_id:path}")
    async def model(model_id: str) -> Any:
        _require(catalog, model_id)
        return JSONResponse(_model(catalog, model_id))

    @router.get("/audio/models")
    async def audio_models() -> Any:
        return JSONResponse({"models": [{"id": name, "name": name} for name in catalog.models()]})

    @router.get("/audio/voices")
    async def voices(model: ModelName = None, legacy: bool = False) -> Any:
        if model is not None:
            _require(catalog, model)
        names = catalog.voices(model)
        return JSONResponse({"voices": names if legacy else [_voice(name) for name in names]})

    return router


def _require(catalog: Catalog, model: str) -> None:
    """Raise :class:`ModelNotFound` unless a backend answers to this name."""
    if not catalog.has_model(model):
        raise ModelNotFound(
            f"no backend has the model {model[:64]!r}; there are: {', '.join(catalog.models())}", "model"
        )


def _model(catalog: Catalog, name: str) -> dict[str, Any]:
    voices = [{"name": voice, "language": None} for voice in catalog.voices(name)]
    return {"id": name, "object": "model", "created": CREATED, "owned_by": OWNER, "voices": voices}


def _voice(name: str) -> dict[str, Any]:
    return {"id": name, "name": name, "language": None}
