"""Which jobs a tenant may see: its own. Another's is not found, as one that never was."""

import re

from tts_actors.errors import JobExpired, NotFound, RequestMismatch
from tts_actors.models import JobRecord, JobState

JOB_ID = re.compile(r"[A-Za-z0-9._-]{3,64}\Z")
"""What a job id may look like; anything else is not looked up at all."""


def visible(tenant: str, job: JobRecord | None) -> JobRecord:
    """The job, if there is one that this tenant may see and that has not expired."""
    if job is None or job.tenant != tenant:
        raise NotFound("there is no such job", "job_id")
    if job.state is JobState.EXPIRED:
        raise JobExpired("the job has expired and its audio is gone", "job_id")
    return job


def repeated(tenant: str, job: JobRecord, request_hash: str) -> JobRecord:
    """The job, if it was made by this very request."""
    if job.tenant != tenant:  # taken, but by whom or for what is not this caller's to know
        raise NotFound("there is no such job", "job_id")
    if job.request_hash != request_hash:
        raise RequestMismatch("this id or idempotency key belongs to a job with another request", "id")
    return visible(tenant, job)
