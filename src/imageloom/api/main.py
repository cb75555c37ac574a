"""The API process."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import uvicorn

from imageloom.api.app import create_app
from imageloom.core.keys import ensure_first_key
from imageloom.core.services import open_services
from imageloom.domain.errors import InvalidParams
from imageloom.settings import Settings
from imageloom.store.migrate import migrate

# How long a request waits for a connection: the caller must hear 503 within ten seconds.
POOL_TIMEOUT = 5.0


async def run_api(settings: Settings, database_url: str, listener: socket.socket) -> None:
    """Serve HTTP on a listening socket until SIGINT or SIGTERM. Raises: StoreUnavailable."""
    _allow_many_streams()
    await migrate(database_url)
    async with open_services(settings, database_url, pool_timeout=POOL_TIMEOUT) as services:
        if settings.api_key is not None:
            # `serve` has done it and passes none on; on its own, nobody else would.
            await ensure_first_key(services.pool, given=settings.api_key)
        app = create_app(services, public_url=settings.public_url or address_of(listener))
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="on",
            # One parser, whatever else is installed: by itself uvicorn takes another where it can.
            http="h11",
            ws="none",
            timeout_graceful_shutdown=10,
        )
        await _Server(config, let_go=services.notices.close).serve(sockets=[listener])


def _allow_many_streams() -> None:
    """Let the process have as many open files as it may: the usual 1024 end at so many watchers."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # where the machine has a lower limit than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Server(uvicorn.Server):
    """Ends by returning. uvicorn's own raises the signal again, and nothing after it is run."""

    def __init__(self, config: uvicorn.Config, *, let_go: Callable[[], None]) -> None:
        super().__init__(config)
        self._let_go = let_go

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end, and let those go who wait for a task: uvicorn waits for every answer."""
        super().handle_exit(sig, frame)
        self._let_go()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. Raises: InvalidParams."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise InvalidParams(
            f"cannot listen on {host}:{port}: {exc.strerror}; choose another with --port",
            param="port",
        ) from exc
    listener.listen(2048)
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the URL by which this machine reaches a listening socket."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
