"""Adapters of the store seams: SQL for jobs, object storage for clips."""

from tts_actors.stores.clips import ObjectClipStore
from tts_actors.stores.fitness import check_stores, check_writable
from tts_actors.stores.jobs import SqlJobStore
from tts_actors.stores.migrate import migrate

__all__ = ["ObjectClipStore", "SqlJobStore", "check_stores", "check_writable", "migrate"]
