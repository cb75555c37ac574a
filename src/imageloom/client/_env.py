"""The two environment variables of the client, read in one place and only when asked for.

It does not use the server's settings module: the client imports nothing of the server.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

URL_VARIABLE = "IMAGELOOM_URL"
KEY_VARIABLE = "IMAGELOOM_API_KEY"


def read_environment(environment: Mapping[str, str] | None = None) -> tuple[str | None, str | None]:
    """Return base URL and API key from `environment`, by default the process's own.

    An empty or blank variable counts as not set.
    """
    source = os.environ if environment is None else environment
    url, key = (source.get(name, "").strip() or None for name in (URL_VARIABLE, KEY_VARIABLE))
    return url, key
