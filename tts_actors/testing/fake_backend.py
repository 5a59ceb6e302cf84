"""The speech server that fails on request, in a process of its own.

``python -m tts_actors.testing.fake_backend --port 0 --delay-ms 200`` prints one line,
``{"url": "http://127.0.0.1:PORT"}``, when it is ready and stops cleanly on SIGTERM or SIGINT. Every field of
:class:`~tts_actors.testing.faults.Faults` is a flag; ``server.py`` lists the control routes.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from pydantic import ValidationError

from tts_actors.testing.faults import NAMED_FAULTS, Faults
from tts_actors.testing.server import FakeBackend, running_backend

__all__ = ["FakeBackend", "main", "running_backend"]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; returns when the server was stopped."""
    parser = argparse.ArgumentParser(
        prog="tts-actors fake-backend",
        usage="%(prog)s [options]",
        description="A speech server that fails on request.",
        epilog="\n".join(
            ["faults: a status from 400 to 599, or", *(f"  {n:<12}{what}" for n, what in NAMED_FAULTS.items())]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input closes")
    for name, field in Faults.model_fields.items():
        parser.add_argument(f"--{name.replace('_', '-')}", help=field.description, default=argparse.SUPPRESS)
    options = vars(parser.parse_args(arguments))
    port, exit_with_stdin = options.pop("port"), options.pop("exit_with_stdin")
    try:
        faults = Faults.model_validate({name: _flag_value(name, text) for name, text in options.items()})
    except ValidationError as problem:
        wrong = problem.errors()[0]
        parser.error(f"--{str(wrong['loc'][0]).replace('_', '-')}: {wrong['msg'].removeprefix('Value error, ')}")
    asyncio.run(_serve(faults, port, exit_with_stdin=exit_with_stdin))


def _flag_value(name: str, text: str) -> Any:
    """Lists are ``500,hang``, maps ``500=0.1,429=0.05``; whole numbers are numbers; pydantic reads the rest."""
    if name == "fail_kinds":
        return text.split(",")
    if name == "statuses":
        return dict(pair.partition("=")[::2] for pair in text.split(","))
    return int(text) if text.isascii() and text.isdigit() else text


async def _serve(faults: Faults, port: int, *, exit_with_stdin: bool) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_backend(faults, port=port) as backend:
        if exit_with_stdin:
            watch = partial(_set_at_end_of_stdin, loop, stop)
            threading.Thread(target=watch, daemon=True).start()
        sys.stdout.write(json.dumps({"url": backend.url}) + "\n")
        sys.stdout.flush()
        await stop.wait()


def _set_at_end_of_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Whoever started us is gone when our standard input ends, however it died: do not outlive it."""
    while os.read(0, 4_096):
        pass
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(stop.set)


if __name__ == "__main__":
    main()
