"""The page at ``/`` in a real browser: from pasted text to audio that is heard."""

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.e2e.steps import SLOW, heard, spoken, start, status
from tests.unit.http_service import HttpService

TEXT = "The lamp is lit. The sea is calm tonight!\n\nA new 🚢 paragraph. Does nobody sail?"


def test_a_pasted_text_is_planned_spoken_and_heard_with_its_sentence_marked(page: Page) -> None:
    page.goto("/")
    start(page, TEXT)
    status(page, "completed")
    expect(page.locator("#facts")).to_contain_text("4 of 4")
    expect(page.locator("#facts")).to_contain_text("orchestratorTimeoutMs")
    spoken(page, 4)
    expect(page.locator("#reader .s")).to_have_count(4)
    assert page.locator("#reader").text_content() == TEXT
    page.get_by_role("button", name="Play").click()
    heard(page, 0.2)
    expect(page.locator(".s.now")).to_have_count(1)
    page.locator(".s").nth(2).click()
    expect(page.locator(".s").nth(2)).to_have_class("s now")
    assert page.evaluate("document.getElementById('audio').currentTime") > 0.5


def test_a_running_job_is_heard_live_survives_a_reload_and_is_cancelled(page: Page) -> None:
    page.goto("/")
    start(page, SLOW)
    spoken(page, 8)
    page.reload()
    spoken(page, 8)
    assert page.locator("#reader").text_content() == SLOW
    page.get_by_role("button", name="Play").click()
    heard(page, 0)
    assert "live=1" in str(page.locator("#audio").get_attribute("src"))
    page.get_by_role("button", name="Cancel").click()
    status(page, "cancelled")


def test_failures_are_counted_by_kind_and_each_attempt_is_reached_by_mouse_tap_and_keyboard(page: Page) -> None:
    page.goto("/")
    start(page, "The lamp is lit. The sea is [[fault:500*2]] calm. Nobody [[fault:silence*1]] sails.")
    status(page, "failed")
    expect(page.locator("#failures tr", has_text="HTTP 500")).to_contain_text("chunk 2")
    expect(page.locator("#failures tr", has_text="bad audio")).to_contain_text("chunk 3")
    page.locator("#grid").focus()
    page.keyboard.press("Home")
    expect(page.locator("#chunk")).to_contain_text("1 of 3")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#attempts li")).to_have_count(2)
    expect(page.locator("#attempts li").first).to_contain_text("fake: HTTP 500")
    expect(page.locator("#chunk")).to_contain_text("Timeout of an attempt11,")
    page.locator("#grid").hover(position={"x": 50, "y": 8})
    expect(page.locator("#chunk")).to_contain_text("3 of 3")
    page.locator("#grid").dispatch_event("pointerdown", _point(page, 1))
    expect(page.locator("#chunk")).to_contain_text("2 of 3")
    page.get_by_role("button", name="chunk 3").click()
    expect(page.locator("#attempts li").first).to_contain_text("bad audio")
    page.get_by_role("button", name="Retry failed chunks").click()
    status(page, "completed")
    expect(page.locator("#chunk")).to_contain_text("1 of 3")


def _point(page: Page, chunk: int) -> dict[str, float]:
    """Where a finger touches this cell; cells are 22 pixels wide while there are few."""
    box = page.locator("#grid").bounding_box()
    assert box is not None
    return {"clientX": box["x"] + 22 * chunk + 8, "clientY": box["y"] + 8}


def test_a_job_of_another_session_is_read_from_its_captions(page: Page, service: HttpService) -> None:
    body = {"model": "fake-tts", "input": TEXT}
    job = requests.post(f"{service.url}/v1/audio/speech/jobs", json=body, timeout=60).json()
    page.goto(f"/?job={job['id']}")
    status(page, "completed")
    expect(page.locator("#reader")).to_contain_text("Does nobody sail?")


def test_the_backends_are_listed_with_health_limits_breaker_and_errors(page: Page, service: HttpService) -> None:
    backend = requests.get(f"{service.url}/v1/backends", timeout=10).json()["data"][0]
    page.goto("/")
    panel = page.locator("#backends li")
    expect(panel).to_have_count(1)
    for text in (backend["name"], "healthy", "Breaker", f"of {backend['limit']}"):
        expect(panel).to_contain_text(text)


def test_a_deleted_job_is_gone_and_the_list_says_so(page: Page) -> None:
    page.goto("/")
    start(page, "A short life with an unusual title.")
    status(page, "completed")
    expect(page.locator("#recent")).to_contain_text("unusual title")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#compose")).to_be_visible()
    expect(page.locator("#recent")).not_to_contain_text("unusual title")


def test_axe_finds_nothing_on_phone_and_desktop_in_light_and_dark(page: Page, axe: str) -> None:
    page.goto("/")
    expect(page.locator("#backends li")).to_have_count(1)
    views = [page.url]
    start(page, "The lamp is lit. The sea is [[fault:500*1]] calm.")
    views.append(page.url)
    status(page, "completed")
    page.evaluate(axe + "; undefined")
    for view in reversed(views):
        if page.url != view:
            page.get_by_role("link", name="New text").click()
            page.get_by_label("Text: paste it").fill(TEXT)
            expect(page.locator("#plan")).to_contain_text("Chunks")
            page.evaluate(axe + "; undefined")
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{view} at {width}"
            assert _violations(page) == [], f"{view} at {width}"
        page.emulate_media(color_scheme="dark")
        assert _violations(page, "color-contrast") == [], f"{view} in the dark"
        page.emulate_media(color_scheme="light")


def _violations(page: Page, *rules: str) -> list[str]:
    """What axe finds, by all of its rules or these."""
    found = page.evaluate("rules => axe.run(rules.length ? { runOnly: rules } : {})", list(rules))
    return [f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in found["violations"]]


def test_ten_thousand_chunks_are_one_canvas(page: Page) -> None:
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


@pytest.mark.parametrize("name", ["main.js", "style.css", "icon.svg"])
def test_its_files_are_served_with_their_types(service: HttpService, name: str) -> None:
    answer = requests.get(f"{service.url}/ui/{name}", timeout=60)
    assert answer.status_code == 200
    assert name.split(".")[1][:3] in answer.headers["content-type"].replace("javascript", "js")
