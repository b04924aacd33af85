"""Scripts: hooks before the cache, over real connections, with whatever a user's program and its peers may do wrong."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from handlers.access_log import AccessLog
from handlers.traffic import DELAY_LIMIT
from reactor.exchange import Exchange, FileSource, Head
from tests.handlers.asking import Clock, ask
from tests.handlers.scripting import FRESH, GET, SEEN, Make, ScriptedProxy, get, post, scripts_in, served
from tests.loopback import House, Peer, echo, housed
from tests.loopback import Script as Played
from tests.origin import no_cycles

README = Path(__file__).resolve().parents[2] / "README.md"
EXAMPLES = dict(re.findall(r"```python\n# (\w+)\.py [^\n]*\n(.*?)```", README.read_text("utf-8"), re.DOTALL))


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture
def script(tmp_path: Path) -> Make:
    return scripts_in(tmp_path)


@pytest.fixture(autouse=True)
def errors_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


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
