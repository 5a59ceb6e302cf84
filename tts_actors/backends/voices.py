"""Voice lists in all the shapes that speech servers send; pure."""

from typing import Any


def voice_names(document: Any) -> list[str]:
    """Names in listed order, each once; empty for what is no voice list.

    Understood: a list of strings or of objects with ``id``, ``voice_id`` or ``name``; such a list (or a map) under
    ``voices``, ``data`` or ``items``; a map whose keys are the names, as Piper sends it.
    """
    if isinstance(document, dict):
        for key in ("voices", "data", "items"):
            if isinstance(document.get(key), list | dict):
                return voice_names(document[key])
        maps = [name for name, value in document.items() if isinstance(value, dict)]
        return maps if len(maps) == len(document) and "error" not in document else []
    if not isinstance(document, list):
        return []
    names = (_name(entry) for entry in document)
    return list(dict.fromkeys(name for name in names if name))


def _name(entry: Any) -> str | None:
    if isinstance(entry, dict):
        entry = next((entry[key] for key in ("id", "voice_id", "name") if entry.get(key)), None)
    return entry if isinstance(entry, str) else None
