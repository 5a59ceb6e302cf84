"""What the fault-injecting server does wrong, and when: pure decisions, no clock, no socket.

A fault is one word: a status (``500``) or a name from :data:`NAMED_FAULTS`. It comes from the first of these that
applies to a call: a marker in the text, ``always``, ``fail_beyond``, ``fail_first_n_calls``, ``fail_times_per_text``,
``statuses``, ``fail_rate``. Chance is drawn from the seed, the text and how often that text was asked for, so
concurrency and the order of arrival do not change which calls fail.
"""

import hashlib
import random
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAMED_FAULTS: dict[str, str] = {
    "hang": "takes the request and never answers, until the client goes",
    "drop": "closes the connection without an answer",
    "slow_drip": "sends the true answer at bytes_per_second",
    "truncate": "declares the true Content-Length, sends half of it and closes",
    "cut": "a WAV whose header declares twice the samples that follow; Content-Length is honest (pcm: half of it)",
    "short": "a well-formed clip that is far too short for its text: 50 ms",
    "wrong_type": "the type says audio/mpeg, the bytes are WAV",
    "html": "200 with an HTML page",
    "json_error": "200 with a JSON error",
    "garbage": "200 and an audio type with bytes that are no audio format",
    "silence": "a clip of the right length in which every sample is zero",
    "empty": "200 with no bytes of audio at all",
    "clipped": "a clip of the right length in which every sample is at full scale",
}
"""Every fault that is not a status, and what the client sees."""

ERROR_STATUSES = range(400, 600)

_FAULT_MARKER = re.compile(r"\[\[fault:([a-z0-9_]+)(?:\*(\d{1,6}))?\]\]")
_DELAY_MARKER = re.compile(r"\[\[delay:(\d{1,7})\]\]")


def known_fault(name: str) -> str:
    """``name``, if it is a status 400-599 or one of :data:`NAMED_FAULTS`; ``ValueError`` otherwise."""
    if name in NAMED_FAULTS or (name.isascii() and name.isdigit() and int(name) in ERROR_STATUSES):
        return name
    raise ValueError(f"no such fault: a status 400-599 or one of {', '.join(NAMED_FAULTS)}")


FaultName = Annotated[str, AfterValidator(known_fault)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
ErrorStatus = Annotated[int, Field(ge=ERROR_STATUSES.start, lt=ERROR_STATUSES.stop)]


class Faults(BaseModel):
    """Everything that can be wrong with the server. The default is a fast server without faults.

    Assignments are checked, and unknown names are refused: a misspelt fault must not make a test pass.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, coerce_numbers_to_str=True)

    seed: int = Field(0, description="all chance follows from it")

    delay_ms: int = Field(0, ge=0, description="before every answer, faulty ones too")
    jitter_ms: int = Field(0, ge=0, description="0 up to this much more delay, by chance")
    knee: int | None = Field(
        None, ge=1, description="with n > knee calls in flight, delay_ms and jitter grow by n / knee"
    )
    max_concurrency: int | None = Field(
        None, ge=1, description="a call that finds this many in flight gets 429 at once"
    )

    always: FaultName | None = Field(None, description="this fault in every call")
    fail_kind: FaultName = Field("500", description="the fault of the three fields below")
    fail_first_n_calls: int = Field(0, ge=0, description="the first n calls fail")
    fail_times_per_text: int = Field(0, ge=0, description="each text fails n times, then works")
    fail_beyond: int | None = Field(None, ge=1, description="texts of more characters fail with fail_kind")
    speak_at_most: int | None = Field(
        None, ge=1, description="of a longer text only so many characters are spoken, in a well-formed answer"
    )
    statuses: dict[ErrorStatus, Probability] = Field(
        default_factory=dict, description="error statuses with the probability of each (500=0.1,429=0.05)"
    )
    fail_rate: Probability = Field(0.0, description="probability of a fault out of fail_kinds")
    fail_kinds: list[FaultName] = Field(
        default_factory=lambda: ["500"], min_length=1, description="faults of fail_rate (500,hang)"
    )
    text_markers: bool = Field(
        True,
        description="[[fault:NAME]] in a text always fails it, [[fault:NAME*3]] three times; [[delay:MS]] adds delay",
    )

    bytes_per_second: int = Field(2_000, ge=1, description="of slow_drip")
    retry_after: str | None = Field(None, description="Retry-After header of 429 and 503, as sent")

    fixed_audio_ms: int | None = Field(None, ge=1, description="one clip of this length for all texts (benchmarks)")
    log_text: bool = Field(True, description="whether call records carry the text")

    async_202_polls: int | None = Field(None, ge=0, description="raw_tts: answer 202, and 'not yet' to this many polls")
    async_not_yet: Literal[202, 404] = Field(202, description="status of 'not yet'")
    async_error: ErrorStatus | None = Field(None, description="what the last poll answers instead of audio")
    async_id_in: Literal["both", "body", "header"] = Field("both", description="where the 202 has its job id")
    raw_audio_field: Literal["audioContentBase64", "base64Audio"] = "audioContentBase64"


def digest(text: str) -> str:
    """The first 16 hex digits of the text's SHA-256 (UTF-8): what call records identify a text by."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def choose_fault(faults: Faults, text: str, *, call: int, attempt: int) -> str | None:
    """The fault of this call, or None. ``call`` counts all calls, ``attempt`` those for this text; both from 1."""
    marker = _FAULT_MARKER.search(text) if faults.text_markers and "[[" in text else None
    if marker and (marker[2] is None or attempt <= int(marker[2])):
        return known_fault(marker[1])
    if faults.always:
        return faults.always
    if faults.fail_beyond and len(text) > faults.fail_beyond:
        return faults.fail_kind
    if call <= faults.fail_first_n_calls or attempt <= faults.fail_times_per_text:
        return faults.fail_kind
    if faults.statuses or faults.fail_rate:
        return _fault_by_chance(faults, _chance(faults, "fault", text, attempt))
    return None


def _fault_by_chance(faults: Faults, chance: random.Random) -> str | None:
    drawn = chance.random()
    for status, probability in faults.statuses.items():
        if drawn < probability:
            return str(status)
        drawn -= probability
    if chance.random() < faults.fail_rate:
        return chance.choice(faults.fail_kinds)
    return None


def delay_ms_of(faults: Faults, text: str, *, attempt: int, in_flight: int) -> float:
    """How long this call waits before its answer; ``in_flight`` counts this call too."""
    delay = float(faults.delay_ms)
    if faults.jitter_ms:
        delay += faults.jitter_ms * _chance(faults, "delay", text, attempt).random()
    if faults.knee:
        delay *= max(1.0, in_flight / faults.knee)
    marker = _DELAY_MARKER.search(text) if faults.text_markers and "[[" in text else None
    return delay + (int(marker[1]) if marker else 0)


def _chance(faults: Faults, purpose: str, text: str, attempt: int) -> random.Random:
    seed = f"{faults.seed}/{purpose}/{attempt}/{digest(text)}"
    return random.Random(seed)  # noqa: S311 - reproducible chance is the point, nothing is secret
