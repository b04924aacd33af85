"""What a server lets its clients do: how slowly, how often, how many, how much; and what it says at each limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from reactor import server_connection
from reactor.exchange import PULL, Exchange, FileSource, Head
from reactor.server import IDLE_ENOUGH, LOOK_SECONDS, REFUSED_AT_A_TIME, RETRY_SECONDS
from reactor.server_connection import PUMP_BYTES, REQUESTS_PER_TURN
from reactor.stream import HIGH_WATER, LARGE_READ
from tests.loopback import LIMITS, Handling, House, Peer, Script, echo, housed, says
from tests.reactor.test_server import GET, POST_CHUNKED, POST_EXPECTS, Facts, ends, file_of, post


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


# Slow senders.


def test_a_body_that_trickles_uses_up_its_time(house: House) -> None:
    handling = Handling(echo)
    peer = house.serve(handling).connect()
    peer.send(post(1_000_000))
    sent = 0
    while not peer.read():
        peer.send(b"x" * int(LIMITS.rate))
        house.pass_time(2)
        sent += 1
        assert sent < 1000
    answer = peer.answer()
    assert (answer.status, answer.fields[b"connection"]) == (408, b"close")
    assert abs(sent * 2 - 2 * LIMITS.body) < 5, "each of two seconds brought half of them back"
    peer.expect_close()


def test_a_body_at_the_least_rate_may_take_for_ever(house: House) -> None:
    handling = Handling(echo)
    peer = house.serve(handling).connect()
    size = int(LIMITS.rate) * 300
    peer.send(post(size))
    for _ in range(30):
        house.pass_time(9)
        peer.send(b"x" * (size // 30))
    assert peer.answer().body == b"x" * size


def test_time_in_which_nobody_wants_the_body_is_not_the_clients(house: House) -> None:
    """The handler pulls once an hour; the client has sent all that there is room for."""
    handling = Handling()
    peer = house.serve(handling).connect()
    peer.send(post(12))
    body = handling.last.body
    assert not isinstance(body, bytes)
    for _ in range(4):
        assert body.pull(100) is None
        house.pass_time(LIMITS.body / 8)
        peer.send(b"abc")
        house.pass_time(3600)
        assert body.pull(100) == b"abc"
    assert body.pull(100) == b""
    handling.last.respond(Head(200), b"whole")
    assert peer.answer().body == b"whole"


def test_without_a_rate_a_byte_now_and_then_is_enough(house: House) -> None:
    peer = house.serve(Handling(echo), replace(LIMITS, rate=0)).connect()
    peer.send(post(10))
    for _ in range(10):
        house.pass_time(LIMITS.body - 1)
        peer.send(b"x")
    assert peer.answer().body == b"x" * 10


# Greedy ones.


def test_who_asks_without_end_leaves_others_their_turn(house: House) -> None:
    handling = Handling(says(b"x"))
    served = house.serve(handling)
    greedy, other = served.connect(), served.connect()
    many = 20 * REQUESTS_PER_TURN
    assert greedy.sock.send(GET * many) == len(GET * many)
    other.sock.send(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
    assert other.answer().body == b"x"
    place = [exchange.request.path for exchange in handling.exchanges].index(b"/other")
    assert place <= 2 * REQUESTS_PER_TURN
    for _ in range(many):
        assert greedy.answer().body == b"x"


def test_what_is_asked_without_end_is_not_read_without_end(house: House) -> None:
    handling = Handling(says(b"x"))
    served = house.serve(handling)
    greedy = served.connect()
    many = 20_000
    assert greedy.offer(GET * many) == len(GET * many) > 2 * (LIMITS.read_ahead + LARGE_READ)

    def all_answered() -> bool:
        assert served.connection.parser.buffered <= LIMITS.read_ahead + LARGE_READ
        greedy.read(1 << 24)
        return len(handling.ended) == many

    house.until(all_answered)


def test_a_body_without_end_leaves_others_their_turn(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client takes it as fast as it comes, so that nothing ever waits."""
    monkeypatch.setattr(server_connection, "HIGH_WATER", 1 << 40)
    pieces = 10 * PUMP_BYTES // PULL
    body = Script(house.reactor, *[bytes(PULL)] * pieces, b"")
    peer = house.serve(Handling(says(body))).connect()
    peer.sock.send(GET)
    house.until(lambda: len(body.pieces) < pieces)
    assert len(body.pieces) >= pieces - 2 * PUMP_BYTES // PULL, "once with its request, and once more at the turn's end"
    assert len(peer.answer().body) == pieces * PULL


def test_who_does_not_read_is_told_no_news(house: House) -> None:
    news = Head(103, [(b"Link", b"x" * 16_000)] * 3)

    def answer(exchange: Exchange) -> None:
        for _ in range(32):
            exchange.inform(news)
        exchange.respond(Head(200), b"x")

    served = house.serve(Handling(answer))
    peer = served.connect(small_buffers=True)
    peer.send(GET)
    assert served.connection.stream.backlog < HIGH_WATER + 2 * 48_000
    while (status := peer.head().status) == 103:
        pass
    assert status == 200


# Slow readers.


@pytest.mark.parametrize("kind", ["bytes", "file", "source"])
def test_a_client_that_reads_too_slowly_is_reset(house: House, kind: str) -> None:
    size = 20_000_000
    body = {
        "bytes": lambda: b"x" * size,
        "file": lambda: FileSource(file_of(size)[0], 0, size),
        "source": lambda: Script(house.reactor, *[b"x" * 100_000] * 200),
    }[kind]()
    handling = Handling(says(body))
    served = house.serve(handling, replace(LIMITS, rate=20_000))
    peer = served.connect(small_buffers=True)
    peer.send(GET)
    peer.head()
    for _ in range(3):
        house.pass_time(LIMITS.stalled / 4)
        assert peer.read(100_000), "a third of what it should"
    assert served.server.connections
    house.pass_time(LIMITS.stalled / 4)
    assert not served.server.connections
    assert ends(handling) == ["the client reads too slowly"]


def test_a_client_that_reads_fast_enough_gets_all_of_it(house: House) -> None:
    served = house.serve(Handling(says(b"x" * 1_000_000)))
    peer = served.connect(small_buffers=True)
    peer.send(GET)
    peer.head()
    while len(peer.received) < 1_000_000:
        house.pass_time(LIMITS.stalled / 3)
        assert peer.read(20_000) and not peer.was_reset
    assert bytes(peer.received) == b"x" * 1_000_000


def test_the_time_between_two_answers_is_not_measured(house: House) -> None:
    served = house.serve(Handling(says(b"x" * 1_000_000)), replace(LIMITS, rate=20_000))
    peer = served.connect(small_buffers=True)
    peer.send(GET)
    peer.answer()
    house.pass_time(LIMITS.stalled - 5)
    peer.send(GET)
    for _ in range(4):
        house.pass_time(LIMITS.stalled / 5)
    assert len(peer.answer().body) == 1_000_000


def test_what_a_client_sends_does_not_excuse_that_it_does_not_read(house: House) -> None:
    """The request's body feeds the response, and each piece of it has a deadline of its own."""
    handling = Handling(lambda exchange: exchange.respond(Head(200), exchange.body))
    served = house.serve(handling)
    peer = served.connect(small_buffers=True)
    peer.send(post(10_000_000))
    while not served.connection.stream.backlog:
        peer.send(b"x" * 10_000)
    for _ in range(7):
        if served.server.connections:
            peer.send(b"x" * 5000)
        house.pass_time(LIMITS.stalled / 6)
    assert ends(handling) == ["the client stopped reading"]


class Spurts(Script):
    """Comes when it is told to, and is silent in between however often it is asked."""

    __slots__ = ()

    def pull(self, limit: int) -> bytes | None:
        if not self.pieces:
            self.waiting = True
            return None
        return super().pull(limit)


def test_a_pause_between_two_pieces_of_an_answer_is_not_the_clients(house: House) -> None:
    """A measure begins with bytes that wait, and ends when none does."""
    body = Spurts(house.reactor)
    served = house.serve(Handling(says(body)))
    peer = served.connect(small_buffers=True)
    peer.send(GET)
    for _ in range(3):
        body.go(*[b"x" * 100_000] * 30)
        house.turns()
        assert served.connection.stream.backlog
        house.pass_time(LIMITS.stalled / 2)
        while served.connection.stream.backlog:
            peer.read()
            house.turns(2)
        house.pass_time(LIMITS.stalled * 3)
    assert served.server.connections


# Many requests, many connections.


def test_the_last_request_of_a_connection_is_told_so(house: House) -> None:
    served = house.serve(Handling(says(b"x")), replace(LIMITS, requests=3))
    peer = served.connect()
    peer.send(GET)
    assert b"connection" not in peer.answer().fields
    peer.send(GET * 3)
    assert b"connection" not in peer.answer().fields
    assert peer.answer().fields[b"connection"] == b"close"
    peer.expect_close()
    assert served.server.requests == 3, "the fourth was not taken up"


def refused(peer: Peer) -> None:
    answer = peer.answer()
    assert (answer.status, answer.fields[b"connection"]) == (503, b"close")
    assert answer.fields[b"retry-after"] == b"%d" % RETRY_SECONDS
    assert b"date" in answer.fields and b"too many connections" in answer.body
    peer.expect_close()


def test_the_newest_connection_is_refused_and_the_old_are_served(house: House) -> None:
    served = house.serve(Handling(says(b"x")), replace(LIMITS, connections=2))
    old = [served.connect(), served.connect()]
    for newest in (house.connect(served.port), house.connect(served.port)):
        newest.send(GET)
        refused(newest)
        newest.close()
    for peer in old:
        peer.send(GET)
        assert peer.answer().body == b"x"
    old[0].close()
    house.until(lambda: len(served.server.connections) == 1, "its end")
    third = served.connect()
    third.send(GET)
    assert third.answer().status == 200
    assert served.server.facts() == {
        "connections": {"open": 2, "active": 0, "accepted": 3, "refused": 2}, "exchanges": 3,
    }  # fmt: skip


def test_the_connection_idle_for_longest_makes_room(house: House) -> None:
    served = house.serve(Handling(says(b"x")), replace(LIMITS, connections=3))
    first, second, third = served.connect(), served.connect(), served.connect()
    for peer in (second, first):
        peer.send(GET)
        assert peer.answer().status == 200
        house.pass_time(2)
    fourth, fifth = served.connect(), served.connect()
    third.expect_close()  # it never asked
    second.expect_close()
    for peer in (first, fourth, fifth):
        peer.send(GET)
        assert peer.answer().status == 200
    third.close()
    second.close()
    assert served.server.facts()["connections"] == {"open": 3, "active": 0, "accepted": 5, "refused": 0}


def test_who_has_asked_for_something_makes_no_room(house: House) -> None:
    handling = Handling()
    served = house.serve(handling, replace(LIMITS, connections=3))
    beginning, waiting, just_done = served.connect(), served.connect(), served.connect()
    beginning.send(GET[:10])
    waiting.send(GET)
    house.pass_time(IDLE_ENOUGH)
    just_done.send(GET)
    handling.last.respond(Head(200), b"x")
    assert just_done.answer().status == 200
    house.pass_time(IDLE_ENOUGH / 2)
    newest = house.connect(served.port)
    refused(newest)
    newest.close()
    house.pass_time(IDLE_ENOUGH)
    served.connect()
    just_done.expect_close()
    beginning.send(GET[10:])
    for exchange in handling.exchanges[:1] + handling.exchanges[2:]:
        exchange.respond(Head(200), b"x")
    assert beginning.answer().status == waiting.answer().status == 200


def test_room_is_made_for_so_many_at_a_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.server.ROOM_AT_A_TIME", 2)
    served = house.serve(Handling(says(b"x")), replace(LIMITS, connections=4))
    old = [served.connect() for _ in range(4)]
    house.pass_time(IDLE_ENOUGH)
    new = [served.connect() for _ in range(2)]
    newest = house.connect(served.port)
    refused(newest)  # those who leave have not closed their side yet
    closed = [peer for peer in old if peer.read() and peer.at_eof]
    assert len(closed) == 2
    for peer in closed:
        peer.close()
    house.pass_time(LOOK_SECONDS)
    served.connect().send(GET)
    for peer in new:
        peer.send(GET)
        assert peer.answer().status == 200


class Half:
    """A door for one."""

    def __init__(self) -> None:
        self.inside: list[str] = []

    def enter(self, peer: str) -> bool:
        if not self.inside:
            self.inside.append(peer)
            return True
        return False

    def leave(self, peer: str) -> None:
        self.inside.remove(peer)


def test_who_may_not_come_in_costs_nobody_a_place(house: House) -> None:
    served = house.serve(Handling(says(b"x")), replace(LIMITS, connections=1))
    served.server.door = Half()
    old = served.connect()
    house.pass_time(IDLE_ENOUGH)
    refused(house.connect(served.port))
    old.send(GET)
    assert old.answer().status == 200


def test_who_finds_no_room_leaves_the_door(house: House) -> None:
    served = house.serve(Handling(says(b"x")), replace(LIMITS, connections=0))
    served.server.door = door = Half()
    refused(house.connect(served.port))
    assert door.inside == []


def test_a_refusal_does_not_wait_for_ever(house: House) -> None:
    served = house.serve(Handling(says(b"x")), replace(LIMITS, connections=0))
    peer = house.connect(served.port)
    refused(peer)
    assert house.reactor.watched > 1, "it has not closed its own side"
    house.pass_time(10)
    assert house.reactor.watched == 1, "the listener alone"


def test_refusals_are_bounded(house: House) -> None:
    served = house.serve(Handling(says(b"x")), replace(LIMITS, connections=0))
    told = [house.connect(served.port) for _ in range(REFUSED_AT_A_TIME)]
    house.until(lambda: served.server.refused == REFUSED_AT_A_TIME, "the refusals")
    unheard = house.connect(served.port)
    unheard.expect_close()
    for peer in told:
        refused(peer)


def test_the_end_of_the_server_is_the_end_of_refusals(house: House) -> None:
    served = house.serve(Handling(says(b"x")), replace(LIMITS, connections=0))
    refused(house.connect(served.port))
    done: list[bool] = []
    served.server.shutdown(lambda: done.append(True))
    house.turns()
    assert done and house.reactor.watched == 1


# Large bodies.

SMALL = replace(LIMITS, max_body=1000)


def test_a_body_that_says_it_is_too_large_is_refused_unasked(house: House) -> None:
    handling, facts = Handling(echo), Facts()
    peer = house.serve(handling, SMALL, facts).connect()
    peer.send(post(1001))
    assert peer.answer().status == 413
    peer.send(b"x" * 1001 + post(1000) + b"y" * 1000)
    assert peer.answer().body == b"y" * 1000, "a little too much is read away, and the connection stays"
    assert [exchange.status for exchange in facts.recorded] == [413]
    assert len(handling.exchanges) == 1


def test_a_body_too_large_that_is_there_already_is_refused_too(house: House) -> None:
    peer = house.serve(Handling(echo), SMALL).connect()
    peer.send(post(1001) + b"x" * 1001 + GET)
    assert peer.answer().status == 413
    assert peer.answer().status == 200


def test_a_body_that_turns_out_too_large_is_cut(house: House) -> None:
    handling = Handling(echo)
    peer = house.serve(handling, SMALL).connect()
    peer.send(POST_CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n")
    peer.expect_silence()
    peer.send(b"1\r\nx\r\n")
    answer = peer.answer()
    assert (answer.status, answer.fields[b"connection"]) == (413, b"close")
    peer.expect_close()


def test_who_asks_first_is_told_before_it_sends(house: House) -> None:
    peer = house.serve(Handling(echo), replace(LIMITS, max_body=4)).connect()
    peer.send(POST_EXPECTS)
    answer = peer.answer()
    assert (answer.status, answer.fields[b"connection"]) == (413, b"close")
    peer.expect_close()


def test_a_body_of_any_size_is_taken_where_nothing_is_said(house: House) -> None:
    def count(exchange: Exchange) -> None:
        exchange.respond(Head(200), b"%d" % exchange.body.length)  # type: ignore[union-attr]

    peer = house.serve(Handling(count)).connect()
    peer.send(post(10**15))
    assert peer.answer().body == b"%d" % 10**15
