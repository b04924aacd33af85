"""What one client may take: tokens against a model, tables that stay bounded, and what is answered beyond."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import client_limits
from handlers.client_limits import Buckets, ClientConnections, ClientRate, client_of
from reactor.exchange import Exchange, Head
from reactor.listener import Listener
from reactor.server import REFUSED_AT_A_TIME, Server
from reactor.stream import LINGER_SECONDS
from tests.handlers.asking import Answer, Clock, parse
from tests.loopback import Handling, House, Peer, housed, says

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


# Who a client is.


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "", True),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network_of_64_bits(one: str, other: str, same: bool) -> None:
    assert (client_of(one) == client_of(other)) is same


def test_the_memo_of_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    memo = client_of.__self__  # type: ignore[attr-defined]
    monkeypatch.setattr(client_limits, "MEMO_CLIENTS", 8)
    for number in range(1, 50):
        assert client_of(f"2001:db8:0:{number:x}::5") == f"2001:db8:0:{number:x}::/64"
        assert len(memo) <= 8


# Buckets.


class Model:
    """A token bucket as the books have it, in numbers without rounding."""

    def __init__(self, rate: Fraction, burst: Fraction) -> None:
        self.rate, self.burst = rate, burst
        self.tokens, self.at = burst, Fraction(0)

    def take(self, now: Fraction) -> Fraction:
        self.tokens, self.at = min(self.burst, self.tokens + (now - self.at) * self.rate), now
        if self.tokens < 1:
            return (1 - self.tokens) / self.rate
        self.tokens -= 1
        return Fraction(0)


STEPS = st.lists(st.tuples(st.integers(0, 64), st.sampled_from("abc")), max_size=60)


@given(st.integers(-3, 6), st.integers(0, 4), STEPS)
def test_a_bucket_does_what_the_model_does(power: int, extra: int, steps: list[tuple[int, str]]) -> None:
    rate = Fraction(2) ** power  # so that floating point is exact
    burst = Fraction(2) ** extra
    buckets = Buckets(float(rate), float(burst))
    models = {name: Model(rate, burst) for name in "abc"}
    now = Fraction(0)
    for eighths, name in steps:
        now += Fraction(eighths, 8)
        assert buckets.take(name, float(now)) == models[name].take(now)


def test_a_token_may_be_taken_on_credit() -> None:
    buckets = Buckets(rate=1, burst=2)
    for _ in range(5):
        buckets.charge("a", 100.0)
    assert buckets.wait("a", 100.0) == 4.0
    assert buckets.wait("a", 104.0) == 0.0
    assert buckets.wait("b", 100.0) == 0.0


def test_at_the_bound_the_client_that_was_away_for_longest_is_forgotten() -> None:
    buckets = Buckets(rate=1, burst=1, limit=3)
    for client in ("a", "b", "c", "a", "d"):
        buckets.charge(client, 0.0)
        assert len(buckets) <= 3
    assert [client for client in "abcd" if buckets.wait(client, 0.0)] == ["a", "c", "d"]


# Requests a second.


class Through:
    def handle(self, exchange: Exchange) -> None:
        exchange.respond(Head(204))


def asked(handler: ClientRate, clock: Clock, peer: str) -> Answer:
    request, _ = parse("GET http://example.com/")
    exchange = Answer(clock, request, b"")
    exchange.peer = peer
    handler.handle(exchange)
    return exchange


def test_twice_the_rate_may_come_at_once_and_then_the_rate() -> None:
    clock, handler = Clock(), ClientRate(Through(), 2)
    clock.settle()
    assert [asked(handler, clock, "192.0.2.1").status for _ in range(6)] == [204] * 4 + [429] * 2
    assert asked(handler, clock, "192.0.2.2").status == 204
    clock.pass_(0.5)
    assert [asked(handler, clock, "192.0.2.1").status for _ in range(2)] == [204, 429]


def test_who_asks_too_often_is_told_when_to_come_again() -> None:
    clock, handler = Clock(), ClientRate(Through(), 0.1)
    clock.settle()
    assert asked(handler, clock, "2001:db8::1").status == 204
    refused = asked(handler, clock, "2001:db8::2")
    assert (refused.status, refused.verdict, refused.field("Retry-After")) == (429, "limited", "10")
    assert refused.content == b"429 Too Many Requests: more than 0.1 requests a second\n"
    clock.pass_(9.5)
    assert asked(handler, clock, "2001:db8::1").field("Retry-After") == "1"
    clock.pass_(0.5)
    assert asked(handler, clock, "2001:db8::2").status == 204


# Connections at a time.


class Guarded:
    """A server with a door, on IPv4's loopback."""

    def __init__(self, house: House, limit: int) -> None:
        self.house = house
        self.door = ClientConnections(limit)
        self.handling = Handling(says(b"here"))
        self.server = Server(house.reactor, self.handling, door=self.door)
        self.listener = Listener(house.reactor, "127.0.0.1", 0, self.server.accept)
        house.cleanups += [self.listener.close, self.server.abort]

    def connect(self) -> Peer:
        return self.house.connect(self.listener.port)


def test_one_connection_too_many_is_told_so_before_it_asks_and_the_others_are_served_on(house: House) -> None:
    guarded = Guarded(house, 2)
    first, second = guarded.connect(), guarded.connect()
    house.turns()
    third = guarded.connect()
    refused = third.answer()
    assert (refused.status, refused.fields[b"connection"], refused.fields[b"retry-after"]) == (503, b"close", b"5")
    third.expect_close()
    third.close()
    for peer in (first, second):
        peer.send(GET)
        assert peer.answer().body == b"here"
    first.close()
    house.until(lambda: len(guarded.server.connections) == 1)
    fourth = guarded.connect()
    fourth.send(GET)
    assert fourth.answer().status == 200
    assert len(guarded.handling.exchanges) == 3


def test_a_request_sent_before_the_refusal_was_read_does_not_cost_the_refusal(house: House) -> None:
    guarded = Guarded(house, 1)
    guarded.connect()
    house.turns()
    peer = guarded.connect()
    peer.send(GET * 100)
    assert peer.answer().status == 503
    peer.expect_close()
    assert guarded.handling.exchanges == []


def test_a_refused_client_that_stays_is_gone_after_the_linger(house: House) -> None:
    guarded = Guarded(house, 1)
    guarded.connect()
    house.turns()
    peer = guarded.connect()
    assert peer.answer().status == 503
    house.pass_time(LINGER_SECONDS)
    assert not guarded.server._refusals


def test_of_many_that_are_refused_at_once_the_most_are_closed_unheard(house: House) -> None:
    guarded = Guarded(house, 1)
    guarded.connect()
    house.turns()
    peers = [guarded.connect() for _ in range(REFUSED_AT_A_TIME + 10)]
    for peer in peers:
        peer.until(lambda peer=peer: peer.over, "the end")
    assert sum(peer.received.startswith(b"HTTP/1.1 503 ") for peer in peers) == REFUSED_AT_A_TIME
    assert len(guarded.server._refusals) == REFUSED_AT_A_TIME


def test_the_table_holds_only_who_is_there(house: House) -> None:
    guarded = Guarded(house, 5)
    peers = [guarded.connect() for _ in range(4)]
    house.until(lambda: len(guarded.server.connections) == 4)
    peers[0].reset()
    peers[1].send(b"nonsense\r\n\r\n")
    assert peers[1].answer().status == 400
    for peer in peers[1:]:
        peer.close()
    house.until(lambda: not guarded.server.connections)
    assert len(guarded.door) == 0


def test_an_upgraded_connection_is_counted_until_it_is_over(house: House) -> None:
    guarded = Guarded(house, 1)
    guarded.handling.answer = None
    peer = guarded.connect()
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    house.until(lambda: guarded.handling.exchanges)
    stream, _ = guarded.handling.last.upgrade(Head(101, [("Upgrade", "x")]))
    assert peer.head().status == 101
    assert guarded.connect().answer().status == 503
    stream.owner = None
    stream.abort()
    guarded.handling.last.finish()
    house.turns()
    assert len(guarded.door) == 0
    peer.expect_reset()


def test_a_server_that_goes_takes_its_refusals_along(house: House) -> None:
    guarded = Guarded(house, 1)
    peer = guarded.connect()
    house.turns()
    refused = guarded.connect()
    assert refused.answer().status == 503
    done: list[bool] = []
    guarded.server.shutdown(lambda: done.append(True))
    peer.expect_close()
    peer.close()
    house.until(lambda: done)
    house.turns()
    assert not guarded.server._refusals
