"""What --trace writes: every byte, both ways, and nothing that a terminal would obey."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from handlers.trace import TracingConnector, dump, trace_inside
from reactor.client import Pool
from reactor.connector import Connector
from reactor.exchange import BytesSource
from reactor.http.uri import Origin
from reactor.resolver import Resolver
from reactor.tls import ClientTls
from tests.loopback import House, housed
from tests.secured import AUTHORITY, TlsPeer, server_context


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


def test_a_dump() -> None:
    assert dump("=> Send", b"GET / \x1b[31m\xff\r\nmore") == (
        "=> Send, 18 bytes (0x12)\n"
        "0000: 47 45 54 20 2f 20 1b 5b 33 31 6d ff 0d 0a 6d 6f GET / .[31m...mo\n"
        "0010: 72 65                                           re\n"
    )


class Owner:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def call_informed(self, *told: Any) -> None:
        self.told.append(told)

    call_responded = call_failed = call_informed


def traced(house: House) -> tuple[Pool, list[str], Owner]:
    lines: list[str] = []
    resolver = Resolver(house.reactor)
    tls = ClientTls(AUTHORITY)
    trace_inside(tls, lines.append)
    pool = Pool(house.reactor, TracingConnector(Connector(house.reactor, resolver), lines.append), tls=tls)
    house.cleanups += [resolver.close, pool.close]
    return pool, lines, Owner()


def test_both_ways(house: House) -> None:
    pool, lines, owner = traced(house)
    origin = house.listen()
    pool.call(Origin(b"http", b"127.0.0.1", origin.port), b"PUT", b"PUT / HTTP/1.1\r\n", BytesSource(b"hello"), owner)
    peer = origin.accept()
    peer.take_until(b"hello")
    peer.send(b"HTTP/1.0 204 X\r\n\r\n")
    peer.shutdown()
    house.until(lambda: owner.told)
    house.turns()
    text = "".join(lines)
    assert text.startswith(f"== connected to 127.0.0.1:{origin.port}\n=> Send, ")
    assert "68 65 6c 6c 6f" in text and "<= Recv, 18 bytes (0x12)\n0000: 48 54 54 50" in text and "<= the end\n" in text


def test_inside_tls_too(house: House) -> None:
    pool, lines, owner = traced(house)
    origin = house.listen()
    pool.call(Origin(b"https", b"127.0.0.1", origin.port), b"PUT", b"PUT / HTTP/1.1\r\n", b"hello", owner)
    peer = TlsPeer(house, origin.accept(), server_context())
    house.peers.append(peer)
    peer.shake()
    request = peer.take_until(b"hello")
    peer.send(b"HTTP/1.0 204 X\r\n\r\n")
    house.until(lambda: owner.told)
    house.turns()
    text = "".join(lines)
    assert "\n0000: 16 03 01 " in text, "the hello as it is"
    assert dump("=> Send inside TLS", request) in text
    assert dump("<= Recv inside TLS", b"HTTP/1.0 204 X\r\n\r\n") in text


def test_nobody_there(house: House) -> None:
    pool, lines, owner = traced(house)
    origin = house.listen()
    origin.sock.close()
    pool.call(Origin(b"http", b"127.0.0.1", origin.port), b"GET", b"GET / HTTP/1.1\r\n", b"", owner)
    house.until(lambda: owner.told)
    assert lines == [f"== 127.0.0.1:{origin.port}: Connection refused\n"]
