"""Commands about speech servers."""

import typer

from tts_actors.cli.frame import app


@app.command(
    "fake-backend",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def fake_backend(ctx: typer.Context) -> None:
    """Run a speech server that fails on request (for trials; its own options: fake-backend --help)."""
    from tts_actors.testing import fake_backend as server

    server.main(ctx.args)
