"""The fault-injecting server in a process of its own: it serves, obeys, and never outlives whoever started it."""

import os
import signal
import subprocess
import sys
import time

import aiohttp
import pytest

from tts_actors.testing import FakeBackendProcess, Faults
from tts_actors.testing.fake_backend import main

TEXT = "The lamp was lit at dusk, and the keeper slept."
SPEECH = "/v1/audio/speech"


async def test_the_process_serves_obeys_and_ends() -> None:
    with FakeBackendProcess(Faults(always="503", retry_after="2")) as backend:
        async with aiohttp.ClientSession() as http:
            async with http.post(backend.url + SPEECH, json={"input": TEXT}) as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "2")
            backend.reset_faults()
            backend.set_faults(fixed_audio_ms=100)
            async with http.post(backend.url + SPEECH, json={"input": TEXT, "response_format": "pcm"}) as response:
                assert len(await response.read()) == 4_800
            assert [call["status"] for call in backend.calls()] == [503, 200]
            assert backend.stats()["completed"] == 2
            backend.clear_calls()
            assert backend.calls() == []
            with pytest.raises(ValueError, match="400"):
                backend.set_faults(nonsense=1)
        pid = backend.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_line_takes_every_fault_and_stops_on_a_signal(number: signal.Signals) -> None:
    flags = "--seed 5 --statuses 500=0.1,429=0.2 --fail-kinds hang,500 --async-not-yet 404 --log-text false"
    command = [sys.executable, "-W", "error", "-m", "tts_actors.testing.fake_backend", *flags.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b'"url": "http://127.0.0.1:' in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--always", "nonsense", "no such fault"),
        ("--fail-kinds", "500,nonsense", "no such fault"),
        ("--statuses", "500", "valid number"),
        ("--delay-ms", "long", "valid integer"),
    ],
)
def test_a_wrong_flag_is_a_usage_error(capsys: pytest.CaptureFixture[str], flag: str, value: str, says: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([flag, value])
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"error: {flag}: " in error
    assert says in error


def test_the_process_ends_when_whoever_started_it_dies() -> None:
    script = (
        "import os, sys\n"
        "from tts_actors.testing import FakeBackendProcess\n"
        "backend = FakeBackendProcess().start()\n"
        "print(backend.pid, flush=True)\n"
        "os._exit(1)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=False)
    pid, deadline = int(ended.stdout), time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    """Whether the process is there and not a zombie that nobody has waited for yet."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
