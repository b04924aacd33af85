"""An https origin behind a proxy: CONNECT, then TLS through the tunnel, all played by one raw peer."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from handlers.exit_codes import BROKEN
from handlers.fetch_command import Fetch, FetchOptions
from reactor.client import Call, ClientLimits, Pool, Via
from reactor.connector import Connector
from reactor.errors import UpstreamError
from reactor.exchange import Body
from reactor.http.parser import Response
from reactor.http.uri import Origin
from reactor.resolver import Resolver
from reactor.tls import ClientTls
from tests.loopback import House, Peer, housed
from tests.secured import AUTHORITY, TlsPeer, server_context

ORIGIN = Origin(b"https", b"origin.test", 443)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


class Client:
    """A pool, a proxy that the test plays, and what the calls were told."""

    def __init__(self, house: House) -> None:
        self.house = house
        resolver = Resolver(house.reactor)
        self.pool = Pool(house.reactor, Connector(house.reactor, resolver), tls=ClientTls(AUTHORITY))
        house.cleanups += [resolver.close, self.pool.close]
        self.listener = house.listen()
        self.proxy = Origin(b"http", b"127.0.0.1", self.listener.port)
        self.bodies: list[Any] = []
        self.errors: list[UpstreamError] = []

    def call(self) -> Call:
        via = Via(self.proxy)
        return self.pool.call(ORIGIN, b"GET", b"GET / HTTP/1.1\r\nHost: origin.test\r\n", b"", self, via=via)

    def call_informed(self, call: Call, response: Response) -> None:
        raise AssertionError(response)

    def call_responded(self, call: Call, response: Response, body: Body) -> None:
        self.bodies.append(body)

    def call_failed(self, call: Call, error: UpstreamError) -> None:
        self.errors.append(error)

    def asked(self, fields: bytes = b"") -> Peer:
        """The proxy's end, asked for a tunnel."""
        peer = self.listener.accept()
        peer.expect(b"CONNECT origin.test:443 HTTP/1.1\r\nHost: origin.test:443\r\n%b\r\n" % fields)
        return peer

    def error(self) -> UpstreamError:
        self.house.until(lambda: self.errors, "the error")
        return self.errors.pop()


@pytest.fixture
def client(house: House) -> Client:
    return Client(house)


def tunnelled(client: Client, peer: Peer, certificate: str = "origin") -> TlsPeer:
    peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    inner = TlsPeer(client.house, peer, server_context(certificate))
    client.house.peers.append(inner)
    return inner


def test_the_origin_is_asked_through_the_tunnel_and_the_connection_kept(client: Client) -> None:
    client.call()
    peer = tunnelled(client, client.asked()).shake()
    assert peer.server_name == "origin.test"
    for _ in range(2):
        peer.expect(b"GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n")
        peer.send(OK)
        client.house.until(lambda: client.bodies, "the answer")
        assert client.bodies.pop() == b"ok"
        assert client.pool.idle == 1
        client.call()


TEXT = "Content-Type: text/plain; charset=utf-8"
NOTHING = "Content-Length: 0"


@pytest.mark.parametrize(
    ("status", "lines", "body", "told"),
    [
        ("407 Proxy Authentication Required", [NOTHING], b"", "407 Proxy Authentication Required"),
        ("403", [NOTHING], b"", "403"),
        ("101 Switching Protocols", ["Connection: upgrade", "Upgrade: TLS/1.0"], b"", "101 Switching Protocols"),
        ("403 Forbidden", [TEXT, "Content-Length: 12"], b"\nnot you\nno\n", "403 Forbidden: not you"),
        ("403 Forbidden", [TEXT, "Content-Length: 22"], b"403 Forbidden: not you", "403 Forbidden: not you"),
        ("403 Forbidden", [TEXT, "Content-Length: 100"], b"not you", "403 Forbidden: not you"),
        ("403 Forbidden", [TEXT, "Transfer-Encoding: chunked"], b"bad", "403 Forbidden"),
        ("403 Forbidden", ["Content-Type: text/html", "Content-Length: 3"], b"<p>", "403 Forbidden"),
        ("403 Forbidden", [TEXT, "Content-Encoding: gzip", "Content-Length: 3"], b"abc", "403 Forbidden"),
        ("403 Forbidden", [TEXT, "Content-Length: 5000"], b"x" * 5000, "403 Forbidden: " + "x" * 200),
        ("403 \xff\t" + "y" * 5000, [NOTHING], b"", "403 \ufffd " + "y" * 198),
        ("403 No", [TEXT, "Content-Length: 15"], b"\x1b[2J\x9b\xe2\x80\xaea\r\nb\x00c", "403 No: [2J\ufffd a"),
        ("502 Bad Gateway", [NOTHING, 'Proxy-Status: a;error=x, b; error=dns_error; details="no name"'], b"",
            "502 Bad Gateway: dns_error, no name"),
        ("502 Bad Gateway", [NOTHING, "Proxy-Status: b; next-hop=x; error=7"], b"", "502 Bad Gateway"),
        ("502 Bad Gateway", [NOTHING, "Proxy-Status: =, ;"], b"", "502 Bad Gateway"),
        ("502 Bad Gateway", [NOTHING, "Proxy-Status:"], b"", "502 Bad Gateway"),
    ],
)  # fmt: skip
def test_a_proxy_that_refuses_is_quoted(client: Client, status: str, lines: list[str], body: bytes, told: str) -> None:
    client.call()
    peer = client.asked()
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines, ""))
    peer.send(head.encode("latin-1") + body)
    error = client.error()
    assert (error.reason, error.phase, error.status) == (f"the proxy answered CONNECT with {told}", "proxy", 502)


def test_a_proxy_that_refuses_at_length(client: Client) -> None:
    client.call()
    peer = client.asked()
    peer.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\nContent-Type: text/plain\r\n\r\n")
    assert client.error().reason == "the proxy answered CONNECT with 403 Forbidden"
    peer.until(lambda: peer.over, "the end")


def test_a_proxy_that_leaves(client: Client) -> None:
    client.call()
    client.asked().close()
    assert client.error().status == 502


def test_a_proxy_that_stalls(client: Client) -> None:
    client.call()
    peer = client.asked()
    client.house.pass_time(ClientLimits().connect)
    error = client.error()
    assert (error.reason, error.status) == ("no tunnel within 10 s (connect timeout)", 504)
    peer.expect_reset()


def test_an_origin_that_stalls_behind_it(client: Client) -> None:
    client.call()
    peer = client.asked()
    client.house.pass_time(6)
    tunnelled(client, peer)
    client.house.turns()
    client.house.pass_time(4)
    error = client.error()
    assert (error.phase, error.status) == ("TLS handshake", 504)


def test_an_origin_that_cannot_prove_itself_behind_it(client: Client) -> None:
    client.call()
    peer = tunnelled(client, client.asked(), "other-name")
    with pytest.raises(Exception, match="(?i)alert"):
        peer.shake()
        peer.until(lambda: peer.over, "the alert")
    assert client.error().phase == "certificate"


class Role:
    """The client role behind the proxy that the test plays."""

    def __init__(self, client: Client, *urls: str, **options: Any) -> None:
        self.client = client
        made = FetchOptions(urls, proxy=client.proxy, **options)
        self.out, self.err, self.codes = io.BytesIO(), io.BytesIO(), list[int]()
        Fetch(client.house.reactor, client.pool, made, self.codes.append, self.out, self.err).start()

    def end(self) -> tuple[int, bytes]:
        self.client.house.until(lambda: self.codes, "the end")
        return self.codes[0], self.out.getvalue()


PASS = b"Proxy-Authorization: Basic cDpx\r\n"


def test_the_proxy_and_the_origin_are_each_shown_their_own_alone(client: Client) -> None:
    role = Role(client, "https://origin.test/secret", fields=[("Authorization", "Basic x")], proxy_fields=PASS)
    peer = tunnelled(client, client.asked(PASS)).shake()
    wanted = b"GET /secret HTTP/1.1\r\nHost: origin.test\r\nUser-Agent: reactor\r\nAccept: */*\r\nAuthorization: Basic x\r\n\r\n"
    peer.expect(wanted)
    peer.send(OK)
    assert role.end() == (0, b"ok")


def test_a_redirect_from_the_proxys_own_hands_into_a_tunnel(client: Client) -> None:
    role = Role(client, "http://origin.test/", location=True, proxy_fields=PASS)
    peer = client.listener.accept()
    asked = peer.take_until(b"\r\n\r\n")
    assert asked.startswith(b"GET http://origin.test/ HTTP/1.1\r\n") and PASS in asked
    peer.send(b"HTTP/1.1 301 Moved\r\nLocation: https://origin.test/\r\nContent-Length: 0\r\n\r\n")
    peer.expect(b"CONNECT origin.test:443 HTTP/1.1\r\nHost: origin.test:443\r\n%b\r\n" % PASS)
    inner = tunnelled(client, peer).shake()
    assert PASS not in inner.take_until(b"\r\n\r\n")
    inner.send(OK)
    assert role.end() == (0, b"ok")


def test_a_tunnel_is_not_shared_by_who_asked_the_proxy_otherwise(client: Client) -> None:
    client.call()
    tunnelled(client, client.asked()).shake().send(OK)
    client.house.until(lambda: client.bodies, "the answer")
    role = Role(client, "https://origin.test/", proxy_fields=PASS)
    tunnelled(client, client.asked(PASS)).shake().send(OK)
    assert role.end() == (0, b"ok")


def test_the_role_says_that_the_proxy_refused(client: Client) -> None:
    role = Role(client, "https://origin.test/")
    client.asked().send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    assert role.end() == (BROKEN, b"")
    assert b"the proxy answered CONNECT with 407" in role.err.getvalue()


def test_giving_up_at_every_step(client: Client) -> None:
    call = client.call()
    call.abort()
    call = client.call()
    peer = client.asked()
    call.abort()
    peer.expect_reset()
    call = client.call()
    peer = client.asked()
    inner = tunnelled(client, peer)
    client.house.until(inner.read, "the hello")
    call.abort()
    inner.until(lambda: inner.over, "the reset")
    assert not client.errors and not client.bodies
