"""The cookie of a session, and which requests may ride on it.

A browser sends the cookie with whatever asks us, also where another site made it ask. The cookie is
SameSite=Strict; what follows holds too where a browser or a sibling domain knows no better.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.security import APIKeyCookie

from imageloom.api.context import Context
from imageloom.core.sessions import LIFE
from imageloom.domain.errors import CrossSite

COOKIE: Final = "imageloom_session"
cookie_scheme = APIKeyCookie(
    name=COOKIE, auto_error=False, description="A browser's session: `POST /api/v1/session`"
)
_READING = frozenset({"GET", "HEAD"})


def set_cookie(request: Request, response: Response, context: Context, token: str) -> None:
    """Let the browser keep a session's token where no script can read it."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(LIFE.total_seconds()),
        path="/",
        secure=_encrypted(request, context),
        httponly=True,
        samesite="strict",
    )


def clear_cookie(request: Request, response: Response, context: Context) -> None:
    """Let the browser forget its session."""
    response.delete_cookie(
        COOKIE, path="/", secure=_encrypted(request, context), httponly=True, samesite="strict"
    )


def refuse_cross_site(request: Request, context: Context) -> None:
    """Make sure that a page of ours sent this request. Raises: CrossSite.

    Browsers say so themselves in Sec-Fetch-Site, over TLS and on localhost; elsewhere Origin says
    which page it was, on every request that changes something.
    """
    reads = request.method in _READING
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        ours = site in ("same-origin", "none") or (reads and site == "same-site")
    else:
        ours = reads or _origin(request) in _hosts(request, context)
    if not ours:
        raise CrossSite(
            "this request comes from another site, and a session is only for the dashboard's own; "
            "send an API key as `Authorization: Bearer KEY`"
        )


def _origin(request: Request) -> str | None:
    """Return the host and port of the page that sent the request, None where it is not said."""
    try:
        return urlsplit(request.headers.get("origin", "")).netloc.lower() or None
    except ValueError:
        return None


def _hosts(request: Request, context: Context) -> set[str]:
    """Return what we are called: as the browser asked, and by the public URL behind a proxy."""
    asked = request.headers.get("host", "")
    return {asked.lower(), urlsplit(context.urls.public).netloc.lower()} - {""}


def _encrypted(request: Request, context: Context) -> bool:
    return "https" in (request.url.scheme, urlsplit(context.urls.public).scheme)
