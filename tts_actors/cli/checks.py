"""What ``tts-actors doctor`` looks at: each check gives findings, and none changes anything but one test object.

A finding is ``ok``, a ``note`` (it works, or will once the service has started) or ``wrong``; those two say what to do.
"""

import asyncio
import os
import platform
import resource
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import aiohttp
import requests
from packaging.requirements import Requirement

from tts_actors import __version__
from tts_actors.backends.adapters import open_backend
from tts_actors.backends.http import open_session
from tts_actors.config import AppArgs, BackendArgs
from tts_actors.errors import BackendError, ConfigError, TtsError
from tts_actors.stores.care import JobStoreCare, StoreFacts
from tts_actors.stores.clips import ObjectClipStore, check_clip_url, clip_directory
from tts_actors.stores.engines import POOL_OVERFLOW, POOL_SIZE
from tts_actors.stores.fitness import check_stores, check_writable
from tts_actors.stores.migrate import sqlite_path
from tts_actors.trace_export import check_tracing

BACKEND_SECONDS = 10.0
SERVICE_SECONDS = 10.0

SKEW_MS = 2_000
"""Leases run 10 s and alarms are judged by each machine's own clock: a fifth of that is still harmless."""

OPEN_FILES = 4_096
"""Ray's own advice is 65,536 on a big node; one machine with the default limits needs some hundreds a process."""

BASE_MB = 1_500
SPARE_MB = 100
JOB_MB = 210
"""As in docs/operations.md, "Sizing": Ray with Serve and two engine replicas, a spare actor, a job and its worker."""

LOW_DISK_MB = 2_000
FULL_DISK_MB = 200


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report."""

    check: str
    verdict: Literal["ok", "note", "wrong"]
    message: str
    advice: str = ""


def versions(args: AppArgs | None) -> Iterator[Finding]:
    """Whether the installed packages are those that this version was written for."""
    where = f"tts-actors {__version__}, Python {platform.python_version()}, ray {_installed('ray')}"
    wrong = [problem for problem in map(_misfit, metadata.requires("tts-actors") or []) if problem]
    if wrong:
        yield Finding("versions", "wrong", "; ".join(wrong), "install again from requirements.lock")
    else:
        yield Finding("versions", "ok", where)
    if args and args.store_url.startswith("postgresql") and _installed("asyncpg") is None:
        yield Finding("versions", "wrong", "store_url needs asyncpg", "install the extra: tts-actors[postgres]")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _misfit(requirement: str) -> str | None:
    needed = Requirement(requirement)
    if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
        return None
    found = _installed(needed.name)
    if found is not None and needed.specifier.contains(found, prereleases=True):
        return None
    return f"{needed.name} {found or 'is missing'}, needed {needed.specifier}"


def keys(args: AppArgs, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether anybody may call; keys themselves are never shown. (Whether they are well-formed, the start says.)"""
    auth = args.auth
    if auth.keys_file and not os.access(auth.keys_file, os.R_OK):
        yield Finding("keys", "wrong", f"auth.keys_file: {auth.keys_file} cannot be read", "mend the path or its mode")
    elif auth.keys_file or (auth.keys_env and environ.get(auth.keys_env)):
        yield Finding("keys", "ok", "callers need a key")
    else:
        yield Finding(
            "keys", "note", "no keys: open to this machine alone", f"set {auth.keys_env or 'auth.keys_env'} for others"
        )


async def job_store(args: AppArgs, now_ms: int) -> AsyncIterator[Finding]:
    """Whether the job store opens, has a schema that this code knows, and has a clock like ours."""
    check_stores(args.store_url, "s3://any", nodes=1)
    path = sqlite_path(args.store_url)
    if path is not None and not path.exists():
        yield Finding("store", "note", f"{path} is not there yet", "nothing: the first start makes it")
        return
    care = JobStoreCare(args.store_url)
    try:
        facts = await care.facts()
    finally:
        await care.close()
    yield _schema(facts)
    if facts.newer_jobs:
        message = f"{facts.newer_jobs} unfinished jobs were accepted by a newer version: this one leaves them alone"
        yield Finding("store", "wrong", message, "start the newer version of tts-actors: it carries them out")
    yield _clock(facts, now_ms)
    if facts.max_connections is not None:
        yield _connections(args, facts.max_connections)


def _schema(facts: StoreFacts) -> Finding:
    if facts.newer:
        advice = "start the newer version of tts-actors that has written it, or restore a backup from before"
        return Finding(
            "store", "wrong", f"its schema {facts.revision} is newer than this code ({facts.needed})", advice
        )
    if facts.revision != facts.needed:
        has = f"schema {facts.revision}" if facts.revision else "no schema yet"
        return Finding("store", "note", f"{has}, needed {facts.needed}", "back it up; the next start upgrades it")
    return Finding("store", "ok", f"opens, schema {facts.revision}")


def _clock(facts: StoreFacts, now_ms: int) -> Finding:
    advice = "keep the clocks of all nodes and of the database together (NTP): leases and expiry are judged by them"
    if facts.clock_ms is not None and abs(facts.clock_ms - now_ms) > SKEW_MS:
        apart = (facts.clock_ms - now_ms) / 1_000
        return Finding("clock", "wrong", f"the database's clock is {apart:+.1f} s from this machine's", advice)
    if facts.newest_at_ms is not None and facts.newest_at_ms > now_ms + SKEW_MS:
        ahead = (facts.newest_at_ms - now_ms) / 1_000
        return Finding("clock", "wrong", f"the newest job was made {ahead:.1f} s in this machine's future", advice)
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_ms / 1_000)))


def _connections(args: AppArgs, bound: int) -> Finding:
    needed = POOL_SIZE * (args.limits.max_active_jobs * 2 + args.limits.spare_actors + 2) + POOL_OVERFLOW
    if bound < needed:
        advice = f"raise the server's max_connections to {needed}, or lower limits.max_active_jobs"
        return Finding("limits", "wrong", f"PostgreSQL takes {bound} connections, up to {needed} are needed", advice)
    return Finding("limits", "ok", f"PostgreSQL takes {bound} connections, {needed} are needed")


async def clip_store(args: AppArgs) -> AsyncIterator[Finding]:
    """One object written, read, written again (which must change nothing) and removed."""
    check_clip_url(args.clip_url)
    directory = clip_directory(args.clip_url)
    if directory is not None and not directory.exists():
        if not _can_be_made(directory):
            yield Finding("clips", "wrong", f"{directory} cannot be made", "mend clip_url or the rights above it")
            return
        yield Finding("clips", "note", f"{directory} is not there yet", "nothing: the first start makes it")
        return
    if directory is not None:
        check_writable("postgresql+asyncpg://any/any", args.clip_url)
    clips = ObjectClipStore(args.clip_url)
    prefix = f"doctor-{secrets.token_hex(8)}"
    try:
        await clips.put(f"{prefix}/object", b"first")
        await clips.put(f"{prefix}/object", b"second")
        kept = await clips.get(f"{prefix}/object")
    finally:
        await clips.delete_prefix(prefix)
    if kept == b"first":
        yield Finding("clips", "ok", "written, read, kept against overwriting, removed")
    else:
        advice = "use a store that knows conditional writes (If-None-Match: *)"
        yield Finding("clips", "wrong", "an object that was there has been overwritten", advice)


async def backends(args: AppArgs, environ: Mapping[str, str], own_url: str | None) -> AsyncIterator[Finding]:
    """Whether each speech server answers. ``own_url`` is where the service would be if it is not running now."""
    async with open_session() as session:
        for backend in args.backends:
            if own_url is not None and backend.url.startswith(own_url):
                advice = "nothing: the engine starts with the service"
                yield Finding("backends", "note", f"{backend.name}: is the service's own, which does not run", advice)
            else:
                yield await _ask_backend(backend, session, environ)


async def _ask_backend(backend: BackendArgs, session: aiohttp.ClientSession, environ: Mapping[str, str]) -> Finding:
    started = time.monotonic()
    try:
        async with asyncio.timeout(BACKEND_SECONDS):
            await open_backend(backend, session, environ).check()
    except TimeoutError:
        reason = f"no answer within {BACKEND_SECONDS:.0f} s"
    except BackendError as error:
        if error.status in (401, 403) and backend.api_key_env and not environ.get(backend.api_key_env):
            message = f"{backend.name}: asks for the key in {backend.api_key_env}, which is not set here"
            return Finding("backends", "note", message, "set it for this check too, unless make serve has made it up")
        reason = error.message
    else:
        return Finding("backends", "ok", f"{backend.name}: answers in {(time.monotonic() - started) * 1_000:.0f} ms")
    return Finding("backends", "wrong", f"{backend.name}: {reason}", f"start it, or mend its url ({backend.url})")


def machine(args: AppArgs) -> Iterator[Finding]:
    """Whether this machine has the files, memory and disk that the configured limits may need."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < OPEN_FILES:
        yield Finding("limits", "note", f"{files} open files a process", f"ulimit -n {OPEN_FILES} before the start")
    limits = args.limits
    needed = BASE_MB + JOB_MB * limits.max_active_jobs + SPARE_MB * (limits.max_active_jobs + limits.spare_actors)
    free = _available_mb()
    figures = f"{needed} MB of memory at limits.max_active_jobs {limits.max_active_jobs}; {free} MB are available"
    if free < needed:
        yield Finding("limits", "note", figures, "lower limits.max_active_jobs, or take a bigger machine")
    else:
        yield Finding("limits", "ok", figures)
    for place in (sqlite_path(args.store_url), clip_directory(args.clip_url)):
        if place is not None:
            yield _disk(place)


def _available_mb() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1_024
    return 0


def traces(args: AppArgs) -> Iterator[Finding]:
    """Whether traces can go where they are configured to go; no word if there are none."""
    tracing = args.tracing
    if tracing.exporter == "file" and not _can_be_made(Path(str(tracing.path)).absolute().parent):
        yield Finding(
            "traces", "wrong", f"tracing.path: {tracing.path} cannot be written", "mend the path or its rights"
        )
    elif tracing.exporter == "file":
        yield Finding("traces", "ok", f"go to {tracing.path}")
    elif tracing.exporter == "otlp":
        try:
            check_tracing(tracing)
        except ConfigError as error:
            yield Finding("traces", "wrong", error.message, "install the extra, or set tracing.exporter to null")
        else:
            yield Finding("traces", "ok", f"go to {tracing.endpoint or 'what OTEL_EXPORTER_OTLP_ENDPOINT says'}")


def _nearest(place: Path) -> Path:
    """The place itself or the nearest directory above it that exists."""
    return next(directory for directory in (place, *place.absolute().parents) if directory.exists())


def _can_be_made(directory: Path) -> bool:
    there = _nearest(directory)
    return there.is_dir() and os.access(there, os.W_OK)


def _disk(place: Path) -> Finding:
    free = shutil.disk_usage(_nearest(place)).free // 2**20
    message = f"{free} MB free for {place} (an hour of speech is 173 MB)"
    if free < FULL_DISK_MB:
        return Finding("limits", "wrong", message, "make room: jobs cannot be accepted on a full disk")
    if free < LOW_DISK_MB:
        return Finding("limits", "note", message, "make room, or lower retention.ttl_seconds")
    return Finding("limits", "ok", message)


def service(url: str) -> Finding:
    """Whether the service runs at ``url`` and can work."""
    try:
        answer = requests.get(f"{url}/readyz", timeout=SERVICE_SECONDS)
    except requests.RequestException:
        return Finding("service", "note", f"nothing answers at {url}", "start it, or name its address with --url")
    if answer.status_code == 200:
        return Finding("service", "ok", f"ready at {url}")
    return Finding("service", "wrong", f"{url}/readyz: {answer.status_code} {answer.text[:300]}", "see its log")


async def all_findings(args: AppArgs, environ: Mapping[str, str], url: str) -> list[Finding]:
    """Every check but those of the configuration itself; what cannot be checked is wrong too."""
    found = [*versions(args), *keys(args, environ)]
    running = service(url)
    own = url if running.verdict == "note" else None
    parts = (
        ("store", job_store(args, int(time.time() * 1_000))),
        ("clips", clip_store(args)),
        ("backends", backends(args, environ, own)),
    )
    for name, findings in parts:
        try:
            found += [finding async for finding in findings]
        except ConfigError as error:
            found.append(Finding(name, "wrong", error.message, "mend the field in the YAML"))
        except TtsError as error:
            found.append(Finding(name, "wrong", error.message, "see that it runs and that this machine may use it"))
    return [*found, *traces(args), *machine(args), running]
