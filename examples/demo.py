"""``make demo``: start the service, have a long text spoken, write the audio and the receipt, stop the service.

Run from anywhere: ``python examples/demo.py [--port 8000]``. Everything it makes is in ``build/``. Exit code 0 only if
every character of the text was spoken.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tts_actors.client import Job, TtsClient
from tts_actors.client.progress import clock, show_progress
from tts_actors.errors import TtsError

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "serve_config.yaml"
TEXT = ROOT / "examples" / "the_lighthouse_keeper.txt"
BUILD = ROOT / "build"
DATA = BUILD / "demo-data"
LOG = BUILD / "demo.log"

MODEL = "hibari"
START_SECONDS = 180.0
"""As long as the runner itself allows; a warm machine needs about ten."""

POLL_SECONDS = 0.2
STOP_SECONDS = 45.0
"""After Ctrl-C the runner ends Serve, then Ray; beyond this its whole process group is killed."""

LOG_LINES = 15

console = Console()


class DemoFailed(Exception):
    """The demo cannot go on; the message says why, for a person."""


def main(
    port: Annotated[int, typer.Option(envvar="PORT", min=1, max=65535, help="Port on 127.0.0.1.")] = 8000,
) -> None:
    """Start the service on this machine, speak examples/the_lighthouse_keeper.txt, write build/demo.wav and .mp3."""
    try:
        check_port_free(port)
        text = TEXT.read_text(encoding="utf-8")
        with running_service(port) as url, TtsClient(url) as client:
            complete = speak(client, text)
    except (DemoFailed, TtsError, OSError) as error:
        say(f"error: {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        say("interrupted; the service is stopped")
        raise typer.Exit(130) from None
    raise typer.Exit(0 if complete else 1)


def check_port_free(port: int) -> None:
    """Raise :class:`DemoFailed` if something listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a demo that has just ended is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DemoFailed(f"port {port} is taken ({error.strerror}); choose another: make demo PORT=8010") from None


# -- the service as a child process -----------------------------------------------------------


@contextmanager
def running_service(port: int) -> Iterator[str]:
    """The service's address, once it is ready; it is stopped with the context, whatever happens in it."""
    shutil.rmtree(DATA, ignore_errors=True)
    BUILD.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "deployments.runner", "--config", str(CONFIG)]
    command += ["--port", str(port), "--data", str(DATA)]
    with LOG.open("wb") as log:
        # A session of its own: Ctrl-C on the terminal is for the demo, which then stops the service in good order.
        service = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)  # noqa: S603 - our own module with our own arguments
    try:
        url = f"http://127.0.0.1:{port}"
        began = time.monotonic()
        wait_until_ready(service, url)
        say(f"service ready at {url} after {time.monotonic() - began:.1f} s (log: {LOG.relative_to(ROOT)})")
        yield url
    finally:
        stop(service)


def wait_until_ready(service: subprocess.Popen[bytes], url: str) -> None:
    """Return when the service can work. Raises :class:`DemoFailed` if it ends, or takes too long."""
    give_up = time.monotonic() + START_SECONDS
    if not console.is_terminal:
        say("starting the service (Ray, the directory and two speech engines)")
    with TtsClient(url, timeout_seconds=10) as client, console.status("starting Ray, the service and its engines"):
        while not client.ready():
            if service.poll() is not None:
                raise DemoFailed(f"the service ended with {service.returncode} while starting\n{log_tail()}")
            if time.monotonic() > give_up:
                raise DemoFailed(f"the service is not ready after {START_SECONDS:.0f} s\n{log_tail()}")
            time.sleep(POLL_SECONDS)


def stop(service: subprocess.Popen[bytes]) -> None:
    """End the service as Ctrl-C would; if it does not listen, kill its whole process group."""
    if service.poll() is None:
        with console.status("stopping the service"):
            service.send_signal(signal.SIGINT)
            try:
                service.wait(STOP_SECONDS)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C: somebody will not wait
                say("the service has not stopped by itself: its processes are killed")
                os.killpg(service.pid, signal.SIGKILL)
                service.wait()


def log_tail() -> str:
    """The last lines that the service wrote."""
    lines = LOG.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join([f"last lines of {LOG.relative_to(ROOT)}:", *(f"  {line}" for line in lines)])


# -- the work ---------------------------------------------------------------------------------


def speak(client: TtsClient, text: str) -> bool:
    """One job from text to files and figures; True if it is complete and nothing is missing."""
    began = time.monotonic()
    job = client.create(text, model=MODEL, response_format="mp3")
    say(f"job {job.id}: {job.character_count} characters in {job.chunks_total} chunks")
    job = show_progress(console, client.watch(job.id))
    spoken_seconds = time.monotonic() - began
    if not job.complete:
        say(f"error: the job is {job.status.value}: {job.error_code}: {job.error_message}\n{log_tail()}")
        return False
    manifest = client.manifest(job.id)
    receipt = BUILD / "demo-manifest.json"
    receipt.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    files = [client.download(job.id, BUILD / f"demo.{fmt}", format=fmt) for fmt in ("wav", "mp3")]
    report(job, manifest, [*files, receipt], spoken_seconds)
    return bool(manifest["coverage"] == 1.0)


def report(job: Job, manifest: dict[str, Any], files: list[Path], spoken_seconds: float) -> None:
    """The figures of the run, one a line."""
    audio_seconds = manifest["audio_seconds"]
    for file in files:
        length = "" if file.suffix == ".json" else f", {clock(audio_seconds)} ({audio_seconds:.1f} s)"
        say(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes{length}")
    say(f"characters: {job.character_count:,}")
    say(f"chunks: {job.chunks_completed} of {job.chunks_total}, {job.chunks_failed} failed")
    say(f"coverage: {manifest['coverage']}")
    say(f"orchestratorTimeoutMs: {job.orchestrator_timeout_ms}")
    say(f"wall time: {spoken_seconds:.1f} s from the request to the last chunk")
    say(f"speed: {audio_seconds / spoken_seconds:.1f} times faster than real time")


def say(line: str) -> None:
    """A line for the reader, as it is: nothing in it is markup."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside, the service must not stay behind
    typer.run(main)
