"""CONNECT over sockets: what goes through a tunnel, how it begins and how it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from handlers.tunnel import TLS_PORTS, Tunnel, connect_ports
from reactor.errors import ConfigError
from reactor.server import ServerLimits
from tests.loopback import House, Peer, housed
from tests.origin import Proxy, no_cycles

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n"


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture
def proxy(house: House) -> Proxy:
    return Proxy(house)


def connect(proxy: Proxy, *lines: str, early: bytes = b"", small_buffers: bool = False) -> Peer:
    """A client that asked for a tunnel to the origin."""
    client = proxy.connect(small_buffers)
    head = "".join(f"{line}\r\n" for line in (f"CONNECT {proxy.authority} HTTP/1.1", f"Host: {proxy.authority}", *lines, ""))
    client.send(head.encode() + early)
    return client


def joined(proxy: Proxy, **more: bool) -> tuple[Peer, Peer]:
    client = connect(proxy, **more)  # type: ignore[arg-type]
    origin = proxy.accept()
    assert client.take_until(b"\r\n\r\n").startswith(ESTABLISHED)
    return client, origin


def test_bytes_go_both_ways(proxy: Proxy) -> None:
    client, origin = joined(proxy)
    client.send(b"\x16\x03hello")
    origin.expect(b"\x16\x03hello")
    origin.send(b"\x16\x03world")
    client.expect(b"\x16\x03world")


def test_the_head_says_nothing_of_a_body(proxy: Proxy) -> None:
    client = connect(proxy)
    proxy.accept()
    answer = client.head()
    assert answer.fields.keys().isdisjoint({b"content-length", b"transfer-encoding", b"connection"})


def test_the_origin_is_sent_what_came_behind_the_request_first(proxy: Proxy) -> None:
    client = connect(proxy, early=b"early ")
    origin = proxy.accept()
    client.send(b"bird")
    origin.expect(b"early bird")
    assert client.head().status == 200


def test_what_is_sent_while_the_connection_is_made_arrives(house: House, proxy: Proxy) -> None:
    client = proxy.connect()
    client.sock.send(f"CONNECT {proxy.authority} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    client.sock.send(bytes(200_000))
    origin = proxy.accept()
    assert origin.take(200_000) == bytes(200_000)
    assert client.head().status == 200


def test_an_end_on_one_side_leaves_the_other_way_open(proxy: Proxy) -> None:
    client, origin = joined(proxy)
    client.send(b"question")
    client.shutdown()
    origin.expect(b"question")
    origin.until(lambda: origin.at_eof, "the end of the question")
    origin.send(b"answer")
    client.expect(b"answer")
    origin.close()
    client.expect_close()
    proxy.house.until(lambda: proxy.ended)
    (exchange,) = proxy.ended
    assert (exchange.status, exchange.bytes_in, exchange.bytes_out, exchange.failure) == (200, 8, 6, None)
    assert (exchange.verdict, exchange.upstream) == ("tunnel", proxy.authority)


def test_an_end_at_the_origin_leaves_the_other_way_open(proxy: Proxy) -> None:
    client, origin = joined(proxy)
    origin.send(b"last words")
    origin.shutdown()
    client.expect(b"last words")
    client.until(lambda: client.at_eof, "the end")
    client.send(b"more")
    origin.expect(b"more")
    client.shutdown()
    origin.expect_close()
    proxy.house.until(lambda: proxy.ended)


@pytest.mark.parametrize("side", ["client", "origin"])
def test_a_reset_is_passed_on(proxy: Proxy, side: str) -> None:
    client, origin = joined(proxy)
    (client if side == "client" else origin).reset()
    other = origin if side == "client" else client
    other.until(lambda: other.over, "the end")
    assert other.was_reset
    proxy.house.until(lambda: proxy.ended)
    assert proxy.ended[0].failure is not None and "reset" in proxy.ended[0].failure


@pytest.mark.parametrize("way", ["up", "down"])
def test_much_goes_through_and_a_slow_reader_slows_the_sender(proxy: Proxy, way: str) -> None:
    client, origin = joined(proxy, small_buffers=True)
    sender, reader = (client, origin) if way == "up" else (origin, client)
    size = 20_000_000
    sent = idle = 0
    while idle < 20:
        took = sender.offer(bytes(min(200_000, size - sent)))
        sent += took
        idle = 0 if took else idle + 1
    assert sent < size
    received = 0
    while received < size:
        if sent < size:
            sent += sender.offer(bytes(min(200_000, size - sent)))
        reader.read()
        received += len(reader.received)
        reader.received.clear()
        proxy.house.turns(1)
    assert received == size


def test_a_silent_tunnel_is_closed(house: House, proxy: Proxy) -> None:
    client, origin = joined(proxy)
    house.pass_time(59.0)
    client.send(b"x")
    origin.expect(b"x")
    house.pass_time(59.0)
    client.expect_silence()
    house.pass_time(2.0)
    client.until(lambda: client.over, "the end")
    origin.until(lambda: origin.over, "the end")
    client.close()
    origin.close()
    house.until(lambda: proxy.ended)
    assert proxy.ended[0].failure == "idle"


# What is refused.


def test_a_refused_connection_is_a_bad_gateway_and_closes(proxy: Proxy) -> None:
    proxy.origin.sock.close()
    client = connect(proxy, early=b"GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n")
    answer = client.answer()
    assert answer.status == 502
    assert answer.body == f"502 Bad Gateway: upstream {proxy.authority}: Connection refused\n".encode()
    assert answer.fields[b"connection"] == b"close"
    client.expect_close()
    (exchange,) = proxy.ended
    assert (exchange.upstream, str(exchange.error)) == (proxy.authority, f"{proxy.authority}: Connection refused")


def limited(house: House, ports: str | None) -> Proxy:
    proxy = Proxy(house)
    ranges = TLS_PORTS if ports is None else connect_ports(ports.replace("N", str(proxy.origin.port)))
    tunnel = Tunnel(proxy.pool.connector, proxy.forwarding, idle=60.0, ports=ranges)
    proxy.handling.answer = tunnel.handle
    return proxy


@pytest.mark.parametrize("ports", [None, "443", "443,1-2,65535"])
def test_a_port_that_is_not_for_tunnels(house: House, ports: str | None) -> None:
    proxy = limited(house, ports)
    client = connect(proxy, early=b"EHLO x\r\n")
    answer = client.answer()
    allowed = {None: "443, 563", "443": "443", "443,1-2,65535": "443, 1-2, 65535"}[ports]
    assert answer.status == 403
    assert answer.body == (
        f"403 Forbidden: no tunnels to port {proxy.origin.port}; those to {allowed} are allowed (--connect-ports)\n".encode()
    )
    client.expect_close()
    proxy.not_asked()
    assert proxy.ended[0].verdict == "denied"


@pytest.mark.parametrize("ports", ["N", "1,N", "1-65535", "any", "N-N"])
def test_a_port_that_is(house: House, ports: str) -> None:
    client, origin = joined(limited(house, ports))
    client.send(b"x")
    origin.expect(b"x")


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("443", [(443, 443)]),
        ("443,8443,9000-9100", [(443, 443), (8443, 8443), (9000, 9100)]),
        ("any", [(1, 65535)]),
        *[(bad, None) for bad in ("", "0", "65536", "443,", "a", "+443", "4_4", "443 ", "9-8", "-9", "9-", "1-65536", "443,any")],
    ],
)  # fmt: skip
def test_ports_as_they_are_written(text: str, ranges: list[tuple[int, int]] | None) -> None:
    if ranges is not None:
        assert [(ports[0], ports[-1]) for ports in connect_ports(text)] == ranges
        return
    with pytest.raises(ConfigError) as caught:
        connect_ports(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["a", "a:", ":80", "a:0", "a:b", "a:99999", "http://a:80/", "/", "u@a:80", "[::1:80"])
def test_a_target_that_is_no_host_and_port(proxy: Proxy, target: str) -> None:
    client = proxy.connect()
    client.send(f"CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert client.answer().status == 400
    client.expect_close()


@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_a_connect_with_content_is_refused(proxy: Proxy, framing: str) -> None:
    client = connect(proxy, framing, early=b"hello")
    assert client.answer().status == 400
    client.expect_close()
    proxy.not_asked()


def test_a_client_that_leaves_while_the_connection_is_made(house: House) -> None:
    proxy = Proxy(house, server_limits=ServerLimits(half_closed=5.0))
    client = proxy.connect()
    client.sock.send(b"CONNECT [::1]:1 HTTP/1.1\r\nHost: x\r\n\r\n")
    house.until(lambda: proxy.handling.exchanges)
    client.reset()
    house.until(lambda: proxy.ended)
    assert proxy.ended[0].client_gone


def test_another_method_is_not_for_the_tunnel(proxy: Proxy) -> None:
    client = proxy.ask()
    proxy.asked().answer(b"hi")
    assert client.answer().body == b"hi"


@pytest.mark.parametrize("end", ["shutdown", "reset"])
def test_no_cycles_are_left(house: House, proxy: Proxy, end: str) -> None:
    with no_cycles():
        client, origin = joined(proxy)
        client.send(b"x")
        origin.expect(b"x")
        getattr(client, end)()
        origin.close()
        house.turns()
        client.close()
        house.until(lambda: proxy.ended)
        for known in (house.peers, proxy._open, proxy.handling.ended, proxy.handling.exchanges):
            known.clear()
        del client, origin, known
