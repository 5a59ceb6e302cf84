"""The original orchestrator's backends: ``/api/rawtts``, answered at once or polled for at ``/api/tts-result``."""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp

from tts_actors.backends.http import HttpEndpoint, json_of
from tts_actors.config import BackendArgs
from tts_actors.errors import BadTake
from tts_actors.protocols import Reply, Utterance

POLL_SECONDS = 1.0
"""Pause between two looks at a pending result (contract A)."""

DEFAULT_TYPE = "audio/L16;rate=24000"
"""What a reply is when neither body nor header says."""


class RawTtsBackend:
    """The ``raw_tts`` protocol; one clock of the caller's covers the call and the polling."""

    def __init__(self, args: BackendArgs, session: aiohttp.ClientSession, environ: Mapping[str, str]) -> None:
        self.name = args.name
        self._endpoint = HttpEndpoint(args, session, environ)

    async def speak(self, utterance: Utterance) -> Reply:
        body = {"text": utterance.text, "model": utterance.model, "voiceId": utterance.voice}
        status, headers, payload = await self._endpoint.request("POST", "/api/rawtts", body=body, good=(200, 202))
        if status == 202:
            job_id = _object(payload).get("jobId") or headers.get("X-Processing-Job-Id")
            if not job_id:
                raise BadTake("202 without a job id")
            headers, payload = await self._poll(str(job_id))
        if headers.get("Content-Type", "").startswith("audio/"):
            return self._endpoint.reply(headers, payload)
        return self._decode(headers, payload)

    async def _poll(self, job_id: str) -> tuple[Mapping[str, str], bytes]:
        path = f"/api/tts-result?jobId={quote(job_id, safe='')}"
        while True:
            status, headers, payload = await self._endpoint.request("GET", path, good=(200, 202, 404))
            if status == 200:
                return headers, payload
            await asyncio.sleep(POLL_SECONDS)

    def _decode(self, headers: Mapping[str, str], payload: bytes) -> Reply:
        document = _object(payload)
        encoded = document.get("audioContentBase64") or document.get("base64Audio")
        if not isinstance(encoded, str):
            raise BadTake("the reply holds no audio")
        try:
            audio = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadTake("the reply's audio is not base64") from error
        declared = document.get("mimeType")
        return Reply(audio, str(declared or DEFAULT_TYPE), self._endpoint.args.raw_rate_hz)

    async def check(self) -> None:
        await self._endpoint.request("GET", "/", good=tuple(range(200, 500)))


def _object(payload: bytes) -> dict[str, Any]:
    try:
        document = json_of(payload) if payload else {}
    except ValueError as error:
        raise BadTake("the reply is neither audio nor JSON") from error
    if not isinstance(document, dict):
        raise BadTake("the reply is not a JSON object")
    return document
