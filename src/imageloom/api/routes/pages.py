"""The dashboard's own files: no key is needed for them, and they hold nothing but what we ship.

They are read once, when the app is made: what is asked for is looked up by name, so no path leads
anywhere else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response

from imageloom.domain.errors import NotFound

_MEDIA_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "png": "image/png",
    "svg": "image/svg+xml",
    "webp": "image/webp",
    "woff2": "font/woff2",
}
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+", re.ASCII)
_INDEX: Final = "index.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One file of the dashboard."""

    body: bytes
    media_type: str
    etag: str


def pages_router(public_url: str) -> APIRouter:
    """Return the routes of the dashboard; pictures come from `public_url`, and so may answers."""
    router = APIRouter(include_in_schema=False)
    pages = dict(_read(resources.files("imageloom") / "dashboard"))
    headers = _headers(public_url)

    @router.head("/")
    @router.get("/")
    async def index(request: Request) -> Response:
        return _answer(request, pages[_INDEX], headers)

    @router.head("/dashboard/{name:path}")
    @router.get("/dashboard/{name:path}")
    async def file(name: str, request: Request) -> Response:
        page = pages.get(name)
        if page is None:
            raise NotFound("there is nothing at this path; the dashboard is at /")
        return _answer(request, page, headers)

    return router


def _read(folder: Traversable, before: str = "") -> Iterator[tuple[str, Page]]:
    for entry in folder.iterdir():
        name = f"{before}{entry.name}"
        if entry.is_dir():
            yield from _read(entry, f"{name}/")
        elif (media_type := _MEDIA_TYPES.get(name.rpartition(".")[2])) is not None:
            body = entry.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            yield name, Page(body=body, media_type=media_type, etag=etag)


def _answer(request: Request, page: Page, headers: dict[str, str]) -> Response:
    """Return a file, or that the browser's copy of it is still good; it asks each time."""
    sent = {**headers, "ETag": page.etag, "Cache-Control": "no-cache"}
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or page.etag in (each.strip() for each in known.split(",")):
        return Response(status_code=304, headers=sent)
    return Response(page.body, media_type=page.media_type, headers=sent)


def _headers(public_url: str) -> dict[str, str]:
    """Return what keeps a page to itself: nothing foreign runs in it, nor is it shown elsewhere."""
    parts = urlsplit(public_url)
    origin = f"{parts.scheme}://{parts.netloc}"
    ours = f"'self' {origin}" if _ORIGIN.fullmatch(origin) else "'self'"
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": f"{ours} data: blob:",
        "connect-src": ours,
        "font-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
