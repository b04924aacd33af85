"""TRACE and OPTIONS, and how far they go (RFC 9110 section 7.6.2)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.loopback import House, housed
from tests.origin import Proxy, chunk


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture(params=[False, True], ids=["forward", "reverse"])
def proxy(house: House, request: pytest.FixtureRequest) -> Proxy:
    return Proxy(house, reverse=request.param)


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS"])
@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("1", b"0"), ("10", b"9"), ("007", b"6"), ("1" * 5000, b"999998"), ("x", b"x"), ("+1", b"+1"), ("1, 2", b"1, 2"), ("", b""),
    ],
)  # fmt: skip
def test_each_hop_counts_down(proxy: Proxy, method: str, value: str, sent: bytes) -> None:
    for _ in range(4):  # also where the lines around it are remembered
        client = proxy.connect()
        client.send(proxy.request(method, "/x", f"Max-Forwards: {value}"))
        asked = proxy.asked()
        assert (asked.method, asked.fields[b"max-forwards"]) == (method.encode(), sent)
        asked.answer(b"hi")
        assert client.answer().body == b"hi"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_it_means_nothing_for_other_methods(proxy: Proxy, method: str) -> None:
    client = proxy.connect()
    client.send(proxy.request(method, "/x", "Max-Forwards: 0"))
    asked = proxy.asked()
    assert asked.fields[b"max-forwards"] == b"0"
    asked.answer()
    client.answer()


@pytest.mark.parametrize("zero", ["0", "000"])
def test_a_trace_ends_here_and_comes_back_without_secrets(proxy: Proxy, zero: str) -> None:
    client = proxy.connect()
    head = proxy.request(
        "TRACE", "/x?y", f"Max-Forwards: {zero}", "X-One:  1", "authorization: Basic eDp5", "Cookie: a=b",
        "Proxy-Authorization: x", "Via: 1.1 fred",
    )  # fmt: skip
    client.send(head)
    answer = client.answer()
    assert (answer.status, answer.fields[b"content-type"]) == (200, b"message/http")
    secret = (b"authorization", b"Cookie", b"Proxy-Authorization")
    kept = [line for line in head.replace(b"X-One:  1", b"X-One: 1").split(b"\r\n") if not line.startswith(secret)]
    assert answer.body == b"\r\n".join(kept)
    proxy.not_asked()


def test_a_trace_has_no_content(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.request("TRACE", "/", "Max-Forwards: 0", "Transfer-Encoding: chunked") + chunk(b"x") + b"0\r\n\r\n")
    assert client.answer().status == 400
    proxy.not_asked()


@pytest.mark.parametrize("target", ["/x", "*"])
def test_options_end_here(proxy: Proxy, target: str) -> None:
    client = proxy.connect()
    url = proxy.url("").rstrip("/") or "*" if target == "*" else proxy.url("/x")
    client.send(f"OPTIONS {url} HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n".encode() + proxy.get("/next"))
    answer = client.answer()
    assert (answer.status, answer.body) == (200, b"")
    assert b"GET" in answer.fields[b"allow"] and b"via" not in answer.fields
    proxy.asked().answer(b"hi")
    assert client.answer().body == b"hi"


def test_options_for_a_server_of_several_parts_are_answered_here(house: House) -> None:
    proxy = Proxy(house, reverse=True, at="/part")
    client = proxy.connect()
    client.send(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer().status == 200
    proxy.not_asked()
