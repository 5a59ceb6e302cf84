"""The command line, ``tts-actors``: a thin hand on :class:`~tts_actors.client.TtsClient`.

Results go to stdout, everything for a watching person (progress, hints, errors) to stderr. It knows nothing of the
service but what the client tells; ``doctor`` and ``admin`` alone read the service's own YAML and open its stores.
Importing a module of commands adds them to the app.
"""

from tts_actors.cli import admin, backends, doctor, jobs
from tts_actors.cli.frame import app

__all__ = ["admin", "app", "backends", "doctor", "jobs"]
