"""Captions from sample counts: order, bounds, offsets, escapes; on scripts that are written in many ways."""

import re

from hypothesis import given
from hypothesis import strategies as st

from tts_actors.captions import Cue, CueState, Sound, caption_cues, caption_entries, srt, vtt
from tts_actors.errors import InvalidRequest
from tts_actors.models import SAMPLE_RATE_HZ, ChunkingMode, SentenceMark
from tts_actors.text import split_text, spoken_text

WORDS = [
    "The lamp is lit.", "Mr. Fox ran!", "مرحبا بالعالم؟", "שלום עולם.", "今日は晴れ。", "यह दीपक है।", "ok 👩‍🚀🇩🇪.",
    "a --> b.", "<i>x</i> & {\\an8} y.", "\u202eabc\u202c.", "e\u0301te\u0301.", "* * *", "…", "3.14", "NOTE this.",
    "\r\n", "\n\n", "  ", "\t", "1\n00:00:01,000 --> 00:00:02,000\nfake.", "สวัสดีชาวโลก", "x" * 60,
]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=12)), min_size=1, max_size=12).map(" ".join)
SRT_TIME = re.compile(r"(\d\d+):(\d\d):(\d\d),(\d{3}) --> (\d\d+):(\d\d):(\d\d),(\d{3})")
VTT_TIME = re.compile(r"(\d\d+):(\d\d):(\d\d)\.(\d{3}) --> (\d\d+):(\d\d):(\d\d)\.(\d{3})")


def mark(sentence: int, chunk: int, start: int, end: int) -> SentenceMark:
    return SentenceMark(sentence, chunk, start, end)


@st.composite
def spoken_jobs(draw: st.DrawFn) -> tuple[str, list[SentenceMark], list[Sound]]:
    """A text, its marks, and sounds for the first of its chunks, some of them failed or empty."""
    text = draw(texts)
    mode = draw(st.sampled_from(ChunkingMode))
    try:
        split = split_text(text, mode=mode, max_characters=draw(st.integers(8, 80)))
    except InvalidRequest:
        split = split_text("ok.", mode=mode, max_characters=8)
        text = "ok."
    sounds, at = [], 0
    for span in split.spans[: draw(st.integers(0, len(split.spans)))]:
        samples = draw(st.one_of(st.just(0), st.integers(1, 40), st.integers(1_000, 200_000)))
        sounds.append(Sound(span.index, at, samples))
        at += samples + draw(st.integers(0, 20_000))
    return text, list(split.marks), sounds


@given(spoken_jobs())
def test_cues_are_in_order_and_within_their_clips(job: tuple[str, list[SentenceMark], list[Sound]]) -> None:
    _, marks, sounds = job
    cues = caption_cues(marks, sounds)
    clips = {sound.index: sound for sound in sounds}
    upto = 0
    for cue in cues:
        own = [m for m in marks if m.sentence_index == cue.sentence]
        assert (cue.char_start, cue.char_end) == (own[0].char_start, own[-1].char_end)
        assert cue.chunks == tuple(m.chunk_index for m in own)
        assert (cue.start is None) == (cue.end is None) == (cue.state is CueState.MISSING)
        if cue.start is None or cue.end is None:
            continue
        assert upto <= cue.start < cue.end
        upto = cue.end
        heard = [clips[n] for n in cue.chunks if n in clips and clips[n].samples]
        assert heard[0].start <= cue.start
        assert cue.end <= heard[-1].start + heard[-1].samples
    assert [cue.sentence for cue in cues] == sorted({m.sentence_index for m in marks if m.chunk_index in clips})


@given(spoken_jobs())
def test_every_clip_is_covered_by_the_cues_of_its_sentences(
    job: tuple[str, list[SentenceMark], list[Sound]],
) -> None:
    _, marks, sounds = job
    cues = [cue for cue in caption_cues(marks, sounds) if cue.start is not None]
    for sound in sounds:
        if sound.samples and any(m.chunk_index == sound.index for m in marks):
            inside = [c for c in cues if sound.index in c.chunks and c.start is not None and c.end is not None]
            assert min(c.start for c in inside if c.start is not None) <= sound.start
            assert max(c.end for c in inside if c.end is not None) >= sound.start + sound.samples


@given(spoken_jobs())
def test_the_offsets_of_entries_cut_the_very_text_out(job: tuple[str, list[SentenceMark], list[Sound]]) -> None:
    text, marks, sounds = job
    for entry in caption_entries(text, caption_cues(marks, sounds)):
        assert entry["text"] == text[entry["char_start"] : entry["char_end"]]
        assert entry["start"] is None or entry["end"] >= entry["start"]


@given(spoken_jobs())
def test_a_subrip_file_reads_back_as_what_was_said(job: tuple[str, list[SentenceMark], list[Sound]]) -> None:
    text, marks, sounds = job
    cues = audible(text, caption_cues(marks, sounds))
    blocks = srt(text, cues).split("\n\n") if cues else []
    assert len(blocks) == len(cues)
    for number, (block, cue) in enumerate(zip(blocks, cues, strict=True), 1):
        head, times, *lines = block.rstrip("\n").split("\n")
        assert head == str(number)
        assert_times(SRT_TIME, times, cue)
        assert len(lines) <= 1
        line = lines[0] if lines else ""
        assert line.replace("\u200b", "") == said(text, cue).replace("\u200b", "")
        assert "-->" not in line
        assert not re.search(r"<[A-Za-z/]|\{\\", line)


@given(spoken_jobs())
def test_a_webvtt_file_reads_back_as_what_was_said(job: tuple[str, list[SentenceMark], list[Sound]]) -> None:
    text, marks, sounds = job
    cues = audible(text, caption_cues(marks, sounds))
    first, *blocks = vtt(text, cues).split("\n\n") if cues else [vtt(text, cues).rstrip("\n")]
    assert first == "WEBVTT"
    assert len(blocks) == len(cues)
    for block, cue in zip(blocks, cues, strict=True):
        head, times, *lines = block.rstrip("\n").split("\n")
        assert head == str(cue.sentence)
        assert_times(VTT_TIME, times, cue)
        line = lines[0] if lines else ""
        assert not set("<>") & set(line)
        assert line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == said(text, cue)


def audible(text: str, cues: list[Cue]) -> list[Cue]:
    """Those that last a millisecond at least and have something to show."""
    timed = [c for c in cues if c.start is not None and c.end is not None and c.end * 1_000 // 24_000 > c.start // 24]
    return [c for c in timed if said(text, c)]


def said(text: str, cue: Cue) -> str:
    return spoken_text(text[cue.char_start : cue.char_end])


def assert_times(pattern: re.Pattern[str], line: str, cue: Cue) -> None:
    found = pattern.fullmatch(line)
    assert found is not None
    h1, m1, s1, f1, h2, m2, s2, f2 = map(int, found.groups())
    assert cue.start is not None
    assert cue.end is not None
    assert ((h1 * 60 + m1) * 60 + s1) * 1_000 + f1 == cue.start * 1_000 // SAMPLE_RATE_HZ
    assert ((h2 * 60 + m2) * 60 + s2) * 1_000 + f2 == cue.end * 1_000 // SAMPLE_RATE_HZ


def test_a_sentence_over_several_chunks_lasts_from_its_first_to_its_last() -> None:
    marks = [mark(0, 0, 0, 10), mark(0, 1, 11, 20), mark(1, 2, 21, 30)]
    first, second = caption_cues(marks, [Sound(0, 0, 1_000), Sound(1, 1_100, 500), Sound(2, 2_000, 400)])
    assert (first.start, first.end, first.exact, first.state) == (0, 1_600, True, CueState.SPOKEN)
    assert (second.start, second.end) == (2_000, 2_400)


def test_sentences_that_share_a_clip_share_its_time_by_their_characters() -> None:
    marks = [mark(0, 0, 0, 30), mark(1, 0, 31, 41)]
    first, second = caption_cues(marks, [Sound(0, 100, 4_000)])
    assert [(c.start, c.end, c.exact) for c in (first, second)] == [(100, 3_100, False), (3_100, 4_100, False)]


def test_a_failed_chunk_leaves_its_sentence_without_a_time() -> None:
    marks = [mark(0, 0, 0, 5), mark(1, 1, 6, 10), mark(1, 2, 11, 15)]
    cues = caption_cues(marks, [Sound(0, 0, 0), Sound(1, 24_000, 0), Sound(2, 48_000, 2_400)])
    assert [(c.start, c.end, c.state.value) for c in cues] == [(None, None, "missing"), (48_000, 50_400, "partial")]
    assert srt("a" * 15, cues).count("-->") == 1


def test_a_running_job_has_cues_for_what_is_ready_and_none_for_what_is_not() -> None:
    marks = [mark(0, 0, 0, 5), mark(1, 1, 6, 10), mark(1, 2, 11, 15), mark(2, 3, 16, 20)]
    cues = caption_cues(marks, [Sound(0, 0, 2_400), Sound(1, 4_800, 2_400)])
    assert [(c.sentence, c.state.value, c.end) for c in cues] == [(0, "spoken", 2_400), (1, "partial", 7_200)]


def test_hours_are_counted_on() -> None:
    day = 100 * 3_600 * SAMPLE_RATE_HZ
    assert "100:00:00,000 --> 100:00:01,500" in srt("Hi", caption_cues([mark(0, 0, 0, 2)], [Sound(0, day, 36_000)]))
