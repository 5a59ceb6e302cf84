"""The page at ``/`` in a real browser: from pasted text to audio that is heard."""

import io
import zipfile
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.unit.http_service import HttpService

TEXT = "The lamp is lit. The sea is calm tonight!\n\nA new 🚢 paragraph. Does nobody sail?"
SLOW = "The lamp is lit and the harbour is very quiet tonight. " * 8 + "The sea is [[delay:60000]] calm."


def start(page: Page, text: str) -> None:
    page.goto("/")
    page.get_by_label("Text: paste it").fill(text)
    expect(page.locator("#plan")).to_contain_text("Chunks")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/?job=*")


def status(page: Page, text: str) -> None:
    expect(page.locator("#status")).to_have_text(text)


def heard(page: Page, seconds: float) -> None:
    """Return once the audio element is past this time (``wait_for_function`` needs eval, which the policy forbids)."""
    while page.evaluate("document.getElementById('audio').currentTime") <= seconds:
        page.wait_for_timeout(20)


def test_a_pasted_text_is_planned_spoken_and_heard_with_its_sentence_marked(page: Page) -> None:
    start(page, TEXT)
    status(page, "completed")
    expect(page.locator("#facts")).to_contain_text("4 of 4")
    expect(page.locator("#reader .c.completed")).to_have_count(4)
    expect(page.locator("#reader .s")).to_have_count(4)
    assert page.locator("#reader").text_content() == TEXT
    page.get_by_role("button", name="Play").click()
    heard(page, 0.2)
    expect(page.locator(".s.now")).to_have_count(1)
    page.locator(".s").nth(2).click()
    expect(page.locator(".s").nth(2)).to_have_class("s now")
    assert page.evaluate("document.getElementById('audio').currentTime") > 0.5


def test_a_running_job_is_heard_live_survives_a_reload_and_is_cancelled(page: Page) -> None:
    start(page, SLOW)
    expect(page.locator("#reader .c.completed")).to_have_count(8)
    page.reload()
    expect(page.locator("#reader .c.completed")).to_have_count(8)
    assert page.locator("#reader").text_content() == SLOW
    page.get_by_role("button", name="Play").click()
    heard(page, 0)
    assert "live=1" in str(page.locator("#audio").get_attribute("src"))
    page.get_by_role("button", name="Cancel").click()
    status(page, "cancelled")


def test_a_failed_chunk_is_shown_and_retried(page: Page) -> None:
    start(page, "The lamp is lit. The sea is [[fault:500*2]] calm. Nobody sails.")
    status(page, "failed")
    page.locator("#grid").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#chunk")).to_contain_text("HTTP 500")
    expect(page.locator("#chunk")).to_contain_text("ms")
    page.get_by_role("button", name="Retry failed chunks").click()
    status(page, "completed")


def test_text_is_shown_as_text(page: Page) -> None:
    attack = "<img src=x onerror=\"document.title='owned'\"> <b>bold</b> is only text."
    start(page, attack)
    status(page, "completed")
    assert page.locator("#reader").text_content() == attack
    assert page.locator("main img, main b").count() == 0
    assert page.title() == "tts-actors"


def test_a_job_of_another_session_is_read_from_its_captions(page: Page, service: HttpService) -> None:
    body = {"model": "fake-tts", "input": TEXT}
    job = requests.post(f"{service.url}/v1/audio/speech/jobs", json=body, timeout=60).json()
    page.goto(f"/?job={job['id']}")
    status(page, "completed")
    expect(page.locator("#reader")).to_contain_text("Does nobody sail?")


def test_the_backends_are_listed_with_their_health(page: Page, service: HttpService) -> None:
    backends = requests.get(f"{service.url}/v1/backends", timeout=10).json()["data"]
    page.goto("/")
    expect(page.locator("#backends tr:has(td)")).to_have_count(len(backends))
    expect(page.locator("#backends")).to_contain_text(backends[0]["name"])
    expect(page.locator("#backends")).to_contain_text("healthy")


def test_a_deleted_job_is_gone_and_the_list_says_so(page: Page) -> None:
    start(page, "A short life with an unusual title.")
    status(page, "completed")
    expect(page.locator("#recent")).to_contain_text("unusual title")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#compose")).to_be_visible()
    expect(page.locator("#recent")).not_to_contain_text("unusual title")


def test_an_epub_is_read_in_its_order(page: Page) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("META-INF/container.xml", '<container><rootfile full-path="O/c.opf"/></container>')
        items = '<item id="a" href="two.xhtml"/><item id="b" href="one.xhtml"/>'
        spine = '<itemref idref="b"/><itemref idref="a"/>'
        book.writestr("O/c.opf", f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>")
        book.writestr("O/one.xhtml", "<html><body><h1>One</h1><p>First <i>words</i>.</p></body></html>")
        book.writestr("O/two.xhtml", "<html><body><p>Last words.</p></body></html>")
    page.goto("/")
    file: Any = {"name": "book.epub", "mimeType": "application/epub+zip", "buffer": data.getvalue()}
    page.locator("#file").set_input_files(file)
    expect(page.locator("#text")).to_have_value("One\n\nFirst words.\n\nLast words.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(page: Page, axe: str, scheme: Any, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    start(page, TEXT)
    status(page, "completed")
    expect(page.locator("#reader .s")).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert _violations(page, axe) == []
    page.goto("/")
    assert _violations(page, axe) == []


def _violations(page: Page, axe: str) -> list[str]:
    page.evaluate(axe + "; undefined")
    found = page.evaluate("axe.run()")
    return [f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in found["violations"]]


def test_ten_thousand_chunks_are_one_canvas(page: Page, service: HttpService) -> None:
    page.goto("/")
    painted = page.evaluate(
        """async () => {
            const { Grid } = await import('/ui/grid.js');
            document.getElementById('job').hidden = false;
            const canvas = document.getElementById('grid');
            const grid = new Grid(canvas, () => {});
            grid.set(Array.from({ length: 10000 }, (_, index) => ({ index, state: 'completed' })));
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            return canvas.clientHeight > 0 && grid.columns * Math.ceil(canvas.clientHeight / grid.size) >= 10000;
        }"""
    )
    assert painted


def test_the_page_forbids_inline_scripts_other_hosts_and_frames(service: HttpService) -> None:
    answer = requests.get(service.url, timeout=60)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert requests.get(f"{service.url}/ui/..%2fapp.py", timeout=60).status_code == 404
