"""Which protocol is spoken by which adapter."""

from collections.abc import Callable, Mapping

import aiohttp

from tts_actors.backends.openai import OpenAiBackend
from tts_actors.backends.piper_http import PiperHttpBackend
from tts_actors.backends.raw_tts import RawTtsBackend
from tts_actors.config import BackendArgs
from tts_actors.protocols import Backend

_ADAPTERS: dict[str, Callable[[BackendArgs, aiohttp.ClientSession, Mapping[str, str]], Backend]] = {
    "openai": OpenAiBackend,
    "raw_tts": RawTtsBackend,
    "piper_http": PiperHttpBackend,
}


def open_backend(args: BackendArgs, session: aiohttp.ClientSession, environ: Mapping[str, str]) -> Backend:
    """The adapter for one configured backend; its key is read from ``environ`` now."""
    return _ADAPTERS[args.protocol](args, session, environ)
