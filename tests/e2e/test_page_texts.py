"""Texts that do harm, or come in files, or are too long."""

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.e2e.conftest import KEY, TEXT_LIMIT, watched_page
from tests.e2e.steps import start, status
from tests.unit.http_service import HttpService, http_service

ATTACK = '<img src=x onerror="window.owned=1"><script>window.owned=1</script> <b>bold</b> is only text.'
CONTAINER = '<container><rootfile full-path="O/c.opf"/></container>'


def unharmed(page: Page) -> None:
    """Nothing of an attack has become an element or has run."""
    assert page.locator("main img, main b, main script").count() == 0
    assert page.evaluate("window.owned") is None


class Hostile(BaseHTTPRequestHandler):
    """A speech server that refuses every call with markup."""

    def do_POST(self) -> None:
        """Refuse."""
        body = json.dumps({"error": {"message": ATTACK}}).encode()
        self.send_response(400)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@contextmanager
def hostile_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


def test_text_voices_models_and_errors_are_shown_as_text(browser: Browser, tmp_path: Path) -> None:
    with hostile_server() as url:
        backend = {"name": "hostile", "protocol": "openai", "url": url, "model": ATTACK, "voices": {ATTACK: "x"}}
        with (
            http_service(tmp_path, backends=[backend]) as service,
            watched_page(browser, service.url) as page,
        ):
            page.goto("/")
            expect(page.locator("#voice")).to_contain_text(ATTACK)
            assert page.locator("#model option").text_content() == ATTACK
            page.locator("#voice").select_option(ATTACK)
            start(page, ATTACK)
            status(page, "failed")
            assert page.locator("#reader").text_content() == ATTACK
            expect(page.locator("#attempts")).to_contain_text("<img src=x")
            expect(page.locator("#error")).to_contain_text("<img src=x")
            expect(page.locator("#recent a").first).to_contain_text("<img src=x")
            unharmed(page)


def epub(pages: dict[str, str], **files: str) -> bytes:
    """An EPUB with these pages, the last one first in its reading order."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as book:
        names = {"META-INF/container.xml": CONTAINER, **files}
        items = "".join(f'<item id="{name}" href="{name}.xhtml"/>' for name in pages)
        spine = "".join(f'<itemref idref="{name}"/>' for name in reversed(pages))
        names.setdefault("O/c.opf", f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>")
        for name, text in (names | {f"O/{page}.xhtml": text for page, text in pages.items()}).items():
            book.writestr(name, text)
    return data.getvalue()


def with_key(page: Page) -> None:
    page.add_init_script(f"sessionStorage.setItem('tts-key', '{KEY}')")


def opened(page: Page, name: str, data: bytes) -> None:
    file: FilePayload = {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    page.locator("#file").set_input_files(file)


def test_an_epub_is_read_in_its_order_and_runs_nothing(page: Page) -> None:
    book = epub(
        {
            "two": f"<html><body><p>Last words.</p><div>Loose {ATTACK}</div></body></html>",
            "one": "<html><head><title>T</title></head><body><h1>One</h1><p>First <i>words</i>.</p></body></html>",
        }
    )
    page.goto("/")
    opened(page, "book.epub", book)
    expect(page.locator("#text")).to_have_value("One\n\nFirst words.\n\nLast words.\n\nLoose bold is only text.")
    unharmed(page)


PICTURES = {"one": '<html><body><img src="one.png" alt=""/></body></html>'}
GOOD = epub({"one": "<p>Words.</p>" * 50})
REFUSED_FILES = {
    "not a zip": ("a.epub", b"no zip at all", "this is no EPUB, or only a part of one"),
    "cut short": ("a.epub", GOOD[: len(GOOD) // 2], "this is no EPUB, or only a part of one"),
    "damaged": ("a.epub", GOOD[:60] + bytes(20) + GOOD[80:], "this EPUB is damaged"),
    "no container": ("a.epub", epub({}, **{"META-INF/container.xml": "<x/>"}), "does not say where its book is"),
    "no book": ("a.epub", epub({}, **{"META-INF/container.xml": CONTAINER.replace("c.opf", "x")}), "it has no O/x"),
    "pictures": ("a.epub", epub(PICTURES), "there is no text in this EPUB"),
    "locked": ("a.epub", epub({"one": "x"}, **{"META-INF/rights.xml": "<x/>"}), "locked (DRM)"),
    "a bomb": ("a.epub", epub({"one": "x" * 20_000_001}), "larger than 20 MB"),
    "too long": ("a.epub", epub({"one": "<p>Long words.</p>" * 800}), "more than 8,000 characters"),
    "a pdf": ("a.pdf", b"%PDF", "this kind of file cannot be read here"),
    "binary": ("a.txt", b"\x00\x01\x02", "this is no text file"),
    "empty": ("a.txt", b" \n", "the file is empty"),
    "a huge text": ("a.txt", b"x" * 32_001, "at most 2,000 characters"),
}


def test_files_that_cannot_be_read_are_refused_with_the_reason(browser: Browser, keyed: HttpService) -> None:
    # Chromium's note on a document that is not well-formed has a style, and the page's policy forbids that.
    with watched_page(browser, keyed.url, expected="Applying inline style") as page:
        with_key(page)
        page.goto("/")
        for name, data, reason in REFUSED_FILES.values():
            opened(page, name, data)
            expect(page.locator("#notice")).to_contain_text(f"{name}: ")
            expect(page.locator("#notice")).to_contain_text(reason)
            assert page.locator("#text").input_value() == ""
            page.evaluate("document.getElementById('notice').textContent = ''")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_text_files_of_other_days_are_read(page: Page, encoding: str) -> None:
    page.goto("/")
    opened(page, "old.TXT", "Ein schöner Tag.".encode(encoding))
    expect(page.locator("#text")).to_have_value("Ein schöner Tag.")


def test_a_text_over_the_limit_is_refused_with_the_bound_before_it_is_sent(
    browser: Browser, keyed: HttpService
) -> None:
    with watched_page(browser, keyed.url) as page:
        with_key(page)
        posted: list[str] = []
        page.on("request", lambda request: posted.append(request.url) if request.method == "POST" else None)
        page.goto("/")
        page.locator("#text").fill("🚢" * (TEXT_LIMIT + 1))
        expect(page.locator("#plan-note")).to_contain_text("2,001 characters; this service takes at most 2,000")
        expect(page.get_by_role("button", name="Start")).to_be_disabled()
        assert posted == []
        page.locator("#text").fill("🚢 sails. " * (TEXT_LIMIT // 9))
        expect(page.locator("#plan")).to_contain_text("Chunks")
        assert len(posted) == 1
