"""A job's progress for a person: a moving bar on a terminal, plain lines anywhere else."""

from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from tts_actors.client.answers import Job

LINE_PERCENT = 10
"""A plain line is written when the job has come this much further."""


def show_progress(console: Console, jobs: Iterable[Job]) -> Job:
    """Show each job of ``jobs`` (see :meth:`TtsClient.watch`) on ``console``; returns the last one.

    ``ValueError`` if there is none. Whatever ``jobs`` raises passes, ``KeyboardInterrupt`` included.
    """
    last = _bar(console, jobs) if console.is_terminal else _lines(console, jobs)
    if last is None:
        raise ValueError("there is no job to show")
    return last


def _bar(console: Console, jobs: Iterable[Job]) -> Job | None:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[figures]}"),
    )
    last = None
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("waiting", total=1.0, figures="")
        for last in jobs:
            progress.update(task, description=_status(last), completed=last.progress, figures=", ".join(_figures(last)))
    return last


def _lines(console: Console, jobs: Iterable[Job]) -> Job | None:
    last, shown = None, None
    for last in jobs:
        step = (last.status, int(100 * last.progress) // LINE_PERCENT)
        if step != shown:
            parts = [f"{_status(last)}: {100 * last.progress:.0f} %", *_figures(last)]
            console.print(", ".join(parts), highlight=False, soft_wrap=True)
            shown = step
    return last


def _status(job: Job) -> str:
    return job.status.value.replace("_", " ")


def _figures(job: Job) -> list[str]:
    done = job.chunks_completed + job.chunks_failed
    figures = [f"{done}/{job.chunks_total} chunks", f"{clock(job.audio_seconds_ready)} of audio"]
    if job.chunks_failed:
        figures.append(f"{job.chunks_failed} failed")
    if not job.ended and job.eta_seconds is not None:
        figures.append(f"{clock(job.eta_seconds)} left")
    return figures


def clock(seconds: float) -> str:
    """A duration as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
