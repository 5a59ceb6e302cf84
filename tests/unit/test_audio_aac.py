"""AAC output: with the ``av`` extra real ADTS frames, finished and live; without it a refusal before any byte.

The extra is not among the development packages: its wheels carry codecs under the GPL. ``make test-aac`` puts it into a
directory of its own and runs this file with it; CI does so too.
"""

import io
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import openai
import pytest
import requests
from openai import OpenAI

from tests.unit.http_service import HttpService, http_service
from tests.unit.job_door.door import RATE_HZ, Door
from tts_actors.audio import MEDIA_TYPES, Pcm, encode_file, open_encoder, tone

TEXT = "The lamp is lit. The sea is calm tonight! Does nobody sail?"
FRAME_SAMPLES = 1_024
PIECES = [tone(f"piece {n}", seconds=seconds) for n, seconds in enumerate((0.5, 0.01, 1.3, 0.0, 0.7))]
with_av = pytest.mark.skipif(
    find_spec("av") is None and not os.environ.get("AAC_TESTS_MUST_RUN"),
    reason="the av extra is not installed: make test-aac",
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with http_service(tmp_path_factory.mktemp("aac")) as running:
        yield running


@pytest.fixture
def client(service: HttpService) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0, timeout=90) as client:
        yield client


def decoded(body: bytes) -> Pcm:
    """The samples of an ADTS stream, through FFmpeg's own decoder."""
    import av

    with av.open(io.BytesIO(body)) as container:
        stream = container.streams.audio[0]
        assert (container.format.name, stream.rate, stream.channels) == ("aac", RATE_HZ, 1)
        parts = [frame.to_ndarray()[0] for frame in container.decode(stream)]
    return np.rint(np.concatenate(parts) * 32_767).astype(np.int16)


def streamed(pieces: list[Pcm]) -> bytes:
    encoder = open_encoder("aac")
    return b"".join([*(encoder.feed(piece) for piece in pieces), encoder.finish()])


def adts_frames(body: bytes) -> int:
    """Frames that follow each other from the first byte to the last, without a gap or a tag between them."""
    at = frames = 0
    while at < len(body):
        assert body[at] == 0xFF
        assert body[at + 1] & 0xF6 == 0xF0
        at += (body[at + 3] & 3) << 11 | body[at + 4] << 3 | body[at + 5] >> 5
        frames += 1
    assert at == len(body)
    return frames


@with_av
def test_it_is_adts_frames_of_the_speech_and_at_most_three_frames_longer() -> None:
    body, joined = streamed(PIECES), np.concatenate(PIECES)
    pcm = decoded(body)
    assert 0 <= pcm.size - joined.size <= 3 * FRAME_SAMPLES
    assert adts_frames(body) * FRAME_SAMPLES == pcm.size
    assert np.corrcoef(pcm[FRAME_SAMPLES : FRAME_SAMPLES + joined.size], joined)[0, 1] > 0.95


@with_av
def test_neither_the_pieces_nor_the_way_of_writing_change_a_byte() -> None:
    joined, file = np.concatenate(PIECES), io.BytesIO()
    encode_file("aac", PIECES, file)
    assert streamed(PIECES) == streamed(np.split(joined, [1, 700, 9_000, 9_001])) == file.getvalue()


@with_av
def test_bytes_flow_before_the_end_and_little_or_nothing_is_still_a_stream() -> None:
    encoder = open_encoder("aac")
    assert len(encoder.feed(tone("x", seconds=1.0))) > 4_000
    del encoder
    for pieces in ([], [np.zeros(0, np.int16)], [PIECES[0][:1]]):
        assert 0 < decoded(streamed(pieces)).size <= 2 * FRAME_SAMPLES
    with pytest.raises(TypeError, match="int16"):
        open_encoder("aac").feed(np.zeros(100, np.float32))


@with_av
@pytest.mark.parametrize("text", [TEXT, TEXT[:16]])
def test_the_speech_door_sends_aac(client: OpenAI, text: str) -> None:
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input=text, response_format="aac")
    assert answer.response.headers["content-type"] == "audio/aac"
    assert decoded(answer.content).size > RATE_HZ * len(text) / 40


@with_av
def test_the_live_stream_is_the_finished_file(service: HttpService) -> None:
    door = Door(service.url)
    job_id = door.create(TEXT, response_format="aac").json()["id"]
    live = door.get(f"/{job_id}/audio?live=1")
    file = door.get(f"/{job_id}/audio")
    assert live.headers["content-type"] == file.headers["content-type"] == "audio/aac"
    assert live.content == file.content
    assert door.get(f"/{job_id}/audio?format=aac", headers={"Range": "bytes=0-99"}).content == file.content[:100]


@pytest.fixture
def without_av(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(MEDIA_TYPES, "aac", raising=False)


@pytest.mark.usefixtures("without_av")
def test_without_the_extra_it_is_refused_with_a_hint_before_any_byte(client: OpenAI, service: HttpService) -> None:
    before = len(service.backend.calls)
    with pytest.raises(openai.BadRequestError, match="'av' extra") as caught:
        client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT, response_format="aac")
    assert (caught.value.param, caught.value.code) == ("response_format", "invalid_request")
    assert len(service.backend.calls) == before


@pytest.mark.usefixtures("without_av")
def test_without_the_extra_neither_a_job_nor_its_file_comes_as_aac(service: HttpService) -> None:
    door = Door(service.url)
    job = door.finished(TEXT)
    refusals: list[tuple[requests.Response, str]] = [
        (door.create(TEXT, response_format="aac"), "response_format"),
        (door.get(f"/{job['id']}/audio?format=aac"), "format"),
        (door.get(f"/{job['id']}/audio?format=aac&live=1"), "format"),
    ]
    for answer, param in refusals:
        error: dict[str, Any] = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, param)
        assert "'av' extra" in error["message"]
