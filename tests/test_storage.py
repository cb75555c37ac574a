"""What every storage promises, tried on a folder, on memory, and over HTTP as S3 speaks it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import obstore
import pytest
from obstore.store import MemoryStore

from imageloom.domain.errors import Gone, NotFound, StorageUnavailable
from imageloom.storage import (
    LocalStorage,
    ObjectStorage,
    Storage,
    UrlSigner,
    open_storage,
    output_key,
    upload_key,
)

PNG = "image/png"


class FakeS3:
    """The part of the S3 protocol that we use, over a dict.

    `failures` is the number of 503s; one that `truncates` loses the last byte of what it is sent.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.media_types: dict[str, str] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.digests: dict[str, str] = {}
        self.failures = 0
        self.truncates = False
        self.requests = 0
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeS3]:
        handlers: set[asyncio.Task[None]] = set()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            handlers.add(task)
            try:
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                    length = re.search(r"(?i)content-length: (\d+)", head)
                    body = await reader.readexactly(int(length[1])) if length else b""
                    self.requests += 1
                    status, headers, data = self.answer(head, body)
                    lines = [f"HTTP/1.1 {status} X", *headers]
                    if not any(line.startswith("Content-Length") for line in headers):
                        lines.append(f"Content-Length: {len(data)}")
                    writer.write("\r\n".join([*lines, "", ""]).encode() + data)
                    await writer.drain()
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in handlers:
                task.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)

    def answer(self, head: str, body: bytes) -> tuple[int, list[str], bytes]:
        if self.failures:
            self.failures -= 1
            return 503, [], b""
        method, target, _ = head.split("\r\n")[0].split(" ")
        parts = urlsplit(target)
        query = parse_qs(parts.query, keep_blank_values=True)
        key = unquote(parts.path).removeprefix("/bucket").removeprefix("/")
        stamp = "Last-Modified: Wed, 01 Jan 2025 00:00:00 GMT"
        match method:
            case "PUT" if "partNumber" in query:
                upload, number = query["uploadId"][0], int(query["partNumber"][0])
                self.uploads[upload][number] = body
                return 200, [f'ETag: "{number}"'], b""
            case "PUT":
                self.objects[key] = body[:-1] if self.truncates else body
                digest = re.search(r"(?i)x-amz-checksum-sha256: (\S+)", head)
                self.digests[key] = digest[1] if digest else ""
                found = re.search(r"(?i)content-type: (\S+)", head)
                self.media_types[key] = found[1] if found else ""
                return 200, [f'ETag: "{hashlib.md5(body).hexdigest()}"'], b""
            case "POST" if "uploads" in query:
                upload = f"u{len(self.uploads)}"
                self.uploads[upload] = {}
                xml = (
                    f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId>"
                    "</InitiateMultipartUploadResult>"
                )
                return 200, [], xml.encode()
            case "POST" if "uploadId" in query:
                parts_of = self.uploads.pop(query["uploadId"][0])
                self.objects[key] = b"".join(parts_of[number] for number in sorted(parts_of))
                xml = (
                    '<CompleteMultipartUploadResult><ETag>"e"</ETag>'
                    "</CompleteMultipartUploadResult>"
                )
                return 200, [], xml.encode()
            case "POST" if "delete" in query:
                keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
                for found_key in keys:
                    self.objects.pop(found_key, None)
                entries = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in keys)
                return 200, [], f"<DeleteResult>{entries}</DeleteResult>".encode()
            case "GET" if "list-type" in query:
                prefix = query.get("prefix", [""])[0]
                entries = "".join(
                    f"<Contents><Key>{name}</Key><Size>{len(data)}</Size><ETag>e</ETag>"
                    "<LastModified>2025-01-01T00:00:00Z</LastModified></Contents>"
                    for name, data in self.objects.items()
                    if name.startswith(prefix)
                )
                return 200, [], f"<ListBucketResult>{entries}</ListBucketResult>".encode()
            case "GET" | "HEAD" if key in self.objects:
                data = self.objects[key]
                if asked := re.search(r"(?i)range: bytes=(\d+)-(\d+)", head):
                    first, last = int(asked[1]), int(asked[2])
                    content_range = f"Content-Range: bytes {first}-{last}/{len(data)}"
                    return 206, [stamp, 'ETag: "e"', content_range], data[first : last + 1]
                size = f"Content-Length: {len(data)}"
                return 200, [stamp, 'ETag: "e"', size], data if method == "GET" else b""
            case "GET" | "HEAD":
                return 404, [], b""
            case _:
                return 400, [], b""


@pytest.fixture
async def s3(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeS3]:
    async with FakeS3().running() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield server


@pytest.fixture(params=["folder", "memory", "protocol", "server"])
async def storage(
    request: pytest.FixtureRequest, tmp_path: Path, s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Storage]:
    match request.param:
        case "folder":
            opened = open_storage((tmp_path / "a folder").as_uri())
        case "memory":
            opened = ObjectStorage(MemoryStore())
        case "protocol":
            opened = open_storage("s3://bucket/")
        case _:
            # Not a dict that answers as we think: it checks what it is asked, headers included.
            for name, value in request.getfixturevalue("s3_server").environment.items():
                monkeypatch.setenv(name, value)
            opened = open_storage(request.getfixturevalue("s3_bucket"))
    yield opened
    await opened.aclose()


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[LocalStorage]:
    opened = LocalStorage(tmp_path / "store")
    yield opened
    await opened.aclose()


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(storage: Storage, key: str) -> tuple[int, bytes]:
    size, chunks = await storage.open(key)
    return size, b"".join([chunk async for chunk in chunks])


async def test_what_was_put_is_got(storage: Storage) -> None:
    await storage.put("outputs/task_1/1/0.png", b"abc", media_type=PNG)
    assert await storage.get("outputs/task_1/1/0.png") == b"abc"
    assert await read(storage, "outputs/task_1/1/0.png") == (3, b"abc")
    assert await storage.exists("outputs/task_1/1/0.png")


async def test_put_replaces_and_accepts_no_bytes(storage: Storage) -> None:
    await storage.put("a", b"first", media_type=PNG)
    await storage.put("a", b"", media_type=PNG)
    assert await storage.get("a") == b""
    assert await read(storage, "a") == (0, b"")


async def test_large_put_and_stream_are_whole(storage: Storage) -> None:
    data = bytes(range(256)) * 80_000  # 20 MB: several parts of an upload
    await storage.put("large/put", data, media_type=PNG)
    chunks = pieces(*(data[i : i + 700_000] for i in range(0, len(data), 700_000)))
    assert await storage.put_stream("large/stream", chunks, media_type=PNG) == len(data)
    assert await storage.get("large/put") == data
    assert await read(storage, "large/stream") == (len(data), data)


async def test_stream_that_fails_stores_nothing(storage: Storage) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise RuntimeError("the sender went away")

    with pytest.raises(RuntimeError, match="the sender went away"):
        await storage.put_stream("a/b", broken(), media_type=PNG)
    assert not await storage.exists("a/b")
    assert list(await storage.list()) == []


async def test_missing_key_is_not_found(storage: Storage) -> None:
    await storage.put("a/b", b"x", media_type=PNG)
    for key in ("b", "a", "a/b/c", "a/c"):
        with pytest.raises(NotFound):
            await storage.get(key)
        with pytest.raises(NotFound):
            await storage.open(key)
        assert not await storage.exists(key)


async def test_list_goes_by_folders_and_is_sorted(storage: Storage) -> None:
    for key in ("a/10/y", "a/1/x", "a/1/b/z", "c"):
        await storage.put(key, b"x", media_type=PNG)
    assert list(await storage.list()) == ["a/1/b/z", "a/1/x", "a/10/y", "c"]
    assert list(await storage.list("a/1")) == ["a/1/b/z", "a/1/x"]
    assert list(await storage.list("a/1/")) == ["a/1/b/z", "a/1/x"]
    assert list(await storage.list("nothing")) == []


async def test_delete_removes_what_is_there_and_accepts_what_is_not(storage: Storage) -> None:
    for key in ("a/1", "a/2", "a/3"):
        await storage.put(key, b"x", media_type=PNG)
    await storage.delete(["a/1", "a/missing", "missing/x", "a/3"])
    assert list(await storage.list()) == ["a/2"]
    await storage.delete([])
    await storage.delete(["a/2"])
    await storage.delete(["a/2"])
    assert list(await storage.list()) == []


async def test_delete_prefix_removes_one_folder(storage: Storage) -> None:
    for key in ("outputs/task_1/1/0.jpg", "outputs/task_1/2/0.jpg", "outputs/task_10/1/0.jpg"):
        await storage.put(key, b"x", media_type=PNG)
    await storage.delete_prefix("outputs/task_1")
    assert list(await storage.list()) == ["outputs/task_10/1/0.jpg"]
    with pytest.raises(ValueError, match="empty prefix"):
        await storage.delete_prefix("")


HOSTILE_KEYS = [
    "",
    ".",
    "..",
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a/..",
    "a//b",
    "a/",
    "./a",
    "a/./b",
    "a\\b",
    "a\x00b",
    "a b",
    "a\nb",
    "a\n",
    "é",
    "%2e%2e/x",
    ".staging/x",
    "~/x",
    "-rf",
    "C:/x",
    "a#1",
    "x" * 513,
]


@pytest.mark.parametrize("key", HOSTILE_KEYS)
async def test_hostile_key_is_not_found(storage: Storage, key: str) -> None:
    with pytest.raises(NotFound):
        await storage.put(key, b"x", media_type=PNG)
    with pytest.raises(NotFound):
        await storage.put_stream(key, pieces(b"x"), media_type=PNG)
    with pytest.raises(NotFound):
        await storage.get(key)
    with pytest.raises(NotFound):
        await storage.open(key)
    with pytest.raises(NotFound):
        await storage.delete([key])
    assert not await storage.exists(key)
    assert list(await storage.list()) == []


async def test_concurrent_puts_and_deletes_in_one_folder_all_succeed(storage: Storage) -> None:
    async def cycle(number: int) -> None:
        for _ in range(10):
            await storage.put(f"a/b/{number}", b"x", media_type=PNG)
            await storage.delete([f"a/b/{number}"])

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(cycle(number))
    assert list(await storage.list()) == []


def test_keys_are_named_by_what_they_hold() -> None:
    assert output_key("task_1", 2, 0, "png") == "outputs/task_1/2/0.png"
    assert upload_key("default", "file_1") == "uploads/default/file_1"
    for hostile in ("..", "a/b", "", "."):
        with pytest.raises(NotFound):
            upload_key("default", hostile)
        with pytest.raises(NotFound):
            output_key(hostile, 1, 0, "png")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name a descriptor")
async def test_folder_syncs_the_file_before_it_is_visible_and_the_name_after(
    folder: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store" / "a" / "b.png"
    synced: list[tuple[str, bool]] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").resolve().relative_to(tmp_path).as_posix()
        kind = "staged" if ".staging" in name else name
        synced.append((kind, path.exists()))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    await folder.put("a/b.png", b"x", media_type=PNG)
    assert synced == [("staged", False), ("store", False), ("store/a", True)]
    synced.clear()
    await folder.delete(["a/b.png"])
    await folder.put_stream("a/b.png", pieces(b"x"), media_type=PNG)
    assert synced == [("staged", False), ("store", False), ("store/a", True)]


WRITER = """
import asyncio, sys
from pathlib import Path
from imageloom.storage import LocalStorage

async def main():
    storage = LocalStorage(Path(sys.argv[1]))
    for round in range(10_000):
        await storage.put("a/b", bytes([round % 256]) * 8_000_000, media_type="image/png")
        print(round, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("rounds", [1, 2, 3])
async def test_killed_writer_leaves_a_whole_file(tmp_path: Path, rounds: int) -> None:
    root = tmp_path / "store"
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(root), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    for _ in range(rounds):
        await writer.stdout.readline()
    writer.kill()
    await writer.communicate()
    storage = LocalStorage(root)
    data = await storage.get("a/b")
    assert len(data) == 8_000_000
    assert data == data[:1] * len(data)
    assert list(await storage.list()) == ["a/b"]
    await storage.aclose()


async def test_folder_forgets_old_staged_files_and_keeps_young_ones(tmp_path: Path) -> None:
    await LocalStorage(tmp_path).aclose()
    old, young = tmp_path / ".staging" / "old", tmp_path / ".staging" / "young"
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(old, (time.time() - 90_000, time.time() - 90_000))
    await LocalStorage(tmp_path).aclose()
    assert (old.exists(), young.exists()) == (False, True)


async def test_link_in_the_folder_is_never_followed(folder: LocalStorage, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (tmp_path / "store" / "link").symlink_to(secret)
    (tmp_path / "store" / "dir").symlink_to(tmp_path)
    for key in ("link", "dir/secret"):
        with pytest.raises(NotFound):
            await folder.get(key)
        with pytest.raises(NotFound):
            await folder.open(key)
        assert not await folder.exists(key)
    with pytest.raises(StorageUnavailable):
        await folder.put("dir/other", b"x", media_type=PNG)
    with pytest.raises(StorageUnavailable):
        await folder.delete(["dir/secret"])
    assert list(await folder.list("dir")) == []
    assert secret.read_bytes() == b"secret"
    assert not (tmp_path / "other").exists()


async def test_emptied_folders_are_removed(folder: LocalStorage, tmp_path: Path) -> None:
    await folder.put("a/b/c", b"x", media_type=PNG)
    await folder.delete(["a/b/c"])
    assert [path.name for path in (tmp_path / "store").iterdir()] == [".staging"]


async def test_full_disk_is_storage_unavailable_and_leaves_nothing(
    folder: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageUnavailable) as failed:
        await folder.put("a", b"x", media_type=PNG)
    with pytest.raises(StorageUnavailable):
        await folder.put_stream("a", pieces(b"x"), media_type=PNG)
    assert failed.value.message == "the storage failed; try again later"
    assert not await folder.exists("a")
    assert list((tmp_path / "store" / ".staging").iterdir()) == []


async def test_bucket_is_told_the_media_type(s3: FakeS3) -> None:
    storage = open_storage("s3://bucket/prefix")
    await storage.put("a", b"x", media_type=PNG)
    await storage.aclose()
    assert s3.media_types == {"prefix/a": PNG}


@pytest.mark.parametrize(("lies", "good"), [(2, True), (3, False)])
async def test_put_is_believed_only_when_it_is_read_back(
    monkeypatch: pytest.MonkeyPatch, lies: int, *, good: bool
) -> None:
    put, given = obstore.put, list[bytes]()

    def lie(store: MemoryStore, key: str, data: bytes, **options: Any) -> None:
        given.append(data)
        put(store, key, data if len(given) > lies else b"other", **options)

    monkeypatch.setattr(obstore, "put", lie)
    opened = ObjectStorage(MemoryStore())
    if good:
        await opened.put("a/b", b"bytes", media_type=PNG)
        assert await opened.get("a/b") == b"bytes"
    else:
        with pytest.raises(StorageUnavailable):
            await opened.put("a/b", b"bytes", media_type=PNG)
    await opened.aclose()


async def test_bucket_that_fails_for_a_moment_is_asked_again(s3: FakeS3) -> None:
    storage = open_storage("s3://bucket")
    s3.failures = 2
    await storage.put("a", b"x", media_type=PNG)
    await storage.aclose()
    assert s3.objects == {"a": b"x"}
    assert s3.requests == 4  # the last reads back what was stored


async def test_bucket_that_keeps_less_than_it_got_is_storage_unavailable(s3: FakeS3) -> None:
    storage = open_storage("s3://bucket")
    s3.truncates = True
    with pytest.raises(StorageUnavailable):
        await storage.put("a", b"whole", media_type=PNG)
    with pytest.raises(StorageUnavailable):
        await storage.put_stream("b", pieces(b"who", b"le"), media_type=PNG)
    await storage.aclose()


async def test_bucket_is_sent_the_digest_of_what_it_gets(s3: FakeS3) -> None:
    storage = open_storage("s3://bucket")
    await storage.put("a", b"x", media_type=PNG)
    await storage.aclose()
    assert s3.digests == {"a": base64.b64encode(hashlib.sha256(b"x").digest()).decode()}


async def test_bucket_that_keeps_failing_is_storage_unavailable(s3: FakeS3) -> None:
    storage = open_storage("s3://bucket")
    s3.failures = 1_000
    with pytest.raises(StorageUnavailable):
        await storage.put("a", b"x", media_type=PNG)
    await storage.aclose()
    assert s3.requests <= 5


@pytest.mark.parametrize(
    "url",
    ["", "data", "/var/data", "file:///", "file://", "file://host/x", "http://x/y", "ftp://x"],
)
def test_other_storage_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="storage URL"):
        open_storage(url)


@pytest.fixture
def signer() -> UrlSigner:
    return UrlSigner(b"0123456789abcdef", now=lambda: 1000.0)


def test_signed_reference_is_read_until_it_expires(signer: UrlSigner) -> None:
    ref = "outputs/task_1/1/0.png"
    assert signer.verify("output", signer.sign("output", ref, 1001)) == ref
    with pytest.raises(Gone):
        signer.verify("output", signer.sign("output", ref, 1000))


def test_token_is_url_safe_and_the_same_each_time(signer: UrlSigner) -> None:
    token = signer.sign("output", "outputs/" + "task_é" * 40, 2000)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", token)
    assert token == signer.sign("output", "outputs/" + "task_é" * 40, 2000)


def test_no_changed_character_is_accepted(signer: UrlSigner) -> None:
    token = signer.sign("output", "outputs/task_1/1/0.png", 2000)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.="
    for position in range(len(token)):
        for character in alphabet:
            changed = token[:position] + character + token[position + 1 :]
            if changed != token:
                with pytest.raises(NotFound):
                    signer.verify("output", changed)


@pytest.mark.parametrize("token", ["", ".", "a", "a.b", "é", "\ud800", "x" * 5000, "W10.e30"])
def test_token_that_nobody_signed_is_not_found(signer: UrlSigner, token: str) -> None:
    with pytest.raises(NotFound):
        signer.verify("output", token)


def test_padded_token_is_not_found(signer: UrlSigner) -> None:
    token = signer.sign("output", "a", 2000)
    for changed in (token + "=", token + "A", "A" + token, token[:-1], token.replace(".", "=.")):
        with pytest.raises(NotFound):
            signer.verify("output", changed)


def test_token_of_another_kind_or_secret_is_not_found(signer: UrlSigner) -> None:
    token = signer.sign("output", "a", 2000)
    with pytest.raises(NotFound):
        signer.verify("file", token)
    with pytest.raises(NotFound):
        UrlSigner(b"another secret 16").verify("output", token)


def test_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        UrlSigner(b"short")


async def test_who_is_cancelled_leaves_once_its_call_is_over(tmp_path: Path) -> None:
    storage = open_storage(tmp_path.as_uri())
    began, may_end = threading.Event(), threading.Event()
    written: list[str] = []

    def write() -> None:
        began.set()
        may_end.wait(30)
        written.append("late")

    writing = asyncio.create_task(storage._run(30, write))
    await asyncio.to_thread(began.wait, 30)
    writing.cancel()
    await asyncio.sleep(0)
    assert not writing.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert written == ["late"]  # so whoever cleans up now finds it
    await storage.aclose()
