"""Commands about speech servers: how those of the service do, what is true of any other, and one that fails."""

import asyncio
import dataclasses
import os
import sys
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from tts_actors.backends.http import open_session
from tts_actors.backends.probe import Findings, Probe, Protocol
from tts_actors.cli.frame import UNDONE, USAGE, app, open_client, say_aside, write_json
from tts_actors.errors import BackendError

backends_app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")
app.add_typer(backends_app, name="backends")


@backends_app.callback(epilog="Example: tts-actors backends")
def backends(ctx: typer.Context) -> None:
    """Show how the service's speech servers do: health, breaker, limit, calls, latency, errors."""
    if ctx.invoked_subcommand is not None:
        return
    with open_client(ctx) as client:
        found = client.backends()
    if ctx.obj.json:
        write_json({"object": "list", "data": found})
        return
    table = Table("backend", "protocol", "healthy", "breaker", "calls/limit", "p50 ms", "p95 ms", "errors", box=None)
    for each in found:
        errors = ", ".join(f"{kind} {count}" for kind, count in sorted(each["errors"].items()))
        calls = f"{each['in_flight']}/{each['limit']}"
        latencies = ["-" if each[name] is None else str(each[name]) for name in ("p50_ms", "p95_ms")]
        healthy = "yes" if each["healthy"] else "no"
        table.add_row(each["name"], each["protocol"], healthy, each["breaker"], calls, *latencies, errors or "-")
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)


@backends_app.command(epilog="Example: tts-actors backends doctor http://127.0.0.1:8880")
def doctor(
    ctx: typer.Context,
    server: Annotated[str, typer.Argument(metavar="URL", help="The speech server's base URL.")],
    protocol: Annotated[Protocol | None, typer.Option(help="What it speaks (default: found out).")] = None,
    model: Annotated[str | None, typer.Option(help="The model to ask for (default: its first).")] = None,
    voice: Annotated[str | None, typer.Option(help="The voice to ask for (default: its first).")] = None,
    name: Annotated[str, typer.Option(help="Its name in the YAML entry.")] = "mine",
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with its key.")] = None,
    limits: Annotated[bool, typer.Option(help="Also longer texts and several calls at once.")] = True,
) -> None:
    """Speak three probes to a speech server and print what is true of it, with an entry for `backends:`."""
    if not server.startswith(("http://", "https://")):
        raise typer.BadParameter("must start with http:// or https://", param_hint="URL")
    key = os.environ.get(api_key_env) if api_key_env else None
    if api_key_env and not key:
        say_aside(f"error: the environment variable {api_key_env} is not set")
        raise typer.Exit(USAGE)

    async def examine() -> Findings:
        async with open_session() as session:
            probe = Probe(session, server, key=key, protocol=protocol, model=model, voice=voice)
            return await probe.run(limits=limits)

    try:
        found = asyncio.run(examine())
    except (BackendError, TimeoutError) as error:
        say_aside(f"error: {server}: {error if str(error) else 'no answer'}")
        raise typer.Exit(UNDONE) from error
    entry = found.entry(name, api_key_env)
    if ctx.obj.json:
        write_json(dataclasses.asdict(found) | {"entry": entry})
    else:
        for label, value in _lines(found):
            typer.echo(f"{label:<22} {value}")
        if found.probe_ms:
            typer.echo("\nbackends:\n" + yaml.safe_dump([entry], sort_keys=False, indent=2), nl=False)
    if not found.probe_ms:
        raise typer.Exit(UNDONE)


def _lines(found: Findings) -> list[tuple[str, Any]]:
    streams = {True: "yes", False: "no", None: "not known"}[found.streams]
    cap = f"{found.takes_characters or 0}" + ("" if found.cap_found else " or more")
    rates = ", ".join(f"{calls}: {rate}/s" for calls, rate in found.calls_per_second.items())
    return [
        ("protocol", found.protocol),
        ("url", found.url),
        ("container", f"{found.container} (called {found.content_type})" if found.container else "no audio"),
        ("latency of 3 probes", ", ".join(f"{ms} ms" for ms in found.probe_ms) or "-"),
        ("audio seconds a second", found.audio_seconds_per_second or "-"),
        ("streams", streams),
        ("models", ", ".join(found.models[:10]) or "no list"),
        ("voices", ", ".join(found.voices[:10]) or "no list"),
        ("takes characters", cap if found.takes_characters or found.cap_found else "not tried"),
        ("calls at once", rates or "not tried"),
        ("knee", f"{found.knee} calls at once" if found.knee else "-"),
        *(("problem", problem) for problem in found.problems),
    ]


@app.command(
    "fake-backend",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def fake_backend(ctx: typer.Context) -> None:
    """Run a speech server that fails on request (for trials; its own options: fake-backend --help)."""
    from tts_actors.testing import fake_backend as server

    server.main(ctx.args)
