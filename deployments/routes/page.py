"""The page at ``/`` and its files at ``/ui/*``: static, read once, the same for everybody. It knows no job."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

from tts_actors.config import LimitArgs
from tts_actors.errors import NotFound

UI = Path(__file__).resolve().parent.parent / "ui"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""No inline script, no other host."""


def page_routes(limits: LimitArgs) -> APIRouter:
    """``/`` and the files that it loads. The page is told the limits, to name them before it sends anything."""
    router = APIRouter(include_in_schema=False)
    files = {path.name: path.read_bytes() for path in UI.iterdir() if path.suffix in TYPES}
    bounds = f'data-max-characters="{limits.max_characters}" data-max-body-bytes="{limits.max_body_bytes}"'
    files["index.html"] = files["index.html"].replace(b"data-bounds", bounds.encode())

    @router.get("/")
    async def page() -> Response:
        return _answer("index.html", files["index.html"])

    @router.get("/ui/{name}")
    async def asset(name: str) -> Response:
        if name not in files:
            raise NotFound("the page has no such file", None)
        return _answer(name, files[name])

    return router


def _answer(name: str, body: bytes) -> Response:
    # no-cache: a page of yesterday must not meet the routes of today.
    headers = {"content-security-policy": POLICY, "cache-control": "no-cache"}
    return Response(body, media_type=TYPES[Path(name).suffix], headers=headers)
