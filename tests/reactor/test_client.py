"""The client's side, driven call by call against an origin that the test plays: keep-alive, retries, deadlines, cuts."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reactor.client import Call, ClientLimits, Pool
from reactor.connector import Connector
from reactor.errors import BodyCutShort, UpstreamError
from reactor.exchange import PULL, Body, BytesSource, Source
from reactor.http.fields import Fields
from reactor.http.parser import Response
from reactor.http.uri import Origin
from reactor.loop import READ
from reactor.resolver import Resolver
from reactor.stream import FIRST_READ, HIGH_WATER, Stream
from tests.loopback import RESET, House, Peer, Script, housed
from tests.origin import no_cycles

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LIMITS = ClientLimits()


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


class Silent:
    """A resolver that never answers."""

    cancelled = 0

    def resolve(self, host: str, port: int, callback: object) -> Silent:
        return self

    def cancel(self) -> None:
        self.cancelled += 1


class Client:
    """A pool and an origin to call."""

    def __init__(self, house: House, limits: ClientLimits = LIMITS, resolver: Any = None) -> None:
        self.house = house
        if resolver is None:
            resolver = Resolver(house.reactor)
            house.cleanups.append(resolver.close)
        self.pool = Pool(house.reactor, Connector(house.reactor, resolver), limits)
        house.cleanups.append(self.pool.close)
        self.listener = house.listen()
        self.origin = Origin(b"http", b"127.0.0.1", self.listener.port)

    def call(self, method: bytes = b"GET", body: Body = b"", **more: Any) -> Caller:
        return Caller(self, method, body, **more)

    def accept(self) -> Peer:
        return self.listener.accept()

    def asked(self, peer: Peer, method: bytes = b"GET") -> None:
        """A request without a body came."""
        peer.expect(method + b" / HTTP/1.1\r\nHost: o\r\n\r\n")

    def kept(self) -> Peer:
        """A connection that has answered once, and is kept."""
        caller = self.call()
        peer = self.accept()
        self.asked(peer)
        peer.send(OK)
        assert caller.whole() == b"ok"
        assert self.pool.idle == 1
        return peer


class Caller:
    """The owner of one call: what it was told."""

    def __init__(
        self, client: Client, method: bytes, body: Body, waits: bool = False, reads: bool = True,
        responded: Callable[[Call, Body], object] | None = None, origin: Origin | None = None,
    ) -> None:  # fmt: skip
        self.house = client.house
        self.informed: list[int] = []
        self.response: Response | None = None
        self.body: Body = b""
        self.error: UpstreamError | None = None
        self.cut: str | None = None
        self.content = b""
        self.ended = False
        self._reads = reads
        self._on_response = responded
        head = method + b" / HTTP/1.1\r\nHost: o\r\n"
        self.call = client.pool.call(origin or client.origin, method, head, body, self, waits)

    def call_informed(self, call: Call, response: Response) -> None:
        assert self.response is None and self.error is None
        self.informed.append(response.status)

    def call_responded(self, call: Call, response: Response, body: Body) -> None:
        assert self.response is None and self.error is None
        self.response, self.body = response, body
        if self._on_response is not None:
            self._on_response(call, body)
        if isinstance(body, Source):
            if self._reads:
                self.pull()
        else:
            self.content, self.ended = body, True

    def call_failed(self, call: Call, error: UpstreamError) -> None:
        assert self.error is None
        self.error = error

    def pull(self) -> None:
        body = self.body
        assert isinstance(body, Source)
        body.on_ready = self.pull
        try:
            while (data := body.pull(PULL)) is not None:
                if not data:
                    self.ended = True
                    body.on_ready = None
                    return
                self.content += bytes(data)
        except BodyCutShort as error:
            self.cut = error.reason
            body.on_ready = None

    def whole(self) -> bytes:
        self.house.until(lambda: self.ended, lambda: f"the answer; {self.error!r} {self.cut!r}")
        return self.content

    def broken(self) -> bytes:
        """What came before the cut."""
        self.house.until(lambda: self.cut is not None, "the cut")
        return self.content

    def failure(self) -> UpstreamError:
        self.house.until(lambda: self.error is not None, "the failure")
        assert self.error is not None
        return self.error

    @property
    def told(self) -> bool:
        return self.response is not None or self.error is not None


# What is sent.


@pytest.mark.parametrize(
    ("method", "body", "sent"),
    [
        (b"GET", b"", b"\r\n"),
        (b"GET", b"abc", b"Content-Length: 3\r\n\r\nabc"),
        (b"DELETE", b"", b"\r\n"),
        (b"OPTIONS", b"", b"\r\n"),
        (b"POST", b"", b"Content-Length: 0\r\n\r\n"),
        (b"PUT", b"", b"Content-Length: 0\r\n\r\n"),
        (b"PATCH", b"", b"Content-Length: 0\r\n\r\n"),
        (b"POST", b"abc", b"Content-Length: 3\r\n\r\nabc"),
        (b"POST", BytesSource(b"abc"), b"Content-Length: 3\r\n\r\nabc"),
        (b"POST", BytesSource(b""), b"Content-Length: 0\r\n\r\n"),
    ],
)
def test_the_request_is_framed_by_its_body(house: House, method: bytes, body: Body, sent: bytes) -> None:
    client = Client(house)
    caller = client.call(method, body)
    peer = client.accept()
    peer.expect(method + b" / HTTP/1.1\r\nHost: o\r\n" + sent)
    peer.expect_silence()
    peer.send(OK)
    assert caller.whole() == b"ok"


def test_a_body_of_unknown_length_goes_in_chunks_with_its_trailers(house: House) -> None:
    client = Client(house)
    body = Script(house.reactor, b"abc", None, trailers=Fields([(b"X-Sum", b"7")]))
    caller = client.call(b"POST", body)
    peer = client.accept()
    peer.expect(b"POST / HTTP/1.1\r\nHost: o\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    peer.expect_silence()
    body.go(b"defg")
    peer.expect(b"4\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n")
    peer.send(OK)
    assert caller.whole() == b"ok"
    assert client.pool.idle == 1


# Keeping connections.


def test_a_whole_answer_is_bytes_and_its_connection_is_kept_before_the_owner_hears_of_it(house: House) -> None:
    client = Client(house)
    idle: list[int] = []
    caller = client.call(responded=lambda call, body: idle.append(client.pool.idle))
    peer = client.accept()
    client.asked(peer)
    peer.send(OK)
    assert caller.whole() == b"ok"
    assert (caller.body, idle) == (b"ok", [1])


def test_the_connection_used_last_is_used_first(house: House) -> None:
    client = Client(house)
    callers = [client.call(), client.call()]
    first, second = client.accept(), client.accept()
    for peer in (first, second):
        peer.send(OK)
    assert [caller.whole() for caller in callers] == [b"ok", b"ok"]
    assert client.pool.idle == 2
    for peer in (first, second):
        client.asked(peer)
    client.call()
    client.asked(second)
    first.expect_silence()


KEPT = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX: 1\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
]
CLOSED = [
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokX",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
]


@pytest.mark.parametrize("answer", KEPT)
@pytest.mark.parametrize("split", [False, True])
def test_kept_after(house: House, answer: bytes, split: bool) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(*([answer[at : at + 1] for at in range(len(answer))] if split else [answer]))
    assert caller.whole() in (b"ok", b"")
    assert client.pool.idle == 1
    again = client.call()
    client.asked(peer)
    peer.send(OK)
    assert again.whole() == b"ok"


@pytest.mark.parametrize("answer", CLOSED)
def test_closed_after(house: House, answer: bytes) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(answer)
    assert caller.whole() in (b"ok", b"")
    assert client.pool.idle == 0
    peer.expect_close()
    again = client.call()
    other = client.accept()
    client.asked(other)
    other.send(OK)
    assert again.whole() == b"ok"


@pytest.mark.parametrize("stray", [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", b"\r\n", b"x"])
def test_bytes_that_answer_nothing_reach_nobody(house: House, stray: bytes) -> None:
    client = Client(house)
    peer = client.kept()
    peer.send(stray)
    assert client.pool.idle == 0
    peer.expect_close()
    again = client.call()
    other = client.accept()
    other.send(OK)
    assert again.whole() == b"ok"


def test_bytes_that_came_before_the_request_went_out_are_no_answer_to_it(house: House) -> None:
    """Requests of one turn leave at its end; what a kept connection has to read in that turn was sent before."""
    client = Client(house)
    stale = client.kept()
    house.reactor.dispatching = True
    caller = client.call(b"POST", b"body")
    connection = caller.call.connection
    assert connection is not None
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    house.reactor.dispatching = False
    fresh = client.accept()
    assert fresh.take_until(b"body").startswith(b"POST")
    fresh.send(OK)
    assert caller.whole() == b"ok"
    assert stale.received == b""


POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


def next_is_clean(client: Client, again: Caller) -> None:
    """The call made behind a stray response went to a connection of its own."""
    other = client.accept()
    assert other.take_until(b"\r\n\r\n")
    other.send(OK)
    assert again.whole() == b"ok"


def test_the_same_for_a_body_that_streams(house: House) -> None:
    client = Client(house)
    stale = client.kept()
    stale.sock.send(POISON)
    house.reactor.dispatching = True
    body = Script(house.reactor, b"body")  # which cannot be rewound
    caller = client.call(b"POST", body)
    connection = caller.call.connection
    assert connection is not None
    connection.stream.ready(READ)  # what the same turn's select had to tell
    house.reactor.dispatching = False
    fresh = client.accept()
    assert fresh.take_until(b"0\r\n\r\n").endswith(b"\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
    fresh.send(OK)
    assert caller.whole() == b"ok"
    stale.expect_reset()
    assert stale.received == b""


HELD = {"bytes": lambda reactor: b"body", "a stream": lambda reactor: Script(reactor, b"body")}


@pytest.mark.parametrize("kind", HELD)
@pytest.mark.parametrize("what", ["an end", "a reset", "a reset that only the send shows"])
def test_a_kept_connection_that_is_lost_before_the_turns_end(house: House, kind: str, what: str) -> None:
    """Not a byte has gone out, so that a POST goes to another connection; where its body was touched, if it can be rewound."""
    client = Client(house)
    stale = client.kept()
    house.reactor.dispatching = True
    caller = client.call(b"POST", HELD[kind](house.reactor))
    connection = caller.call.connection
    assert connection is not None and connection._held
    if what != "an end":
        stale.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    stale.sock.close()
    house.reactor.dispatching = False
    if what == "a reset that only the send shows":
        house.reactor.held.pop().send_held()
    if (what, kind) == ("a reset that only the send shows", "a stream"):
        assert "connection was lost" in caller.failure().reason, "the body has been touched"
        return
    fresh = client.accept()
    assert b"body" in fresh.take_until(b"0\r\n\r\n" if kind == "a stream" else b"body")
    fresh.send(OK)
    assert caller.whole() == b"ok"
    assert caller.call.fresh


@pytest.mark.parametrize("kind", HELD)
def test_a_call_that_is_aborted_before_the_turns_end_is_never_sent(house: House, kind: str) -> None:
    client = Client(house)
    stale = client.kept()
    house.reactor.dispatching = True
    body = HELD[kind](house.reactor)
    caller = client.call(b"POST", body)
    caller.call.abort()
    house.reactor.dispatching = False
    house.turns()
    stale.expect_reset()
    assert stale.received == b"" and not caller.told
    if isinstance(body, Script):
        assert (body.pulls, body.on_ready) == (0, None)
    again = client.call()
    fresh = client.accept()
    client.asked(fresh)
    fresh.send(OK)
    assert again.whole() == b"ok"


@pytest.mark.parametrize("kind", HELD)
def test_what_is_held_is_sent_at_the_turns_end_and_its_time_begins_then(house: House, kind: str) -> None:
    client = Client(house)
    peer = client.kept()
    house.clock.now += LIMITS.idle - 1
    house.reactor.dispatching = True
    caller = client.call(b"POST", HELD[kind](house.reactor))
    peer.read()
    assert not peer.received and caller.call.sent == 0
    house.reactor.dispatching = False
    assert b"body" in peer.take_until(b"0\r\n\r\n" if kind == "a stream" else b"body")
    house.pass_time(LIMITS.first_byte - 1)
    assert not caller.told
    peer.send(OK)
    assert caller.whole() == b"ok"
    assert client.pool.idle == 1


def test_an_owner_that_gives_up_over_an_interim_answer_hears_no_more(house: House) -> None:
    client = Client(house)
    caller = client.call()
    caller.call_informed = lambda call, response: call.abort()  # type: ignore[method-assign]
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
    peer.expect_reset()
    assert not caller.told and client.pool.idle == 0


@pytest.mark.parametrize("status", [b"200 OK", b"299 Fine"])
def test_a_connect_that_is_granted_is_an_upgrade(house: House, status: bytes) -> None:
    client = Client(house)
    taken: list[tuple[Stream, bytes]] = []
    caller = client.call(b"CONNECT", responded=lambda call, body: taken.append(call.take_stream()))
    peer = client.accept()
    client.asked(peer, b"CONNECT")
    peer.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\nhello")
    assert caller.whole() == b""
    assert taken[0][1] == b"hello"
    taken[0][0].abort()


@pytest.mark.parametrize("status", [b"300 a", b"403 Forbidden", b"199 a"])
def test_a_connect_that_is_refused_is_answered_with_a_body(house: House, status: bytes) -> None:
    client = Client(house)
    caller = client.call(b"CONNECT")
    peer = client.accept()
    client.asked(peer, b"CONNECT")
    peer.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n" + (b"hello" if status[0] > 0x31 else b""))
    if status[0] == 0x31:
        assert caller.informed == [199]
        caller.call.abort()
        return
    assert caller.whole() == b"hello"
    assert client.pool.idle == 1


def test_what_a_full_read_left_behind_is_no_answer_to_the_next_request(house: House) -> None:
    """A response that ends just where a read does: the rest is in the kernel, and the next call may come in the same turn."""
    client = Client(house)
    again: list[Caller] = []
    client.call(responded=lambda call, body: again.append(client.call()))
    peer = client.accept()
    client.asked(peer)
    size = FIRST_READ - len(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size) + POISON)
    house.until(lambda: again, "the answer")
    next_is_clean(client, again[0])
    assert peer.rest() == b""


def test_what_came_while_reading_was_paused_is_no_answer_to_the_next_request(house: House) -> None:
    client = Client(house)
    caller = client.call(reads=False)
    peer = client.accept()
    client.asked(peer)
    connection = caller.call.connection
    assert connection is not None
    pieces = [bytes(4000)] * (LIMITS.read_ahead // 4000 + 1)  # the last one is too much
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (4000 * len(pieces)), *pieces)
    house.until(lambda: not connection.stream.reading, "the pause")
    peer.send(POISON)
    caller.pull()
    assert caller.ended
    again = client.call()
    next_is_clean(client, again)


def test_a_connection_is_kept_where_nothing_is_left_behind(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100000))
    assert len(caller.whole()) == 100000
    assert client.pool.idle == 1


def test_an_idle_connection_that_ends_is_forgotten(house: House) -> None:
    client = Client(house)
    peer = client.kept()
    peer.shutdown()
    assert client.pool.idle == 0
    peer.expect_close()


def test_an_idle_connection_is_closed_after_its_time(house: House) -> None:
    client = Client(house)
    peer = client.kept()
    house.pass_time(LIMITS.idle - 1)
    peer.expect_silence()
    house.pass_time(2)
    peer.expect_close()
    assert client.pool.idle == 0


def test_it_is_closed_in_time_however_late_it_was_used_last(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    house.pass_time(LIMITS.first_byte - 1)  # the timer is armed for a later time than the idle time's end
    peer.send(OK)
    assert caller.whole() == b"ok"
    house.pass_time(LIMITS.idle - 1)
    assert client.pool.idle == 1
    house.pass_time(2)
    assert client.pool.idle == 0


def test_the_oldest_of_too_many_idle_connections_is_closed(house: House) -> None:
    client = Client(house, ClientLimits(idle_per_origin=2))
    callers = [client.call() for _ in range(3)]
    peers = [client.accept() for _ in range(3)]
    for peer, caller in zip(peers, callers, strict=True):
        client.asked(peer)
        peer.send(OK)
        assert caller.whole() == b"ok"
    assert client.pool.idle == 2
    peers[0].expect_close()
    peers[1].expect_silence()


def test_no_more_connections_than_allowed_are_open(house: House) -> None:
    client = Client(house, ClientLimits(connections=1))
    client.call()
    peer = client.accept()
    error = client.call().failure()
    assert (error.status, error.phase) == (503, "connect")
    client.asked(peer)
    peer.expect_silence()


def test_an_idle_connection_makes_room_for_one_to_another_origin(house: House) -> None:
    client = Client(house, ClientLimits(connections=1))
    peer = client.kept()
    other = house.listen()
    caller = client.call(origin=Origin(b"http", b"127.0.0.1", other.port))
    peer.expect_reset()
    answering = other.accept()
    answering.send(OK)
    assert caller.whole() == b"ok"


def test_a_closed_pool_closes_what_is_idle_and_what_becomes_so(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    idle = client.call()
    idle_peer = client.accept()
    idle_peer.send(OK)
    assert idle.whole() == b"ok"
    client.asked(idle_peer)
    client.pool.close()
    idle_peer.expect_close()
    client.asked(peer)
    peer.send(OK)
    assert caller.whole() == b"ok"
    peer.expect_close()


# Bodies.


def test_a_body_is_pulled_as_it_comes(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab")
    house.until(lambda: caller.content == b"ab")
    assert isinstance(caller.body, Source) and caller.body.length == 6
    peer.send(b"cd", b"ef")
    assert caller.whole() == b"abcdef"
    assert client.pool.idle == 1


def test_a_pull_gives_no_more_than_was_asked_for(house: House) -> None:
    client = Client(house)
    caller = client.call(reads=False)
    peer = client.accept()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcde")
    house.until(lambda: caller.response)
    body = caller.body
    assert isinstance(body, Source)
    assert [bytes(body.pull(2) or b"") for _ in range(3)] == [b"ab", b"cd", b"e"]
    assert body.pull(2) is None
    peer.send(b"fgh")
    assert [bytes(body.pull(2) or b"") for _ in range(3)] == [b"fg", b"h", b""]
    assert body.pull(2) == b""


def test_trailers_come_with_the_end(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"0\r\nX-Sum: 7\r\n\r\n")
    assert caller.whole() == b"ok"
    assert isinstance(caller.body, Source) and caller.body.trailers == Fields([(b"X-Sum", b"7")])


def test_a_body_that_only_the_close_ends_is_whole_with_it(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    peer.send(b"HTTP/1.0 200 OK\r\n\r\nab", b"cd")
    assert isinstance(caller.body, Source) and caller.body.length is None
    peer.shutdown()
    assert caller.whole() == b"abcd"
    assert client.pool.idle == 0


CUTS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
]


@pytest.mark.parametrize("answer", CUTS)
@pytest.mark.parametrize("reset", [False, True])
def test_a_body_cut_short_is_seen_so(house: House, answer: bytes, reset: bool) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(answer)
    if reset:
        peer.reset()
    else:
        peer.shutdown()
    assert caller.broken() == b"ab"
    assert caller.cut is not None and "127.0.0.1" in caller.cut
    assert client.pool.idle == 0


def test_a_reset_cuts_even_what_only_the_close_would_end(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.0 200 OK\r\n\r\nab")
    house.until(lambda: caller.content == b"ab")
    peer.reset()
    assert caller.broken() == b"ab"


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_body_with_broken_framing_is_cut_where_it_breaks(house: House, pieces: int) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    parts = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", b"zz\r\n"]
    peer.send(*([b"".join(parts)] if pieces == 1 else parts))
    assert caller.broken() == b"ab"
    peer.expect_reset()


def test_a_cut_is_told_again_and_again(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(CUTS[0])
    peer.shutdown()
    caller.broken()
    for _ in range(2):
        with pytest.raises(BodyCutShort):
            caller.body.pull(10)  # type: ignore[union-attr]


def test_what_arrived_before_the_reset_counts(house: House) -> None:
    """The consumer was slow; all of the body is there, although the connection is not any more."""
    client = Client(house)
    caller = client.call(reads=False)
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab")
    house.until(lambda: caller.response)
    peer.send(b"cdef")
    peer.reset()
    caller.pull()
    assert caller.whole() == b"abcdef"


def test_what_arrived_before_the_reset_counts_without_being_whole(house: House) -> None:
    client = Client(house)
    caller = client.call(reads=False)
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    house.until(lambda: caller.response)
    peer.send(b"2\r\ncd\r\n4\r\ne")
    peer.reset()
    caller.pull()
    assert caller.broken() == b"abcde"


def test_closing_a_body_before_its_end_costs_the_connection(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab")
    house.until(lambda: caller.content == b"ab")
    caller.body.close()  # type: ignore[union-attr]
    peer.expect_reset()
    caller.body.close()  # type: ignore[union-attr]
    assert caller.body.pull(10) == b""  # type: ignore[union-attr]


# Answers that are none.


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
)
def test_an_answer_that_cannot_be_read_is_a_bad_gateway(house: House, answer: bytes) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(answer)
    error = caller.failure()
    assert (error.status, error.phase) == (502, "head")
    assert error.address == f"127.0.0.1:{client.listener.port}" and "no valid response" in error.reason
    peer.expect_reset()
    assert client.pool.idle == 0


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\nConte", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
@pytest.mark.parametrize("reset", [False, True])
def test_no_answer_is_a_bad_gateway(house: House, before: bytes, reset: bool) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(before)
    if reset:
        peer.reset()
    else:
        peer.shutdown()
    assert caller.failure().status == 502
    assert client.pool.idle == 0


def test_too_many_interim_answers_are_none(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 102 Processing\r\n\r\n" * (LIMITS.interim + 1))
    assert caller.failure().status == 502
    assert len(caller.informed) == LIMITS.interim


def test_refused(house: House) -> None:
    client = Client(house)
    client.listener.sock.close()
    error = client.call().failure()
    assert (error.status, error.phase, error.address) == (502, "connect", f"127.0.0.1:{client.listener.port}")
    assert "refused" in error.reason.lower()


# Sending again.


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_stale_connection_costs_an_idempotent_request_nothing(house: House, method: bytes, reset: bool) -> None:
    client = Client(house)
    stale = client.kept()
    caller = client.call(method)
    assert stale.take_until(b"\r\n\r\n").startswith(method)
    if reset:
        stale.reset()
    else:
        stale.shutdown()
    fresh = client.accept()
    assert fresh.take_until(b"\r\n\r\n").startswith(method)
    fresh.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert caller.whole() == b""


def test_it_is_sent_again_but_once(house: House) -> None:
    client = Client(house)
    stale = client.kept()
    caller = client.call()
    stale.shutdown()
    fresh = client.accept()
    client.asked(fresh)
    fresh.shutdown()
    assert caller.failure().status == 502


def test_the_second_time_it_goes_on_a_fresh_connection_though_another_is_kept(house: House) -> None:
    client = Client(house)
    callers = [client.call(), client.call()]
    peers = [client.accept(), client.accept()]
    for peer, caller in zip(peers, callers, strict=True):
        client.asked(peer)
        peer.send(OK)
        assert caller.whole() == b"ok"
    caller = client.call()
    client.asked(peers[1])
    peers[1].shutdown()
    fresh = client.accept()
    client.asked(fresh)
    fresh.send(OK)
    assert caller.whole() == b"ok"
    peers[0].expect_silence()


def test_on_a_fresh_connection_nothing_is_sent_again(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.shutdown()
    assert caller.failure().status == 502
    assert not client.pool.idle


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"PROPPATCH", b"get"])
def test_what_is_not_idempotent_is_never_sent_twice(house: House, method: bytes) -> None:
    client = Client(house)
    stale = client.kept()
    caller = client.call(method, b"x")
    assert stale.take_until(b"\r\n\r\nx").startswith(method)
    stale.shutdown()
    error = caller.failure()
    assert (error.status, error.phase) == (502, "head")


def test_a_post_of_which_not_a_byte_went_out_is_sent(house: House) -> None:
    client = Client(house)
    stale = client.kept()
    stale.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    stale.sock.close()  # the loop does not know yet
    caller = client.call(b"POST", b"x")
    fresh = client.accept()
    fresh.expect(b"POST / HTTP/1.1\r\nHost: o\r\nContent-Length: 1\r\n\r\nx")
    fresh.send(OK)
    assert caller.whole() == b"ok"


@pytest.mark.parametrize("answer", [b"H", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_after_a_byte_of_an_answer_nothing_is_sent_again(house: House, answer: bytes) -> None:
    client = Client(house)
    stale = client.kept()
    caller = client.call()
    client.asked(stale)
    stale.send(answer)
    stale.shutdown()
    assert caller.failure().status == 502


def test_a_body_that_can_be_rewound_is_sent_again_from_its_first_byte(house: House) -> None:
    client = Client(house)
    stale = client.kept()
    caller = client.call(b"PUT", BytesSource(b"abcdef"))
    stale.expect(b"PUT / HTTP/1.1\r\nHost: o\r\nContent-Length: 6\r\n\r\nabcdef")
    stale.shutdown()
    fresh = client.accept()
    fresh.expect(b"PUT / HTTP/1.1\r\nHost: o\r\nContent-Length: 6\r\n\r\nabcdef")
    fresh.send(OK)
    assert caller.whole() == b"ok"


def test_a_body_that_cannot_be_rewound_is_not_sent_again(house: House) -> None:
    client = Client(house)
    stale = client.kept()
    caller = client.call(b"PUT", Script(house.reactor, b"abc", length=3))
    stale.take_until(b"abc")
    stale.shutdown()
    assert caller.failure().status == 502


def test_a_body_that_was_never_touched_need_not_be_rewound(house: House) -> None:
    client = Client(house)
    stale = client.kept()
    body = Script(house.reactor, b"abc", length=3)
    caller = client.call(b"PUT", body, waits=True)
    stale.take_until(b"\r\n\r\n")
    stale.shutdown()
    fresh = client.accept()
    fresh.take_until(b"\r\n\r\n")
    assert body.pulls == 0
    fresh.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    fresh.expect(b"abc")
    fresh.send(OK)
    assert caller.whole() == b"ok"


# Time.


def test_a_lookup_that_never_ends(house: House) -> None:
    resolver = Silent()
    client = Client(house, ClientLimits(connect=4.0), resolver)
    caller = client.call()
    house.pass_time(3.9)
    assert not caller.told
    house.pass_time(0.2)
    error = caller.failure()
    assert (error.status, error.phase) == (504, "resolve")
    assert "4 s" in error.reason and resolver.cancelled == 1


@pytest.mark.parametrize("seconds", [5.0, 60.0, 100.0])
def test_a_silent_origin(house: House, seconds: float) -> None:
    client = Client(house, ClientLimits(first_byte=seconds))
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    house.pass_time(seconds - 0.1)
    assert not caller.told
    house.pass_time(0.2)
    error = caller.failure()
    assert (error.status, error.phase, error.reason) == (504, "head", f"did not answer within {seconds:g} s (first-byte timeout)")
    peer.expect_reset()


@pytest.mark.parametrize("seconds", [5.0, 60.0])
def test_a_silent_origin_on_a_kept_connection(house: House, seconds: float) -> None:
    client = Client(house, ClientLimits(first_byte=seconds))
    peer = client.kept()
    caller = client.call()
    client.asked(peer)
    house.pass_time(seconds - 0.1)
    assert not caller.told
    house.pass_time(0.2)
    assert caller.failure().status == 504  # and it is not sent again: the origin has it


@pytest.mark.parametrize("seconds", [5.0, 60.0])
def test_an_origin_that_falls_silent_in_the_body(house: House, seconds: float) -> None:
    client = Client(house, ClientLimits(between_bytes=seconds))
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
    for _ in range(3):
        house.pass_time(seconds - 0.1)
        peer.send(b"c")
    house.pass_time(seconds - 0.1)
    assert caller.cut is None
    house.pass_time(0.2)
    assert caller.broken() == b"abccc"
    assert f"{seconds:g} s" in (caller.cut or "")
    peer.expect_reset()


def test_a_body_that_nobody_wants_just_now_is_not_late(house: House) -> None:
    client = Client(house, ClientLimits(between_bytes=5.0))
    caller = client.call(reads=False)
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    house.until(lambda: caller.response)
    for _ in range(20):
        house.pass_time(4.0)
    caller.pull()
    house.pass_time(4.0)
    peer.send(b"cd")
    assert caller.whole() == b"abcd"


def test_an_origin_that_takes_nothing_of_the_request(house: House) -> None:
    client = Client(house, ClientLimits(stalled=5.0))
    body = Script(house.reactor, *[bytes(100_000)] * 200, length=20_000_000)
    caller = client.call(b"POST", body)
    peer = client.accept()
    house.turns()
    house.pass_time(4.9)
    assert not caller.told
    while peer.read(100_000):  # it takes some: its time begins anew
        house.turns(1)
        if len(peer.received) > 4_000_000:
            break
    house.turns()
    house.pass_time(4.9)
    assert not caller.told
    house.pass_time(5.2)
    error = caller.failure()
    assert (error.status, error.phase) == (504, "send")
    peer.until(lambda: peer.over, "the end")
    assert peer.was_reset


def test_a_slow_upload_of_the_client_is_no_fault_of_the_origin(house: House) -> None:
    client = Client(house)
    body = Script(house.reactor, b"a", None, length=2)
    caller = client.call(b"POST", body)
    peer = client.accept()
    peer.take_until(b"\r\n\r\na")
    for _ in range(5):
        house.pass_time(59.0)
    assert not caller.told
    body.go(b"b")
    peer.expect(b"b")
    house.pass_time(59.0)
    assert not caller.told
    house.pass_time(2.0)
    assert caller.failure().status == 504


# Interim answers.


def test_interim_answers_are_told_in_time(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
    house.until(lambda: caller.informed == [102])
    peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK)
    assert caller.whole() == b"ok"
    assert caller.informed == [102, 103]


def test_the_body_waits_for_100(house: House) -> None:
    client = Client(house)
    body = Script(house.reactor, b"abc", length=3)
    caller = client.call(b"POST", body, waits=True)
    peer = client.accept()
    peer.expect(b"POST / HTTP/1.1\r\nHost: o\r\nContent-Length: 3\r\n\r\n")
    peer.expect_silence()
    assert body.pulls == 0
    peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    peer.expect_silence()
    peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    peer.expect(b"abc")
    peer.send(OK)
    assert caller.whole() == b"ok"
    assert caller.informed == [103, 100]
    assert client.pool.idle == 1


def test_the_body_does_not_wait_for_ever(house: House) -> None:
    client = Client(house)
    body = Script(house.reactor, b"abc", length=3)
    caller = client.call(b"POST", body, waits=True)
    peer = client.accept()
    peer.take_until(b"\r\n\r\n")
    house.pass_time(LIMITS.continue_wait + 0.1)
    peer.expect(b"abc")
    peer.send(OK)
    assert caller.whole() == b"ok"


@pytest.mark.parametrize("whole", [True, False])
def test_a_final_answer_instead_of_100_means_that_the_body_is_not_sent(house: House, whole: bool) -> None:
    client = Client(house)
    body = Script(house.reactor, b"abc", length=3)
    caller = client.call(b"POST", body, waits=True)
    peer = client.accept()
    peer.take_until(b"\r\n\r\n")
    peer.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\n" + (b"no" if whole else b"n"))
    house.pass_time(LIMITS.continue_wait + 0.1)
    house.pass_time(2.0)
    if not whole:
        peer.send(b"o")
    assert caller.whole() == b"no"
    assert body.pulls == 0
    assert client.pool.idle == 0
    peer.expect_reset()


# Early answers.


def test_an_early_whole_answer_ends_the_sending(house: House) -> None:
    client = Client(house)
    body = Script(house.reactor, b"abc", None)
    caller = client.call(b"POST", body)
    peer = client.accept()
    peer.take_until(b"abc\r\n")
    peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
    assert caller.whole() == b"no"
    assert client.pool.idle == 0 and body.on_ready is None
    peer.expect_reset()


def test_an_early_answer_comes_while_the_sending_goes_on(house: House) -> None:
    client = Client(house)
    body = Script(house.reactor, b"abc", None, length=6)
    caller = client.call(b"POST", body)
    peer = client.accept()
    peer.take_until(b"abc")
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    house.until(lambda: caller.content == b"ab")
    body.go(b"def")
    peer.expect(b"def")
    peer.send(b"cd")
    assert caller.whole() == b"abcd"
    assert client.pool.idle == 1


def test_an_early_answer_that_ends_first_costs_the_connection(house: House) -> None:
    client = Client(house)
    body = Script(house.reactor, b"abc", None, length=6)
    caller = client.call(b"POST", body)
    peer = client.accept()
    peer.take_until(b"abc")
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", b"cd")
    assert caller.whole() == b"abcd"
    assert client.pool.idle == 0
    peer.expect_reset()


def test_an_answer_is_read_although_the_rest_of_the_request_cannot_be_sent(house: House) -> None:
    client = Client(house)
    body = Script(house.reactor, *[bytes(100_000)] * 100, None, bytes(100_000), length=10_100_000)
    caller = client.call(b"POST", body)
    peer = client.accept()
    answer = b"x" * 60_000
    peer.sock.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 60000\r\n\r\n" + answer)
    peer.sock.close()  # with much unread: that is a reset, behind the answer
    body.go()
    assert caller.whole() == answer


# A request that breaks off.


@pytest.mark.parametrize("length", [None, 6])
def test_a_request_that_breaks_off_is_never_taken_for_whole(house: House, length: int | None) -> None:
    client = Client(house)
    body = Script(house.reactor, b"abc", None, length=length)
    caller = client.call(b"POST", body)
    peer = client.accept()
    peer.take_until(b"abc")
    body.go(BodyCutShort("gone", 408))
    error = caller.failure()
    assert (error.status, error.phase, error.reason) == (408, "send", "gone")
    peer.until(lambda: peer.over, "the end")
    assert peer.was_reset and b"0\r\n" not in peer.received


@pytest.mark.parametrize("pieces", [[b"abc"], [b"abcdefg"], [b"abcd", b"efg"]])
def test_a_request_of_another_length_than_announced_is_cut(house: House, pieces: list[bytes]) -> None:
    client = Client(house)
    caller = client.call(b"POST", Script(house.reactor, *pieces, length=6))
    peer = client.accept()
    assert caller.failure().status == 400
    peer.expect_reset()
    assert not peer.received.endswith(b"g")


def test_a_request_that_breaks_off_during_its_answer_cuts_the_answer(house: House) -> None:
    client = Client(house)
    body = Script(house.reactor, b"abc", None, length=6)
    caller = client.call(b"POST", body)
    peer = client.accept()
    peer.take_until(b"abc")
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    house.until(lambda: caller.content == b"ab")
    body.go(BodyCutShort("gone"))
    assert caller.broken() == b"ab"
    peer.expect_reset()


# Pressure.


def test_a_body_that_is_not_pulled_stops_being_read(house: House) -> None:
    client = Client(house)
    caller = client.call(reads=False)
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\nx")
    house.until(lambda: caller.response)
    (connection,) = client.pool._all
    sent = 1
    while (more := peer.offer(bytes(1_000_000))) or connection.stream.reading:
        sent += more
        assert connection.parser.buffered <= LIMITS.read_ahead + 128 * 1024
    assert sent < 49_000_000
    pulled = 0
    while pulled < 50_000_000:
        data = caller.body.pull(PULL)  # type: ignore[union-attr]
        if data is None:
            sent += peer.offer(bytes(min(1_000_000, 50_000_000 - sent)))
        else:
            pulled += len(data)
            assert data
    assert caller.body.pull(PULL) == b""  # type: ignore[union-attr]


def test_a_request_is_pulled_no_faster_than_the_origin_takes_it(house: House) -> None:
    client = Client(house)
    body = Script(house.reactor, *[bytes(100_000)] * 300, length=30_000_000)
    caller = client.call(b"POST", body)
    peer = client.accept()
    house.turns(200)
    (connection,) = client.pool._all
    assert connection.stream.backlog <= HIGH_WATER + PULL
    assert body.pulls < 300
    peer.take_until(b"\r\n\r\n")
    left = 30_000_000
    while left:
        took = len(peer.take(min(left, 500_000)))
        left -= took
        assert connection.stream.backlog <= HIGH_WATER + PULL
    peer.send(OK)
    assert caller.whole() == b"ok"


# Giving up.


def test_an_aborted_call_hears_nothing_more(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    caller.call.abort()
    caller.call.abort()
    peer.expect_reset()
    assert not caller.told


def test_an_aborted_call_that_is_still_connecting(house: House) -> None:
    resolver = Silent()
    client = Client(house, resolver=resolver)
    caller = client.call()
    caller.call.abort()
    house.pass_time(100)
    assert not caller.told and resolver.cancelled == 1
    assert not client.pool._all


def test_an_owner_that_raises_is_told_so_and_its_body_let_go(house: House, caplog: pytest.LogCaptureFixture) -> None:
    client = Client(house)

    def fails(call: Call, body: Body) -> None:
        raise RuntimeError("of the owner's")

    caller = client.call(responded=fails)
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    assert caller.error is not None and caller.error.status == 500
    peer.expect_reset()
    assert "of the owner's" in caplog.text


# Upgrades.


def test_an_upgraded_stream_changes_hands_with_what_came_behind_the_head(house: House) -> None:
    client = Client(house)
    taken: list[tuple[Stream, bytes]] = []
    caller = client.call(responded=lambda call, body: taken.append(call.take_stream()))
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nfirst words")
    ((stream, rest),) = taken
    assert rest == b"first words" and caller.response is not None and caller.response.status == 101
    assert not client.pool._all
    stream.write(b"hi")
    peer.expect(b"hi")
    stream.owner = None
    stream.abort()
    house.turns()


def test_an_upgrade_that_nobody_takes_is_reset(house: House) -> None:
    client = Client(house)
    caller = client.call()
    peer = client.accept()
    client.asked(peer)
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
    assert caller.response is not None
    peer.expect_reset()
    assert not client.pool._all


def test_an_upgrade_in_the_middle_of_the_request_is_no_answer(house: House) -> None:
    client = Client(house)
    caller = client.call(b"POST", Script(house.reactor, b"a", None, length=2))
    peer = client.accept()
    peer.take_until(b"\r\n\r\na")
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
    assert caller.failure().status == 502
    peer.expect_reset()


# What it leaves behind.


def test_no_cycles_are_left(house: House) -> None:
    client = Client(house)
    with no_cycles():
        for answer in (OK, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\no", CUTS[0], b"bad\r\n\r\n"):
            caller = client.call(b"POST", BytesSource(b"x"))
            peer = client.accept()
            peer.take_until(b"\r\n\r\nx")
            peer.send(answer)
            if answer == CUTS[0]:
                peer.reset()
            elif answer.endswith(b"\r\no"):
                peer.send(b"k")
            house.turns()
            if answer == OK:
                house.pass_time(LIMITS.idle + 1)
            peer.close()
            house.peers.remove(peer)
            del caller, peer
        house.pass_time(5.0)


def test_every_state_shows(house: House) -> None:
    client = Client(house)
    caller = client.call()
    (connection,) = client.pool._all
    assert "connecting" in repr(connection)
    peer = client.accept()
    client.asked(peer)
    assert "busy" in repr(connection)
    peer.send(OK)
    caller.whole()
    assert "idle" in repr(connection)


# Leaving at once.


def test_all_is_left_at_once_the_idle_in_order_and_the_busy_with_a_reset(house: House) -> None:
    client = Client(house)
    idle = client.kept()
    callers = [client.call(), client.call()]  # the first one takes the kept connection
    client.asked(idle)
    busy = client.accept()
    client.asked(busy)
    idle.send(OK)
    assert callers[0].whole() == b"ok"
    client.pool.abort()
    house.turns()
    idle.expect_close()
    busy.expect_reset()
    assert not client.pool.idle and house.reactor.watched == 0
    client.pool.abort()


def test_what_was_being_closed_is_left_in_order_too(house: House) -> None:
    client = Client(house)
    peer = client.kept()
    client.pool.close()
    client.pool.abort()
    peer.expect_close()
    assert house.reactor.watched == 0


def test_how_much_of_a_request_is_sent(house: House) -> None:
    client = Client(house)
    call = client.call(b"POST", b"hello").call
    assert call.sent == 0
    peer = client.accept()
    assert peer.take_until(b"hello")
    assert call.sent > len(b"hello")
    peer.send(OK)
    house.turns()
    assert call.sent == 0
