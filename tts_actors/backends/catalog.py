"""Which backend can speak which model with which voice, and under which names; pure."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tts_actors.config import AliasArgs, BackendArgs
from tts_actors.errors import ModelNotFound, VoiceNotFound
from tts_actors.models import Loudness, SpeechRequest

OPENAI_MODELS = frozenset({"tts-1", "tts-1-hd", "gpt-4o-mini-tts"})
"""Model names that clients of OpenAI send; every backend's own model answers to them."""

OPENAI_VOICES = frozenset(
    ["alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse"]
)
"""Voice names that clients of OpenAI send; they map to a backend's ``default`` voice unless it has its own."""


ROUTES_REMEMBERED = 1_000
"""Looking one up costs 30 us, three times in every acceptance."""

DEFAULT_VOICE = "default"
"""What a caller who names no voice gets: the backend's voice of that name, or its first."""


@dataclass(frozen=True, slots=True)
class Route:
    """The backends that can serve a request: name -> (model, voice) in that backend's own words.

    ``chunk_characters`` is what the weakest of them takes in one call, ``concurrency`` the calls at once of all;
    ``speeds`` are each one's slowest and fastest, ``hedged`` those whose slow calls are made elsewhere too.
    """

    targets: dict[str, tuple[str, str]]
    chunk_characters: int
    concurrency: int
    speeds: dict[str, tuple[float, float]] = field(default_factory=dict)
    hedged: frozenset[str] = frozenset()

    def speed_at(self, backend: str, speed: float) -> float:
        """The speed nearest to ``speed`` that the backend speaks itself."""
        slowest, fastest = self.speeds.get(backend, (speed, speed))
        return min(max(speed, slowest), fastest)

    def settled(self, request: SpeechRequest) -> SpeechRequest:
        """The request with its loudness decided: what is spoken must not change with the configuration meanwhile."""
        if request.loudness is not Loudness.AUTO:
            return request
        return replace(request, loudness=Loudness.ON if len(self.targets) > 1 else Loudness.OFF)


class Catalog:
    """Looks up backends by the caller's model and voice."""

    def __init__(self, backends: Sequence[BackendArgs], aliases: AliasArgs | None = None) -> None:
        self._backends = tuple(backends)
        self._aliases = aliases or AliasArgs()
        self._routes = functools.lru_cache(ROUTES_REMEMBERED)(self._route)

    def models(self) -> list[str]:
        """Models by their real names, without aliases, in configured order."""
        return list(dict.fromkeys(b.model for b in self._backends if b.model is not None))

    def has_model(self, model: str) -> bool:
        """If a backend answers to this model name, alias or real."""
        real = self._aliases.models.get(model, model)
        return any(_model_at(backend, real) is not None for backend in self._backends)

    def voices(self, model: str | None = None) -> list[str]:
        """Voices of the backends that have ``model`` (None: of all), in configured order."""
        names: dict[str, None] = {}
        model = None if model is None else self._aliases.models.get(model, model)
        for backend in self._backends:
            if model is None or _model_at(backend, model) is not None:
                names.update(dict.fromkeys([*backend.voices, *backend.voices.values()]))
        return list(names)

    def route(self, model: str, voice: str | None) -> Route:
        """The backends for a request. Raises :class:`ModelNotFound` or :class:`VoiceNotFound`."""
        return self._routes(model, voice)

    def _route(self, model: str, voice: str | None) -> Route:
        model = self._aliases.models.get(model, model)
        voice = None if voice is None else self._aliases.voices.get(voice, voice)
        with_model = [(b, name) for b in self._backends if (name := _model_at(b, model)) is not None]
        if not with_model:
            raise ModelNotFound(
                f"no backend has the model {_shown(model)}; there are: {', '.join(self.models())}", "model"
            )
        targets = {
            backend.name: (model_name, voice_name)
            for backend, model_name in with_model
            if (voice_name := _voice_at(backend, voice)) is not None
        }
        if not targets:
            known = ", ".join(self.voices(model))
            raise VoiceNotFound(f"no backend has the voice {_shown(voice)}; there are: {known}", "voice")
        usable = [backend for backend, _ in with_model if backend.name in targets]
        return Route(
            targets=targets,
            chunk_characters=min(backend.max_characters for backend in usable),
            concurrency=sum(backend.max_concurrency for backend in usable),
            speeds={backend.name: backend.speeds for backend in usable},
            hedged=frozenset(backend.name for backend in usable if backend.hedge),
        )


def _model_at(backend: BackendArgs, model: str) -> str | None:
    if backend.model is None:
        return model
    if model == backend.model or model in OPENAI_MODELS:
        return backend.model
    return None


def _voice_at(backend: BackendArgs, voice: str | None) -> str | None:
    if not backend.voices:
        return voice or DEFAULT_VOICE
    if voice in backend.voices:
        return backend.voices[voice]
    if voice is not None and voice in backend.voices.values():
        return voice
    if voice in (None, DEFAULT_VOICE) or voice in OPENAI_VOICES:
        return backend.voices.get(DEFAULT_VOICE) or next(iter(backend.voices.values()))
    return None


def _shown(name: str | None) -> str:
    """A caller's word, fit for a message: short and printable."""
    return repr((name or "")[:64])
