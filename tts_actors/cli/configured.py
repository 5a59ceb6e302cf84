"""The service's own YAML, for commands that work on the machine of the service and not over HTTP."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import ValidationError

from tts_actors.config import AppArgs
from tts_actors.errors import ConfigError

APP = "deployments.app:build_app"

ConfigFile = Annotated[Path, typer.Option("--config", envvar="TTS_CONFIG", help="The service's YAML.")]
DataDirectory = Annotated[Path, typer.Option("--data", help="What {DATA} in the YAML stands for.")]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="What {PORT} in the YAML stands for.")]

DEFAULT_CONFIG = Path("serve_config.yaml")
DEFAULT_DATA = Path("data")


def load_args(config: Path, data: Path, port: int) -> AppArgs:
    """The service's arguments in ``config``. Raises :class:`ConfigError` that names every field that is wrong."""
    try:
        text = config.read_text()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{config} cannot be read ({type(error).__name__})", "config") from None
    try:
        documents = list(yaml.safe_load_all(text.replace("{PORT}", str(port)).replace("{DATA}", str(data.resolve()))))
    except yaml.YAMLError as error:
        raise ConfigError(f"{config} is not YAML: {str(error).splitlines()[0]}", "config") from None
    try:
        return AppArgs.model_validate(_args_in(documents, config))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'args'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{config}: {wrong}", "args") from None


def _args_in(documents: list[Any], config: Path) -> Any:
    """The ``args`` of the one application that is the service; a RayService holds Serve's document as a string."""
    held = [d["spec"]["serveConfigV2"] for d in documents if isinstance(d, dict) and d.get("kind") == "RayService"]
    document = yaml.safe_load(held[0]) if held else next(iter(documents), None)
    applications = document.get("applications") if isinstance(document, dict) else None
    found = [a for a in applications or [] if isinstance(a, dict) and a.get("import_path") == APP]
    if len(found) != 1:
        raise ConfigError(f"{config}: one application must have import_path {APP}, {len(found)} have", "applications")
    return found[0].get("args") or {}
