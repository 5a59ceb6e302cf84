"""Unit tests start no Ray (who does has put code into the wrong layer) and answer for their own garbage."""

import gc
from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a unit test started Ray")

    monkeypatch.setattr(ray, "init", refuse)


@pytest.fixture(autouse=True, scope="module")
def _own_garbage() -> Iterator[None]:
    """What a file leaves unclosed fails there, and not in the next test that happens to allocate much."""
    yield
    gc.collect()
