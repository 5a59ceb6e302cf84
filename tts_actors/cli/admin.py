"""``tts-actors admin``: care for a service's jobs and clips, on its machine, across all keys.

Most commands read the service's YAML and open its stores; ``sweep``, ``drain`` and ``undrain`` talk to the running
service, through Ray.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tts_actors.cli.configured import DEFAULT_CONFIG, DEFAULT_DATA, ConfigFile, DataDirectory, Port, load_args
from tts_actors.cli.frame import UNDONE, app, say_aside, write_json
from tts_actors.client.progress import clock
from tts_actors.errors import NotFound
from tts_actors.models import JobRecord
from tts_actors.stores.care import JobStoreCare, damaged_clips
from tts_actors.stores.clips import ObjectClipStore

admin = typer.Typer(help="Care for the service's stores, on its machine.", no_args_is_help=True)
app.add_typer(admin, name="admin")


@asynccontextmanager
async def _stores(config: Any, data: Any, port: int) -> AsyncIterator[tuple[JobStoreCare, ObjectClipStore]]:
    args = load_args(config, data, port)
    care = JobStoreCare(args.store_url)
    try:
        yield care, ObjectClipStore(args.clip_url)
    finally:
        await care.close()


@admin.command(epilog="Example: tts-actors admin jobs --data /srv/tts")
def jobs(
    ctx: typer.Context, config: ConfigFile = DEFAULT_CONFIG, data: DataDirectory = DEFAULT_DATA, port: Port = 8000
) -> None:
    """List all jobs that wait or run, of all keys, oldest first."""

    async def look() -> list[dict[str, Any]]:
        async with _stores(config, data, port) as (care, _):
            return [_shown(job, owner) async for job, owner in care.unfinished()]

    found = asyncio.run(look())
    if ctx.obj.json:
        write_json({"object": "list", "data": found})
        return
    table = Table("job", "key", "status", "chunks", "failed", "age", "left", "actors", "claimed by", box=None)
    for job in found:
        table.add_row(
            job["id"],
            job["tenant"],
            job["status"],
            f"{job['chunks_completed']}/{job['chunks_total']}",
            str(job["chunks_failed"]),
            clock(job["age_seconds"]),
            clock(max(0, job["left_seconds"])),
            str(job["activations"]),
            job["owner"] or "",
        )
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200).print(table)
    say_aside(f"{len(found)} jobs wait or run")


def _shown(job: JobRecord, owner: str | None) -> dict[str, Any]:
    now = time.time()
    return {
        "id": job.id,
        "tenant": job.tenant,
        "status": job.state.value,
        "chunks_total": job.chunk_total,
        "chunks_completed": job.chunks_completed,
        "chunks_failed": job.chunks_failed,
        "activations": job.activations,
        "owner": owner,
        "age_seconds": round(now - job.created_at_ms / 1_000),
        "left_seconds": round(job.deadline_at_ms / 1_000 - now),
    }


Address = Annotated[
    str, typer.Option(envvar="RAY_ADDRESS", help="The service's Ray; auto finds the one of this machine.")
]


@admin.command(epilog="Example: tts-actors admin sweep")
def sweep(ctx: typer.Context, address: Address = "auto") -> None:
    """Have the running service look at all alarms now instead of within two seconds."""
    from tts_actors.cluster.care import sweep_now  # ray takes half a second, and few commands need it

    _say_figures(ctx, sweep_now(address))


@admin.command(epilog="Example: tts-actors admin drain --grace 300")
def drain(
    ctx: typer.Context,
    address: Address = "auto",
    grace: Annotated[float, typer.Option(min=0, help="Seconds in which running jobs may end by themselves.")] = 60.0,
) -> None:
    """Take no new work: callers get 503 with Retry-After. Jobs that run longer than the grace are put back, with all
    they have got done; waiting ones keep waiting. Reading goes on. It lasts until undrain, or the next deployment.
    """
    from tts_actors.cluster import care

    _say_figures(ctx, care.drain(address, grace))


@admin.command(epilog="Example: tts-actors admin undrain")
def undrain(ctx: typer.Context, address: Address = "auto") -> None:
    """Take new work again and go on with the jobs that were put back."""
    from tts_actors.cluster import care

    _say_figures(ctx, care.undrain(address))


def _say_figures(ctx: typer.Context, figures: dict[str, int]) -> None:
    if ctx.obj.json:
        write_json(figures)
    else:
        typer.echo(", ".join(f"{name} {count}" for name, count in figures.items()))


@admin.command("delete-expired", epilog="Example: tts-actors admin delete-expired")
def delete_expired(
    ctx: typer.Context, config: ConfigFile = DEFAULT_CONFIG, data: DataDirectory = DEFAULT_DATA, port: Port = 8000
) -> None:
    """Remove jobs whose life is over, with what is left of them; afterwards they are 404 and no more 410."""

    async def remove() -> int:
        async with _stores(config, data, port) as (care, clips):
            return await care.remove_expired(clips, int(time.time() * 1_000))

    removed = asyncio.run(remove())
    write_json({"removed": removed}) if ctx.obj.json else typer.echo(f"{removed} jobs are removed")


@admin.command(epilog="Example: tts-actors admin verify job-1234")
def verify(
    ctx: typer.Context,
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="[JOB]...", help="Only these (default: all).")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    data: DataDirectory = DEFAULT_DATA,
    port: Port = 8000,
) -> None:
    """Read stored clips and compare each with the SHA-256 in its job's manifest; exit code 1 if one does not fit."""

    async def compare() -> tuple[int, int, list[dict[str, Any]]]:
        checked, clips_read, bad = 0, 0, []
        async with _stores(config, data, port) as (care, clips):
            async for job in _chosen(care, job_ids):
                results = await care.chunks_of(job.id)
                found = await damaged_clips(results, clips)
                if found and await care.get_job(job.id) is None:
                    continue  # deleted while it was being read
                bad += [{"job": job.id, "chunk": index, "problem": problem} for index, problem in found]
                checked += 1
                clips_read += sum(result.clip is not None for result in results)
        return checked, clips_read, bad

    checked, clips_read, bad = asyncio.run(compare())
    if ctx.obj.json:
        write_json({"jobs": checked, "clips": clips_read, "problems": bad})
    else:
        for problem in bad:
            typer.echo(f"{problem['job']} chunk {problem['chunk']}: {problem['problem']}")
        typer.echo(f"{clips_read} clips of {checked} jobs read, {len(bad)} do not fit their manifest")
    if bad:
        say_aside("bring the clips back from a backup, or delete the jobs and speak them again")
        raise typer.Exit(UNDONE)


async def _chosen(care: JobStoreCare, job_ids: list[str] | None) -> AsyncIterator[JobRecord]:
    if not job_ids:
        async for job in care.kept():
            yield job
        return
    for job_id in job_ids:
        found = await care.get_job(job_id)
        if found is None:
            raise NotFound(f"there is no job {job_id}", "job_id")
        yield found
