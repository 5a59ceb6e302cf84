"""The faults: each function makes its jobs, waits for its moment, kills, and says what was there before."""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import requests

from tests.chaos.stage import Row, Stage, story, until

RESUME_SECONDS = 15.0
"""The promise: a job goes on within this time after what it needs is up."""

DELAY_MS = 300
SENTENCES = 32
JOBS = 2
WORKERS = "ray::_synthesize_slice"
ACTORS = "ray::JobActor"


@dataclass
class Strike:
    """What a fault did. ``stored`` are the clips that were there just before: nobody may speak them again.

    ``resumed`` says of a job's rows, before and now, that the job goes on; ``up_at`` is when what it needs was up
    again, and ``resumed_at`` when the fault itself saw it go on. All clocks are monotonic.
    """

    texts: dict[str, str]
    before: list[Row]
    stored: set[tuple[str, int]]
    kills: int
    up_at: float
    resumed: Callable[[Row, Row], bool]
    note: str = ""
    crashes: int = 1
    resumed_at: float | None = None
    within_seconds: float = RESUME_SECONDS
    extra: list[str] = field(default_factory=list)


def claimed_again(before: Row, now: Row) -> bool:
    """A new actor has taken the job."""
    return now.epoch > before.epoch


def goes_on(before: Row, now: Row) -> bool:
    """More chunks are done, or the job is."""
    return now.chunks_completed > before.chunks_completed or now.state == "completed"


def _jobs_under_way(stage: Stage, last: str = "", jobs: int = JOBS) -> dict[str, str]:
    stage.backend.set_faults(delay_ms=DELAY_MS)
    texts = {stage.create(text): text for text in (story(n, SENTENCES, last) for n in range(jobs))}
    until(lambda: all(row.chunks_completed >= 6 for row in stage.rows(list(texts))), "six chunks of each job are done")
    return texts


def _mid_job(stage: Stage, *titles: str, resumed: Callable[[Row, Row], bool]) -> Strike:
    texts = _jobs_under_way(stage)
    before, stored = stage.rows(list(texts)), stage.clips(list(texts))
    kills = stage.kill(*titles)
    return Strike(texts, before, stored, kills, time.monotonic(), resumed)


def job_actor_before_claim(stage: Stage) -> Strike:
    """The job is committed and has an actor, which the locked store keeps from claiming it."""
    stage.backend.set_faults(delay_ms=DELAY_MS)
    for _ in range(5):
        text = story(0, SENTENCES)
        job_id = stage.create(text, f"chaos-{uuid.uuid4().hex}")
        with stage.locked():
            (row,) = stage.rows([job_id])
            if row.state != "queued":  # too late: it was claimed before the lock was ours
                continue
            until(lambda: stage.processes(f"{ACTORS}.run"), "the actor is about to claim the job")
            kills = stage.kill(ACTORS)
        return Strike({job_id: text}, [row], set(), kills, time.monotonic(), claimed_again)
    raise AssertionError("every job was claimed before the store could be locked")


def job_actor_mid_job(stage: Stage) -> Strike:
    return _mid_job(stage, ACTORS, resumed=claimed_again)


def job_actor_before_final_row(stage: Stage) -> Strike:
    """All clips are stored; the locked store keeps the actor from writing the end."""
    texts = _jobs_under_way(stage, "[[delay:2500]] ", jobs=1)
    ids = list(texts)
    until(lambda: all(row.chunks_completed == SENTENCES - 1 for row in stage.rows(ids)), "one chunk is missing")
    with stage.locked():
        until(lambda: len(stage.clips(ids)) == SENTENCES, "the last clips are stored")
        before, stored = stage.rows(ids), stage.clips(ids)
        kills = stage.kill(ACTORS)
    return Strike(texts, before, stored, kills, time.monotonic(), claimed_again)


def worker_before_call(stage: Stage) -> Strike:
    """All permissions to call are taken by another job: the worker of the second one waits for its first."""
    stage.backend.set_faults(delay_ms=0)
    first = "".join(f"The keeper a{letter}o [[delay:9000]] sleeps. " for letter in "abdfgklm")
    texts = {stage.create(first): first}
    until(lambda: stage.backend.stats()["in_flight"] == 8, "the first job has all permissions")
    others = {process.pid for process in stage.processes(WORKERS)}
    second = story(0, SENTENCES)
    texts[stage.create(second)] = second
    fresh = lambda: [p for p in stage.processes(WORKERS) if p.pid not in others]  # noqa: E731
    until(fresh, "the second job has a worker")
    before, stored = stage.rows(list(texts)), stage.clips(list(texts))
    fresh()[0].kill()
    strike = Strike(texts, before, stored, 1, time.monotonic(), goes_on)
    if len(stage.calls()) > 8:
        strike.extra.append("the worker had called already")
    return strike


def worker_after_clip(stage: Stage) -> Strike:
    """Within milliseconds after a clip was put away, before its result can be in the store."""
    texts = _jobs_under_way(stage)
    ids = list(texts)
    earlier = stage.clips(ids)
    workers = stage.processes(WORKERS)
    until(lambda: stage.clips(ids) - earlier, "another clip is stored", pause=0.001)
    stored = stage.clips(ids)
    for worker in workers:
        worker.kill()
    return Strike(texts, stage.rows(ids), stored, len(workers), time.monotonic(), goes_on)


def directory(stage: Stage) -> Strike:
    return _mid_job(stage, "ray::DirectoryActor", resumed=claimed_again)


def pool(stage: Stage) -> Strike:
    return _mid_job(stage, "ray::PoolActor", "ray::BackendPool", resumed=goes_on)


def ingress(stage: Stage) -> Strike:
    """The job is committed; the client's connection ends without an answer. It asks again, with the same key."""
    stage.backend.set_faults(delay_ms=DELAY_MS)
    text, key = story(0, SENTENCES), uuid.uuid4().hex
    link, body = f"{stage.url}/v1/audio/speech/jobs", {"model": "fake-tts", "input": text}
    known = stage.ids()
    answers: list[int] = []

    def ask() -> None:
        with contextlib.suppress(requests.RequestException):
            answers.append(requests.post(link, json=body, headers={"Idempotency-Key": key}, timeout=60).status_code)

    client = threading.Thread(target=ask)
    with contextlib.ExitStack() as halted:
        replicas = stage.processes("ray::ServeReplica:tts:ingress")
        with stage.locked():
            client.start()
            time.sleep(1.0)  # the request is in the replica now, which waits for the store; nothing outside shows it
            halted.enter_context(stage.halted("ray::ProxyActor"))  # no answer gets out any more
        until(lambda: stage.ids() - known, "the job is committed", pause=0)
        # The proxy too: what the replica may have sent lies in its socket, and would be delivered when it goes on.
        doors = replicas + stage.processes("ray::ProxyActor")
        for process in doors:
            process.kill()
        killed_at = time.monotonic()
    (job_id,) = stage.ids() - known
    (row,) = stage.rows([job_id])
    # No replica is needed for that; the next one is up later.
    until(lambda: goes_on(row, stage.rows([job_id])[0]), "the job goes on")
    resumed_at = time.monotonic()
    client.join()
    until(stage.ready, "the service is ready again")
    again = requests.post(link, json=body, headers={"Idempotency-Key": key}, timeout=60)
    extra = [] if again.json().get("id") == job_id else [f"the repeated request made another job: {again.text}"]
    if 202 in answers:
        extra.append("the client had its answer: the kill came too late")
    return Strike({job_id: text}, [row], set(), len(doors), killed_at, goes_on, resumed_at=resumed_at, extra=extra)


def raylet(stage: Stage) -> Strike:
    return _node(stage, "raylet")


def gcs_server(stage: Stage) -> Strike:
    return _node(stage, "gcs_server")


PATIENCE_SECONDS = 20.0
"""How long a service without one of Ray's own processes is watched before it is started anew."""


def _node(stage: Stage, title: str) -> Strike:
    """Ray's own processes are not restarted by anybody: what runs on may end, then the service is started again."""
    strike = _mid_job(stage, title, resumed=goes_on)
    ids = list(strike.texts)
    give_up = time.monotonic() + PATIENCE_SECONDS
    while stage.alive and time.monotonic() < give_up and any(row.state != "completed" for row in stage.rows(ids)):
        time.sleep(0.1)
    done = sum(row.state == "completed" for row in stage.rows(ids))
    ended = "the runner ended" if not stage.alive else "the runner was still there"
    strike.crashes = 2
    strike.note = f"{ended}, {done} of {len(ids)} jobs done without a restart; service restarted"
    _restart(stage, strike)
    return strike


def service(stage: Stage) -> Strike:
    """Everything at once, as in a power cut that spares the disk."""
    texts = _jobs_under_way(stage)
    strike = Strike(texts, stage.rows(list(texts)), stage.clips(list(texts)), 0, 0.0, claimed_again)
    _restart(stage, strike)
    return strike


def _restart(stage: Stage, strike: Strike) -> None:
    ids = list(strike.texts)
    strike.kills += stage.kill_all()
    promised = [row.promised for row in strike.before]
    strike.before, strike.stored = stage.rows(ids), stage.clips(ids)
    if promised != [row.promised for row in strike.before]:
        strike.extra.append("a deadline or a timeout moved before the restart")
    stage.start()
    strike.up_at = time.monotonic()


FAULTS: dict[str, Callable[[Stage], Strike]] = {
    "job-actor-before-claim": job_actor_before_claim,
    "job-actor-mid-job": job_actor_mid_job,
    "job-actor-before-final-row": job_actor_before_final_row,
    "worker-before-call": worker_before_call,
    "worker-after-clip": worker_after_clip,
    "directory": directory,
    "pool": pool,
    "ingress-before-answer": ingress,
    "raylet": raylet,
    "gcs-server": gcs_server,
    "service": service,
}
