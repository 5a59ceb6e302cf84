"""The service's job door as methods: create, follow, fetch, stop. Every name is the contract's."""

import time
import uuid
from collections.abc import Iterator
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, Unpack, cast
from urllib.parse import quote

import requests

from tts_actors.client.answers import Job, JobPage
from tts_actors.client.connection import ApiError, Connection, Unreachable
from tts_actors.client.download import Download
from tts_actors.errors import NotReady

JOBS = "/v1/audio/speech/jobs"

DEFAULT_URL = "http://127.0.0.1:8000"

DEFAULT_MODEL = "tts-1"
"""OpenAI's name, which every configured backend answers to with a model of its own."""

PATIENCE_SECONDS = 10.0
"""How long a single request is repeated while the service is away: a restart of its HTTP part takes about that."""

AWAY_SECONDS = 60.0
"""The same for whoever follows a job or fetches its file: a restart of the whole service fits in."""

EARLY_POLL_SECONDS = 0.5
"""Longest pause between two looks at a young job: a person is probably watching."""

POLL_SHARE = 0.05
"""Later a pause may be this share of the time watched so far, until the service's own advice is reached."""

DOWNLOAD_WAIT_SECONDS = 600.0
"""How long a download waits for a file that is not ready: encoding a very long book takes a few minutes."""


class SpeechOptions(TypedDict, total=False):
    """What a job may be told besides its text. What is absent or None is left to the service's defaults."""

    model: str | None
    """A model or alias of the service; DEFAULT_MODEL if absent."""
    voice: str | None
    response_format: str | None
    """mp3 (the default), wav, flac, opus, aac or pcm."""
    speed: float | None
    """0.25 to 4.0."""
    instructions: str | None
    chunking: Literal["sentence", "character_count", "none"] | str | None
    max_characters: int | None
    """Longest chunk, Unicode characters."""
    on_chunk_failure: Literal["fail", "silence"] | str | None
    priority: Literal["interactive", "batch"] | str | None
    language: str | None
    metadata: dict[str, str] | None
    """At most 16 pairs."""
    ttl_seconds: int | None
    """Life of the job and its audio after its end."""


class TtsClient:
    """Talks to one service. Not for several threads at once: give each its own.

    ``timeout_seconds`` bounds each silence of the service within one request, ``patience_seconds`` how long a request
    is repeated while the service is away. All methods raise :class:`ApiError` when the service refuses and
    :class:`Unreachable` when it does not answer, both :class:`~tts_actors.errors.TtsError`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 30.0,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._connection = Connection(url, api_key, timeout_seconds)
        self._patience_seconds = patience_seconds

    @property
    def url(self) -> str:
        """The service's address, without a slash at its end."""
        return self._connection.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the client may be used again and opens new ones."""
        self._connection.close()

    def create(
        self,
        text: str,
        *,
        job_id: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[SpeechOptions],
    ) -> Job:
        """Have ``text`` spoken. When this returns, the job is safe: no restart of anything loses it.

        A request that has to be repeated makes one job all the same: it carries ``idempotency_key`` (by default a fresh
        one for each call), or the ``job_id`` that the caller chose (3 to 64 of ``A-Z a-z 0-9 . _ -``).
        """
        document = speech_document(text, options)
        if job_id is not None:
            return self._job("PUT", _path(job_id), document=document)
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return self._job("POST", JOBS, document=document, headers=headers)

    def plan(self, text: str, **options: Unpack[SpeechOptions]) -> dict[str, Any]:
        """What :meth:`create` would make of ``text``, without making it: chunks, timeouts, estimates."""
        document = speech_document(text, options)
        return self._document("POST", JOBS, document=document, query={"dry_run": "true"})

    def get(self, job_id: str, wait_seconds: float = 0) -> Job:
        """The job; with ``wait_seconds`` (up to 60) as soon as it has ended, or as it is after that time."""
        query = {"wait": wait_seconds} if wait_seconds else None
        return self._job("GET", _path(job_id), query=query, extra_seconds=wait_seconds)

    def list(self, limit: int = 20, after: str | None = None, status: str | None = None) -> JobPage:
        """Up to ``limit`` (1 to 100) jobs, newest first, older than the job ``after``, all of one ``status``."""
        query = {"limit": limit, "after": after, "status": status}
        document = self._document("GET", JOBS, query=query)
        try:
            return JobPage(tuple(Job.from_answer(raw) for raw in document["data"]), bool(document["has_more"]))
        except (KeyError, TypeError, ValueError) as error:
            raise _unexpected(200) from error

    def watch(self, job_id: str, *, away_seconds: float = AWAY_SECONDS) -> Iterator[Job]:
        """The job now, again whenever it has changed, and last as it ended.

        Waits for as long as the job takes. The service may be away meanwhile, for up to ``away_seconds`` at a time. A
        moving ``eta_seconds`` alone is no change.
        """
        began = time.monotonic()
        wait_seconds, seen = 0.0, None
        while True:
            asked = time.monotonic()
            job = self._connection.insist(partial(self._look, job_id, wait_seconds), away_seconds)
            figures = {name: value for name, value in job.raw.items() if name != "eta_seconds"}
            if figures != seen:
                yield job
            if job.ended:
                return
            seen = figures
            time.sleep(max(0.0, wait_seconds - (time.monotonic() - asked)))  # nothing, if the service did wait
            longest_seconds = max(EARLY_POLL_SECONDS, POLL_SHARE * (time.monotonic() - began))
            wait_seconds = min(job.poll_after_ms / 1_000, longest_seconds)

    def wait(self, job_id: str, timeout_seconds: float | None = None) -> Job:
        """The job as it ended. Raises :class:`~tts_actors.errors.NotReady` if that takes longer than the time-out."""
        give_up = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            remaining = 30.0 if give_up is None else give_up - time.monotonic()
            wait_seconds = min(30.0, max(0.0, remaining))
            job = self._connection.insist(partial(self._look, job_id, wait_seconds), AWAY_SECONDS)
            if job.ended:
                return job
            if remaining <= 0:
                raise NotReady(f"the job is {job.status.value} after {timeout_seconds} s", job.poll_after_ms / 1_000)

    def download(
        self,
        job_id: str,
        path: str | PathLike[str],
        *,
        format: str | None = None,
        gaps: Literal["silence"] | None = None,
        wait_seconds: float = DOWNLOAD_WAIT_SECONDS,
    ) -> Path:
        """Write the job's audio to ``path``: the whole file, or after an error no file.

        ``format`` differs from the job's own if given; ``gaps="silence"`` accepts silence in the place of chunks that
        failed. Waits up to ``wait_seconds`` for a file that is not ready, takes broken connections up where they broke.
        Also raises ``OSError`` for a path that cannot be written.
        """
        query = {"format": format, "gaps": gaps}
        download = Download(self._connection, f"{_path(job_id)}/audio", query, patience_seconds=AWAY_SECONDS)
        target = Path(path)
        download.save(target, wait_seconds)
        return target

    def chunks(self, job_id: str) -> tuple[dict[str, Any], ...]:
        """All chunks in text order: span, state, timeout, attempts, backend, reason."""
        document = self._document("GET", f"{_path(job_id)}/chunks")
        if "data" not in document:
            raise _unexpected(200)
        return tuple(document["data"])

    def manifest(self, job_id: str) -> dict[str, Any]:
        """The receipt of an ended job: who spoke what, where it lies in text and audio, and the coverage."""
        return self._document("GET", f"{_path(job_id)}/manifest")

    def cancel(self, job_id: str) -> Job:
        """Stop the job; one that has ended is left as it is."""
        return self._job("POST", f"{_path(job_id)}/cancel")

    def retry(self, job_id: str) -> Job:
        """Speak the failed chunks of an ended job again. Sent once: a second one would be refused."""
        return _job(self._connection.send("POST", f"{_path(job_id)}/retry"))

    def delete(self, job_id: str) -> None:
        """Remove the job and its audio. Sent once: a repeat would find nothing."""
        self._connection.send("DELETE", _path(job_id)).close()

    def backends(self) -> tuple[dict[str, Any], ...]:
        """How the service's speech servers do, one document each (``GET /v1/backends``)."""
        document = self._document("GET", "/v1/backends")
        if "data" not in document:
            raise _unexpected(200)
        return tuple(document["data"])

    def ready(self) -> bool:
        """True if the service can work now; False if it says that it cannot, or does not answer."""
        try:
            self._connection.send("GET", "/readyz").close()
        except (ApiError, Unreachable):
            return False
        return True

    def _look(self, job_id: str, wait_seconds: float) -> Job:
        """One request for the job, without repeats of its own."""
        query = {"wait": round(wait_seconds, 3)} if wait_seconds else None
        return _job(self._connection.send("GET", _path(job_id), query=query, extra_seconds=wait_seconds))

    def _job(self, method: str, path: str, **request: Any) -> Job:
        return self._connection.insist(
            lambda: _job(self._connection.send(method, path, **request)), self._patience_seconds
        )

    def _document(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        return self._connection.insist(
            lambda: _document(self._connection.send(method, path, **request)), self._patience_seconds
        )


def speech_document(text: str, options: SpeechOptions) -> dict[str, Any]:
    """The body of a create request. ``TypeError`` for an option that there is not."""
    unknown = sorted(set(options) - set(SpeechOptions.__annotations__))
    if unknown:
        raise TypeError(f"there is no option {', '.join(unknown)}")
    given = {name: value for name, value in options.items() if value is not None}
    chunking = {
        field: given.pop(option)
        for option, field in (("chunking", "mode"), ("max_characters", "max_characters"))
        if option in given
    }
    document: dict[str, Any] = {"model": DEFAULT_MODEL, "input": text} | given
    return document | {"chunking": chunking} if chunking else document


def _path(job_id: str) -> str:
    if job_id in ("", ".", ".."):  # these would name another route
        raise ApiError(404, "not_found", "there is no such job", "job_id")
    return f"{JOBS}/{quote(job_id, safe='')}"


def _document(response: requests.Response) -> dict[str, Any]:
    with response:
        try:
            document = response.json()
        except ValueError:
            document = None
    if not isinstance(document, dict):
        raise _unexpected(response.status_code)
    return cast("dict[str, Any]", document)


def _job(response: requests.Response) -> Job:
    try:
        return Job.from_answer(_document(response))
    except (KeyError, TypeError, ValueError) as error:
        raise _unexpected(response.status_code) from error


def _unexpected(status: int) -> ApiError:
    return ApiError(status, "unexpected_answer", "the answer is not what this service sends: is the address right?")
