"""The command line against the real HTTP application over real sockets."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from rich.console import Console
from typer.testing import CliRunner, Result

from tests.unit.http_service import HttpService, http_service
from tts_actors import __version__
from tts_actors.cli import app
from tts_actors.client import TtsClient
from tts_actors.client.progress import clock, show_progress

TEXT = "The lamp is lit. The sea is calm tonight. Nobody sails."
HANGING = "The lamp is lit. The sea is [[fault:hang]] calm tonight."
BROKEN = "The lamp is lit. The sea is [[fault:400]] calm tonight. Nobody sails."

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with http_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def client(service: HttpService) -> Iterator[TtsClient]:
    with TtsClient(service.url) as client:
        yield client


@pytest.fixture
def run(service: HttpService) -> Run:
    """Runs the command line with the service's address in the environment."""

    def run(*args: str | Path, text: str | bytes | None = None, url: str = service.url) -> Result:
        environment = {"TTS_URL": url, "COLUMNS": "200"}
        return CliRunner(env=environment).invoke(app, list(map(str, args)), input=text)

    return run


def submitted(run: Run, text: str, *options: str) -> str:
    result = run("submit", "-", *options, text=text)
    assert result.exit_code == 0, result.output
    return str(result.stdout.strip())


def json_of(result: Result) -> Any:
    assert len(result.stdout.splitlines()) == 1, "one document on stdout and nothing else"
    return json.loads(result.stdout)


def test_say_makes_a_file_and_shows_progress_on_stderr(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "book.txt"
    source.write_text(TEXT, encoding="utf-8-sig")
    result = run("say", source, "-o", tmp_path / "book.mp3")
    assert result.exit_code == 0, result.output
    assert soundfile.info(tmp_path / "book.mp3").frames > 24_000
    assert "book.mp3" in result.stdout
    assert f"{len(TEXT)} characters in 3 chunks" in result.stderr
    assert "completed: 100 %, 3/3 chunks" in result.stderr
    assert "%" not in result.stdout


def test_say_reads_standard_input_and_takes_the_format_from_the_extension(run: Run, tmp_path: Path) -> None:
    result = run("--json", "say", "-", "-o", tmp_path / "out.FLAC", "--speed", "1.5", text=TEXT)
    answer = json_of(result)
    assert answer["job"]["status"] == "completed"
    assert answer["job"]["response_format"] == "flac"
    assert answer["path"] == str(tmp_path / "out.FLAC")
    assert answer["bytes"] == (tmp_path / "out.FLAC").stat().st_size
    assert soundfile.info(answer["path"]).format == "FLAC"


def test_say_fails_when_a_chunk_fails(run: Run, tmp_path: Path) -> None:
    result = run("say", "-", "-o", tmp_path / "out.wav", text=BROKEN)
    assert result.exit_code == 1
    assert "chunk_failed" in result.stderr
    assert "tts-actors retry job-" in result.stderr
    assert list(tmp_path.iterdir()) == []
    assert json_of(run("--json", "say", "-", "-o", tmp_path / "out.wav", text=BROKEN))["path"] is None


def test_say_writes_audio_with_silence_when_that_was_asked_for_and_still_says_so(run: Run, tmp_path: Path) -> None:
    result = run("say", "-", "-o", tmp_path / "out.wav", "--on-chunk-failure", "silence", text=BROKEN)
    assert result.exit_code == 1
    assert "completed_with_gaps" in result.stderr
    assert soundfile.info(tmp_path / "out.wav").frames > 24_000


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"ok \xff", "byte 0xff at offset 3"), (b"\xef\xbb\xbfok \xff", "at offset 6"), (b"", "no text")],
)
def test_a_file_that_is_no_text_is_a_usage_error(run: Run, tmp_path: Path, content: bytes, complaint: str) -> None:
    source = tmp_path / "book.txt"
    source.write_bytes(content)
    result = run("say", source, "-o", tmp_path / "book.mp3")
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "args",
    [
        ("say", "missing.txt", "-o", "out.mp3"),
        ("say", "-", "-o", "out.doc"),
        ("say", "-", "-o", "no/such/directory/out.mp3"),
        ("download", "job-1", "-o", "out.mp3", "--gaps", "noise"),
        ("jobs", "--status", "lost"),
        ("dance",),
    ],
)
def test_wrong_command_lines_are_usage_errors(run: Run, args: tuple[str, ...]) -> None:
    assert run(*args, text=TEXT).exit_code == 2


def test_a_service_that_is_away_is_exit_code_3(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    for args in (("say", "-", "-o", str(tmp_path / "out.mp3")), ("status", "job-1"), ("watch", "job-1"), ("jobs",)):
        result = run(*args, text=TEXT, url=url)
        assert result.exit_code == 3, args
        assert url in result.stderr
    assert json_of(run("--json", "jobs", url=url))["error"]["code"] == "unreachable"


def test_refusals_are_exit_code_4(run: Run, tmp_path: Path) -> None:
    result = run("--json", "status", "job-unknown")
    assert result.exit_code == 4
    assert json_of(result)["error"] == {
        "code": "not_found",
        "message": "there is no such job",
        "param": "job_id",
        "status": 404,
    }
    result = run("say", "-", "-o", tmp_path / "out.mp3", "--speed", "7", text=TEXT)
    assert result.exit_code == 4
    assert "speed" in result.stderr
    assert "Traceback" not in result.output


def test_a_submitted_job_can_be_watched_shown_and_fetched(run: Run, tmp_path: Path) -> None:
    job_id = submitted(run, TEXT, "--format", "wav", "--job-id", "my-book")
    assert job_id == submitted(run, TEXT, "--format", "wav", "--job-id", "my-book") == "my-book"
    watched = run("watch", job_id, "--json")
    changes = [json.loads(line) for line in watched.stdout.splitlines()]
    assert watched.exit_code == 0
    assert {change["id"] for change in changes} == {job_id}
    assert changes[-1]["status"] == "completed"
    assert "3 of 3 chunks" in run("watch", job_id).stdout
    assert json_of(run("status", job_id, "--json"))["progress"] == 1.0
    assert run("download", job_id, "-o", tmp_path / "out.wav").exit_code == 0
    fetched = json_of(run("download", job_id, "-o", tmp_path / "out.bin", "--format", "mp3", "--json"))
    assert fetched["bytes"] == (tmp_path / "out.bin").stat().st_size
    assert json.loads(run("manifest", job_id).stdout)["coverage"] == 1.0


def test_jobs_are_listed_in_pages(run: Run) -> None:
    made = [submitted(run, f"Text number {n}.") for n in range(3)]
    page = json_of(run("--json", "jobs", "--limit", "2"))
    assert [job["id"] for job in page["data"]] == made[:0:-1]
    assert page["has_more"] is True
    shown = run("jobs", "--limit", "1", "--after", made[1])
    assert made[0] in shown.stdout
    assert made[1] not in shown.stdout


def test_a_job_can_be_cancelled_and_deleted(run: Run) -> None:
    job_id = submitted(run, HANGING)
    assert json_of(run("cancel", job_id, "--json"))["status"] == "cancelled"
    assert run("watch", job_id).exit_code == 1
    assert json_of(run("--json", "delete", job_id)) == {"id": job_id, "deleted": True}
    assert run("status", job_id).exit_code == 4


def test_a_failed_job_can_be_retried_and_its_gaps_are_exit_code_1(run: Run, tmp_path: Path) -> None:
    job_id = submitted(run, BROKEN, "--on-chunk-failure", "silence")
    assert run("watch", job_id).exit_code == 1
    result = run("download", job_id, "-o", tmp_path / "out.mp3")
    assert result.exit_code == 1
    assert "gaps=silence" in result.stderr
    assert run("download", job_id, "-o", tmp_path / "out.mp3", "--gaps", "silence").exit_code == 0
    assert json_of(run("retry", job_id, "--json"))["id"] == job_id
    assert run("retry", submitted(run, TEXT)).exit_code == 4


@pytest.mark.parametrize("cancels", [False, True])
def test_an_interrupt_leaves_the_job_unless_told_otherwise(
    service: HttpService, client: TtsClient, tmp_path: Path, cancels: bool
) -> None:
    command = [sys.executable, "-m", "tts_actors.cli", "say", "-", "-o", str(tmp_path / "out.mp3")]
    environment = {**os.environ, "TTS_URL": service.url, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command + ["--cancel-on-interrupt"] * cancels,
        env=environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(HANGING)
        process.stdin.close()
        job_id = process.stderr.readline().split()[1].rstrip(":")
        process.stderr.readline()  # the first line of progress: it is being watched now
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        assert process.wait(30) == 130
    assert client.get(job_id).ended is cancels
    assert (f"tts-actors watch {job_id}" in told) is not cancels
    client.cancel(job_id)
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_gets_a_moving_bar(client: TtsClient) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    job = show_progress(console, client.watch(client.create(TEXT).id))
    assert job.complete
    assert "3/3 chunks" in screen.getvalue()


def test_help_tells_the_exit_codes_and_the_version_is_ours(run: Run) -> None:
    shown = run("--help").output
    assert "Exit codes" in shown
    assert "cannot be reached" in " ".join(shown.split())
    assert run("--version").stdout == f"tts-actors {__version__}\n"
    for command in ("say", "submit", "status", "watch", "download", "cancel", "retry", "delete", "jobs", "manifest"):
        assert "Example: tts-actors" in run(command, "--help").output or command == "submit"


def test_durations_read_like_a_clock() -> None:
    assert [clock(s) for s in (0.4, 61, 3_599.6, 7_322)] == ["0:00", "1:01", "1:00:00", "2:02:02"]
