"""Whether anything is heard from where the database should be."""

from __future__ import annotations

import asyncio
import struct
from typing import Final

from psycopg.conninfo import conninfo_to_dict

WITHIN: Final = 2.0  # seconds
# Asks whether the server speaks TLS. It answers with one letter before anything else, also while it
# starts, recovers or has no place for more sessions.
_SSL_REQUEST: Final = struct.pack(">II", 8, 80877103)


async def is_heard(conninfo: str) -> bool:
    """Whether the database's machine says anything: that it serves, or that nothing listens there.

    Where nothing is heard, the database may serve everybody but us.
    """
    parts = conninfo_to_dict(conninfo)
    host = str(parts.get("host") or "127.0.0.1").split(",")[0]
    port = str(parts.get("port") or "5432").split(",")[0]
    try:
        async with asyncio.timeout(WITHIN):
            if host.startswith("/"):
                opened = asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
            else:
                opened = asyncio.open_connection(host, int(port))
            reader, writer = await opened
            try:
                writer.write(_SSL_REQUEST)
                return bool(await reader.read(1))
            finally:
                writer.close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except (OSError, TimeoutError):
        return False
