"""What the verbs of core work with, wired once per process by the main functions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from imageloom.core.idempotency import Idempotency
from imageloom.core.meters import Meters
from imageloom.core.outlook import Outlooks
from imageloom.core.together import Together
from imageloom.core.watching import Feeds
from imageloom.domain.tasks import NewTask, Task
from imageloom.settings import Settings
from imageloom.storage.base import Storage
from imageloom.storage.opening import open_storage
from imageloom.storage.signing import UrlSigner
from imageloom.store import secrets
from imageloom.store.notices import Notices
from imageloom.store.pool import Pool, open_pool, transaction
from imageloom.store.queue import Queue
from imageloom.tracing import Tracing, open_tracing


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A task to be made, unless its idempotency key has made one before."""

    new: NewTask
    use: Idempotency | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The database, the queue, the storage, the settings, counts and spans of one process."""

    settings: Settings
    pool: Pool
    queue: Queue
    notices: Notices
    feeds: Feeds
    storage: Storage
    url_signer: UrlSigner | None
    meters: Meters
    tracing: Tracing
    outlooks: Outlooks
    submissions: Together[Submission, Task]

    @property
    def signer(self) -> UrlSigner:
        """What signs the URLs of outputs and files; workers have none."""
        if self.url_signer is None:
            raise RuntimeError("a worker signs no URLs: it may not read the secret")
        return self.url_signer


@asynccontextmanager
async def open_services(
    settings: Settings, database_url: str, *, pool_timeout: float, process: str = "api"
) -> AsyncIterator[Services]:
    """Yield services on a migrated database; `pool_timeout` is how long a verb waits for it.

    `process` is what it is called in traces. A worker signs no URLs, so it reads no secret.

    Raises: StoreUnavailable, StorageUnavailable.
    """
    async with (
        open_tracing(settings.traces_endpoint, process=process) as tracing,
        open_pool(database_url, wait=pool_timeout) as pool,
    ):
        queue = Queue(pool_timeout=pool_timeout)
        await queue.open(pool)
        url_signer = None
        if process != "worker":
            async with transaction(pool) as conn:
                url_signer = UrlSigner(await secrets.get_or_create(conn, "url-signing"))
        url = settings.storage_url or (settings.data_dir.resolve() / "storage").as_uri()
        storage = open_storage(url)
        notices = Notices(database_url)
        try:
            yield Services(
                settings=settings,
                pool=pool,
                queue=queue,
                notices=notices,
                feeds=Feeds(pool, notices),
                storage=storage,
                url_signer=url_signer,
                meters=Meters(),
                tracing=tracing,
                outlooks=Outlooks(settings),
                submissions=Together(),
            )
        finally:
            await storage.aclose()
