"""Voice lists, ``GET /v1/backends``, ``tts-actors backends`` and its doctor."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
import yaml
from typer.testing import CliRunner

from tests.unit.http_service import HttpService, http_service
from tts_actors.backends.probe import Probe
from tts_actors.backends.voices import voice_names
from tts_actors.cli import app
from tts_actors.client import TtsClient
from tts_actors.config import BackendArgs
from tts_actors.errors import BackendError
from tts_actors.testing import Faults, running_backend


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with http_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.mark.parametrize(
    "document",
    [
        ["ann", "bob"],
        {"voices": ["ann", "bob"]},
        {"voices": [{"id": "ann", "name": "Ann"}, {"id": "bob", "name": "Bob"}]},
        {"voices": [{"name": "ann"}, {"voice_id": "bob"}, {"id": 7}]},
        {"data": [{"id": "ann"}, {"id": "bob"}, {"id": "ann"}]},
        {"items": [{"id": "ann"}, {"id": "bob"}]},
        {"ann": {"audio": {"sample_rate": 22_050}}, "bob": {}},
    ],
)
def test_voice_lists_of_every_shape_give_their_names(document: Any) -> None:
    assert voice_names(document) == ["ann", "bob"]


@pytest.mark.parametrize("document", [None, {"error": {"message": "no"}}, {"detail": "not found"}, 7, "ann", [1, {}]])
def test_what_is_no_voice_list_has_no_names(document: Any) -> None:
    assert voice_names(document) == []


def test_operators_see_what_each_backend_does(service: HttpService) -> None:
    with TtsClient(service.url) as client:
        client.wait(client.create("The lamp is lit. [[fault:400]] The sea is calm.").id, 60)
    answer = requests.get(f"{service.url}/v1/backends", timeout=30)
    (figures,) = answer.json()["data"]
    assert figures["errors"] == {"status_400": 1}
    assert figures["p50_ms"] >= 0
    assert {"name": "fake", "protocol": "openai", "healthy": True, "breaker": "closed", "limit": 4}.items() <= (
        figures.items()
    )
    shown = CliRunner().invoke(app, ["--url", service.url, "backends"])
    assert shown.exit_code == 0, shown.output
    assert "fake" in shown.stdout
    assert "status_400 1" in shown.stdout
    as_json = CliRunner().invoke(app, ["--url", service.url, "--json", "backends"])
    assert json.loads(as_json.stdout)["data"][0]["name"] == "fake"


def test_the_doctor_prints_an_entry_that_the_configuration_takes(service: HttpService) -> None:
    result = CliRunner().invoke(app, ["backends", "doctor", service.backend.url, "--no-limits"])
    assert result.exit_code == 0, result.output
    entry = yaml.safe_load(result.stdout[result.stdout.index("backends:") :])["backends"][0]
    backend = BackendArgs.model_validate(entry)
    assert (backend.protocol, backend.url, backend.model) == ("openai", f"{service.backend.url}/v1", "fake-tts")
    assert "wav" in result.stdout.lower()


def test_the_doctor_of_an_address_where_nobody_is_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["backends", "doctor", "http://127.0.0.1:1"])
    assert result.exit_code == 1
    assert "no connection" in result.stderr


def test_the_doctor_has_no_entry_for_a_server_that_spoke_nothing(service: HttpService) -> None:
    service.backend.set_faults(always="html")
    try:
        result = CliRunner().invoke(app, ["backends", "doctor", service.backend.url])
    finally:
        service.backend.set_faults(always=None)
    assert result.exit_code == 1
    assert "no audio" in result.stdout
    assert "HTML" in result.stdout
    assert "backends:" not in result.stdout


@pytest.mark.parametrize(("protocol", "container"), [("openai", "WAV"), ("raw_tts", "raw PCM"), ("piper_http", "WAV")])
async def test_the_probe_understands_each_protocol_that_it_is_told(protocol: Any, container: str) -> None:
    async with running_backend() as backend, aiohttp.ClientSession() as session:
        found = await Probe(session, backend.url, protocol=protocol).run(limits=False)
    assert (found.protocol, found.container, found.problems, len(found.probe_ms)) == (protocol, container, [], 3)
    assert found.url == (f"{backend.url}/v1" if protocol == "openai" else backend.url)


async def test_the_probe_finds_how_many_calls_at_once_are_worth_it() -> None:
    async with running_backend(Faults(max_concurrency=2, delay_ms=100)) as backend, aiohttp.ClientSession() as session:
        found = await Probe(session, backend.url).run()
    assert found.takes_characters == 4_000
    assert found.knee in (1, 2)
    assert any("4 calls at once" in problem for problem in found.problems) or 4 not in found.calls_per_second


async def test_the_probe_tells_of_bad_takes() -> None:
    async with running_backend(Faults(always="html")) as backend, aiohttp.ClientSession() as session:
        found = await Probe(session, backend.url).run()
    assert found.container is None
    assert len(found.problems) == 3


async def test_a_web_page_is_no_speech_server() -> None:
    async with running_backend() as backend, aiohttp.ClientSession() as session:
        with pytest.raises(BackendError, match="no known protocol"):
            await Probe(session, f"{backend.url}/nothing/here").run()


async def test_the_probe_believes_no_audio_that_the_service_would_refuse() -> None:
    async with running_backend(Faults(always="silence")) as backend, aiohttp.ClientSession() as session:
        found = await Probe(session, backend.url).run()
    assert found.container == "WAV"
    assert (found.probe_ms, found.takes_characters, found.knee) == ([], None, None)
    assert all("silent" in problem for problem in found.problems)
    assert len(found.problems) == 3


async def test_the_probe_finds_texts_that_are_not_spoken_to_their_end() -> None:
    async with running_backend(Faults(speak_at_most=600)) as backend, aiohttp.ClientSession() as session:
        found = await Probe(session, backend.url).run()
    assert (found.takes_characters, found.cap_found) == (500, True)
    assert found.problems[0].startswith("a text of 1000 characters: only")


async def test_the_entry_has_the_model_and_the_voice_that_were_asked_for() -> None:
    async with running_backend() as backend, aiohttp.ClientSession() as session:
        found = await Probe(session, backend.url, model="tts-1", voice="alloy").run(limits=False)
    entry = found.entry("mine", None)
    assert (entry["model"], entry["voices"]["default"]) == ("tts-1", "alloy")
    assert entry["voices"]["tone"] == "tone"
