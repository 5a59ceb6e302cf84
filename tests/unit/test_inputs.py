"""The kept inputs: the latest stay, the oldest go, whatever was kept again counts once."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.jobs import new_job
from tts_actors import inputs
from tts_actors.inputs import Inputs
from tts_actors.models import Backlog, JobInput, JobRecord
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import migrate

LONG = 3_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlJobStore]:
    url = f"sqlite+aiosqlite:///{tmp_path}/jobs.db"
    await migrate(url)
    opened = SqlJobStore(url)
    yield opened
    await opened.close()


async def _made(store: SqlJobStore, name: str, characters: int = LONG) -> tuple[JobRecord, JobInput]:
    job = new_job(name, characters)
    record, _ = await store.create_job(job, _admit)
    return record, JobInput(job.text, job.plan)


def _admit(_backlog: Backlog) -> int:
    return 0


async def test_the_oldest_go_when_there_are_too_many_characters(
    store: SqlJobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "CACHED_CHARACTERS", 2 * LONG)
    kept = Inputs(store)
    made = [await _made(store, f"job-{number}") for number in range(3)]
    for record, given in made:
        for _ in range(2):  # kept again, it counts once
            assert kept.keep(record, given) is given
    assert await kept.of(made[2][0]) is made[2][1]
    assert await kept.of(made[1][0]) is made[1][1]
    from_the_store = await kept.of(made[0][0])
    assert from_the_store == made[0][1]
    assert from_the_store is not made[0][1]


async def test_many_short_texts_are_bounded_too(store: SqlJobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "CACHED_CHARACTERS", 3_000)
    kept = Inputs(store)
    made = [await _made(store, f"job-{number}", 10) for number in range(4)]
    for record, given in made:
        kept.keep(record, given)
    assert [await kept.of(record) is given for record, given in reversed(made)] == [True, True, True, False]
