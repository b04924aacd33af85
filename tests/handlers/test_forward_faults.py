"""Faults at every phase of a forwarded exchange: what the other side saw, byte for byte, while others are served.

A bystander with connections of its own asks between the steps of each exchange, and is answered: by the order of
events, nothing that befalls one exchange holds up another.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cache.stores.memory import MemoryStore
from reactor.client import ClientLimits
from reactor.server import ServerLimits
from tests.loopback import House, Peer, housed
from tests.origin import Asked, Proxy, chunk

CLIENT, SERVER = ClientLimits(), ServerLimits()


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture(params=["forward", "reverse", "cached", "rewriting"])
def proxy(house: House, request: pytest.FixtureRequest) -> Proxy:
    store = MemoryStore(1 << 20) if request.param in ("cached", "rewriting") else None
    rewrite = "text/html" if request.param == "rewriting" else ""
    return Proxy(house, reverse=request.param in ("reverse", "rewriting"), store=store, rewrite=rewrite)


class Bystander:
    """A client whose exchanges go on whatever happens to the others'; each `step` is a part of one."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client = proxy.connect()
        self.client.send(proxy.get("/bystander"))
        self.asked = proxy.asked()
        self.asked.begin("Transfer-Encoding: chunked", "Cache-Control: no-store")
        assert self.client.head().status == 200

    def step(self) -> None:
        self.asked.peer.send(chunk(b"still here"))
        self.client.expect(chunk(b"still here"))

    def end(self) -> None:
        self.asked.peer.send(b"0\r\n\r\n")
        self.client.expect(b"0\r\n\r\n")


# What the origin does: how far it gets, and then the fault.

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
PHASES = {
    "nothing": b"",
    "status line": HEAD[:9],
    "interim": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "after an interim": b"HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD[:20],
    "head": HEAD[:-2],
    "body": HEAD,
    "chunk size": HEAD + b"5",
    "chunk": HEAD + b"5\r\nhel",
    "between chunks": HEAD + chunk(b"hello"),
    "last chunk": HEAD + chunk(b"hello") + b"0\r\n",
    "trailers": HEAD + chunk(b"hello") + b"0\r\nX: y\r\n",
}
ARRIVED = {
    "body": b"", "chunk size": b"", "chunk": chunk(b"hel"), "between chunks": chunk(b"hello"), "last chunk": chunk(b"hello"),
    "trailers": chunk(b"hello"),
}  # fmt: skip
FAULTS = ["shutdown", "reset", "stall", "nonsense"]


def befall(house: House, peer: Peer, fault: str) -> None:
    if fault == "stall":
        # Longer than the origin may be silent, and shorter than anything else lasts: the bystander's bytes come in between.
        house.pass_time(CLIENT.between_bytes + 0.1)
    elif fault == "nonsense":
        peer.send(b"\x00\r\n\r\n\x00\r\n\r\n")
    else:
        getattr(peer, fault)()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("phase", PHASES)
def test_whatever_befalls_an_origin_at_any_phase(house: House, proxy: Proxy, phase: str, fault: str) -> None:
    bystander = None if fault == "stall" else Bystander(proxy)  # while time passes it would be late itself
    client = proxy.ask("/x", "TE: trailers", "Connection: TE")
    asked = proxy.asked()
    if PHASES[phase]:
        asked.peer.send(PHASES[phase])
    if bystander is not None:
        bystander.step()
    befall(house, asked.peer, fault)
    if bystander is not None:
        bystander.step()
    if "interim" in phase:
        assert client.head().status == 103
    answer = client.head()
    if phase in ARRIVED:
        assert answer.status == 200
        client.until(lambda: client.over, "the end")
        seen = ARRIVED[phase] + (chunk(b"\x00\r") if (phase, fault) == ("chunk", "nonsense") else b"")
        assert (bytes(client.received), client.end) == (seen, "end of input")  # and no last chunk
    else:
        assert answer.status == (504 if fault == "stall" else 502)
        page = client.take(int(answer.fields[b"content-length"]))
        assert proxy.authority.encode() in page
        client.expect_silence()
        client.send(proxy.get("/next"))  # the client's own connection is none the worse for it
        again = proxy.asked()
        assert again.peer is not asked.peer
        again.answer(b"hi")
        assert client.answer().body == b"hi"
    if bystander is not None:
        bystander.end()
    asked.peer.close()
    house.until(lambda: len(proxy.ended) >= 1)
    assert [exchange.request.path for exchange in proxy.ended].count(b"/x") == 1
    assert not [exchange for exchange in proxy.ended if exchange.failure is not None and exchange.request.path != b"/x"]


@pytest.mark.parametrize("fault", ["shutdown", "reset"])
@pytest.mark.parametrize("taken", [0, 1, 50_000])
def test_an_origin_that_leaves_while_it_is_sent_a_body(house: House, proxy: Proxy, fault: str, taken: int) -> None:
    bystander = Bystander(proxy)
    client = proxy.connect()
    client.send(proxy.request("POST", "/x", "Content-Length: 100000") + bytes(50_000))
    asked = proxy.asked()
    asked.peer.take(taken)
    bystander.step()
    getattr(asked.peer, fault)()
    bystander.step()
    answer = client.answer()
    assert answer.status == 502 and proxy.authority.encode() in answer.body
    bystander.end()
    assert not [peer for peer in proxy.heard() if b"POST" in peer.received], "a POST was sent twice"


# What the client does.

BODY = b"0123456789" * 10
REQUESTS = {
    "length": (f"Content-Length: {len(BODY)}", BODY),
    "chunks": ("Transfer-Encoding: chunked", chunk(BODY) + b"0\r\n\r\n"),
}


@pytest.mark.parametrize("fault", ["shutdown", "reset", "stall"])
@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 50])
@pytest.mark.parametrize("framing", REQUESTS)
def test_whatever_befalls_a_client_that_sends_a_body(house: House, proxy: Proxy, framing: str, at: int, fault: str) -> None:
    line, wire = REQUESTS[framing]
    client = proxy.connect()
    client.send(proxy.request("PUT", "/x", line))
    asked = proxy.asked()
    client.send(wire[:at])
    if fault == "stall":
        house.pass_time(SERVER.body + 0.1)
    else:
        getattr(client, fault)()
    asked.peer.until(lambda: asked.peer.over, "the end")
    assert asked.peer.was_reset  # nothing that could pass for the end of the message
    sent = wire[:at] if framing == "length" else chunk(BODY[: max(0, at - 4)]) if at > 4 else b""
    assert asked.peer.received in (sent, b"")
    if fault != "reset":
        assert client.answer().status == (408 if fault == "stall" else 400)


@pytest.mark.parametrize("fault", ["reset", "stall"])
@pytest.mark.parametrize("phase", ["head", "waiting", "body"])
def test_whatever_befalls_a_client_that_waits(house: House, proxy: Proxy, phase: str, fault: str) -> None:
    bystander = Bystander(proxy) if fault == "reset" else None
    client = proxy.connect(small_buffers=True)
    if phase == "head":
        client.send(proxy.get("/x")[:-3])
    else:
        client.send(proxy.get("/x"))
        asked = proxy.asked()
        if phase == "body":
            asked.begin("Content-Length: 100000000")
            client.head()
            while asked.peer.offer(bytes(100_000)):
                pass
    if fault == "reset":
        client.reset()
    else:
        house.pass_time({"head": SERVER.head, "waiting": CLIENT.first_byte, "body": SERVER.stalled}[phase] + 0.1)
    if phase == "head" and fault == "stall":
        assert client.answer().status == 408
    elif phase == "waiting" and fault == "stall":
        assert client.answer().status == 504
    if phase != "head":
        asked.peer.until(lambda: asked.peer.over, "the end")
        assert asked.peer.was_reset
        house.until(lambda: [exchange for exchange in proxy.ended if exchange.request.path == b"/x"])
        (exchange,) = [exchange for exchange in proxy.ended if exchange.request.path == b"/x"]
        if fault == "reset":
            assert exchange.client_gone and "client" in (exchange.failure or "")
        elif phase == "body":
            assert exchange.failure == "the client stopped reading"
    if bystander is not None:
        bystander.step()
        bystander.end()


# Split anywhere, and one byte at a time.

WIRE = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/html\r\nTrailer: X-Sum\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 7\r\n\r\n"
)


def test_an_answer_split_anywhere_is_the_same_answer(house: House) -> None:
    proxy = Proxy(house)
    client = proxy.connect()
    for cut in range(len(WIRE)):
        client.send(proxy.get("/x", "TE: trailers", "Connection: TE"))
        asked = proxy.asked()
        asked.peer.send(*[piece for piece in (WIRE[:cut], WIRE[cut:]) if piece])
        early = client.head()
        via = b"Via: 1.1 " + proxy.forwarding.pseudonym
        assert early.head == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n" + via + b"\r\n\r\n"
        answer = client.answer()
        assert answer.head == (
            b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/html\r\nTrailer: X-Sum\r\n"
            + via
            + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert (answer.body, answer.trailers) == (b"hello world", {b"x-sum": b"7"}), cut
    assert proxy.pool.idle == 1  # one connection served them all


def test_a_request_split_anywhere_is_the_same_request(house: House) -> None:
    proxy = Proxy(house)
    client = proxy.connect()
    wire = proxy.request("POST", "/x?y", "Trailer: X-Sum", "Transfer-Encoding: chunked", "X-One: 1") + (
        b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 7\r\n\r\n"
    )
    for cut in range(len(wire)):
        client.send(*[piece for piece in (wire[:cut], wire[cut:]) if piece])
        asked = proxy.asked()
        assert asked.lines == [
            b"Host: " + proxy.authority.encode(),
            b"X-One: 1",
            b"Via: 1.1 " + proxy.forwarding.pseudonym,
            b"Trailer: X-Sum",
            b"Transfer-Encoding: chunked",
        ]
        assert (asked.body(), asked.trailers) == (b"hello world", b"X-Sum: 7\r\n"), cut
        asked.answer(b"ok")
        assert client.answer().body == b"ok"


def test_both_ways_one_byte_at_a_time(house: House, proxy: Proxy) -> None:
    bystander = Bystander(proxy)
    client = proxy.connect()
    request = proxy.request("PUT", "/x", "Transfer-Encoding: chunked") + chunk(b"hello") + b"0\r\n\r\n"
    for octet in request:
        client.send(bytes((octet,)))
    asked = Asked(next(peer for peer in proxy.heard() if b"/x" in peer.received))
    assert asked.body() == b"hello"
    for count, octet in enumerate(WIRE):
        asked.peer.send(bytes((octet,)))
        if count % 20 == 0:
            bystander.step()
    assert client.head().status == 103
    assert client.answer().body == b"hello world"
    bystander.end()
