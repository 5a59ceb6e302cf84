"""Configuration: the ``args`` of ``serve_config.yaml``, validated as one tree. Unknown fields are errors.

Scale numbers (replicas, requests at once) are not here: they belong to the YAML's ``deployments:``.
"""

import hashlib
import os
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tts_actors.retry import RetryPolicy
from tts_actors.timeouts import TimeoutPolicy

Milliseconds = Annotated[int, Field(ge=0, le=3_600_000)]
Speed = Annotated[float, Field(ge=0.1, le=10, allow_inf_nan=False)]
DEFAULT_PORT = "8000"
DEFAULT_DATA = "./data"
_ENVIRONMENT = re.compile(r"\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


class _Section(BaseModel):
    # Errors without their input: a store's URL may hold a password.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class BackendArgs(_Section):
    """One speech server."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$", description="Unique name")
    protocol: Literal["openai", "raw_tts", "piper_http"] = Field(description="What the server speaks")
    url: str = Field(pattern=r"^https?://", description="Base URL; for openai it ends in /v1")
    model: str | None = Field(None, description="The model to ask for; null: pass the caller's on")
    voices: dict[str, str] = Field(
        default_factory=dict, description="Our voice name -> the server's; empty: pass any voice on"
    )
    max_concurrency: int = Field(4, ge=1, le=10_000, description="Calls at once, over all jobs")
    min_concurrency: int = Field(
        1, ge=1, le=10_000, description="The limit adapts to overload, but not below this (nor above max_concurrency)"
    )
    weight: float = Field(1.0, gt=0, le=1_000, description="Share of the calls relative to other backends")
    max_characters: int = Field(1_500, ge=1, le=100_000, description="Longest text of one call")
    api_key_env: str | None = Field(None, description="Environment variable with this server's key")
    raw_rate_hz: int | None = Field(
        None, ge=8_000, le=192_000, description="Sample rate of headerless PCM answers; null: as declared"
    )
    max_reply_bytes: int = Field(64 * 2**20, ge=1_024, description="Largest answer that is read")
    hedge: bool = Field(
        False,
        description="Ask another backend too when a call takes longer than 95 % of its like; at most 5 % more calls",
    )
    speed_range: tuple[Speed, Speed] | None = Field(
        None,
        description="Slowest and fastest `speed` that the server speaks itself; beyond it its audio is time-stretched."
        " [1, 1]: it knows no speed. Null: [0.25, 4], for raw_tts [1, 1]",
    )

    @model_validator(mode="after")
    def _speeds_are_a_range(self) -> Self:
        slowest, fastest = self.speeds
        if slowest > fastest:
            raise ValueError(f"speed_range: the slowest speed comes first, got {slowest} and {fastest}")
        return self

    @property
    def speeds(self) -> tuple[float, float]:
        """The slowest and the fastest speed that the server is asked for."""
        if self.speed_range is not None:
            return self.speed_range
        return (1.0, 1.0) if self.protocol == "raw_tts" else (0.25, 4.0)


class TimeoutArgs(_Section):
    """Numbers of the timeout formula (see ``timeouts.py``), milliseconds."""

    base_ms: Milliseconds = 5_000
    per_character_ms: Annotated[int, Field(ge=0, le=60_000)] = 35
    backend_cap_ms: Milliseconds = 70_000
    margin_ms: Milliseconds = 5_000
    cap_ms: Annotated[int, Field(ge=1, le=3_600_000)] = 75_000

    def policy(self) -> TimeoutPolicy:
        """The policy object that the planner and the workers use."""
        return TimeoutPolicy(**self.model_dump())


class RetryArgs(_Section):
    """Repeats of failed attempts."""

    max_attempts: int = Field(8, ge=1, le=20, description="Calls a chunk at most")
    max_timeouts: int = Field(
        3, ge=1, le=20, description="A chunk's calls together take no longer than so many that run into its timeout"
    )
    base_ms: Milliseconds = 200
    cap_ms: Milliseconds = 5_000
    budget_ratio: float = Field(0.2, ge=0, le=10, description="Retries a backend gets per call, shared")
    outage_ms: int = Field(
        120_000,
        ge=0,
        le=3_600_000,
        description="How long a chunk waits for a backend that is away: refuses connections, answers 429, 502, 503 or"
        " 504, or answers nobody (a model reloads)",
    )

    def policy(self) -> RetryPolicy:
        """The policy object that the planner and the workers use."""
        return RetryPolicy(self.max_attempts, self.base_ms, self.cap_ms, self.outage_ms, self.max_timeouts)


class KeyLimitArgs(_Section):
    """What each key may do (without keys: everybody together). Null is no limit."""

    active_jobs: int | None = Field(None, ge=1, description="Jobs that wait or run")
    characters_per_day: int | None = Field(None, ge=1, description="Characters accepted in one day (UTC)")
    requests_per_minute: int | None = Field(None, ge=1, description="Requests, counted by each HTTP replica")


class LimitArgs(_Section):
    """Bounds; each is named in the answer to a request beyond it."""

    max_characters: int = Field(1_000_000, ge=1, description="Characters of one job")
    max_body_bytes: int = Field(8 * 2**20, ge=1_024, description="Bytes of one request body")
    max_chunks: int = Field(10_000, ge=1, description="Chunks of one job")
    max_active_jobs: int = Field(8, ge=1, description="Jobs with an actor at work")
    max_queued_jobs: int = Field(1_000, ge=0, description="Jobs waiting for an actor")
    spare_actors: int = Field(2, ge=0, le=1_000, description="Actors started ahead, named with fresh job ids")
    max_activations: int = Field(
        5, ge=1, description="A job whose actors die so often without getting a chunk done has failed"
    )
    max_calls_per_job: int = Field(64, ge=1, description="Backend calls at once for one job")
    per_key: KeyLimitArgs = KeyLimitArgs()


class RetentionArgs(_Section):
    """How long things are kept."""

    ttl_seconds: int = Field(604_800, ge=1, description="Life of a finished job and its audio")
    retire_after_seconds: float = Field(30, ge=0, description="Grace of a finished job's actor")


class AuthArgs(_Section):
    """Keys come from the environment or a file, never from the YAML. None configured: open, loopback only."""

    keys_env: str | None = Field("TTS_API_KEYS", description='Variable with "name:key,name:key"')
    keys_file: str | None = Field(None, description="File with one name:key a line")
    allow_open_network: bool = Field(
        False, description="Serve without keys on other addresses than loopback: whoever reaches the port may do all"
    )


class StreamArgs(_Section):
    """Jobs that a speech request makes and hears as they are rendered."""

    grace_seconds: float = Field(60, ge=0, le=86_400, description="Such a job goes on so long when nobody listens")


class AliasArgs(_Section):
    """Other names for models and voices. OpenAI's need none: they mean a backend's own model and default voice."""

    models: dict[str, str] = Field(default_factory=dict, description="Callers' model name -> the real one")
    voices: dict[str, str] = Field(default_factory=dict, description="Callers' voice name -> the real one")


class TracingArgs(_Section):
    """OpenTelemetry traces, from request to backend call. Keys of a collector: ``OTEL_EXPORTER_OTLP_HEADERS``."""

    exporter: Literal["otlp", "file"] | None = Field(None, description="Where traces go; null: nothing is traced")
    endpoint: str | None = Field(
        None, pattern=r"^https?://", description="otlp: the collector's URL; null: OTEL_EXPORTER_OTLP_ENDPOINT decides"
    )
    path: str | None = Field(None, description="file: where to write, one span a line")
    sample_ratio: float = Field(1.0, ge=0, le=1, description="Share of the traces that begin here and are kept")
    service_name: str = Field("tts-actors", min_length=1, max_length=64, description="Name of the service in traces")

    @model_validator(mode="after")
    def _file_has_a_path(self) -> Self:
        if self.exporter == "file" and not self.path:
            raise ValueError("exporter file needs a path")
        return self


class AppArgs(_Section):
    """The whole configuration of the service."""

    store_url: str = Field(
        default_factory=lambda: str(_filled("sqlite+aiosqlite:///{DATA}/jobs.db")),
        description="SQLAlchemy URL of the job store",
    )
    clip_url: str = Field(
        default_factory=lambda: str(_filled("file://{DATA}/clips")), description="URL of the clip store"
    )
    backends: tuple[BackendArgs, ...] = Field(min_length=1, description="One or many speech servers")
    timeouts: TimeoutArgs = TimeoutArgs()
    retry: RetryArgs = RetryArgs()
    limits: LimitArgs = LimitArgs()
    retention: RetentionArgs = RetentionArgs()
    auth: AuthArgs = AuthArgs()
    streams: StreamArgs = StreamArgs()
    aliases: AliasArgs = AliasArgs()
    tracing: TracingArgs = TracingArgs()
    cors_origins: tuple[str, ...] = Field((), description="Origins that browsers may call from")

    @model_validator(mode="before")
    @classmethod
    def _fill_placeholders(cls, values: Any) -> Any:
        return _filled(values)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [backend.name for backend in self.backends]
        if len(set(names)) != len(names):
            raise ValueError(f"backends: names must be unique, got {names}")
        return self

    def fingerprint(self) -> str:
        """Short hash of the whole tree: a deploy with another one replaces the directory."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


def _filled(value: Any) -> Any:
    """Replace placeholders in every string: ``{env:NAME}``, and the two that plain ``serve run`` does not fill in."""
    if isinstance(value, str):
        value = value.replace("{PORT}", DEFAULT_PORT).replace("{DATA}", os.path.abspath(DEFAULT_DATA))
        return _ENVIRONMENT.sub(_from_environment, value)
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item) for item in value]
    return value


def _from_environment(placeholder: re.Match[str]) -> str:
    name = placeholder[1]
    if not os.environ.get(name):
        raise ValueError(f"the environment variable {name} is not set")
    return os.environ[name]
