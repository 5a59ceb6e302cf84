"""What a person does on the page, for all its tests."""

from playwright.sync_api import Page, expect

SLOW = "The lamp is lit and the harbour is very quiet tonight. " * 8 + "The sea is [[delay:60000]] calm."
"""Eight chunks at once, and a ninth that keeps the job running until it is cancelled."""


def start(page: Page, text: str) -> str:
    """Paste a text into the open page, wait for its plan and start it. Returns the job's id."""
    page.get_by_label("Text: paste it").fill(text)
    expect(page.locator("#plan")).to_contain_text("Chunks")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/?job=*")
    return page.url.partition("?job=")[2]


def status(page: Page, text: str) -> None:
    """Wait until the job has this status."""
    expect(page.locator("#status")).to_have_text(text)


def spoken(page: Page, chunks: int) -> None:
    """Wait until so many chunks of the text are marked as spoken."""
    expect(page.locator("#reader .c.completed")).to_have_count(chunks)


def heard(page: Page, seconds: float) -> None:
    """Return once the audio element is past this time (``wait_for_function`` needs eval, which the policy forbids)."""
    while page.evaluate("document.getElementById('audio').currentTime") <= seconds:
        page.wait_for_timeout(20)
