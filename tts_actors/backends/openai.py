"""Any server with OpenAI's ``/v1/audio/speech``: asks for WAV, takes whatever container comes back."""

from collections.abc import Mapping

import aiohttp

from tts_actors.backends.http import HttpEndpoint
from tts_actors.config import BackendArgs
from tts_actors.protocols import Reply, Utterance


class OpenAiBackend:
    """The ``openai`` protocol. ``url`` ends in ``/v1``."""

    def __init__(self, args: BackendArgs, session: aiohttp.ClientSession, environ: Mapping[str, str]) -> None:
        self.name = args.name
        self._endpoint = HttpEndpoint(args, session, environ)

    async def speak(self, utterance: Utterance) -> Reply:
        body: dict[str, str | float] = {
            "model": utterance.model,
            "input": utterance.text,
            "voice": utterance.voice,
            "response_format": "wav",
        }
        if utterance.speed != 1.0:
            body["speed"] = utterance.speed
        if utterance.instructions:
            body["instructions"] = utterance.instructions
        _, headers, payload = await self._endpoint.request("POST", "/audio/speech", body=body)
        return self._endpoint.reply(headers, payload)

    async def check(self) -> None:
        # Some servers have no model list: any answer of HTTP below 500 shows that one is there.
        await self._endpoint.request("GET", "/models", good=tuple(range(200, 500)))
