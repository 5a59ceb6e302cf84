"""Debian's chromium on the in-process service. Without chromium these tests are skipped, but never in CI."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.unit.http_service import HttpService, http_service

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
LIMIT_MS = 60_000

KEY = "a-key-of-this-test"
TEXT_LIMIT = 2_000


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("CI") or os.environ.get("PAGE_TESTS_MUST_RUN"):
            pytest.fail("chromium is missing, and in CI these tests must run")
        pytest.skip("chromium is not installed (apt-get install chromium)")
    expect.set_options(timeout=LIMIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with http_service(tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture(scope="package")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    """A service with a key and a low limit on texts."""
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # the keys are read at the start, and no other service may see them
            patch.setenv("TTS_API_KEYS", f"reader:{KEY}")
            limited = http_service(tmp_path_factory.mktemp("keyed"), limits={"max_characters": TEXT_LIMIT})
            running = stack.enter_context(limited)
        yield running


@pytest.fixture
def page(browser: Browser, service: HttpService) -> Iterator[Page]:
    """A page that must stay without console errors, script errors and requests to other hosts."""
    with watched_page(browser, service.url) as page:
        yield page


@contextmanager
def watched_page(browser: Browser, url: str, *, expected: str | None = None) -> Iterator[Page]:
    """The same on another address. ``expected`` begins the one console error that the test brings about itself."""
    problems: list[str] = []
    context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(LIMIT_MS)
    page = context.new_page()

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and not (expected and message.text.startswith(expected)):
            problems.append(message.text)

    def asked(request: Request) -> None:
        if not request.url.startswith(url):
            problems.append(f"a request to {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", asked)
    yield page
    context.close()
    assert problems == []


@pytest.fixture(scope="package")
def axe() -> str:
    """axe-core (MPL-2.0, unmodified, its licence beside it)."""
    return (Path(__file__).parent / "axe" / "axe.min.js").read_text()
