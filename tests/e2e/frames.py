"""``python -m tests.e2e.frames``: does the page stay smooth with 10,000 chunks? Prints long tasks and frame times.

A job of 10,000 sentences runs in the in-process service while chromium watches it. Nothing is asserted: times belong to
the machine. A long task is one that keeps the page's thread for more than 50 ms (W3C Long Tasks).
"""

import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.e2e.conftest import CHROMIUM, FLAGS
from tests.unit.http_service import http_service

CHUNKS = 10_000
TEXT = "The lamp is lit and the sea calm. " * CHUNKS
WATCH = """
window.seen = { tasks: [], frames: [] };
new PerformanceObserver((list) => list.getEntries().forEach((task) => seen.tasks.push(task.duration)))
    .observe({ type: 'longtask', buffered: true });
let last = performance.now();
const frame = (now) => { seen.frames.push(now - last); last = now; requestAnimationFrame(frame); };
requestAnimationFrame(frame);
"""
TAKE = (
    "(() => { const { tasks, frames } = seen; window.seen = { tasks: [], frames: [] }; return { tasks, frames }; })()"
)


def report(page: Page, what: str) -> None:
    """Print what was seen since the last call."""
    seen = page.evaluate(TAKE)
    tasks, frames = sorted(seen["tasks"]), sorted(seen["frames"])
    at = frames[int(len(frames) * 0.99)] if frames else 0
    longest = f"{tasks[-1]:.0f} ms" if tasks else "none"
    over = sum(task > 100 for task in tasks)
    print(  # noqa: T201 - a script: this is its output
        f"{what:<38} long tasks {len(tasks):>3}, over 100 ms {over:>2}, longest {longest:>7};"
        f" frames {len(frames):>5}, 99 % below {at:.0f} ms",
        flush=True,
    )


def main() -> None:
    """Run one job of 10,000 chunks and look at the page meanwhile and afterwards."""
    with (
        tempfile.TemporaryDirectory() as directory,
        http_service(Path(directory), backend={"max_concurrency": 48}) as service,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(base_url=service.url, viewport={"width": 1280, "height": 900})
        page.set_default_timeout(600_000)
        page.add_init_script(WATCH)
        page.goto("/")
        page.wait_for_timeout(1_000)
        report(page, "an empty page")
        page.evaluate("([t]) => { const e = document.getElementById('text'); e.value = t; }", [TEXT[:-1]])
        page.locator("#text").dispatch_event("input")
        page.locator("#start:enabled").wait_for()
        report(page, "340,000 characters pasted and planned")
        page.locator("#start").click()
        page.wait_for_url("**/?job=*")
        page.locator("#cancel:visible").wait_for()
        report(page, "started")
        for _ in range(12):
            if page.locator("#status").text_content() == "completed":
                break
            page.wait_for_timeout(10_000)
            report(page, f"running, {page.locator('#facts dd').first.text_content()}")
        page.reload()
        page.locator("#play:enabled").wait_for()
        page.wait_for_timeout(8_000)
        report(page, f"opened again ({page.locator('#status').text_content()})")
        box = page.locator("#grid").bounding_box()
        assert box is not None
        for step in range(60):
            page.mouse.move(box["x"] + 5 * step, box["y"] + 4 * step)
        report(page, "60 moves over the cells")
        page.locator("#reader").hover()
        for _ in range(30):
            page.mouse.wheel(0, 3_000)
            page.wait_for_timeout(50)
        report(page, "the text scrolled")
        page.evaluate("document.getElementById('reader').scrollTop = 0")
        page.get_by_role("button", name="Play").click()
        page.wait_for_timeout(6_000)
        report(page, "played for six seconds")
        browser.close()


if __name__ == "__main__":
    main()
