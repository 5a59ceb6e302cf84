"""What a process loads before it can work: every job is an actor of its own, so its start is paid once a job."""

import subprocess
import sys
from pathlib import Path

import yaml

from tts_actors.config import AppArgs

ROOT = Path(__file__).parents[2]


def loaded_by(module: str) -> set[str]:
    """Top-level packages in a new interpreter after the import."""
    code = f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_a_job_actor_starts_without_codecs_http_clients_migrations_and_the_checks_of_the_configuration() -> None:
    loaded = loaded_by("tts_actors.cluster.job_actors")
    assert "sqlalchemy" in loaded
    assert not loaded & {"numpy", "soundfile", "soxr", "aiohttp", "alembic", "obstore", "pydantic", "fastapi"}


def test_a_chunk_worker_starts_without_databases_and_web_frameworks() -> None:
    loaded = loaded_by("tts_actors.cluster.slices")
    assert "aiohttp" in loaded
    assert not loaded & {"sqlalchemy", "alembic", "fastapi", "scipy"}


def test_a_configuration_travels_as_json_and_is_the_same() -> None:
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    args = AppArgs.model_validate(document["applications"][0]["args"])
    assert AppArgs.model_validate_json(args.model_dump_json()) == args
