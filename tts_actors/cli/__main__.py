"""``python -m tts_actors.cli``."""

from tts_actors.cli import app

app()
