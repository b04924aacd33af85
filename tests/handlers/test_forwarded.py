"""What upstreams are told of clients, and whose word is taken for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cache.stores.memory import MemoryStore
from handlers.forwarded import _lines, network
from reactor.errors import ConfigError
from reactor.http.fields import Fields
from tests.loopback import House, housed
from tests.origin import Proxy

CLAIMS = (
    "Forwarded: for=192.0.2.60;proto=https", "X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 192.0.2.60",
    "X-Forwarded-Host: public.example", "X-Forwarded-Proto: https",
)  # fmt: skip


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


def told(proxy: Proxy, *claims: str) -> list[bytes]:
    client = proxy.connect()
    client.send("".join(f"{line}\r\n" for line in ("GET / HTTP/1.1", "Host: www.example", *claims, "")).encode())
    asked = proxy.asked()
    asked.answer()
    client.answer()
    client.close()
    return [line for line in asked.lines if b"orwarded" in line]


OWN = [
    b'Forwarded: for=127.0.0.1;host="www.example";proto=http',
    b"X-Forwarded-For: 127.0.0.1",
    b"X-Forwarded-Host: www.example",
    b"X-Forwarded-Proto: http",
]


@pytest.mark.parametrize("trust", ["", "10.0.0.0/8", "::1", "127.0.0.2"])
def test_what_anybody_claims_is_dropped(house: House, trust: str) -> None:
    proxy = Proxy(house, reverse=True, trust=trust)
    for claims in (CLAIMS, (), CLAIMS[1:2]):  # also where the lines around them are remembered
        assert told(proxy, *claims) == OWN


@pytest.mark.parametrize("trust", ["127.0.0.1", "127.0.0.0/8", "::ffff:127.0.0.0/104"])
def test_what_a_trusted_client_says_is_taken_over(house: House, trust: str) -> None:
    proxy = Proxy(house, reverse=True, trust=trust)
    for _ in range(3):
        assert told(proxy, *CLAIMS) == [
            b'Forwarded: for=192.0.2.60;proto=https, for=127.0.0.1;host="public.example";proto=https',
            b"X-Forwarded-For: 203.0.113.7, 192.0.2.60, 127.0.0.1",
            b"X-Forwarded-Host: public.example",
            b"X-Forwarded-Proto: https",
        ]
        assert told(proxy) == OWN


def test_a_field_cannot_be_taken_away_by_connection(house: House) -> None:
    assert told(Proxy(house, reverse=True), "Connection: forwarded, x-forwarded-for, close", *CLAIMS) == OWN


def test_a_forward_proxy_says_nothing_and_leaves_what_is_said(house: House) -> None:
    proxy = Proxy(house)
    client = proxy.ask("/", "X-Forwarded-For: 192.0.2.60")
    asked = proxy.asked()
    assert b"forwarded" not in asked.fields and asked.fields[b"x-forwarded-for"] == b"192.0.2.60"
    asked.answer()
    client.answer()


@pytest.mark.parametrize(
    ("peer", "node", "address"),
    [
        ("::1", b'"[::1]"', b"::1"),
        ("fe80::1%eth0", b'"[fe80::1]"', b"fe80::1"),
        ("192.0.2.1", b"192.0.2.1", b"192.0.2.1"),
        ("", b"unknown", b"unknown"),
        ("/run/socket", b"unknown", b"unknown"),
    ],
)
def test_addresses_of_every_kind(peer: str, node: bytes, address: bytes) -> None:
    lines = _lines(peer, b"h", b"http", Fields()).split(b"\r\n")
    assert lines[:2] == [b'Forwarded: for=%b;host="h";proto=http' % node, b"X-Forwarded-For: %b" % address]


def test_a_client_that_names_no_host() -> None:
    assert _lines("192.0.2.1", b"", b"http", Fields()) == (
        b"Forwarded: for=192.0.2.1;proto=http\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n"
    )


@pytest.mark.parametrize("text", ["", "a", "10.0.0.0/33", "10.0.0.1/8", "1.2.3", "10.0.0.0/8,::1"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        network(text)
    assert "\n" not in str(caught.value)


def test_other_claims_and_other_spellings_of_them(house: House) -> None:
    claims = ("X_Forwarded_For: 6.6.6.6", "X-Forwarded-Prefix: /evil", "X-Real-IP: 6.6.6.6", "X-Original-URL: /admin", "X-Kept: 1")
    for trust, names in (("", {b"x-kept"}), ("127.0.0.1", {b"x-kept", b"x-forwarded-prefix", b"x-real-ip", b"x-original-url"})):
        proxy = Proxy(house, reverse=True, trust=trust)
        for _ in range(3):
            client = proxy.ask("/", *claims)
            asked = proxy.asked()
            assert {name for name in asked.fields if name.startswith((b"x-", b"x_"))} - set(map(bytes.lower, SAID)) == names
            asked.answer()
            client.answer()


SAID = (b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto")


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded"])
def test_what_varies_on_the_clients_address_is_nobody_elses(house: House, name: str) -> None:
    proxy = Proxy(house, reverse=True, store=MemoryStore(1 << 20))
    for _ in range(2):
        client = proxy.ask("/")
        proxy.asked().answer(b"for 127.0.0.1", "Cache-Control: max-age=9", f"Vary: Accept, {name}")
        assert client.answer().fields[b"vary"] == b"*"
    assert len(proxy.caching.store) == 0


# The target that a client was asked with.


def test_an_absolute_target_of_another_scheme_is_misdirected(house: House) -> None:
    """RFC 9110 section 7.4: what an upstream is asked with http for is not stored as what https names."""
    proxy = Proxy(house, reverse=True, trust="127.0.0.1", store=MemoryStore(1 << 20))
    for said in ((), ("X-Forwarded-Proto: http",)):
        client = proxy.connect()
        client.send("".join(f"{line}\r\n" for line in ("GET https://h/ HTTP/1.1", "Host: h", *said, "")).encode())
        assert client.answer().status == 421
    proxy.not_asked()
    client = proxy.connect()
    client.send(b"GET https://h/ HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\n\r\n")
    asked = proxy.asked()
    assert asked.fields[b"x-forwarded-proto"] == b"https"
    asked.answer(b"hi", "Cache-Control: max-age=9")
    assert client.answer().body == b"hi"


def test_what_is_stored_for_one_host_is_not_for_another(house: House) -> None:
    proxy = Proxy(house, reverse=True, trust="127.0.0.1", store=MemoryStore(1 << 20))
    for said, host in (("a.example", b"a.example"), ("b.example:8080, c", b"b.example:8080"), ("a b", None), ("user@a", None)):
        client = proxy.ask("/", f"X-Forwarded-Host: {said}")
        if said != "user@a":  # it says as little as what came before it
            asked = proxy.asked()
            assert asked.fields[b"x-forwarded-host"] == (host or proxy.authority.encode())
            asked.answer(said.encode(), "Cache-Control: max-age=9")
        assert client.answer().body == (said.encode() if said != "user@a" else b"a b")


@pytest.mark.parametrize(
    ("trust", "said", "scheme"),
    [
        ("127.0.0.1", "https", b"https"),
        ("127.0.0.1", "HTTPS , http", b"https"),
        ("127.0.0.1", "gopher", b"http"),
        ("10.0.0.0/8", "https", b"http"),
    ],
)
def test_the_scheme_is_a_trusted_clients_to_tell(house: House, trust: str, said: str, scheme: bytes) -> None:
    proxy = Proxy(house, reverse=True, trust=trust, store=MemoryStore(1 << 20))
    client = proxy.ask("/", f"X-Forwarded-Proto: {said}")
    proxy.asked().answer(b"hi", "Cache-Control: max-age=9")
    assert client.answer().body == b"hi"
    assert proxy.handling.last.scheme == scheme
    plain = proxy.ask("/")  # what is stored for one scheme is not for the other
    if scheme == b"https":
        proxy.asked().answer(b"plain")
    assert plain.answer().body == (b"plain" if scheme == b"https" else b"hi")
