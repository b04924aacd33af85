"""The cache before handlers, over sockets: who is answered from the store, who waits for whom, what the origin is asked.

Every test that uses `proxy` runs twice: with the store in memory, and with one that always answers later.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.fill import LITTLE, STALL
from cache.policy import DEFAULT_POLICY, OperatorRule, Policy
from cache.stores.memory import SPILL, MemoryStore
from handlers.caching import FETCHES_PER_KEY, VALIDATED_KEYS, Caching
from handlers.hit_for_miss import HIT_FOR_MISS_KEYS, HIT_FOR_MISS_SECONDS, ONCE
from handlers.responses import IteratorSource
from reactor.exchange import BytesSource, Exchange, FileSource, Head
from reactor.http.dates import format_date
from reactor.http.fields import Fields
from tests.loopback import RESET, Answer, Handling, House, Peer, Script, housed, says
from tests.origin import Asked, LaterStore, Proxy, chunk, contents, no_cycles

MIB = 1 << 20
FRESH = "Cache-Control: max-age=60"
TAGGED = 'ETag: "one"'

MakeStore = Callable[..., Any]


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture(params=["memory", "later"])
def make_store(request: pytest.FixtureRequest, house: House) -> MakeStore:
    def make(limit: int = 8 * MIB) -> Any:
        store = MemoryStore(limit)
        return store if request.param == "memory" else LaterStore(house.reactor, store)

    return make


@pytest.fixture
def make_proxy(house: House, make_store: MakeStore) -> Iterator[Callable[..., Proxy]]:
    made: list[Proxy] = []

    def make(limit: int = 8 * MIB, **more: Any) -> Proxy:
        made.append(Proxy(house, store=make_store(limit), **more))
        return made[-1]

    yield make
    for proxy in made:
        at_rest(proxy)


@pytest.fixture
def proxy(make_proxy: Callable[..., Proxy]) -> Proxy:
    return make_proxy()


def at_rest(proxy: Proxy) -> None:
    """Once all have left, no fetch is under way, and nothing is charged for but what is stored."""
    for peer in proxy.house.peers:
        peer.sock.close()
    proxy.house.turns(30)
    proxy.house.pass_time(120.0)
    assert not proxy.caching.fetches and not proxy.caching.apart
    memory = getattr(proxy.caching.store, "store", proxy.caching.store)
    assert memory.used == sum(content.charged for content in contents(memory))
    assert all(content._users == 1 for content in contents(memory))


def cached(answer: Answer) -> str:
    """What our cache says it did, without its name."""
    name, _, did = answer.fields[b"cache-status"].decode().rpartition(", ")[2].partition("; ")
    assert name == "reactor"
    return did


def fetch(proxy: Proxy, body: bytes, *lines: str, path: str = "/", asking: tuple[str, ...] = ()) -> Answer:
    """One that goes to the origin, and the answer the client gets."""
    client = proxy.ask(path, *asking)
    proxy.asked().answer(body, *lines)
    answer = client.answer()
    assert answer.body == body
    client.close()
    return answer


def ended(peer: Peer) -> None:
    """Its connection is over, one way or the other."""
    peer.until(lambda: peer.over, "the end")


def answered(client: Peer) -> None:
    """Something came, or the end."""
    client.until(lambda: client.over or b"\r\n\r\n" in client.received, "an answer")


def hit(proxy: Proxy, path: str = "/", *asking: str) -> Answer:
    """One that the store answers."""
    proxy.house.turns()  # what was going on for nobody any more
    client = proxy.ask(path, *asking)
    answer = client.answer()
    assert answer.fields.get(b"cache-status", b"").rpartition(b", ")[2].startswith(b"reactor; hit"), answer.head
    client.close()
    return answer


# Miss and hit.


def test_a_miss_and_a_hit(proxy: Proxy) -> None:
    miss = fetch(proxy, b"hello", FRESH, "X-One: 1")
    assert cached(miss) == "fwd=uri-miss; stored; ttl=60"
    assert b"age" not in miss.fields
    client = proxy.ask()
    answer = client.answer()
    assert (answer.body, cached(answer), answer.fields[b"age"], answer.fields[b"x-one"]) == (
        b"hello",
        "hit; ttl=60",
        b"0",
        b"1",
    )
    assert answer.fields[b"via"] == miss.fields[b"via"] and answer.fields[b"date"] == miss.fields[b"date"]
    proxy.not_asked()
    assert [exchange.verdict for exchange in proxy.ended] == ["miss", "hit"]


def test_age_and_ttl_change_with_every_second(house: House, proxy: Proxy) -> None:
    fetch(proxy, b"hello", FRESH)
    for second in range(4):
        for _ in range(2):
            answer = hit(proxy)
            assert (answer.fields[b"age"], cached(answer)) == (b"%d" % second, f"hit; ttl={60 - second}")
        house.pass_time(1.0)


def test_an_age_that_came_counts(house: House, proxy: Proxy) -> None:
    miss = fetch(proxy, b"hello", FRESH, "Age: 50")
    assert (cached(miss), miss.fields[b"age"]) == ("fwd=uri-miss; stored; ttl=10", b"50")
    house.pass_time(9.0)
    answer = hit(proxy)
    assert (answer.fields[b"age"], cached(answer)) == (b"59", "hit; ttl=1")
    house.pass_time(1.0)
    proxy.ask()
    proxy.asked()


@pytest.mark.parametrize("jump", [-1e6, -59.0, -0.5, 0.5, 59.0, 1e6])
def test_what_is_stored_ages_with_time_and_not_with_the_wall_clock(house: House, proxy: Proxy, jump: float) -> None:
    fetch(proxy, b"hello", FRESH, "Age: 5", "ETag: \"x\"")
    house.pass_time(2.0)
    hit(proxy)  # what is written out for a second
    house.wall.now += jump
    for second in range(2, 55, 13):
        answer = hit(proxy)
        assert (answer.fields[b"age"], cached(answer)) == (b"%d" % (5 + second), f"hit; ttl={55 - second}")
        house.pass_time(13.0)
    house.pass_time(1.0)
    client = proxy.ask()
    proxy.asked().answer(b"", "ETag: \"x\"", FRESH, status="304 Not Modified")
    answer = client.answer()
    assert (answer.body, answer.fields[b"age"], cached(answer)) == (b"hello", b"0", "fwd=stale; fwd-status=304; ttl=60")
    house.wall.now -= jump
    assert hit(proxy).fields[b"age"] == b"0"


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_windows_of_staleness_do_not_follow_the_wall_clock(house: House, proxy: Proxy, jump: float) -> None:
    fetch(proxy, b"hello", "Cache-Control: max-age=10, stale-while-revalidate=10, stale-if-error=100")
    house.pass_time(15.0)
    house.wall.now += jump
    client = proxy.ask()
    assert cached(client.answer()) == "hit; ttl=-5; detail=stale-while-revalidate"
    proxy.asked().answer(b"", status="503 Service Unavailable")
    house.pass_time(10.0)
    client = proxy.ask()
    proxy.asked().answer(b"", status="503 Service Unavailable")
    assert cached(client.answer()) == 'fwd=stale; fwd-status=503; ttl=-15; detail=stale-if-error'


def test_a_clock_set_while_the_answer_is_awaited_is_no_delay(house: House, proxy: Proxy) -> None:
    client = proxy.ask()
    asked = proxy.asked()
    house.wall.now += 1000
    house.pass_time(3.0)
    asked.answer(b"hello", FRESH)
    assert cached(client.answer()) == "fwd=uri-miss; stored; ttl=57"
    assert hit(proxy).fields[b"age"] == b"3"


def test_the_clients_own_dates_are_compared_with_dates(house: House, proxy: Proxy) -> None:
    date = house.wall.now
    fetch(proxy, b"hello", FRESH)  # without Last-Modified, its Date counts
    house.wall.now += 1e6
    for offset, status in ((-1, 200), (0, 304)):
        client = proxy.ask("/", f"If-Modified-Since: {format_date(date + offset).decode()}")
        assert client.answer().status == status


def test_cache_status_tells_the_key_where_that_is_asked_for(house: House, make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(policy=Policy(status_key=True))
    key = f'key="http://{proxy.authority}/x?y"'
    swr = FRESH + ", stale-while-revalidate=60"
    assert cached(fetch(proxy, b"hello", swr, path="/x?y")) == f"fwd=uri-miss; stored; ttl=60; {key}"
    assert cached(hit(proxy, "/x?y")) == f"hit; ttl=60; {key}"
    house.pass_time(61.0)
    assert cached(hit(proxy, "/x?y")) == f"hit; ttl=-1; detail=stale-while-revalidate; {key}"
    proxy.asked().answer(b"hello", swr, TAGGED)
    house.pass_time(1.0)
    client = proxy.ask("/x?y", "Cache-Control: no-cache")
    proxy.asked().answer(b"", TAGGED, swr, status="304 Not Modified")
    assert cached(client.answer()) == f"fwd=request; fwd-status=304; ttl=60; {key}"
    client = proxy.ask("/x?y", "Cache-Control: no-cache")
    proxy.asked().answer(b"mine", "Cache-Control: private")
    assert cached(client.answer()) == f"fwd=request; {key}"
    for method, did in (("HEAD", "uri-miss"), ("PUT", "method")):
        client = proxy.connect()
        client.send(proxy.request(method, "/x?y", "Content-Length: 0"))
        proxy.asked().begin("Content-Length: 0")
        assert cached(client.answer(method.encode())) == f"fwd={did}; {key}"


def test_a_cache_status_that_came_stays_before_ours(proxy: Proxy) -> None:
    fetch(proxy, b"hello", FRESH, "Cache-Status: other; hit")
    assert hit(proxy).fields[b"cache-status"] == b"other; hit, reactor; hit; ttl=60"
    conditional = proxy.ask("/", "If-None-Match: *")
    assert conditional.answer().fields[b"cache-status"] == b"other; hit, reactor; hit; ttl=60"


def test_pipelined_hits_leave_together(proxy: Proxy) -> None:
    fetch(proxy, b"hello", FRESH)
    client = proxy.connect()
    client.send(proxy.get() * 50)
    assert [client.answer().body for _ in range(50)] == [b"hello"] * 50
    proxy.not_asked()


@pytest.mark.parametrize("size", [0, 1, SPILL, SPILL + 1, 500_000])
@pytest.mark.parametrize("framing", ["whole", "length", "chunks", "close"])
def test_what_is_stored_is_what_came(proxy: Proxy, size: int, framing: str) -> None:
    body = os.urandom(size)
    client = proxy.ask()
    asked = proxy.asked()
    if framing == "whole":
        asked.answer(body, FRESH)
    elif framing == "length":
        asked.begin(FRESH, f"Content-Length: {size}")
        asked.peer.send(body[: size // 2], body[size // 2 :])
    elif framing == "chunks":
        asked.begin(FRESH, "Transfer-Encoding: chunked")
        asked.peer.send(*[chunk(body[at : at + 70_000]) for at in range(0, size, 70_000)], b"0\r\n\r\n")
    else:
        asked.begin(FRESH, "Connection: close")
        asked.peer.send(body)
        asked.peer.shutdown()
    assert client.answer().body == body
    for _ in range(2):
        answer = hit(proxy)
        assert (answer.body, answer.fields[b"content-length"]) == (body, b"%d" % size)
    proxy.not_asked()


@pytest.mark.parametrize("size", [5, SPILL + 1])
@pytest.mark.parametrize(
    ("version", "lines"), [("1.0", []), ("1.0", ["Connection: keep-alive"]), ("1.1", ["Connection: close"])]
)
def test_a_hit_says_the_same_to_every_kind_of_client(proxy: Proxy, size: int, version: str, lines: list[str]) -> None:
    fetch(proxy, bytes(size), FRESH, "X-One: 1", "X-one: 2")
    usual = hit(proxy)
    client = proxy.connect()
    client.send(proxy.get("/", *lines, version=version))
    other = client.answer()
    connection = other.fields.pop(b"connection")
    assert (other.fields, other.body) == (usual.fields, usual.body)
    assert connection == (b"keep-alive" if lines == ["Connection: keep-alive"] else b"close")


def test_a_stored_204_has_no_length(proxy: Proxy) -> None:
    client = proxy.ask()
    proxy.asked().peer.send(b"HTTP/1.1 204 No Content\r\nCache-Control: max-age=60\r\n\r\n")
    client.answer()
    client.send(proxy.get() + proxy.request("HEAD", "/") + proxy.get(version="1.0"))
    for method in (b"GET", b"HEAD", b"GET"):
        answer = client.answer(method)
        assert (answer.status, b"content-length" in answer.fields) == (204, False)
        assert cached(answer) == "hit; ttl=60"
    client.expect_close()


def test_errors_are_stored_where_they_say_so(proxy: Proxy) -> None:
    client = proxy.ask()
    asked = proxy.asked()
    asked.answer(b"gone", FRESH, status="404 Not Here")
    assert client.answer().status == 404
    answer = hit(proxy)
    assert answer.head.startswith(b"HTTP/1.1 404 Not Here\r\n") and answer.body == b"gone"


def test_trailers_reach_who_asked_and_are_not_stored(proxy: Proxy) -> None:
    client = proxy.ask("/", "TE: trailers", "Connection: TE")
    asked = proxy.asked()
    asked.begin(FRESH, "Transfer-Encoding: chunked", first=chunk(b"hi"))
    assert client.head().status == 200
    asked.peer.send(b"0\r\nX-Sum: 7\r\n\r\n")
    client.expect(chunk(b"hi") + b"0\r\nX-Sum: 7\r\n\r\n")
    assert hit(proxy).body == b"hi"


# What is not stored.


@pytest.mark.parametrize("how", ["shutdown", "reset", "late", "nonsense"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_what_was_cut_short_is_not_stored(house: House, proxy: Proxy, how: str, framing: str) -> None:
    client = proxy.ask()
    asked = proxy.asked()
    if framing == "length":
        asked.begin(FRESH, "Content-Length: 10", first=b"hello")
    else:
        asked.begin(FRESH, "Transfer-Encoding: chunked", first=chunk(b"hello"))
    client.head()
    if how == "late":
        house.pass_time(60.1)
    elif how == "nonsense":
        asked.peer.send(b"zz\r\n")
        asked.peer.close()
    else:
        getattr(asked.peer, how)()
    ended(client)
    proxy.ask()
    proxy.asked()
    assert len(proxy.caching.store) == 0


def test_what_is_broken_at_once_is_broken_for_who_waits(proxy: Proxy) -> None:
    clients = [proxy.ask() for _ in range(3)]
    asked = proxy.asked()
    asked.begin(FRESH, "Transfer-Encoding: chunked", first=b"zz\r\n")
    for client in clients:
        assert client.head().status == 200
        ended(client)
        assert not client.received
    proxy.ask()
    proxy.asked()


def test_an_answer_that_cannot_be_read_is_shared_and_not_stored(proxy: Proxy) -> None:
    clients = [proxy.ask() for _ in range(3)]
    asked = proxy.asked()
    asked.peer.send(
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    for client in clients:
        answer = client.answer()
        assert (answer.status, b"cache-status" in answer.fields) == (502, False)
    proxy.ask()
    proxy.asked()


@pytest.mark.parametrize(
    ("asking", "fwd"),
    [
        (("Range: bytes=0-1",), "uri-miss"),
        (("Cache-Control: no-store",), "uri-miss"),
        (('If-Match: "x"',), "request"),
    ],
)
def test_passed_on_and_not_stored(proxy: Proxy, asking: tuple[str, ...], fwd: str) -> None:
    for _ in range(2):
        answer = fetch(proxy, b"hello", FRESH, asking=asking)
        assert cached(answer) == f"fwd={fwd}"
    assert len(proxy.caching.store) == 0


def test_the_passed_on_keep_their_own_conditions(proxy: Proxy) -> None:
    client = proxy.ask("/", "Range: bytes=0-1", 'If-Range: "x"', 'If-None-Match: "y"')
    asked = proxy.asked()
    assert {b"range", b"if-range", b"if-none-match"} <= asked.fields.keys()
    asked.answer(b"he", "Content-Range: bytes 0-1/5", status="206 Partial Content")
    assert client.answer().status == 206


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "FOO"])
def test_other_methods_are_passed_on(proxy: Proxy, method: str) -> None:
    client = proxy.connect()
    client.send(proxy.request(method, "/", "Content-Length: 2") + b"hi")
    asked = proxy.asked()
    assert (asked.method, asked.body()) == (method.encode(), b"hi")
    asked.answer(b"ok", FRESH)
    assert cached(client.answer()) == "fwd=method"
    assert len(proxy.caching.store) == 0


def test_a_get_with_content_is_passed_on(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.request("GET", "/", "Content-Length: 2") + b"hi")
    asked = proxy.asked()
    assert asked.body() == b"hi"
    asked.answer(b"ok", FRESH)
    assert cached(client.answer()) == "fwd=bypass"
    proxy.ask()
    proxy.asked()


def test_an_upgrade_is_passed_through(proxy: Proxy) -> None:
    client = proxy.ask("/", "Connection: Upgrade", "Upgrade: x")
    asked = proxy.asked()
    assert asked.fields[b"upgrade"] == b"x"
    asked.peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nhi")
    assert client.head().status == 101
    client.expect(b"hi")


def test_a_target_without_an_origin_is_left_to_the_handler(house: House, make_store: MakeStore) -> None:
    store = make_store()
    handling = Handling(says(b"mine"))
    served = house.serve(Caching(house.reactor, handling, store))
    client = served.connect()
    client.send(b"GET /x HTTP/1.0\r\n\r\n")
    assert client.answer().body == b"mine"
    assert len(handling.exchanges) == 1


@pytest.mark.parametrize("target", ["CONNECT a:80", "OPTIONS *"])
def test_a_target_that_is_no_uri_is_left_to_the_handler(house: House, make_store: MakeStore, target: str) -> None:
    served = house.serve(Caching(house.reactor, Handling(says(b"mine")), make_store()))
    client = served.connect()
    client.send(f"{target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert client.head().status == 200


# Conditions and ranges of the client's own.


def test_conditions_are_answered_from_the_store(proxy: Proxy) -> None:
    fetch(proxy, b"hello", FRESH, TAGGED, "Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT", "Content-Type: text/x", "X-One: 1")
    for asking in (
        'If-None-Match: "zero", "one"',
        'If-None-Match: W/"one"',
        "If-None-Match: *",
        "If-Modified-Since: Sun, 06 Nov 1994 08:00:00 GMT",
    ):
        client = proxy.ask("/", asking)
        answer = client.answer()
        assert (answer.status, answer.fields[b"etag"], answer.fields[b"age"], cached(answer)) == (
            304,
            b'"one"',
            b"0",
            "hit; ttl=60",
        )
        assert answer.fields.keys().isdisjoint({b"content-type", b"content-length", b"transfer-encoding"})
        client.expect_silence()
    for asking in ('If-None-Match: "two"', "If-Modified-Since: Sun, 06 Nov 1994 07:00:00 GMT"):
        assert hit(proxy, "/", asking).body == b"hello"
    proxy.not_asked()


@pytest.mark.parametrize("size", [10, SPILL * 2])
def test_ranges_are_answered_from_the_store(proxy: Proxy, size: int) -> None:
    body = os.urandom(size)
    fetch(proxy, body, FRESH, TAGGED, "Content-Type: text/x")
    for asking, start, stop in (("bytes=2-4", 2, 5), ("bytes=-3", size - 3, size), ("bytes=1-", 1, size)):
        answer = hit(proxy, "/", f"Range: {asking}")
        assert (answer.status, answer.body) == (206, body[start:stop])
        assert answer.fields[b"content-range"] == b"bytes %d-%d/%d" % (start, stop - 1, size)
    assert hit(proxy, "/", "Range: bytes=2-4", 'If-Range: "one"').status == 206
    assert hit(proxy, "/", "Range: bytes=2-4", 'If-Range: "two"').body == body
    assert hit(proxy, "/", "Range: lines=2-4").body == body
    answer = hit(proxy, "/", f"Range: bytes={size}-")
    assert (answer.status, answer.fields[b"content-range"]) == (416, b"bytes */%d" % size)
    proxy.not_asked()


def test_several_ranges_come_in_parts(proxy: Proxy) -> None:
    body = os.urandom(SPILL * 2)
    fetch(proxy, body, FRESH, "Content-Type: text/x")
    answer = hit(proxy, "/", "Range: bytes=0-4,10-19,-7")
    assert answer.status == 206 and b"content-range" not in answer.fields
    kind, _, boundary = answer.fields[b"content-type"].partition(b"; boundary=")
    assert kind == b"multipart/byteranges"
    expected = b""
    for start, stop in ((0, 5), (10, 20), (len(body) - 7, len(body))):
        expected += b"\r\n--%b\r\nContent-Type: text/x\r\nContent-Range: bytes %d-%d/%d\r\n\r\n" % (
            boundary,
            start,
            stop - 1,
            len(body),
        )
        expected += body[start:stop]
    assert answer.body == expected[2:] + b"\r\n--%b--\r\n" % boundary


def test_head_is_answered_from_what_get_stored(proxy: Proxy) -> None:
    for size in (5, SPILL + 1):
        fetch(proxy, bytes(size), FRESH, path=f"/{size}")
        client = proxy.connect()
        client.send(proxy.request("HEAD", f"/{size}") + proxy.request("HEAD", f"/{size}", "Connection: close"))
        for _ in range(2):
            answer = client.answer(b"HEAD")
            assert (answer.fields[b"content-length"], cached(answer)) == (b"%d" % size, "hit; ttl=60")
        client.expect_close()
    proxy.not_asked()


@pytest.mark.parametrize("condition", ['If-None-Match: "one"', "If-Modified-Since: Sun, 06 Nov 1994 08:00:00 GMT"])
def test_where_nothing_is_stored_a_condition_is_for_the_origin(proxy: Proxy, condition: str) -> None:
    client = proxy.ask("/", condition)
    asked = proxy.asked()
    name, _, value = condition.partition(": ")
    assert asked.fields[name.lower().encode()] == value.encode()
    asked.begin(TAGGED, FRESH, status="304 Not Modified")
    answer = client.answer()
    assert (answer.status, cached(answer), answer.fields[b"etag"]) == (304, "fwd=uri-miss", b'"one"')
    assert len(proxy.caching.store) == 0 and not proxy.caching.unstorable
    again = proxy.ask("/", condition)  # it is asked for more than once: the whole is fetched
    asked = proxy.asked()
    assert name.lower().encode() not in asked.fields
    asked.answer(b"hello", FRESH, TAGGED, "Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT")
    answer = again.answer()
    assert (answer.status, cached(answer)) == (304, "fwd=uri-miss; fwd-status=200; stored; ttl=60")
    assert hit(proxy).body == b"hello"


def test_the_full_answer_to_a_condition_is_stored(proxy: Proxy) -> None:
    client = proxy.ask("/", 'If-None-Match: "old"')
    proxy.asked().answer(b"hello", FRESH, TAGGED)
    assert client.answer().body == b"hello" and hit(proxy).body == b"hello"


def test_nobody_waits_for_the_answer_to_anothers_condition(proxy: Proxy) -> None:
    """Its 304 is for who has asked alone; all the others, with conditions or without, are one fetch of the whole."""
    first = proxy.ask("/", 'If-None-Match: "one"')
    conditional = proxy.asked()
    others = [proxy.ask("/", *lines) for lines in [('If-None-Match: "one"',), (), ('If-None-Match: "two"',), ()]]
    whole = proxy.asked()
    assert b"if-none-match" in conditional.fields and b"if-none-match" not in whole.fields
    proxy.not_asked()
    conditional.begin(TAGGED, status="304 Not Modified")
    assert first.answer().status == 304
    for other in others:
        other.expect_silence()
    whole.answer(b"hello", FRESH, TAGGED)
    assert [other.answer().status for other in others] == [304, 200, 200, 200]


def test_who_reloads_with_conditions_sends_them(proxy: Proxy) -> None:
    clients = [proxy.ask("/", "Cache-Control: max-age=0", f'If-None-Match: "{n}"') for n in range(2)]
    for n, client in enumerate(clients):
        asked = proxy.asked()
        assert asked.fields[b"if-none-match"] == b'"%d"' % n
        asked.begin(f'ETag: "{n}"', status="304 Not Modified")
        assert client.answer().status == 304


def test_what_clients_have_validated_is_remembered_within_bounds(proxy: Proxy) -> None:
    for n in range(VALIDATED_KEYS + 10):
        proxy.caching.mark_validated(b"http://a/%d" % n)
    assert len(proxy.caching._validated) == VALIDATED_KEYS
    assert b"http://a/9" not in proxy.caching._validated and b"http://a/10" in proxy.caching._validated


@pytest.mark.parametrize("alone", [True, False])
def test_who_has_it_already_need_not_wait_for_the_body(proxy: Proxy, alone: bool) -> None:
    first = proxy.ask()
    asked = proxy.asked()
    has = proxy.ask("/", 'If-None-Match: "one"')
    if alone:
        first.reset()
        proxy.house.turns()
    asked.begin(FRESH, TAGGED, f"Content-Length: {LITTLE * 2}", first=b"x")
    assert has.answer().status == 304
    late = proxy.ask("/", 'If-None-Match: "one"')
    assert late.answer().status == 304
    asked.peer.send(bytes(LITTLE * 2 - 1))
    if not alone:
        assert len(first.answer().body) == LITTLE * 2
    assert len(hit(proxy).body) == LITTLE * 2
    proxy.not_asked()


# Ranges that nothing stored answers.

PARTS = Policy(store_partial=True)
WHOLE = Policy(fetch_whole=True)
LARGE = LITTLE * 3


PLACES = st.integers(0, 99)


def ranged(first: int, last: int) -> str:
    return f"Range: bytes={first}-{last}"


def content_range(first: int, last: int, complete: int = LARGE) -> str:
    return f"Content-Range: bytes {first}-{last}/{complete}"


@pytest.mark.parametrize("streamed", [True, False])
def test_parts_are_stored_and_put_together(make_proxy: Callable[..., Proxy], streamed: bool) -> None:
    proxy = make_proxy(policy=PARTS)
    body = random.randbytes(LARGE)
    for first, last in [(0, 99_999), (100_000, 300_000), (300_000, LARGE - 1)]:
        client = proxy.ask("/", ranged(first, last))
        asked = proxy.asked()
        assert asked.fields[b"range"] == b"bytes=%d-%d" % (first, last)
        lines = (FRESH, TAGGED, content_range(first, last), f"Content-Length: {last - first + 1}")
        asked.begin(*lines, status="206 Partial Content", first=b"" if streamed else body[first : last + 1])
        if streamed:
            proxy.house.turns()
            asked.peer.send(body[first : last + 1])
        answer = client.answer()
        assert (answer.status, answer.body, cached(answer)) == (206, body[first : last + 1], "fwd=" + (
            "partial" if first else "uri-miss") + "; stored; ttl=60")  # fmt: skip
        proxy.house.turns()
        answer = hit(proxy, "/", ranged(50, last - 50))
        assert (answer.status, answer.body) == (206, body[50 : last - 49])
        assert answer.fields[b"content-range"] == b"bytes 50-%d/%d" % (last - 50, LARGE)
    assert len(proxy.caching.store) == 1
    assert hit(proxy).body == body


def test_who_reads_a_part_that_is_made_longer_gets_just_its_part(make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(policy=PARTS)
    body = random.randbytes(LARGE)
    size = LITTLE * 2 - 1001
    slow = proxy.connect(small_buffers=True)
    slow.send(proxy.get("/", ranged(0, size - 1)))
    asked = proxy.asked()
    asked.begin(FRESH, TAGGED, content_range(0, size - 1), f"Content-Length: {size}", status="206 Partial Content")
    asked.peer.send(body[:size])
    proxy.house.turns()
    other = proxy.ask("/", ranged(size, LARGE - 1))
    lines = (FRESH, TAGGED, content_range(size, LARGE - 1))
    proxy.asked().answer(body[size:], *lines, status="206 Partial Content")
    assert other.answer().body == body[size:]
    assert slow.answer().body == body[:size]
    assert hit(proxy).body == body


@pytest.mark.parametrize("how", ["the origin breaks off", "the client leaves"])
def test_what_came_of_a_body_that_broke_off_is_a_part(house: House, make_proxy: Callable[..., Proxy], how: str) -> None:
    proxy = make_proxy(policy=PARTS)
    body = random.randbytes(LARGE)
    client = proxy.ask()
    asked = proxy.asked()
    asked.begin(FRESH, TAGGED, f"Content-Length: {LARGE}", first=body[:50_000])
    client.take(50_000)
    client.reset() if how == "the client leaves" else asked.peer.reset()
    house.turns()
    assert len(proxy.caching.store) == 1
    first = int(hit(proxy, "/", ranged(0, 40_000)).fields[b"content-length"])
    assert first == 40_001
    again = [proxy.ask(), proxy.ask()]
    asked = proxy.asked()
    start = int(asked.fields[b"range"].removeprefix(b"bytes=").removesuffix(b"-"))
    assert start >= 50_000 and asked.fields[b"if-range"] == b'"one"'
    lines = (FRESH, TAGGED, content_range(start, LARGE - 1), f"Content-Length: {LARGE - start}")
    asked.begin(*lines, status="206 Partial Content", first=body[start : start + 1000])
    house.turns()
    asked.peer.send(body[start + 1000 :])
    for client in again:
        answer = client.answer()
        assert (answer.status, answer.body) == (200, body) and b"content-range" not in answer.fields
    assert hit(proxy).body == body and len(proxy.caching.store) == 1


@pytest.mark.parametrize("streamed", [True, False])
def test_who_asks_for_the_same_range_waits_for_it(make_proxy: Callable[..., Proxy], streamed: bool) -> None:
    proxy = make_proxy(policy=PARTS)
    body = random.randbytes(1000)
    same = [proxy.ask("/", ranged(100, 299)) for _ in range(3)]
    asked = proxy.asked()
    others = [proxy.ask("/", ranged(100, 298)), proxy.ask("/", ranged(100, 299), 'If-Range: "one"'), proxy.ask()]
    for client in others:
        proxy.asked().answer(b"", status="503 Service Unavailable")
        assert client.answer().status == 503
    lines = (FRESH, TAGGED, content_range(100, 299, 1000), "Content-Length: 200")
    asked.begin(*lines, status="206 Partial Content", first=body[100:150] if streamed else body[100:300])
    if streamed:
        proxy.house.turns()
        same.append(proxy.ask("/", ranged(100, 299)))
        proxy.not_asked()
        asked.peer.send(body[150:300])
    answers = [client.answer() for client in same]
    for answer in answers:
        assert (answer.status, answer.body) == (206, body[100:300])
        assert answer.fields[b"content-range"] == b"bytes 100-299/1000"
    assert [cached(answer) for answer in answers[:2]] == [
        "fwd=uri-miss; stored; ttl=60", "fwd=uri-miss; stored; collapsed; ttl=60"
    ]  # fmt: skip
    assert hit(proxy, "/", ranged(100, 299)).body == body[100:300]


def test_a_range_that_there_is_not_says_nothing_of_the_rest(make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(policy=PARTS)
    clients = [proxy.ask("/", ranged(10, 19)) for _ in range(3)]
    for _ in clients:  # the first one's, then each one's own
        proxy.asked().answer(b"", FRESH, "Content-Range: bytes */5", status="416 Range Not Satisfiable")
    assert [client.answer().status for client in clients] == [416] * 3
    together = [proxy.ask(), proxy.ask()]
    proxy.asked().answer(b"hello", FRESH)
    assert [client.answer().body for client in together] == [b"hello"] * 2
    assert hit(proxy, "/", ranged(0, 1)).body == b"he"


def test_nor_does_it_after_one_that_could_not_be_stored(make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(policy=PARTS)
    fetch(proxy, b"mine", "Cache-Control: private")
    client = proxy.ask("/", ranged(10, 19))
    proxy.asked().answer(b"", "Content-Range: bytes */5", status="416 Range Not Satisfiable")
    assert client.answer().status == 416
    fetch(proxy, b"hello", FRESH)
    assert hit(proxy).body == b"hello"


def test_a_part_that_may_not_be_stored_is_remembered(make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(policy=PARTS)
    lines = ("Cache-Control: no-store", content_range(0, 1, 5))
    clients = [proxy.ask("/", ranged(0, 1)) for _ in range(3)]
    proxy.asked().answer(b"he", *lines, status="206 Partial Content")
    clients += [proxy.ask("/", ranged(0, 1)) for _ in range(2)]
    asked = [proxy.asked() for _ in range(4)]  # all at once
    for own in asked:
        own.answer(b"he", *lines, status="206 Partial Content")
    assert [client.answer().body for client in clients] == [b"he"] * 5


@pytest.mark.parametrize("last, stored", [(2, False), (4, True), (6, True)])
def test_a_part_of_unknown_length_is_what_came_of_it(make_proxy: Callable[..., Proxy], last: int, stored: bool) -> None:
    proxy = make_proxy(policy=PARTS)
    client = proxy.ask("/", ranged(0, 6))
    asked = proxy.asked()
    asked.begin(FRESH, TAGGED, content_range(0, last, 9), "Transfer-Encoding: chunked", status="206 Partial Content")
    asked.peer.send(chunk(b"012"))
    client.take_until(b"012")
    asked.peer.send(chunk(b"34") + chunk(b""))
    client.take_until(b"0\r\n\r\n")
    assert len(proxy.caching.store) == stored
    if stored:
        assert hit(proxy, "/", ranged(3, 4)).body == b"34"
        proxy.ask("/", ranged(3, 5))
        assert proxy.asked().fields[b"range"] == b"bytes=3-5"


def test_several_ranges_of_a_part(make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(policy=PARTS)
    client = proxy.ask("/", ranged(2, 8))
    proxy.asked().answer(b"2345678", FRESH, TAGGED, content_range(2, 8, 10), status="206 Partial Content")
    assert client.answer().body == b"2345678"
    body = hit(proxy, "/", "Range: bytes=3-3,6-7").body
    assert b"Content-Range: bytes 3-3/10\r\n\r\n3\r\n--" in body and b"Content-Range: bytes 6-7/10\r\n\r\n67\r\n--" in body


def test_a_part_that_breaks_off_is_not_stored(house: House, make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(policy=PARTS)
    client = proxy.ask("/", ranged(0, 9))
    asked = proxy.asked()
    asked.begin(FRESH, TAGGED, content_range(0, 9), "Content-Length: 10", status="206 Partial Content", first=b"01234")
    client.head()
    asked.peer.reset()
    ended(client)
    assert len(proxy.caching.store) == 0


@pytest.mark.parametrize("last", [5, 9])
@pytest.mark.parametrize("how", ["stated", "chunked", "streamed"])
def test_a_part_is_stored_as_what_came_of_it(
    house: House, make_proxy: Callable[..., Proxy], how: str, last: int
) -> None:
    proxy = make_proxy(policy=PARTS)
    client = proxy.ask("/", ranged(0, last))
    asked = proxy.asked()
    framing = "Content-Length: 4" if how == "stated" else "Transfer-Encoding: chunked"
    body = b"0123" if how == "stated" else chunk(b"0123") + b"0\r\n\r\n"
    first = b"" if how == "streamed" else body
    asked.begin(FRESH, TAGGED, content_range(0, last, 10), framing, status="206 Partial Content", first=first)
    if how == "streamed":
        house.turns()
        asked.peer.send(body)
    assert client.answer().body == b"0123"
    assert hit(proxy, "/", ranged(0, 3)).body == b"0123"
    proxy.ask("/", ranged(0, last))
    proxy.asked()


def test_a_range_may_fetch_the_whole(make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(policy=WHOLE)
    clients = [proxy.ask("/", ranged(2, 3)), proxy.ask("/", "Range: bytes=-1"), proxy.ask()]
    asked = proxy.asked()
    assert b"range" not in asked.fields
    asked.answer(b"hello", FRESH)
    answers = [client.answer() for client in clients]
    assert [(answer.status, answer.body) for answer in answers] == [(206, b"ll"), (206, b"o"), (200, b"hello")]
    assert [cached(answer) for answer in answers] == [
        "fwd=uri-miss; fwd-status=200; stored; ttl=60",
        "fwd=uri-miss; fwd-status=200; stored; collapsed; ttl=60",
        "fwd=uri-miss; stored; collapsed; ttl=60",
    ]
    assert hit(proxy).body == b"hello"


def test_a_range_is_answered_as_soon_as_it_has_come_and_the_whole_is_stored(
    house: House, make_proxy: Callable[..., Proxy]
) -> None:
    proxy = make_proxy(policy=WHOLE)
    body = random.randbytes(LARGE)
    client = proxy.ask("/", ranged(70_000, 70_004))
    asked = proxy.asked()
    asked.begin(FRESH, f"Content-Length: {LARGE}", first=body[:60_000])
    head = client.head()
    assert (head.status, head.fields[b"content-range"]) == (206, b"bytes 70000-70004/%d" % LARGE)
    client.expect_silence()
    asked.peer.send(body[60_000:80_000])
    assert client.take(5) == body[70_000:70_005]
    client.close()
    house.turns()
    late = proxy.ask("/", ranged(10, 19))
    assert late.answer().body == body[10:20]
    asked.peer.send(body[80_000:])
    assert hit(proxy).body == body


def test_a_range_of_what_is_too_large_to_be_stored(make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(limit=4 * MIB, policy=WHOLE)
    body = random.randbytes(3 * MIB)
    client = proxy.ask("/", ranged(0, 9))
    asked = proxy.asked()
    asked.begin(FRESH, f"Content-Length: {len(body)}")
    asked.peer.send(body)
    assert client.answer().body == body
    again = proxy.ask("/", ranged(0, 9))
    asked = proxy.asked()
    assert asked.fields[b"range"] == b"bytes=0-9"
    asked.answer(body[:10], content_range(0, 9, len(body)), status="206 Partial Content")
    assert again.answer().body == body[:10]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(PLACES, PLACES, st.sampled_from([1, 1, 1, 2]), st.booleans()), min_size=2, max_size=14), st.booleans()
)
def test_whatever_parts_come_a_range_is_what_the_origin_has(
    asks: list[tuple[int, int, int, bool]], later: bool
) -> None:
    """The whole changes now and then; an answer's bytes are those of the tag it bears."""
    house = House()
    memory = MemoryStore(40_000)
    proxy = Proxy(house, store=LaterStore(house.reactor, memory) if later else memory, policy=PARTS)
    wholes = {version: random.Random(version).randbytes(100) for version in (1, 2)}
    try:
        for one, other, version, ranging in asks:
            first, last = sorted((one, other))
            client = proxy.ask("/", *([ranged(first, last)] if ranging else []))
            if proxy.heard():
                asked = proxy.asked()
                lines = (FRESH, f'ETag: "{version}"')
                if b"range" in asked.fields and asked.fields.get(b"if-range", b'"%d"' % version) == b'"%d"' % version:
                    start, _, stop = asked.fields[b"range"].removeprefix(b"bytes=").partition(b"-")
                    begin, end = int(start), int(stop or 99)
                    part = wholes[version][begin : end + 1]
                    asked.answer(part, *lines, content_range(begin, end, 100), status="206 Partial Content")
                else:
                    asked.answer(wholes[version], *lines)
            answer = client.answer()
            whole = wholes[int(answer.fields[b"etag"].strip(b'"'))]
            assert answer.status == (206 if ranging else 200)
            assert answer.body == (whole[first : last + 1] if ranging else whole)
            client.close()
            house.turns(8)
            assert memory.used <= memory.limit
            assert memory.findable == memory.used == sum(content.charged for content in contents(memory))
        house.close()
    finally:
        house.give_up()


# What the client asks of caches.


def test_only_if_cached(proxy: Proxy) -> None:
    client = proxy.ask("/", "Cache-Control: only-if-cached")
    assert client.answer().status == 504
    proxy.not_asked()
    fetch(proxy, b"hello", FRESH)
    assert hit(proxy, "/", "Cache-Control: only-if-cached").body == b"hello"


@pytest.mark.parametrize("asking", ["Cache-Control: no-cache", "Pragma: no-cache", "Cache-Control: max-age=0"])
def test_a_reload_validates(proxy: Proxy, asking: str) -> None:
    fetch(proxy, b"hello", FRESH, TAGGED)
    client = proxy.ask("/", asking)
    asked = proxy.asked()
    assert asked.fields[b"if-none-match"] == b'"one"'
    asked.begin(TAGGED, status="304 Not Modified")
    answer = client.answer()
    assert (answer.body, cached(answer)) == (b"hello", "fwd=request; fwd-status=304; ttl=60")
    assert hit(proxy).body == b"hello"


def test_max_stale_and_min_fresh(house: House, proxy: Proxy) -> None:
    fetch(proxy, b"hello", FRESH)
    house.pass_time(50.0)
    client = proxy.ask("/", "Cache-Control: min-fresh=20")
    proxy.asked().answer(b"newer", FRESH)
    assert cached(client.answer()).startswith("fwd=request")
    house.pass_time(70.0)
    answer = hit(proxy, "/", "Cache-Control: max-stale=20")
    assert (answer.body, cached(answer)) == (b"newer", "hit; ttl=-10; detail=max-stale")


# Validation.


def stale(house: House, proxy: Proxy, *lines: str, body: bytes = b"hello") -> None:
    """Something stored that is stale by ten seconds."""
    fetch(proxy, body, FRESH, *lines)
    house.pass_time(70.0)


def test_304_makes_it_fresh_again(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED, "Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT", "X-One: 1")
    client = proxy.ask()
    asked = proxy.asked()
    assert asked.fields[b"if-none-match"] == b'"one"'
    assert asked.fields[b"if-modified-since"] == b"Sun, 06 Nov 1994 08:00:00 GMT"
    asked.peer.send(
        b"HTTP/1.1 304 Not Modified\r\nDate: Sun, 06 Nov 1994 08:50:47 GMT\r\n"
        b'ETag: "one"\r\nCache-Control: max-age=30\r\nX-One: 2\r\n\r\n'
    )
    answer = client.answer()
    assert (answer.status, answer.body, answer.fields[b"x-one"]) == (200, b"hello", b"2")
    assert cached(answer) == "fwd=stale; fwd-status=304; ttl=30"
    answer = hit(proxy)
    assert (answer.body, cached(answer), answer.fields[b"age"]) == (b"hello", "hit; ttl=30", b"0")
    assert [exchange.verdict for exchange in proxy.ended][1:] == ["revalidated", "hit"]
    assert proxy.ended[1].upstream == proxy.authority


def test_200_replaces_it(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED)
    client = proxy.ask()
    proxy.asked().answer(b"newer", FRESH, 'ETag: "two"', f"Age: {0}")
    answer = client.answer()
    assert (answer.body, cached(answer)[:9]) == (b"newer", "fwd=stale")
    house.turns()
    assert len(proxy.caching.store) == 1
    assert proxy.ended[-1].verdict == "miss"  # the whole came: nothing was found to be good still


@pytest.mark.parametrize("outcome", ["304", "whole", "streamed"])
def test_a_range_of_what_is_stale(house: House, proxy: Proxy, outcome: str) -> None:
    stale(house, proxy, TAGGED)
    client = proxy.ask("/", "Range: bytes=1-2", 'If-Range: "one"')
    asked = proxy.asked()
    assert asked.fields[b"if-none-match"] == b'"one"' and asked.fields.keys().isdisjoint({b"range", b"if-range"})
    if outcome == "304":
        asked.begin(TAGGED, status="304 Not Modified")
    elif outcome == "whole":
        asked.answer(b"HELLO", TAGGED, FRESH)
    else:
        asked.begin(TAGGED, FRESH, "Content-Length: 5", first=b"HE")
        asked.peer.send(b"LLO")
    answer = client.answer()
    assert (answer.status, answer.body) == {"304": (206, b"el"), "whole": (206, b"EL"), "streamed": (206, b"EL")}[outcome]


def test_a_client_that_has_the_stale_one_gets_304(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED)
    client = proxy.ask("/", 'If-None-Match: "one"')
    proxy.asked().begin(TAGGED, status="304 Not Modified")
    assert client.answer().status == 304
    assert len(proxy.caching.store) == 1


def test_a_304_for_what_only_the_client_has_goes_to_it_alone(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED)
    client = proxy.ask("/", 'If-None-Match: "mine"')
    other = proxy.ask()
    asked = proxy.asked()
    assert asked.fields[b"if-none-match"] == b'"one", "mine"'
    asked.begin('ETag: "mine"', status="304 Not Modified")
    answer = client.answer()
    assert (answer.status, answer.fields[b"etag"]) == (304, b'"mine"')
    again = proxy.asked()
    assert again.fields[b"if-none-match"] == b'"one"'
    again.answer(b"newer", FRESH)
    assert other.answer().body == b"newer"


def test_a_304_for_nothing_is_asked_again_without_conditions(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED)
    clients = [proxy.ask() for _ in range(3)]
    proxy.asked().begin('ETag: "unknown"', status="304 Not Modified")
    asked = proxy.asked()
    assert b"if-none-match" not in asked.fields
    asked.answer(b"newer", FRESH)
    assert [client.answer().body for client in clients] == [b"newer"] * 3
    assert hit(proxy).body == b"newer"


def test_without_a_validator_it_is_fetched_anew(house: House, proxy: Proxy) -> None:
    stale(house, proxy)
    client = proxy.ask()
    asked = proxy.asked()
    assert asked.fields.keys().isdisjoint({b"if-none-match", b"if-modified-since"})
    asked.answer(b"newer", FRESH)
    assert client.answer().body == b"newer"


def test_all_who_wait_for_a_validation_are_answered_with_it(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED)
    clients = [proxy.ask() for _ in range(5)]
    asked = proxy.asked()
    asked.begin(TAGGED, status="304 Not Modified")
    answers = [client.answer() for client in clients]
    assert [answer.body for answer in answers] == [b"hello"] * 5
    assert [cached(answer) for answer in answers] == ["fwd=stale; fwd-status=304; ttl=60"] + [
        "fwd=stale; fwd-status=304; collapsed; ttl=60"
    ] * 4
    proxy.not_asked()


def test_what_is_evicted_while_it_is_validated_is_served_all_the_same(house: House, proxy: Proxy) -> None:
    for size in (5, SPILL * 2):
        body = os.urandom(size)
        stale(house, proxy, TAGGED, body=body)
        clients = [proxy.ask() for _ in range(2)]
        asked = proxy.asked()
        memory = getattr(proxy.caching.store, "store", proxy.caching.store)
        assert memory.purge(lambda key, entry: True) == 1
        asked.begin(TAGGED, status="304 Not Modified")
        assert [client.answer().body for client in clients] == [body] * 2
        assert memory.used == 0


def test_a_response_that_must_not_be_stored_ends_what_was(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED)
    client = proxy.ask()
    proxy.asked().answer(b"secret", "Cache-Control: no-store")
    answer = client.answer()
    assert (answer.body, cached(answer)) == (b"secret", "fwd=stale")
    other = proxy.ask("/", "Cache-Control: max-stale=1000")
    proxy.asked().answer(b"secret too", "Cache-Control: no-store")
    assert other.answer().body == b"secret too"


# Failures.


def test_an_error_is_answered_with_what_is_stale_if_that_is_allowed(house: House, proxy: Proxy) -> None:
    stale(house, proxy, "Cache-Control: stale-if-error=100")
    clients = [proxy.ask() for _ in range(2)]
    proxy.asked().answer(b"oh dear", status="503 Service Unavailable")
    for client in clients:
        answer = client.answer()
        assert (answer.status, answer.body, answer.fields[b"age"]) == (200, b"hello", b"70")
        assert cached(answer).startswith("fwd=stale; fwd-status=503; ") and "ttl=-10; detail=stale-if-error" in cached(
            answer
        )
    assert proxy.ended[-1].verdict == "stale"


def test_an_error_is_passed_on_if_it_is_not(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED)
    client = proxy.ask()
    proxy.asked().answer(b"oh dear", status="503 Service Unavailable")
    answer = client.answer()
    assert (answer.status, answer.body, cached(answer)) == (503, b"oh dear", "fwd=stale")
    assert len(proxy.caching.store) == 1


def test_an_origin_that_cannot_be_reached_is_answered_for(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED)
    proxy.origin.sock.close()
    for peer in proxy._open:
        peer.close()
    clients = [proxy.ask() for _ in range(3)]
    for client in clients:
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"hello")
        assert (
            "fwd=stale" in cached(answer)
            and "fwd-status" not in cached(answer)
            and "detail=disconnected" in cached(answer)
        )


def test_what_must_be_validated_is_not(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED, "Cache-Control: must-revalidate")
    proxy.origin.sock.close()
    for peer in proxy._open:
        peer.close()
    client = proxy.ask()
    answer = client.answer()
    assert answer.status == 504
    assert answer.body == f"504 Gateway Timeout: upstream {proxy.authority}: Connection refused\n".encode()


def test_one_error_page_for_all_who_wait(house: House, proxy: Proxy) -> None:
    clients = [proxy.ask() for _ in range(4)]
    proxy.asked()
    house.pass_time(60.1)
    answers = [client.answer() for client in clients]
    assert {(answer.status, answer.body) for answer in answers} == {
        (504, f"504 Gateway Timeout: upstream {proxy.authority}: did not answer within 60 s (first-byte timeout)\n".encode())
    }
    assert all(b"cache-status" not in answer.fields for answer in answers)
    assert {exchange.upstream for exchange in proxy.ended} == {proxy.authority}
    proxy.not_asked()
    proxy.ask()  # and it is not remembered
    proxy.asked()


# Stale while it is validated.


def test_a_stale_answer_comes_at_once_and_one_validation_runs_behind(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED, "Cache-Control: stale-while-revalidate=100")
    for _ in range(5):
        answer = hit(proxy)
        assert (answer.body, cached(answer)) == (b"hello", "hit; ttl=-10; detail=stale-while-revalidate")
    asked = proxy.asked()
    assert asked.fields[b"if-none-match"] == b'"one"'
    proxy.not_asked()
    asked.begin(TAGGED, status="304 Not Modified")
    house.turns()
    answer = hit(proxy)
    assert (answer.body, cached(answer)) == (b"hello", "hit; ttl=60")
    proxy.not_asked()


def test_a_part_on_its_way_does_not_keep_it_from_being_validated(
    house: House, make_proxy: Callable[..., Proxy]
) -> None:
    proxy = make_proxy(policy=PARTS)
    lines = ("Cache-Control: max-age=60, stale-while-revalidate=60", "Vary: X", TAGGED)
    fetch(proxy, b"hello", *lines, asking=("X: 1",))
    house.pass_time(61.0)
    downloading = proxy.ask("/", "X: 2", ranged(0, 9))
    part = proxy.asked()
    part.begin(*lines, content_range(0, 9, 10), "Content-Length: 10", status="206 Partial Content", first=b"01234")
    downloading.head()
    assert proxy.ask("/", "X: 1").answer().body == b"hello"
    proxy.asked().begin(*lines, status="304 Not Modified")
    house.turns()
    assert cached(hit(proxy, "/", "X: 1")) == "hit; ttl=60"
    part.peer.send(b"56789")
    assert downloading.take(10) == b"0123456789"


def test_behind_it_may_be_replaced(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED, "Cache-Control: stale-while-revalidate=100")
    assert hit(proxy).body == b"hello"
    asked = proxy.asked()
    asked.begin(FRESH, "Content-Length: 100000", first=bytes(50_000))
    assert hit(proxy).body == b"hello"
    asked.peer.send(bytes(50_000))
    house.turns()
    assert hit(proxy).body == bytes(100_000)
    assert len(proxy.caching.store) == 1


@pytest.mark.parametrize("how", ["error", "reset", "cut", "unstorable", "too large"])
def test_behind_it_may_fail_and_nobody_minds(house: House, make_proxy: Callable[..., Proxy], how: str) -> None:
    proxy = make_proxy(400_000)
    stale(house, proxy, TAGGED, "Cache-Control: stale-while-revalidate=1000")
    client = proxy.ask()
    assert client.answer().body == b"hello"
    asked = proxy.asked()
    if how == "error":
        asked.answer(b"oh dear", status="500 Internal Server Error")
    elif how == "reset":
        asked.peer.reset()
    elif how == "cut":
        asked.begin(FRESH, "Content-Length: 10", first=b"hel")
        house.turns()
        asked.peer.reset()
    elif how == "unstorable":
        asked.begin("Cache-Control: no-store", "Content-Length: 1000", first=b"x")
        ended(asked.peer)
    else:
        asked.begin(FRESH, "Connection: close", first=bytes(60_000))
        asked.peer.offer(bytes(200_000))
        ended(asked.peer)
    house.turns()
    assert not proxy.caching.fetches and not proxy.caching.apart
    client.expect_silence()
    if how != "unstorable":
        assert hit(proxy).body == b"hello"
        proxy.asked()


def test_who_needs_the_validated_one_waits_for_it(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED, "Cache-Control: stale-while-revalidate=20")
    assert hit(proxy).body == b"hello"
    asked = proxy.asked()
    house.pass_time(20.0)  # too stale by now
    clients = [proxy.ask() for _ in range(2)]
    proxy.not_asked()
    clients.pop().close()
    clients.append(proxy.ask())
    asked.begin(TAGGED, status="304 Not Modified")
    assert [client.answer().body for client in clients] == [b"hello"] * 2


def test_what_goes_on_behind_goes_on_though_those_who_came_to_wait_leave(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED, "Cache-Control: stale-while-revalidate=20")
    assert hit(proxy).body == b"hello"
    asked = proxy.asked()
    house.pass_time(20.0)
    proxy.ask().reset()
    house.turns()
    asked.begin(TAGGED, status="304 Not Modified")
    house.turns()
    assert cached(hit(proxy)) == "hit; ttl=40"  # so long was the answer on its way


def test_head_validates_nothing_behind(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED, "Cache-Control: stale-while-revalidate=100")
    client = proxy.connect()
    client.send(proxy.request("HEAD", "/"))
    assert cached(client.answer(b"HEAD")) == "hit; ttl=-10; detail=stale-while-revalidate"
    proxy.not_asked()


# One fetch for many.


def crowd(proxy: Proxy, number: int, path: str = "/", *asking: str) -> list[Peer]:
    return [proxy.ask(path, *asking) for _ in range(number)]


def test_many_at_once_make_one_fetch(proxy: Proxy) -> None:
    clients = crowd(proxy, 50)
    asked = proxy.asked()
    proxy.not_asked()
    asked.answer(b"hello", FRESH)
    answers = [client.answer() for client in clients]
    assert [answer.body for answer in answers] == [b"hello"] * 50
    assert cached(answers[0]) == "fwd=uri-miss; stored; ttl=60"
    assert {cached(answer) for answer in answers[1:]} == {"fwd=uri-miss; stored; collapsed; ttl=60"}
    assert all(answer.fields[b"age"] == b"0" for answer in answers[1:])
    assert [exchange.verdict for exchange in proxy.ended].count("collapsed") == 49
    assert {exchange.upstream for exchange in proxy.ended} == {proxy.authority}
    proxy.not_asked()


def test_it_is_streamed_to_all_as_it_arrives(proxy: Proxy) -> None:
    clients = crowd(proxy, 5)
    asked = proxy.asked()
    asked.begin(FRESH, "Content-Length: 6", first=b"ab")
    for client in clients:
        assert client.head().fields[b"content-length"] == b"6"
        client.expect(b"ab")
    for piece in (b"cd", b"ef"):
        asked.peer.send(piece)
        for client in clients:
            client.expect(piece)
    assert hit(proxy).body == b"abcdef"


def test_who_comes_in_the_middle_gets_all_of_it(house: House, proxy: Proxy) -> None:
    first = proxy.ask()
    asked = proxy.asked()
    asked.begin(FRESH, "Transfer-Encoding: chunked", first=chunk(b"abc"))
    first.head()
    first.expect(chunk(b"abc"))
    house.pass_time(5.0)
    late = proxy.ask()
    head = late.head()
    assert (cached(head), head.fields[b"age"]) == ("fwd=uri-miss; stored; collapsed; ttl=55", b"5")
    late.expect(chunk(b"abc"))
    asked.peer.send(chunk(b"def") + b"0\r\n\r\n")
    for client in (first, late):
        client.expect(chunk(b"def") + b"0\r\n\r\n")
    proxy.not_asked()


def test_each_at_its_own_pace_from_shared_bytes(make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(64 * MIB)
    size = 10 * MIB
    body = random.Random(1).randbytes(size)
    slow = proxy.connect(small_buffers=True)
    slow.send(proxy.get())
    fast = proxy.ask()
    asked = proxy.asked()
    asked.begin(FRESH, f"Content-Length: {size}")
    fast.head()
    sent = 0

    def whole() -> bool:
        nonlocal sent
        sent += asked.peer.offer(body[sent : sent + 500_000])
        fast.read()
        return len(fast.received) == size

    proxy.house.until(whole, "the fast one's end")
    assert fast.take(size) == body
    assert slow.answer().body == body
    assert hit(proxy).body == body
    proxy.not_asked()


def test_a_reader_that_leaves_harms_nobody(proxy: Proxy) -> None:
    clients = crowd(proxy, 3)
    asked = proxy.asked()
    asked.begin(FRESH, "Transfer-Encoding: chunked", first=chunk(b"abc"))
    for client in clients:
        client.head()
    clients.pop(0).reset()
    clients.pop(0).close()
    asked.peer.send(chunk(b"def") + b"0\r\n\r\n")
    clients[0].expect(chunk(b"abc") + chunk(b"def") + b"0\r\n\r\n")
    assert hit(proxy).body == b"abcdef"


def test_one_that_leaves_while_waiting_harms_nobody(proxy: Proxy) -> None:
    clients = crowd(proxy, 3)
    asked = proxy.asked()
    clients.pop(0).reset()
    asked.answer(b"hello", FRESH)
    assert [client.answer().body for client in clients] == [b"hello"] * 2
    proxy.not_asked()


@pytest.mark.parametrize("phase", ["head", "body"])
def test_the_last_one_leaving_ends_the_fetch(house: House, proxy: Proxy, phase: str) -> None:
    clients = crowd(proxy, 2)
    asked = proxy.asked()
    if phase == "body":
        asked.begin(FRESH, "Transfer-Encoding: chunked", first=chunk(b"abc"))
        for client in clients:
            client.head()
    for client in clients:
        client.reset()
    asked.peer.expect_reset()
    proxy.ask()  # who comes now begins anew
    assert proxy.asked().peer is not asked.peer


def test_who_comes_as_the_last_one_leaves_is_not_aborted_with_it(house: House, proxy: Proxy) -> None:
    client = proxy.ask()
    asked = proxy.asked()
    newcomer = proxy.connect()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.sock.close()
    newcomer.sock.send(proxy.get())  # both reach the loop in the same turn
    again = proxy.asked()
    assert again.peer is not asked.peer
    again.answer(b"hello", FRESH)
    assert newcomer.answer().body == b"hello"


def test_little_missing_is_fetched_for_nobody(house: House, proxy: Proxy) -> None:
    client = proxy.ask()
    asked = proxy.asked()
    asked.begin(FRESH, "Content-Length: 1000", first=bytes(400))
    client.head()
    client.reset()
    asked.peer.send(bytes(600))
    house.turns()
    assert hit(proxy).body == bytes(1000)
    proxy.not_asked()


def test_an_origin_that_breaks_off_breaks_off_for_all(proxy: Proxy) -> None:
    clients = crowd(proxy, 3)
    asked = proxy.asked()
    asked.begin(FRESH, "Content-Length: 10", first=b"hello")
    for client in clients:
        client.head()
    late = proxy.ask()
    late.head()
    asked.peer.reset()
    for client in (*clients, late):
        client.expect(b"hello")
        ended(client)
    assert len(proxy.caching.store) == 0
    proxy.ask()
    proxy.asked()


def test_only_who_asked_hears_interim_responses(proxy: Proxy) -> None:
    clients = crowd(proxy, 2)
    asked = proxy.asked()
    asked.peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    assert clients[0].head().status == 103
    clients[1].expect_silence()
    asked.answer(b"hello", FRESH)
    assert [client.answer().body for client in clients] == [b"hello"] * 2


# What one may have and the others may not.


def test_what_must_not_be_shared_goes_to_who_asked_and_the_others_ask_themselves(house: House, proxy: Proxy) -> None:
    clients = [proxy.ask("/", f"X: {n}") for n in range(4)]
    asked = proxy.asked()
    assert asked.fields[b"x"] == b"0"
    asked.answer(b"for 0", "Cache-Control: private")
    answer = clients[0].answer()
    assert (answer.body, cached(answer)) == (b"for 0", "fwd=uri-miss")
    for _ in range(3):
        asked = proxy.asked()
        n = int(asked.fields[b"x"])
        asked.answer(b"for %d" % n, "Cache-Control: private")
        answer = clients[n].answer()
        assert (answer.body, cached(answer)) == (b"for %d" % n, "fwd=uri-miss; collapsed=?0")
    assert len(proxy.caching.store) == 0


ALWAYS_VALIDATED = ["Cache-Control: no-cache", "Cache-Control: max-age=0", "Cache-Control: max-age=60, no-cache"]


@pytest.mark.parametrize("line", ALWAYS_VALIDATED)
def test_what_needs_validation_for_every_use_is_for_who_asked_alone(proxy: Proxy, line: str) -> None:
    clients = [proxy.ask("/", f"X: {n}") for n in range(4)]
    proxy.asked().answer(b"hello", line, TAGGED)
    answer = clients[0].answer()
    assert (answer.body, cached(answer).partition("; ttl")[0]) == (b"hello", "fwd=uri-miss; stored")
    askeds = [proxy.asked() for _ in range(3)]  # all at once, none behind another, each with what is stored now
    for asked in reversed(askeds):
        assert asked.fields[b"if-none-match"] == b'"one"'
        asked.begin(line, TAGGED, f"For: {int(asked.fields[b'x'])}", status="304 Not Modified")
    for n in range(1, 4):
        answer = clients[n].answer()
        assert (answer.body, answer.fields[b"for"]) == (b"hello", b"%d" % n)
        assert "fwd-status=304; collapsed=?0" in cached(answer)


@pytest.mark.parametrize("line", ALWAYS_VALIDATED)
def test_of_what_is_validated_for_every_use_each_has_its_own_validation(proxy: Proxy, line: str) -> None:
    fetch(proxy, b"hello", line, TAGGED)
    clients = crowd(proxy, 3)
    askeds = [proxy.asked() for _ in range(3)]
    for asked in askeds:
        asked.begin(TAGGED, status="304 Not Modified")
    for client in clients:
        answer = client.answer()
        assert answer.body == b"hello" and "fwd-status=304" in cached(answer) and "collapsed" not in cached(answer)


def test_what_a_validation_makes_one_of_those_is_for_who_asked_alone(house: House, proxy: Proxy) -> None:
    fetch(proxy, b"hello", FRESH, TAGGED)
    house.pass_time(61.0)
    clients = crowd(proxy, 3)
    proxy.asked().begin(TAGGED, "Cache-Control: no-cache", status="304 Not Modified")
    assert clients[0].answer().body == b"hello"
    for asked in [proxy.asked() for _ in range(2)]:
        asked.begin(TAGGED, status="304 Not Modified")
    assert [client.answer().body for client in clients[1:]] == [b"hello"] * 2


@pytest.mark.parametrize("line", ALWAYS_VALIDATED)
def test_who_comes_while_one_of_those_arrives_has_a_fetch_of_its_own(proxy: Proxy, line: str) -> None:
    first = proxy.ask()
    arriving = proxy.asked()
    arriving.begin(line, TAGGED, "Content-Length: 5", first=b"he")
    assert first.head().status == 200
    second = proxy.ask()
    proxy.asked().answer(b"other", line, TAGGED)
    assert second.answer().body == b"other"
    arriving.peer.send(b"llo")
    assert first.take(5) == b"hello"


@pytest.mark.parametrize("line", ALWAYS_VALIDATED)
def test_while_one_of_those_arrives_those_who_waited_do_not_wait_for_each_other(proxy: Proxy, line: str) -> None:
    clients = [proxy.ask("/", f"X: {n}") for n in range(4)]
    first = proxy.asked()
    first.begin(line, TAGGED, "Content-Length: 7", first=b"for")
    clients[0].head()
    for asked in [proxy.asked() for _ in range(3)]:
        asked.answer(b"for %d" % int(asked.fields[b"x"]), line, TAGGED)
    assert [client.answer().body for client in clients[1:]] == [b"for 1", b"for 2", b"for 3"]
    first.peer.send(b" you")
    assert clients[0].take(7) == b"for you"


def test_what_went_stale_on_its_way_is_joined_by_nobody(house: House, proxy: Proxy) -> None:
    first = proxy.ask()
    arriving = proxy.asked()
    arriving.begin("Cache-Control: max-age=5", "Content-Length: 5", first=b"he")
    first.head()
    house.pass_time(6.0)
    second = proxy.ask()
    proxy.asked().answer(b"other", FRESH)
    assert second.answer().body == b"other"
    arriving.peer.send(b"llo")
    assert first.take(5) == b"hello"
    assert hit(proxy).body == b"other"


def test_that_is_remembered_for_a_while(house: House, proxy: Proxy) -> None:
    for _ in range(2):
        fetch(proxy, b"x", "Cache-Control: private")
    clients = crowd(proxy, 3)
    askeds = [proxy.asked() for _ in range(3)]  # nobody waits for anybody
    for asked in askeds:
        asked.answer(b"y", FRESH)
    assert [cached(client.answer()) for client in clients] == ["fwd=uri-miss"] * 3
    fetch(proxy, b"x", "Cache-Control: private")
    house.pass_time(HIT_FOR_MISS_SECONDS + 0.1)
    clients = crowd(proxy, 3)
    asked = proxy.asked()
    proxy.not_asked()
    asked.answer(b"z", FRESH)
    assert [client.answer().body for client in clients] == [b"z"] * 3
    assert hit(proxy).body == b"z"


@pytest.mark.parametrize("refused", ["Cache-Control: no-store", "Cache-Control: private", "Vary: *", "X: says nothing"])
def test_the_next_one_after_what_could_not_be_stored_is_stored_where_it_may(proxy: Proxy, refused: str) -> None:
    fetch(proxy, b"not to be stored", refused)
    assert cached(fetch(proxy, b"to be stored", FRESH)) == "fwd=uri-miss; stored; ttl=60"
    assert hit(proxy).body == b"to be stored"


def test_once_one_was_stored_they_wait_for_each_other_again(house: House, proxy: Proxy) -> None:
    fetch(proxy, b"x", "Cache-Control: private")
    fetch(proxy, b"y", "Cache-Control: max-age=5")
    house.pass_time(6.0)
    clients = crowd(proxy, 3)
    asked = proxy.asked()
    proxy.not_asked()
    asked.answer(b"z", FRESH)
    assert [client.answer().body for client in clients] == [b"z"] * 3


def test_nobody_waits_for_that_next_one(proxy: Proxy) -> None:
    fetch(proxy, b"x", "Cache-Control: private")
    clients = crowd(proxy, 3)
    for asked in [proxy.asked() for _ in range(3)]:
        asked.answer(b"y", "Cache-Control: private")
    assert [cached(client.answer()) for client in clients] == ["fwd=uri-miss"] * 3


def test_credentials_and_conditions_say_nothing_of_the_next_one_either(proxy: Proxy) -> None:
    fetch(proxy, b"x", "Cache-Control: private")
    fetch(proxy, b"for one", FRESH, asking=("Authorization: Basic eDp5",))
    client = proxy.ask("/", 'If-None-Match: "x"')
    proxy.asked().peer.send(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n')
    assert client.answer().status == 304
    fetch(proxy, b"for all", FRESH)
    assert hit(proxy).body == b"for all"


def test_what_one_client_brought_upon_itself_keeps_nothing_out_of_the_store(house: House, proxy: Proxy) -> None:
    private = "Cache-Control: private"
    fetch(proxy, b"alice's", private, asking=("Cookie: alice",))
    for _ in range(2):
        fetch(proxy, b"alice's", private, asking=("Cookie: alice",))
    fetch(proxy, b"public", FRESH)  # goes past the store, but shows that the next one need not
    fetch(proxy, b"alice's", private, asking=("Cookie: alice",))
    fetch(proxy, b"without", FRESH, asking=("X: 1", "Connection: X"))  # its own verdict is no other than elsewhere
    assert len(proxy.caching.store) == 0
    assert cached(fetch(proxy, b"public", FRESH)) == "fwd=uri-miss; stored; ttl=60"
    assert hit(proxy).body == b"public"


@pytest.mark.parametrize(
    "policy, lines",
    [
        (Policy(rules=(OperatorRule(ttl=60),)), ["X: says nothing"]),
        (Policy(targets=(b"cdn-cache-control",)), ["Cache-Control: no-store", "CDN-Cache-Control: max-age=60"]),
    ],
)
def test_nor_does_it_where_something_else_says_how_long_what_comes_next_is_fresh(
    make_proxy: Callable[..., Proxy], policy: Policy, lines: list[str]
) -> None:
    proxy = make_proxy(policy=policy)
    private = ("Cache-Control: private", "CDN-Cache-Control: private")
    for _ in range(2):
        fetch(proxy, b"alice's", *private)
    assert cached(fetch(proxy, b"public", *lines)) == "fwd=uri-miss"
    assert cached(fetch(proxy, b"public", *lines)) == "fwd=uri-miss; stored; ttl=60"


def test_not_everything_is_remembered(house: House, proxy: Proxy) -> None:
    for n in range(HIT_FOR_MISS_KEYS + 10):
        proxy.caching.unstorable.add(b"http://a/%d" % n, ONCE)
    assert len(proxy.caching.unstorable) == HIT_FOR_MISS_KEYS
    assert b"http://a/9" not in proxy.caching.unstorable and b"http://a/10" in proxy.caching.unstorable


def test_a_reload_may_store_what_was_not_storable(proxy: Proxy) -> None:
    fetch(proxy, b"x", "Cache-Control: private")
    fetch(proxy, b"y", FRESH, asking=("Cache-Control: no-cache",))
    assert hit(proxy).body == b"y"


def test_an_origin_in_trouble_is_not_run_over_afterwards(proxy: Proxy) -> None:
    clients = crowd(proxy, 3)
    proxy.asked().answer(b"oh dear", status="500 Internal Server Error")
    assert clients[0].answer().status == 500
    for asked in [proxy.asked() for _ in range(2)]:  # who waited goes at once, not one after the other
        asked.answer(b"oh dear", status="500 Internal Server Error")
    assert [client.answer().status for client in clients[1:]] == [500, 500]
    clients = crowd(proxy, 3)
    asked = proxy.asked()
    proxy.not_asked()
    asked.answer(b"well again", FRESH)
    assert [client.answer().body for client in clients] == [b"well again"] * 3


def test_what_was_made_for_one_who_left_is_given_to_nobody(house: House, proxy: Proxy) -> None:
    first = proxy.ask("/", "Cookie: user=first")
    asked = proxy.asked()
    second = proxy.ask("/", "Cookie: user=second")
    first.reset()
    house.turns()
    asked.answer(b"first's secrets", "Cache-Control: private")
    again = proxy.asked()
    assert again.fields[b"cookie"] == b"user=second"
    again.answer(b"second's secrets", "Cache-Control: private")
    assert second.answer().body == b"second's secrets"


def test_only_who_asked_gets_the_fields_that_are_not_stored(proxy: Proxy) -> None:
    clients = crowd(proxy, 2)
    proxy.asked().answer(b"x", 'Cache-Control: max-age=60, private="set-cookie"', "Set-Cookie: user=first")
    answers = [client.answer() for client in clients]
    assert [answer.fields.get(b"set-cookie") for answer in answers] == [b"user=first", None]
    assert b"set-cookie" not in hit(proxy).fields


def test_those_fields_go_to_nobody_where_who_asked_has_left(house: House, proxy: Proxy) -> None:
    clients = crowd(proxy, 2)
    asked = proxy.asked()
    clients[0].reset()
    house.turns()
    asked.answer(b"x", 'Cache-Control: max-age=60, private="set-cookie"', "Set-Cookie: user=first")
    assert b"set-cookie" not in clients[1].answer().fields


def test_who_sends_credentials_asks_for_itself(proxy: Proxy) -> None:
    plain = proxy.ask()
    asked = proxy.asked()
    authorized = proxy.ask("/", "Authorization: Basic eDp5")
    own = proxy.asked()
    assert own.fields[b"authorization"] == b"Basic eDp5"
    another = proxy.ask()
    proxy.not_asked()
    own.answer(b"for one", FRESH)
    assert authorized.answer().body == b"for one"
    asked.answer(b"for all", FRESH)
    assert [client.answer().body for client in (plain, another)] == [b"for all"] * 2
    assert hit(proxy).body == b"for all"


def test_what_an_authorized_request_brings_says_nothing_of_others(proxy: Proxy) -> None:
    fetch(proxy, b"for one", FRESH, asking=("Authorization: Basic eDp5",))
    assert not proxy.caching.unstorable
    fetch(proxy, b"for all", FRESH)
    assert hit(proxy).body == b"for all"
    assert hit(proxy, "/", "Authorization: Basic eDp5").body == b"for all"


def test_an_authorized_answer_that_may_be_shared_is(proxy: Proxy) -> None:
    fetch(proxy, b"for all", "Cache-Control: public, max-age=60", asking=("Authorization: Basic eDp5",))
    assert hit(proxy).body == b"for all"


def test_what_a_request_forbids_to_store_is_not_shared_either(proxy: Proxy) -> None:
    clients = [proxy.ask("/", "Cache-Control: no-store") for _ in range(2)]
    for asked in [proxy.asked() for _ in range(2)]:
        asked.answer(b"x", FRESH)
    assert [client.answer().body for client in clients] == [b"x"] * 2
    assert len(proxy.caching.store) == 0 and not proxy.caching.unstorable


# Vary.


def test_variants_are_kept_apart(proxy: Proxy) -> None:
    for language in ("en", "de"):
        answer = fetch(proxy, language.encode(), FRESH, "Vary: Accept-Language", asking=(f"Accept-Language: {language}",))
        assert cached(answer).startswith("fwd=uri-miss" if language == "en" else "fwd=vary-miss")
    for language in ("en", "de"):
        assert hit(proxy, "/", f"Accept-Language: {language}").body == language.encode()
    assert cached(fetch(proxy, b"any", FRESH, "Vary: Accept-Language")).startswith("fwd=vary-miss")
    assert hit(proxy).body == b"any"
    proxy.not_asked()


def test_those_who_differ_regroup_with_one_fetch_for_each_variant(proxy: Proxy) -> None:
    languages = ["en", "de", "fr", "en", "de", "fr", "en", "de", "fr"]
    clients = [proxy.ask("/", f"Accept-Language: {language}") for language in languages]
    asked = proxy.asked()
    proxy.not_asked()
    assert asked.fields[b"accept-language"] == b"en"
    asked.begin(FRESH, "Vary: Accept-Language", "Content-Length: 2", first=b"e")
    others = [proxy.asked(), proxy.asked()]  # both at once, though the first variant has not come whole
    proxy.not_asked()
    for other in others:
        other.answer(other.fields[b"accept-language"], FRESH, "Vary: Accept-Language")
    asked.peer.send(b"n")
    assert [client.answer().body for client in clients] == [language.encode() for language in languages]
    for language in ("en", "de", "fr"):
        assert hit(proxy, "/", f"Accept-Language: {language}").body == language.encode()


def test_who_comes_later_joins_the_fetch_of_its_own_variant(proxy: Proxy) -> None:
    fetch(proxy, b"old", "Cache-Control: max-age=0", TAGGED, "Vary: X", asking=("X: 0",))
    one, two = proxy.ask("/", "X: 1"), proxy.ask("/", "X: 2")
    askeds = [proxy.asked(), proxy.asked()]
    more = [proxy.ask("/", "X: 1"), proxy.ask("/", "X: 2")]
    proxy.not_asked()
    for asked in askeds:
        asked.answer(asked.fields[b"x"], FRESH, "Vary: X")
    assert [client.answer().body for client in (one, two, *more)] == [b"1", b"2", b"1", b"2"]


def test_vary_star_is_for_one_alone(proxy: Proxy) -> None:
    clients = crowd(proxy, 2)
    for client in clients:
        proxy.asked().answer(b"x", FRESH, "Vary: *")
        assert client.answer().body == b"x"
    assert len(proxy.caching.store) == 0


def test_a_304_that_brings_vary_star_still_answers_who_asked(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED)
    clients = crowd(proxy, 2)
    proxy.asked().begin(TAGGED, "Vary: *", status="304 Not Modified")
    assert clients[0].answer().body == b"hello"
    proxy.asked().answer(b"newer", FRESH)
    assert clients[1].answer().body == b"newer"


@pytest.mark.parametrize("word", ["private", "no-store"])
def test_what_a_304_says_to_one_client_is_not_for_those_who_wait(house: House, proxy: Proxy, word: str) -> None:
    stale(house, proxy, TAGGED)
    clients = crowd(proxy, 2)
    proxy.asked().begin(TAGGED, f"Cache-Control: {word}, max-age=60", "Set-Cookie: sid=1", status="304 Not Modified")
    answer = clients[0].answer()
    assert (answer.body, answer.fields[b"set-cookie"]) == (b"hello", b"sid=1")
    asked = proxy.asked()
    assert b"if-none-match" not in asked.fields  # nothing is stored any more
    asked.answer(b"newer", FRESH)
    answer = clients[1].answer()
    assert answer.body == b"newer" and b"set-cookie" not in answer.fields


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_cookie_that_a_validation_sets_is_not_stored_by_guesswork(house: House, proxy: Proxy, method: str) -> None:
    """RFC 9111 section 7.3: as with the response itself, where nothing says how long it is fresh."""
    fetch(proxy, b"hello", TAGGED, "Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT")
    house.pass_time(3600.0)
    client = proxy.connect()
    client.send(proxy.request(method, "/", "Cache-Control: no-cache"))
    proxy.asked().begin(TAGGED, "Set-Cookie: sid=1", status="304 Not Modified" if method == "GET" else "200 OK")
    assert client.answer(method.encode()).fields[b"set-cookie"] == b"sid=1"
    assert b"set-cookie" not in fetch(proxy, b"newer", FRESH).fields


def test_a_field_taken_off_by_connection_selects_nothing(house: House, proxy: Proxy) -> None:
    """RFC 9110 section 7.6.1: the origin answers without it, and so not for those who send it."""
    client = proxy.ask("/", "Accept: text/html", "Connection: keep-alive, Accept")
    asked = proxy.asked()
    assert b"accept" not in asked.fields
    asked.answer(b"for anything", FRESH, "Vary: Accept")
    assert cached(client.answer()) == "fwd=bypass"
    client = proxy.ask("/", "Accept: text/html", "TE: trailers", "Connection: TE")  # this one is nobody's loss
    proxy.asked().answer(b"for html", FRESH, "Vary: Accept")
    assert client.answer().body == b"for html"
    assert hit(proxy, "/", "Accept: text/html").body == b"for html"


def test_what_is_stale_goes_to_its_own_variant_alone(house: House, proxy: Proxy) -> None:
    fetch(proxy, b"one", FRESH, "Cache-Control: stale-if-error=100", asking=())
    house.pass_time(70.0)
    clients = [proxy.ask("/", "X: 1"), proxy.ask("/", "X: 2")]
    proxy.asked().answer(b"1", FRESH, "Vary: X")  # says only now that it varies
    assert clients[0].answer().body == b"1"
    proxy.asked().answer(b"2", FRESH, "Vary: X")
    assert clients[1].answer().body == b"2"


def test_nobody_suits_the_response_that_came(house: House, proxy: Proxy) -> None:
    first = proxy.ask("/", "X: 1")
    asked = proxy.asked()
    second = proxy.ask("/", "X: 2")
    first.reset()
    house.turns()
    asked.begin(FRESH, "Vary: X", "Transfer-Encoding: chunked", first=chunk(b"one"))
    asked.peer.expect_reset()
    proxy.asked().answer(b"two", FRESH, "Vary: X")
    assert second.answer().body == b"two"


def test_more_variants_than_fetches_may_be_shared(proxy: Proxy) -> None:
    number = FETCHES_PER_KEY + 4
    fetch(proxy, b"old", "Cache-Control: max-age=0", TAGGED, "Vary: X", asking=("X: none",))
    clients = [proxy.ask("/", f"X: {n}") for n in range(number)]
    for asked in [proxy.asked() for _ in range(number)]:
        asked.answer(asked.fields[b"x"], FRESH, "Vary: X")
    assert [client.answer().body for client in clients] == [b"%d" % n for n in range(number)]


def test_many_ranges_at_once_keep_nobody_from_sharing_the_whole(make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(policy=PARTS)
    number = FETCHES_PER_KEY + 4
    clients = [proxy.ask("/", ranged(n, n)) for n in range(number)]
    fetches = [proxy.asked() for _ in range(number)]
    assert len(proxy.caching.fetches[next(iter(proxy.caching.fetches))]) == FETCHES_PER_KEY
    together = [proxy.ask(), proxy.ask()]
    proxy.asked().answer(bytes(100), FRESH, TAGGED)
    assert [client.answer().body for client in together] == [bytes(100)] * 2
    for n, asked in enumerate(fetches):
        asked.answer(b"%c" % n, FRESH, TAGGED, content_range(n, n, 100), status="206 Partial Content")
    assert [client.answer().body for client in clients] == [b"%c" % n for n in range(number)]


# What is changed.


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "FOO"])
def test_an_unsafe_method_ends_what_is_stored(proxy: Proxy, method: str) -> None:
    fetch(proxy, b"old", FRESH)
    client = proxy.connect()
    client.send(proxy.request(method, "/", "Content-Length: 0"))
    proxy.asked().answer(b"")
    client.answer()
    proxy.house.turns()
    assert len(proxy.caching.store) == 0
    fetch(proxy, b"new", FRESH)


@pytest.mark.parametrize(
    ("method", "status"), [("POST", "400 Bad Request"), ("POST", "500 Internal Server Error"), ("OPTIONS", "200 OK")]
)
def test_what_changed_nothing_ends_nothing(proxy: Proxy, method: str, status: str) -> None:
    fetch(proxy, b"old", FRESH)
    client = proxy.connect()
    client.send(proxy.request(method, "/", "Content-Length: 0"))
    proxy.asked().answer(b"", status=status)
    client.answer()
    assert hit(proxy).body == b"old"


def test_a_failure_on_the_way_ends_nothing(house: House, proxy: Proxy) -> None:
    fetch(proxy, b"old", FRESH)
    client = proxy.connect()
    client.send(proxy.request("POST", "/", "Content-Length: 0"))
    proxy.asked().peer.shutdown()
    answer = client.answer()
    assert (answer.status, b"cache-status" in answer.fields) == (502, False)
    assert hit(proxy).body == b"old"


def test_location_and_content_location_are_changed_too(proxy: Proxy) -> None:
    for path in ("/a", "/b", "/c"):
        fetch(proxy, b"old", FRESH, path=path)
    client = proxy.connect()
    client.send(proxy.request("POST", "/", "Content-Length: 0"))
    proxy.asked().answer(b"", "Location: /a", f"Content-Location: http://{proxy.authority}/b", status="201 Created")
    client.answer()
    assert hit(proxy, "/c").body == b"old"
    for path in ("/a", "/b"):
        fetch(proxy, b"new", FRESH, path=path)


def change(proxy: Proxy) -> None:
    """Something changes the resource while fetches are under way."""
    client = proxy.connect()
    client.send(proxy.request("POST", "/", "Content-Length: 0"))
    while (asked := proxy.asked()).method != b"POST":
        raise AssertionError(asked.head)
    asked.answer(b"")
    client.answer()
    client.close()


def test_what_is_on_its_way_as_something_changes_is_shared_with_nobody_more(house: House, proxy: Proxy) -> None:
    clients = crowd(proxy, 2)
    asked = proxy.asked()
    change(proxy)
    late = proxy.ask()
    newer = proxy.asked()  # does not wait for the older one
    asked.answer(b"old", FRESH)
    assert clients[0].answer().body == b"old"
    proxy.not_asked()  # the one who waited too waits for the newer fetch now
    newer.answer(b"new", FRESH)
    assert [client.answer().body for client in (clients[1], late)] == [b"new"] * 2
    assert hit(proxy).body == b"new"
    assert not proxy.caching.unstorable


def test_what_is_arriving_as_something_changes_is_validated_before_it_is_used(house: House, proxy: Proxy) -> None:
    client = proxy.ask()
    asked = proxy.asked()
    asked.begin(FRESH, TAGGED, "Content-Length: 6", first=b"old")
    client.head()
    change(proxy)
    late = proxy.ask()
    newer = proxy.asked()
    asked.peer.send(b"old")
    client.expect(b"oldold")
    newer.answer(b"new", FRESH, 'ETag: "two"')
    assert late.answer().body == b"new"
    assert hit(proxy).body == b"new"


def test_alone_what_was_arriving_is_validated(house: House, proxy: Proxy) -> None:
    client = proxy.ask()
    asked = proxy.asked()
    asked.begin(FRESH, TAGGED, "Content-Length: 6", first=b"old")
    client.head()
    change(proxy)
    asked.peer.send(b"old")
    client.expect(b"oldold")
    house.turns()
    late = proxy.ask()
    validating = proxy.asked()
    assert validating.fields[b"if-none-match"] == b'"one"'
    validating.answer(b"new", FRESH)
    assert late.answer().body == b"new"


def test_every_variant_on_its_way_is_old(house: House, proxy: Proxy) -> None:
    fetch(proxy, b"any", "Cache-Control: max-age=0", TAGGED, "Vary: X", asking=("X: none",))
    clients = [proxy.ask("/", f"X: {n}") for n in range(3)]
    askeds = [proxy.asked() for _ in range(3)]
    change(proxy)
    for asked in askeds:
        asked.answer(b"old", FRESH, "Vary: X")
    assert [client.answer().body for client in clients] == [b"old"] * 3
    assert len(proxy.caching.store) == 0


def test_a_reload_on_its_way_is_old_too(house: House, proxy: Proxy) -> None:
    client = proxy.ask("/", "Cache-Control: no-cache")
    asked = proxy.asked()
    change(proxy)
    asked.answer(b"old", FRESH)
    assert client.answer().body == b"old"
    assert len(proxy.caching.store) == 0


def invalidate_group(proxy: Proxy, group: str) -> None:
    client = proxy.connect()
    client.send(proxy.request("POST", "/change", "Content-Length: 0"))
    proxy.asked().answer(b"", f'Cache-Group-Invalidation: "{group}"')
    assert client.answer().status == 200


@pytest.mark.parametrize("arriving", [True, False])
@pytest.mark.parametrize("asking", [(), ("Cache-Control: no-cache",)])
def test_a_group_that_changes_changes_what_is_on_its_way(proxy: Proxy, arriving: bool, asking: tuple[str, ...]) -> None:
    client = proxy.ask("/a", *asking)
    asked = proxy.asked()
    lines = (FRESH, TAGGED, 'Cache-Groups: "fruit", "red"', "Content-Length: 5")
    if arriving:
        asked.begin(*lines, first=b"he")
        client.head()
    invalidate_group(proxy, "red")
    if arriving:
        asked.peer.send(b"llo")
        assert client.take(5) == b"hello"
    else:
        asked.begin(*lines, first=b"hello")
        assert client.answer().body == b"hello"
    again = proxy.ask("/a")
    proxy.asked().answer(b"new", FRESH)
    assert again.answer().body == b"new"


@pytest.mark.parametrize("arriving", [True, False])
def test_another_group_does_not(proxy: Proxy, arriving: bool) -> None:
    client = proxy.ask("/a")
    asked = proxy.asked()
    lines = (FRESH, 'Cache-Groups: "fruit"', "Content-Length: 5")
    if arriving:
        asked.begin(*lines, first=b"he")
        client.head()
    invalidate_group(proxy, "red")
    asked.peer.send(b"llo") if arriving else asked.begin(*lines, first=b"hello")
    assert (client.take(5) if arriving else client.answer().body) == b"hello"
    assert hit(proxy, "/a").body == b"hello"


def test_nor_does_a_group_of_that_name_of_another_origin(house: House, make_store: MakeStore) -> None:
    handling = Handling()
    served = house.serve(Caching(house.reactor, handling, make_store()))
    reader, writer = served.connect(), served.connect()
    reader.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    house.turns(8)
    writer.send(b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n")
    house.turns(8)
    fetch, post = handling.exchanges
    post.respond(Head(200, [("Cache-Group-Invalidation", '"red"')]))
    writer.answer()
    fetch.respond(Head(200, [("Cache-Control", "max-age=60"), ("Cache-Groups", '"red"')]), b"hello")
    assert cached(reader.answer()) == "fwd=uri-miss; stored; ttl=60"
    writer.send(b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n")
    house.turns(8)
    handling.last.respond(Head(200, [("Cache-Group-Invalidation", '"red"')]))
    writer.answer()
    reader.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert cached(reader.answer()) == "hit; ttl=60"


POSTED = (FRESH, "Content-Location: /")


@pytest.mark.parametrize("streamed", [True, False])
def test_a_posts_answer_that_speaks_for_get_is_stored(make_proxy: Callable[..., Proxy], streamed: bool) -> None:
    proxy = make_proxy()
    client = proxy.connect()
    client.send(proxy.request("POST", "/", "Content-Length: 4") + b"data")
    asked = proxy.asked()
    assert asked.body() == b"data"
    group = ('Cache-Groups: "red"', 'Cache-Group-Invalidation: "red"')  # what it ends is what was there before
    asked.begin(*POSTED, *group, "Content-Length: 5", first=b"he" if streamed else b"hello")
    if streamed:
        proxy.house.turns()
        asked.peer.send(b"llo")
    answer = client.answer()
    assert (answer.body, cached(answer)) == (b"hello", "fwd=method; stored; ttl=60")
    proxy.house.turns()
    if isinstance(proxy.caching.store, MemoryStore):  # one that answers later ends what was there when this is there already
        assert hit(proxy).body == b"hello"


@pytest.mark.parametrize("how", ["client", "origin"])
@pytest.mark.parametrize("head", [True, False])
def test_a_posts_answer_that_breaks_off_is_not(house: House, proxy: Proxy, how: str, head: bool) -> None:
    client = proxy.connect()
    client.send(proxy.request("POST", "/", "Content-Length: 0"))
    asked = proxy.asked()
    if head:
        asked.begin(*POSTED, f"Content-Length: {LITTLE * 2}", first=b"he")
        client.take_until(b"\r\n\r\nhe")
    client.reset() if how == "client" else asked.peer.reset()
    ended(asked.peer if how == "client" else client) if head or how == "client" else answered(client)
    assert len(proxy.caching.store) == 0


def test_a_posts_answer_without_room(make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(limit=8000)
    client = proxy.connect()
    client.send(proxy.request("POST", "/", "Content-Length: 0"))
    proxy.asked().answer(bytes(5000), *POSTED)
    answer = client.answer()
    assert (len(answer.body), cached(answer)) == (5000, "fwd=method") and len(proxy.caching.store) == 0


def test_a_handler_that_gives_up_a_post(house: House, make_store: MakeStore) -> None:
    caching = Caching(house.reactor, Handling(lambda exchange: exchange.abort("no")), make_store())
    client = house.serve(caching).connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    ended(client)


@pytest.mark.parametrize("asking", ["PUT", "POST", "group"])
@pytest.mark.parametrize("arriving", [True, False])
def test_a_posts_answer_that_is_old_before_it_is_whole_is_not_stored(
    house: House, proxy: Proxy, asking: str, arriving: bool
) -> None:
    client = proxy.connect()
    client.send(proxy.request("POST", "/", "Content-Length: 0"))
    asked = proxy.asked()
    lines = (*POSTED, 'Cache-Groups: "red"', "Content-Length: 5")
    if arriving:
        asked.begin(*lines, first=b"he")
        client.head()
        client.expect(b"he")
    if asking == "group":
        invalidate_group(proxy, "red")
    else:
        other = proxy.connect()
        other.send(proxy.request(asking, "/", "Content-Length: 0"))
        proxy.asked().answer(b"")
        assert other.answer().status == 200
    if arriving:
        asked.peer.send(b"llo")
        client.expect(b"llo")
    else:
        asked.begin(*lines, first=b"hello")
        assert cached(client.answer()) == "fwd=method"
    house.turns()
    assert len(proxy.caching.store) == 0
    again = proxy.ask()
    proxy.asked().answer(b"new", FRESH)
    assert again.answer().body == b"new"


def test_a_post_on_its_way_keeps_nothing_from_being_validated_behind(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED, "Cache-Control: stale-while-revalidate=60")
    for method in ("POST", "HEAD"):
        client = proxy.connect()
        client.send(proxy.request(method, "/", "Content-Length: 0", "Cache-Control: no-cache"))
        assert proxy.asked().method == method.encode()
    assert proxy.ask().answer().body == b"hello"
    assert proxy.asked().fields[b"if-none-match"] == b'"one"'


def test_what_comes_late_does_not_take_the_place_of_what_is_newer(house: House, proxy: Proxy) -> None:
    client = proxy.ask()
    asked = proxy.asked()
    asked.begin(FRESH, "Content-Length: 6", first=b"old")
    client.head()
    house.pass_time(5.0)
    reloading = proxy.ask("/", "Cache-Control: no-cache")
    newer = proxy.asked()
    newer.peer.send(
        b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:42 GMT\r\n"
        b"Cache-Control: max-age=60\r\nContent-Length: 3\r\n\r\nnew"
    )
    assert reloading.answer().body == b"new"
    asked.peer.send(b"old")
    client.expect(b"oldold")
    house.turns()
    assert hit(proxy).body == b"new"


# HEAD.


def test_head_is_forwarded_where_nothing_is_stored(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.request("HEAD", "/"))
    asked = proxy.asked()
    assert asked.method == b"HEAD"
    asked.begin(FRESH, "Content-Length: 5")
    answer = client.answer(b"HEAD")
    assert (answer.fields[b"content-length"], cached(answer)) == (b"5", "fwd=uri-miss; stored; ttl=60")
    client.send(proxy.request("HEAD", "/"))
    answer = client.answer(b"HEAD")
    assert (answer.fields[b"content-length"], cached(answer)) == (b"5", "hit; ttl=60")
    fetch(proxy, b"hello", FRESH)
    assert [content.size for content in contents(proxy.caching.store)] == [5], "the whole takes its place"


@pytest.mark.parametrize("kind", ["bytes", "streamed", "told"])
def test_a_head_of_our_own_handler_keeps_its_length(house: House, make_store: MakeStore, kind: str) -> None:
    def answer(exchange: Exchange) -> None:
        head = Head(200, [(b"Cache-Control", b"max-age=60"), *([(b"Content-Length", b"5")] if kind == "told" else [])])
        exchange.respond(head, {"bytes": b"hello", "streamed": BytesSource(b"hello"), "told": b""}[kind])

    handling = Handling(answer)
    served = house.serve(Caching(house.reactor, handling, make_store()))
    for version, line, did in (
        ("1.1", "X: 1", "fwd=uri-miss; stored; ttl=60"), ("1.1", "X: 1", "hit; ttl=60"),
        ("1.1", "Connection: close", "hit; ttl=60"), ("1.0", "X: 1", "hit; ttl=60"),
    ):  # fmt: skip
        client = served.connect()
        client.send(f"HEAD / HTTP/{version}\r\nHost: a\r\n{line}\r\n\r\n".encode())
        answered_with = client.answer(b"HEAD")
        assert (answered_with.fields[b"content-length"], cached(answered_with)) == (b"5", did)
    assert len(handling.exchanges) == 1


def test_a_304_of_our_own_handler_tells_no_length_of_what_it_has_instead(house: House, make_store: MakeStore) -> None:
    handling = Handling(says(b"it has not changed", 304, (b"ETag", b'"one"')))
    client = house.serve(Caching(house.reactor, handling, make_store())).connect()
    client.send(b'HEAD / HTTP/1.1\r\nHost: a\r\nIf-None-Match: "one"\r\n\r\n')
    answer = client.answer(b"HEAD")
    assert answer.status == 304 and b"content-length" not in answer.fields


def test_a_range_of_a_head_means_nothing(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.request("HEAD", "/", "Range: bytes=0-1"))
    asked = proxy.asked()
    assert asked.fields[b"range"] == b"bytes=0-1"
    asked.begin(FRESH, "Content-Length: 5")
    assert cached(client.answer(b"HEAD")) == "fwd=uri-miss; fwd-status=200; stored; ttl=60"


def test_a_stored_head_without_a_length_tells_none(proxy: Proxy) -> None:
    client = proxy.connect()
    for status in ("200 OK", "204 No Content"):
        path = f"/{status[:3]}"
        client.send(proxy.request("HEAD", path))
        proxy.asked().begin(FRESH, *(["Content-Length: 0"] if status[:3] == "204" else []), status=status)
        client.answer(b"HEAD")
        client.send(proxy.request("HEAD", path) + proxy.request("HEAD", path, 'If-None-Match: "x"'))
        for _ in range(2):
            answer = client.answer(b"HEAD")
            assert cached(answer) == "hit; ttl=60" and b"content-length" not in answer.fields


def test_the_log_says_of_head_what_it_says_of_get(house: House, proxy: Proxy) -> None:
    client = proxy.connect()
    for line, status in (("Content-Length: 5", "200 OK"), (TAGGED, "200 OK"), (TAGGED, "304 Not Modified")):
        client.send(proxy.request("HEAD", "/"))
        proxy.asked().begin(FRESH, line, status=status)
        client.answer(b"HEAD")
        house.pass_time(70.0)
    client.send(proxy.request("HEAD", "/", "If-Match: *"))
    proxy.asked().begin(FRESH)
    assert cached(client.answer(b"HEAD")) == "fwd=request"
    assert [exchange.verdict for exchange in proxy.ended] == ["miss", "miss", "revalidated", "pass"]


def test_nobody_waits_for_a_head_and_it_keeps_nobody_alone(proxy: Proxy) -> None:
    heads = [proxy.connect() for _ in range(2)]
    for client in heads:
        client.send(proxy.request("HEAD", "/"))
        assert proxy.asked().method == b"HEAD"
    clients = crowd(proxy, 2)
    asked = proxy.asked()
    assert asked.method == b"GET"
    proxy.not_asked()
    asked.answer(b"hello", FRESH)
    assert [client.answer().body for client in clients] == [b"hello"] * 2


def test_a_head_that_may_not_be_stored_says_nothing_of_gets(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.request("HEAD", "/", 'If-None-Match: "x"'))
    proxy.asked().begin('ETag: "x"', status="304 Not Modified")
    assert client.answer(b"HEAD").status == 304
    client.send(proxy.request("HEAD", "/"))
    proxy.asked().begin("Cache-Control: no-store")
    assert cached(client.answer(b"HEAD")) == "fwd=uri-miss"
    assert not proxy.caching.unstorable and not proxy.caching._validated
    fetch(proxy, b"x", "Cache-Control: private")
    for line in ("Cache-Control: private", FRESH):
        client.send(proxy.request("HEAD", "/"))
        proxy.asked().begin(line)
        client.answer(b"HEAD")
        assert [why for _, why in proxy.caching.unstorable.values()] == [ONCE]


def test_a_head_is_answered_by_what_a_304_says_is_good(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED)
    client = proxy.connect()
    client.send(proxy.request("HEAD", "/"))
    asked = proxy.asked()
    assert (asked.method, asked.fields[b"if-none-match"]) == (b"HEAD", b'"one"')
    asked.begin(TAGGED, FRESH, status="304 Not Modified")
    answer = client.answer(b"HEAD")
    assert (answer.status, answer.fields[b"content-length"]) == (200, b"5")
    assert cached(answer) == "fwd=stale; fwd-status=304; ttl=60"
    assert hit(proxy).body == b"hello"


@pytest.mark.parametrize("stored", ["GET", "HEAD"])
def test_a_head_gets_what_is_stale_where_a_get_would(house: House, proxy: Proxy, stored: str) -> None:
    client = proxy.connect()
    client.send(proxy.request(stored, "/"))
    asked = proxy.asked()
    lines = (FRESH, TAGGED, "Cache-Control: stale-if-error=100")
    asked.begin(*lines, "Content-Length: 5") if stored == "HEAD" else asked.answer(b"hello", *lines)
    client.answer(stored.encode())
    house.pass_time(70.0)
    client.send(proxy.request("HEAD", "/"))
    proxy.asked().answer(status="503 Service Unavailable")
    answer = client.answer(b"HEAD")
    assert (answer.status, answer.fields[b"content-length"]) == (200, b"5")
    assert cached(answer) == "fwd=stale; fwd-status=503; ttl=-10; detail=stale-if-error"
    proxy.origin.sock.close()
    for peer in proxy._open:
        peer.close()
    house.pass_time(100.0)
    client = proxy.connect()
    client.send(proxy.request("HEAD", "/"))
    answer = client.answer(b"HEAD")
    assert (answer.status, answer.fields[b"content-length"]) == (200, b"5")
    assert cached(answer) == "fwd=stale; ttl=-110; detail=disconnected"
    assert [exchange.verdict for exchange in proxy.ended][1:] == ["stale", "stale"]


def test_a_head_for_which_there_is_nothing_ends_nothing(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED)
    client = proxy.connect()
    client.send(proxy.request("HEAD", "/"))
    proxy.asked().begin("Cache-Control: no-store", status="404 Not Found")
    assert (client.answer(b"HEAD").status, len(proxy.caching.store)) == (404, 1)


def test_a_head_of_what_must_be_validated_is_not_answered_otherwise(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED, "Cache-Control: must-revalidate")
    proxy.origin.sock.close()
    for peer in proxy._open:
        peer.close()
    client = proxy.connect()
    client.send(proxy.request("HEAD", "/"))
    assert client.answer(b"HEAD").status == 504


def test_a_head_that_was_on_its_way_as_something_changed_freshens_nothing(house: House, proxy: Proxy) -> None:
    stale(house, proxy, TAGGED)
    head = proxy.connect()
    head.send(proxy.request("HEAD", "/"))
    asked = proxy.asked()
    change(proxy)
    fetch(proxy, b"HELLO", TAGGED, "Cache-Control: no-cache")
    asked.begin(TAGGED, FRESH, "Content-Length: 5")
    assert cached(head.answer(b"HEAD")) == "fwd=stale"
    client = proxy.ask()
    assert proxy.asked().fields[b"if-none-match"] == b'"one"', "what came since is still to be validated"
    client.close()


def head_says(house: House, proxy: Proxy, *lines: str) -> None:
    """Something stale is stored; a HEAD goes to the origin, which says this."""
    stale(house, proxy, TAGGED)
    client = proxy.connect()
    client.send(proxy.request("HEAD", "/"))
    asked = proxy.asked()
    assert asked.fields[b"if-none-match"] == b'"one"'
    asked.peer.send(
        b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:50:47 GMT\r\n"
        + b"".join(line.encode() + b"\r\n" for line in lines)
        + b"\r\n"
    )
    answer = client.answer(b"HEAD")
    assert cached(answer).startswith("fwd=stale")
    client.close()
    house.turns()


def test_a_head_that_agrees_makes_it_fresh(house: House, proxy: Proxy) -> None:
    head_says(house, proxy, TAGGED, "Content-Length: 5", FRESH, "X-One: 2")
    answer = hit(proxy)
    assert (answer.body, answer.fields[b"x-one"], cached(answer)) == (b"hello", b"2", "hit; ttl=60")
    assert answer.fields[b"cache-status"].count(b"reactor") == 1


@pytest.mark.parametrize("lines", [('ETag: "two"',), (TAGGED, "Content-Length: 6")])
def test_a_head_that_disagrees_ends_it(house: House, proxy: Proxy, lines: tuple[str, ...]) -> None:
    head_says(house, proxy, *lines)
    assert [content.size for content in contents(proxy.caching.store)] == [0], "the HEAD's own"
    fetch(proxy, b"new", FRESH)


# Too large.


def test_a_length_beyond_the_limit_is_neither_stored_nor_shared(house: House, make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(400_000)
    clients = crowd(proxy, 3)
    for client in clients:
        asked = proxy.asked()
        asked.begin(FRESH, "Content-Length: 100001", first=bytes(100_001))
        assert client.answer().body == bytes(100_001)
    assert len(proxy.caching.store) == 0


def test_a_body_that_turns_out_too_large_is_read_by_those_who_were_there(
    house: House, make_proxy: Callable[..., Proxy]
) -> None:
    proxy = make_proxy(400_000)
    clients = crowd(proxy, 3)
    asked = proxy.asked()
    asked.begin(FRESH, "Transfer-Encoding: chunked", first=chunk(b"begin"))
    for client in clients:
        client.head()
        client.expect(chunk(b"begin"))
    for n in range(20):
        piece = chunk(bytes([n]) * 10_000)
        asked.peer.send(piece)
        for client in clients:
            client.expect(piece)
    newcomers = crowd(proxy, 2)
    for newcomer in newcomers:
        own = proxy.asked()  # each for itself
        own.answer(b"own", FRESH)
        assert newcomer.answer().body == b"own"
    asked.peer.send(b"0\r\n\r\n")
    for client in clients:
        client.expect(b"0\r\n\r\n")
    assert len(proxy.caching.store) == 0


def test_one_that_stalls_the_others_of_a_large_body_is_cut_off(house: House, make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy(400_000)
    slow = proxy.connect(small_buffers=True)
    slow.send(proxy.get())
    fast = proxy.ask()
    asked = proxy.asked()
    asked.begin(FRESH, "Connection: close", first=b"begin")
    fast.head()
    ((under_way,),) = proxy.caching.fetches.values()
    fill = under_way._fill
    assert fill is not None
    got = 0

    def flows() -> None:
        nonlocal got
        asked.peer.offer(bytes(100_000))
        fast.read()
        got += len(fast.received)
        fast.received.clear()

    def held_up() -> bool:
        flows()
        return fill._timer is not None

    def far() -> bool:
        flows()
        return got > 10_000_000

    house.until(held_up, "the fast one waits for the slow one")
    before = fill.size
    house.pass_time(STALL - 0.1)
    assert fill.size == before
    house.pass_time(0.2)
    house.until(far, "the fast one goes on")
    slow.until(lambda: slow.over, "the end of the slow one")
    asked.peer.shutdown()
    fast.until(lambda: fast.received.endswith(b"0\r\n\r\n"), "the end of the fast one")


# The cache before any handler.


def before(
    house: House, make_store: MakeStore, answer: Callable[[Exchange], object], policy: Policy = DEFAULT_POLICY
) -> tuple[Any, Handling]:
    handling = Handling(answer)
    store = make_store()
    house.cleanups.append(store.close)
    return house.serve(Caching(house.reactor, handling, store, policy)), handling


def twice(served: Any, body: bytes) -> None:
    """The handler is asked, then the store."""
    for did in ("fwd=uri-miss; stored; ttl=60", "hit; ttl=60"):
        client = served.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = client.answer()
        assert (answer.body, cached(answer)) == (body, did)
        client.close()


@pytest.mark.parametrize("kind", ["bytes", "source", "script", "file", "iterator", "trailers"])
def test_any_kind_of_body_can_be_cached(house: House, make_store: MakeStore, kind: str, tmp_path: Any) -> None:
    body = bytes(100_000)
    path = tmp_path / "file"
    path.write_bytes(b"x" + body)

    def answer(exchange: Exchange) -> None:
        made: Any = body
        if kind == "source":
            made = BytesSource(body)
        elif kind == "script":
            made = Script(house.reactor, body[:7], None, body[7:])
            house.reactor.call_later(0.0, made.go)
        elif kind == "file":
            made = FileSource(os.open(path, os.O_RDONLY), 1, len(body))
        elif kind == "iterator":
            made = IteratorSource(house.reactor, iter([body[:7], body[7:]]))
        elif kind == "trailers":
            made = Script(house.reactor, body, trailers=Fields([(b"X-Sum", b"7")]))
        exchange.respond(Head(200, [(b"Cache-Control", b"max-age=60")]), made)

    served, handling = before(house, make_store, answer)
    twice(served, body)
    assert len(handling.exchanges) == 1
    house.turns()
    assert [exchange.failure for exchange in handling.ended] == [None]


def test_an_iterator_that_yields_nothing(house: House, make_store: MakeStore) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.respond(Head(200, [(b"Cache-Control", b"max-age=60")]), IteratorSource(house.reactor, iter([])))

    served, handling = before(house, make_store, answer)
    twice(served, b"")


def test_a_handler_that_raises_costs_who_waits_an_error(
    house: House, make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(exchange: Exchange) -> None:
        raise RuntimeError("of the handler's own")

    served, handling = before(house, make_store, answer)
    for _ in range(2):
        client = served.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer().status == 500
    assert len(handling.exchanges) == 2 and "of the handler's own" in caplog.text


def test_a_handler_that_raises_later_costs_all_who_wait_an_error(house: House, make_store: MakeStore) -> None:
    served, handling = before(house, make_store, lambda exchange: None)
    clients = []
    for _ in range(3):
        clients.append(served.connect())
        clients[-1].send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    house.until(lambda: handling.exchanges)
    (inner,) = handling.exchanges
    inner.failed(RuntimeError("logged by the loop"))
    house.turns()
    assert clients[0].answer().status == 500
    for inner in handling.exchanges[1:]:
        inner.respond(Head(200), b"well again")
    assert [client.answer().status for client in clients[1:]] == [200, 200]


def test_a_handler_that_gives_up_gives_up_on_all_who_wait(house: House, make_store: MakeStore) -> None:
    served, handling = before(house, make_store, lambda exchange: None)
    clients = []
    for _ in range(3):
        clients.append(served.connect())
        clients[-1].send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    house.until(lambda: handling.exchanges)
    (inner,) = handling.exchanges
    inner.abort("not today")
    for client in clients:
        client.expect_reset()


def test_a_handler_that_aborts_in_the_middle_is_cut_for_all(house: House, make_store: MakeStore) -> None:
    served, handling = before(
        house,
        make_store,
        lambda exchange: exchange.respond(
            Head(200, [(b"Cache-Control", b"max-age=60")]), Script(house.reactor, b"abc", None)
        ),
    )
    clients = []
    for _ in range(2):
        clients.append(served.connect())
        clients[-1].send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        clients[-1].head()
    (inner,) = handling.exchanges
    inner.abort("not today")
    for client in clients:
        client.expect(chunk(b"abc"))
        ended(client)


def test_a_body_that_raises_is_cut_for_all(house: House, make_store: MakeStore, caplog: pytest.LogCaptureFixture) -> None:
    made: list[Script] = []

    def answer(exchange: Exchange) -> None:
        made.append(Script(house.reactor, b"abc", None))
        exchange.respond(Head(200, [(b"Cache-Control", b"max-age=60")]), made[0])

    served, handling = before(house, make_store, answer)
    clients = []
    for _ in range(2):
        clients.append(served.connect())
        clients[-1].send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        clients[-1].head()
    made[0].go(ValueError("of the body's own"))
    for client in clients:
        client.expect(chunk(b"abc"))
        ended(client)
    assert "of the body's own" in caplog.text


def test_a_head_that_cannot_be_sent_costs_only_its_own(
    house: House, make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    served, handling = before(house, make_store, lambda exchange: exchange.respond(Head(200, [], b"bad\nreason"), b"x"))
    clients = []
    for _ in range(2):
        clients.append(served.connect())
        clients[-1].send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    for client in clients:
        answered(client)
        assert b"200" not in client.received[:15]


def test_a_shared_head_is_not_changed(house: House, make_store: MakeStore) -> None:
    shared = Head(200, [(b"Cache-Control", b"no-store")])
    served, handling = before(house, make_store, lambda exchange: exchange.respond(shared, b"x"))
    for _ in range(2):
        client = served.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert cached(client.answer()) == "fwd=uri-miss"
    assert len(shared.fields) == 1


def test_the_operators_rule_stores_what_says_nothing(house: House, make_store: MakeStore) -> None:
    policy = Policy(rules=(OperatorRule(host="a", ttl=60),))
    served, handling = before(house, make_store, says(b"hello"), policy)
    twice(served, b"hello")


def test_grace_answers_while_it_is_validated(house: House, make_store: MakeStore) -> None:
    bodies = iter([b"one", b"two"])
    served, handling = before(
        house,
        make_store,
        lambda exchange: exchange.respond(Head(200, [(b"Cache-Control", b"max-age=60")]), next(bodies)),
        Policy(grace=100),
    )
    for body in (b"one", b"one", b"two"):
        client = served.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer().body == body
        if body == b"one" and len(handling.exchanges) == 1:
            house.pass_time(61.0)
        client.close()


# What is left behind.


def test_a_client_that_leaves_before_the_store_has_answered(house: House) -> None:
    store = LaterStore(house.reactor, MemoryStore(MIB))
    proxy = Proxy(house, store=store)
    client = proxy.connect()
    client.sock.send(proxy.get())
    house.until(lambda: proxy.handling.exchanges)
    proxy.handling.last.abort("gone")
    house.turns()
    assert store.cancelled == 1
    proxy.not_asked()


def test_no_cycles_are_left(house: House, make_proxy: Callable[..., Proxy]) -> None:
    proxy = make_proxy()
    client = proxy.connect()

    def asks(path: str, *lines: str, client: Peer = client) -> Asked:
        client.send(proxy.get(path, *lines))
        return proxy.asked()

    with no_cycles():
        asks("/a").answer(b"hello", FRESH, TAGGED)
        client.answer()
        client.send(proxy.get("/a", "Range: bytes=0-1,3-4") + proxy.get("/a"))
        client.answer()
        client.answer()
        asked = asks("/b")
        asked.begin(FRESH, "Transfer-Encoding: chunked", first=chunk(b"x"))
        asked.peer.send(b"0\r\n\r\n")
        client.answer()
        asks("/a", "Cache-Control: no-cache").begin(TAGGED, status="304 Not Modified")
        client.answer()
        asks("/c").answer(b"x", "Cache-Control: no-store")
        client.answer()
        asks("/d").peer.send(b"nonsense\r\n\r\n")
        client.answer()
        asked = asks("/e")
        asked.begin(FRESH, "Transfer-Encoding: chunked", first=chunk(b"x") + b"zz\r\n")
        client.head()
        client.close()
        house.turns()
        del asked
        house.pass_time(100.0)
        proxy.handling.exchanges.clear()
        proxy.handling.ended.clear()
        del asks
        house.peers.clear()
        proxy._open.clear()


# Any order of comings and goings.

STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "leave", "origin", "origin", "origin", "time"]), st.integers(0, 99)),
    min_size=10,
    max_size=60,
)


@settings(max_examples=80, deadline=None)
@given(STEPS, st.booleans())
def test_whatever_happens_everybody_is_answered_and_with_their_own(steps: list[tuple[str, int]], later: bool) -> None:
    house = House()
    memory = MemoryStore(60_000)
    proxy = Proxy(house, store=LaterStore(house.reactor, memory) if later else memory)
    clients: list[tuple[Peer, int]] = []
    open_fetches: list[tuple[Asked, bytes]] = []

    def origin(choice: int) -> None:
        """The origin hears what there is to hear, and says something."""
        while proxy.heard():
            asked = proxy.asked()
            variant = asked.fields.get(b"x", b"?")
            kind = choice % 6
            if kind == 0:
                says_if_heard(asked.answer, b"v" + variant, FRESH, "Vary: X", 'ETag: "e"')
            elif kind == 1:
                says_if_heard(asked.answer, b"v" + variant, "Cache-Control: private")
            elif kind == 2:
                says_if_heard(asked.answer, b"v" + variant, status="503 Service Unavailable")
            elif kind == 3:
                asked.peer.reset()
            else:
                body = (b"v" + variant) * (10 if kind == 4 else 10_000)
                first = chunk(body[: len(body) // 2])
                says_if_heard(asked.begin, FRESH, "Vary: X", "Transfer-Encoding: chunked", first=first)
                open_fetches.append((asked, body[len(body) // 2 :]))
        if open_fetches and choice % 2:
            asked, rest = open_fetches.pop(choice % len(open_fetches))
            if choice % 7 == 0:
                asked.peer.reset()
            else:
                says_if_heard(asked.peer.send, chunk(rest) + b"0\r\n\r\n")

    try:
        for what, choice in steps:
            if what == "ask":
                clients.append((proxy.ask("/", f"X: {choice % 3}"), choice % 3))
            elif what == "leave" and clients:
                clients.pop(choice % len(clients))[0].reset()
            elif what == "origin":
                origin(choice)
            elif what == "time":
                house.pass_time(choice)
            house.turns(3)
            assert memory.used <= memory.limit
        for _ in range(10):
            origin(0)
            while open_fetches:
                asked, rest = open_fetches.pop()
                says_if_heard(asked.peer.send, chunk(rest) + b"0\r\n\r\n")
            house.turns(5)
        for client, variant in clients:
            answered(client)
            status = bytes(client.received[9:12])
            assert status in (b"200", b"502", b"503", b"504")
            if status == b"200":
                try:
                    body = client.answer().body
                except AssertionError:
                    assert client.over  # cut short, and seen so
                    continue
                assert set(body.split(b"v")) == {b"", b"%d" % variant}
        for peer in house.peers:
            peer.sock.close()
        house.turns(20)
        house.pass_time(200.0)
        assert not proxy.caching.fetches and not proxy.caching.apart
        assert memory.used == sum(content.charged for content in contents(memory))
        house.close()
    finally:
        house.give_up()


def says_if_heard(say: Callable[..., object], *what: Any, **more: Any) -> None:
    """The origin says something, unless nobody wants to hear it any more."""
    with contextlib.suppress(OSError):
        say(*what, **more)


def test_a_cut_is_no_reason_for_a_traceback(house: House, proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    client = proxy.ask()
    asked = proxy.asked()
    asked.begin(FRESH, "Content-Length: 10", first=b"hello")
    client.head()
    asked.peer.reset()
    ended(client)
    assert caplog.text == ""


def test_a_request_that_comes_back_does_not_wait_for_itself(proxy: Proxy) -> None:
    """It has the same key as the one that sent it, and would have to be answered first."""
    client = proxy.connect()
    for _ in range(2):
        client.send(f"GET http://127.0.0.1:{proxy.served.port}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert client.answer().status == 508
    proxy.not_asked()
