"""Piper's own HTTP server: text in, WAV out, no model names."""

import json
from collections.abc import Mapping

import aiohttp

from tts_actors.backends.http import HttpEndpoint
from tts_actors.config import BackendArgs
from tts_actors.errors import BackendError
from tts_actors.protocols import Reply, Utterance

ANY_VOICE = "default"
"""The name under which the server's own start-up voice is asked for."""


class PiperHttpBackend:
    """The ``piper_http`` protocol.

    The server answers an unknown voice with its default one, without a word: so the voice is looked up first, once.
    """

    def __init__(self, args: BackendArgs, session: aiohttp.ClientSession, environ: Mapping[str, str]) -> None:
        self.name = args.name
        self._endpoint = HttpEndpoint(args, session, environ)
        self._voices: frozenset[str] | None = None

    async def speak(self, utterance: Utterance) -> Reply:
        body: dict[str, object] = {"text": utterance.text}
        if utterance.voice != ANY_VOICE:
            await self._require(utterance.voice)
            body["voice"] = utterance.voice
        if utterance.speed != 1.0:
            body["length_scale"] = round(1 / utterance.speed, 4)
        _, headers, payload = await self._endpoint.request("POST", "/", body=body)
        return self._endpoint.reply(headers, payload)

    async def _require(self, voice: str) -> None:
        if self._voices is None:
            _, _, payload = await self._endpoint.request("GET", "/voices")
            try:
                self._voices = frozenset(json.loads(payload))
            except (ValueError, TypeError) as error:
                raise BackendError("the voice list is not readable", "status") from error
        if voice not in self._voices:
            raise BackendError(f"the server has no voice {voice!r}", "status", 404, False)

    async def check(self) -> None:
        await self._endpoint.request("GET", "/voices")
