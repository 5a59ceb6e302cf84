"""One service for all integration tests of a session."""

from collections.abc import Iterator

import pytest

from tests.integration import service as services


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Service]:
    with services.running(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(autouse=True)
def _healthy_backend(request: pytest.FixtureRequest) -> None:
    """Every test starts with a fault server that works and has forgotten what it was asked."""
    if "service" in request.fixturenames:
        running: services.Service = request.getfixturevalue("service")
        running.backend.reset_faults()
        running.backend.clear_calls()
