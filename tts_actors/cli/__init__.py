"""The command line, ``tts-actors``: a thin hand on :class:`~tts_actors.client.TtsClient`.

Results go to stdout, everything for a watching person (progress, hints, errors) to stderr. It knows nothing of the
service but what the client tells. Importing a module of commands adds them to the app.
"""

from tts_actors.cli import backends, jobs
from tts_actors.cli.frame import app

__all__ = ["app", "backends", "jobs"]
