"""The pages that show the OpenAPI document: `/docs`, where it can be tried, and `/redoc`.

What draws them comes from a content network, and would act for whoever is signed in at this
address. So each file is named by its version and its digest, and a browser runs no other.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

_CDN: Final = "https://cdn.jsdelivr.net/npm"
_SWAGGER: Final = f"{_CDN}/swagger-ui-dist@5.35.0"
_SWAGGER_JS: Final = "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"
_SWAGGER_CSS: Final = "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I"
_REDOC: Final = f"{_CDN}/redoc@2.5.4/bundles"
_REDOC_JS: Final = "sha384-w447zOpYfw/1Tv/5AK9NfHTlQIqE3RVR6KY62jCyy9zNDgO64cMwGGP1Fj0zJVf5"
_HEADERS: Final = {
    "Content-Security-Policy": "base-uri 'none'; frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Imageloom API</title>
  <link rel="icon" href="dashboard/icon.svg" type="image/svg+xml">
  {head}
</head>
<body style="margin: 0">
  {body}
</body>
</html>
"""


def manual_router() -> APIRouter:
    """Return the two pages."""
    router = APIRouter(include_in_schema=False)
    docs = _PAGE.format(
        head=f'<link rel="stylesheet" href="{_SWAGGER}/swagger-ui.css" '
        f'integrity="{_SWAGGER_CSS}" crossorigin="anonymous">',
        body='<div id="docs"></div>\n  '
        + _script(f"{_SWAGGER}/swagger-ui-bundle.js", _SWAGGER_JS)
        + '\n  <script>SwaggerUIBundle({url: "openapi.json", dom_id: "#docs", '
        "deepLinking: true, presets: [SwaggerUIBundle.presets.apis]})</script>",
    )
    redoc = _PAGE.format(
        head="",
        body='<redoc spec-url="openapi.json"></redoc>\n  '
        + _script(f"{_REDOC}/redoc.standalone.js", _REDOC_JS),
    )

    @router.get("/docs")
    async def show_docs() -> HTMLResponse:
        return HTMLResponse(docs, headers=_HEADERS)

    @router.get("/redoc")
    async def show_redoc() -> HTMLResponse:
        return HTMLResponse(redoc, headers=_HEADERS)

    return router


def _script(url: str, digest: str) -> str:
    return f'<script src="{url}" integrity="{digest}" crossorigin="anonymous"></script>'
