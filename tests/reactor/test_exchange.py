"""The vocabulary: an exchange ends once and says so once, wrappers see heads in order, bodies are pulled to their end."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.errors import BodyCutShort
from reactor.exchange import (
    Body,
    BytesSource,
    DerivedExchange,
    Exchange,
    FileSource,
    Head,
    Source,
    as_source,
    error_page,
)
from reactor.http.fields import Fields
from reactor.http.parser import Request
from reactor.loop import Reactor
from reactor.stream import Stream
from tests.loopback import House, housed


class Recorded(Exchange):
    """An exchange whose connection only writes down what it is asked for."""

    __slots__ = ("asked",)

    def __init__(self, reactor: Reactor, body: Body = b"", peer: str = "192.0.2.7") -> None:
        super().__init__(reactor, a_request(), body, peer, b"http")
        self.asked: list[Any] = []

    def _respond(self, head: Head, body: Body) -> None:
        self.asked.append((head.status, body))

    def _inform(self, head: Head) -> None:
        self.asked.append(("inform", head.status))

    def _upgrade(self, head: Head) -> tuple[Stream, bytes]:
        self.asked.append(("upgrade", head.status))
        return Stream(self.reactor, None), b"left over"

    def _abort(self, reason: str) -> None:
        self.asked.append(("abort", reason))
        self.reactor.call_soon(self.finish, reason)


class Body_(Source):
    """A body that gives what it was filled with, then says "later", until it is ended or cut."""

    def __init__(self, reactor: Reactor, *pieces: bytes, cut: str | None = None, length: int | None = None) -> None:
        super().__init__(length)
        self.reactor = reactor
        self.pieces = list(pieces)
        self.cut = cut  # where it breaks off after its pieces: why
        self.closed = 0

    def fill(self, *pieces: bytes) -> None:
        self.pieces += pieces
        if self.on_ready is not None:
            self.reactor.call_soon(self.on_ready)

    def pull(self, limit: int) -> bytes | None:
        if not self.pieces:
            if self.cut is not None:
                raise BodyCutShort(self.cut)
            return None
        return self.pieces.pop(0) if self.pieces[0] else b""

    def close(self) -> None:
        self.closed += 1


class Reader:
    """Pulls a body as a connection does."""

    def __init__(self, body: Source) -> None:
        self.body = body
        self.heard = b""
        self.end: str | None = None
        self.failures: list[str] = []
        body.on_ready = self.pull

    def pull(self) -> None:
        try:
            while (data := self.body.pull(4)) is not None:
                if not len(data):
                    self.end = "whole"
                    return
                self.heard += data
        except BodyCutShort as error:
            self.end = f"cut: {error}"

    def failed(self, error: Exception) -> None:
        self.failures.append(str(error))


class Taker:
    """The wrapper's side of a derived exchange."""

    def __init__(self) -> None:
        self.taken: list[tuple[Exchange, int, Body]] = []
        self.ends: list[str | None] = []

    def response(self, inner: Exchange, head: Head, body: Body) -> None:
        self.taken.append((inner, head.status, body))

    def end(self, inner: Exchange) -> None:
        self.ends.append(inner.failure)


def a_request(method: bytes = b"GET") -> Request:
    return Request(method, b"/", 11, Fields(), None, b"example.com", b"/")


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture
def reactor(house: House) -> Reactor:
    return house.reactor


# An exchange ends once.


def test_the_end_is_told_once_to_everybody_in_order(reactor: Reactor) -> None:
    exchange = Recorded(reactor)
    told: list[tuple[str, str | None]] = []
    for name in "abc":
        exchange.on_end(lambda ended, name=name: told.append((name, ended.failure)))  # type: ignore[misc]
    exchange.respond(Head(200))
    assert not exchange.ended and told == []
    exchange.finish()
    exchange.finish("again")
    assert told == [("a", None), ("b", None), ("c", None)]
    assert exchange.ended and exchange.failure is None and not exchange.client_gone


def test_an_exception_at_the_end_keeps_nobody_from_being_told(reactor: Reactor, caplog: pytest.LogCaptureFixture) -> None:
    exchange = Recorded(reactor)
    told: list[Exchange] = []

    def fail(ended: Exchange) -> None:
        raise ValueError("no")

    exchange.on_end(fail)
    exchange.on_end(told.append)
    exchange.finish("the client left")
    assert told == [exchange]
    assert "ValueError: no" in caplog.text
    assert exchange.client_gone


def test_who_asks_after_the_end_is_told_from_the_loop(house: House, reactor: Reactor) -> None:
    exchange = Recorded(reactor)
    told: list[Exchange] = []
    exchange.finish()
    exchange.on_end(told.append)
    assert told == []
    house.turns(1)
    assert told == [exchange]


def test_an_answered_exchange_is_not_answered_again(reactor: Reactor) -> None:
    exchange = Recorded(reactor)
    exchange.respond(Head(200), b"one")
    with pytest.raises(RuntimeError):
        exchange.respond(Head(200), b"two")
    with pytest.raises(RuntimeError):
        exchange.upgrade(Head(101))
    assert exchange.asked == [(200, b"one")]


def test_an_answer_after_the_end_is_dropped_and_closed(reactor: Reactor) -> None:
    exchange, body = Recorded(reactor), Body_(reactor)
    exchange.finish("the client left")
    exchange.respond(Head(200), body)
    exchange.respond(Head(200), b"bytes")
    exchange.inform(Head(103))
    exchange.abort("no use")
    assert (exchange.asked, body.closed, exchange.status) == ([], 1, 0)
    with pytest.raises(RuntimeError):
        exchange.upgrade(Head(101))


def test_interim_answers_come_before_the_final_one_alone(reactor: Reactor) -> None:
    exchange = Recorded(reactor)
    exchange.inform(Head(102))
    exchange.inform(Head(103))
    exchange.respond(Head(200))
    exchange.inform(Head(103))
    assert exchange.asked == [("inform", 102), ("inform", 103), (200, b"")]


def test_an_upgrade_hands_over_the_connection(reactor: Reactor) -> None:
    exchange = Recorded(reactor)
    stream, rest = exchange.upgrade(Head(101))
    assert (stream.state, rest, exchange.status, exchange.ended) == ("connecting", b"left over", 101, False)


def test_the_end_closes_the_requests_body(reactor: Reactor) -> None:
    body = Body_(reactor)
    Recorded(reactor, body).finish()
    assert body.closed == 1


def test_the_facts_of_time(house: House, reactor: Reactor) -> None:
    exchange = Recorded(reactor)
    house.pass_time(1.0)
    exchange.respond(Head(200))
    house.pass_time(2.0)
    exchange.finish()
    assert (exchange.head_sent - exchange.started, exchange.finished - exchange.started) == (1.0, 3.0)


# What a wrapper does to a head.


class Marks:
    """A map that leaves its name in the head."""

    def __init__(self, name: bytes) -> None:
        self.name = name

    def __call__(self, exchange: Exchange, head: Head) -> Head:
        head = head.edited()
        head.fields.add(b"X-Seen", self.name)
        return head


def test_the_map_asked_last_is_called_first(reactor: Reactor) -> None:
    heads = []

    class Kept(Recorded):
        def _respond(self, head: Head, body: Body) -> None:
            heads.append(head)

    exchange, stored = Kept(reactor), Head(200)
    exchange.map_head(Marks(b"outermost"))
    exchange.map_head(Marks(b"innermost"))
    exchange.respond(stored)
    assert heads[0].fields.get_all(b"x-seen") == [b"innermost", b"outermost"]
    assert b"x-seen" not in stored.fields  # others may be answered with the same head


def test_a_map_may_change_the_status(reactor: Reactor) -> None:
    exchange = Recorded(reactor)
    exchange.map_head(lambda exchange, head: Head(503))
    exchange.respond(Head(200), b"x")
    assert (exchange.asked, exchange.status) == ([(503, b"x")], 503)


def test_the_head_of_an_upgrade_is_mapped_too(reactor: Reactor) -> None:
    exchange = Recorded(reactor)
    exchange.map_head(lambda exchange, head: Head(200))
    exchange.upgrade(Head(101))
    assert exchange.asked == [("upgrade", 200)]


def _broken(exchange: Exchange, head: Head) -> Head:
    raise ValueError("no")


def test_a_map_that_raises_leaves_the_exchange_to_be_answered_otherwise(reactor: Reactor) -> None:
    exchange, body = Recorded(reactor), Body_(reactor)
    exchange.map_head(_broken)
    with pytest.raises(ValueError):
        exchange.respond(Head(200), body)
    assert (body.closed, exchange.status, exchange.asked) == (1, 0, [])
    exchange.failed(ValueError("no"))
    assert exchange.asked == [(500, b"500 Internal Server Error: the server failed\n")]


def test_a_failure_after_the_head_cuts_the_exchange_off(reactor: Reactor) -> None:
    exchange = Recorded(reactor)
    exchange.respond(Head(200))
    exchange.failed(ValueError("no"))
    assert exchange.asked[1:] == [("abort", "the server failed")]


# Derived exchanges.


def derive(outer: Exchange, body: Body = b"", outlives: bool = False) -> tuple[DerivedExchange, Taker]:
    taker = Taker()
    return outer.derive(a_request(b"POST"), body, taker.response, taker.end, outlives), taker


def test_a_derived_exchange_has_facts_of_its_own(house: House, reactor: Reactor) -> None:
    outer = Recorded(reactor, peer="198.51.100.1")
    outer.user, outer.verdict = "alice", "miss"
    house.pass_time(1.0)
    inner, taker = derive(outer)
    assert (inner.peer, inner.user, inner.scheme, inner.verdict) == ("198.51.100.1", "alice", b"http", None)
    assert inner.started == outer.started + 1.0
    inner.respond(Head(200), b"hello")
    assert taker.taken == [(inner, 200, b"hello")]
    assert (inner.status, outer.status, outer.asked) == (200, 0, [])
    outer.finish()
    house.turns()


def test_bytes_end_it_from_the_loop(house: House, reactor: Reactor) -> None:
    outer = Recorded(reactor)
    inner, taker = derive(outer)
    inner.respond(Head(200), b"hello")
    assert not inner.ended
    house.turns(1)
    assert (inner.ended, inner.bytes_out, taker.ends) == (True, 5, [None])
    outer.finish()
    assert taker.ends == [None]


def test_a_source_ends_it_when_it_was_read_to_its_end(house: House, reactor: Reactor) -> None:
    outer, source = Recorded(reactor), Body_(reactor, b"hel", b"lo", length=5)
    inner, taker = derive(outer)
    inner.respond(Head(200), source)
    body = taker.taken[0][2]
    assert isinstance(body, Source) and body.length == 5
    reader = Reader(body)
    reader.pull()
    house.turns(1)
    assert (reader.heard, reader.end, taker.ends) == (b"hello", None, [])
    source.trailers = Fields([("X-Sum", "1")])
    source.fill(b"")
    assert taker.ends == []
    house.turns(2)
    assert (reader.end, inner.bytes_out, taker.ends) == ("whole", 5, [None])
    assert body.trailers == source.trailers
    body.close()
    house.turns(1)
    assert (source.closed, taker.ends) == (1, [None])


def test_a_source_closed_before_its_end_ends_it_as_unread(house: House, reactor: Reactor) -> None:
    outer, source = Recorded(reactor), Body_(reactor, b"hello")
    inner, taker = derive(outer)
    inner.respond(Head(200), source)
    body = as_source(taker.taken[0][2])
    assert body.pull(10) == b"hello"
    body.close()
    assert (source.closed, taker.ends) == (1, [])
    house.turns(1)
    assert taker.ends == ["not read to its end"]
    assert inner.bytes_out == 5


def test_a_source_that_is_cut_ends_it_as_cut(house: House, reactor: Reactor) -> None:
    outer, source = Recorded(reactor), Body_(reactor, b"hel", cut="the origin broke off")
    inner, taker = derive(outer)
    inner.respond(Head(200), source)
    reader = Reader(as_source(taker.taken[0][2]))
    reader.pull()
    house.turns(1)
    assert (reader.heard, reader.end) == (b"hel", "cut: the origin broke off")
    assert taker.ends == ["the origin broke off"]


def test_a_source_that_was_sent_as_a_file_ends_it_whole(house: House, reactor: Reactor) -> None:
    fd = os.memfd_create("file")
    os.write(fd, b"hello")
    inner, taker = derive(Recorded(reactor))
    inner.respond(Head(200), FileSource(fd, 0, 5))
    body = as_source(taker.taken[0][2])
    assert body.as_file() == (fd, 0, 5)
    body.close()
    house.turns(1)
    assert taker.ends == [None]


def test_a_watched_source_rewinds_where_its_own_can(reactor: Reactor) -> None:
    inner, taker = derive(Recorded(reactor))
    inner.respond(Head(200), BytesSource(b"hello"))
    body = as_source(taker.taken[0][2])
    assert body.pull(9) == b"hello" and body.rewind() and body.pull(9) == b"hello"
    other, taken = derive(Recorded(reactor))
    other.respond(Head(200), Body_(reactor))
    assert not as_source(taken.taken[0][2]).rewind()


def test_an_exception_at_a_watched_source_costs_its_reader(
    house: House, reactor: Reactor, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Reader):
        def pull(self) -> None:
            raise ValueError("no")

    inner, taker = derive(Recorded(reactor))
    source = Body_(reactor)
    inner.respond(Head(200), source)
    reader = Failing(as_source(taker.taken[0][2]))
    source.fill(b"hello")
    house.turns(1)
    assert reader.failures == ["no"]


def test_the_outer_end_aborts_the_inner_one(house: House, reactor: Reactor) -> None:
    outer, source = Recorded(reactor), Body_(reactor)
    waiting, taker_waiting = derive(outer)
    answered, taker_answered = derive(outer)
    outliving, taker_outliving = derive(outer, outlives=True)
    answered.respond(Head(200), source)
    outer.finish("the client left")
    house.turns(2)
    assert taker_waiting.ends == taker_answered.ends == ["the client left"]
    assert source.closed
    assert (outliving.ended, taker_outliving.ends) == (False, [])
    late = Body_(reactor)
    waiting.respond(Head(200), late)
    assert (late.closed, taker_waiting.taken) == (1, [])
    outliving.respond(Head(200), b"kept")
    house.turns(1)
    assert (taker_outliving.taken, taker_outliving.ends) == ([(outliving, 200, b"kept")], [None])


def test_deriving_from_what_has_ended_is_aborted_from_the_loop(house: House, reactor: Reactor) -> None:
    outer = Recorded(reactor)
    outer.finish("the client left")
    inner, taker = derive(outer)
    assert not inner.ended
    house.turns(2)
    assert taker.ends == ["the client left"]


def test_who_aborts_is_told_of_the_end_from_the_loop(house: House, reactor: Reactor) -> None:
    outer = Recorded(reactor)
    inner, taker = derive(outer)
    inner.abort("every client left")
    assert (inner.ended, inner.failure, taker.ends) == (True, "every client left", [])
    inner.abort("again")
    inner.finish()
    house.turns(1)
    assert taker.ends == ["every client left"]
    assert not outer.ended
    outer.finish()
    assert taker.ends == ["every client left"]


def test_an_abort_is_seen_by_whoever_reads_the_body(house: House, reactor: Reactor) -> None:
    inner, taker = derive(Recorded(reactor))
    source = Body_(reactor, b"hel")
    inner.respond(Head(200), source)
    reader = Reader(as_source(taker.taken[0][2]))
    reader.pull()
    inner.abort("given up")
    assert (source.closed, reader.end) == (1, None)
    house.turns(1)
    assert (reader.heard, reader.end) == (b"hel", "cut: given up")
    reader.pull()
    assert reader.end == "cut: given up"


def test_an_abort_wakes_nobody_who_does_not_wait(house: House, reactor: Reactor) -> None:
    inner, taker = derive(Recorded(reactor))
    inner.respond(Head(200), Body_(reactor, b"hello", b"more"))
    body = as_source(taker.taken[0][2])
    woken: list[str] = []
    body.on_ready = lambda: woken.append("woken")
    assert body.pull(5) == b"hello"
    inner.abort("given up")
    house.turns(1)
    assert woken == []
    with pytest.raises(BodyCutShort, match="given up"):
        body.pull(5)


def test_interim_answers_and_upgrades_go_through(house: House, reactor: Reactor) -> None:
    outer = Recorded(reactor)
    inner, taker = derive(outer)
    inner.inform(Head(103))
    stream, rest = inner.upgrade(Head(101))
    assert rest == b"left over"
    assert outer.asked == [("inform", 103), ("upgrade", 101)]
    assert (inner.status, outer.status) == (101, 101)
    inner.bytes_in, inner.bytes_out = 3, 5
    inner.finish("reset by the peer")
    assert (outer.ended, outer.failure, outer.bytes_in, outer.bytes_out) == (True, "reset by the peer", 3, 5)
    house.turns(1)
    assert taker.ends == ["reset by the peer"]


def test_the_requests_body_is_closed_by_whom_it_belongs_to(reactor: Reactor) -> None:
    theirs, own = Body_(reactor), Body_(reactor)
    outer = Recorded(reactor, theirs)
    shared, _ = derive(outer, theirs)
    other, _ = derive(outer, own)
    shared.finish()
    other.finish()
    assert (theirs.closed, own.closed) == (0, 1)
    outer.finish()
    assert (theirs.closed, own.closed) == (1, 1)


def test_an_exchange_derived_from_a_derived_one(house: House, reactor: Reactor) -> None:
    outer = Recorded(reactor)
    middle, taker_middle = derive(outer)
    inner, taker_inner = derive(middle)
    source = Body_(reactor, b"hello", b"")
    inner.respond(Head(200), source)
    middle.respond(Head(203), taker_inner.taken[0][2])
    reader = Reader(as_source(taker_middle.taken[0][2]))
    reader.pull()
    house.turns(2)
    assert (reader.heard, reader.end) == (b"hello", "whole")
    assert (taker_inner.ends, taker_middle.ends) == ([None], [None])
    assert (inner.bytes_out, middle.bytes_out) == (5, 5)


def test_maps_of_inner_and_outer_are_their_own(house: House, reactor: Reactor) -> None:
    outer = Recorded(reactor)
    outer.map_head(lambda exchange, head: Head(head.status + 1))
    inner, taker = derive(outer)
    inner.map_head(lambda exchange, head: Head(head.status + 10))
    inner.respond(Head(200), b"")
    assert taker.taken[0][1] == 210
    outer.respond(Head(210))
    assert outer.asked == [(211, b"")]


# Cycles.


class Wrapper:
    """A wrapper as they are: it holds what it derives."""

    def __init__(self, outer: Exchange, outlives: bool) -> None:
        self.outer = outer
        self.body: Body = b""
        self.ended = False
        self.inner = outer.derive(a_request(), b"", self.response, self.end, outlives)

    def response(self, inner: Exchange, head: Head, body: Body) -> None:
        self.body = body

    def end(self, inner: Exchange) -> None:
        self.ended = True


@pytest.mark.parametrize("outlives", [False, True])
@pytest.mark.parametrize("life", ["whole", "bytes", "closed", "cut", "aborted", "unanswered", "left"])
def test_no_cycle_is_left_behind(
    life: str, outlives: bool, house: House, reactor: Reactor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    gc.collect()
    gc.disable()
    try:
        outer = Recorded(reactor)
        outer.map_head(lambda exchange, head: head)
        wrapper = Wrapper(outer, outlives)
        inner = wrapper.inner
        source = Body_(reactor, b"hello", cut="broke off") if life == "cut" else Body_(reactor, b"hello", b"")
        if life == "bytes":
            inner.respond(Head(200), b"hello")
        elif life not in ("unanswered", "left"):
            inner.respond(Head(200), source)
        if life in ("whole", "cut"):
            Reader(as_source(wrapper.body)).pull()
        elif life == "closed":
            as_source(wrapper.body).close()
        elif life in ("aborted", "unanswered"):
            inner.abort("given up")
        elif life == "left" and outlives:
            inner.finish()
        outer.finish("the client left")
        house.turns()
        assert wrapper.ended
        outer.asked.clear()
        as_source(wrapper.body).on_ready = None  # who reads a body lets go of it
        del outer, wrapper, inner, source
        assert gc.collect() == 0
    finally:
        gc.enable()


# Bodies.


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), min_size=300, max_size=300))
def test_bytes_are_pulled_in_any_pieces(data: bytes, limits: list[int]) -> None:
    source = BytesSource(data)
    assert source.length == len(data)
    for _ in range(2):
        pieces = []
        for limit in limits:
            piece = source.pull(limit)
            assert len(piece) <= limit
            if not piece:
                break
            pieces.append(bytes(piece))
        assert b"".join(pieces) == data
        assert source.pull(1) == b""
        assert source.rewind()
    assert source.as_file() is None


def test_bytes_and_sources_are_both_bodies(reactor: Reactor) -> None:
    source = Body_(reactor)
    assert as_source(source) is source
    assert as_source(b"hello").pull(10) == b"hello"


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("file")
    os.write(fd, b"0123456789")
    yield fd
    os.close(fd)


def test_a_range_of_a_file(file: int) -> None:
    source = FileSource(os.dup(file), 2, 6)
    assert source.length == 6
    assert source.pull(4) == b"2345"
    fd, offset, count = source.as_file()
    assert (offset, count) == (6, 2)
    assert [source.pull(4), source.pull(4)] == [b"67", b""]
    assert source.rewind() and source.pull(100) == b"234567"
    source.close()
    source.close()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_a_file_that_is_lent_stays_open(file: int) -> None:
    FileSource(file, 0, 10, owned=False).close()
    assert os.pread(file, 2, 0) == b"01"


def test_a_file_that_became_shorter_is_cut(file: int) -> None:
    source = FileSource(file, 0, 10, owned=False)
    assert source.pull(6) == b"012345"
    os.ftruncate(file, 6)
    with pytest.raises(BodyCutShort):
        source.pull(6)


# Heads.


def test_an_edited_head_is_a_copy() -> None:
    head = Head(200, [("X-A", "1")], b"Fine", wire=b"HTTP/1.1 200 Fine\r\nX-A: 1\r\n\r\n")
    edited = head.edited()
    edited.fields.set("X-A", "2")
    assert (head.fields[b"x-a"], edited.fields[b"x-a"]) == (b"1", b"2")
    assert (edited.status, edited.reason) == (200, b"Fine")
    assert edited.wire is None  # it no longer says the same


def test_an_error_page_says_what_is_wrong() -> None:
    head, body = error_page(502, "192.0.2.1: refusé \udcff")
    assert head.status == 502
    assert head.fields[b"content-type"] == b"text/plain; charset=utf-8"
    assert body == "502 Bad Gateway: 192.0.2.1: refusé \\udcff\n".encode()
