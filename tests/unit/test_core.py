"""The pure rules: timeouts, retries, states, ledger, errors, configuration."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.jobs import failed, plan_of, spoken
from tts_actors import errors
from tts_actors.config import AppArgs
from tts_actors.errors import Conflict
from tts_actors.ledger import Ledger
from tts_actors.models import JobPlan, JobState, OnChunkFailure, Priority, SpeechRequest
from tts_actors.states import ACTIVE, TERMINAL, TRANSITIONS, check_transition, mermaid
from tts_actors.timeouts import TimeoutPolicy

BACKEND = {"name": "a", "protocol": "openai", "url": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize(
    ("characters", "timeout_ms"),
    [(0, 10_000), (1, 10_035), (100, 13_500), (1_857, 74_995), (1_858, 75_000), (10**9, 75_000)],
)
def test_the_timeout_formula_gives_the_original_figures(characters: int, timeout_ms: int) -> None:
    assert TimeoutPolicy().timeout_ms(characters) == timeout_ms


@given(
    st.builds(
        TimeoutPolicy,
        base_ms=st.integers(0, 10**5),
        per_character_ms=st.integers(0, 500),
        backend_cap_ms=st.integers(0, 10**5),
        margin_ms=st.integers(0, 10**4),
        cap_ms=st.integers(1, 10**5),
    ),
    st.lists(st.integers(1, 5_000), min_size=1, max_size=50),
)
def test_the_longest_chunk_decides_what_the_job_is_promised(policy: TimeoutPolicy, lengths: list[int]) -> None:
    promised = policy.timeout_ms(max(lengths))
    assert promised == max(policy.timeout_ms(length) for length in lengths)


def test_the_maximum_of_the_results_is_what_was_promised_before_the_fan_out() -> None:
    plan = plan_of(10, 500, 30)
    ledger = Ledger(plan, OnChunkFailure.SILENCE)
    ledger.record([spoken(s.index, plan.timeouts.timeout_ms(s.characters)) for s in plan.spans])
    assert ledger.orchestrator_timeout_ms() == plan.orchestrator_timeout_ms == 27_500


def test_a_job_is_complete_only_when_every_chunk_has_a_clip() -> None:
    ledger = Ledger(plan_of(10, 20), OnChunkFailure.FAIL)
    ledger.record([spoken(1)])
    assert ledger.verdict() is None
    assert ledger.outstanding() == [0]
    ledger.record([spoken(0)])
    assert ledger.verdict() is JobState.COMPLETED
    assert ledger.counts(0).characters_done == 30


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [(OnChunkFailure.FAIL, JobState.FAILED), (OnChunkFailure.SILENCE, JobState.COMPLETED_WITH_GAPS)],
)
def test_one_failed_chunk_decides_as_the_caller_asked(policy: OnChunkFailure, verdict: JobState) -> None:
    ledger = Ledger(plan_of(10, 20), policy)
    ledger.record([spoken(0), failed(1)])
    assert ledger.verdict() is verdict
    failure = ledger.first_failure()
    assert failure is not None
    assert failure.index == 1


def test_a_job_of_gaps_alone_has_failed() -> None:
    ledger = Ledger(plan_of(10), OnChunkFailure.SILENCE)
    ledger.record([failed(0)])
    assert ledger.verdict() is JobState.FAILED


def test_the_first_result_of_a_chunk_wins() -> None:
    ledger = Ledger(plan_of(10, 20), OnChunkFailure.FAIL)
    assert ledger.record([spoken(0, samples=100)])
    assert ledger.record([spoken(0, samples=999), failed(0)]) == []
    assert ledger.counts(0).audio_samples == 100


def test_terminal_states_lead_nowhere_but_to_expiry_or_a_retry() -> None:
    assert set(JobState) == ACTIVE | TERMINAL
    for state in TERMINAL:
        assert TRANSITIONS[state] <= {JobState.QUEUED, JobState.EXPIRED}
    with pytest.raises(Conflict, match="completed cannot become in_progress"):
        check_transition(JobState.COMPLETED, JobState.IN_PROGRESS)


def test_the_documented_state_diagram_is_the_table() -> None:
    documented = Path(__file__).parents[2].joinpath("docs", "architecture.md").read_text()
    assert f"```mermaid\n{mermaid()}\n```" in documented


def _instances() -> list[errors.TtsError]:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.TtsError)]
    return [kind("message") for kind in kinds]


@pytest.mark.parametrize("error", _instances(), ids=lambda error: type(error).__name__)
def test_errors_cross_processes_whole(error: errors.TtsError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == "message"


def test_requests_and_plans_survive_their_json() -> None:
    request = SpeechRequest("m", "v", priority=Priority.BATCH, metadata={"a": "ü"}, ttl_seconds=5)
    assert SpeechRequest.from_json(request.to_json()) == request
    plan = plan_of(10, 20, 30)
    assert JobPlan.from_json(plan.to_json()) == plan


def test_a_typo_in_the_configuration_names_the_field() -> None:
    with pytest.raises(ValidationError, match=r"limits\.max_charcters"):
        AppArgs.model_validate({"backends": [BACKEND], "limits": {"max_charcters": 5}})
    with pytest.raises(ValidationError, match=r"names must be unique"):
        AppArgs.model_validate({"backends": [BACKEND, BACKEND]})
    with pytest.raises(ValidationError, match=r"backends\.0\.protocol"):
        AppArgs.model_validate({"backends": [BACKEND | {"protocol": "soap"}]})


def test_unfilled_placeholders_become_port_8000_and_the_data_folder() -> None:
    args = AppArgs.model_validate({"backends": [BACKEND | {"url": "http://127.0.0.1:{PORT}/v1"}]})
    assert args.backends[0].url == "http://127.0.0.1:8000/v1"
    assert args.store_url.endswith("/data/jobs.db")
    assert "{" not in args.store_url + args.clip_url
