"""Finds out what is true of a speech server: what it speaks, sends back, takes, and bears at once.

Speaks to the one URL that it is given; used by ``tts-actors backends doctor``.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

from tts_actors.audio import decode_take
from tts_actors.audio.containers import Kind, sniff
from tts_actors.audio.takes import check_take
from tts_actors.backends.http import HttpEndpoint, json_of
from tts_actors.backends.openai import OpenAiBackend
from tts_actors.backends.piper_http import PiperHttpBackend
from tts_actors.backends.raw_tts import RawTtsBackend
from tts_actors.backends.voices import voice_names
from tts_actors.config import BackendArgs
from tts_actors.errors import BackendError
from tts_actors.models import SAMPLE_RATE_HZ
from tts_actors.protocols import Backend, Reply, Utterance

Protocol = Literal["openai", "raw_tts", "piper_http"]

PROBES = ("Yes.", "The lamp is lit and the sea is calm tonight.", "At 7:30 on 3 May, 42 ships passed the old tower.")
SENTENCE = "The keeper climbed the stairs while the wind rose and fell. "
LENGTHS = (500, 1_000, 2_000, 4_000)
CONCURRENCIES = (1, 2, 4, 8, 16)
WORTHWHILE_GAIN = 1.15
"""A step up in calls at once that does not give at least this much more is beyond the knee."""

CONTAINERS = frozenset({Kind.WAV, Kind.MP3, Kind.OGG, Kind.FLAC})
"""What audio that was decoded can have come in; else it was raw."""

SHORTENED = 0.75
"""A longer text whose audio has less than this share of the seconds that the text before it gives reason to expect was
not spoken to its end: the pace of long texts hardly differs. Beside the short probes, of whose audio a good part can be
silence around the words, ``SHORTENED_FIRST``."""

SHORTENED_FIRST = 0.45

CALL_SECONDS = 75.0
_ADAPTERS: dict[str, Callable[[BackendArgs, aiohttp.ClientSession, Mapping[str, str]], Backend]] = {
    "openai": OpenAiBackend,
    "raw_tts": RawTtsBackend,
    "piper_http": PiperHttpBackend,
}


@dataclass(slots=True)
class Findings:
    """What was found; ``problems`` are what a person should look at. Times in milliseconds.

    ``model`` and ``voice`` are those that were asked for; None if nothing named any. ``probe_ms`` are of good takes.
    """

    url: str
    protocol: Protocol
    models: list[str] = field(default_factory=list)
    voices: list[str] = field(default_factory=list)
    model: str | None = None
    voice: str | None = None
    container: str | None = None
    content_type: str | None = None
    audio_seconds_per_second: float | None = None
    probe_ms: list[int] = field(default_factory=list)
    streams: bool | None = None
    takes_characters: int | None = None
    cap_found: bool = False
    calls_per_second: dict[int, float] = field(default_factory=dict)
    knee: int | None = None
    problems: list[str] = field(default_factory=list)

    def entry(self, name: str, api_key_env: str | None) -> dict[str, Any]:
        """The configuration that fits: an item of ``backends``."""
        entry: dict[str, Any] = {"name": name, "protocol": self.protocol, "url": self.url}
        if self.model is not None:
            entry["model"] = self.model
        if self.voice is not None:
            entry["voices"] = {"default": self.voice} | {voice: voice for voice in self.voices[:50]}
        entry["max_concurrency"] = self.knee or 2
        if self.takes_characters:
            entry["max_characters"] = self.takes_characters
        return entry | ({"api_key_env": api_key_env} if api_key_env else {})


class Probe:
    """One examination. ``protocol``, ``model`` and ``voice`` are found out unless given."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        key: str | None = None,
        protocol: Protocol | None = None,
        model: str | None = None,
        voice: str | None = None,
    ) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._environ = {"KEY": key} if key else {}
        self._protocol = protocol
        self._model, self._voice = model, voice

    async def run(self, *, limits: bool = True) -> Findings:
        """Speak the probes; with ``limits`` also longer texts and several at once. Raises :class:`BackendError`."""
        protocol, url = await self._find()
        found = Findings(url, protocol)
        await self._list(found)
        found.model = self._model or next(iter(found.models), None)
        found.voice = self._voice or next(iter(found.voices), None)
        paces = [await self._probe(found, text) for text in PROBES]
        if found.protocol == "openai" and found.probe_ms:
            found.streams = await self._streams(found)
        if limits and found.probe_ms:
            await self._find_cap(found, max(paces))
            await self._find_knee(found)
        return found

    def _args(self, protocol: Protocol, url: str) -> BackendArgs:
        return BackendArgs(name="probe", protocol=protocol, url=url, api_key_env="KEY" if self._environ else None)

    async def _find(self) -> tuple[Protocol, str]:
        bases = [self._url] if self._url.endswith("/v1") else [f"{self._url}/v1", self._url]
        for base in bases if self._protocol in ("openai", None) else []:
            if await self._status("openai", base, "POST", "/audio/speech") not in (404, 405):
                return "openai", base
        if self._protocol:
            return self._protocol, self._url
        if await self._status("raw_tts", self._url, "POST", "/api/rawtts") not in (404, 405):
            return "raw_tts", self._url
        if await self._status("piper_http", self._url, "GET", "/voices") == 200:
            return "piper_http", self._url
        raise BackendError("no known protocol is spoken there; name it with --protocol", "status", None, False)

    async def _status(self, protocol: Protocol, base: str, method: str, path: str) -> int:
        """The status of an empty request: enough to see whether the route exists."""
        endpoint = HttpEndpoint(self._args(protocol, base), self._session, self._environ)
        body: dict[str, Any] | None = {} if method == "POST" else None
        async with asyncio.timeout(CALL_SECONDS):
            status, _, _ = await endpoint.request(method, path, body=body, good=tuple(range(100, 600)))
        return status

    async def _list(self, found: Findings) -> None:
        endpoint = HttpEndpoint(self._args(found.protocol, found.url), self._session, self._environ)
        paths = {"openai": ["/audio/voices", "/voices"], "piper_http": ["/voices"], "raw_tts": []}[found.protocol]
        if found.protocol == "openai":
            found.models = voice_names(await self._document(endpoint, "/models"))
        for path in paths:
            found.voices = found.voices or voice_names(await self._document(endpoint, path))

    async def _document(self, endpoint: HttpEndpoint, path: str) -> Any:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                _, _, payload = await endpoint.request("GET", path)
            return json_of(payload)
        except (BackendError, ValueError, TimeoutError):  # many servers have no such list
            return None

    async def _speak(self, found: Findings, text: str) -> Reply:
        backend = _ADAPTERS[found.protocol](self._args(found.protocol, found.url), self._session, self._environ)
        utterance = Utterance(text, found.model or "tts-1", found.voice or "default", 1.0, None, None)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await backend.speak(utterance)
        except TimeoutError:
            raise BackendError(f"no complete reply within {CALL_SECONDS:.0f} s", "timeout") from None

    async def _probe(self, found: Findings, text: str) -> float:
        """Speak it and note what came; characters a second, 0 if nothing good did."""
        began = time.monotonic()
        try:
            reply = await self._speak(found, text)
            pcm = decode_take(reply.body, reply.content_type)
            elapsed = time.monotonic() - began
            kind = sniff(reply.body, declared_raw=True)
            found.container = str(kind) if kind in CONTAINERS else "raw PCM"
            found.content_type = reply.content_type
            check_take(pcm, text)
        except BackendError as error:
            found.problems.append(f"a text of {len(text)} characters: {error.message}")
            return 0.0
        seconds = pcm.size / SAMPLE_RATE_HZ
        found.probe_ms.append(round(elapsed * 1_000))
        found.audio_seconds_per_second = round(seconds / max(elapsed, 1e-6), 1)
        return len(text) / seconds

    async def _streams(self, found: Findings) -> bool | None:
        """Whether audio comes before it is complete: the first bytes in the first half of the time."""
        body = {
            "model": found.model or "tts-1",
            "voice": found.voice or "default",
            "input": SENTENCE * 5,
            "response_format": "wav",
        }
        headers = {"Authorization": f"Bearer {self._environ['KEY']}"} if self._environ else {}
        began, first, total = time.monotonic(), 0.0, 0
        try:
            async with (
                asyncio.timeout(CALL_SECONDS),
                self._session.post(
                    f"{found.url}/audio/speech", json=body, headers=headers, allow_redirects=False
                ) as answer,
            ):
                async for part in answer.content.iter_any():
                    first = first or time.monotonic() - began
                    total += len(part)
                    if total > 64 * 2**20:
                        return None
                streams = answer.content_length is None and first < (time.monotonic() - began) / 2
                return streams if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def _find_cap(self, found: Findings, pace: float) -> None:
        """Longer and longer texts, until one is refused or not spoken to its end; ``pace``: characters a second."""
        least = SHORTENED_FIRST
        for length in LENGTHS:
            text = (SENTENCE * (length // len(SENTENCE) + 1))[:length].rstrip()
            try:
                reply = await self._speak(found, text)
                pcm = decode_take(reply.body, reply.content_type)
                check_take(pcm, text)
                seconds = pcm.size / SAMPLE_RATE_HZ
                if seconds < least * length / pace:
                    raise BackendError(f"only {seconds:.1f} s of audio: not spoken to its end")
            except BackendError as error:
                found.cap_found = True
                found.problems.append(f"a text of {length} characters: {error.message}")
                return
            found.takes_characters, pace, least = length, length / seconds, SHORTENED

    async def _find_knee(self, found: Findings) -> None:
        """Raise the calls at once until that gives nothing any more; two rounds of calls for each step."""
        best = 0.0
        for calls in CONCURRENCIES:
            began = time.monotonic()
            replies = await asyncio.gather(
                *(self._lane(found) for _ in range(calls)),
                return_exceptions=True,
            )
            failures = [reply for reply in replies if isinstance(reply, BaseException)]
            rate = 2 * (calls - len(failures)) / (time.monotonic() - began)
            found.calls_per_second[calls] = round(rate, 2)
            if failures:
                found.problems.append(f"{calls} calls at once: {len(failures)} failed, the first with: {failures[0]}")
            if failures or rate < best * WORTHWHILE_GAIN:
                return
            best, found.knee = rate, calls

    async def _lane(self, found: Findings) -> None:
        for _ in range(2):
            await self._speak(found, PROBES[1])
