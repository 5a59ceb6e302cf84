"""The embedded engine: hibari (English, one voice, on the CPU) behind OpenAI's speech protocol, as plain classes.

Decoration as a deployment happens in ``app.py``. This file must not know Ray, jobs or chunks.

hibari leaves out what it cannot say without an error, and a hole in a recording is worse than a refusal. So text is
first written in letters that hibari knows (:func:`sayable`), and what cannot be written so is refused by name.
"""

import io
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Any

import hibari
import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from deployments.envelopes import error_response
from tts_actors.audio import MEDIA_TYPES, Pcm, encode_file, require_format
from tts_actors.errors import InvalidRequest, ModelNotFound, RequestTooLarge, TtsError, VoiceNotFound

MODEL = "hibari"
VOICE = "heart"

SEED = 20_240_601
"""Of the noise in unvoiced sounds. Any number will do, as long as it stays: equal text, equal bytes."""

SLOWEST, FASTEST = 0.5, 2.0
"""The pace hibari documents; OpenAI's 0.25-4.0 is accepted and clamped to it."""

MAX_PHONEMES = 400
"""One inference. hibari cuts longer sentences at commas only and its memory grows with the square: 1,000 characters
without a comma took 455 MB, 20,000 took 18.6 GB."""

MAX_DIGITS = 24
"""A longer number is read digit by digit: hibari 0.2.1 has no name for numbers of more than 33 digits and fails."""

BODY_BYTES_PER_CHARACTER = 12
"""The most JSON needs for one character: a surrogate pair of two ``\\uXXXX``."""

OTHER_FIELDS_BYTES = 65_536

_WORD = r"(?:[^\W\d_]|['’])"
_NUMBER = re.compile(r"\d(?:[.,]?\d)*")
_LATIN_BASE = re.compile(r"LATIN (SMALL|CAPITAL) (?:LETTER|LIGATURE) ([A-Z]{1,2})(?: WITH .+)?$")
_LONE_GREEK = re.compile(r"(?<![^\W\d_])[\u0391-\u03a9\u03b1-\u03c9](?![^\W\d_])")
_MONEY_BEHIND = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)\s?([€£$₹¥₩])(?!\s?\d)")
_READ_AS = {
    "\u03bc": "\u00b5",  # the Greek letter where the micro sign is meant; Greek words were refused before this
    "\u2103": "\u00b0C",
    "\u2109": "\u00b0F",
    "\u2116": "number ",
}
_NUMERALS_HIBARI_READS = frozenset("¹²³¼½¾")


class UnspeakableText(InvalidRequest):
    """The engine has no sound for this text, or for a part of it. Trying again cannot help."""

    code = "unspeakable_text"

    def __init__(self, message: str, param: str | None = "input") -> None:
        super().__init__(message, param)


class HibariEngine:
    """Loads the voice once (0.3-0.8 s, about 200 MB) and speaks. Same text and speed, same bytes, in any process.

    ``max_characters`` bounds one call. Calls may come from several threads.
    """

    def __init__(self, max_characters: int = 1_000) -> None:
        self.max_characters = max_characters
        self._hibari = hibari.Hibari(voice=VOICE, threads=1)  # threads=2 gives other bytes
        oov = self._hibari.g2p.oov
        self._alphabet = frozenset(oov.cin)
        self._longest_word = int(oov.maxlen)
        self.speak("The lamp is lit.")  # the first call took 400 ms, the next 16 ms: take it here

    def speak(self, text: str, speed: float = 1.0) -> Pcm:
        """Speech of all of ``text``: mono s16 at 24 kHz; ``speed`` is clamped to 0.5-2.0.

        Raises ``RequestTooLarge`` beyond ``max_characters`` and ``UnspeakableText`` if a part would be left out.
        """
        if len(text) > self.max_characters:
            raise RequestTooLarge(
                f"input: {len(text)} characters; the engine takes at most {self.max_characters} in one call", "input"
            )
        speed = min(max(speed, SLOWEST), FASTEST)
        noise = np.random.default_rng(SEED)
        parts = [
            self._hibari.from_ids(self._hibari.ids(phonemes), speed, noise)
            for sentence in self._phonemes(text)
            for phonemes in _inferences(sentence)
        ]
        wave = np.concatenate(parts)
        if not wave.size:
            raise UnspeakableText(_NOTHING_TO_SAY)
        pcm: Pcm = np.rint(np.clip(wave, -1.0, 1.0) * 32_767.0).astype(np.int16)
        return pcm

    def _phonemes(self, text: str) -> list[str]:
        written = sayable(text, self._alphabet, self._longest_word)
        try:
            sentences: list[str] = self._hibari.phonemize(written)
        except (ValueError, LookupError):  # how hibari 0.2.1 gives up on an odd mixture of digits
            raise UnspeakableText("the engine cannot read a number in this text") from None
        if not any(map(str.isalpha, "".join(sentences))):
            raise UnspeakableText(_NOTHING_TO_SAY)
        return sentences


_NOTHING_TO_SAY = "the engine cannot speak this text: it has no English words or numbers it knows"


def _inferences(phonemes: str) -> Iterator[str]:
    """``phonemes`` in pieces of at most ``MAX_PHONEMES``, cut at the last blank that allows it."""
    while len(phonemes) > MAX_PHONEMES:
        cut = phonemes.rfind(" ", 1, MAX_PHONEMES + 1)
        cut = cut if cut > 0 else MAX_PHONEMES
        yield phonemes[:cut]
        phonemes = phonemes[cut:].lstrip()
    if phonemes:
        yield phonemes


def sayable(text: str, alphabet: Collection[str], longest_word: int) -> str:
    """``text`` in characters that hibari does not drop; ``UnspeakableText`` names a script it cannot speak.

    ``alphabet`` and ``longest_word`` are those of hibari's net for unknown words: it drops other letters (``ợ`` in
    ``Phượng``) and the end of longer words. Other Latin letters become their base letter, lone Greek letters their
    names, digits of other scripts ASCII digits; overlong words and numbers are divided. Symbols stay: they are
    no words, and hibari reads some of them and skips the others.
    """
    text = unicodedata.normalize("NFC", text).replace("](", "] (")  # hibari takes [a](/b/) as "say b"
    text = _LONE_GREEK.sub(lambda found: f" {_greek_name(found[0])} ", text)
    text = "".join(c if c.isascii() else _sayable_character(c, alphabet) for c in text)
    text = _MONEY_BEHIND.sub(r"\2\1", text)
    text = _NUMBER.sub(lambda found: _divided_number(found[0]), text)
    return re.sub(f"{_WORD}{{{longest_word + 1},}}", lambda found: _divided(found[0], longest_word), text)


def _sayable_character(character: str, alphabet: Collection[str]) -> str:
    if character in _READ_AS:
        return _READ_AS[character]
    kind = unicodedata.category(character)
    if kind.startswith("M"):
        return ""  # an accent without a composed letter: the letter itself is spoken
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    if kind in ("No", "Nl") and character not in _NUMERALS_HIBARI_READS:
        return _sayable_numeral(character)
    if not kind.startswith("L"):
        return character
    name = unicodedata.name(character, "")
    if character in alphabet and name.startswith(("LATIN", "MICRO", "FEMININE", "MASCULINE", "MODIFIER")):
        return character
    return _base_letters(character, name)


def _base_letters(character: str, name: str) -> str:
    folded = unicodedata.normalize("NFKD", character)
    base = "".join(c for c in folded if not unicodedata.combining(c))
    if base.isascii():
        return base
    latin = _LATIN_BASE.match(name)
    if latin:
        return latin[2] if latin[1] == "CAPITAL" else latin[2].lower()
    if name.startswith("MODIFIER LETTER"):
        return ""  # a mark of stress or of breath, not a sound of its own
    raise UnspeakableText(
        f"the engine cannot speak this text: it speaks English, and the text has {_script(name)} letters"
    )


def _sayable_numeral(character: str) -> str:
    """``①`` as 1, ``⅓`` as 1/3, ``x⁴`` as x 4; ``㈠`` is refused for its Chinese numeral."""
    plain = unicodedata.normalize("NFKC", character).replace("\u2044", "/")
    if not plain.isascii():
        raise UnspeakableText(
            f"the engine cannot speak this text: it has {_script(unicodedata.name(character, ''))} numerals"
        )
    return f" {plain} "


def _script(name: str) -> str:
    """The script in a Unicode name: its first word, and for phonetic signs that are formally Latin, what they are."""
    first = name.split(" ", 1)[0]
    special = {"LATIN": "phonetic", "CJK": "Chinese (CJK)", "": "unknown"}
    return special.get(first, first.capitalize())


def _greek_name(letter: str) -> str:
    return unicodedata.name(letter).rsplit(" ", 1)[-1].lower().replace("lamda", "lambda")


def _divided_number(number: str) -> str:
    return number if sum(map(str.isdigit, number)) <= MAX_DIGITS else " ".join(number.replace(",", ""))


def _divided(word: str, longest: int) -> str:
    """``word`` in the fewest pieces of about equal length that are not longer than ``longest``."""
    pieces = -(-len(word) // longest)
    size = -(-len(word) // pieces)
    return " ".join(word[start : start + size] for start in range(0, len(word), size))


# -- HTTP ---------------------------------------------------------------------------------------


class _VoiceId(BaseModel):
    id: str


class EngineSpeechBody(BaseModel):
    """OpenAI's speech body, with what this engine makes of absent fields. Fields it does not know are ignored."""

    model: str = MODEL
    input: Annotated[str, Field(min_length=1)]
    voice: str | _VoiceId | None = None
    response_format: str = "wav"
    speed: Annotated[float, Field(ge=0.25, le=4.0, allow_inf_nan=False)] = 1.0

    def check(self) -> None:
        """Raise for a model, voice or format that is not there."""
        voice = self.voice.id if isinstance(self.voice, _VoiceId) else self.voice
        if self.model != MODEL:
            raise ModelNotFound(f"model: there is only {MODEL!r} here", "model")
        if voice not in (None, "", VOICE):
            raise VoiceNotFound(f"voice: there is only {VOICE!r} here", "voice")
        require_format(self.response_format)


def build_engine_api(engine: HibariEngine, *, max_parallel: int = 1) -> FastAPI:
    """The HTTP application of ``engine``; at most ``max_parallel`` calls are synthesised at a time, others wait.

    Bad input is a 4xx in OpenAI's envelope, never a 5xx: 400 ``invalid_request`` or ``unspeakable_text``,
    404 for another model or voice, 413 beyond the engine's bound.
    """
    app = FastAPI(title="Embedded speech engine")
    limiter = CapacityLimiter(max_parallel)
    body_bytes = engine.max_characters * BODY_BYTES_PER_CHARACTER + OTHER_FIELDS_BYTES

    @app.post("/v1/audio/speech", response_class=Response)
    async def speech(request: Request) -> Response:
        body = await _read_speech_body(request, body_bytes)
        audio = await to_thread.run_sync(_synthesise(engine, body), limiter=limiter)
        return Response(audio, media_type=MEDIA_TYPES[body.response_format])

    _add_discovery(app)
    for kind in (TtsError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _answer_error)
    return app


def _add_discovery(app: FastAPI) -> None:
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "hibari-tts"}
        return {"object": "list", "data": [model]}

    @app.get("/v1/audio/voices")
    async def voices() -> dict[str, Any]:
        return {"voices": [{"id": VOICE, "name": VOICE.capitalize(), "language": "en-US"}]}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    return error_response("/v1", error)


async def _read_speech_body(request: Request, most_bytes: int) -> EngineSpeechBody:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > most_bytes:
            raise RequestTooLarge(f"the body has more than {most_bytes} bytes")
    try:
        body = EngineSpeechBody.model_validate_json(bytes(data))
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    body.check()
    return body


def _synthesise(engine: HibariEngine, body: EngineSpeechBody) -> Callable[[], bytes]:
    def work() -> bytes:
        pcm = engine.speak(body.input, body.speed)
        file = io.BytesIO()
        encode_file(body.response_format, [pcm], file)
        return file.getvalue()

    return work
