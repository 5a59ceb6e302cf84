"""``python -m tests.e2e.pictures DIRECTORY``: the page in its states, phone and desktop, light and dark, as PNG files.

``docs/images`` has the first four; the others are for the eyes of whoever changes the page.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.e2e.conftest import CHROMIUM, FLAGS
from tests.e2e.steps import heard, start, status
from tests.unit.http_service import HttpService, http_service

STORY = """The last ferry left at nine, and the harbour went quiet. Only the lamp on the pier kept its slow count.

Ada read the letter again. It was short, and it was kind. "Come when the tide is low," it said, "and bring the dog."

She folded it twice. Outside, the rain had stopped. Somewhere a door closed, and the whole street seemed to listen.

She put on her coat. The dog was waiting at the door already, as he had waited every evening since the summer.

They went down the steps together. The stones were wet and smelled of salt. At the end of the quay a light moved."""
RUNNING = STORY + " It went up, and down, and up again. She knew the step. She had known it for years."
FAULTS = (
    "The lamp is lit. The sea is [[fault:500]] calm. A gull cries. Nobody [[fault:silence*1]] sails. [[fault:400]] No."
)
SCRIPTS = {
    "long-words": f"{'Donaudampfschifffahrtsgesellschaft' * 8} sails. https://example.org/{'a' * 180} is long. " * 3,
    "rtl": "القارب في الميناء. البحر هادئ الليلة.\n\nהמנורה דולקת. הים שקט.\n\nAnd one in English.",
    "chinese": "灯亮了。今晚的海很平静。\n\n谁也没有出海。狗在门口等着。",
}
SIZES = {"desktop": (1280, 1000), "phone": (390, 844)}


def shoot(page: Page, directory: Path, name: str, *, whole: bool = True) -> None:
    """One picture of the page as it is."""
    page.mouse.move(0, 0)
    page.screenshot(path=directory / f"{name}.png", full_page=whole)


def story(page: Page, service: HttpService, directory: Path) -> None:
    """A running job that is heard, on all screens: the pictures of the documentation."""
    service.backend.faults.delay_ms = 500
    page.goto("/")
    start(page, RUNNING)
    expect(page.locator("#reader .c.completed").nth(7)).to_be_attached()
    service.backend.faults.delay_ms = 600_000  # those that come next stay away until the end
    page.get_by_role("button", name="Play").click()
    heard(page, 4)
    page.evaluate("document.getElementById('audio').playbackRate = 0.1")
    scheme: Any
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for screen, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(300)
            shoot(page, directory, f"{screen}-{scheme}", whole=screen == "desktop")
            if screen == "phone":
                shoot(page, directory, f"phone-{scheme}-whole")
    page.get_by_role("button", name="Cancel").click()
    status(page, "cancelled")
    service.backend.faults.delay_ms = 0


def states(browser: Browser, url: str, directory: Path) -> None:
    """The other states, on both screens."""
    for screen, (width, height) in SIZES.items():
        page = browser.new_page(base_url=url, viewport={"width": width, "height": height})
        page.set_default_timeout(120_000)
        page.goto("/")
        expect(page.locator("#backends li")).to_have_count(2)
        shoot(page, directory, f"state-new-{screen}")
        page.get_by_role("button", name="Use a sample").click()
        expect(page.locator("#plan")).to_contain_text("Chunks")
        shoot(page, directory, f"state-plan-{screen}")
        page.locator("#text").fill("It rains. " * 100_001)
        expect(page.locator("#plan-note")).to_contain_text("at most")
        shoot(page, directory, f"state-over-{screen}")
        page.locator("#text").fill("")
        start(page, FAULTS)
        status(page, "failed")
        page.locator("#failures button").first.click()
        shoot(page, directory, f"state-failed-{screen}")
        for name, text in SCRIPTS.items():
            page.goto("/")
            start(page, text)
            status(page, "completed")
            shoot(page, directory, f"state-{name}-{screen}")
        page.goto("/?job=job-unknown")
        status(page, "not here")
        shoot(page, directory, f"state-unknown-{screen}")
        page.close()


def main(directory: Path) -> None:
    """Take all pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, sync_playwright() as playwright:
        second = {"name": "north", "protocol": "openai", "url": "http://127.0.0.1:9/v1", "model": "north-1"}
        slow = {"base_ms": 65_000}  # a job that stands still for its pictures must not time out meanwhile
        with http_service(Path(data), more_backends=[second], timeouts=slow) as service:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            expect.set_options(timeout=60_000)
            first = browser.new_page(base_url=service.url)
            story(first, service, directory)
            first.close()
            states(browser, service.url, directory)
            browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
