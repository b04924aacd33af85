"""The JSON log over real connections: where an exchange's time went, who was waited for, what was decided, how it ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cache.stores.memory import MemoryStore
from handlers.access import AccessControl
from handlers.access_log import AccessLog
from handlers.access_rules import parse_rule
from handlers.json_log import Stage, how_it_ended
from reactor.client import ClientLimits
from reactor.exchange import Exchange, Head, Source
from reactor.server import ServerLimits
from tests.loopback import Handling, House, Peer, Script, housed, says
from tests.origin import Proxy

Facts = dict[str, Any]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
FRESH = "Cache-Control: max-age=60"
LARGE = 8 << 20  # bytes, more than kernel and backlog hold


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


class Logged:
    """A handler behind a JSON log."""

    def __init__(self, house: House, handler: Any, limits: ServerLimits = ServerLimits()) -> None:
        self.house = house
        self.lines: list[bytes] = []
        log = AccessLog(handler, self, json=True)  # type: ignore[arg-type]
        self.served = house.serve(log, limits, log)

    def write(self, line: bytes) -> None:
        self.lines.append(line)

    def connect(self, small_buffers: bool = False) -> Peer:
        return self.served.connect(small_buffers)

    def facts(self, number: int = 1) -> list[Facts]:
        """The first lines, once there are so many."""
        self.house.until(lambda: len(self.lines) >= number, "the line")
        assert len(self.lines) == number
        return [json.loads(line) for line in self.lines]


class LoggedProxy(Proxy):
    """A caching proxy for one origin, behind a JSON log."""

    def __init__(self, house: House, **more: Any) -> None:
        super().__init__(house, store=MemoryStore(16 << 20), **more)
        self.forwarding_stage = self.caching.handler = Stage("forward", self.forwarding)
        self.log = Logged(house, Stage("lookup", self.handling))
        self.served = self.log.served


# Phases and waits.


def test_a_miss_step_by_step(house: House) -> None:
    proxy = LoggedProxy(house)
    client = proxy.ask("/x")
    asked = proxy.asked()
    house.pass_time(0.25)
    asked.begin(FRESH, "Content-Length: 10", first=b"01234")
    house.turns()
    house.pass_time(0.5)
    asked.peer.send(b"56789")
    assert client.answer().body == b"0123456789"
    (facts,) = proxy.log.facts()
    assert {name: facts[name] for name in facts if name.endswith("_ms")} == {
        "parse_ms": 0.0, "access_ms": None, "script_ms": None, "lookup_ms": 0.0, "dns_ms": 0.0, "connect_ms": 0.0,
        "first_byte_ms": 250.0, "head_ms": 250.0, "body_ms": 500.0, "duration_ms": 750.0, "client_wait_ms": 0.0,
        "upstream_wait_ms": 750.0,
    }  # fmt: skip
    assert (facts["verdict"], facts["upstream"], facts["ended"]) == ("miss", proxy.authority, "complete")
    assert facts["cache_status"] == "reactor; fwd=uri-miss; stored; ttl=60"
    assert facts["reason"] == "nothing is stored for this URI (RFC 9111 section 4)"


def test_a_hit_asks_nobody_and_a_kept_connection_needs_no_connect(house: House) -> None:
    proxy = LoggedProxy(house)
    for path, stored in (("/x", True), ("/x", False), ("/y", True)):
        client = proxy.ask(path)
        if stored:
            proxy.asked().answer(b"hi", FRESH)
        assert client.answer().body == b"hi"
    _, hit, kept = proxy.log.facts(3)
    assert (hit["verdict"], hit["cache_status"], hit["upstream"]) == ("hit", "reactor; hit; ttl=60", None)
    assert hit["reason"] == "the stored response is fresh (RFC 9111 section 4.2)"
    assert [hit[name] for name in ("lookup_ms", "dns_ms", "connect_ms", "first_byte_ms", "upstream_wait_ms")] == [
        0,
        *[None] * 4,
    ]
    assert [kept[name] for name in ("dns_ms", "connect_ms", "first_byte_ms")] == [None, None, 0]


def test_who_waits_for_anothers_fetch_is_told_its_times(house: House) -> None:
    proxy = LoggedProxy(house)
    first = proxy.ask("/x")
    asked = proxy.asked()
    house.pass_time(1.0)
    second = proxy.ask("/x")
    third = proxy.ask("/x")
    house.pass_time(0.5)
    third.close()
    house.turns()
    house.pass_time(5.0)  # it had shut down its side without an answer
    asked.answer(b"hi", FRESH)
    assert first.answer().body == second.answer().body == b"hi"
    left, *answered = proxy.log.facts(3)
    assert (left["status"], left["ended"], left["verdict"], left["upstream_wait_ms"]) == (
        499,
        "client left",
        "collapsed",
        5500.0,
    )
    assert [one["upstream_wait_ms"] for one in answered] == [6500.0, 5500.0]
    assert [one["first_byte_ms"] for one in answered] == [6500.0, 6500.0]
    assert [one["lookup_ms"] for one in answered] == [0.0, 0.0]


def test_who_has_waited_in_vain_has_times_of_its_own(house: House) -> None:
    proxy = LoggedProxy(house)
    first, second = proxy.ask("/x"), proxy.ask("/x")
    asked = proxy.asked()
    house.pass_time(0.25)
    asked.begin("Cache-Control: no-store", "Content-Length: 4", first=b"ab")
    again = proxy.asked()
    house.pass_time(1.0)
    asked.peer.send(b"cd")
    assert first.answer().body == b"abcd"
    again.answer(b"efgh", "Cache-Control: no-store")
    assert second.answer().body == b"efgh"
    assert [one["first_byte_ms"] for one in proxy.log.facts(2)] == [250.0, 1000.0]


def test_a_validation_that_nobody_waits_for_leaves_no_trace_in_the_line_of_who_began_it(house: House) -> None:
    proxy = LoggedProxy(house)
    proxy.ask("/x")
    proxy.asked().answer(b"hi", "Cache-Control: max-age=1, stale-while-revalidate=60", 'ETag: "1"')
    house.until(lambda: proxy.log.lines, "the first line")
    house.pass_time(10.0)
    assert proxy.ask("/x").answer().body == b"hi"
    proxy.asked().answer(status="304 Not Modified")
    house.turns()
    _, stale = proxy.log.facts(2)
    assert (stale["verdict"], stale["upstream_wait_ms"], stale["first_byte_ms"]) == ("stale", None, None)


def test_a_head_in_pieces_is_parsed_for_as_long_as_it_takes(house: House) -> None:
    log = Logged(house, Handling(says(b"hi")))
    peer = log.connect()
    for piece in (GET[:5], GET[5:20]):
        peer.send(piece)
        house.pass_time(0.1)
    peer.send(GET[20:])
    assert peer.answer().body == b"hi"
    peer.send(GET)
    peer.answer()
    first, second = log.facts(2)
    assert (first["parse_ms"], first["duration_ms"]) == (200.0, 0.0)
    assert second["parse_ms"] == 0.0


def test_a_client_is_waited_for_while_its_body_comes(house: House) -> None:
    proxy = LoggedProxy(house)
    client = proxy.connect()
    client.send(proxy.request("POST", "/x", "Content-Length: 4"))
    asked = proxy.asked()
    house.pass_time(0.25)
    client.send(b"ab")
    house.pass_time(0.25)
    client.send(b"cd")
    assert asked.body() == b"abcd"
    asked.answer(b"hi")
    assert client.answer().body == b"hi"
    (facts,) = proxy.log.facts()
    assert (facts["client_wait_ms"], facts["bytes_in"], facts["bytes_out"]) == (500.0, 4, 2)
    assert (facts["verdict"], facts["cache_status"]) == ("pass", "reactor; fwd=method")
    assert facts["reason"] == "only GET and HEAD are answered from the store (RFC 9111 section 4)"


@pytest.mark.parametrize("length", [LARGE, None])
def test_a_client_that_reads_slowly_is_waited_for(house: House, length: int | None) -> None:
    class Zeros(Source):
        left = LARGE

        def pull(self, limit: int) -> bytes:
            size = min(limit, self.left)
            self.left -= size
            return bytes(size)

    log = Logged(house, Stage("access", Handling(lambda exchange: exchange.respond(Head(200), Zeros(length)))))
    peer = log.connect(small_buffers=True)
    peer.send(GET)
    house.turns()
    house.pass_time(2.0)
    assert len(peer.answer().body) == LARGE
    (facts,) = log.facts()
    assert facts["client_wait_ms"] == facts["body_ms"] == 2000.0
    assert facts["access_ms"] == 0.0, "a stage ends with the answer's head"


def test_a_slow_source_is_no_clients_fault(house: House) -> None:
    source = Script(house.reactor, b"ab", None, b"cd")
    log = Logged(house, Handling(lambda exchange: exchange.respond(Head(200), source)))
    peer = log.connect()
    peer.send(GET)
    house.turns()
    house.pass_time(2.0)
    source.go()
    assert peer.answer().body == b"abcd"
    (facts,) = log.facts()
    assert (facts["client_wait_ms"], facts["body_ms"], facts["upstream_wait_ms"]) == (0.0, 2000.0, None)


def test_the_time_of_the_access_rules_is_their_own(house: House) -> None:
    class Slow:
        def handle(self, exchange: Exchange) -> None:
            house.clock.now += 0.5  # it computes
            exchange.respond(Head(200), b"hi")

    rules = [parse_rule("deny", "host=no.example")]
    log = Logged(house, Stage("access", AccessControl(Stage("handle", Slow()), rules)))
    peer = log.connect()
    peer.send(GET, b"GET / HTTP/1.1\r\nHost: no.example\r\n\r\n")
    assert (peer.answer().status, peer.answer().status) == (200, 403)
    passed, denied = log.facts(2)
    assert (passed["access_ms"], passed["head_ms"]) == (0.0, 500.0)
    assert (denied["access_ms"], denied["verdict"]) == (0.0, "denied")
    assert denied["reason"] == "refused by the access rule: deny host=no.example"


def test_a_refused_head_says_why(house: House) -> None:
    log = Logged(house, Handling())
    peer = log.connect()
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n")
    assert peer.answer().status == 400
    (facts,) = log.facts()
    assert (facts["status"], facts["reason"], facts["ended"]) == (400, "invalid host", "complete")
    assert "method" not in facts and b"c2VjcmV0" not in log.lines[0]


# How it ended.


def ends(house: House, dialogue: Callable[[LoggedProxy, Peer], object], **more: Any) -> Facts:
    proxy = LoggedProxy(house, **more)
    dialogue(proxy, proxy.ask("/x"))
    return proxy.log.facts()[0]


def test_a_client_that_resets(house: House) -> None:
    def dialogue(proxy: LoggedProxy, client: Peer) -> None:
        proxy.asked()
        client.reset()

    facts = ends(house, dialogue)
    assert (facts["status"], facts["ended"], facts["verdict"]) == (499, "client left", "miss")
    assert facts["upstream_wait_ms"] == 0.0


def test_an_upstream_that_breaks_off(house: House) -> None:
    def dialogue(proxy: LoggedProxy, client: Peer) -> None:
        asked = proxy.asked()
        asked.begin("Content-Length: 10", first=b"01234")
        client.head()
        asked.peer.close()

    facts = ends(house, dialogue)
    assert (facts["status"], facts["ended"], facts["bytes_out"], facts["error"]) == (200, "upstream cut", 5, None)


def test_an_upstream_that_stops_in_the_middle(house: House) -> None:
    def dialogue(proxy: LoggedProxy, client: Peer) -> None:
        proxy.asked().begin("Content-Length: 10", first=b"01234")
        client.head()
        house.pass_time(60.0)

    facts = ends(house, dialogue)
    assert (facts["ended"], facts["upstream_wait_ms"]) == ("upstream timed out", 60000.0)
    assert "sent no byte of the body for 60 s" in facts["failure"]


def test_an_upstream_that_does_not_answer_is_an_error_that_was_told_whole(house: House) -> None:
    def dialogue(proxy: LoggedProxy, client: Peer) -> None:
        proxy.asked()
        house.pass_time(60.0)
        assert client.answer().status == 504

    facts = ends(house, dialogue)
    assert (facts["status"], facts["ended"], facts["error_phase"], facts["cache_status"]) == (504, "complete", "head", None)
    assert facts["error"].endswith("did not answer within 60 s (first-byte timeout)")
    assert (facts["first_byte_ms"], facts["upstream_wait_ms"]) == (None, 60000.0)


def test_an_upstream_that_refuses(house: House) -> None:
    proxy = LoggedProxy(house)
    proxy.origin.sock.close()
    assert proxy.ask("/x").answer().status == 502
    (facts,) = proxy.log.facts()
    assert (facts["error_phase"], facts["ended"], facts["connect_ms"]) == ("connect", "complete", 0.0)
    assert facts["first_byte_ms"] is None and facts["upstream_wait_ms"] is None


def test_a_request_that_breaks_off_is_no_fault_of_the_upstream(house: House) -> None:
    proxy = LoggedProxy(house)
    client = proxy.connect()
    client.send(proxy.request("POST", "/x", "Content-Length: 10") + b"01234")
    proxy.accept()
    client.shutdown()
    assert client.answer().status == 400
    (facts,) = proxy.log.facts()
    assert (facts["error"], facts["error_phase"]) == ("client: connection closed in the middle of the body", None)


def test_an_upstream_that_takes_nothing(house: House) -> None:
    proxy = LoggedProxy(house, limits=ClientLimits(stalled=1.0))
    client = proxy.connect()
    client.send(proxy.request("POST", "/x", f"Content-Length: {LARGE}"))
    origin = proxy.accept()
    for _ in range(200):
        client.offer(bytes(1 << 16))
    house.pass_time(1.0)
    house.pass_time(1.0)
    client.until(lambda: client.received or client.over, "an answer, or the end")
    house.until(lambda: proxy.log.lines, "the line")
    (facts,) = proxy.log.facts()
    assert "took no byte of the request" in facts["error"]
    origin.close()


def test_a_client_that_takes_nothing(house: House) -> None:
    source = Script(house.reactor, *[bytes(1 << 16)] * 200)
    log = Logged(house, Handling(lambda exchange: exchange.respond(Head(200), source)), ServerLimits(stalled=5.0))
    log.connect(small_buffers=True).send(GET)
    house.turns()
    house.pass_time(5.0)
    house.pass_time(5.0)
    (facts,) = log.facts()
    assert (facts["status"], facts["ended"]) == (200, "client timed out")


@pytest.mark.parametrize(
    ("end", "ended"),
    [
        ("close", "relay ended"),
        ("idle", "relay timed out"),
        ("reset upstream", "upstream cut"),
        ("reset client", "client left"),
    ],
)
def test_a_tunnel(house: House, end: str, ended: str) -> None:
    proxy = LoggedProxy(house)
    client = proxy.connect()
    client.send(f"CONNECT {proxy.authority} HTTP/1.1\r\nHost: {proxy.authority}\r\n\r\n".encode())
    assert client.head().status == 200
    origin = proxy.accept()
    client.send(b"hello")
    origin.expect(b"hello")
    house.pass_time(1.0)
    if end == "close":
        client.shutdown()
        origin.expect_close()
        origin.close()
    elif end == "idle":
        house.pass_time(60.0)
    elif end == "reset upstream":
        origin.reset()
    else:
        client.reset()
    (facts,) = proxy.log.facts()
    assert (facts["ended"], facts["verdict"], facts["bytes_in"], facts["connect_ms"]) == (ended, "tunnel", 5, 0.0)


@pytest.mark.parametrize(
    ("answer", "ended"),
    [
        (lambda exchange: exchange.abort("as it likes"), "aborted"),
        (lambda exchange: exchange.respond(Head(200), Script(exchange.reactor, KeyError("x"), length=5)), "server failed"),
        (lambda exchange: exchange.respond(Head(200), Script(exchange.reactor, b"ab", length=5)), "upstream cut"),
    ],
)
def test_what_a_handler_does(house: House, answer: Callable[[Exchange], object], ended: str) -> None:
    log = Logged(house, Handling(answer))
    log.connect().send(GET)
    assert log.facts()[0]["ended"] == ended


def test_a_shut_down(house: House) -> None:
    log = Logged(house, Handling())
    log.connect().send(GET)
    house.turns()
    log.served.server.abort()
    assert log.facts()[0]["ended"] == "shut down"


def test_an_answered_connect_is_no_relay(house: House) -> None:
    log = Logged(house, Handling(says(b"no", 403)))
    peer = log.connect()
    peer.send(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")
    assert peer.answer().status == 403
    assert log.facts()[0]["ended"] == "complete"


def test_an_end_in_unknown_words_is_an_abort() -> None:
    class Ended:
        failure = "said no such thing"
        request = None
        status = 0

    assert how_it_ended(Ended()) == "aborted"  # type: ignore[arg-type]
