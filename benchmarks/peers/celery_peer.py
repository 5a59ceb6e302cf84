"""Starts Redis and a Celery worker, and runs texts through them."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from benchmarks.harness import ROOT, NotPossible
from benchmarks.service import free_port
from tts_actors.models import ChunkingMode
from tts_actors.text import split_text

POOL = "prefork"
"""The faster one: 600 chunks took 5.6 s with 64 processes, 9.3 s with 64 threads."""
START_SECONDS = 60.0
UNPACKED = ROOT / "build" / "redis"
HINT = "it needs Debian's redis-server (apt-get install redis-server)"


class CeleryPeer:
    """A running worker. ``appendfsync`` is what Redis waits for before it answers: everysec (its default) or always."""

    def __init__(self, redis_url: str, backend_url: str, folder: Path) -> None:
        self._redis = redis.Redis.from_url(redis_url)
        self._backend_url = backend_url
        self._folder = folder

    def set_appendfsync(self, policy: str) -> None:
        """``everysec`` or ``always``."""
        self._redis.config_set("appendfsync", policy)

    async def speak(self, text: str) -> dict[str, float]:
        """Seconds until all chunks were spoken, and until they were one file."""
        return await asyncio.to_thread(self._speak, text)

    def _speak(self, text: str) -> dict[str, float]:
        from celery import chord

        from benchmarks.peers.celery_app import join, speak

        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            wall, started = time.time(), time.perf_counter()
            spans = split_text(text, mode=ChunkingMode.SENTENCE, max_characters=400).spans
            chunks = [text[span.char_start : span.char_end].strip() for span in spans]
            work = chord(speak.s(self._backend_url, folder, n, chunk) for n, chunk in enumerate(chunks))
            # Not propagating: get() would ask for each of the 2,000 results once more, one by one, which takes 15 s. A
            # task that failed fails the join, and an exception comes here instead of its answer.
            path, spoken = work(join.s(folder)).get(timeout=300, propagate=False)
            assert Path(path).stat().st_size > 0
            return {"spoken": spoken - wall, "file": time.perf_counter() - started}


@contextmanager
def celery_peer(backend_url: str, concurrency: int, folder: Path, pool: str = POOL) -> Iterator[CeleryPeer]:
    """Redis on a port of its own and one worker with so many tasks at once, until the block ends."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, _redis_server(Path(home)) as url:
        os.environ["BENCH_REDIS"] = url
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.peers.celery_app", "worker", "-l", "WARNING"]
        command += ["-P", pool, "-c", str(concurrency), "--without-gossip", "--without-mingle", "--without-heartbeat"]
        with Path(home, "worker.log").open("wb") as log:
            worker = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            peer = CeleryPeer(url, backend_url, folder)
            peer._speak("The worker is up. It has spoken.")  # waits for it
            yield peer
        finally:
            _end(worker)


@contextmanager
def _redis_server(home: Path) -> Iterator[str]:
    port = free_port()
    program, libraries = _program()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "everysec", "--loglevel", "warning"]
    environment = os.environ | {"LD_LIBRARY_PATH": libraries}
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    try:
        give_up = time.monotonic() + START_SECONDS
        client = redis.Redis(port=port)
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                if server.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError("redis-server did not start") from None
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        _end(server)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _program() -> tuple[str, str]:
    """redis-server and where its libraries are: the system's, or Debian's packages unpacked below ``build``.

    Nothing is installed, and no server is started by an installation. Raises :class:`NotPossible`.
    """
    if found := shutil.which("redis-server"):
        return found, os.environ.get("LD_LIBRARY_PATH", "")
    if not next(UNPACKED.glob("usr/bin/redis-server"), None):
        _unpack()
    library = next(UNPACKED.glob("usr/lib/*/libjemalloc*"), UNPACKED)
    return str(UNPACKED / "usr/bin/redis-server"), str(library.parent)


def _unpack() -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise NotPossible(HINT)
    UNPACKED.mkdir(parents=True, exist_ok=True)

    def ran(*command: str) -> str:
        done = subprocess.run(command, cwd=UNPACKED, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotPossible(f"{HINT}; {' '.join(command[:2])} says: {done.stderr.strip()[-200:]}")
        return done.stdout

    plan = ran("apt-get", "install", "--simulate", "--no-install-recommends", "redis-server")
    ran("apt-get", "download", *re.findall(r"^Inst (\S+)", plan, re.MULTILINE))
    for package in UNPACKED.glob("*.deb"):
        ran("dpkg", "-x", package.name, ".")
        package.unlink()
