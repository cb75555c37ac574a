"""What a user's URL may make the server do: fetch public bytes, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import functools
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpcore
import pytest

from imageloom.domain.errors import InvalidInput
from imageloom.fetch import Fetched, Fetcher, check_url, is_public
from imageloom.fetch.dialing import resolve_host
from imageloom.fetch.targets import parse_allowed, parse_redirect, parse_target

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]
LIMIT = 100_000


@dataclass(kw_only=True)
class Site:
    """A real server on loopback. `requests` holds the head of every request that it got."""

    port: int = 0
    replies: dict[str, bytes | Reply] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    connections: int = 0

    def url(self, path: str, *, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    @property
    def allow(self) -> str:
        return f"127.0.0.1:{self.port}"


def answer(body: bytes = b"", *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, "Connection: close"]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(location: str, *, status: str = "302 Found") -> bytes:
    return answer(b"", f"Location: {location}", status=status)


@asynccontextmanager
async def running(site: Site, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        site.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            site.requests.append(head)
            reply = site.replies.get(head.split(" ")[1], answer(status="404 Not Found"))
            if isinstance(reply, bytes):
                writer.write(reply)
                await writer.drain()
            else:
                await reply(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


@functools.cache
def usual_authorities() -> ssl.SSLContext:
    """What the fetcher makes for itself; once, because reading it takes 50 ms."""
    return httpcore.default_ssl_context()


@asynccontextmanager
async def fetching(
    *allow: str,
    timeout: float = 20.0,  # noqa: ASYNC109 - what the fetcher is given
    resolve: Callable[[str, int], Awaitable[Sequence[str]]] = resolve_host,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Fetcher]:
    fetcher = Fetcher(allow, timeout, resolve=resolve, tls=tls or usual_authorities())
    try:
        yield fetcher
    finally:
        await fetcher.aclose()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running(Site()) as running_site:
        yield running_site


@pytest.fixture
async def canary() -> AsyncIterator[Site]:
    """A server that nothing may reach."""
    async with running(Site()) as running_site:
        yield running_site
    assert running_site.connections == 0


@pytest.fixture
async def fetcher(site: Site) -> AsyncIterator[Fetcher]:
    async with fetching(site.allow) as fetcher:
        yield fetcher


async def refusal(fetcher: Fetcher, url: str, *, max_bytes: int = LIMIT) -> str:
    with pytest.raises(InvalidInput) as refused:
        await fetcher.fetch(url, max_bytes=max_bytes)
    return refused.value.message


async def test_allowed_host_and_port_is_fetched(site: Site, fetcher: Fetcher) -> None:
    site.replies["/cat.jpg?size=2"] = answer(b"cat", "Content-Type: Image/JPEG; q=1")
    fetched = await fetcher.fetch(site.url("/cat.jpg?size=2"), max_bytes=LIMIT)
    assert fetched == Fetched(data=b"cat", media_type="image/jpeg")
    head = site.requests[0].lower()
    assert f"host: 127.0.0.1:{site.port}\r\n" in head
    assert "accept-encoding: identity\r\n" in head


async def test_presigned_query_arrives_as_it_was_written(site: Site, fetcher: Fetcher) -> None:
    path = "/b%2Fc/~x?X-Amz-Signature=a%2Bb%3D&e=2024-01-01T00%3A00%3A00Z&t=(1)*'"
    site.replies[path] = answer(b"x")
    assert (await fetcher.fetch(site.url(path), max_bytes=LIMIT)).data == b"x"


async def test_chunked_body_is_joined(site: Site, fetcher: Fetcher) -> None:
    body = b"3\r\ncat\r\n3\r\ndog\r\n0\r\n\r\n"
    head = answer(b"", "Transfer-Encoding: chunked", length=False)
    site.replies["/x"] = head + body
    assert (await fetcher.fetch(site.url("/x"), max_bytes=6)).data == b"catdog"


async def test_another_port_of_an_allowed_host_is_refused(canary: Site) -> None:
    async with fetching("127.0.0.1:1") as fetcher:
        message = await refusal(fetcher, canary.url("/"))
    assert message == (
        "the address of 127.0.0.1 is private or reserved; "
        f"the operator can permit it with IMAGELOOM_FETCH_ALLOW=127.0.0.1:{canary.port}"
    )


async def test_another_name_of_an_allowed_host_is_refused(canary: Site) -> None:
    async with fetching(canary.allow) as fetcher:
        assert "private" in await refusal(fetcher, canary.url("/", host="localhost"))


@pytest.mark.parametrize("status", ["301 A", "302 B", "303 C", "307 D", "308 E"])
async def test_three_redirects_are_followed(site: Site, fetcher: Fetcher, status: str) -> None:
    site.replies |= {
        "/1": redirect("/2", status=status),
        "/2": redirect(site.url("/a/3"), status=status),
        "/a/3": redirect("../4?x=1", status=status),
        "/4?x=1": answer(b"end"),
    }
    assert (await fetcher.fetch(site.url("/1"), max_bytes=LIMIT)).data == b"end"


async def test_a_fourth_redirect_is_refused(site: Site, fetcher: Fetcher) -> None:
    site.replies["/loop"] = redirect("/loop")
    message = await refusal(fetcher, site.url("/loop"))
    assert message.endswith("redirects more than 3 times; give the final URL")
    assert len(site.requests) == 4


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/",
        "//127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://0:{port}/",
        "http://2130706433:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://user@127.0.0.1:{port}/",
        "http:127.0.0.1:{port}/",
        "\\\\127.0.0.1:{port}/",
        "file:///etc/passwd",
        "ftp://127.0.0.1:{port}/",
        "data:image/png;base64,AAAA",
        "http://",
        "http://[::1",
    ],
)
async def test_redirect_is_checked_like_the_first_url(
    site: Site, fetcher: Fetcher, canary: Site, location: str
) -> None:
    site.replies["/"] = redirect(location.format(port=canary.port))
    await refusal(fetcher, site.url("/"))


async def test_redirect_without_location_is_refused(site: Site, fetcher: Fetcher) -> None:
    site.replies["/"] = answer(status="302 Found")
    assert (await refusal(fetcher, site.url("/"))).endswith("answered 302 without a Location")


def test_redirect_never_leaves_https() -> None:
    target = parse_target("https://a.example/x")
    assert parse_redirect(target, "/y").scheme == "https"
    with pytest.raises(InvalidInput, match="redirects from https to http"):
        parse_redirect(target, "http://a.example/x")


async def test_name_is_resolved_once_and_exactly_that_address_is_dialled(
    monkeypatch: pytest.MonkeyPatch, canary: Site
) -> None:
    asked: list[str] = []
    dialled: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["93.184.215.14"] if len(asked) % 2 else ["127.0.0.1"]

    async def unreachable(
        self: object, host: str, port: int, **_: object
    ) -> httpcore.AsyncNetworkStream:
        dialled.append(host)
        raise httpcore.ConnectError("unreachable")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", unreachable)
    async with fetching(resolve=rebinding) as fetcher:
        for _ in range(200):
            await refusal(fetcher, canary.url("/", host="rebinding.example"))
    assert len(asked) == 200
    assert dialled == ["93.184.215.14"] * 100


@pytest.mark.parametrize(
    "addresses",
    [
        ["93.184.215.14", "127.0.0.1"],
        ["127.0.0.1", "93.184.215.14"],
        ["2606:2800:21f:cb07::1", "::1"],
        ["not an address"],
    ],
)
async def test_one_private_address_among_public_ones_refuses_the_name(
    canary: Site, addresses: list[str]
) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    async with fetching(resolve=resolve) as fetcher:
        assert "private" in await refusal(fetcher, canary.url("/", host="mixed.example"))


async def test_next_address_is_dialled_when_the_first_is_dead(site: Site) -> None:
    site.replies["/"] = answer(b"x")

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.255.255.254", "127.0.0.1"]  # nothing listens on the first

    async with fetching(f"two.example:{site.port}", resolve=resolve) as fetcher:
        fetched = await fetcher.fetch(site.url("/", host="two.example"), max_bytes=LIMIT)
    assert fetched.data == b"x"
    assert f"Host: two.example:{site.port}\r\n" in site.requests[0]


@pytest.mark.parametrize("failure", [OSError("no"), UnicodeError("no"), None])
async def test_unknown_host_is_named(failure: Exception | None) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        if failure is not None:
            raise failure
        return []

    async with fetching(resolve=resolve) as fetcher:
        message = await refusal(fetcher, "https://nowhere.example/cat.jpg")
    assert message == "the host nowhere.example was not found"


async def test_proxy_of_the_environment_is_not_used(
    monkeypatch: pytest.MonkeyPatch, site: Site, canary: Site
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, canary.url(""))
    site.replies["/"] = answer(b"x")
    async with fetching(site.allow) as fetcher:
        assert (await fetcher.fetch(site.url("/"), max_bytes=LIMIT)).data == b"x"


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "204 No Content", "206 Partial"])
async def test_other_status_is_named_without_the_query(
    site: Site, fetcher: Fetcher, status: str
) -> None:
    site.replies["/cat.jpg?token=secret"] = answer(status=status)
    message = await refusal(fetcher, site.url("/cat.jpg?token=secret"))
    code = status.split(" ")[0]
    assert message == f"{site.url('/cat.jpg')} answered {code}; 200 was expected"


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "gzip, identity"])
async def test_compressed_answer_is_refused(site: Site, fetcher: Fetcher, encoding: str) -> None:
    site.replies["/"] = answer(b"x", f"Content-Encoding: {encoding}")
    assert "answered compressed" in await refusal(fetcher, site.url("/"))


async def test_announced_size_over_the_limit_is_refused_unread(
    site: Site, fetcher: Fetcher
) -> None:
    head = answer(b"", "Content-Length: 10000000000", length=False)
    site.replies["/"] = head
    message = await refusal(fetcher, site.url("/"), max_bytes=25_000_000)
    assert message == f"{site.url('/')} is larger than 25 MB"


async def test_body_at_the_limit_passes_and_one_byte_more_does_not(
    site: Site, fetcher: Fetcher
) -> None:
    site.replies["/"] = answer(b"x" * 1000, length=False)
    assert len((await fetcher.fetch(site.url("/"), max_bytes=1000)).data) == 1000
    assert (await refusal(fetcher, site.url("/"), max_bytes=999)).endswith("larger than 999 bytes")


async def test_endless_body_is_cut_at_the_limit(site: Site, fetcher: Fetcher) -> None:
    sent = 0
    ended = asyncio.Event()

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.transport.set_write_buffer_limits(high=0)
        try:
            writer.write(answer(length=False))
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        finally:
            ended.set()

    site.replies["/"] = endless
    assert "larger than" in await refusal(fetcher, site.url("/"))
    async with asyncio.timeout(20):
        await ended.wait()
    assert sent < 20_000_000  # what both kernels buffer on loopback, not what was read


async def test_streamed_chunks_never_exceed_the_limit(site: Site, fetcher: Fetcher) -> None:
    site.replies["/"] = answer(b"x" * 500_000, length=False)
    received = 0
    async with fetcher.stream(site.url("/"), max_bytes=LIMIT) as opened:
        assert opened.size is None
        try:
            async for chunk in opened.chunks:
                received += len(chunk)
        except InvalidInput as refused:
            assert refused.message == f"{site.url('/')} is larger than 0.1 MB"  # noqa: PT017
    assert 0 < received <= LIMIT


async def test_stream_can_be_left_early(site: Site, fetcher: Fetcher) -> None:
    site.replies["/"] = answer(b"x" * 90_000)
    async with fetcher.stream(site.url("/"), max_bytes=LIMIT) as opened:
        assert opened.size == 90_000
        async for chunk in opened.chunks:
            assert chunk
            break


async def test_slow_body_is_cut_by_the_deadline(site: Site) -> None:
    async def stuck(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"x", length=False))
        await writer.drain()
        await asyncio.Event().wait()

    site.replies["/"] = stuck
    async with fetching(site.allow, timeout=0.3) as fetcher:
        assert await refusal(fetcher, site.url("/")) == f"{site.url('/')} took longer than 0.3 s"


async def test_deadline_is_total_over_redirects_and_reads(site: Site) -> None:
    async def dripping(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(length=False))
        loop = asyncio.get_running_loop()
        while True:  # each read is answered quickly; only a total deadline ends this
            writer.write(b"x")
            await writer.drain()
            pause = loop.create_future()
            loop.call_later(0.01, pause.set_result, None)
            await pause

    site.replies |= {"/": redirect("/drip"), "/drip": dripping}
    async with fetching(site.allow, timeout=0.5) as fetcher:
        assert (await refusal(fetcher, site.url("/"))).endswith("took longer than 0.5 s")


async def test_silent_resolver_is_cut_by_the_deadline() -> None:
    async def silent(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async with fetching(resolve=silent, timeout=0.1) as fetcher:
        assert (await refusal(fetcher, "http://a.example/")).endswith("took longer than 0.1 s")


async def test_own_timeout_of_the_caller_is_not_renamed(site: Site, fetcher: Fetcher) -> None:
    site.replies["/"] = answer(b"x")
    with pytest.raises(TimeoutError, match="the caller's"):
        async with fetcher.stream(site.url("/"), max_bytes=LIMIT):
            raise TimeoutError("the caller's")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (answer(b"", "Content-Length: 50", length=False) + b"short", "broke off after 5 bytes"),
        (b"SSH-2.0-OpenSSH_9.0\r\n\r\n", "did not answer with valid HTTP"),
        (b"", "did not answer with valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "valid HTTP"),
    ],
)
async def test_broken_http_is_refused(
    site: Site, fetcher: Fetcher, raw: bytes, reason: str
) -> None:
    site.replies["/"] = raw
    assert reason in await refusal(fetcher, site.url("/"))


async def test_body_longer_than_announced_ends_where_announced(
    site: Site, fetcher: Fetcher
) -> None:
    site.replies["/"] = answer(b"", "Content-Length: 3", length=False) + b"cat and more"
    assert (await fetcher.fetch(site.url("/"), max_bytes=LIMIT)).data == b"cat"


async def test_closed_port_could_not_be_reached(site: Site) -> None:
    async with AsyncExitStack() as stack:
        closed = await stack.enter_async_context(running(Site()))
    async with fetching(closed.allow) as fetcher:
        assert (await refusal(fetcher, closed.url("/"))).endswith("could not be reached")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for pictures.example, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=DNS:pictures.example"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([openssl, *command.split(), *names, *files], check=True, capture_output=True)
    (folder / "both.pem").write_bytes(
        (folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes()
    )
    return folder / "both.pem"


@pytest.fixture
async def tls_site(certificate: Path) -> AsyncIterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with running(Site(), tls=context) as running_site:
        yield running_site


async def loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


async def test_certificate_is_checked_against_the_name_not_the_address(
    tls_site: Site, certificate: Path
) -> None:
    tls_site.replies["/"] = answer(b"x")
    trust = ssl.create_default_context(cafile=str(certificate))
    names = ("pictures.example", "other.example")
    allow = [f"{name}:{tls_site.port}" for name in names]
    async with fetching(*allow, resolve=loopback, tls=trust) as fetcher:
        good, bad = (tls_site.url("/", host=name, scheme="https") for name in names)
        assert (await fetcher.fetch(good, max_bytes=LIMIT)).data == b"x"
        assert "its certificate is not valid" in await refusal(fetcher, bad)


async def test_unknown_authority_is_refused_by_default(tls_site: Site) -> None:
    async with fetching(f"pictures.example:{tls_site.port}", resolve=loopback) as fetcher:
        url = tls_site.url("/", host="pictures.example", scheme="https")
        assert "its certificate is not valid" in await refusal(fetcher, url)


async def test_https_redirect_to_http_is_refused_on_the_wire(
    tls_site: Site, certificate: Path, canary: Site
) -> None:
    tls_site.replies["/"] = redirect(canary.url("/"))
    trust = ssl.create_default_context(cafile=str(certificate))
    allow = [f"pictures.example:{tls_site.port}", canary.allow]
    async with fetching(*allow, resolve=loopback, tls=trust) as fetcher:
        url = tls_site.url("/", host="pictures.example", scheme="https")
        assert "from https to http" in await refusal(fetcher, url)


HOSTILE = [
    "",
    " ",
    "cat.jpg",
    "/etc/passwd",
    "//127.0.0.1:{port}/",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file://localhost/etc/passwd",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_x",
    "dict://127.0.0.1:{port}/",
    "ldap://127.0.0.1:{port}/",
    "jar:http://127.0.0.1:{port}/!/",
    "javascript:alert(1)",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
    "ws://127.0.0.1:{port}/",
    "blob:http://127.0.0.1:{port}/x",
    "view-source:http://127.0.0.1:{port}/",
    "http:",
    "http:/",
    "http://",
    "http:///",
    "http://:{port}/",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:\\\\127.0.0.1:{port}/",
    "http:/\\127.0.0.1:{port}/",
    "http://\\127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@example.com/",
    "https://example.com\\@127.0.0.1:{port}/",
    " http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/ ",
    "http://127.0.0.1:{port}/a b",
    "\thttp://127.0.0.1:{port}/",
    "ht\ntp://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/\r\nHost: evil",
    "http://127.0.0.1:{port}/\r\n\r\nGET /admin",
    "http://127.0.0.1\r\n:{port}/",
    "http://127.0.0.1:{port}/\x00",
    "http://127.0.0.1\x00.example.com:{port}/",
    "http://127.0.0.1\u200b:{port}/",
    "http://\u202e127.0.0.1:{port}/",
    "http://127.0.0.1\u2028:{port}/",
    "http://127.0.0.1:{port}/\ud800",
    "http://user@127.0.0.1:{port}/",
    "http://user:password@127.0.0.1:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://@127.0.0.1:{port}/",
    "http://:@127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}:80/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:65536/",
    "http://127.0.0.1:99999999999/",
    "http://127.0.0.1:-1/",
    "http://127.0.0.1:+{port}/",
    "http://127.0.0.1:0x50/",
    "http://127.0.0.1:８０/",
    "http://127.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}?x",
    "http://127.0.0.1:{port}#@example.com/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://127.9.9.9:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f.1:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7F.0x0.0x0.0x1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://127。0。0。1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://１２７.0.0.1:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://ｌｏｃａｌｈｏｓｔ:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fe80::1%lo]:{port}/",
    "http://[fec0::1]:{port}/",
    "http://[fd00:ec2::254]:{port}/",
    "http://[ff02::1]:{port}/",
    "http://[::1:{port}/",
    "http://::1:{port}/",
    "http://[127.0.0.1]:{port}/",
    "http://[v1.x]:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/",
    "http://[::ffff:169.254.169.254]/",
    "http://168.63.129.16/machine",
    "http://100.100.100.200/latest/meta-data/",
    "http://192.0.0.192/opc/v2/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://240.0.0.1/",
    "http://a;b/",
    "http://a'b/",
    "http://a,b/",
    "http://$(id)/",
    "http://" + "a" * 300 + "/",
    "http://127.0.0.1:{port}/" + "a" * 10_000,
    "data:",
    "data:image/png",
    "data:image/png;base64,!!!!",
    "data:image/png;base64,A",
    "data:text/plain,a b",
]


@pytest.mark.parametrize("url", HOSTILE)
async def test_hostile_url_is_refused_and_reaches_nothing(canary: Site, url: str) -> None:
    async with fetching() as fetcher:
        message = await refusal(fetcher, url.replace("{port}", str(canary.port)))
    assert len(message) < 350
    assert "Error" not in message


def test_hostile_table_is_long_enough() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 100


@pytest.mark.parametrize(
    ("url", "data", "media_type"),
    [
        ("data:,", b"", None),
        ("data:text/plain,caf%C3%A9", "café".encode(), "text/plain"),
        ("data:image/PNG;base64,AAEC", b"\x00\x01\x02", "image/png"),
        ("data:image/png;charset=x;BASE64,AAE=", b"\x00\x01", "image/png"),
        ("DATA:;base64,AAE", b"\x00\x01", None),
        ("data:image/png;base64,%2B%2F%3D%3D", b"\xfb", "image/png"),
    ],
)
async def test_data_url_carries_its_bytes(url: str, data: bytes, media_type: str | None) -> None:
    async with fetching() as fetcher:
        fetched = await fetcher.fetch(url, max_bytes=LIMIT)
    assert fetched == Fetched(data=data, media_type=media_type)


@pytest.mark.parametrize(
    "url",
    [
        "data:;base64," + base64.b64encode(b"x" * 1001).decode(),
        "data:," + "x" * 1001,
        "data:," + "%41" * 1001,
        "data:," + "x" * 100_000,
    ],
)
async def test_data_url_over_the_limit_is_refused(url: str) -> None:
    async with fetching() as fetcher:
        assert await refusal(fetcher, url, max_bytes=1000) == (
            "the data: URL is larger than 1000 bytes"
        )


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "93.184.215.14",
        "172.15.255.255",
        "172.32.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2001:4860:4860::8888",
        "64:ff9b::101:101",
        "::ffff:1.1.1.1",
    ],
)
def test_public_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "2001:db8::1",
        "2001::1",
        "2001:10::1",
        "2002:101:101::1",
        "3fff::1",
        "4000::1",
        "100::1",
        "5f00::1",
        "fc00::1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "::ffff:10.0.0.1",
        "::1.1.1.1",
        "::ffff:0:7f00:1",
        "2606:4700::5efe:10.0.0.1",
        "2606:4700::200:5efe:10.0.0.1",
        "2606:4700:4700::1111%1",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "192.88.99.1",
        "localhost",
        "",
    ],
)
def test_special_address_is_not_public(address: str) -> None:
    assert not is_public(address)


def test_check_url_refuses_written_addresses_and_leaves_names_to_the_dial() -> None:
    check_url("https://pictures.example/cat.jpg")
    check_url("http://localhost/")
    check_url("http://1.1.1.1/")
    check_url("data:,x")
    check_url("http://10.0.0.1:9000/", allow=["10.0.0.1:9000"])
    check_url("http://[::1]/", allow=["[::1]:80"])
    for url in ("http://10.0.0.1/", "http://0x7f.1/", "http://[::1]/", "ftp://a.example/"):
        with pytest.raises(InvalidInput):
            check_url(url, allow=["10.0.0.1:9000", "[::1]:81"])


@pytest.mark.parametrize("entry", ["localhost", "host:", ":80", "host:http", "::1:80", "*"])
def test_allow_entry_is_exactly_host_and_port(entry: str) -> None:
    with pytest.raises(ValueError, match="IMAGELOOM_FETCH_ALLOW"):
        parse_allowed([entry])
