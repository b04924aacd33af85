"""The server's connections: what a client sends, and what must come back, in every state, whole or cut, early or late."""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from reactor.errors import BodyCutShort
from reactor.exchange import Body, Exchange, FileSource, Head, Source
from reactor.http.fields import Fields
from reactor.stream import HIGH_WATER, LINGER_SECONDS, Stream
from tests.loopback import (
    LIMITS,
    Handling,
    House,
    Peer,
    Script,
    Served,
    collect,
    echo,
    housed,
    says,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BIG_GET = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 4000 + b"\r\n\r\n"
GET_OLD = b"GET / HTTP/1.0\r\n\r\n"
GET_OLD_KEPT = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST_5 = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
POST_CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
POST_EXPECTS = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
NOTHING: dict[str, Any] = {}  # asked for what it has not, it raises
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
DATE = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


def post(size: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size


class Facts:
    """An access log that keeps what it is told."""

    def __init__(self) -> None:
        self.recorded: list[Exchange] = []

    def record(self, exchange: Exchange) -> None:
        self.recorded.append(exchange)


def ends(handling: Handling) -> list[str | None]:
    """The failures of the exchanges that ended, in order; each must have ended once."""
    assert len(set(map(id, handling.ended))) == len(handling.ended)
    return [exchange.failure for exchange in handling.ended]


def numbered() -> Callable[[Exchange], None]:
    """Answers 1, 2, 3 …"""
    count = 0

    def answer(exchange: Exchange) -> None:
        nonlocal count
        count += 1
        exchange.respond(Head(200), b"%d" % count)

    return answer


def file_of(size: int) -> tuple[int, bytes]:
    """A descriptor of a file without a name, and what is in it."""
    content = bytes(index * 7 % 251 for index in range(1021)) * (size // 1021 + 1)
    with tempfile.TemporaryFile() as file:
        file.write(content[:size])
        file.flush()
        return os.dup(file.fileno()), content[:size]


# One request.


def test_an_answer_is_framed_and_dated(house: House) -> None:
    peer = house.serve(Handling(says(b"hello", 200, (b"Content-Type", b"text/plain")))).connect()
    peer.send(GET)
    peer.expect(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + DATE + b"Content-Length: 5\r\n\r\nhello")
    peer.expect_silence()


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_a_head_may_come_in_pieces(house: House, pieces: int) -> None:
    peer = house.serve(Handling(says(b"hello"))).connect()
    peer.send(*(GET[start : start + pieces] for start in range(0, len(GET), pieces)))
    assert peer.answer().body == b"hello"


def test_an_empty_answer_says_so(house: House) -> None:
    peer = house.serve(Handling(says(b""))).connect()
    peer.send(GET)
    assert peer.answer().fields[b"content-length"] == b"0"


def test_the_handlers_own_framing_and_connection_fields_are_replaced(house: House) -> None:
    answer = says(
        b"hello",
        200,
        (b"Content-Length", b"77"),
        (b"Transfer-Encoding", b"x"),
        (b"Connection", b"upgrade"),
        (b"Date", b"now"),
    )
    peer = house.serve(Handling(answer)).connect()
    peer.send(GET)
    peer.expect(b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 5\r\n\r\nhello")


def test_a_length_that_nobody_holds_the_body_to_is_left_out(house: House) -> None:
    body = Script(house.reactor, b"hello")
    peer = house.serve(Handling(says(body, 200, (b"Content-Length", b"9")))).connect()
    peer.send(GET)
    answer = peer.answer()
    assert answer.fields.keys() == {b"date", b"transfer-encoding"}
    assert answer.body == b"hello"


def test_a_serialized_head_goes_out_as_it_is(house: House) -> None:
    wire = b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX: y\r\n\r\n"
    handling = Handling(lambda exchange: exchange.respond(Head(200, wire=wire), b"hello"))
    peer = house.serve(handling).connect()
    peer.send(GET)
    peer.expect(wire + b"hello")
    peer.send(LAST_GET)  # but not where the connection has more to say
    assert peer.answer().fields[b"connection"] == b"close"


def test_the_last_wrapper_that_asked_sees_the_head_first(house: House) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.map_head(lambda _, head: Head(head.status, [(b"Order", (head.fields.get(b"order") or b"") + b"1")]))
        exchange.map_head(lambda _, head: Head(head.status, [(b"Order", b"2")]))
        exchange.respond(Head(200), b"")

    peer = house.serve(Handling(answer)).connect()
    peer.send(GET)
    assert peer.answer().fields[b"order"] == b"21"


def test_a_second_answer_is_refused_and_the_first_one_stands(house: House) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.respond(Head(200), b"first")
        with pytest.raises(RuntimeError):
            exchange.respond(Head(200), b"second")

    peer = house.serve(Handling(answer)).connect()
    peer.send(GET)
    assert peer.answer().body == b"first"
    peer.expect_silence()


def test_the_facts_of_an_exchange(house: House) -> None:
    handling = Handling(echo)
    peer = house.serve(handling).connect()
    peer.send(POST_5 + b"hello")
    peer.answer()
    (exchange,) = handling.ended
    assert (exchange.peer, exchange.status, exchange.bytes_in, exchange.bytes_out) == ("127.0.0.1", 200, 5, 5)
    assert (exchange.failure, exchange.client_gone, exchange.scheme) == (None, False, b"http")


# Several requests.


@contextlib.contextmanager
def counted_sends() -> Iterator[list[int]]:
    """How many bytes each send of what was queued took."""
    sends: list[int] = []
    send = Stream._send_buffers

    def counted(stream: Stream) -> int:
        sends.append(send(stream))
        return sends[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stream, "_send_buffers", counted)
        yield sends


def test_pipelined_requests_are_answered_in_order_and_in_one_send(house: House) -> None:
    handling = Handling(numbered())
    peer = house.serve(handling).connect()
    with counted_sends() as sends:
        peer.send(GET * 10)
    assert [peer.answer().body for _ in range(10)] == [b"%d" % number for number in range(1, 11)]
    assert len(sends) == 1
    assert ends(handling) == [None] * 10
    assert handling.ended == handling.exchanges


def test_a_thousand_pipelined_hits_take_few_sends(house: House) -> None:
    handling = Handling(says(b"x" * 100))
    peer = house.serve(handling).connect()
    with counted_sends() as sends:
        peer.send(GET * 1000)
        for _ in range(1000):
            assert peer.answer().body == b"x" * 100
    house.until(lambda: len(handling.ended) == 1000)
    assert ends(handling) == [None] * 1000
    assert len(sends) < 40  # of up to GATHER buffers each, in as many reads as 27 KB took


def test_pipelined_requests_wait_for_one_that_is_answered_later(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(GET * 3)
    for number in range(3):
        assert len(handling.exchanges) == number + 1
        peer.expect_silence()
        handling.last.respond(Head(200), b"%d" % number)
        assert len(handling.exchanges) == number + 1, "the next is taken up by the loop, never from within respond"
        assert len(handling.ended) == number
        assert peer.answer().body == b"%d" % number
        house.turns(2)
    assert handling.ended == handling.exchanges


def test_answers_now_and_later_mixed(house: House) -> None:
    waiting: list[Exchange] = []

    def answer(exchange: Exchange) -> None:
        if exchange.request.path == b"/later":
            house.reactor.call_soon(exchange.respond, Head(200), b"later")
        elif exchange.request.path == b"/source":
            exchange.respond(Head(200), Script(house.reactor, b"so", b"urce"))
        elif exchange.request.path == b"/held":
            waiting.append(exchange)
        else:
            exchange.respond(Head(200), b"now")

    handling = Handling(answer)
    peer = house.serve(handling).connect()
    names = [b"now", b"later", b"source", b"now", b"held", b"later", b"later", b"now", b"source"]
    peer.send(b"".join(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % name for name in names))
    assert [peer.answer().body for _ in range(4)] == names[:4]
    waiting[0].respond(Head(200), b"held")
    assert [peer.answer().body for _ in range(5)] == names[4:]
    assert ends(handling) == [None] * 9


def test_bodies_and_requests_pipelined(house: House) -> None:
    handling = Handling(echo)
    peer = house.serve(handling).connect()
    chunked = POST_CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    peer.send((POST_5 + b"12345" + chunked + GET) * 3)
    assert [peer.answer().body for _ in range(9)] == [b"12345", b"abcde", b""] * 3
    assert [exchange.bytes_in for exchange in handling.ended] == [5, 5, 0] * 3


def test_what_comes_while_an_exchange_runs_is_kept_within_a_bound(house: House) -> None:
    handling = Handling()
    served = house.serve(handling)
    peer = served.connect()
    peer.send(GET)
    many = BIG_GET * 10_000
    sent = 0
    while more := peer.offer(many[sent:]):
        sent += more
    assert sent < len(many)
    parser = served.connection.parser
    assert not served.connection.stream.reading
    assert parser.buffered <= LIMITS.read_ahead + 128 * 1024
    handling.answer = says(b"")
    handling.last.respond(Head(200), b"")
    for _ in range(1 + sent // len(BIG_GET)):
        assert peer.answer().status == 200
    assert served.connection.stream.reading


def test_a_client_that_does_not_read_is_answered_no_more(house: House) -> None:
    handling = Handling(says(b"x" * 10_000))
    served = house.serve(handling)
    peer = served.connect(small_buffers=True)
    many = BIG_GET * 10_000
    sent = 0
    while more := peer.offer(many[sent:]):
        sent += more
    connection = served.connection
    assert sent < len(many)
    assert connection.stream.backlog < HIGH_WATER + 20_000
    assert connection.parser.buffered <= LIMITS.read_ahead + 128 * 1024
    assert len(connection._unsent or ()) < 20, "ends are told one by one, as their bytes go out"
    answered = len(handling.exchanges)
    for _ in range(200):
        assert peer.answer().body == b"x" * 10_000
    assert len(handling.exchanges) > answered
    assert ends(handling) == [None] * len(handling.ended)
    assert len(handling.ended) >= 180


def test_ends_are_told_as_the_bytes_go_out(house: House) -> None:
    """A client that always leaves something unread must not make the server remember every exchange."""
    handling = Handling(says(b"x" * 30_000))
    served = house.serve(handling)
    peer = served.connect(small_buffers=True)
    peer.send(GET * 30)
    held = 0
    for _ in range(200):
        held = max(held, len(served.connection._unsent or ()))
        peer.answer()
        peer.send(GET)
    assert held <= 2 + HIGH_WATER // 30_000


# HTTP/1.0, close, and what has no body.


def test_the_client_asks_for_the_end(house: House) -> None:
    peer = house.serve(Handling(says(b"bye"))).connect()
    peer.send(LAST_GET + GET)
    assert peer.answer().fields[b"connection"] == b"close"
    peer.expect_close()


def test_http_1_0_closes_unless_asked_to_stay(house: House) -> None:
    served = house.serve(Handling(says(b"hello")))
    peer = served.connect()
    peer.send(GET_OLD_KEPT)
    answer = peer.answer()
    assert (answer.fields[b"connection"], answer.fields[b"content-length"]) == (b"keep-alive", b"5")
    peer.send(GET_OLD)
    assert peer.answer().fields[b"connection"] == b"close"
    peer.expect_close()


def test_an_unknown_length_is_chunked(house: House) -> None:
    body = Script(house.reactor, b"one", b"two", trailers=Fields([(b"Sum", b"6")]))
    peer = house.serve(Handling(says(body))).connect()
    peer.send(GET)
    answer = peer.answer()
    assert (answer.body, answer.trailers) == (b"onetwo", {})
    peer.expect_silence()
    assert body.closes == 1


def test_trailers_go_to_whom_takes_them(house: House) -> None:
    handling = Handling(
        lambda exchange: exchange.respond(Head(200), Script(house.reactor, b"x", trailers=Fields([(b"Sum", b"6")])))
    )
    peer = house.serve(handling).connect()
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
    assert peer.answer().trailers == {b"sum": b"6"}


@pytest.mark.parametrize("request_head", [GET_OLD, GET_OLD_KEPT])
def test_an_unknown_length_to_http_1_0_ends_with_the_connection(house: House, request_head: bytes) -> None:
    peer = house.serve(Handling(says(Script(house.reactor, b"one", b"two")))).connect()
    peer.send(request_head)
    answer = peer.answer()
    assert answer.body == b"onetwo"
    assert answer.fields.keys() == {b"date", b"connection"}
    assert answer.fields[b"connection"] == b"close"


@pytest.mark.parametrize("body", [b"hello", None])
def test_head_tells_the_length_and_sends_nothing(house: House, body: bytes | None) -> None:
    source = Script(house.reactor, b"hello", length=5)
    peer = house.serve(Handling(says(body or source))).connect()
    peer.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" * (2 if body else 1))
    for _ in range(2 if body else 1):
        assert peer.answer(b"HEAD").fields[b"content-length"] == b"5"
    peer.expect_silence()
    assert body or (source.pulls, source.closes) == (0, 1)


def test_head_passes_on_a_length_that_only_the_handler_knows(house: House) -> None:
    peer = house.serve(Handling(says(b"", 200, (b"Content-Length", b"1234567")))).connect()
    peer.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert peer.answer(b"HEAD").fields[b"content-length"] == b"1234567"
    peer.expect_silence()


def test_head_of_an_unknown_length_is_kept_open_even_for_http_1_0(house: House) -> None:
    source = Script(house.reactor, b"hello")
    peer = house.serve(Handling(says(source))).connect()
    peer.send(b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert peer.answer(b"HEAD").fields.keys() == {b"date", b"connection"}
    peer.expect_silence()
    assert source.closes == 1


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_what_has_no_body_gets_none(house: House, status: int, method: bytes) -> None:
    source = Script(house.reactor, b"hello", length=5)
    peer = house.serve(Handling(says(source, status, (b"ETag", b'"x"')))).connect()
    peer.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    peer.expect(
        b'HTTP/1.1 %d %b\r\nETag: "x"\r\n' % (status, {204: b"No Content", 304: b"Not Modified"}[status]) + DATE + b"\r\n"
    )
    peer.expect_silence()
    assert (source.pulls, source.closes) == (0, 1)


def test_a_304_may_tell_the_length_of_what_it_stands_for_and_a_204_has_none(house: House) -> None:
    peer = house.serve(Handling(says(b"", 304, (b"Content-Length", b"99")))).connect()
    peer.send(GET)
    assert peer.answer().fields[b"content-length"] == b"99"
    peer = house.serve(Handling(says(b"", 204, (b"Content-Length", b"99")))).connect()
    peer.send(GET)
    assert b"content-length" not in peer.answer().fields


# Bodies that are pulled.


def test_a_body_that_comes_later_is_waited_for(house: House) -> None:
    body = Script(house.reactor, b"one", None)
    handling = Handling(says(body))
    peer = house.serve(handling).connect()
    peer.send(GET)
    assert peer.head().status == 200
    peer.expect(b"3\r\none\r\n")
    peer.expect_silence()
    body.go(b"two", None)
    peer.expect(b"3\r\ntwo\r\n")
    assert ends(handling) == []
    body.go()
    peer.expect(b"0\r\n\r\n")
    house.turns()
    assert ends(handling) == [None]
    assert handling.last.bytes_out == 6
    assert body.closes == 1


def test_a_body_of_known_length_is_sent_plain(house: House) -> None:
    body = Script(house.reactor, b"one", None, b"two", length=6)
    peer = house.serve(Handling(says(body))).connect()
    peer.send(GET)
    assert peer.head().fields[b"content-length"] == b"6"
    peer.expect(b"one")
    body.go()
    peer.expect(b"two")
    peer.expect_silence()
    assert body.closes == 1


@pytest.mark.parametrize("pieces", [(b"abc",), (b"abcdefgh",), (b"abc", b"defgh"), ()])
def test_a_body_that_is_not_as_long_as_it_said_is_cut(house: House, pieces: tuple[bytes, ...]) -> None:
    body = Script(house.reactor, *pieces, length=5)
    handling = Handling(says(body))
    peer = house.serve(handling).connect()
    peer.send(GET + GET)
    assert peer.head().fields[b"content-length"] == b"5"
    assert len(peer.rest()) < 5
    assert ends(handling) == ["the body is not as long as its head said"]
    assert body.closes == 1


@pytest.mark.parametrize("error", [BodyCutShort("gone"), OSError("broken disk"), RuntimeError("a bug")])
@pytest.mark.parametrize("length", [None, 9])
@pytest.mark.parametrize("later", [False, True])
def test_a_body_that_breaks_off_is_seen_to(house: House, error: Exception, length: int | None, later: bool) -> None:
    body = Script(house.reactor, b"one", *[None] * later, error, length=length)
    handling = Handling(says(body))
    peer = house.serve(handling).connect()
    peer.send(GET + GET)
    if later:
        body.go()
    assert peer.head().status == 200
    assert peer.rest() == (b"3\r\none\r\n" if length is None else b"one")  # no last chunk, or too few bytes
    house.turns()
    assert ends(handling) == ["gone" if isinstance(error, BodyCutShort) else "the server failed"]
    assert body.closes == 1


@pytest.mark.parametrize("error", [BodyCutShort("gone"), RuntimeError("a bug")])
def test_a_cut_that_only_the_end_would_show_is_a_reset(house: House, error: Exception) -> None:
    body = Script(house.reactor, b"one", None, error)
    handling = Handling(says(body))
    peer = house.serve(handling).connect()
    peer.send(GET_OLD)
    assert peer.head().status == 200
    peer.expect(b"one")
    body.go()
    peer.expect_reset()
    house.turns()
    assert len(ends(handling)) == 1 and handling.last.failure
    assert body.closes == 1


def test_answers_before_one_that_breaks_off_still_arrive(house: House) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.request.path == b"/":
            exchange.respond(Head(200), b"whole")
        else:
            exchange.respond(Head(200), Script(house.reactor, RuntimeError("a bug"), length=3))

    handling = Handling(answer)
    peer = house.serve(handling).connect()
    peer.send(GET * 2 + GET.replace(b"/ ", b"/bad "))
    assert [peer.answer().body, peer.answer().body, peer.head().status, peer.rest()] == [b"whole", b"whole", 200, b""]
    house.turns()
    assert sorted(ends(handling), key=str) == [None, None, "the server failed"]


def test_a_body_is_pulled_only_as_fast_as_the_client_takes_it(house: House) -> None:
    piece = b"x" * 50_000
    body = Script(house.reactor, *[piece] * 200, length=200 * len(piece))
    served = house.serve(Handling(says(body)))
    peer = served.connect(small_buffers=True)
    peer.send(GET)
    house.turns()
    pulled = body.pulls
    assert pulled < 100, "the kernel takes some megabytes, and the rest is not pulled"
    assert served.connection.stream.backlog < HIGH_WATER + len(piece)
    peer.head()
    peer.take(150 * len(piece))
    assert body.pulls > pulled
    assert served.connection.stream.backlog < HIGH_WATER + len(piece)
    peer.take(50 * len(piece))
    peer.expect_silence()


class Endless(Source):
    """A body without an end that never says "later"."""

    __slots__ = ("closes", "pulls")

    def __init__(self) -> None:
        super().__init__()
        self.pulls = self.closes = 0

    def pull(self, limit: int) -> bytes:
        self.pulls += 1
        assert self.pulls < 10_000, "pulled for nobody"
        return b"x" * min(limit, 1000)

    def close(self) -> None:
        self.closes += 1


def test_an_endless_body_stops_when_the_client_leaves(house: House) -> None:
    body = Endless()
    handling = Handling(says(body))
    peer = house.serve(handling).connect(small_buffers=True)
    peer.send(GET)
    peer.head()
    peer.reset()
    house.until(lambda: handling.ended)
    assert handling.last.failure is not None and handling.last.client_gone
    assert body.closes == 1


def test_an_answer_to_a_client_that_has_left_is_not_pulled(house: House) -> None:
    body = Endless()
    handling = Handling()
    served = house.serve(handling)
    peer = served.connect()
    peer.send(GET)
    stream = served.connection.stream
    stream.pause_reading()  # so that the reset is met by the write
    peer.reset()
    handling.last.respond(Head(200), body)
    assert body.pulls <= 1 + HIGH_WATER // 1000
    house.until(lambda: handling.ended)
    assert len(ends(handling)) == 1 and handling.last.failure
    assert body.closes >= 1


# Files.


@pytest.mark.parametrize("size", [0, 1, 3000, 300_000])
@pytest.mark.parametrize("requests", [1, 3])
def test_a_file_is_sent_whole(house: House, size: int, requests: int) -> None:
    fd, content = file_of(size)
    handling = Handling(lambda exchange: exchange.respond(Head(200), FileSource(os.dup(fd), 0, size)))
    peer = house.serve(handling).connect()
    peer.send(GET * requests)
    for _ in range(requests):
        assert peer.answer().body == content
    house.turns()
    assert ends(handling) == [None] * requests
    assert [exchange.bytes_out for exchange in handling.ended] == [size] * requests
    os.close(fd)


def test_a_range_of_a_file(house: House) -> None:
    fd, content = file_of(10_000)
    peer = house.serve(Handling(says(FileSource(fd, 1000, 5000), 206))).connect()
    peer.send(GET)
    assert peer.answer().body == content[1000:6000]


def test_files_and_bytes_pipelined(house: House) -> None:
    fd, content = file_of(5000)

    def answer(exchange: Exchange) -> None:
        file = exchange.request.path == b"/file"
        exchange.respond(Head(200), FileSource(os.dup(fd), 0, 5000) if file else b"bytes")

    handling = Handling(answer)
    peer = house.serve(handling).connect()
    peer.send((GET + GET.replace(b"/ ", b"/file ") * 2) * 3)
    assert [peer.answer().body for _ in range(9)] == [b"bytes", content, content] * 3
    house.turns()
    assert ends(handling) == [None] * 9
    os.close(fd)


def test_a_file_to_a_slow_client_is_not_held_in_memory(house: House) -> None:
    size = 8_000_000
    fd, content = file_of(size)
    handling = Handling(says(FileSource(fd, 0, size)))
    served = house.serve(handling)
    peer = served.connect(small_buffers=True)
    peer.send(GET)
    peer.head()
    queue = served.connection.stream._queue
    assert queue is not None and len(queue) == 1 and not isinstance(queue[0], (bytes, memoryview))
    assert ends(handling) == []
    assert peer.take(size) == content
    house.turns()
    assert ends(handling) == [None]
    assert handling.last.bytes_out == size


def test_a_file_that_became_shorter_is_cut_by_a_reset(house: House) -> None:
    fd, _ = file_of(1000)
    handling = Handling(says(FileSource(fd, 0, 2000)))
    peer = house.serve(handling).connect()
    peer.send(GET)
    peer.expect_reset()
    house.turns()
    assert len(ends(handling)) == 1 and handling.last.failure
    with pytest.raises(OSError):
        os.fstat(fd)


def test_the_bytes_of_a_file_that_was_not_taken_are_not_counted(house: House) -> None:
    size = 30_000_000
    fd, _ = file_of(size)
    handling = Handling(says(FileSource(fd, 0, size)))
    peer = house.serve(handling).connect(small_buffers=True)
    peer.send(GET)
    peer.head()
    peer.take(100_000)
    peer.reset()
    house.until(lambda: handling.ended)
    assert handling.last.failure
    assert 100_000 <= handling.last.bytes_out < size


def test_a_source_whose_file_is_not_its_length_is_pulled(house: House) -> None:
    class Odd(Script):
        def as_file(self) -> tuple[int, int, int]:
            return (0, 0, 3)

    peer = house.serve(Handling(says(Odd(house.reactor, b"hello", length=5)))).connect()
    peer.send(GET)
    assert peer.answer().body == b"hello"


# The request's body.


def test_a_body_that_is_there_comes_as_bytes(house: House) -> None:
    handling = Handling(says(b""))
    peer = house.serve(handling).connect()
    peer.send(POST_5 + b"hello")
    assert handling.last.body == b"hello"
    assert peer.answer().status == 200


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_comes_slowly_is_pulled(house: House, framing: str) -> None:
    handling = Handling(echo)
    peer = house.serve(handling).connect()
    if framing == "length":
        peer.send(POST_5, b"h", b"el", b"lo" + GET)
    else:
        peer.send(POST_CHUNKED, b"1\r", b"\nh\r\n4", b"\r\nel", b"lo\r\n0\r\nX: y\r\n", b"\r\n" + GET)
    assert [peer.answer().body, peer.answer().body] == [b"hello", b""]
    assert handling.ended[0].bytes_in == 5
    body = handling.ended[0].body
    assert isinstance(body, Source)
    assert body.length == (5 if framing == "length" else None)
    assert (body.trailers is None) == (framing == "length")


def test_a_pull_takes_no_more_than_it_asked_for(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(POST_CHUNKED, b"a\r\n0123456789\r\n")
    body = handling.last.body
    assert isinstance(body, Source)
    assert [body.pull(3), body.pull(4), body.pull(4), body.pull(4)] == [b"012", b"3456", b"789", None]
    peer.send(b"0\r\n\r\n")
    assert [body.pull(1), body.pull(1)] == [b"", b""]
    handling.last.respond(Head(200), b"")
    assert peer.answer().status == 200


def test_ready_is_told_once_for_each_wait_and_from_the_loop(house: House) -> None:
    told: list[int] = []
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(POST_5)
    body = handling.last.body
    assert isinstance(body, Source)
    body.on_ready = lambda: told.append(1)
    peer.send(b"a")
    assert told == [], "nobody asked yet"
    assert (body.pull(9), body.pull(9)) == (b"a", None)
    peer.send(b"b", b"c")
    assert len(told) == 1
    assert (body.pull(9), body.pull(9)) == (b"bc", None)
    handling.last.respond(Head(200), b"")
    peer.send(b"de")
    assert len(told) == 2, "that it will never come is told too"
    with pytest.raises(BodyCutShort):
        body.pull(9)
    assert peer.answer().status == 200


def test_an_upload_that_is_not_pulled_stops_being_read(house: House) -> None:
    handling = Handling()
    served = house.serve(handling)
    peer = served.connect()
    peer.send(post(20_000_000))
    sent = 0
    while more := peer.offer(b"x" * 1_000_000):
        sent += more
    assert sent < 20_000_000
    assert served.connection.parser.buffered <= LIMITS.read_ahead + 128 * 1024
    collect(handling.last.body, lambda body: handling.last.respond(Head(200), b"%d" % len(body)), handling.last)
    while sent < 20_000_000:
        rest = b"x" * min(1_000_000, 20_000_000 - sent)
        peer.send(rest)
        sent += len(rest)
    assert peer.answer().body == b"20000000"
    assert handling.last.bytes_in == 20_000_000


def test_an_upload_streams_back_while_it_comes(house: House) -> None:
    class Mirror(Source):
        """The request's own body as the response's."""

        __slots__ = ("inner",)

        def __init__(self, inner: Source) -> None:
            super().__init__(inner.length)
            self.inner = inner
            inner.on_ready = self.ready

        def ready(self) -> None:
            if self.on_ready is not None:
                self.on_ready()

        def pull(self, limit: int) -> bytes | memoryview | None:
            return self.inner.pull(limit)

    def answer(exchange: Exchange) -> None:
        assert isinstance(exchange.body, Source)
        exchange.respond(Head(200), Mirror(exchange.body))

    handling = Handling(answer)
    peer = house.serve(handling).connect()
    peer.send(POST_CHUNKED)
    assert peer.head().status == 200
    for piece in (b"one", b"two"):
        peer.send(b"3\r\n%b\r\n" % piece)
        peer.expect(b"3\r\n%b\r\n" % piece)
    peer.send(b"0\r\n\r\n" + GET.replace(b"GET", b"OPTIONS") * 0)
    peer.expect(b"0\r\n\r\n")
    peer.expect_silence()
    assert ends(handling) == [None]
    peer.send(POST_CHUNKED, b"3\r\nabc\r\n", b"nonsense\r\n")
    assert peer.head().status == 200
    assert peer.rest() == b"3\r\nabc\r\n"
    assert handling.last.failure


@pytest.mark.parametrize("garbage", [b"z\r\n", b"3\r\nabcde", b"-1\r\n", b"ffffffffffffffffff\r\n"])
def test_a_broken_chunk_is_a_400(house: House, garbage: bytes) -> None:
    handling = Handling(echo)
    peer = house.serve(handling).connect()
    peer.send(POST_CHUNKED, b"1\r\nx\r\n", garbage)
    answer = peer.answer()
    assert (answer.status, answer.fields[b"connection"]) == (400, b"close")
    peer.expect_close()
    assert len(ends(handling)) == 1


@pytest.mark.parametrize("head", [POST_5, POST_CHUNKED])
def test_a_body_that_ends_too_soon_is_a_400(house: House, head: bytes) -> None:
    handling = Handling(echo)
    peer = house.serve(handling).connect()
    peer.send(head)
    peer.shutdown()
    assert peer.answer().status == 400
    peer.expect_close()
    assert len(ends(handling)) == 1


def test_a_body_cut_by_a_reset_is_cut_for_its_consumer(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(post(10) + b"12345")
    exchange = handling.last
    assert isinstance(exchange.body, Source)
    assert exchange.body.pull(100) == b"12345"
    assert exchange.body.pull(100) is None
    peer.reset()
    house.until(lambda: handling.ended)
    with pytest.raises(BodyCutShort):
        exchange.body.pull(100)
    assert exchange.client_gone
    body = Script(house.reactor)
    exchange.respond(Head(200), body)  # too late: dropped
    assert body.closes == 1


def test_a_body_is_never_taken_for_whole_once_it_was_closed(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(POST_5 + b"1")
    exchange = handling.last
    assert isinstance(exchange.body, Source)
    exchange.respond(Head(200), b"enough")
    with pytest.raises(BodyCutShort):
        exchange.body.pull(100)
    house.turns()
    with pytest.raises(BodyCutShort):
        exchange.body.pull(100)
    assert peer.answer().body == b"enough"


# 100 (Continue).


def test_the_first_pull_asks_for_the_body(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(POST_EXPECTS)
    peer.expect_silence()
    collect(handling.last.body, lambda body: handling.last.respond(Head(200), body), handling.last)
    peer.expect(CONTINUE)
    peer.expect_silence()
    peer.send(b"he", b"llo" + GET)
    assert peer.answer().body == b"hello"
    house.turns()
    handling.last.respond(Head(200), b"next")
    assert peer.answer().body == b"next"


def test_100_is_said_once_even_if_the_handler_says_it_too(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(POST_EXPECTS)
    handling.last.inform(Head(100))
    handling.last.inform(Head(100))
    echo(handling.last)
    peer.expect(CONTINUE)
    peer.expect_silence()
    peer.send(b"hello")
    assert peer.answer().body == b"hello"


def test_100_is_not_said_to_whom_did_not_wait(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(POST_EXPECTS, b"he")
    echo(handling.last)
    peer.expect_silence()
    peer.send(b"llo")
    assert peer.answer().body == b"hello"
    peer.send(POST_EXPECTS + b"hello")
    assert handling.last.body == b"hello"
    handling.last.respond(Head(200), b"")
    assert peer.answer().status == 200


def test_100_is_never_said_after_the_answer(house: House) -> None:
    body = Script(house.reactor, b"x", None)
    handling = Handling(says(body))
    peer = house.serve(handling).connect()
    peer.send(POST_EXPECTS)
    handling.last.inform(Head(100))
    assert isinstance(handling.last.body, Source)
    assert handling.last.body.pull(10) is None
    assert peer.head().fields[b"connection"] == b"close"
    peer.expect(b"1\r\nx\r\n")
    peer.expect_silence()


@pytest.mark.parametrize("status", [200, 417, 401])
def test_an_answer_in_place_of_100_ends_the_connection(house: House, status: int) -> None:
    handling = Handling(says(b"no", status))
    peer = house.serve(handling).connect()
    peer.send(POST_EXPECTS)
    answer = peer.answer()
    assert (answer.status, answer.fields[b"connection"]) == (status, b"close")
    peer.expect_close()  # whether the five bytes that may still come are a body nobody can know
    assert ends(handling) == [None]


def test_an_unknown_expectation_is_refused(house: House) -> None:
    peer = house.serve(Handling()).connect()
    peer.send(POST_EXPECTS.replace(b"100-continue", b"miracles"))
    assert peer.answer().status == 417
    peer.expect_close()


def test_http_1_0_expects_nothing(house: House) -> None:
    handling = Handling(echo)
    peer = house.serve(handling).connect()
    peer.send(POST_EXPECTS.replace(b"HTTP/1.1", b"HTTP/1.0"))
    peer.expect_silence()
    peer.send(b"hello")
    assert peer.answer().body == b"hello"


def test_interim_answers_are_passed_on(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(GET)
    handling.last.inform(Head(103, [(b"Link", b"</style.css>")]))
    peer.expect(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
    handling.last.inform(Head(100))  # nobody waits for it
    handling.last.respond(Head(200), b"")
    handling.last.inform(Head(103))  # too late
    assert peer.answer().status == 200
    peer.expect_silence()
    peer.send(GET_OLD_KEPT)
    handling.last.inform(Head(103))  # RFC 9110 section 15.2: not to HTTP/1.0
    peer.expect_silence()
    handling.last.respond(Head(200), b"")
    assert peer.answer().status == 200


# Answers before the request's end.


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_early_answer_and_the_rest_of_the_body_drained(house: House, framing: str) -> None:
    handling = Handling(says(b"early"))
    peer = house.serve(handling).connect()
    peer.send(post(1000) if framing == "length" else POST_CHUNKED)
    assert peer.answer().body == b"early"
    assert ends(handling) == [None]
    if framing == "length":
        peer.send(b"x" * 500, b"x" * 500 + GET)
    else:
        peer.send(b"3\r\nabc\r\n", b"0\r\n\r\n" + GET)
    assert peer.answer().body == b"early"


@pytest.mark.parametrize("handler_waits", [False, True])
def test_an_early_answer_to_a_chunked_body_that_is_there_already(house: House, handler_waits: bool) -> None:
    """Nothing more comes from the network: the connection itself must read on."""
    handling = Handling(None if handler_waits else says(b"early"))
    peer = house.serve(handling).connect()
    peer.send(POST_CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + POST_CHUNKED + b"0\r\n\r\n" + GET)
    for _ in range(3):
        if handler_waits:
            handling.last.respond(Head(200), b"early")
        assert peer.answer().body == b"early"
        house.turns()
    assert ends(handling) == [None] * 3
    peer.expect_silence()


def test_draining_stops_at_a_number_of_bytes(house: House) -> None:
    handling = Handling(says(b"early"))
    served = house.serve(handling, replace(LIMITS, drain_bytes=100_000))
    peer = served.connect()
    peer.send(post(10_000_000) + b"x" * 90_000)
    assert peer.answer().body == b"early"
    peer.expect_silence()
    peer.send(b"x" * 20_000)
    peer.expect_close()


def test_draining_stops_after_some_seconds(house: House) -> None:
    served = house.serve(Handling(says(b"early")))
    peer = served.connect()
    peer.send(post(1000) + b"x")
    assert peer.answer().body == b"early"
    assert served.connection.state == "draining"
    house.pass_time(LIMITS.drain_seconds - 1)
    peer.send(b"x")
    peer.expect_silence()
    house.pass_time(1)
    peer.expect_close()


def test_draining_stops_at_the_end_of_input_and_at_garbage(house: House) -> None:
    served = house.serve(Handling(says(b"early")))
    peer = served.connect()
    peer.send(post(1000) + b"x")
    assert peer.answer().body == b"early"
    peer.shutdown()
    peer.expect_close()
    peer = served.connect()
    peer.send(POST_CHUNKED)
    assert peer.answer().body == b"early"
    peer.send(b"garbage\r\n")
    peer.expect_close()


def test_a_drained_connection_serves_on_after_hundreds_of_kilobytes(house: House) -> None:
    handling = Handling(says(b"early"))
    peer = house.serve(handling).connect()
    peer.send(post(900_000) + b"x" * 900_000 + GET)
    assert [peer.answer().body, peer.answer().body] == [b"early", b"early"]


def test_a_consumer_that_goes_on_pulling_after_its_answer_takes_nothing_from_the_next_request(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(POST_CHUNKED + b"3\r\nabc\r\n")
    exchange = handling.last
    assert isinstance(exchange.body, Source)
    exchange.respond(Head(200), b"early")
    with pytest.raises(BodyCutShort):
        exchange.body.pull(100)
    peer.send(b"0\r\n\r\n" + GET)
    assert peer.answer().body == b"early"
    assert handling.last is not exchange
    handling.last.respond(Head(200), b"next")
    assert peer.answer().body == b"next"


# Half-close and leaving.


def test_what_was_asked_before_the_end_of_input_is_answered(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(GET * 2)
    peer.shutdown()
    handling.last.respond(Head(200), b"one")
    assert peer.answer().body == b"one"
    house.turns()
    handling.last.respond(Head(200), Script(house.reactor, b"two"))
    assert peer.answer().body == b"two"
    peer.expect_close()
    assert ends(handling) == [None, None]


def test_many_were_asked_before_the_end_of_input(house: House) -> None:
    handling = Handling(says(b"x" * 20_000))
    peer = house.serve(handling).connect(small_buffers=True)
    peer.send(GET * 100)
    peer.shutdown()
    for _ in range(100):
        assert peer.answer().body == b"x" * 20_000
    peer.expect_close()
    assert ends(handling) == [None] * 100


def test_an_exchange_without_an_answer_is_dropped_some_seconds_after_the_end_of_input(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(GET)
    peer.shutdown()
    house.pass_time(LIMITS.half_closed - 1)
    assert ends(handling) == []
    house.pass_time(1)
    assert ends(handling) == ["the client left"]
    peer.expect_reset()


def test_each_exchange_after_the_end_of_input_has_those_seconds(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(GET * 2)
    peer.shutdown()
    house.pass_time(LIMITS.half_closed - 0.5)
    handling.last.respond(Head(200), b"one")
    assert peer.answer().body == b"one"
    house.pass_time(1)
    assert len(handling.ended) == 1, "the second was begun half a second ago"
    house.pass_time(LIMITS.half_closed)
    assert ends(handling) == [None, "the client left"]


def test_an_answer_begun_goes_on_after_the_end_of_input(house: House) -> None:
    body = Script(house.reactor, b"one", None)
    peer = house.serve(Handling(says(body))).connect()
    peer.send(GET)
    peer.shutdown()
    assert peer.head().status == 200
    house.pass_time(100 * LIMITS.half_closed)
    body.go(b"two")
    assert peer.rest() == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


def test_end_of_input_between_requests_closes(house: House) -> None:
    served = house.serve(Handling(says(b"x")))
    peer = served.connect()
    peer.shutdown()
    peer.expect_close()
    peer = served.connect()
    peer.send(GET)
    peer.answer()
    peer.shutdown()
    peer.expect_close()


def test_end_of_input_in_a_head_is_a_400(house: House) -> None:
    facts = Facts()
    peer = house.serve(Handling(), access_log=facts).connect()
    peer.send(GET[:10])
    peer.shutdown()
    assert peer.answer().status == 400
    peer.expect_close()
    assert [exchange.status for exchange in facts.recorded] == [400]


def leaves_in_head(peer: Peer) -> None:
    peer.send(GET[:9])


def leaves_in_body(peer: Peer) -> None:
    peer.send(POST_5 + b"12")


def leaves_while_waiting(peer: Peer) -> None:
    peer.send(GET)


def leaves_with_more_pipelined(peer: Peer) -> None:
    peer.send(GET * 5)


@pytest.mark.parametrize("phase", [leaves_in_head, leaves_in_body, leaves_while_waiting, leaves_with_more_pipelined])
def test_a_reset_is_noticed_at_once(house: House, phase: Callable[[Peer], None]) -> None:
    handling = Handling()
    served = house.serve(handling)
    peer = served.connect()
    phase(peer)
    peer.reset()
    house.turns()
    assert not served.server.connections
    assert len(ends(handling)) == len(handling.exchanges) <= 1
    if handling.exchanges:
        failure = handling.last.failure
        assert failure is not None and "reset" in failure.lower()
        assert handling.last.client_gone
        handling.last.respond(Head(200), b"nobody hears")


@pytest.mark.parametrize("kind", ["source", "file", "bytes"])
def test_a_reset_while_the_answer_goes_out(house: House, kind: str) -> None:
    size = 20_000_000
    body: Body = b"x" * size
    if kind == "file":
        body = FileSource(file_of(size)[0], 0, size)
    elif kind == "source":
        body = Script(house.reactor, *[b"x" * 100_000] * 200, length=size)
    handling = Handling(says(body))
    peer = house.serve(handling).connect(small_buffers=True)
    peer.send(GET)
    peer.head()
    assert ends(handling) == []
    peer.reset()
    house.until(lambda: handling.ended)
    assert len(ends(handling)) == 1 and handling.last.failure


def test_only_what_was_taken_counts_as_whole_when_the_client_leaves(house: House) -> None:
    handling = Handling(says(b"x" * 60_000))
    peer = house.serve(handling).connect(small_buffers=True)
    peer.send(GET * 100)
    peer.answer()
    peer.reset()
    house.until(lambda: len(handling.ended) == len(handling.exchanges))
    whole = [failure is None for failure in ends(handling)]
    assert whole[0] and not whole[-1]
    assert whole == sorted(whole, reverse=True)


# What is refused.


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", 501),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400),
    ],
)
def test_a_head_that_is_none_is_refused_and_logged(house: House, sent: bytes, status: int) -> None:
    handling, facts = Handling(says(b"x")), Facts()
    peer = house.serve(handling, access_log=facts).connect()
    peer.send(GET + sent)
    assert peer.answer().status == 200
    answer = peer.answer()
    assert (answer.status, answer.fields[b"connection"]) == (status, b"close")
    assert answer.body.startswith(b"%d " % status)
    peer.expect_close()
    (refused,) = facts.recorded
    assert (refused.request, refused.status, refused.bytes_out, refused.failure) == (None, status, len(answer.body), None)
    assert len(handling.exchanges) == 1


def test_nothing_after_a_refused_head_is_read(house: House) -> None:
    handling = Handling(says(b"x"))
    peer = house.serve(handling).connect()
    peer.send(b"nonsense\r\n\r\n" + GET)
    assert peer.answer().status == 400
    peer.send(GET)
    peer.expect_close()
    assert handling.exchanges == []


def test_a_refusal_reaches_a_client_that_is_still_sending(house: House) -> None:
    """Closing with unread input would reset the connection before the client has read why."""
    peer = house.serve(Handling()).connect()
    peer.send(b"nonsense\r\n\r\n" + b"x" * 200_000)
    assert peer.answer().status == 400
    peer.expect_close()


def test_a_few_empty_lines_before_a_request_are_ignored(house: House) -> None:
    peer = house.serve(Handling(says(b"x"))).connect()
    peer.send(b"\r\n\r\n" + GET + b"\r\n")
    assert peer.answer().body == b"x"
    peer.shutdown()
    peer.expect_close()


def test_an_empty_line_in_two_pieces_begins_no_head(house: House) -> None:
    peer = house.serve(Handling(says(b"x"))).connect()
    peer.send(b"\r", b"\n")
    house.pass_time(LIMITS.head)
    peer.send(GET)
    assert peer.answer().body == b"x"
    peer.expect_silence()


# Handlers that fail.


def test_a_handler_that_raises_answers_500_and_closes(house: House, caplog: pytest.LogCaptureFixture) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.request.path == b"/bad":
            raise KeyError("a bug")
        exchange.respond(Head(200), b"good")

    handling = Handling(answer)
    served = house.serve(handling)
    peer = served.connect()
    peer.send(GET + GET.replace(b"/ ", b"/bad ") + GET)
    assert peer.answer().body == b"good"
    answered = peer.answer()
    assert (answered.status, answered.fields[b"connection"]) == (500, b"close")
    peer.expect_close()
    assert "KeyError: 'a bug'" in caplog.text
    assert [exchange.status for exchange in handling.ended] == [200, 500]
    peer = served.connect()
    peer.send(GET)
    assert peer.answer().body == b"good"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("body", ["text", bytearray(b"octets"), None])
def test_a_body_that_is_none_is_told_as_such(house: House, method: str, body: Any, caplog: pytest.LogCaptureFixture) -> None:
    peer = house.serve(Handling(lambda exchange: exchange.respond(Head(200), body))).connect()
    peer.send(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert peer.rest().startswith(b"HTTP/1.1 500 ")
    assert f"TypeError: a body is bytes or a Source, not {type(body).__name__}" in caplog.text


def test_a_handler_that_raises_after_its_answer_does_not_undo_it(house: House) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.respond(Head(200), b"good")
        raise KeyError("a bug")

    handling = Handling(answer)
    peer = house.serve(handling).connect()
    peer.send(GET + GET)
    assert peer.answer().body == b"good"
    peer.expect_close()
    assert ends(handling) == [None]


def test_a_handler_that_raises_while_its_body_goes_out_cuts_it(house: House) -> None:
    body = Script(house.reactor, b"one", None)

    def answer(exchange: Exchange) -> None:
        exchange.respond(Head(200), body)
        raise KeyError("a bug")

    handling = Handling(answer)
    peer = house.serve(handling).connect()
    peer.send(GET)
    assert peer.head().status == 200
    assert peer.rest() == b"3\r\none\r\n"
    assert ends(handling) == ["the server failed"]
    assert body.closes == 1


@pytest.mark.parametrize("head", [Head(99), Head(1000), Head(200, reason=b"a\r\nb")])
def test_a_head_that_cannot_be_written_is_a_500(house: House, head: Head) -> None:
    body = Script(house.reactor, b"x")
    handling = Handling(lambda exchange: exchange.respond(head, body))
    peer = house.serve(handling).connect()
    peer.send(GET)
    assert peer.answer().status == 500
    peer.expect_close()
    assert body.closes == 1
    assert [exchange.status for exchange in handling.ended] == [500]


def test_a_callback_of_the_exchange_that_raises_later_answers_500(house: House) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.map_head(lambda exchange, head: NOTHING["a bug"])
        house.reactor.call_later(1, exchange.respond, Head(200), b"")

    handling = Handling(answer)
    peer = house.serve(handling).connect()
    peer.send(GET)
    house.pass_time(1)
    assert peer.answer().status == 500
    assert ends(handling) == [None]


@pytest.mark.parametrize("owned", [False, True])
def test_a_consumer_of_the_body_that_raises_answers_500(house: House, owned: bool) -> None:
    """`on_ready` may be any function; where it belongs to somebody who can fail, he is told."""

    class Consumer:
        def __init__(self, exchange: Exchange) -> None:
            self.exchange = exchange
            self.errors: list[Exception] = []

        def ready(self) -> None:
            raise KeyError("a bug")

        def failed(self, error: Exception) -> None:
            self.errors.append(error)
            self.exchange.respond(Head(502), b"")

    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(POST_5)
    body = handling.last.body
    assert isinstance(body, Source)
    consumer = Consumer(handling.last)
    body.on_ready = consumer.ready if owned else lambda: consumer.ready()
    assert body.pull(10) is None
    peer.send(b"hello")
    assert peer.answer().status == (502 if owned else 500)
    assert len(consumer.errors) == owned
    assert len(ends(handling)) == 1


def test_an_end_that_raises_is_logged_and_harms_nobody(house: House, caplog: pytest.LogCaptureFixture) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.on_end(lambda _: NOTHING["a bug"])
        exchange.respond(Head(200), b"good")

    peer = house.serve(Handling(answer)).connect()
    peer.send(GET * 3)
    assert [peer.answer().body for _ in range(3)] == [b"good"] * 3
    assert caplog.text.count("KeyError: 'a bug'") == 3


def test_an_aborted_exchange_resets_the_connection(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(GET + GET)
    handling.last.abort("no")
    assert ends(handling) == []
    peer.expect_reset()
    house.turns()
    assert ends(handling) == ["no"]
    assert len(handling.exchanges) == 1
    handling.last.abort("again")


def test_an_abort_from_within_the_handler(house: House) -> None:
    handling = Handling(lambda exchange: exchange.abort("no"))
    peer = house.serve(handling).connect()
    peer.send(GET + GET)
    peer.expect_reset()
    house.turns()
    assert ends(handling) == ["no"]


def test_an_abort_of_an_answer_begun(house: House) -> None:
    body = Script(house.reactor, b"one", None)
    handling = Handling(says(body))
    peer = house.serve(handling).connect()
    peer.send(GET)
    peer.head()
    handling.last.abort("no")
    house.turns()
    assert ends(handling) == ["no"]
    assert body.closes == 1
    body.go(b"two")
    peer.expect_reset()


def test_answers_that_were_not_taken_before_an_abort_count_as_cut(house: House) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.request.path == b"/":
            exchange.respond(Head(200), b"x" * 100_000)

    handling = Handling(answer)
    peer = house.serve(handling).connect(small_buffers=True)
    peer.send(GET * 60)
    house.turns()
    assert len(handling.ended) < len(handling.exchanges)
    (server,) = {served.server for served in house.served}
    server.abort()
    house.turns()
    whole = [failure is None for failure in ends(handling)]
    assert len(whole) == len(handling.exchanges)
    assert whole == sorted(whole, reverse=True) and not whole[-1]


def test_the_answers_of_one_turn_leave_together(house: House) -> None:
    """Sends are at the turn's end, so that no client is woken, and its kernel's work done, between two requests."""
    seen: list[bool] = []

    def answer(exchange: Exchange) -> None:
        seen.append(any(peer.read() for peer in peers))
        exchange.respond(Head(200), b"ok")

    served = house.serve(Handling(answer))
    peers = [served.connect() for _ in range(3)]
    house.turns()
    for peer in peers:
        peer.sock.sendall(GET)
    house.reactor.turn(1.0)
    assert seen == [False, False, False]
    assert [peer.answer().body for peer in peers] == [b"ok", b"ok", b"ok"]


@pytest.mark.parametrize("what", ["abort", "reset", "raise", "shutdown"])
def test_what_happens_between_an_answer_and_the_turns_end(house: House, what: str) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.respond(Head(200), b"ok")
        if what == "abort":
            exchange.abort("changed its mind")
        elif what == "reset":
            exchange.connection.stream.abort()
        elif what == "shutdown":
            served.server.shutdown(lambda: None)
        else:
            raise RuntimeError("after the answer")

    handling = Handling(answer)
    served = house.serve(handling)
    peer = served.connect()
    peer.send(GET)
    house.turns()
    assert len(handling.ended) == 1
    if what in ("abort", "reset"):
        peer.expect_reset()
        assert handling.last.failure is not None
    else:
        assert peer.answer().body == b"ok"
        peer.expect_close()
        assert handling.last.failure is None


def test_an_end_is_never_told_from_within_respond(house: House) -> None:
    handling = Handling()

    def answer(exchange: Exchange) -> None:
        exchange.respond(Head(200), b"x")
        assert not exchange.ended and not exchange.connection._advancing is False  # type: ignore[attr-defined]
        assert exchange not in handling.ended

    handling.answer = answer
    peer = house.serve(handling).connect()
    peer.send(GET * 2)
    assert ends(handling) == [None, None]
    assert peer.answer().body == b"x"
    late: list[Exchange] = []
    handling.last.on_end(late.append)
    assert late == [], "not from within on_end either"
    house.turns(1)
    assert late == [handling.last]


# Deadlines.


def test_an_idle_connection_is_closed(house: House) -> None:
    served = house.serve(Handling(says(b"x")))
    peer = served.connect()
    house.pass_time(LIMITS.idle - 1)
    peer.send(GET)
    peer.answer()
    house.pass_time(LIMITS.idle - 1)
    peer.expect_silence()
    house.pass_time(1)
    peer.expect_close()


def test_a_head_must_be_whole_in_time_however_often_a_byte_comes(house: House) -> None:
    facts = Facts()
    peer = house.serve(Handling(says(b"x")), access_log=facts).connect()
    peer.send(GET)
    peer.answer()
    house.pass_time(LIMITS.idle - 1)
    peer.send(GET[:1])
    for byte in GET[1:6]:
        house.pass_time(LIMITS.head / 6)
        peer.send(bytes([byte]))
    peer.expect_silence()
    house.pass_time(LIMITS.head / 6)
    answer = peer.answer()
    assert (answer.status, answer.fields[b"connection"]) == (408, b"close")
    peer.expect_close()
    assert [exchange.status for exchange in facts.recorded] == [408]


def test_a_head_in_time_is_answered(house: House) -> None:
    peer = house.serve(Handling(says(b"x"))).connect()
    peer.send(GET[:5])
    house.pass_time(LIMITS.head - 1)
    peer.send(GET[5:])
    assert peer.answer().status == 200


def test_a_body_that_is_waited_for_must_come_in_time(house: House) -> None:
    handling = Handling(echo)
    peer = house.serve(handling).connect()
    peer.send(post(10))
    house.pass_time(LIMITS.body - 1)
    peer.send(b"x")
    peer.expect_silence()
    house.pass_time(1.1)
    answer = peer.answer()
    assert (answer.status, answer.fields[b"connection"]) == (408, b"close")
    peer.expect_close()
    assert len(ends(handling)) == 1


def test_a_body_that_nobody_waits_for_has_no_deadline(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(POST_5)
    house.pass_time(10 * LIMITS.body)
    peer.expect_silence()
    handling.last.respond(Head(200), b"late")
    assert peer.answer().body == b"late"


def test_a_handler_may_take_its_time(house: House) -> None:
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(GET)
    for _ in range(20):
        house.pass_time(LIMITS.idle)
    peer.expect_silence()
    handling.last.respond(Head(200), b"late")
    assert peer.answer().body == b"late"
    house.pass_time(LIMITS.idle - 1)
    peer.expect_silence()


def stalled_body(house: House, kind: str) -> Body:
    if kind == "bytes":
        return b"x" * 20_000_000
    if kind == "file":
        return FileSource(file_of(20_000_000)[0], 0, 20_000_000)
    return Script(house.reactor, *[b"x" * 100_000] * 200)


@pytest.mark.parametrize("kind", ["bytes", "file", "source"])
@pytest.mark.parametrize("request_head", [GET, LAST_GET], ids=["kept", "closing"])
def test_a_client_that_stops_reading_is_reset(house: House, kind: str, request_head: bytes) -> None:
    handling = Handling(says(stalled_body(house, kind)))
    served = house.serve(handling)
    peer = served.connect(small_buffers=True)
    peer.send(request_head)
    peer.head()
    for _ in range(3):
        house.pass_time(LIMITS.stalled * 0.9)
        peer.take(100_000)  # it reads now and then
        house.turns()
        peer.take(100_000)
    assert served.server.connections
    house.pass_time(LIMITS.stalled)
    house.pass_time(LIMITS.stalled)
    assert not served.server.connections
    assert len(ends(handling)) == 1 and handling.last.failure
    peer.until(lambda: peer.over, "the reset")
    assert peer.end == "reset"


def test_a_client_that_pipelines_and_never_reads_is_reset_however_often_it_sends(house: House) -> None:
    handling = Handling(says(b"x" * 100_000))
    served = house.serve(handling)
    peer = served.connect(small_buffers=True)
    peer.send(GET * 100)
    for _ in range(8):
        house.pass_time(LIMITS.stalled / 3)
        if not served.server.connections:
            break
        peer.offer(GET)
    assert not served.server.connections
    assert len(ends(handling)) == len(handling.exchanges) < 100


def test_a_body_that_drips_does_not_keep_a_client_that_never_reads(house: House) -> None:
    body = Script(house.reactor, b"x" * 6_000_000, None)
    served = house.serve(Handling(says(body)))
    peer = served.connect(small_buffers=True)
    peer.send(GET)
    house.turns()
    while served.connection.stream.backlog >= HIGH_WATER:
        peer.take(100_000)
        house.turns(3)
    assert served.connection.stream.backlog, "all is pulled, and the client's kernel is full"
    for _ in range(12):
        house.pass_time(LIMITS.stalled / 4)
        body.go(b"drip", None)
        house.turns(3)
    assert not served.server.connections


def test_a_source_that_is_silent_for_long_does_not_cost_the_client_its_time(house: House) -> None:
    body = Script(house.reactor, b"one", None)
    peer = house.serve(Handling(says(body))).connect()
    peer.send(GET)
    peer.head()
    for _ in range(5):
        house.pass_time(LIMITS.stalled * 2)
    body.go(b"two")
    peer.expect(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    peer.expect_silence()


def test_an_answer_cut_by_the_bodys_deadline(house: House) -> None:
    """The request's body feeds the response: once the head is out, its deadline can only cut."""

    def answer(exchange: Exchange) -> None:
        assert isinstance(exchange.body, Source)
        exchange.respond(Head(200), exchange.body)

    handling = Handling(answer)
    peer = house.serve(handling).connect()
    peer.send(POST_CHUNKED + b"3\r\nabc\r\n")
    assert peer.head().status == 200
    peer.expect(b"3\r\nabc\r\n")
    house.pass_time(LIMITS.body)
    peer.expect_close()
    assert len(ends(handling)) == 1 and handling.last.failure


def test_a_closed_connection_does_not_wait_for_the_client_for_ever(house: House) -> None:
    served = house.serve(Handling(says(b"x")))
    peer = served.connect()
    peer.send(LAST_GET)
    peer.answer()
    peer.expect_close()
    assert served.server.connections, "the client has not closed its side yet"
    house.pass_time(LINGER_SECONDS)
    assert not served.server.connections


def test_one_timer_for_each_connection(house: House) -> None:
    served = house.serve(Handling(says(b"x")))
    peer = served.connect()
    for _ in range(10):
        house.pass_time(1)
        peer.send(GET * 3)
        for _ in range(3):
            peer.answer()
        assert house.reactor.pending_timers == 1
        peer.send(POST_5)
        peer.send(b"12345")
        peer.answer()
        assert house.reactor.pending_timers == 1


# Upgrades.


def test_an_upgrade_hands_over_the_stream_and_what_came_behind(house: House) -> None:
    handling = Handling()
    served = house.serve(handling)
    peer = served.connect()
    peer.send(UPGRADE + b"left over")
    exchange = handling.last
    stream, rest = exchange.upgrade(Head(101, [(b"Upgrade", b"echo")]))
    assert rest == b"left over"
    heard = Owner()
    stream.owner = heard
    peer.expect(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n")
    peer.send(b"more")
    assert heard.data == b"more"
    stream.write(b"answer")
    peer.expect(b"answer")
    house.pass_time(10 * LIMITS.idle)
    assert ends(handling) == []
    assert served.server.connections, "it counts until its end"
    stream.close()
    peer.close()
    house.until(lambda: heard.lost)
    exchange.finish()
    assert ends(handling) == [None]
    assert not served.server.connections


class Owner:
    """Whoever takes over a stream."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    def drained(self) -> None:
        pass

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    def failed(self, error: Exception) -> None:
        raise AssertionError(error)


def test_an_upgrade_refused_goes_on(house: House) -> None:
    peer = house.serve(Handling(numbered())).connect()
    peer.send(UPGRADE * 2 + GET)
    assert [peer.answer().body for _ in range(3)] == [b"1", b"2", b"3"]


def test_an_upgrade_refused_with_a_body_goes_on(house: House) -> None:
    handling = Handling(says(b"no"))
    peer = house.serve(handling).connect()
    peer.send(UPGRADE.replace(b"Host", b"Content-Length: 3\r\nHost"), b"abc" + GET)
    assert [peer.answer().body, peer.answer().body] == [b"no", b"no"]


def test_a_connect_refused_closes(house: House) -> None:
    peer = house.serve(Handling(says(b"no", 405))).connect()
    peer.send(b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + GET)
    assert peer.answer().fields[b"connection"] == b"close"
    peer.expect_close()


def test_an_upgrade_before_the_request_is_whole_is_a_500(house: House) -> None:
    handling = Handling(lambda exchange: exchange.upgrade(Head(101)))
    peer = house.serve(handling).connect()
    peer.send(UPGRADE.replace(b"Host", b"Content-Length: 5\r\nHost") + b"ab")
    assert peer.answer().status == 500
    peer.expect_close()


def test_a_handler_that_raises_after_an_upgrade_resets(house: House) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.upgrade(Head(101))
        raise KeyError("a bug")

    handling = Handling(answer)
    served = house.serve(handling)
    peer = served.connect()
    peer.send(UPGRADE)
    peer.until(lambda: peer.over, "the reset")
    house.turns()
    assert ends(handling) == ["the server failed"]
    assert not served.server.connections


def test_answers_before_an_upgrade_end_too(house: House) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.request.upgrade is None:
            exchange.respond(Head(200), b"x" * 100)

    handling = Handling(answer)
    served = house.serve(handling)
    peer = served.connect()
    peer.send(GET * 2 + UPGRADE)
    owner = Owner()
    exchange = handling.last
    stream, _ = exchange.upgrade(Head(101))
    stream.owner = owner
    assert [peer.answer().status for _ in range(3)] == [200, 200, 101]
    exchange.abort("enough")
    house.turns()
    assert ends(handling) == [None, None, "enough"]
    assert owner.lost and not served.server.connections


def test_the_servers_end_ends_what_was_upgraded(house: House) -> None:
    handling = Handling()
    served = house.serve(handling)
    peer = served.connect()
    peer.send(UPGRADE)
    stream, _ = handling.last.upgrade(Head(101))
    sock = stream.release()  # as a relay does that splices
    handling.last.on_end(lambda _: sock.close())
    served.server.abort()
    house.turns()
    assert ends(handling) == ["shut down"]
    assert not served.server.connections
    peer.head()
    peer.until(lambda: peer.over, "the end")


# Shutting down.


def test_shutdown_closes_what_is_idle_and_lets_the_rest_end(house: House) -> None:
    empty: list[int] = []
    handling = Handling()
    served = house.serve(handling)
    idle, begun, running, uploading = (served.connect() for _ in range(4))
    begun.send(GET[:5])
    running.send(GET + GET)
    uploading.send(POST_5)
    first, second = handling.exchanges
    collect(second.body, lambda body: second.respond(Head(200), body), second)
    served.server.shutdown(lambda: empty.append(1))
    idle.expect_close()
    begun.send(GET[5:])
    handling.last.respond(Head(200), b"begun")
    first.respond(Head(200), b"running")
    uploading.send(b"hello")
    for peer, body in ((begun, b"begun"), (running, b"running"), (uploading, b"hello")):
        answer = peer.answer()
        assert (answer.body, answer.fields[b"connection"]) == (body, b"close")
        peer.expect_close()
        assert empty == []
    for peer in (idle, begun, running, uploading):
        peer.close()
    house.until(lambda: empty)
    house.turns()
    assert empty == [1]
    assert ends(handling) == [None] * 3


def test_shutdown_of_an_empty_server_is_told_once(house: House) -> None:
    empty: list[int] = []
    served = house.serve(Handling())
    served.server.shutdown(lambda: empty.append(1))
    assert empty == [], "from the loop"
    house.turns()
    peer = house.connect(served.port)
    house.until(lambda: served.server.connections)
    peer.close()
    house.until(lambda: not served.server.connections)
    house.turns()
    assert empty == [1]


def test_shutdown_while_an_answer_is_being_taken(house: House) -> None:
    empty: list[int] = []
    body = b"x" * 20_000_000
    served = house.serve(Handling(says(body)))
    peer = served.connect(small_buffers=True)
    peer.send(GET)
    served.server.shutdown(lambda: empty.append(1))
    assert peer.answer().body == body
    peer.expect_close()
    peer.close()
    house.until(lambda: empty)


def test_shutdown_while_a_body_is_drained(house: House) -> None:
    served = house.serve(Handling(says(b"early")))
    peer = served.connect()
    peer.send(POST_5)
    assert peer.answer().body == b"early"
    served.server.shutdown(lambda: None)
    peer.expect_silence()
    peer.send(b"12345")
    peer.expect_close()


def test_abort_resets_everybody(house: House) -> None:
    handling = Handling()
    served = house.serve(handling)
    idle, running = served.connect(), served.connect()
    running.send(GET)
    served.server.abort()
    idle.expect_reset()
    running.expect_reset()
    house.turns()
    assert ends(handling) == ["shut down"]
    assert not served.server.connections


# Nothing stays behind.


def visit(served: Served, peer: Peer, how: str) -> None:
    if how == "upload":
        peer.send(POST_CHUNKED, b"3\r\nabc\r\n", b"0\r\n\r\n")
    elif how == "cut":
        peer.send(POST_5, b"1")
        peer.shutdown()
    elif how == "broken chunk":
        peer.send(POST_CHUNKED, b"z\r\n")
    elif how == "early":
        peer.send(POST_EXPECTS.replace(b"POST", b"PUT"))
    elif how == "refused":
        peer.send(GET + b"nonsense\r\n\r\n")
    elif how == "reset":
        peer.send(POST_5)
        peer.reset()
    elif how == "aborted":
        peer.send(POST_5)
        served.server.abort()
    else:
        peer.send(GET * 3)


@pytest.mark.parametrize("how", ["plain", "upload", "cut", "broken chunk", "early", "refused", "reset", "aborted"])
def test_a_connection_leaves_no_cycle(house: House, how: str) -> None:
    class Forgetful:
        """Keeps nothing alive."""

        def handle(self, exchange: Exchange) -> None:
            if exchange.request.method == b"PUT":
                exchange.respond(Head(200), b"early")
            else:
                echo(exchange)

    served = house.serve(Forgetful())
    gc.collect()
    gc.disable()
    try:
        visit(served, served.connect(), how)
        for peer in house.peers:
            peer.close()
        house.pass_time(LIMITS.idle)
        assert not served.server.connections
        house.turns()
        assert gc.collect() == 0
    finally:
        gc.enable()


# The state table, row by row.


def state_of(served: Served) -> str:
    return served.connection.state if served.server.connections else "closed"


def at_idle(house: House, served: Served, handling: Handling) -> Peer:
    return served.connect()


def at_head(house: House, served: Served, handling: Handling) -> Peer:
    peer = served.connect()
    peer.send(GET[:7])
    return peer


def at_handling(house: House, served: Served, handling: Handling) -> Peer:
    peer = served.connect()
    peer.send(GET)
    return peer


def at_sending(house: House, served: Served, handling: Handling) -> Peer:
    peer = at_handling(house, served, handling)
    handling.last.respond(Head(200), Script(house.reactor, b"x", None))
    peer.head()
    peer.expect(b"1\r\nx\r\n")
    return peer


def at_draining(house: House, served: Served, handling: Handling) -> Peer:
    peer = served.connect()
    peer.send(POST_5)
    handling.last.respond(Head(200), b"")
    peer.answer()
    return peer


def at_upgraded(house: House, served: Served, handling: Handling) -> Peer:
    peer = served.connect()
    peer.send(UPGRADE)
    stream, _ = handling.last.upgrade(Head(101))
    stream.owner = Owner()
    peer.head()
    return peer


def at_closing(house: House, served: Served, handling: Handling) -> Peer:
    peer = served.connect()
    peer.send(LAST_GET)
    handling.last.respond(Head(200), b"")
    peer.answer()
    return peer


STATES = {
    "idle": at_idle, "head": at_head, "handling": at_handling, "sending": at_sending, "draining": at_draining,
    "upgraded": at_upgraded, "closing": at_closing,
}  # fmt: skip

# What the client, the clock or the server does → the state that follows, for those states where it is another.
NEXT: dict[str, dict[str, str]] = {
    "a part of a head": {"idle": "head"},
    "the rest of a head": {"idle": "closing", "head": "handling", "draining": "closing"},  # nonsense where none was begun
    "nonsense": {"idle": "closing", "head": "closing", "draining": "closing"},
    "the rest of a body": {"idle": "head", "draining": "idle"},  # where none is awaited, five bytes begin a head
    "end of input": {"idle": "closed", "head": "closed", "draining": "closed", "closing": "closed"},
    "reset": {state: "closed" for state in STATES if state != "upgraded"},
    "half a minute": {"head": "closing", "draining": "closing", "closing": "closed"},
    "the idle time": {"idle": "closing", "head": "closing", "draining": "closing", "closing": "closed"},
    "shutdown": {"idle": "closing"},
    "abort": {state: "closed" for state in STATES},
}


@pytest.mark.parametrize("event", NEXT)
@pytest.mark.parametrize("state", STATES)
def test_every_event_in_every_state(house: House, state: str, event: str) -> None:
    handling = Handling()
    served = house.serve(handling)
    peer = STATES[state](house, served, handling)
    assert state_of(served) == state
    if event == "a part of a head":
        peer.send(b"GE")
    elif event == "the rest of a head":
        peer.send(GET[7:])
    elif event == "nonsense":
        peer.send(b"\0\0\0\0\0\0\r\n\r\n")
    elif event == "the rest of a body":
        peer.send(b"12345")
    elif event == "end of input":
        peer.shutdown()
    elif event == "reset":
        peer.reset()
    elif event == "half a minute":
        house.pass_time(LIMITS.head)
    elif event == "the idle time":
        house.pass_time(LIMITS.idle)
    elif event == "shutdown":
        served.server.shutdown(lambda: None)
    else:
        served.server.abort()
    house.turns()
    assert state_of(served) == NEXT[event].get(state, state)
    if served.server.connections:
        assert f"<ServerConnection {served.connection.state} from 127.0.0.1" in repr(served.connection)
    for exchange in handling.exchanges:
        if exchange.connection is not None and state_of(served) == "upgraded":  # type: ignore[attr-defined]
            exchange.finish()  # its owner's to say
