"""The frame of the command line: the group of all commands, global options, exit codes, and how results are written.

Modules of this package add their commands to :data:`app`; the frame knows none of them.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tts_actors import __version__
from tts_actors.client import ApiError, TtsClient
from tts_actors.client.service import DEFAULT_URL
from tts_actors.errors import ConfigError, RetryLater, TtsError

UNDONE, USAGE, AWAY, REFUSED, INTERRUPTED = 1, 2, 3, 4, 130
"""Exit codes; the last is the shell's for SIGINT."""

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
            say_aside(f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "))
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
class Settings:
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
    ctx.obj = Settings(url, api_key, as_json)


def open_client(ctx: typer.Context) -> TtsClient:
    """The client for the service that the global options name."""
    return TtsClient(ctx.obj.url, ctx.obj.api_key)


def _report(error: TtsError, as_json: bool) -> int:
    """Say what went wrong, to a person and with --json to a program; the exit code for it."""
    status = error.status if isinstance(error, ApiError) else None
    if as_json:
        write_json({"error": {"code": error.code, "message": error.message, "param": error.param, "status": status}})
    say_aside(f"error: {error.message}")
    if isinstance(error, ConfigError):
        return USAGE
    if isinstance(error, RetryLater) or error.code == "unexpected_answer" or (status or 0) >= 500:
        return AWAY
    return UNDONE if error.code == "has_gaps" else REFUSED


def write_json(document: Any, indent: int | None = None) -> None:
    """A result for programs, on stdout."""
    typer.echo(json.dumps(document, ensure_ascii=False, indent=indent))


def say_aside(message: str) -> None:
    """A word to a watching person, on stderr."""
    typer.echo(message, err=True)
