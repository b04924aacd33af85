"""Client, proxy and server in one process on one loop: the client role asks the proxy, and the proxy the server."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache.stores.memory import MemoryStore
from handlers.access_log import AccessLog
from handlers.api import builtin_api
from handlers.caching import Caching
from handlers.exit_codes import HTTP_ERROR, OK
from handlers.fetch_command import Fetch, FetchOptions
from handlers.proxy import Forwarding
from handlers.router import Router
from handlers.static import Static
from handlers.tunnel import ANY_PORT, Tunnel
from handlers.upstreams import Upstream, Upstreams
from reactor.client import Pool
from reactor.connector import Connector
from reactor.exchange import Exchange
from reactor.http.uri import Origin
from reactor.resolver import Resolver
from tests.loopback import Handling, House, Peer, Served, housed

MIB = 1 << 20
HELLO = b"hello, world\n"


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


class Tiers:
    """The three of them. `asked` are the exchanges that reached the server."""

    def __init__(self, house: House, root: Path, reverse: bool = False, cache: int = 8 * MIB) -> None:
        self.house = house
        static = Static(str(root))
        self.handling = Handling(Router(static, [builtin_api()]).handle)
        self.server = house.serve(self.handling)
        resolver = Resolver(house.reactor)
        connector = Connector(house.reactor, resolver)
        self.upstream_pool, self.client_pool = Pool(house.reactor, connector), Pool(house.reactor, connector)
        upstreams = [Upstream.parse(f"http://127.0.0.1:{self.server.port}")] if reverse else []
        self.forwarding = Forwarding(self.upstream_pool, upstreams)
        self.store = MemoryStore(cache)
        self.caching = Caching(house.reactor, self.forwarding, self.store)
        self.proxied = Handling((self.caching if reverse else Tunnel(connector, self.caching, ports=ANY_PORT)).handle)
        self.proxy = house.serve(self.proxied)
        self.reverse = reverse
        house.cleanups += [resolver.close, self.upstream_pool.close, self.client_pool.close, self.store.close, static.close]

    def fetch(self, *paths: str, **options: Any) -> tuple[int, bytes, str]:
        """What the client role comes to: code, standard output, standard error."""
        target = self.proxy if self.reverse else self.server
        through = None if self.reverse else Origin(b"http", b"127.0.0.1", self.proxy.port)
        out, err, codes = io.BytesIO(), io.BytesIO(), list[int]()
        made = FetchOptions([f"http://127.0.0.1:{target.port}{path}" for path in paths], proxy=through, **options)
        fetch = Fetch(self.house.reactor, self.client_pool, made, codes.append, out, err)
        fetch.start()
        self.house.until(lambda: codes, lambda: f"the end of {paths}; {err.getvalue()!r}")
        return codes[0], out.getvalue(), err.getvalue().decode()

    def statuses(self, path: str) -> list[str]:
        """What the caches said they did."""
        _, text, _ = self.fetch(path, include=True)
        lines = text.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        return [line.removeprefix("Cache-Status: ") for line in lines if line.startswith("Cache-Status: ")]

    @property
    def asked(self) -> list[Exchange]:
        return self.handling.exchanges


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "hello.txt").write_bytes(HELLO)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "index.html").write_bytes(b"<p>index</p>")
    week_ago = 784111777 - 7 * 86400
    for path in (*tmp_path.iterdir(), tmp_path / "folder" / "index.html"):
        os.utime(path, (week_ago, week_ago))
    return tmp_path


@pytest.fixture(params=[False, True], ids=["forward", "reverse"])
def tiers(house: House, root: Path, request: pytest.FixtureRequest) -> Tiers:
    return Tiers(house, root, reverse=request.param)


def test_a_miss_and_a_hit(tiers: Tiers) -> None:
    (miss,), (hit,) = tiers.statuses("/hello.txt"), tiers.statuses("/hello.txt")
    assert miss.startswith("reactor; fwd=uri-miss; stored; ttl=") and hit.startswith("reactor; hit; ttl=")
    assert tiers.fetch("/hello.txt") == (OK, HELLO, "")
    assert len(tiers.asked) == 1
    assert [exchange.verdict for exchange in tiers.proxied.ended] == ["miss", "hit", "hit"]


def test_several_over_kept_connections(tiers: Tiers) -> None:
    code, text, said = tiers.fetch("/hello.txt", "/hello.txt", "/folder/")
    assert (code, text, said) == (OK, HELLO + HELLO + b"<p>index</p>", "")
    assert (tiers.client_pool.idle, tiers.upstream_pool.idle) == (1, 1)


def test_head(tiers: Tiers) -> None:
    tiers.fetch("/hello.txt")
    code, text, _ = tiers.fetch("/hello.txt", head=True)
    assert code == OK and b"content-length: %d\r\n" % len(HELLO) in text.lower() and not text.endswith(HELLO)


def test_an_empty_file(tiers: Tiers) -> None:
    for _ in range(2):
        assert tiers.fetch("/empty") == (OK, b"", "")


def test_a_post_is_echoed(tiers: Tiers) -> None:
    body = bytes(range(256)) * 40
    code, text, _ = tiers.fetch("/api/echo", data=[body], fields=[("Content-Type", "application/octet-stream")])
    echoed = json.loads(text)
    assert (code, echoed["method"], base64.b64decode(echoed["body_base64"])) == (OK, "POST", body)
    assert ("Via" in dict(echoed["fields"])) and "Content-Length" in dict(echoed["fields"])


def test_the_status_of_the_server_is_fresh_each_time(tiers: Tiers) -> None:
    for _ in range(2):
        code, text, _ = tiers.fetch("/api/status")
        assert code == OK and json.loads(text)
    assert len(tiers.asked) == 2


@pytest.mark.parametrize("size", [100_000, 20 * MIB])
def test_a_big_file(house: House, root: Path, tiers: Tiers, size: int) -> None:
    data = random.Random(size).randbytes(size)
    (root / "big").write_bytes(data)
    os.utime(root / "big", (700000000, 700000000))
    for _ in range(2):
        code, text, said = tiers.fetch("/big")
        assert (code, said, hashlib.sha256(text).digest()) == (OK, "", hashlib.sha256(data).digest())
    assert len(tiers.asked) == (1 if size < 2 * MIB else 2)  # the larger one is more than the cache would store
    assert tiers.store.used <= tiers.store.limit


def test_a_big_upload_that_the_server_refuses(house: House, tiers: Tiers) -> None:
    """Its answer comes back although most of the body has not been sent."""
    target = "/hello.txt" if tiers.reverse else f"http://127.0.0.1:{tiers.server.port}/hello.txt"
    client = tiers.proxy.connect()
    client.send(f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {64 * MIB}\r\n\r\n".encode())
    client.offer(bytes(MIB))
    answer = client.answer()
    assert (answer.status, b"allow" in answer.fields) == (405, True)


@pytest.mark.parametrize(("path", "status"), [("/none", 404), ("/folder", 301), ("/../etc/passwd", 404), ("/api/none", 404)])
def test_what_the_server_refuses_comes_through(tiers: Tiers, path: str, status: int) -> None:
    code, text, _ = tiers.fetch(path, include=True)
    assert (code, text[:12]) == (OK, b"HTTP/1.1 %d" % status)
    if status >= 400:
        code, text, said = tiers.fetch(path, fail=True)
        assert (code, text) == (HTTP_ERROR, b"") and str(status) in said


def test_a_redirect_is_followed_through_the_tiers(tiers: Tiers) -> None:
    if tiers.reverse:
        code, text, _ = tiers.fetch("/folder", location=True, fields=[("Host", f"127.0.0.1:{tiers.proxy.port}")])
    else:
        code, text, _ = tiers.fetch("/folder", location=True)
    assert (code, text) == (OK, b"<p>index</p>")


def test_a_server_that_is_gone(house: House, root: Path, tiers: Tiers) -> None:
    tiers.server.listener.close()
    code, text, _ = tiers.fetch("/hello.txt", include=True)
    assert code == OK and text.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert f"upstream 127.0.0.1:{tiers.server.port}: Connection refused".encode() in text


def test_what_is_stored_outlives_the_server(house: House, tiers: Tiers) -> None:
    tiers.fetch("/hello.txt")
    tiers.server.listener.close()
    tiers.server.server.abort()
    house.turns()
    assert tiers.fetch("/hello.txt") == (OK, HELLO, "")
    house.pass_time(100 * 86400.0)
    code, text, _ = tiers.fetch("/hello.txt", include=True)
    assert text.startswith(b"HTTP/1.1 502 ") or text.startswith(b"HTTP/1.1 200 ") and b"disconnected" in text


def test_a_file_that_becomes_shorter_is_seen_cut_short_by_the_client(house: House, root: Path, tiers: Tiers) -> None:
    path = root / "shrinks"
    path.write_bytes(bytes(8 * MIB))
    peer: Peer = tiers.proxy.connect(small_buffers=True)
    target = f"http://127.0.0.1:{tiers.server.port}/shrinks" if not tiers.reverse else "/shrinks"
    peer.send(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{tiers.server.port}\r\n\r\n".encode())
    head = peer.head()
    os.truncate(path, 1000)
    peer.until(lambda: peer.over, "the end")
    assert len(peer.received) < int(head.fields[b"content-length"]) == 8 * MIB
    assert len(tiers.store) == 0


def test_many_clients_one_fetch(house: House, tiers: Tiers) -> None:
    path = "/hello.txt" if tiers.reverse else f"http://127.0.0.1:{tiers.server.port}/hello.txt"
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{tiers.server.port}\r\n\r\n".encode()
    clients = [tiers.proxy.connect() for _ in range(100)]
    for client in clients:
        client.sock.send(request)
    for client in clients:
        assert client.answer().body == HELLO
    assert len(tiers.asked) == 1


def test_a_tunnel_to_the_server(house: House, root: Path) -> None:
    tiers = Tiers(house, root)
    client = tiers.proxy.connect()
    client.send(f"CONNECT 127.0.0.1:{tiers.server.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert client.head().status == 200
    client.send(b"GET /hello.txt HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer().body == HELLO
    client.close()
    house.until(lambda: tiers.proxied.ended)
    assert tiers.proxied.ended[0].bytes_out > len(HELLO)


def test_everything_is_logged(house: House, root: Path) -> None:
    tiers = Tiers(house, root)
    lines: list[bytes] = []

    class Sink:
        def write(self, line: Any) -> None:
            lines.append(line if isinstance(line, bytes) else line.encode())

    logged: Served = house.serve(AccessLog(tiers.proxied, Sink()))  # type: ignore[arg-type]
    for _ in range(2):
        client = logged.connect()
        client.send(f"GET http://127.0.0.1:{tiers.server.port}/hello.txt HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.answer()
        client.close()
    house.turns()
    text = b"".join(lines)
    assert b" miss " in text and b" hit " in text


def test_a_cache_behind_a_cache(house: House, root: Path) -> None:
    """What the inner one did stays before what the outer one did, and what it knows of the age is not lost."""
    inner, outer = Tiers(house, root, reverse=True), Tiers(house, root, reverse=True)
    outer.forwarding.upstreams = Upstreams([Upstream.parse(f"http://127.0.0.1:{inner.proxy.port}")])
    assert inner.fetch("/hello.txt")[1] == HELLO
    house.pass_time(10.0)
    first, second = outer.statuses("/hello.txt")
    assert first.startswith("reactor; hit; ttl=") and second.startswith("reactor; fwd=uri-miss; stored; ttl=")
    assert first.rpartition("=")[2] == second.rpartition("=")[2]
    assert outer.statuses("/hello.txt")[1].startswith("reactor; hit; ")
    assert len(inner.asked) == 1
