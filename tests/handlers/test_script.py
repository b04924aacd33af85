"""Scripts: hooks before the cache, over real connections, with whatever a user's program and its peers may do wrong."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cache.stores.memory import MemoryStore
from handlers.access_log import AccessLog
from handlers.messages import BODY_LIMIT, ScriptFields, encoded
from handlers.script import Script
from handlers.script_file import ScriptFile
from handlers.traffic import DELAY_LIMIT, BodyError, Traffic
from reactor.errors import BodyCutShort, ConfigError
from reactor.exchange import Exchange, FileSource, Head
from reactor.server import ServerLimits
from tests.handlers.asking import Clock, ask
from tests.loopback import Answer, Handling, House, Peer, Served, echo, housed, says
from tests.loopback import Script as Played
from tests.origin import LaterStore, Proxy, chunk, no_cycles

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
FRESH = "Cache-Control: max-age=60"
README = Path(__file__).resolve().parents[2] / "README.md"
EXAMPLES = dict(re.findall(r"```python\n# (\w+)\.py [^\n]*\n(.*?)```", README.read_text("utf-8"), re.DOTALL))


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture
def script(house: House, tmp_path: Path) -> Callable[..., Script]:
    """A script of this text around a handler."""

    def make(text: str, handler: Any) -> Script:
        path = tmp_path / "filter.py"
        path.write_text(text)
        return Script(handler, ScriptFile(str(path)))

    return make


Make = Callable[..., Script]


class ScriptedProxy(Proxy):
    """A caching proxy for one origin, behind a script."""

    def __init__(self, house: House, make: Make, text: str, store: Any = None, **more: Any) -> None:
        super().__init__(house, store=MemoryStore(64 << 20) if store is None else store, **more)
        self.script = make(text, self.handling)
        self.outer = Handling(self.script.handle)
        self.served = house.serve(self.outer)


def served(
    house: House, make: Make, text: str, answer: Any = None, limits: ServerLimits = ServerLimits()
) -> tuple[Served, Handling]:
    handling = Handling(answer or says(b"from the handler"))
    return house.serve(make(text, handling), limits), handling


def get(peer: Peer, path: str = "/", *lines: str, host: str = "a") -> Answer:
    peer.send("".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", f"Host: {host}", *lines, "")).encode("latin-1"))
    return peer.answer()


def post(peer: Peer, body: bytes, *lines: str) -> Answer:
    head = "".join(f"{line}\r\n" for line in ("POST / HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *lines, ""))
    peer.send(head.encode("latin-1") + body)
    return peer.answer()


# The README's examples.


def test_the_examples_are_all_there() -> None:
    assert {"block", "header", "stub", "count", "rewrite", "slow"} <= EXAMPLES.keys()


def test_block_by_host(house: House, script: Make) -> None:
    proxy = ScriptedProxy(house, script, EXAMPLES["block"])
    client = proxy.connect()
    client.send(b"GET http://Ads.example:80/x HTTP/1.1\r\nHost: Ads.example:80\r\n\r\n")
    refused = client.answer()
    assert (refused.status, refused.body) == (403, b"403 Forbidden: this host is blocked here\n")
    assert refused.fields[b"cache-control"] == b"no-store"
    client.send(proxy.get("/"))
    proxy.asked().answer(b"hi")
    assert client.answer().body == b"hi"
    tunnel = proxy.connect()
    tunnel.send(b"CONNECT tracker.example:443 HTTP/1.1\r\nHost: tracker.example:443\r\n\r\n")
    assert tunnel.answer().status == 403
    tunnel.expect_close()
    house.turns()
    assert [(one.verdict, one.reason) for one in proxy.outer.ended[::2]] == [
        ("denied", "refused by the script: this host is blocked here")
    ] * 2


def test_add_a_header_each_way(house: House, script: Make) -> None:
    proxy = ScriptedProxy(house, script, EXAMPLES["header"])
    client = proxy.ask("/x")
    asked = proxy.asked()
    assert asked.fields[b"x-team"] == b"tools"
    asked.answer(b"hi", FRESH)
    first = client.answer()
    client.send(proxy.get("/x"))
    second = client.answer()
    assert first.fields[b"x-asked-by"] == second.fields[b"x-asked-by"] == b"127.0.0.1"
    assert second.fields[b"cache-status"] == b"reactor; hit; ttl=60"
    assert first.body == second.body == b"hi"


def test_answer_from_a_dict(house: House, script: Make) -> None:
    listener, handling = served(house, script, EXAMPLES["stub"])
    peer = listener.connect()
    price = get(peer, "/api/price?currency=EUR")
    assert (price.status, json.loads(price.body), price.fields[b"content-type"]) == (200, {"price": 42}, b"application/json")
    assert price.fields[b"cache-control"] == b"no-store"
    assert (get(peer, "/health").body, get(peer, "/else").body) == (b"fine\n", b"from the handler")
    assert len(handling.exchanges) == 1


def test_count_by_host(house: House, script: Make) -> None:
    listener, _ = served(house, script, EXAMPLES["count"])
    peer = listener.connect()
    for host in ("a", "b", "A:80", "b:81", "a"):
        get(peer, host=host)
    assert json.loads(get(peer, host="count.example").body) == {"a": 3, "b": 2}


def test_rewrite_json(house: House, script: Make) -> None:
    proxy = ScriptedProxy(house, script, EXAMPLES["rewrite"])
    body = gzip.compress(b'{"a": "\xc3\xa9", "debug": [1]}')
    lines = (
        "Content-Type: application/json",
        "Content-Encoding: gzip",
        'ETag: "1"',
        "Content-Digest: sha-256=:AA==:",
        FRESH,
    )
    client = proxy.ask("/x")
    proxy.asked().answer(body, *lines)
    for turn in range(2):  # a miss, and a hit
        if turn:
            client.send(proxy.get("/x"))
        answer = client.answer()
        assert answer.body == b'{"a": "\xc3\xa9"}'
        assert answer.fields.keys().isdisjoint((b"content-encoding", b"etag", b"content-digest"))
        assert answer.fields[b"content-type"] == b"application/json"
    other = proxy.ask("/y")
    proxy.asked().answer(gzip.compress(b"[1]", mtime=0), *lines)
    untouched = other.answer()
    assert (untouched.body, untouched.fields[b"etag"]) == (gzip.compress(b"[1]", mtime=0), b'"1"')
    head = proxy.connect()
    head.send(proxy.request("HEAD", "/x"))
    assert head.answer(b"HEAD").fields[b"content-encoding"] == b"gzip"


def test_slow_somebody_down_and_nobody_else(house: House, script: Make) -> None:
    listener, handling = served(house, script, EXAMPLES["slow"])
    bot, other = listener.connect(), listener.connect()
    bot.send(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: SomeBot/1\r\n\r\n")
    assert get(other).body == b"from the handler"
    house.pass_time(1.9)
    bot.expect_silence()
    house.pass_time(0.1)
    assert bot.answer().body == b"from the handler"
    assert len(handling.exchanges) == 2


# What an untouched exchange is, with a script or without.


@pytest.mark.parametrize(
    "text", ["", "x = 1", "def request(exchange): exchange.request.url", "def request(exchange): exchange.notes['a'] = 1"]
)
def test_what_is_not_changed_is_the_very_exchange_and_takes_no_turn(text: str, script: Make) -> None:
    seen: list[Exchange] = []

    class Keeps:
        def handle(self, exchange: Exchange) -> None:
            seen.append(exchange)

    exchange = ask(script(text, Keeps()), "GET /")
    assert seen == [exchange] and exchange._ends is None and exchange._maps is None


def test_a_file_stays_a_file_and_a_stored_head_stays_serialized(house: House, script: Make, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(100_000))
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    head = Head(200, [(b"Content-Length", b"100000")], wire=wire)

    def answer(exchange: Exchange) -> None:
        exchange.respond(head, FileSource(os.open(tmp_path / "data", os.O_RDONLY), 0, 100_000))

    listener, _ = served(house, script, "def response(exchange): exchange.response.fields.get('x')", answer)
    peer = listener.connect()
    peer.send(GET)
    assert peer.answer().head == wire
    clock = Clock()
    exchange = ask(listener.server.handler, "GET /", clock)
    assert exchange.head is head and exchange.answer_body.as_file() is not None  # type: ignore[union-attr]
    exchange.answer_body.close()  # type: ignore[union-attr]


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


# Bodies of requests.

ECHO = "async def request(exchange):\n    exchange.answer(200, (await exchange.request.{}).upper())"
READ = "async def request(exchange):\n    await exchange.request.body({})"


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


# The response.

SEEN = "\nasync def response(exchange):\n    exchange.response.replace((await exchange.response.text()).upper())"


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


# Hooks that raise, wait, and are left alone.


@pytest.mark.parametrize(
    "text",
    [
        "def request(exchange): 1 / 0",
        "def request(exchange): exit(1)",
        "async def response(exchange): exit(1)",
        "async def request(exchange): 1 / 0",
        "async def request(exchange):\n    await exchange.delay(0)\n    1 / 0",
        "async def request(exchange):\n    await exchange.request.body()\n    1 / 0",
        "def response(exchange): 1 / 0",
        "async def response(exchange): 1 / 0",
        "async def response(exchange):\n    await exchange.response.body()\n    1 / 0",
        "async def response(exchange):\n    exchange.response.replace('x')\n    await exchange.delay(0)\n    1 / 0",
        "import asyncio\nasync def request(exchange): await asyncio.sleep(0)",
        "async def request(exchange): await [].pop()",
        "def response(exchange): exchange.response.fields['a\\n'] = ''",
    ],
)
def test_a_hook_that_raises_costs_its_own_exchange(
    house: House, script: Make, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    sources: list[Played] = []

    def answer(exchange: Exchange) -> None:
        sources.append(Played(house.reactor, b"ab", None, b"c"))
        exchange.respond(Head(200), sources[-1])

    listener, handling = served(house, script, text, answer)
    peer = listener.connect()
    for _ in range(2):  # on one connection
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", b"abc")
        house.pass_time(0.001)
        for source in sources:
            source.go()
        house.pass_time(0.001)
        failed = peer.answer()
        assert (failed.status, failed.body) == (500, b"500 Internal Server Error: the script failed\n")
    assert caplog.text.count("a hook raised for <Request POST />") == 2 and 'filter.py", line ' in caplog.text
    assert all(exchange.ended for exchange in handling.exchanges)


def test_delays_add_up_and_hold_the_answer_up(house: House, script: Make) -> None:
    text = """
async def request(exchange):
    await exchange.delay(1)
    exchange.delay(2)
    exchange.delay(3)
    exchange.refuse("after a while")

def response(exchange):
    raise AssertionError
"""
    listener, _ = served(house, script, text)
    peer = listener.connect()
    peer.send(GET)
    for seconds in (1.0, 4.9):
        house.pass_time(seconds)
        peer.expect_silence()
    house.pass_time(0.1)
    assert peer.answer().status == 403
    assert DELAY_LIMIT == 300


def test_a_response_may_be_delayed(house: House, script: Make) -> None:
    listener, _ = served(house, script, "def response(exchange): exchange.delay(1)")
    peer = listener.connect()
    peer.send(GET)
    house.pass_time(0.9)
    peer.expect_silence()
    house.pass_time(0.2)
    assert peer.answer().body == b"from the handler"


WAITS = [
    "async def request(exchange):\n    try:\n        await exchange.delay(100)\n    finally:\n        {}",
    "async def request(exchange):\n    try:\n        await exchange.request.body()\n    finally:\n        {}",
    "def request(exchange): exchange.delay(100)",
    "async def response(exchange):\n    try:\n        await exchange.delay(100)\n    finally:\n        {}",
    "async def response(exchange):\n    try:\n        await exchange.response.body()\n    finally:\n        {}",
    "def response(exchange): exchange.delay(100)",
]


@pytest.mark.parametrize("last", ["pass", "1 / 0", "await exchange.delay(1)"])
@pytest.mark.parametrize("text", WAITS)
@pytest.mark.parametrize("leave", [Peer.close, Peer.reset])
def test_a_client_that_leaves_while_a_hook_waits(
    house: House, script: Make, text: str, last: str, leave: Callable[[Peer], object], caplog: pytest.LogCaptureFixture
) -> None:
    source = Played(house.reactor, b"ab", None)
    listener, handling = served(house, script, text.format(last), lambda exchange: exchange.respond(Head(200), source))
    peer = listener.connect()
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", b"a")
    house.turns()
    assert not peer.read()
    leave(peer)
    house.pass_time(6.0)
    house.until(lambda: not listener.server.connections, "the end of the connection")
    assert house.reactor.pending_timers == 0
    assert all(exchange.ended for exchange in handling.exchanges)
    if handling.exchanges:
        assert source.closes
    if last == "1 / 0":
        assert ("a hook raised" in caplog.text) == ("{}" in text)
    elif last == "pass":
        assert caplog.text == ""


def test_a_client_that_leaves_is_known_to_the_log_with_its_verdict(house: House, script: Make) -> None:
    ended: list[tuple[str | None, str | None]] = []

    class Lines:
        def write(self, line: bytes) -> None:
            facts = json.loads(line)
            ended.append((facts["verdict"], facts["ended"]))

    proxy = ScriptedProxy(house, script, SEEN)
    log = AccessLog(proxy.outer, Lines(), json=True)  # type: ignore[arg-type]
    client = house.serve(log, access_log=log).connect()
    client.send(proxy.get("/x"))
    proxy.asked()
    client.reset()
    house.until(lambda: ended, "the line")
    assert ended == [("miss", "client left")]


def test_a_handler_that_gives_up_costs_the_exchange(house: House, script: Make) -> None:
    listener, _ = served(house, script, SEEN, lambda exchange: exchange.abort("given up"))
    peer = listener.connect()
    peer.send(GET)
    peer.expect_reset()


@pytest.mark.parametrize("wait", ["pass", "await exchange.delay(0)"])
def test_a_handler_that_raises_behind_a_script_is_500(
    house: House, script: Make, wait: str, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(exchange: Exchange) -> None:
        raise KeyError("of the handler")

    text = f"async def request(exchange):\n    {wait}\n    exchange.request.path = '/x'"
    listener, _ = served(house, script, text, answer)
    peer = listener.connect()
    peer.send(GET)
    house.pass_time(0.001)
    assert (peer.answer().status, "of the handler" in caplog.text) == (500, True)


def test_a_tunnel_through_a_changed_connect(house: House, script: Make) -> None:
    origin = house.listen()
    text = f"""
def request(exchange):
    exchange.request.host = "127.0.0.1"
    exchange.request.port = {origin.port}

def response(exchange):
    1 / 0
"""
    proxy = ScriptedProxy(house, script, text)
    client = proxy.connect()
    client.send(b"CONNECT wherever.example:443 HTTP/1.1\r\nHost: wherever.example:443\r\n\r\n")
    assert client.head().status == 200
    peer = origin.accept()
    client.send(b"ping")
    peer.expect(b"ping")
    peer.send(b"pong")
    client.expect(b"pong")
    client.shutdown()
    peer.expect_close()
    peer.close()
    house.until(lambda: proxy.outer.ended, "the end")
    (ended,) = proxy.outer.ended
    assert (ended.verdict, ended.upstream, ended.bytes_in, ended.bytes_out) == ("tunnel", f"127.0.0.1:{origin.port}", 4, 4)


def test_pipelined_requests_keep_their_order(house: House, script: Make) -> None:
    text = """
async def request(exchange):
    if exchange.request.path == "/1":
        await exchange.delay(1)
    exchange.answer(200, exchange.request.path)
"""
    listener, _ = served(house, script, text)
    peer = listener.connect()
    peer.send(b"".join(GET.replace(b"/ ", b"/%d " % number, 1) for number in range(4)))
    house.pass_time(1.0)
    assert [peer.answer().body for _ in range(4)] == [b"/0", b"/1", b"/2", b"/3"]


def test_nothing_of_an_exchange_is_left_for_the_collector(house: House, script: Make) -> None:
    text = "async def request(exchange):\n    await exchange.request.body()\n    exchange.request.path = '/x'" + SEEN
    listener, handling = served(house, script, text, echo)
    peer = listener.connect()
    post(peer, b"first")
    with no_cycles():
        for _ in range(3):
            peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", b"ab", b"cd")
            assert peer.answer().body == b"ABCD"
            house.turns()
            handling.exchanges.clear()
            handling.ended.clear()


# The file.


def edit(path: Path, text: str) -> None:
    path.write_text(text)
    seen = path.stat()
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns + 1))  # as time passes between edits


def test_an_edit_is_in_force_within_a_second_of_traffic(house: House, script: Make, tmp_path: Path) -> None:
    listener, _ = served(house, script, "def request(exchange): exchange.answer(200, 'one')")
    peer = listener.connect()
    assert get(peer).body == b"one"
    edit(tmp_path / "filter.py", "def request(exchange): exchange.answer(200, 'two')")
    assert get(peer).body == b"one", "it is not looked at for every request"
    house.pass_time(1.0)
    assert get(peer).body == b"two"


def test_a_file_is_looked_at_once_a_second_at_most(house: House, script: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    listener, _ = served(house, script, "")
    looks: list[str] = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **more: looks.append(str(path)) or stat(path, **more))
    peer = listener.connect()
    for _ in range(3):
        for _ in range(5):
            get(peer)
        house.pass_time(1.0)
    assert sum(look.endswith("filter.py") for look in looks) == 3


BROKEN = {
    "def request(:": "line 1: SyntaxError: invalid syntax",
    "x = 1\n\n1 / 0": "line 3: ZeroDivisionError: division by zero",
    "def f():\n    raise KeyError('x')\nf()": "line 2: KeyError: 'x'",
    "import nowhere_at_all": "line 1: ModuleNotFoundError: No module named 'nowhere_at_all'",
    "raise SystemExit(3)": "line 1: SystemExit: 3",
    "request = 5": "TypeError: request is no function",
    "x = '\0'": "source code string cannot contain null bytes",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_edit_leaves_the_old_one_in_force_and_says_so(
    house: House, script: Make, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    listener, _ = served(house, script, "def request(exchange): exchange.answer(200, 'one')")
    peer = listener.connect()
    edit(tmp_path / "filter.py", text)
    for _ in range(3):
        assert get(peer).body == b"one"
        house.pass_time(1.0)
    assert len(caplog.records) == 1, "said once"
    assert BROKEN[text] in caplog.text and "the one read before stays in force" in caplog.text
    edit(tmp_path / "filter.py", "def request(exchange): exchange.answer(200, 'mended')")
    assert get(peer).body == b"mended"
    assert "read again, and in force" in caplog.text


def test_a_file_that_goes_away_leaves_its_hooks(
    house: House, script: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listener, _ = served(house, script, "def request(exchange): exchange.answer(200, 'one')")
    peer = listener.connect()
    (tmp_path / "filter.py").unlink()
    for _ in range(3):
        assert get(peer).body == b"one"
        house.pass_time(1.0)
    assert [record.message for record in caplog.records] == [
        f"script {tmp_path}/filter.py: No such file or directory; the one read before stays in force"
    ]


def test_an_edit_under_traffic_leaves_what_runs_to_its_own_hooks(house: House, script: Make, tmp_path: Path) -> None:
    text = """
async def request(exchange):
    await exchange.delay(2)

def response(exchange):
    exchange.response.fields["V"] = "{}"
"""
    listener, _ = served(house, script, text.format(1))
    first, second = listener.connect(), listener.connect()
    first.send(GET)
    house.pass_time(1.0)
    edit(tmp_path / "filter.py", text.format(2))
    second.send(GET)
    house.turns()
    house.pass_time(2.0)
    assert (first.answer().fields[b"v"], second.answer().fields[b"v"]) == (b"1", b"2")


@pytest.mark.parametrize("text", BROKEN)
def test_at_the_start_a_broken_one_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "filter.py").write_text(text)
    with pytest.raises(ConfigError, match=f"script {tmp_path}/filter.py.*" + re.escape(BROKEN[text])) as caught:
        ScriptFile(str(tmp_path / "filter.py"))
    assert "\n" not in str(caught.value)


def test_one_without_a_hook_is_taken_and_said_to_do_nothing(script: Make, caplog: pytest.LogCaptureFixture) -> None:
    script("def requests(exchange): exchange.refuse('misspelt')", Handling())
    assert "filter.py: defines neither request(exchange) nor response(exchange)" in caplog.text


@pytest.mark.parametrize("path", ["", "nowhere.py"])
def test_a_file_that_is_not_there(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="script .*: (Is a directory|No such file or directory)"):
        ScriptFile(str(tmp_path / path))


def test_modules_beside_the_script_and_dataclasses(tmp_path: Path, script: Make) -> None:
    (tmp_path / "beside_the_filter.py").write_text("NAME = 'beside'")
    text = """
from __future__ import annotations
from dataclasses import dataclass
from beside_the_filter import NAME
from handlers.traffic import Traffic

@dataclass
class Said:
    what: str

def request(exchange: Traffic) -> None:
    exchange.answer(200, Said(NAME).what)
"""
    assert ask(script(text, Handling()), "GET /").content == b"beside"


def test_the_vocabulary_is_public() -> None:
    assert isinstance(BodyError("x", 400), Exception) and BodyCutShort("x").status == 400
    assert ScriptFields.__doc__ and Traffic.__doc__
    assert encoded("\udcff") == (b"\xff", "text/plain; charset=utf-8")


@pytest.fixture(autouse=True)
def errors_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
