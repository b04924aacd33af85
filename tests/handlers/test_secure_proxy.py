"""A proxy whose origins speak TLS, and one that connects to public addresses alone."""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import Iterator

import pytest

from cache.stores.memory import MemoryStore
from reactor.addresses import is_public
from reactor.client import ClientLimits
from reactor.connector import NOT_PERMITTED
from reactor.tls import ClientTls
from tests.loopback import SMALL_BUFFER, House, Peer, housed
from tests.origin import Asked, Proxy, no_cycles
from tests.secured import AUTHORITY, TlsPeer, server_context

MUCH = bytes(range(256)) * 65536  # 16 MiB: more than the kernel keeps on any loopback
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture(params=["forward", "reverse"])
def proxy(request: pytest.FixtureRequest, house: House) -> Proxy:
    return Proxy(house, reverse=request.param == "reverse", tls=ClientTls(AUTHORITY))


def hello(proxy: Proxy, context: ssl.SSLContext | None = None) -> TlsPeer:
    """The origin's end of the next connection, before the handshake."""
    peer = TlsPeer(proxy.house, proxy.origin.accept(), context or server_context())
    proxy.house.peers.append(peer)
    return peer


def asked(proxy: Proxy) -> tuple[TlsPeer, Asked]:
    peer = hello(proxy).shake()
    return peer, Asked(peer)


def test_a_request_goes_on_encrypted_and_its_connection_is_kept(proxy: Proxy) -> None:
    client = proxy.ask("/x?y")
    peer, request = asked(proxy)
    assert (request.method, request.target) == (b"GET", b"/x?y")
    assert request.fields[b"host"] == proxy.authority.encode()
    request.answer(b"one")
    assert client.answer().body == b"one"
    client.send(proxy.get("/second"))
    request = Asked(peer)
    request.answer(b"two")
    assert client.answer().body == b"two"
    assert proxy.pool.idle == 1


def test_what_was_fetched_over_tls_is_stored_as_such(house: House) -> None:
    proxy = Proxy(house, tls=ClientTls(AUTHORITY), store=MemoryStore(1 << 20))
    client = proxy.ask("/x")
    peer, request = asked(proxy)
    request.answer(b"secret", "Cache-Control: max-age=60")
    assert client.answer().body == b"secret"
    client.send(proxy.get("/x"))
    assert client.answer().fields[b"cache-status"].startswith(b"reactor; hit")
    client.send(proxy.get("/x").replace(b"GET https://", b"GET http://"))
    house.turns()
    house.until(lambda: not client.received and proxy.origin.accept(), "a connection of its own, in clear")


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [("expired", "certificate has expired"), ("self-signed", "self-signed certificate"), ("other-name", "IP address mismatch")],
)
def test_an_origin_that_cannot_prove_itself_is_502(proxy: Proxy, certificate: str, reason: str) -> None:
    client = proxy.ask()
    peer = hello(proxy, server_context(certificate))
    with pytest.raises(ssl.SSLError):
        peer.shake()
        peer.until(lambda: peer.over, "the alert")
    answer = client.answer()
    assert answer.status == 502
    assert answer.body.startswith(f"502 Bad Gateway: upstream {proxy.authority}: TLS handshake: certificate verify".encode())
    assert reason.encode() in answer.body
    assert bytes(peer.received) == b""  # not a byte of the request


def test_an_origin_that_does_not_speak_tls_is_502(proxy: Proxy) -> None:
    client = proxy.ask()
    peer = proxy.origin.accept()
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    answer = client.answer()
    assert answer.status == 502
    assert b"TLS handshake: wrong version number" in answer.body


@pytest.mark.parametrize("leave", ["shutdown", "reset"])
def test_an_origin_that_leaves_in_the_handshake_is_502(proxy: Proxy, leave: str) -> None:
    client = proxy.ask()
    peer = proxy.origin.accept()
    proxy.house.until(peer.read, "the hello")
    getattr(peer, leave)()
    answer = client.answer()
    assert answer.status == 502
    assert b"in the handshake" in answer.body


def test_a_handshake_that_stalls_is_504_and_keeps_nobody_waiting(proxy: Proxy) -> None:
    client = proxy.ask()
    stalled = proxy.origin.accept()
    proxy.house.until(stalled.read, "the hello")
    other = proxy.ask("/other")  # the loop goes on meanwhile
    peer = hello(proxy).shake()
    Asked(peer).answer(b"there")
    assert other.answer().body == b"there"
    proxy.house.pass_time(ClientLimits().connect)
    answer = client.answer()
    assert answer.status == 504
    assert b"TLS handshake: not done within 10 s (connect timeout)" in answer.body
    stalled.until(lambda: stalled.over, "its end")


def test_a_client_that_leaves_in_the_handshake_takes_it_along(proxy: Proxy) -> None:
    client = proxy.ask()
    peer = hello(proxy)
    proxy.house.until(peer.read, "the hello")
    client.reset()
    peer.until(lambda: peer.over, "the end")


def test_a_body_that_ends_with_the_connection_needs_a_close_notify(proxy: Proxy) -> None:
    client = proxy.ask()
    peer, request = asked(proxy)
    request.begin(first=b"all of it")
    peer.notify()
    peer.close()
    answer = client.answer()
    assert answer.body == b"all of it"


def test_without_a_close_notify_such_a_body_is_cut(proxy: Proxy) -> None:
    client = proxy.ask()
    peer, request = asked(proxy)
    request.begin(first=b"a part of it")
    peer.shutdown()
    client.until(lambda: client.over, "the end")
    assert b"a part of it" in client.received
    assert not client.received.endswith(b"0\r\n\r\n")
    proxy.house.until(lambda: proxy.ended, "the end")
    assert "without a close_notify" in (proxy.ended[0].failure or "")


def test_what_follows_a_whole_response_is_no_answer_to_the_next_request(proxy: Proxy) -> None:
    """Both requests come in one turn; the stray response comes with the first answer, in a record of its own."""
    client = proxy.connect()
    client.send(proxy.get("/a") + proxy.get("/b"))
    peer, request = asked(proxy)
    assert request.target == b"/a"
    peer.wire(peer.record(OK) + peer.record(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"))
    assert client.answer().body == b"ok"
    _, request = asked(proxy)
    request.answer(b"of its own")
    assert client.answer().body == b"of its own"


def test_a_body_of_known_length_is_whole_without_one(proxy: Proxy) -> None:
    client = proxy.ask()
    peer, request = asked(proxy)
    request.answer(b"whole")
    peer.close()
    assert client.answer().body == b"whole"


def test_big_bodies_both_ways_with_a_slow_reader_and_bounded_memory(proxy: Proxy) -> None:
    proxy.origin.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    client = proxy.connect(small_buffers=True)
    client.send(proxy.request("POST", "/", f"Content-Length: {len(MUCH)}"))
    peer = hello(proxy)
    peer.shake()
    request = Asked(peer)
    sent = 0
    for _ in range(50):  # the origin does not read: neither does the proxy, in the end
        sent += client.offer(MUCH[sent:])
        proxy.house.turns(5)
    assert sent < len(MUCH)
    rest = memoryview(MUCH)[sent:]
    got = bytearray()
    while len(got) < len(MUCH):
        rest = rest[client.offer(rest) :]
        peer.read()
        got += peer.received
        peer.received.clear()
    assert got == MUCH
    request.begin(f"Content-Length: {len(MUCH)}")
    out, stuck = memoryview(b"".join(peer.record(MUCH[at : at + 16384]) for at in range(0, len(MUCH), 16384))), 0
    while stuck < 50:  # the client does not read
        taken = peer.offer(bytes(out[: 1 << 17]))
        out = out[taken:]
        stuck = 0 if taken else stuck + 1
        assert sum(len(chunk) for chunk in _queued(proxy)) < 1 << 20
    assert len(out) > 0
    answer = client.head()
    body = bytearray()
    while len(body) < len(MUCH):
        if out:
            out = out[peer.offer(bytes(out[: 1 << 17])) :]
        client.read()
        proxy.house.turns(2)
        body += client.received
        client.received.clear()
    assert (answer.status, body) == (200, MUCH)


def _queued(proxy: Proxy) -> list[bytes]:
    """What the proxy's connections to the origin hold that was not pulled."""
    return [bytes(connection.parser.buffered) for connection in proxy.pool._all]


def test_an_upgrade_is_relayed_through_tls(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.get("/chat", "Upgrade: echo", "Connection: Upgrade"))
    peer, request = asked(proxy)
    assert request.fields[b"upgrade"] == b"echo"
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nfirst")
    assert client.head().status == 101
    client.expect(b"first")
    client.send(b"ping")
    assert peer.take(4) == b"ping"
    peer.send(MUCH[:100_000])
    client.expect(MUCH[:100_000])
    peer.notify()  # its half is closed
    client.until(lambda: client.at_eof, "the half-close")
    client.send(b"still here")
    assert peer.take(10) == b"still here"
    client.shutdown()
    peer.until(lambda: peer.notified, "close_notify")


def test_a_kept_connection_that_turns_out_closed_costs_nothing(proxy: Proxy) -> None:
    client = proxy.ask()
    peer, request = asked(proxy)
    request.answer(b"one")
    assert client.answer().body == b"one"
    peer.reset()
    client.send(proxy.get("/again"))
    peer, request = asked(proxy)
    assert request.target == b"/again"
    request.answer(b"two")
    assert client.answer().body == b"two"


def test_nothing_of_it_needs_the_collector(house: House) -> None:
    proxy = Proxy(house, tls=ClientTls(AUTHORITY))
    context = server_context()

    def exchange() -> None:
        client = proxy.ask()
        peer = hello(proxy, context).shake()
        Asked(peer).answer(b"x")
        client.answer()
        peer.notify()
        peer.close()
        client.close()
        house.turns()

    exchange()
    gc.collect()
    with no_cycles():
        exchange()


# Public addresses alone.


def test_a_private_address_is_403_and_not_connected_to(house: House) -> None:
    proxy = Proxy(house, permit=is_public)
    answer = proxy.ask().answer()
    assert answer.status == 403
    assert answer.body == f"403 Forbidden: upstream {proxy.authority}: {NOT_PERMITTED}\n".encode()
    proxy.not_asked()


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "10.0.0.1", "[::]", "0.0.0.0"])
def test_nor_is_it_by_a_tunnel(address: str, house: House) -> None:
    proxy = Proxy(house, permit=is_public)
    client = proxy.connect()
    client.send(f"CONNECT {address}:{proxy.origin.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = client.answer()
    assert answer.status == 403
    assert NOT_PERMITTED.encode() in answer.body


def _names(proxy: Proxy, name: bytes, *addresses: str) -> None:
    found = tuple((socket.AF_INET, address, 0) for address in addresses)
    proxy.pool.connector.resolver._memo[name] = (1e9, found)


def test_a_name_is_no_way_round(house: House) -> None:
    proxy = Proxy(house, permit=is_public)
    _names(proxy, b"harmless.example", "10.0.0.1", "127.0.0.1")
    port = proxy.origin.port
    for request in (
        f"GET http://harmless.example:{port}/ HTTP/1.1\r\nHost: harmless.example:{port}\r\n\r\n",
        f"CONNECT harmless.example:{port} HTTP/1.1\r\nHost: harmless.example:{port}\r\n\r\n",
    ):
        client = proxy.connect()
        client.send(request.encode())
        answer = client.answer()
        assert answer.status == 403
        assert b"127.0.0.1" in answer.body and b"10.0.0.1" in answer.body
    proxy.not_asked()


def test_a_kept_connection_is_no_way_round_either(house: House) -> None:
    allowed = {"127.0.0.1"}
    proxy = Proxy(house, permit=lambda address: address in allowed)
    client = proxy.ask()
    asked = proxy.asked()
    asked.answer(b"one")
    assert client.answer().body == b"one"
    assert proxy.pool.idle == 1
    allowed.clear()
    client.send(proxy.get())
    assert client.answer().status == 403
    assert proxy.pool.idle == 0
    asked.peer.expect_reset()


def test_of_several_addresses_the_first_may_be_dead(house: House) -> None:
    proxy = Proxy(house)
    _names(proxy, b"origin.example", "127.0.0.2", "127.0.0.1")  # nobody listens on the first
    client = proxy.connect()
    client.send(f"GET http://origin.example:{proxy.origin.port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    asked = proxy.asked()
    asked.answer(b"ok")
    assert client.answer().body == b"ok"


def test_a_name_is_asked_for_again_once_its_address_is_dead(house: House) -> None:
    proxy = Proxy(house)
    _names(proxy, b"origin.example", "127.0.0.2")
    client = proxy.connect()
    client.send(f"GET http://origin.example:{proxy.origin.port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = client.answer()
    assert answer.status == 502
    assert f"127.0.0.2:{proxy.origin.port} (Connection refused)".encode() in answer.body
    assert b"origin.example" not in proxy.pool.connector.resolver._memo


def test_a_connection_is_not_kept_beyond_its_lifetime(house: House) -> None:
    limits = ClientLimits(lifetime=20.0)
    proxy = Proxy(house, limits=limits)
    client = proxy.ask()
    asked = proxy.asked()
    asked.answer(b"one")
    client.answer()
    house.pass_time(limits.lifetime / 2)
    client = proxy.ask()
    peer: Peer = asked.peer
    house.until(lambda: peer.read() or peer.received, "the second request")
    Asked(peer)
    house.pass_time(limits.lifetime / 2)
    peer.send(OK)
    client.answer()
    peer.expect_close()
