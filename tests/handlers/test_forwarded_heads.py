"""Heads as they go on: the same octets, whether their lines are met for the first time or were remembered long ago."""

from __future__ import annotations

from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from handlers import proxy as proxy_module
from handlers.forwarded import Trust
from handlers.proxy import Forwarding
from handlers.upstreams import Upstream
from reactor.errors import ProtocolError
from reactor.exchange import Exchange
from reactor.http.grammar import LIMITS, Limits
from reactor.http.parser import RequestParser
from reactor.http.uri import Origin
from tests.loopback import Script
from tests.strategies import thorough

ORIGIN = Origin(b"http", b"origin.example", 80)
TRUSTED = "192.0.2.1"
LINES = [
    b"Accept: x", b"accept: y", b"User-Agent: a", b"X-A: b", b"X-A:b", b"X-Empty: ", b"Cookie: a=b", b"Cookie: c",
    b"Cookie: ", b"cookie: d", b"Cookie:e", b"Referer: http://a/", b"Referer: ", b"referer: f",
    b"Connection: keep-alive", b"Connection: Keep-Alive", b"Connection: close", b"Connection: x-a, Cookie",
    b"Connection: referer", b"Connection: keep-alive, TE", b"Keep-Alive: 5", b"Proxy-Connection: keep-alive",
    b"Proxy-Authorization: Basic eDp5", b"Via: 1.0 a", b"Max-Forwards: 3", b"Max-Forwards: x", b"TE: trailers",
    b"TE: gzip", b"Trailer: X-Sum", b"Proxy: a", b"Expect: 100-continue", b"Upgrade: x", b"Connection: upgrade",
    b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Forwarded: for=a", b"X-Forwarded-For: 198.51.100.1",
    b"X-Forwarded-Proto: https", b"X_Forwarded_For: b", b"X-Real-IP: c",
]  # fmt: skip
COMMON = [
    [b"Accept: x"],
    [b"Connection: keep-alive", b"X-A: b"],
    [b"TE: trailers", b"Via: 1.0 a"],
    [b"X-Forwarded-For: 198.51.100.1"],
]
BESIDE = [[], [b"Cookie: a=b"], [b"Referer: http://a/"], [b"Cookie: c", b"Referer: d"], [b"Referer: ", b"Cookie: "]]


LOOP: Any = SimpleNamespace(now=0.0)


def kinds() -> list[Forwarding]:
    """A forward proxy, a reverse one that trusts a client, and one that keeps the Host."""
    pool: Any = SimpleNamespace()
    upstreams = [Upstream.parse("http://origin.example/")]
    made = [
        Forwarding(pool),
        Forwarding(pool, upstreams, trust=Trust([ip_network(TRUSTED)])),
        Forwarding(pool, upstreams, preserve_host=True),
    ]
    for forwarding in made:
        forwarding._via, forwarding._via_old = b"Via: 1.1 here\r\n", b"Via: 1.0 here\r\n"
    return made


def sent(forwarding: Forwarding, wire: bytes, limits: Limits = LIMITS) -> bytes:
    """The head as it goes on; with limits of their own, requests are parsed without memory."""
    parser = RequestParser(limits)
    parser.feed(wire)
    request: Any = parser.next_event()
    exchange = Exchange(LOOP, request, b"" if request.length == 0 else Script(LOOP), TRUSTED)
    return forwarding.head(exchange, ORIGIN, b"/", request.fields)


def spelled(lines: list[bytes], start: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join([start, b"Host: a", *lines]) + b"\r\n\r\n"


def always_the_same(wires: list[bytes]) -> None:
    """Whatever was sent on before, and with a memory that was just emptied."""
    try:
        expected = [[sent(forwarding, wire, Limits()) for wire in wires] for forwarding in kinds()]
    except ProtocolError:
        assume(False)
    for forwarding, heads in zip(kinds(), expected, strict=True):
        for _ in range(4):
            assert [sent(forwarding, wire) for wire in wires] == heads
        forwarding._blocks.clear()
        assert [sent(forwarding, wire) for wire in wires] == heads


some = st.lists(st.sampled_from(LINES), max_size=5, unique=True)
starts = st.sampled_from([b"GET / HTTP/1.1", b"POST http://b/c HTTP/1.1", b"GET / HTTP/1.0"])


@thorough
@given(st.lists(st.tuples(starts, some), min_size=1, max_size=3))
def test_it_does_not_matter_how_often_the_lines_were_met(requests: list[tuple[bytes, list[bytes]]]) -> None:
    always_the_same([spelled(lines, start) for start, lines in requests])


@pytest.mark.parametrize("block", COMMON, ids=lambda block: block[-1].decode())
def test_what_is_beside_the_lines_that_are_remembered_is_its_requests_own(block: list[bytes]) -> None:
    wires = [spelled([*beside[:1], *block, *beside[1:]]) for beside in BESIDE]
    always_the_same(wires)
    always_the_same(wires[::-1])


def test_what_comes_last_is_what_differs_from_request_to_request() -> None:
    (forwarding, *_) = kinds()
    for limits in (Limits(), LIMITS, LIMITS, LIMITS):
        head = sent(forwarding, spelled([b"Referer: r", b"Accept: x", b"Cookie: c", b"Via: 1.0 a", b"X-A: b"]), limits)
        assert head.split(b"\r\n")[2:] == [
            b"Accept: x", b"Via: 1.0 a", b"X-A: b", forwarding._via[:-2], b"Cookie: c", b"Referer: r", b"",
        ]  # fmt: skip


def test_what_connection_names_ends_here_wherever_it_stands() -> None:
    (forwarding, *_) = kinds()
    for _ in range(4):
        head = sent(forwarding, spelled([b"Cookie: a", b"Connection: cookie, x-a", b"X-A: b", b"Referer: r"]))
        assert head.split(b"\r\n")[2:] == [forwarding._via[:-2], b"Referer: r", b""]


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "MEMO_BLOCKS", 3)
    (forwarding, *_) = kinds()
    for number in range(10):
        for _ in range(3):
            head = sent(forwarding, spelled([b"X-Number: %d" % number]))
            assert b"X-Number: %d\r\n" % number in head
        assert len(forwarding._blocks) == 1 + number % 3
