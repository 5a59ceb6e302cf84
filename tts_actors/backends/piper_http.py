"""Piper's own HTTP server: text in, WAV out, no model names."""

import time
from collections.abc import Mapping

import aiohttp

from tts_actors.backends.http import HttpEndpoint, json_of
from tts_actors.config import BackendArgs
from tts_actors.errors import BackendError
from tts_actors.protocols import Reply, Utterance

ANY_VOICE = "default"
"""The name under which the server's own start-up voice is asked for."""

PATHS = ("/synthesize", "/")
"""Where texts are sent: of piper-tts 1.8, and of older versions."""

VOICES_SECONDS = 60.0
"""How long a voice list is believed: the server may be started anew with other voices."""


class PiperHttpBackend:
    """The ``piper_http`` protocol.

    The server answers an unknown voice with its default one, without a word: so the voice is looked up first.
    """

    def __init__(self, args: BackendArgs, session: aiohttp.ClientSession, environ: Mapping[str, str]) -> None:
        self.name = args.name
        self._endpoint = HttpEndpoint(args, session, environ)
        self._paths = PATHS
        self._voices: frozenset[str] = frozenset()
        self._believed_until = 0.0

    async def speak(self, utterance: Utterance) -> Reply:
        body: dict[str, object] = {"text": utterance.text}
        if utterance.voice != ANY_VOICE:
            await self._require(utterance.voice)
            body["voice"] = utterance.voice
        if utterance.speed != 1.0:
            body["length_scale"] = round(1 / utterance.speed, 4)
        return await self._synthesize(body)

    async def _synthesize(self, body: dict[str, object]) -> Reply:
        path, other = self._paths
        try:
            _, headers, payload = await self._endpoint.request("POST", path, body=body)
        except BackendError as error:
            if error.status not in (404, 405):
                raise
            _, headers, payload = await self._endpoint.request("POST", other, body=body)
            self._paths = other, path
        return self._endpoint.reply(headers, payload)

    async def _require(self, voice: str) -> None:
        if voice not in self._voices or time.monotonic() > self._believed_until:
            _, _, payload = await self._endpoint.request("GET", "/voices")
            try:
                self._voices = frozenset(json_of(payload))
            except (ValueError, TypeError) as error:
                raise BackendError("the voice list is not readable", "status") from error
            self._believed_until = time.monotonic() + VOICES_SECONDS
        if voice not in self._voices:
            raise BackendError(f"the server has no voice {voice!r}", "status", 404, False)

    async def check(self) -> None:
        await self._endpoint.request("GET", "/voices")
