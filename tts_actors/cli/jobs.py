"""Commands about jobs: speak, submit, watch, fetch, stop."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, cast

import typer
from rich.console import Console
from rich.table import Table

from tts_actors.cli.frame import INTERRUPTED, UNDONE, app, open_client, say_aside, write_json
from tts_actors.client import Job, SpeechOptions, TtsClient
from tts_actors.client.progress import clock, show_progress
from tts_actors.models import ChunkingMode, JobState, OnChunkFailure, Priority

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
    with open_client(ctx) as client:
        job = client.create(text, **_options(ctx, fmt))
        say_aside(f"job {job.id}: {job.character_count} characters in {job.chunks_total} chunks")
        with _interruptible(client, job.id, cancel_on_interrupt):
            job = show_progress(Console(stderr=True), client.watch(job.id))
            gapped = job.status is JobState.COMPLETED_WITH_GAPS and job.chunks_completed > 0
            if job.complete or gapped:
                client.download(job.id, output, format=fmt, gaps="silence" if gapped else None)
                _show_file(ctx, job, output)
            elif ctx.obj.json:
                write_json({"job": job.raw, "path": None, "bytes": None})
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
    with open_client(ctx) as client:
        job = client.create(read_text(file), job_id=job_id, **_options(ctx, response_format))
    write_json(job.raw) if ctx.obj.json else typer.echo(job.id)


@app.command(epilog="Example: tts-actors --json status job-1234")
def status(ctx: typer.Context, job_id: JobId) -> None:
    """Show a job as it is now; the exit code is 0 whatever its state."""
    with open_client(ctx) as client:
        _show_job(ctx, client.get(job_id))


@app.command(epilog="Example: tts-actors watch job-1234 && tts-actors download job-1234 -o book.mp3")
def watch(ctx: typer.Context, job_id: JobId) -> None:
    """Follow a job to its end; with --json one line for each change."""
    with open_client(ctx) as client, _interruptible(client, job_id, False):
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
    with open_client(ctx) as client:
        client.download(job_id, output, format=fmt, gaps=gaps)
        _show_file(ctx, client.get(job_id), output)


@app.command(epilog="Example: tts-actors cancel job-1234")
def cancel(ctx: typer.Context, job_id: JobId) -> None:
    """Stop a job; what it has spoken is kept until it expires."""
    with open_client(ctx) as client:
        _show_job(ctx, client.cancel(job_id))


@app.command(epilog="Example: tts-actors retry job-1234 && tts-actors watch job-1234")
def retry(ctx: typer.Context, job_id: JobId) -> None:
    """Speak the failed chunks of an ended job again; the others keep their audio."""
    with open_client(ctx) as client:
        _show_job(ctx, client.retry(job_id))


@app.command(epilog="Example: tts-actors delete job-1234")
def delete(ctx: typer.Context, job_id: JobId) -> None:
    """Remove a job and its audio; a running one is stopped first."""
    with open_client(ctx) as client:
        client.delete(job_id)
    write_json({"id": job_id, "deleted": True}) if ctx.obj.json else typer.echo(f"{job_id} is deleted")


@app.command(epilog="Example: tts-actors jobs --status failed --limit 50")
def jobs(
    ctx: typer.Context,
    state: Annotated[JobState | None, typer.Option("--status", help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many at most.")] = 20,
    after: Annotated[str | None, typer.Option(metavar="JOB", help="Only jobs older than this one.")] = None,
) -> None:
    """List your jobs, newest first."""
    with open_client(ctx) as client:
        page = client.list(limit, after, state)
    if ctx.obj.json:
        write_json({"object": "list", "data": [job.raw for job in page.jobs], "has_more": page.has_more})
        return
    table = Table("job", "status", "chunks", "characters", "audio", box=None)
    for job in page.jobs:
        done = f"{job.chunks_completed}/{job.chunks_total}"
        table.add_row(job.id, job.status.value, done, str(job.character_count), clock(job.audio_seconds_ready))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)
    if page.has_more:
        say_aside(f"there are more: --after {page.jobs[-1].id}")


@app.command(epilog="Example: tts-actors manifest job-1234 > receipt.json")
def manifest(ctx: typer.Context, job_id: JobId) -> None:
    """Print an ended job's receipt as JSON: spans, clips, durations, backends, coverage."""
    with open_client(ctx) as client:
        write_json(client.manifest(job_id), indent=None if ctx.obj.json else 2)


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


def _echoed(changes: Iterator[Job]) -> Iterator[Job]:
    for job in changes:
        write_json(job.raw)
        yield job


@contextmanager
def _interruptible(client: TtsClient, job_id: str, cancel: bool) -> Iterator[None]:
    """Ctrl-C ends this command; the job only if that was asked for."""
    try:
        yield
    except KeyboardInterrupt:
        if cancel:
            say_aside(f"interrupted; job {job_id} is {client.cancel(job_id).status.value}")
        else:
            say_aside(f"interrupted; job {job_id} goes on\n  follow it: tts-actors watch {job_id}")
            say_aside(f"  stop it:   tts-actors cancel {job_id}")
        raise typer.Exit(INTERRUPTED) from None


def _show_job(ctx: typer.Context, job: Job) -> None:
    if ctx.obj.json:
        write_json(job.raw)
        return
    done = f"{job.chunks_completed} of {job.chunks_total} chunks, {clock(job.audio_seconds_ready)} of audio"
    left = f", {clock(job.eta_seconds)} left" if job.eta_seconds and not job.ended else ""
    typer.echo(f"{job.id}: {job.status.value}, {done}{left}")


def _show_file(ctx: typer.Context, job: Job, path: Path) -> None:
    size = path.stat().st_size
    if ctx.obj.json:
        write_json({"job": job.raw, "path": str(path), "bytes": size})
    else:
        typer.echo(f"{path}: {clock(job.audio_seconds_ready)} of audio, {size} bytes")


def _end_with(job: Job) -> None:
    """Exit with 1, and a word on what to do, unless the job is complete."""
    if job.complete:
        return
    reason = f" ({job.error_code}: {job.error_message})" if job.error_code else ""
    say_aside(f"job {job.id} ended {job.status.value}{reason}: {job.chunks_failed} of {job.chunks_total} chunks failed")
    if job.status in (JobState.FAILED, JobState.COMPLETED_WITH_GAPS):
        say_aside(f"  speak what is missing: tts-actors retry {job.id}")
    raise typer.Exit(UNDONE)
