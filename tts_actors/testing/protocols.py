"""How each protocol asks for speech and how it answers. No faults of time or connection here: see ``fake_backend``."""

import base64
import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tts_actors.audio.encoders import MEDIA_TYPES
from tts_actors.models import SAMPLE_RATE_HZ
from tts_actors.testing.clips import PIPER_RATE_HZ, clip_bytes, media_type
from tts_actors.testing.faults import Faults

L16_TYPE = f"audio/L16;rate={SAMPLE_RATE_HZ}"
MODELS = ("fake-tts", "tts-1")
VOICES = ("tone", "alloy")

_HTML = "<!doctype html><title>Welcome</title><p>This is not speech.</p>"


class BadBody(Exception):
    """The request's body is not what its protocol asks for."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One speech request, whatever protocol it came through. ``fmt`` is a key of ``MEDIA_TYPES``."""

    protocol: str
    text: str
    fmt: str
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, ready to be sent, delayed, dripped or cut. ``content_type`` is sent as it stands."""

    status: int
    body: bytes
    content_type: str


def parse_ask(protocol: str, body: bytes) -> Ask:
    """Read the request of ``protocol`` (``openai``, ``raw_tts``, ``piper_http``); :class:`BadBody` if it is wrong."""
    try:
        document = json.loads(body)
    except ValueError:
        raise BadBody("the body is not JSON") from None
    if not isinstance(document, dict):
        raise BadBody("the body is not a JSON object")
    field = "input" if protocol == "openai" else "text"
    text = document.get(field)
    if not isinstance(text, str) or not text:
        raise BadBody(f"{field}: a non-empty string is needed")
    if protocol != "openai":
        return Ask(protocol, text, "pcm" if protocol == "raw_tts" else "wav")
    fmt = document.get("response_format", "mp3")
    if fmt not in MEDIA_TYPES:
        raise BadBody(f"response_format: one of {', '.join(MEDIA_TYPES)}")
    speed = document.get("speed", 1)
    if not isinstance(speed, int | float) or not 0.25 <= speed <= 4:
        raise BadBody("speed: a number from 0.25 to 4.0")
    return Ask(protocol, text, fmt, float(speed))


def speech(ask: Ask, faults: Faults, fault: str | None) -> Answer:
    """The 200 that carries the audio of ``ask``, or what ``fault`` makes of it."""
    if fault == "html":
        return Answer(200, _HTML.encode(), "text/html; charset=utf-8")
    if fault == "json_error":
        return _json(200, _error_document(ask.protocol, 200, "the model is not loaded"))
    rate_hz = PIPER_RATE_HZ if ask.protocol == "piper_http" else SAMPLE_RATE_HZ
    seconds = faults.fixed_audio_ms / 1_000 if faults.fixed_audio_ms else None
    text = "" if seconds else ask.text[: faults.speak_at_most]
    audio = clip_bytes(text, ask.fmt, rate_hz=rate_hz, speed=ask.speed, seconds=seconds, fault=fault)
    if ask.protocol != "raw_tts":
        return Answer(200, audio, media_type(ask.fmt, fault))
    mime_type = media_type("mp3", fault) if fault == "wrong_type" else L16_TYPE
    return _json(200, {faults.raw_audio_field: base64.b64encode(audio).decode(), "mimeType": mime_type})


def refusal(protocol: str, status: int, message: str) -> Answer:
    """An error in the protocol's own shape."""
    if protocol == "piper_http":
        return Answer(status, message.encode(), "text/plain; charset=utf-8")
    return _json(status, _error_document(protocol, status, message))


def accepted(job_id: str, faults: Faults) -> Answer:
    """raw_tts: the 202 that names a job, in its body unless ``async_id_in`` is ``header``."""
    document = {"status": "processing"}
    if faults.async_id_in != "header":
        document["jobId"] = job_id
    return _json(202, document)


async def list_models(request: web.Request) -> web.Response:
    """``GET /v1/models``."""
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "tts_actors"} for name in MODELS]
    return web.json_response({"object": "list", "data": models})


async def list_voices(request: web.Request) -> web.Response:
    """``GET /v1/audio/voices``."""
    return web.json_response({"voices": [{"id": name, "name": name.title()} for name in VOICES]})


async def list_piper_voices(request: web.Request) -> web.Response:
    """``GET /voices``: a map, as Piper's HTTP server sends it."""
    voice = {"audio": {"sample_rate": PIPER_RATE_HZ}, "num_speakers": 1, "language": {"code": "en_US"}}
    return web.json_response(dict.fromkeys(VOICES, voice))


def _error_document(protocol: str, status: int, message: str) -> dict[str, Any]:
    if protocol == "raw_tts":
        return {"error": message, "code": str(status)}
    kind = "invalid_request_error" if 400 <= status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": str(status)}}


def _json(status: int, document: dict[str, Any]) -> Answer:
    return Answer(status, json.dumps(document).encode(), "application/json")
