"""The command line, ``tts-actors``: a thin hand on :class:`~tts_actors.client.TtsClient`.

Results go to stdout, everything for a watching person (progress, hints, errors) to stderr. It knows nothing of the
service but what the client tells.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from tts_actors import __version__
from tts_actors.client import ApiError, Job, SpeechOptions, TtsClient, Unreachable
from tts_actors.client.progress import clock, show_progress
from tts_actors.client.service import DEFAULT_URL
from tts_actors.errors import TtsError
from tts_actors.models import ChunkingMode, JobState, OnChunkFailure, Priority

UNDONE, USAGE, AWAY, REFUSED, INTERRUPTED = 1, 2, 3, 4, 130
"""Exit codes; the last is the shell's for SIGINT."""

FORMATS = {
    ".mp3": "mp3",
    ".wav": "wav",
    ".flac": "flac",
    ".opus": "opus",
    ".ogg": "opus",
    ".aac": "aac",
    ".pcm": "pcm",
}
UTF8_MARK = b"\xef\xbb\xbf"

HELP = """Speak long texts with a tts-actors service.

The options below may stand before or after the command. Results go to stdout, progress and errors to stderr.

Exit codes: [bold]0[/] done; [bold]1[/] the job failed, was cancelled or has gaps; [bold]2[/] the command line or a
file is wrong; [bold]3[/] the service cannot be reached or is not able to work; [bold]4[/] the service refused;
[bold]130[/] interrupted (the job goes on).
"""

_GLOBAL_OPTIONS = {"--url": True, "--api-key": True, "--json": False}
"""Options that may stand after the command too, and whether they take a value."""


class Commands(TyperGroup):
    """The group of all commands: global options may stand anywhere, and errors become exit codes here."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if "fake-backend" in args[:1] else _global_first(args))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TtsError as error:
            raise typer.Exit(_report(error, ctx.obj.json)) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError):  # nobody reads stdout any more: typer ends quietly
                raise
            _say(f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "))
            raise typer.Exit(USAGE) from error


def _global_first(args: list[str]) -> list[str]:
    first: list[str] = []
    others: list[str] = []
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            return [*first, *others, arg, *rest]
        name, joined, _ = arg.partition("=")
        if name not in _GLOBAL_OPTIONS:
            others.append(arg)
        else:
            first.append(arg)
            if _GLOBAL_OPTIONS[name] and not joined:
                first.extend(value for value in [next(rest, None)] if value is not None)
    return [*first, *others]


app = typer.Typer(
    cls=Commands, help=HELP, rich_markup_mode="rich", no_args_is_help=True, pretty_exceptions_enable=False
)


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the global options said; ``ctx.obj`` of every command."""

    url: str
    api_key: str | None
    json: bool


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tts-actors {__version__}")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    url: Annotated[str, typer.Option(envvar="TTS_URL", help="Where the service is.")] = DEFAULT_URL,
    api_key: Annotated[str | None, typer.Option(envvar="TTS_API_KEY", help="The key, if the service has any.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to stdout, for programs.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    ctx.obj = _Settings(url, api_key, as_json)


# -- options that several commands have -------------------------------------------------------

TextFile = Annotated[str, typer.Argument(metavar="FILE", help="A UTF-8 text file; - is standard input.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The file to write; it appears when it is complete.")]
Model = Annotated[str | None, typer.Option(help="The model (default: the service's own).")]
Voice = Annotated[str | None, typer.Option(help="The voice (default: the model's own).")]
Speed = Annotated[float | None, typer.Option(help="From 0.25 to 4.0.")]
Language = Annotated[str | None, typer.Option(help="The text's language, such as en or de.")]
Chunking = Annotated[ChunkingMode | None, typer.Option(help="How the text is cut.")]
Characters = Annotated[int | None, typer.Option("--max-characters", min=1, help="Longest chunk.")]
OnFailure = Annotated[OnChunkFailure | None, typer.Option(help="What a chunk that fails for good does to the job.")]
Urgency = Annotated[Priority | None, typer.Option(help="Interactive jobs go before batch jobs.")]
Gaps = Annotated[Literal["silence"] | None, typer.Option(help="Accept silence where chunks failed.")]


# -- commands ---------------------------------------------------------------------------------


@app.command(epilog="Example: tts-actors say book.txt -o book.mp3 --voice heart")
def say(
    ctx: typer.Context,
    file: TextFile,
    output: Output,
    model: Model = None,
    voice: Voice = None,
    speed: Speed = None,
    language: Language = None,
    chunking: Chunking = None,
    max_characters: Characters = None,
    on_chunk_failure: OnFailure = None,
    priority: Urgency = None,
    cancel_on_interrupt: Annotated[bool, typer.Option(help="Ctrl-C stops the job too.")] = False,
) -> None:
    """Speak FILE, wait for it and write the audio; the extension of the output names the format."""
    text, fmt = read_text(file), _format_of(output)
    if not output.parent.is_dir():
        raise typer.BadParameter(f"there is no directory {output.parent}", param_hint="--output")
    with _client(ctx) as client:
        job = client.create(text, **_options(ctx, fmt))
        _say(f"job {job.id}: {job.character_count} characters in {job.chunks_total} chunks")
        with _interruptible(client, job.id, cancel_on_interrupt):
            job = show_progress(Console(stderr=True), client.watch(job.id))
            gapped = job.status is JobState.COMPLETED_WITH_GAPS and job.chunks_completed > 0
            if job.complete or gapped:
                client.download(job.id, output, format=fmt, gaps="silence" if gapped else None)
                _show_file(ctx, job, output)
            elif ctx.obj.json:
                _write({"job": job.raw, "path": None, "bytes": None})
    _end_with(job)


@app.command(epilog="Example: JOB=$(tts-actors submit book.txt --priority batch)")
def submit(
    ctx: typer.Context,
    file: TextFile,
    model: Model = None,
    voice: Voice = None,
    response_format: Annotated[str | None, typer.Option("--format", help="The file's format (default: mp3).")] = None,
    speed: Speed = None,
    language: Language = None,
    chunking: Chunking = None,
    max_characters: Characters = None,
    on_chunk_failure: OnFailure = None,
    priority: Urgency = None,
    job_id: Annotated[str | None, typer.Option(help="An id of your own: twice the same makes one job.")] = None,
) -> None:
    """Have FILE spoken and print the job's id; do not wait."""
    with _client(ctx) as client:
        job = client.create(read_text(file), job_id=job_id, **_options(ctx, response_format))
    _write(job.raw) if ctx.obj.json else typer.echo(job.id)


@app.command(epilog="Example: tts-actors --json status job-1234")
def status(ctx: typer.Context, job_id: JobId) -> None:
    """Show a job as it is now; the exit code is 0 whatever its state."""
    with _client(ctx) as client:
        _show_job(ctx, client.get(job_id))


@app.command(epilog="Example: tts-actors watch job-1234 && tts-actors download job-1234 -o book.mp3")
def watch(ctx: typer.Context, job_id: JobId) -> None:
    """Follow a job to its end; with --json one line for each change."""
    with _client(ctx) as client, _interruptible(client, job_id, False):
        changes = client.watch(job_id)
        job = show_progress(Console(stderr=True), _echoed(changes) if ctx.obj.json else changes)
    if not ctx.obj.json:
        _show_job(ctx, job)
    _end_with(job)


@app.command(epilog="Example: tts-actors download job-1234 -o book.wav --gaps silence")
def download(
    ctx: typer.Context,
    job_id: JobId,
    output: Output,
    response_format: Annotated[
        str | None, typer.Option("--format", help="The format (default: by the output's extension).")
    ] = None,
    gaps: Gaps = None,
) -> None:
    """Fetch a job's audio; broken connections are taken up where they broke, an unfinished job is waited for."""
    fmt = response_format or _format_of(output)
    with _client(ctx) as client:
        client.download(job_id, output, format=fmt, gaps=gaps)
        _show_file(ctx, client.get(job_id), output)


@app.command(epilog="Example: tts-actors cancel job-1234")
def cancel(ctx: typer.Context, job_id: JobId) -> None:
    """Stop a job; what it has spoken is kept until it expires."""
    with _client(ctx) as client:
        _show_job(ctx, client.cancel(job_id))


@app.command(epilog="Example: tts-actors retry job-1234 && tts-actors watch job-1234")
def retry(ctx: typer.Context, job_id: JobId) -> None:
    """Speak the failed chunks of an ended job again; the others keep their audio."""
    with _client(ctx) as client:
        _show_job(ctx, client.retry(job_id))


@app.command(epilog="Example: tts-actors delete job-1234")
def delete(ctx: typer.Context, job_id: JobId) -> None:
    """Remove a job and its audio; a running one is stopped first."""
    with _client(ctx) as client:
        client.delete(job_id)
    _write({"id": job_id, "deleted": True}) if ctx.obj.json else typer.echo(f"{job_id} is deleted")


@app.command(epilog="Example: tts-actors jobs --status failed --limit 50")
def jobs(
    ctx: typer.Context,
    state: Annotated[JobState | None, typer.Option("--status", help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many at most.")] = 20,
    after: Annotated[str | None, typer.Option(metavar="JOB", help="Only jobs older than this one.")] = None,
) -> None:
    """List your jobs, newest first."""
    with _client(ctx) as client:
        page = client.list(limit, after, state)
    if ctx.obj.json:
        _write({"object": "list", "data": [job.raw for job in page.jobs], "has_more": page.has_more})
        return
    table = Table("job", "status", "chunks", "characters", "audio", box=None)
    for job in page.jobs:
        done = f"{job.chunks_completed}/{job.chunks_total}"
        table.add_row(job.id, job.status.value, done, str(job.character_count), clock(job.audio_seconds_ready))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)
    if page.has_more:
        _say(f"there are more: --after {page.jobs[-1].id}")


@app.command(epilog="Example: tts-actors manifest job-1234 > receipt.json")
def manifest(ctx: typer.Context, job_id: JobId) -> None:
    """Print an ended job's receipt as JSON: spans, clips, durations, backends, coverage."""
    with _client(ctx) as client:
        _write(client.manifest(job_id), indent=None if ctx.obj.json else 2)


@app.command(
    "fake-backend",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def fake_backend(ctx: typer.Context) -> None:
    """Run a speech server that fails on request (for trials; its own options: fake-backend --help)."""
    from tts_actors.testing import fake_backend as server

    server.main(ctx.args)


# -- parts ------------------------------------------------------------------------------------


def read_text(name: str) -> str:
    """The text of a file or of standard input. A usage error if it is not UTF-8, not there, or empty."""
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{name}: {error.strerror}", param_hint="FILE") from error
    skipped = len(UTF8_MARK) if data.startswith(UTF8_MARK) else 0
    try:
        text = data[skipped:].decode("utf-8")
    except UnicodeDecodeError as error:
        offset = skipped + error.start
        reason = f"{name}: not UTF-8: byte 0x{data[offset]:02x} at offset {offset}; convert it first (iconv)"
        raise typer.BadParameter(reason, param_hint="FILE") from error
    if not text:
        raise typer.BadParameter(f"{name}: there is no text in it", param_hint="FILE")
    return text


def _format_of(output: Path) -> str:
    fmt = FORMATS.get(output.suffix.lower())
    if fmt is None:
        known = " ".join(FORMATS)
        raise typer.BadParameter(f"the extension must be one of {known}", param_hint="--output")
    return fmt


def _options(ctx: typer.Context, response_format: str | None) -> SpeechOptions:
    """The speech options of ``say`` and ``submit``: those whose names the two commands and the client share."""
    shared = {name: value for name, value in ctx.params.items() if name in SpeechOptions.__annotations__}
    return cast("SpeechOptions", shared | {"response_format": response_format})


def _client(ctx: typer.Context) -> TtsClient:
    return TtsClient(ctx.obj.url, ctx.obj.api_key)


def _echoed(changes: Iterator[Job]) -> Iterator[Job]:
    for job in changes:
        _write(job.raw)
        yield job


@contextmanager
def _interruptible(client: TtsClient, job_id: str, cancel: bool) -> Iterator[None]:
    """Ctrl-C ends this command; the job only if that was asked for."""
    try:
        yield
    except KeyboardInterrupt:
        if cancel:
            _say(f"interrupted; job {job_id} is {client.cancel(job_id).status.value}")
        else:
            _say(f"interrupted; job {job_id} goes on\n  follow it: tts-actors watch {job_id}")
            _say(f"  stop it:   tts-actors cancel {job_id}")
        raise typer.Exit(INTERRUPTED) from None


def _show_job(ctx: typer.Context, job: Job) -> None:
    if ctx.obj.json:
        _write(job.raw)
        return
    done = f"{job.chunks_completed} of {job.chunks_total} chunks, {clock(job.audio_seconds_ready)} of audio"
    left = f", {clock(job.eta_seconds)} left" if job.eta_seconds and not job.ended else ""
    typer.echo(f"{job.id}: {job.status.value}, {done}{left}")


def _show_file(ctx: typer.Context, job: Job, path: Path) -> None:
    size = path.stat().st_size
    if ctx.obj.json:
        _write({"job": job.raw, "path": str(path), "bytes": size})
    else:
        typer.echo(f"{path}: {clock(job.audio_seconds_ready)} of audio, {size} bytes")


def _end_with(job: Job) -> None:
    """Exit with 1, and a word on what to do, unless the job is complete."""
    if job.complete:
        return
    reason = f" ({job.error_code}: {job.error_message})" if job.error_code else ""
    _say(f"job {job.id} ended {job.status.value}{reason}: {job.chunks_failed} of {job.chunks_total} chunks failed")
    if job.status in (JobState.FAILED, JobState.COMPLETED_WITH_GAPS):
        _say(f"  speak what is missing: tts-actors retry {job.id}")
    raise typer.Exit(UNDONE)


def _report(error: TtsError, as_json: bool) -> int:
    """Say what went wrong, to a person and with --json to a program; the exit code for it."""
    status = error.status if isinstance(error, ApiError) else None
    if as_json:
        _write({"error": {"code": error.code, "message": error.message, "param": error.param, "status": status}})
    _say(f"error: {error.message}")
    if isinstance(error, Unreachable) or error.code == "unexpected_answer" or (status or 0) >= 500:
        return AWAY
    return UNDONE if error.code == "has_gaps" else REFUSED


def _write(document: Any, indent: int | None = None) -> None:
    typer.echo(json.dumps(document, ensure_ascii=False, indent=indent))


def _say(message: str) -> None:
    typer.echo(message, err=True)


if __name__ == "__main__":
    app()
