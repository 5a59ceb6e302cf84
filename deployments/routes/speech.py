"""OpenAI's door, ``/v1/audio/speech``: what every client of that API sends, and what it expects back."""

import base64
import json
import math
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field, StrictStr

from deployments.delivery import STREAM_HEADERS, begun, job_headers
from deployments.routes import tenant_of
from deployments.schemas import Name, VoiceBody, require_speech
from tts_actors.audio import MEDIA_TYPES, require_format
from tts_actors.backends.catalog import DEFAULT_VOICE
from tts_actors.models import SpeechRequest
from tts_actors.speech import SpeechDoor

RETRY_COUNT = "x-stainless-retry-count"
"""OpenAI's clients say in it how often they have sent this request before."""

CHARACTERS_PER_TOKEN = 4
"""``usage`` counts tokens, backends count nothing: the usual rule of thumb for English."""


class SpeechBody(BaseModel):
    """Body of ``/v1/audio/speech``; clients send unknown fields (``stream``, ``seed``, ``user``): ignored."""

    model: Name
    input: Annotated[StrictStr, Field(min_length=1)]
    voice: Name | VoiceBody | None = None
    instructions: Annotated[StrictStr, Field(max_length=4_096)] | None = None
    response_format: StrictStr | None = None
    speed: Annotated[float, Field(ge=0.25, le=4.0, allow_inf_nan=False)] | None = None
    stream_format: Literal["audio", "sse"] | None = None

    def request(self) -> SpeechRequest:
        """The request; raises :class:`InvalidRequest` for a format that cannot be written and bad text."""
        fmt = self.response_format or "mp3"
        require_format(fmt)
        require_speech(self.input, "input")
        voice = self.voice.id if isinstance(self.voice, VoiceBody) else self.voice
        return SpeechRequest(
            model=self.model,
            voice=voice or DEFAULT_VOICE,
            response_format=fmt,
            speed=1.0 if self.speed is None else self.speed,
            instructions=self.instructions,
        )


def speech_routes(door: SpeechDoor, prefix: str) -> APIRouter:
    """The router of ``PREFIX/audio/speech``."""
    router = APIRouter(prefix=prefix, tags=["speech"], include_in_schema=bool(prefix))

    @router.post("/audio/speech")
    async def speech(body: SpeechBody, request: Request) -> Response:
        asked = body.request()
        repeated = request.headers.get(RETRY_COUNT, "0") != "0"
        spoken = await door.speak(tenant_of(request), asked, body.input, repeated=repeated)
        audio = await begun(spoken.body)  # no status before the first chunk is in hand
        headers = STREAM_HEADERS | (job_headers(spoken.job) if spoken.job else {})
        if body.stream_format == "sse":
            return StreamingResponse(_events(audio, body.input), headers=headers, media_type="text/event-stream")
        media_type = MEDIA_TYPES[asked.response_format]
        if spoken.job is None:
            return Response(b"".join([block async for block in audio]), headers=headers, media_type=media_type)
        return StreamingResponse(audio, headers=headers, media_type=media_type)

    return router


async def _events(audio: AsyncGenerator[bytes], text: str) -> AsyncGenerator[bytes]:
    sent = 0
    async for block in audio:
        sent += len(block)
        yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(block).decode()})
    given, made = math.ceil(len(text) / CHARACTERS_PER_TOKEN), math.ceil(sent / CHARACTERS_PER_TOKEN)
    usage = {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}
    yield _event({"type": "speech.audio.done", "usage": usage})


def _event(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()
