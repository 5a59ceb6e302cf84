"""Debian's chromium on the in-process service. Without chromium these tests are skipped, but never in CI."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from tests.unit.http_service import HttpService, http_service

CHROMIUM = shutil.which("chromium")
LIMIT_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("CI") or os.environ.get("PAGE_TESTS_MUST_RUN"):
            pytest.fail("chromium is missing, and in CI these tests must run")
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpService]:
    with http_service(tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture
def context(browser: Browser, service: HttpService) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=service.url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(LIMIT_MS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, service: HttpService) -> Iterator[Page]:
    """A page that must stay without console errors, script errors and requests to other hosts."""
    problems: list[str] = []
    page = context.new_page()

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error":
            problems.append(message.text)

    def asked(request: Request) -> None:
        if not request.url.startswith((service.url, "blob:", "data:")):
            problems.append(f"a request to {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", asked)
    yield page
    assert problems == []


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core (MPL-2.0, unmodified, its licence beside it)."""
    return (Path(__file__).parent / "axe" / "axe.min.js").read_text()
