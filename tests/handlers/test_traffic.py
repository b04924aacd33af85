"""What a script is given: requests and responses to read and to change."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache.stores.memory import MemoryStore
from handlers.messages import BODY_LIMIT, ScriptFields, encoded
from handlers.traffic import BodyError, Traffic
from reactor.errors import BodyCutShort
from reactor.exchange import Exchange, Head
from tests.handlers.asking import ask
from tests.handlers.scripting import FRESH, GET, SEEN, Make, ScriptedProxy, get, scripts_in, served
from tests.loopback import Handling, House, housed
from tests.loopback import Script as Played
from tests.origin import LaterStore, chunk


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture
def script(tmp_path: Path) -> Make:
    return scripts_in(tmp_path)


@pytest.fixture(autouse=True)
def errors_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


# The request.


def outcome(make: Make, text: str, request: str | bytes, **more: Any) -> Exchange:
    """What the handler behind is given."""
    seen: list[Exchange] = []

    class Keeps:
        def handle(self, exchange: Exchange) -> None:
            seen.append(exchange)

    ask(make(text, Keeps()), request, **more)
    (found,) = seen
    return found


@pytest.mark.parametrize(
    ("request_line", "change", "method", "target", "host"),
    [
        ("GET /a?b=c", "r.method = 'HEAD'", b"HEAD", b"/a?b=c", b"example.com"),
        ("GET /a?b=c", "r.path = '/x y/é?'", b"GET", b"/x%20y/%C3%A9%3F?b=c", b"example.com"),
        ("GET /a?b=c", "r.query = ''", b"GET", b"/a", b"example.com"),
        ("GET /a", "r.query = 'q=a b&c=%41'", b"GET", b"/a?q=a%20b&c=%41", b"example.com"),
        ("GET /a", "r.host = 'other.example'", b"GET", b"/a", b"other.example"),
        ("GET /a", "r.port = 81", b"GET", b"/a", b"example.com:81"),
        ("GET /a", "r.url = 'http://other.example:81/z?y'", b"GET", b"/z?y", b"other.example:81"),
        ("GET /a", "r.scheme = 'https'", b"GET", b"https://example.com/a", b"example.com"),
        ("GET http://example.com/a", "r.path = '/b'", b"GET", b"http://example.com/b", b"example.com"),
        ("GET http://example.com/a", "r.host = '::1'; r.port = 80", b"GET", b"http://[::1]:80/a", b"[::1]:80"),
        ("GET http://example.com/a", "r.url = 'http://é.example/#x'", None, None, None),
        ("GET http://example.com/a", "r.url = 'http://b.example#x'", b"GET", b"http://b.example/", b"b.example"),
        ("CONNECT example.com:443", "r.port = 8443", b"CONNECT", b"example.com:8443", b"example.com:8443"),
    ],
)
def test_a_url_may_be_changed(
    script: Make, request_line: str, change: str, method: bytes | None, target: bytes | None, host: bytes | None, caplog: Any
) -> None:
    text = f"def request(exchange):\n    r = exchange.request\n    {change}"
    if method is None:

        class Never:
            def handle(self, exchange: Exchange) -> None:
                raise AssertionError

        assert ask(script(text, Never()), request_line).status == 500
        return
    inner = outcome(script, text, request_line)
    request = inner.request
    assert (request.method, request.target, request.authority, request.fields[b"host"]) == (method, target, host, host)
    assert request.target.endswith(request.path)


@pytest.mark.parametrize(
    "change",
    [
        "r.method = 'CONNECT'", "r.method = 'A B'", "r.path = 'x'", "r.url = '/x'", "r.url = 'http://u:p@a/'", "r.host = ''",
        "r.host = 'a b'", "r.host = 'a/b'", "r.port = 0", "r.port = 65536", "r.fields['A B'] = 'x'",
        "r.fields['A'] = 'x\\r\\nB: c'",
        "r.fields['A'] = '\\u20ac'", "exchange.answer(100)", "exchange.answer(600)", "exchange.delay(-1)",
        "exchange.delay(1e9)",
        "exchange.delay(float('nan'))", "exchange.response", "return 5", "yield 5",
    ],
)  # fmt: skip
def test_what_cannot_be_is_an_error_of_the_script(script: Make, change: str, caplog: pytest.LogCaptureFixture) -> None:
    class Never:
        def handle(self, exchange: Exchange) -> None:
            raise AssertionError

    exchange = ask(script(f"def request(exchange):\n    r = exchange.request\n    {change}", Never()), "GET /")
    assert exchange.status == 500
    assert "a hook raised" in caplog.text


def test_the_parts_of_a_url(script: Make) -> None:
    text = (
        "def request(exchange):\n"
        "    r = exchange.request\n"
        "    parts = [r.method, r.url, r.scheme, r.host, r.port, r.path, r.query]\n"
        "    exchange.answer(200, [*parts, exchange.client, exchange.user])"
    )
    make = script(text, Handling())
    for line, parts in {
        "GET /a%20b?c=d&e": ["GET", "http://example.com/a%20b?c=d&e", "http", "example.com", 80, "/a%20b", "c=d&e"],
        "GET http://Example.com:81": ["GET", "http://Example.com:81/", "http", "example.com", 81, "/", ""],
        "GET http://[::1]/": ["GET", "http://[::1]/", "http", "::1", 80, "/", ""],
        "OPTIONS *": ["OPTIONS", "http://example.com", "http", "example.com", 80, "*", ""],
        "CONNECT a:443": ["CONNECT", "a:443", "http", "a", 443, "", ""],
    }.items():
        assert ask(make, line).json == [*parts, "192.0.2.7", None]


def test_fields(script: Make) -> None:
    text = """
def request(exchange):
    f = exchange.request.fields
    assert f["a"] == "1, 2" and f.get_all("A") == ["1", "2"] and f.get("none") is None and "none" not in f
    assert list(f)[0] == ("A", "1") and len(f) == 4 and "A" in repr(f)
    f.add("B", "x\\xe9")
    f["C"] = "new"
    del f["a"]
    f.remove("none")
    try:
        f["none"]
    except KeyError:
        exchange.notes["raised"] = True
    assert exchange.notes["raised"]
"""
    fields = outcome(script, text, "GET /\nA: 1\nA: 2\nC: old").request.fields
    assert list(fields) == [(b"Host", b"example.com"), (b"B", b"x\xe9"), (b"C", b"new")]


def test_the_log_tells_what_the_client_sent(script: Make) -> None:
    inner = outcome(script, "def request(exchange): exchange.request.path = '/other'", "GET /asked")
    assert inner.outer.request.target == b"/asked"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    ["def request(exchange): exchange.request.replace('x')", "async def request(exchange): await exchange.request.body()"],
)
def test_what_is_here_is_not_announced(script: Make, text: str) -> None:
    request = outcome(script, text, "POST /\nExpect: 100-continue\n\nabc", streamed=True).request
    assert not request.expects_100 and request.length == int(request.fields[b"content-length"])


# The response.


def test_a_response_is_seen_by_its_client_changed_and_stored_as_it_came(house: House, script: Make) -> None:
    store = MemoryStore(1 << 20)
    proxy = ScriptedProxy(house, script, SEEN, store=LaterStore(house.reactor, store))
    client = proxy.ask("/x")
    proxy.asked().answer(b"hi", FRESH, "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "Accept-Ranges: bytes")
    answer = client.answer()
    assert answer.body == b"HI" and answer.fields.keys().isdisjoint((b"last-modified", b"accept-ranges"))
    (stored,) = [entry for entries in store._entries.values() for entry in entries]
    assert stored.body.whole() == b"hi"
    house.turns()
    assert [(one.verdict, one.upstream) for one in proxy.outer.ended] == [("miss", proxy.authority)]


def test_a_part_that_is_replaced_is_whole(house: House, script: Make) -> None:
    proxy = ScriptedProxy(house, script, SEEN)
    client = proxy.ask("/x", "Range: bytes=0-1")
    proxy.asked().answer(b"ab", "Content-Range: bytes 0-1/10", status="206 Partial Content")
    answer = client.answer()
    assert (answer.status, answer.body, answer.fields.get(b"content-range")) == (200, b"AB", None)


@pytest.mark.parametrize(("status", "method"), [("204 No Content", "GET"), ("304 Not Modified", "GET"), ("200 OK", "HEAD")])
def test_a_response_without_a_body(house: House, script: Make, status: str, method: str) -> None:
    text = (
        "def response(exchange):\n    assert not exchange.response.is_json\n    exchange.response.fields['X-Seen'] = 'yes'"
    )
    proxy = ScriptedProxy(house, script, text)
    client = proxy.connect()
    client.send(proxy.request(method, "/x", *['If-None-Match: "1"'] * status.startswith("304")))
    proxy.asked().begin("Content-Type: application/json", 'ETag: "1"', status=status)
    answer = client.answer(method.encode())
    assert (answer.status, answer.fields[b"x-seen"]) == (int(status[:3]), b"yes")
    client.expect_silence()


def test_another_status_and_another_answer(house: House, script: Make) -> None:
    text = """
def response(exchange):
    if exchange.request.path == "/answer":
        exchange.answer(299, "other")
    elif exchange.request.path == "/refuse":
        exchange.refuse("not for you", 451)
    else:
        exchange.response.status = 418
"""
    large = bytes(1 << 20)
    listener, handling = served(
        house, script, text, lambda exchange: exchange.respond(Head(200), Played(house.reactor, large))
    )
    peer = listener.connect()
    assert [get(peer, path).status for path in ("/answer", "/refuse", "/status")] == [299, 451, 418]
    house.turns()
    assert [one.ended for one in handling.exchanges] == [True] * 3


def test_what_the_script_answered_itself_it_does_not_see_again(house: House, script: Make) -> None:
    listener, handling = served(
        house, script, "def request(exchange): exchange.answer(200, 'mine')\ndef response(exchange): 1 / 0"
    )
    assert get(listener.connect()).body == b"mine"
    assert handling.exchanges == []


def test_errors_of_the_proxy_are_responses_too(house: House, script: Make) -> None:
    proxy = ScriptedProxy(
        house, script, "def response(exchange): exchange.response.fields['X-Seen'] = str(exchange.response.status)"
    )
    proxy.origin.sock.close()
    answer = proxy.ask("/x").answer()
    assert (answer.status, answer.fields[b"x-seen"]) == (502, b"502")
    house.turns()
    assert proxy.outer.ended[0].error is not None


def test_a_response_past_the_limit_is_502_and_costs_the_origin_its_connection(house: House, script: Make) -> None:
    for number, line in enumerate((f"Content-Length: {BODY_LIMIT + 1}", "Transfer-Encoding: chunked")):
        proxy = ScriptedProxy(house, script, SEEN)
        client = proxy.ask("/x")
        asked = proxy.asked()
        asked.begin(line)
        if number:
            asked.peer.send(*[chunk(bytes(65536))] * (BODY_LIMIT // 65536 + 1))
        answer = client.answer()
        assert (answer.status, b"larger than" in answer.body) == (502, True)
        asked.peer.until(lambda: asked.peer.over, "the end")


def test_a_response_that_is_cut_while_it_is_read_is_502(house: House, script: Make) -> None:
    proxy = ScriptedProxy(house, script, SEEN)
    client = proxy.ask("/x")
    asked = proxy.asked()
    asked.begin("Content-Length: 10", first=b"01234")
    house.turns()
    asked.peer.close()
    answer = client.answer()
    assert (answer.status, b"the connection was" in answer.body or b"closed" in answer.body) == (502, True)


def test_a_body_that_raises_is_502(house: House, script: Make, caplog: pytest.LogCaptureFixture) -> None:
    for pieces in ((KeyError("of the body"),), (None, KeyError("of the body"))):
        source = Played(house.reactor, *pieces)
        listener, _ = served(house, script, SEEN, lambda exchange, source=source: exchange.respond(Head(200), source))
        peer = listener.connect()
        peer.send(GET)
        source.go()
        assert (peer.answer().status, source.closes > 0) == (502, True)
    assert caplog.text.count("KeyError: 'of the body'") == 2


def test_a_delay_may_be_awaited_again(house: House, script: Make) -> None:
    text = "async def request(exchange):\n    pause = exchange.delay(1)\n    await pause\n    await pause"
    listener, _ = served(house, script, text)
    peer = listener.connect()
    peer.send(GET)
    for seconds in (1.0, 0.9):
        house.pass_time(seconds)
        peer.expect_silence()
    house.pass_time(0.1)
    assert peer.answer().status == 200


def test_a_large_response_that_is_let_through_is_not_collected(house: House, script: Make) -> None:
    text = """
from handlers.traffic import BodyError

async def response(exchange):
    try:
        await exchange.response.body(limit=100_000)
    except BodyError:
        exchange.response.fields["X-Large"] = "yes"
"""
    proxy = ScriptedProxy(house, script, text)
    client = proxy.ask("/x")
    asked = proxy.asked()
    pieces = [os.urandom(50_000) for _ in range(8)]
    asked.begin("Transfer-Encoding: chunked", FRESH)
    asked.peer.send(*map(chunk, pieces), b"0\r\n\r\n")
    answer = client.answer()
    assert answer.body == b"".join(pieces) and answer.fields[b"x-large"] == b"yes"


def test_the_vocabulary_is_public() -> None:
    assert isinstance(BodyError("x", 400), Exception) and BodyCutShort("x").status == 400
    assert ScriptFields.__doc__ and Traffic.__doc__
    assert encoded("\udcff") == (b"\xff", "text/plain; charset=utf-8")
