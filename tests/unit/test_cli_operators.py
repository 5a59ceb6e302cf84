"""``doctor`` and ``admin`` on the stores of a service that runs: what they find, and what they leave alone."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from click.testing import Result
from typer.testing import CliRunner

from tests.unit.http_service import HttpService, http_service
from tts_actors.cli import app
from tts_actors.cli.configured import APP
from tts_actors.client import Job, TtsClient

TEXT = "The lamp is lit. The sea is calm tonight."
HANGING = "The sea is [[delay:60000]] calm tonight."

Run = Callable[..., Result]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[HttpService]:
    with http_service(tmp_path / "data") as running:
        yield running


@pytest.fixture
def client(service: HttpService) -> Iterator[TtsClient]:
    with TtsClient(service.url) as client:
        yield client


def _configure(directory: Path, backend_url: str, **changes: Any) -> Path:
    backend = {"name": "fake", "protocol": "openai", "url": f"{backend_url}/v1", "model": "fake-tts"}
    args = {
        "store_url": "sqlite+aiosqlite:///{DATA}/jobs.db",
        "clip_url": "file://{DATA}/clips",
        "backends": [backend],
        **changes,
    }
    path = directory / "serve_config.yaml"
    path.write_text(yaml.safe_dump({"applications": [{"name": "tts", "import_path": APP, "args": args}]}))
    return path


@pytest.fixture
def run(service: HttpService, tmp_path: Path) -> Run:
    """Runs a command on the service's own configuration; the answer is JSON on stdout."""
    config = _configure(tmp_path, service.backend.url)

    def run(*args: str, url: str = service.url, config: Path = config) -> Result:
        environment = {"TTS_URL": url, "TTS_CONFIG": str(config), "COLUMNS": "200"}
        return CliRunner(env=environment).invoke(app, ["--json", *args, "--data", str(tmp_path / "data")])

    return run


def _spoken(client: TtsClient, text: str = TEXT, **options: Any) -> Job:
    job = client.wait(client.create(text, chunking="sentence", max_characters=20, **options).id)
    assert job.complete, job.raw
    return job


def _findings(result: Result, check: str, verdict: str) -> list[dict[str, str]]:
    report = json.loads(result.stdout)
    assert report["healthy"] is (result.exit_code == 0)
    return [f for f in report["findings"] if (f["check"], f["verdict"]) == (check, verdict)]


def _change(tmp_path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(tmp_path / "data" / "jobs.db")) as database, database:
        assert database.execute(statement, values).rowcount > 0


def test_the_doctor_finds_nothing_wrong_with_a_running_service(run: Run, client: TtsClient) -> None:
    _spoken(client)
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for check in ("config", "versions", "store", "clips", "backends", "limits", "clock", "service"):
        assert _findings(result, check, "ok"), check


def test_the_doctor_leaves_nothing_behind(run: Run, tmp_path: Path) -> None:
    before = {path.name for path in (tmp_path / "data" / "clips").rglob("*")}
    assert run("doctor").exit_code == 0
    assert {path.name for path in (tmp_path / "data" / "clips").rglob("*")} == before


def test_before_the_first_start_the_doctor_makes_nothing(service: HttpService, run: Run, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    config = _configure(tmp_path, service.backend.url, store_url=f"sqlite+aiosqlite:///{fresh}/jobs.db")
    result = run("doctor", config=config)
    assert result.exit_code == 0, result.output
    assert "first start" in _findings(result, "store", "note")[0]["advice"]
    assert not fresh.exists()


def test_the_doctor_names_the_field_that_is_wrong(run: Run, tmp_path: Path) -> None:
    result = run("doctor", config=_configure(tmp_path, "http://127.0.0.1:9", limits={"max_charakters": 5}))
    assert result.exit_code == 1
    assert "limits.max_charakters" in _findings(result, "config", "wrong")[0]["message"]
    for content in (": [", "applications: []", "just words"):
        broken = tmp_path / "broken.yaml"
        broken.write_text(content)
        result = run("doctor", config=broken)
        assert result.exit_code == 1
        assert "broken.yaml" in _findings(result, "config", "wrong")[0]["message"]
    assert run("admin", "jobs", config=tmp_path / "missing.yaml").exit_code == 2


def test_the_doctor_says_which_speech_server_is_away(run: Run, tmp_path: Path) -> None:
    result = run("doctor", config=_configure(tmp_path, "http://127.0.0.1:9"))
    assert result.exit_code == 1
    finding = _findings(result, "backends", "wrong")[0]
    assert finding["message"].startswith("fake:")
    assert "http://127.0.0.1:9/v1" in finding["advice"]


def test_a_service_that_does_not_run_is_worth_a_note(run: Run) -> None:
    result = run("doctor", url="http://127.0.0.1:9")
    assert result.exit_code == 0
    assert "http://127.0.0.1:9" in _findings(result, "service", "note")[0]["message"]


def test_the_doctor_knows_a_schema_from_the_future_and_a_clock_from_the_past(
    run: Run, client: TtsClient, tmp_path: Path
) -> None:
    job = _spoken(client)
    ahead_ms = int((time.time() + 3_600) * 1_000)
    _change(tmp_path, "UPDATE jobs SET created_at_ms = ? WHERE id = ?", ahead_ms, job.id)
    result = run("doctor")
    assert "future" in _findings(result, "clock", "wrong")[0]["message"]
    _change(tmp_path, "UPDATE alembic_version SET version_num = '9999'")
    result = run("doctor")
    assert result.exit_code == 1
    assert "9999 is newer" in _findings(result, "store", "wrong")[0]["message"]


def test_the_doctor_says_what_the_configured_stores_lack(run: Run, service: HttpService, tmp_path: Path) -> None:
    config = _configure(tmp_path, service.backend.url, store_url="mysql://nowhere/jobs", auth={"keys_file": "/no/keys"})
    result = run("doctor", config=config)
    assert "postgresql+asyncpg" in _findings(result, "store", "wrong")[0]["message"]
    assert "/no/keys" in _findings(result, "keys", "wrong")[0]["message"]


def test_the_doctor_knows_clip_stores_and_traces_that_cannot_be(run: Run, service: HttpService, tmp_path: Path) -> None:
    for url in ("ftp://nowhere/clips", "memory://", "clips"):
        result = run("doctor", config=_configure(tmp_path, service.backend.url, clip_url=url))
        assert "s3://" in _findings(result, "clips", "wrong")[0]["message"], url
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "below"
    tracing = {"exporter": "file", "path": str(below)}
    config = _configure(tmp_path, service.backend.url, clip_url=f"file://{below}", tracing=tracing)
    result = run("doctor", config=config)
    assert "cannot be made" in _findings(result, "clips", "wrong")[0]["message"]
    assert "tracing.path" in _findings(result, "traces", "wrong")[0]["message"]
    good = {"tracing": {"exporter": "file", "path": str(tmp_path / "traces.jsonl")}}
    result = run("doctor", config=_configure(tmp_path, service.backend.url, **good))
    assert _findings(result, "traces", "ok")
    assert not (tmp_path / "traces.jsonl").exists(), "the doctor only looks"


def test_admin_jobs_lists_what_is_not_done_of_all_keys(run: Run, client: TtsClient, tmp_path: Path) -> None:
    done, waiting = _spoken(client), client.create(HANGING)
    _change(tmp_path, "UPDATE jobs SET tenant = 'alice' WHERE id = ?", waiting.id)
    result = run("admin", "jobs")
    assert result.exit_code == 0, result.output
    (listed,) = json.loads(result.stdout)["data"]
    assert (listed["id"], listed["tenant"], listed["status"]) == (waiting.id, "alice", "in_progress")
    assert listed["left_seconds"] > 0
    shown = CliRunner(env={"TTS_CONFIG": str(tmp_path / "serve_config.yaml")}).invoke(
        app, ["admin", "jobs", "--data", str(tmp_path / "data")]
    )
    assert waiting.id in shown.stdout
    assert done.id not in shown.stdout


def test_verify_finds_the_clips_that_do_not_fit_their_manifest(run: Run, client: TtsClient, tmp_path: Path) -> None:
    whole, broken = _spoken(client), _spoken(client, "A second text. It is as short.")
    result = run("admin", "verify")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"jobs": 2, "clips": whole.chunks_total + broken.chunks_total, "problems": []}
    first, second = sorted((tmp_path / "data" / "clips" / broken.id / "clips").iterdir())
    body = bytearray(first.read_bytes())
    body[-1] ^= 1
    first.write_bytes(body)
    second.unlink()
    result = run("admin", "verify")
    assert result.exit_code == 1
    assert json.loads(result.stdout.splitlines()[0])["problems"] == [
        {"job": broken.id, "chunk": 0, "problem": "damaged"},
        {"job": broken.id, "chunk": 1, "problem": "missing"},
    ]
    assert run("admin", "verify", whole.id).exit_code == 0
    assert run("admin", "verify", "job-nobody").exit_code == 4


def test_delete_expired_takes_those_whose_life_is_over_and_no_others(
    run: Run, service: HttpService, client: TtsClient, tmp_path: Path
) -> None:
    kept, over = _spoken(client), _spoken(client, "A second text. It is as short.")
    _change(tmp_path, "UPDATE jobs SET expires_at_ms = 1 WHERE id = ?", over.id)
    assert json.loads(run("admin", "delete-expired").stdout) == {"removed": 1}
    assert json.loads(run("admin", "delete-expired").stdout) == {"removed": 0}
    assert requests.get(f"{service.url}/v1/audio/speech/jobs/{over.id}", timeout=60).status_code == 404
    assert not (tmp_path / "data" / "clips" / over.id).exists()
    assert client.get(kept.id).complete
    assert json.loads(run("admin", "verify").stdout)["clips"] == kept.chunks_total


def test_a_sweep_where_no_ray_is_says_so_at_once() -> None:
    result = CliRunner().invoke(app, ["admin", "sweep", "--address", "127.0.0.1:9"])
    assert result.exit_code == 2
    assert "no Ray can be reached at 127.0.0.1:9" in result.stderr
