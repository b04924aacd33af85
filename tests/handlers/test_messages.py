"""Bodies that a script reads and replaces, and what is wrong with those that it cannot have."""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.messages import BODY_LIMIT
from tests.handlers.scripting import Make, ScriptedProxy, post, scripts_in, served
from tests.loopback import House, housed
from tests.origin import chunk

ECHO = "async def request(exchange):\n    exchange.answer(200, (await exchange.request.{}).upper())"
READ = "async def request(exchange):\n    await exchange.request.body({})"


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture
def script(tmp_path: Path) -> Make:
    return scripts_in(tmp_path)


@pytest.fixture(autouse=True)
def errors_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


def test_a_body_may_come_in_any_pieces(house: House, script: Make) -> None:
    listener, _ = served(house, script, ECHO.format("text()"))
    peer = listener.connect()
    assert post(peer, b"whole").body == b"WHOLE"
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n")
    peer.expect(b"HTTP/1.1 100 Continue\r\n\r\n")
    peer.send(b"ab", b"cd", b"ef")
    assert peer.answer().body == b"ABCDEF"
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"ab"), chunk(b"c"), b"0\r\n\r\n")
    assert peer.answer().body == b"ABC"


def test_a_body_that_was_read_goes_on_whole(house: House, script: Make) -> None:
    proxy = ScriptedProxy(house, script, "async def request(exchange):\n    assert await exchange.request.json() == [1]")
    client = proxy.connect()
    client.send(proxy.request("POST", "/x", "Transfer-Encoding: chunked", "Expect: 100-continue"))
    client.expect(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.send(chunk(b"[1"), chunk(b"]"), b"0\r\n\r\n")
    asked = proxy.asked()
    assert (asked.fields[b"content-length"], asked.body()) == (b"3", b"[1]")
    assert b"expect" not in asked.fields
    asked.answer(b"hi")
    assert client.answer().body == b"hi"
    house.turns()
    assert (proxy.outer.ended[0].bytes_in, proxy.outer.ended[0].verdict) == (3, "pass")


@pytest.mark.parametrize(("content", "sent", "media"), [
    ("b'\\x00'", b"\x00", b"application/octet-stream"),
    ("'\\u00e9'", b"\xc3\xa9", b"text/plain; charset=utf-8"),
    ("{'a': ['\\u00e9', None]}", b'{"a": ["\xc3\xa9", null]}', b"application/json"),
])  # fmt: skip
def test_a_body_may_be_replaced_without_being_read(
    house: House, script: Make, content: str, sent: bytes, media: bytes
) -> None:
    proxy = ScriptedProxy(house, script, f"def request(exchange): exchange.request.replace({content})")
    client = proxy.connect()
    client.send(proxy.request("PUT", "/x", "Content-Length: 4", "Content-Encoding: gzip", "Content-MD5: AA=="))
    asked = proxy.asked()
    assert asked.body() == sent
    assert (asked.fields[b"content-type"], asked.fields.keys() & {b"content-encoding", b"content-md5"}) == (media, set())
    asked.answer(b"hi")
    client.send(b"gone")
    assert client.answer().body == b"hi"
    client.send(proxy.get("/y"))
    proxy.asked().answer(b"next")
    assert client.answer().body == b"next"


def test_past_the_limit_it_is_413(house: House, script: Make) -> None:
    for number, head in enumerate((f"Content-Length: {BODY_LIMIT + 1}", "Transfer-Encoding: chunked")):
        listener, handling = served(house, script, READ.format(""))
        peer = listener.connect()
        peer.send(f"POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n".encode())
        if number:
            for _ in range(BODY_LIMIT // 65536 + 1):
                peer.offer(chunk(bytes(65536)))
        answer = peer.answer()
        assert (answer.status, answer.body) == (
            413,
            f"413 Content Too Large: the body is larger than {BODY_LIMIT} bytes\n".encode(),
        )
        assert handling.exchanges == []


def test_an_endless_body_is_not_read_for_ever(house: House, script: Make) -> None:
    listener, _ = served(house, script, READ.format("limit=1000"))
    peer = listener.connect()
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not peer.read():
        peer.offer(chunk(b"x" * 100))
    assert peer.answer().status == 413


def test_a_body_that_stops_is_408_and_one_that_breaks_is_400(house: House, script: Make) -> None:
    listener, handling = served(house, script, READ.format(""))
    peer = listener.connect()
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
    house.pass_time(60.0)
    assert peer.answer().status == 408
    broken = listener.connect()
    broken.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n")
    assert broken.answer().status == 400
    assert handling.exchanges == []


@pytest.mark.parametrize(
    ("body", "lines", "call", "status", "why"),
    [
        (b"{", (), "json()", 400, "the body is no JSON"),
        (b"[" * 100_000, (), "json()", 400, "the body is no JSON"),
        (b"\xff", ("Content-Type: text/plain; charset=ascii",), "text()", 400, "the body is no text"),
        (b"x", ("Content-Type: text/plain; charset=idna",), "text()", 400, "the body is no text"),
        (b"x", ("Content-Type: text/plain; charset=zip",), "text()", 400, "the body is no text"),
        (b"x", ("Content-Encoding: br",), "body()", 400, "the content coding 'br' is not known here"),
        (b"no gzip at all", ("Content-Encoding: gzip",), "body()", 400, "its gzip coding is broken"),
        (gzip.compress(b"x")[:-3], ("Content-Encoding: gzip",), "body()", 400, "its gzip coding ends in the middle"),
        (zlib.compress(b"x") * 2, ("Content-Encoding: deflate",), "body()", 400, "bytes behind the end of its deflate coding"),
        (gzip.compress(bytes(1 << 22)), ("Content-Encoding: gzip",), "body()", 413, "the body decodes to more than"),
        (b"x", ("Content-Encoding: gzip, gzip, gzip, gzip, gzip",), "body()", 400, "5 content codings on top of each other"),
    ],
)
def test_a_body_that_is_not_what_it_says(
    house: House,
    script: Make,
    caplog: pytest.LogCaptureFixture,
    body: bytes,
    lines: tuple[str, ...],
    call: str,
    status: int,
    why: str,
) -> None:
    listener, handling = served(house, script, f"async def request(exchange):\n    await exchange.request.{call}")
    answer = post(listener.connect(), body, *lines)
    assert answer.status == status and why in answer.body.decode()
    assert handling.exchanges == [] and caplog.text == "", "a peer's fault is no traceback"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(b"hello")),
        ("X-GZIP", gzip.compress(b"hel") + gzip.compress(b"") * 4000 + gzip.compress(b"lo")),
        ("deflate", zlib.compress(b"hello")),
        ("deflate", zlib.compress(b"hello")[2:-4]),
        ("deflate, gzip", gzip.compress(zlib.compress(b"hello"))),
        ("identity", b"hello"),
    ],
)
def test_content_codings_are_undone(house: House, script: Make, coding: str, body: bytes) -> None:
    listener, _ = served(house, script, ECHO.format("text()"))
    assert post(listener.connect(), body, f"Content-Encoding: {coding}").body == b"HELLO"


def test_charsets(house: House, script: Make) -> None:
    listener, _ = served(house, script, ECHO.format("text()"))
    peer = listener.connect()
    assert post(peer, b"\xe9", 'Content-Type: text/plain; charset="ISO-8859-1"').body == "É".encode()
    assert post(peer, b"\xe9a", "Content-Type: text/plain").body == b"\xe9A", "what is no UTF-8 survives"


def test_what_a_script_catches_goes_on_untouched(house: House, script: Make) -> None:
    text = """
from handlers.traffic import BodyError

async def request(exchange):
    try:
        await exchange.request.text(limit=10)
    except BodyError:
        exchange.request.fields["X-Large"] = "yes"
"""
    proxy = ScriptedProxy(house, script, text)
    body = os.urandom(200_000)
    client = proxy.connect()
    client.send(proxy.request("POST", "/x", f"Content-Length: {len(body)}"))
    asked = proxy.asked()
    client.send(body[:100_000], body[100_000:])
    assert asked.fields[b"x-large"] == b"yes" and asked.body() == body
    asked.answer(b"hi")
    assert client.answer().body == b"hi"
    client.send(
        proxy.request("POST", "/x", "Transfer-Encoding: chunked"), chunk(body[:100]), chunk(body[100:200]), b"0\r\n\r\n"
    )
    asked = proxy.asked()
    assert asked.body() == body[:200]
    asked.answer(b"hi")
    assert client.answer().body == b"hi"
