"""Ray's side of the service: actors by name, what is killed and comes back, what is not imported."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import ray
import requests
from ray.exceptions import RayActorError

from tests.integration.service import Service, until
from tts_actors.client import open_job
from tts_actors.cluster.actors import actor_class
from tts_actors.cluster.job_actors import ActorSetup
from tts_actors.cluster.names import DIRECTORY, NAMESPACE
from tts_actors.errors import Conflict, NotFound, StaleEpoch
from tts_actors.job_actor import JobActor

TEXT = "".join(f"This is sentence number {number} of a text. " for number in range(60))


@pytest.fixture(scope="module")
def undisturbed(service: Service) -> bytes:
    """The audio of ``TEXT`` when nothing is killed."""
    service.backend.reset_faults()
    job = service.create(TEXT)
    assert service.job(job["id"], wait=60)["status"] == "completed"
    return service.audio(job["id"])


@pytest.fixture(scope="module")
def _driver(service: Service) -> Iterator[None]:
    """This process joins the service's own Ray."""
    ray.init(
        address=service.ray_option("--gcs-address"), namespace=NAMESPACE, logging_level="ERROR", log_to_driver=False
    )
    yield
    ray.shutdown()


def _actor(name: str) -> Any:
    return ray.get_actor(name, namespace=NAMESPACE)


def _started_actor(name: str) -> Any:
    """The actor once there is one: a job is accepted before its actor is started."""
    give_up = time.monotonic() + 30
    while True:
        try:
            return _actor(name)
        except ValueError:
            assert time.monotonic() < give_up, "the job has no actor"
            time.sleep(0.05)  # it is started by another process


@pytest.mark.usefixtures("_driver")
def test_a_running_jobs_actor_bears_its_id_and_tells_its_timeout(service: Service) -> None:
    service.backend.set_faults(delay_ms=500)
    job = service.create("This is a sentence of a text. " * 20)
    metadata = ray.get(_started_actor(job["id"]).retrieve.remote())
    assert metadata["jobId"] == job["id"]
    assert metadata["orchestratorTimeoutMs"] == job["orchestrator_timeout_ms"]
    assert service.job(job["id"], wait=60)["status"] == "completed"


@pytest.mark.usefixtures("_driver")
def test_a_finished_jobs_actor_retires(service: Service) -> None:
    job = service.create("Short.")
    assert service.job(job["id"], wait=20)["status"] == "completed"

    def retired() -> bool:
        try:
            _actor(job["id"])
        except ValueError:
            return True
        return False

    until(retired, seconds=30)
    assert service.job(job["id"])["status"] == "completed"


def _has_retired(job_id: str) -> bool:
    try:
        _actor(job_id)
    except ValueError:
        return True
    return False


@pytest.mark.usefixtures("_driver")
def test_a_retired_job_is_opened_again_from_python(service: Service) -> None:
    job_id = service.create("Short.")["id"]
    assert service.job(job_id, wait=20)["status"] == "completed"
    until(lambda: _has_retired(job_id))
    actor = open_job(job_id)
    assert ray.get(actor.retrieve.remote())["status"] == "completed"
    with pytest.raises(Conflict, match="the job is completed"):
        ray.get(actor.mark_chunk_failed.remote(0, "too late"))
    until(lambda: _has_retired(job_id))  # the revived one retires too
    ray.get(open_job(job_id).delete.remote())
    assert requests.get(f"{service.url}/v1/audio/speech/jobs/{job_id}", timeout=30).status_code == 404
    until(lambda: _has_retired(job_id))
    with pytest.raises(NotFound):
        open_job(job_id)


@pytest.mark.usefixtures("_driver")
def test_a_running_job_takes_writes_from_python(service: Service) -> None:
    service.backend.set_faults(delay_ms=60_000)
    job_id = service.create("This is a sentence of a text. " * 100, on_chunk_failure="silence")["id"]
    actor = _started_actor(job_id)
    until(lambda: service.backend.stats()["calls"] > 0)
    ray.get(actor.store_metadata.remote({"shelf": "7"}))
    ray.get(actor.mark_chunk_failed.remote(99, "nobody can say this"))
    assert ray.get(actor.retrieve_chunk.remote(99)).error == "nobody can say this"
    assert service.job(job_id)["metadata"] == {"shelf": "7"}
    assert ray.get(actor.update_status.remote("cancelled")) == "cancelled"
    assert service.job(job_id)["status"] == "cancelled"


@pytest.mark.long
@pytest.mark.usefixtures("_driver")
def test_thirty_jobs_leave_no_actor_behind_but_the_warm_spares(service: Service) -> None:
    (directory,) = _processes(service, "ray::DirectoryActor")
    files, memory_bytes = directory.num_fds(), directory.memory_info().rss
    jobs = [service.create(f"Job number {number}.")["id"] for number in range(30)]
    assert {service.job(job_id, wait=60)["status"] for job_id in jobs} == {"completed"}

    def only_spares() -> bool:
        figures = ray.get(_actor(DIRECTORY).figures.remote())
        busy = figures["active"] + figures["finished"]
        return busy == 0 and len(_processes(service, "ray::JobActor")) <= figures["spares"] + figures["reserved"]

    until(only_spares, seconds=60)
    assert directory.num_fds() - files <= 16  # docs/operations.md has the bound for 300 jobs
    assert directory.memory_info().rss - memory_bytes <= 16 * 2**20
    assert requests.get(f"{service.url}/readyz", timeout=30).json()["details"] == {"unattended_jobs": 0}


def _processes(service: Service, title: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(service.process.pid).children(recursive=True):
        try:
            if title in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _process_of(job_id: str) -> psutil.Process:
    """The job's actor. (Its title names the call that came last, or none.)"""
    return psutil.Process(ray.get(_started_actor(job_id).__ray_call__.remote(lambda _: os.getpid())))


def _stored(service: Service, job_id: str) -> set[int]:
    """Chunks of ``TEXT`` that have a clip now."""
    return {int(path.name[:6]) for path in service.folder.rglob(f"{job_id}/clips/*.wav")}


def _none_was_spoken_again(service: Service, stored: set[int]) -> None:
    """Of ``stored`` none, of the others each once more at most."""
    times = Counter(call["text"] for call in service.backend.calls())
    spoken = [times[f"This is sentence number {number} of a text."] for number in range(60)]
    assert len(stored) >= 8
    assert {spoken[number] for number in stored} == {1}
    assert set(spoken) <= {1, 2}


@pytest.mark.usefixtures("_driver")
def test_a_killed_job_actor_is_replaced_and_no_stored_chunk_is_spoken_twice(
    service: Service, undisturbed: bytes
) -> None:
    service.backend.set_faults(delay_ms=200)
    job = service.create(TEXT)
    until(lambda: service.job(job["id"])["chunks"]["completed"] >= 8)
    stored = _stored(service, job["id"])
    _process_of(job["id"]).kill()
    after = service.job(job["id"], wait=60)
    assert after["status"] == "completed"
    assert after["orchestrator_timeout_ms"] == job["orchestrator_timeout_ms"]
    _none_was_spoken_again(service, stored)
    assert service.audio(job["id"]) == undisturbed


@pytest.mark.usefixtures("_driver")
@pytest.mark.long
def test_a_job_actor_that_stands_still_is_replaced_and_killed(service: Service, undisturbed: bytes) -> None:
    service.backend.set_faults(delay_ms=2_000)  # the job takes 15 s: calls are running when the next actor takes over
    job = service.create(TEXT)
    until(lambda: service.job(job["id"])["chunks"]["completed"] >= 8)
    stopped = _process_of(job["id"])
    stopped.suspend()
    stored: set[int] = set()

    def given_up() -> bool:
        """Looks at the clips before it looks whether nobody else can have made one. (A dead process may wait for its
        parent a while, and its successor does not.)
        """
        nonlocal stored
        there = _stored(service, job["id"])
        with contextlib.suppress(psutil.NoSuchProcess):
            if stopped.status() == psutil.STATUS_STOPPED:
                stored = there
                return False
        return True

    until(given_up, seconds=60)
    assert service.job(job["id"], wait=60)["status"] == "completed"
    _none_was_spoken_again(service, stored)
    assert service.audio(job["id"]) == undisturbed
    assert "job_actor_silent" in service.log


def test_a_killed_chunk_worker_costs_at_most_the_calls_it_had_in_flight(service: Service, undisturbed: bytes) -> None:
    service.backend.set_faults(delay_ms=200)
    job = service.create(TEXT)
    until(lambda: service.job(job["id"])["chunks"]["completed"] >= 8)
    workers = _processes(service, "synthesize_slice")
    assert workers
    for process in workers:
        os.kill(process.pid, signal.SIGKILL)
    assert service.job(job["id"], wait=60)["status"] == "completed"
    assert service.backend.stats()["calls"] <= 60 + 8
    assert service.audio(job["id"]) == undisturbed


def test_a_killed_directory_comes_back_and_its_jobs_go_on(service: Service, undisturbed: bytes) -> None:
    service.backend.set_faults(delay_ms=200)
    job = service.create(TEXT)
    until(lambda: service.job(job["id"])["chunks"]["completed"] >= 8)
    for process in _processes(service, "ray::DirectoryActor"):
        os.kill(process.pid, signal.SIGKILL)
    after = service.job(job["id"], wait=60)
    assert after["status"] == "completed"
    assert service.backend.stats()["calls"] <= 60 + 16
    assert service.audio(job["id"]) == undisturbed
    # The workers that are still there call under the new pool's leases, not under what they may without a pool.
    service.backend.set_faults(always="hang")
    again = service.create("This is a sentence of a text. " * 20)
    until(lambda: service.backend.stats()["in_flight"] == 8)
    requests.post(f"{service.url}{again['links']['cancel']}", timeout=30)


def _kill_pools(service: Service) -> int:
    """Every pool that has come up meanwhile, so that none gets to give out a lease; how many."""
    pools = _processes(service, "ray::PoolActor")
    for process in pools:
        os.kill(process.pid, signal.SIGKILL)
    return len(pools)


@pytest.mark.long
def test_a_killed_pool_is_done_without_and_counts_what_still_runs_when_it_is_back(
    service: Service, undisturbed: bytes
) -> None:
    service.backend.set_faults(delay_ms=700)
    jobs = [service.create(TEXT)["id"] for _ in range(3)]
    until(lambda: service.backend.stats()["calls"] >= 24)
    killed = _kill_pools(service)
    killed_at = service.backend.stats()["calls"]

    def three_waves_later() -> bool:
        nonlocal killed
        killed += _kill_pools(service)
        # (Ray needs two to three seconds to bring one back, and three waves take two.)
        return killed >= 2 and bool(service.backend.stats()["calls"] >= killed_at + 24)

    until(three_waves_later)
    assert {service.job(job_id, wait=60)["status"] for job_id in jobs} == {"completed"}
    assert service.backend.stats()["max_in_flight"] == 8
    assert service.backend.stats()["calls"] == 3 * 60
    assert service.audio(jobs[0]) == undisturbed
    # The new pool has taken all leases back: as many calls at once as ever.
    service.backend.set_faults(always="hang")
    again = service.create("This is a sentence of a text. " * 20)
    until(lambda: service.backend.stats()["in_flight"] == 8)
    requests.post(f"{service.url}{again['links']['cancel']}", timeout=30)


@pytest.mark.long
@pytest.mark.usefixtures("_driver")
def test_of_two_live_actors_of_one_job_the_older_is_fenced_and_stops(service: Service, undisturbed: bytes) -> None:
    service.backend.set_faults(delay_ms=2_000)  # the job takes 15 s: it is still running when the second actor is up
    job_id = service.create(TEXT)["id"]
    older = _started_actor(job_id)
    args, pool = ray.get(_actor(DIRECTORY).__ray_call__.remote(lambda actor: (actor._args, actor._pool)))
    # Only under the service's own name may it claim a job whose lease has not run out.
    open_tools = ActorSetup.of(args, ray.get_runtime_context().get_session_name(), pool).open_tools
    newer = actor_class(JobActor, max_restarts=0).remote(job_id, open_tools)
    ray.get(newer.ready.remote(), timeout=60)
    until(lambda: _epoch(older) == 1)
    verdict = newer.run.remote()
    until(lambda: _epoch(newer) == 2)
    with pytest.raises((StaleEpoch, RayActorError)):  # refused by the store; or it has stopped and is gone already
        ray.get(older.store_metadata.remote({"written": "by the older"}))
    until(lambda: _has_stopped(older))
    job = service.job(job_id, wait=60)
    assert (job["status"], job["chunks"]["completed"], job["metadata"]) == ("completed", 60, {})
    # "in_progress": the sweep may have given the job to a third one, for the directory does not know the second.
    assert ray.get(verdict, timeout=60) in ("completed", "in_progress")
    # Each of the two that were fenced costs what it had in flight then, and what it began until it noticed.
    assert service.backend.stats()["calls"] <= 60 + 2 * (8 + 8)
    assert service.audio(job_id) == undisturbed
    ray.kill(newer)


def _epoch(actor: Any) -> int:
    """Of the claim that the actor holds, or believes to hold; 0 without one."""
    return int(ray.get(actor.__ray_call__.remote(lambda job: job._job.epoch if job._job else 0)))


def _has_stopped(actor: Any) -> bool:
    try:
        return bool(ray.get(actor.__ray_call__.remote(lambda job: job._stopped.is_set())))
    except RayActorError:
        return True


@pytest.mark.usefixtures("_driver")
def test_job_actors_start_without_serve_and_without_a_runtime_environment(service: Service) -> None:
    service.backend.set_faults(delay_ms=500)
    job = service.create("This is a sentence of a text. " * 20)

    def look(_actor: Any) -> tuple[bool, Any]:
        return "ray.serve" in sys.modules, ray.get_runtime_context().runtime_env

    assert ray.get(_started_actor(job["id"]).__ray_call__.remote(look)) == (False, {})
    assert service.job(job["id"], wait=60)["status"] == "completed"


def test_a_chunk_worker_imports_neither_serve_nor_a_web_framework() -> None:
    code = "import sys, tts_actors.cluster.dispatch; print([m for m in ('ray.serve', 'fastapi') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_directory_is_the_only_detached_actor(service: Service) -> None:
    assert len(_processes(service, f"ray::{DIRECTORY}") or _processes(service, "ray::DirectoryActor")) == 1


def test_an_operator_can_have_the_service_sweep_now(service: Service) -> None:
    command = [sys.executable, "-m", "tts_actors.cli", "--json", "admin", "sweep"]
    found = subprocess.run(
        [*command, "--address", service.ray_option("--gcs-address")], capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["active"] >= 0
