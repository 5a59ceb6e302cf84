"""The page with a key, and on a network that breaks."""

import requests
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import KEY, watched_page
from tests.e2e.steps import SLOW, heard, spoken, start, status
from tests.unit.http_service import HttpService

REFUSED = "Failed to load resource"
JOBS = "/v1/audio/speech/jobs"


def test_with_a_key_a_running_job_is_heard_and_the_key_is_in_no_url(browser: Browser, keyed: HttpService) -> None:
    with watched_page(browser, keyed.url, expected=f"{REFUSED}: the server responded with a status of 401") as page:
        urls: list[str] = []
        page.on("request", lambda request: urls.append(request.url))
        page.goto("/")
        page.get_by_label("API key (kept").fill(KEY)
        page.get_by_role("button", name="Use key").click()
        expect(page.locator("#model option")).not_to_have_count(0)
        start(page, SLOW)
        spoken(page, 8)
        page.get_by_role("button", name="Play").click()
        heard(page, 0.1)
        assert "live=1" in str(page.locator("#audio").get_attribute("src"))
        page.get_by_role("button", name="Cancel").click()
        status(page, "cancelled")
        page.get_by_role("button", name="Play").click()
        heard(page, 0.1)
        assert "live" not in str(page.locator("#audio").get_attribute("src"))
        page.locator(".s").nth(5).click()
        heard(page, 4)
        with page.expect_download() as download:
            page.get_by_role("link", name="mp3").click()
        assert download.value.path().stat().st_size > 1_000
        assert len(urls) > 10
        assert not [url for url in urls if KEY in url]
        assert page.evaluate("localStorage.length + ' ' + document.cookie") == "0 "
        assert page.evaluate("sessionStorage.getItem('tts-key')") == KEY


def test_a_broken_event_stream_goes_on_behind_its_last_event(browser: Browser, service: HttpService) -> None:
    with watched_page(browser, service.proxy.url, expected=REFUSED) as page:
        page.goto("/")
        job_id = start(page, SLOW)
        spoken(page, 8)
        last_id = ""
        while not last_id:  # a stream may be cut before its first event with an id; the test's own time limit ends this
            updates(page, "live")
            with page.expect_request("**/events") as again:
                service.proxy.order()
            last_id = again.value.headers.get("last-event-id", "")
        assert int(last_id.partition("-")[0]) > 0
        updates(page, "live")
        requests.post(f"{service.url}{JOBS}/{job_id}/cancel", timeout=60)
        status(page, "cancelled")


def test_without_events_the_page_asks_and_misses_nothing(browser: Browser, service: HttpService) -> None:
    with watched_page(browser, service.url, expected=REFUSED) as page:
        page.route("**/events", lambda route: route.abort())
        page.goto("/")
        job_id = start(page, SLOW)
        updates(page, "asked for")
        spoken(page, 8)
        requests.post(f"{service.url}{JOBS}/{job_id}/cancel", timeout=60)
        status(page, "cancelled")
        expect(page.locator("#reader .c.failed")).to_have_count(1)


def test_a_device_that_was_offline_catches_up(browser: Browser, service: HttpService) -> None:
    with watched_page(browser, service.proxy.url, expected=REFUSED) as page:
        page.goto("/")
        job_id = start(page, SLOW)
        updates(page, "live")
        page.context.set_offline(True)
        service.proxy.order()
        updates(page, "offline")
        requests.post(f"{service.url}{JOBS}/{job_id}/cancel", timeout=60)
        page.context.set_offline(False)
        status(page, "cancelled")
        expect(page.locator("#notice")).to_be_hidden()


def updates(page: Page, how: str) -> None:
    """Wait until the page says that it hears of the job in this way."""
    expect(page.locator("#facts")).to_contain_text(f"Updates{how}" if how != "offline" else how)
