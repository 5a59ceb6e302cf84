"""Ids that a replica fetches ahead, so that accepting a job waits for no actor."""

import asyncio
from typing import Any

import pytest

from tests.unit.local_service import until
from tts_actors.cluster import gateway
from tts_actors.cluster.gateway import Gateway
from tts_actors.config import AppArgs
from tts_actors.messages import Reservation

BACKEND = {"name": "a", "protocol": "openai", "url": "http://127.0.0.1:1/v1"}


async def test_an_id_is_fetched_again_until_a_warm_actor_comes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "FETCH_SECONDS", 0.05)
    monkeypatch.setattr(gateway, "FETCH_AGAIN_SECONDS", 0.01)
    answers = [Reservation("job-1", "me"), Reservation("job-2"), Reservation("job-3"), Reservation("job-4", "me")]
    asked: list[list[bool]] = []

    async def ask(_: Gateway, method: str, ahead: list[bool]) -> list[Reservation]:
        assert method == "reserve"
        asked.append(ahead)
        return [answers.pop(0)]

    monkeypatch.setattr(Gateway, "_ask", ask)
    door = Gateway(AppArgs.model_validate({"backends": [BACKEND]}), 0)
    assert (await door.reserve()).job_id == "job-1"
    await asyncio.sleep(0)
    assert asked == [[False]]  # the job that has this id comes first
    await until(lambda: len(asked) == 4)
    await until(lambda: door._ahead[0] is not None)
    assert await door.reserve() == Reservation("job-4", "me")
    assert asked == [[False], [True], [True], [True]]
    assert door._fetching is not None
    door._fetching.cancel()


async def test_while_there_is_no_warm_actor_ids_are_made_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "FETCH_SECONDS", 60.0)
    monkeypatch.setattr(gateway, "COLD_SECONDS", 0.2)
    asked: list[list[bool]] = []

    async def ask(_: Gateway, method: str, ahead: list[bool]) -> list[Reservation]:
        asked.append(ahead)
        return [Reservation(f"job-{len(asked)}")]

    monkeypatch.setattr(Gateway, "_ask", ask)
    door = Gateway(AppArgs.model_validate({"backends": [BACKEND]}), 0)
    given = [await door.reserve() for _ in range(20)]
    assert asked == [[False]]
    assert len({reservation.job_id for reservation in given}) == 20
    assert {reservation.owner for reservation in given} == {None}
    await asyncio.sleep(0.25)
    assert (await door.reserve()).job_id == "job-2"
    assert door._fetching is not None
    door._fetching.cancel()


async def test_while_there_is_no_warm_actor_jobs_are_told_of_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "FETCH_SECONDS", 60.0)
    monkeypatch.setattr(gateway, "TURN_SECONDS", 0.5)
    told: list[list[str]] = []

    async def ask(_: Gateway, method: str, given: list[Any]) -> list[Reservation] | None:
        if method == "reserve":
            return [Reservation("job-1")]
        told.append([start[0] for start in given])
        return None

    async def start(number: int) -> None:
        await asyncio.sleep(0.02 * number)
        await door.start(f"job-{number}")

    monkeypatch.setattr(Gateway, "_ask", ask)
    door = Gateway(AppArgs.model_validate({"backends": [BACKEND]}), 0)
    await door.start("job-first")
    assert told == [["job-first"]]  # nothing is known yet: at once
    await door.reserve()
    await asyncio.gather(*(start(number) for number in range(10)))
    assert len(told) <= 1 + 4  # at the end of a turn, or of two, and the first of a turn may go alone
    assert sorted(job_id for batch in told[1:] for job_id in batch) == [f"job-{number}" for number in range(10)]
    assert door._fetching is not None
    door._fetching.cancel()
