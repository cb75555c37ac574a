"""URLs in requests: those that are ours become storage keys, all others must be fit to fetch."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request

from imageloom.api.context import Context
from imageloom.api.urls import OwnFile, OwnOutput
from imageloom.core.files import input_of_tenant, output_of_tenant
from imageloom.domain.errors import Gone, InvalidInput, NotFound
from imageloom.fetch import check_url


async def own_inputs(
    request: Request, context: Context, tenant: str, urls: Mapping[str, str], *, place: str = ""
) -> dict[str, str]:
    """Return the storage keys of those URLs that name the tenant's own files, by parameter.

    `place` comes before a parameter's name in errors.
    Raises: InvalidInput where a URL can never work, so that the caller hears it now.
    """
    keys = {}
    for name, url in urls.items():
        key = await _key(request, context, tenant, f"{place}{name}", url)
        if key is not None:
            keys[name] = key
    return keys


async def _key(request: Request, context: Context, tenant: str, param: str, url: str) -> str | None:
    try:
        match context.urls.own(url, host=request.headers.get("host")):
            case OwnFile(file_id=file_id):
                return await input_of_tenant(context.services, file_id, tenant=tenant)
            case OwnOutput(key=key):
                return await output_of_tenant(context.services, key, tenant=tenant)
            case None:
                check_url(url, allow=context.services.settings.fetch_allow)
                return None
    except (NotFound, Gone, InvalidInput) as exc:
        raise InvalidInput(f"{param}: {exc.message}", param=param) from exc
