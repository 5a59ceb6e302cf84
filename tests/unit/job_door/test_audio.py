"""The job door: files in every format, ranges and validators, chunks' audio."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.unit.job_door.door import MEDIA_TYPES, RATE_HZ, Door, problem


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
def test_the_file_decodes_in_every_format_and_is_as_long_as_its_parts(door: Door, done: str, fmt: str) -> None:
    answer = door.get(f"/{done}/audio?format={fmt}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == MEDIA_TYPES[fmt]
    assert int(answer.headers["content-length"]) == len(answer.content)
    if fmt == "pcm":
        frames, rate_hz = len(answer.content) // 2, RATE_HZ
    else:
        samples, rate_hz = soundfile.read(io.BytesIO(answer.content))
        frames = len(samples)
    manifest = door.get(f"/{done}/manifest").json()
    parts = sum(chunk["audio_seconds"] + chunk["pause_seconds"] for chunk in manifest["chunks"])
    padding_seconds = 0.1 if fmt == "mp3" else 0.02  # LAME pads: a decoder delay and up to two frames of 24 ms
    assert -0.02 <= frames / rate_hz - parts <= padding_seconds


@pytest.mark.parametrize("fmt", ["wav", "flac"])
def test_lossless_files_hold_the_very_same_samples(door: Door, done: str, pcm: bytes, fmt: str) -> None:
    samples, rate_hz = soundfile.read(io.BytesIO(door.get(f"/{done}/audio?format={fmt}").content), dtype="int16")
    assert rate_hz == RATE_HZ
    assert samples.astype("<i2").tobytes() == pcm


def test_a_wav_file_declares_its_true_sizes(door: Door, done: str) -> None:
    body = door.get(f"/{done}/audio?format=wav").content
    assert int.from_bytes(body[4:8], "little") == len(body) - 8
    assert int.from_bytes(body[40:44], "little") == len(body) - 44


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
def test_the_job_keeps_the_format_it_was_made_with(door: Door, fmt: str) -> None:
    job = door.finished("Short.", response_format=fmt)
    assert door.get(f"/{job['id']}/audio").headers["content-type"] == MEDIA_TYPES[fmt]


def test_speed_shortens_what_is_spoken(door: Door, done: str, pcm: bytes) -> None:
    fast = door.finished(speed=2)
    assert len(door.get(f"/{fast['id']}/audio?format=pcm").content) < 0.7 * len(pcm)


def borders(door: Door, job_id: str) -> list[int]:
    """Bytes of the pcm output at which speech ends and a pause begins, or the other way round."""
    position, found = 0, []
    for chunk in door.get(f"/{job_id}/manifest").json()["chunks"]:
        for seconds in (chunk["audio_seconds"], chunk["pause_seconds"]):
            position += round(seconds * RATE_HZ) * 2
            found.append(position)
    return found


def test_every_range_of_a_joined_file_is_that_part_of_the_whole(door: Door, done: str, pcm: bytes) -> None:
    spans = [(0, 0), (0, 99), (1, 2), (len(pcm) - 1, len(pcm) - 1)]
    spans += [(at - 101, at + 100) for at in borders(door, done)[:-2]]
    spans += [(at - 1, at) for at in borders(door, done)[:-2]]
    spans += [(borders(door, done)[0] - 5, borders(door, done)[-2] + 5)]
    for first, last in spans:
        part = door.get(f"/{done}/audio?format=pcm", headers={"Range": f"bytes={first}-{last}"})
        whole = pcm[first : last + 1]
        assert (part.status_code, part.content) == (206, whole), (first, last)
        assert part.headers["content-range"] == f"bytes {first}-{first + len(whole) - 1}/{len(pcm)}"
        assert int(part.headers["content-length"]) == len(whole)


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
@pytest.mark.parametrize("asked", ["0-9", "10-", "-100", "40-50", "5-99999999", "-99999999", "0-"])
def test_ranges_of_every_format_are_parts_of_the_whole(door: Door, done: str, fmt: str, asked: str) -> None:
    whole = door.get(f"/{done}/audio?format={fmt}").content
    part = door.get(f"/{done}/audio?format={fmt}", headers={"Range": f"bytes={asked}"})
    first, _, last = asked.partition("-")
    start = int(first) if first else max(0, len(whole) - int(last))
    end = min(int(last) + 1, len(whole)) if first and last else len(whole)
    assert (part.status_code, part.content) == (206, whole[start:end])
    assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{len(whole)}"


@pytest.mark.parametrize("fmt", ["wav", "mp3"])
@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=99999999-100000000", "bytes=-0", f"bytes={'9' * 5_000}-"])
def test_a_range_beyond_the_end_is_refused_with_the_true_size(door: Door, done: str, fmt: str, asked: str) -> None:
    size = len(door.get(f"/{done}/audio?format={fmt}").content)
    answer = door.get(f"/{done}/audio?format={fmt}", headers={"Range": asked})
    problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    "asked",
    ["bytes=9-3", "bytes=-", "bytes=a-b", "lines=1-2", "bytes 1-2", "bytes=0-1,4-5", ""],
    ids=["backwards", "empty", "words", "unit", "syntax", "several", "nothing"],
)
def test_a_range_that_means_nothing_is_ignored(door: Door, done: str, pcm: bytes, asked: str) -> None:
    answer = door.get(f"/{done}/audio?format=pcm", headers={"Range": asked})
    assert answer.status_code == 200
    assert answer.content == pcm
    assert "content-range" not in answer.headers


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
def test_the_etag_stays_and_spares_a_second_transfer(door: Door, done: str, fmt: str) -> None:
    path = f"/{done}/audio?format={fmt}"
    first, second = door.get(path), door.get(path)
    etag = first.headers["etag"]
    assert etag == second.headers["etag"]
    assert first.content == second.content
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = door.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert door.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_formats_and_jobs_have_etags_of_their_own(door: Door, done: str, gappy: str) -> None:
    tags = [door.ask("HEAD", f"/{done}/audio?format={fmt}").headers["etag"] for fmt in MEDIA_TYPES]
    tags += [door.ask("HEAD", f"/{gappy}/audio?format=wav&gaps=silence").headers["etag"]]
    assert len(set(tags)) == len(tags)


def test_if_range_gives_the_part_only_of_the_same_file(door: Door, done: str, pcm: bytes) -> None:
    path = f"/{done}/audio?format=pcm"
    etag = door.ask("HEAD", path).headers["etag"]
    same = door.get(path, headers={"Range": "bytes=4-9", "If-Range": etag})
    assert (same.status_code, same.content) == (206, pcm[4:10])
    for other in ('"other"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        whole = door.get(path, headers={"Range": "bytes=4-9", "If-Range": other})
        assert (whole.status_code, whole.content) == (200, pcm)


@pytest.mark.parametrize("fmt", MEDIA_TYPES)
def test_head_tells_size_and_type_without_the_file(door: Door, done: str, fmt: str) -> None:
    path = f"/{done}/audio?format={fmt}"
    whole, head = door.get(path), door.ask("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]
    assert door.ask("HEAD", path, headers={"Range": "bytes=0-1"}).headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize("path", ["/audio", "/audio?format=wav&gaps=silence", "/manifest"])
def test_before_the_end_the_file_is_not_ready(door: Door, running: str, path: str) -> None:
    answer = door.get(f"/{running}{path}")
    problem(answer, 409, "not_ready")
    assert int(answer.headers["retry-after"]) >= 1


def test_a_file_with_gaps_is_given_only_to_who_accepts_silence(door: Door, gappy: str) -> None:
    error = problem(door.get(f"/{gappy}/audio?format=pcm"), 409, "has_gaps")
    manifest = door.get(f"/{gappy}/manifest").json()
    (gap,) = manifest["gaps"]
    assert str(gap) in error["message"]
    assert "gaps=silence" in error["message"]
    answer = door.get(f"/{gappy}/audio?format=pcm&gaps=silence")
    assert answer.status_code == 200
    samples = np.frombuffer(answer.content, "<i2")
    assert abs(samples.size / RATE_HZ - manifest["audio_seconds"]) < 0.001
    start = round(manifest["chunks"][gap]["audio_start_seconds"] * RATE_HZ)
    assert not samples[start + 5 : start + RATE_HZ - 5].any()
    assert samples[:start].any()
    assert samples[start + RATE_HZ :].any() == (gap + 1 < len(manifest["chunks"]))


def test_a_failed_job_has_a_reason_and_keeps_what_was_spoken(door: Door) -> None:
    job = door.finished("The lamp is lit. The sea [[delay:300]] is [[fault:400]] calm tonight.")
    assert (job["status"], job["error"]["code"]) == ("failed", "chunk_failed")
    assert "HTTP 400" in job["error"]["message"]
    assert door.get(f"/{job['id']}/chunks/0/audio").status_code == 200
    problem(door.get(f"/{job['id']}/audio"), 409, "has_gaps")


def test_silence_alone_is_not_a_file(door: Door) -> None:
    job = door.finished("[[fault:400]] is everything", on_chunk_failure="silence")
    assert job["status"] == "failed"
    problem(door.get(f"/{job['id']}/audio?gaps=silence"), 409, "has_gaps")


def test_a_chunks_audio_comes_alone_and_all_of_them_are_the_file(door: Door, done: str, pcm: bytes) -> None:
    joined = b""
    for index in range(4):
        wav = door.get(f"/{done}/chunks/{index}/audio")
        raw = door.get(f"/{done}/chunks/{index}/audio?format=pcm")
        assert (wav.headers["content-type"], raw.headers["content-type"]) == ("audio/wav", "audio/pcm")
        samples, _ = soundfile.read(io.BytesIO(wav.content), dtype="int16")
        assert samples.astype("<i2").tobytes() == raw.content
        joined += raw.content
    assert joined == pcm


def test_a_chunks_audio_may_be_pending_or_gone(door: Door, running: str, gappy: str) -> None:
    pending = door.get(f"/{running}/chunks/1/audio")
    assert pending.status_code == 202
    assert int(pending.headers["retry-after"]) >= 1
    assert (pending.json()["state"], pending.json()["poll_after_ms"] > 0) == ("pending", True)
    (gap,) = door.get(f"/{gappy}/manifest").json()["gaps"]
    assert "HTTP 400" in problem(door.get(f"/{gappy}/chunks/{gap}/audio"), 410, "chunk_failed")["message"]


def test_a_lost_clip_never_makes_a_short_file(door: Door, directory: Path) -> None:
    job_id = door.finished()["id"]
    clips = sorted((directory / "clips" / job_id / "clips").iterdir())
    clips[2].unlink()
    for path in (*(f"/audio?format={fmt}" for fmt in MEDIA_TYPES), "/chunks/2/audio"):
        answer = door.get(f"/{job_id}{path}")
        problem(answer, 503, "store_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    assert door.get(f"/{job_id}/chunks/1/audio").status_code == 200
