"""``tts-actors doctor``: says what is wrong with a service's configuration and surroundings, and what to do."""

import asyncio
import dataclasses
import os

import typer

from tts_actors.cli import checks
from tts_actors.cli.configured import DEFAULT_CONFIG, DEFAULT_DATA, ConfigFile, DataDirectory, Port, load_args
from tts_actors.cli.frame import UNDONE, app, say_aside, write_json
from tts_actors.errors import ConfigError

COLOURS = {"ok": typer.colors.GREEN, "note": typer.colors.YELLOW, "wrong": typer.colors.RED}


@app.command(epilog="Example: tts-actors doctor --config serve_config.yaml --data data")
def doctor(
    ctx: typer.Context, config: ConfigFile = DEFAULT_CONFIG, data: DataDirectory = DEFAULT_DATA, port: Port = 8000
) -> None:
    """Look at configuration, stores, speech servers, versions, limits and clock; exit code 1 if anything is wrong."""
    try:
        args = load_args(config, data, port)
    except ConfigError as error:
        wrong = checks.Finding("config", "wrong", error.message, "mend the YAML; its fields are in docs/operations.md")
        found = [wrong, *checks.versions(None)]
    else:
        fits = checks.Finding("config", "ok", f"{config}: {len(args.backends)} speech servers")
        found = [fits, *asyncio.run(checks.all_findings(args, os.environ, ctx.obj.url))]
    failed = sum(finding.verdict == "wrong" for finding in found)
    if ctx.obj.json:
        write_json({"healthy": not failed, "findings": [dataclasses.asdict(finding) for finding in found]})
    else:
        for finding in found:
            _show(finding)
        say_aside(f"{failed} things are wrong" if failed else "nothing is wrong")
    if failed:
        raise typer.Exit(UNDONE)


def _show(finding: checks.Finding) -> None:
    typer.echo(
        f"{typer.style(f'{finding.verdict:5}', fg=COLOURS[finding.verdict])} {finding.check:8} {finding.message}"
    )
    if finding.advice:
        typer.echo(f"{'':14} -> {finding.advice}")
