"""Forwarding over sockets: what the origin is sent, and what the client gets back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cache.stores.memory import MemoryStore
from handlers.upstreams import Upstream, Upstreams
from reactor.client import ClientLimits
from reactor.errors import ConfigError
from reactor.exchange import PULL
from reactor.server import ServerLimits
from reactor.stream import HIGH_WATER, LARGE_READ
from tests.loopback import House, Peer, housed
from tests.origin import Asked, Proxy, chunk, no_cycles

MIB = 1 << 20


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture
def proxy(house: House) -> Proxy:
    return Proxy(house)


def via(proxy: Proxy, version: str = "1.1") -> bytes:
    return b"Via: %b %b" % (version.encode(), proxy.forwarding.pseudonym)


# The request as it goes on.


def test_a_request_goes_on_in_origin_form(proxy: Proxy) -> None:
    client = proxy.ask("/a/../b%2e?c=%20&d", "X-One: 1", "accept: */*")
    asked = proxy.asked()
    assert asked.head == b"".join(
        [
            b"GET /a/../b%2e?c=%20&d HTTP/1.1\r\n",
            b"Host: " + proxy.authority.encode() + b"\r\n",
            b"X-One: 1\r\n",
            b"accept: */*\r\n",
            via(proxy) + b"\r\n\r\n",
        ]
    )
    asked.answer(b"hi")
    assert client.answer().body == b"hi"


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("http://{}", "/"),
        ("http://{}/", "/"),
        ("http://{}?a", "/?a"),
        ("HTTP://{}/%7Ea//b/./c?x=y?z", "/%7Ea//b/./c?x=y?z"),
        ("http://{}/a|b\\c^d`e{{f}}", "/a|b\\c^d`e{f}"),
        ("http://{}/%zz", "/%zz"),
    ],
)
def test_path_and_query_are_not_altered(proxy: Proxy, target: str, sent: str) -> None:
    client = proxy.connect()
    client.send(f"GET {target.format(proxy.authority)} HTTP/1.1\r\nHost: elsewhere\r\n\r\n".encode())
    asked = proxy.asked()
    assert (asked.target, asked.fields[b"host"]) == (sent.encode(), proxy.authority.encode())


def test_options_for_the_whole_server(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(f"OPTIONS http://{proxy.authority} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    asked = proxy.asked()
    assert (asked.method, asked.target) == (b"OPTIONS", b"*")
    asked.answer()
    client.answer()


def test_the_port_is_told_where_it_is_not_the_schemes_own(proxy: Proxy) -> None:
    proxy.ask("/")
    assert proxy.asked().fields[b"host"] == proxy.authority.encode()


HOP = [
    "Connection: keep-alive, X-Hop",
    "X-Hop: 1",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "Proxy-Authorization: Basic eDp5",
    "TE: gzip",
    "Trailer: X-Sum",
    "Upgrade: h2c",
    "Expect: 100-continue",
]


def test_what_concerns_this_hop_alone_ends_here(proxy: Proxy) -> None:
    client = proxy.ask("/", *HOP, "Connection: x-other", "X-Other: 2", "X-Kept: 3")
    asked = proxy.asked()
    assert asked.lines == [b"Host: " + proxy.authority.encode(), b"X-Kept: 3", via(proxy)]
    asked.answer(b"hi")
    client.answer()


def test_a_field_named_by_connection_cannot_take_host_or_framing_away(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(
        proxy.request("POST", "/", "Connection: host, content-length, via, close", "Via: 1.1 a", "Content-Length: 2") + b"hi"
    )
    asked = proxy.asked()
    assert asked.lines == [b"Host: " + proxy.authority.encode(), via(proxy), b"Content-Length: 2"]
    assert asked.body() == b"hi"


def test_te_trailers_is_our_own_word_for_the_next_hop(proxy: Proxy) -> None:
    proxy.ask("/", "TE: trailers, gzip;q=0.5", "Connection: TE")
    assert proxy.asked().lines[-2:] == [b"TE: trailers", b"Connection: TE"]


@pytest.mark.parametrize("wanted", [True, False])
def test_which_trailers_come_is_told_to_who_gets_them(proxy: Proxy, wanted: bool) -> None:
    client = proxy.ask("/", *(["TE: trailers", "Connection: TE"] if wanted else []))
    proxy.asked().begin("Trailer: X-Sum", "Transfer-Encoding: chunked", first=chunk(b"hi") + b"0\r\nX-Sum: 7\r\n\r\n")
    answer = client.answer()
    assert (answer.fields.get(b"trailer"), answer.trailers) == ((b"X-Sum", {b"x-sum": b"7"}) if wanted else (None, {}))


def test_trailers_that_cannot_come_are_not_announced(proxy: Proxy) -> None:
    client = proxy.ask("/", "TE: trailers", "Connection: TE")
    proxy.asked().answer(b"hi", "Trailer: X-Sum")
    assert b"trailer" not in client.answer().fields
    client.send(proxy.request("POST", "/", "Trailer: X-Sum", "Content-Length: 2") + b"hi")
    assert b"trailer" not in proxy.asked().fields


def test_via_is_appended(proxy: Proxy) -> None:
    proxy.ask("/", "Via: 1.0 fred", "Via: 1.1 wilma (x)")
    assert proxy.asked().lines[1:] == [b"Via: 1.0 fred", b"Via: 1.1 wilma (x)", via(proxy)]


def test_an_old_client_shows_in_via(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.get("/", version="1.0"))
    asked = proxy.asked()
    assert asked.lines[-1] == via(proxy, "1.0")


def test_repeated_fields_keep_their_order_and_spelling(proxy: Proxy) -> None:
    proxy.ask("/", "x: 1", "Y: 2", "X: 3")
    assert proxy.asked().lines[1:4] == [b"x: 1", b"Y: 2", b"X: 3"]


def test_no_client_names_the_proxy_of_a_cgi_program(proxy: Proxy) -> None:
    proxy.ask("/", "Proxy: http://evil.example", "Proxied: 1")
    asked = proxy.asked()
    assert b"proxy" not in asked.fields and asked.fields[b"proxied"] == b"1"


def test_the_pseudonym_is_of_this_process(house: House) -> None:
    assert Proxy(house).forwarding.pseudonym != Proxy(house).forwarding.pseudonym


def test_a_loop_is_seen(house: House) -> None:
    proxy = Proxy(house)
    client = proxy.ask("/", f"Via: 1.1 other, {via(proxy)[5:].decode()}")
    answer = client.answer()
    assert answer.status == 508
    assert b"via" not in answer.fields
    proxy.not_asked()


def test_a_proxy_that_is_its_own_upstream(house: House) -> None:
    proxy = Proxy(house, reverse=True)
    proxy.forwarding.upstreams = Upstreams([Upstream.parse(f"http://127.0.0.1:{proxy.served.port}")])
    client = proxy.ask("/")
    assert client.answer().status == 508


# What is refused.


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET / HTTP/1.1", 400),
        ("GET ftp://a/ HTTP/1.1", 501),
        ("GET http://user:word@a/ HTTP/1.1", 400),
        ("GET http:/// HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 400),
    ],
)
def test_what_cannot_be_forwarded_is_refused(proxy: Proxy, request_line: str, status: int) -> None:
    client = proxy.connect()
    client.send(request_line.encode() + b"\r\nHost: a\r\n\r\n")
    assert client.answer().status == status
    proxy.not_asked()


# The response as it goes back.


def test_a_response_loses_what_concerned_its_hop(proxy: Proxy) -> None:
    client = proxy.ask()
    asked = proxy.asked()
    asked.answer(
        b"hello", "Connection: X-Hop, close", "X-Hop: 1", "Keep-Alive: timeout=5", "Proxy-Authenticate: Basic", "Upgrade: x",
        "Trailer: X-Sum", "X-Kept: 3", "Via: 1.1 inner",
    )  # fmt: skip
    assert client.answer().head == b"".join(
        [
            b"HTTP/1.1 200 OK\r\n",
            b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            b"X-Kept: 3\r\n",
            b"Via: 1.1 inner\r\n",
            via(proxy) + b"\r\n",
            b"Content-Length: 5\r\n\r\n",
        ]
    )


def test_a_response_without_a_date_gets_one(proxy: Proxy) -> None:
    client = proxy.ask()
    proxy.asked().peer.send(b"HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n")
    answer = client.answer()
    assert answer.head.startswith(b"HTTP/1.1 200 Fine\r\n")
    assert answer.fields[b"date"] == b"Sun, 06 Nov 1994 08:49:37 GMT"


def test_an_old_origin_shows_in_via(proxy: Proxy) -> None:
    client = proxy.ask()
    proxy.asked().peer.send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    answer = client.answer()
    assert (answer.body, answer.fields[b"via"]) == (b"hi", via(proxy, "1.0")[5:])


def test_several_set_cookies_stay_several(proxy: Proxy) -> None:
    client = proxy.ask()
    proxy.asked().answer(b"", "Set-Cookie: a=1; Expires=Sun, 06 Nov 1994 08:49:37 GMT", "Set-Cookie: b=2")
    assert client.answer().head.count(b"Set-Cookie: ") == 2


FRAMINGS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "length thrice": b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
    "old": b"HTTP/1.0 200 OK\r\n\r\nhello",
}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("pieces", ["whole", "bytes", "late"])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_body_is_framed_anew(proxy: Proxy, framing: str, pieces: str, version: str) -> None:
    client = proxy.connect()
    client.send(proxy.get(version=version))
    wire = FRAMINGS[framing]
    peer = proxy.asked().peer
    peer.send(
        *{"whole": [wire], "bytes": [wire[at : at + 1] for at in range(len(wire))], "late": [wire[:-1], wire[-1:]]}[pieces]
    )
    if framing in ("close", "old"):
        peer.shutdown()
    answer = client.answer()
    assert answer.body == b"hello"
    if version == "1.0":
        assert b"transfer-encoding" not in answer.fields
        client.expect_close()
    else:
        assert (b"transfer-encoding" in answer.fields) != (b"content-length" in answer.fields)
        client.expect_silence()


@pytest.mark.parametrize(
    ("method", "status", "length", "told"),
    [
        ("HEAD", "200 OK", "5", b"5"),
        ("HEAD", "404 Not Found", "5", b"5"),
        ("GET", "304 Not Modified", "5", b"5"),
        ("GET", "204 No Content", None, None),
        ("HEAD", "204 No Content", "5", None),
        ("GET", "204 No Content", "0", None),
        ("HEAD", "304 Not Modified", "5", b"5"),
    ],
)
def test_what_has_no_body_has_none(proxy: Proxy, method: str, status: str, length: str | None, told: bytes | None) -> None:
    client = proxy.connect()
    client.send(proxy.request(method, "/") + proxy.get("/next"))
    asked = proxy.asked()
    asked.begin(*([] if length is None else [f"Content-Length: {length}"]), status=status)
    answer = client.answer(method.encode())
    assert (answer.status, answer.fields.get(b"content-length")) == (int(status[:3]), told)
    assert b"transfer-encoding" not in answer.fields
    again = proxy.asked()
    assert (again.target, again.peer) == (b"/next", asked.peer)
    again.answer(b"hi")
    assert client.answer().body == b"hi"


@pytest.mark.parametrize(
    ("length", "told"), [("5, 5", b"5"), ("5, 6", None), ("x", None), ("-1", None), ("9" * 17, None), ("", None)]
)
def test_a_length_that_nothing_is_held_to_is_one_number_or_none(proxy: Proxy, length: str, told: bytes | None) -> None:
    client = proxy.connect()
    client.send(proxy.request("HEAD", "/"))
    proxy.asked().begin(f"Content-Length: {length}")
    assert client.answer(b"HEAD").fields.get(b"content-length") == told


def test_a_head_response_may_speak_of_chunks(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.request("HEAD", "/"))
    proxy.asked().begin("Transfer-Encoding: chunked")
    assert b"content-length" not in client.answer(b"HEAD").fields
    client.expect_silence()


def test_trailers_go_to_who_asked_for_them(proxy: Proxy) -> None:
    client = proxy.ask("/", "TE: trailers", "Connection: TE")
    proxy.asked().begin("Transfer-Encoding: chunked", first=chunk(b"hi") + b"0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n")
    answer = client.answer()
    assert (answer.body, answer.trailers) == (b"hi", {b"x-sum": b"7"})


def test_trailers_go_to_nobody_else(proxy: Proxy) -> None:
    client = proxy.ask("/")
    proxy.asked().begin("Transfer-Encoding: chunked", first=chunk(b"hi") + b"0\r\nX-Sum: 7\r\n\r\n")
    answer = client.answer()
    assert (answer.body, answer.trailers) == (b"hi", {})


def test_a_request_in_chunks_goes_on_in_chunks_with_its_trailers(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(
        proxy.request("POST", "/", "Transfer-Encoding: chunked"), chunk(b"ab"), chunk(b"cd") + b"0\r\nX-Sum: 7\r\n\r\n"
    )
    asked = proxy.asked()
    assert asked.body() == b"abcd"
    assert asked.trailers == b"X-Sum: 7\r\n"


# Interim responses.


def test_interim_responses_are_passed_on_in_time(proxy: Proxy) -> None:
    client = proxy.ask()
    asked = proxy.asked()
    asked.peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
    assert client.head().status == 102
    asked.peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 3\r\n\r\n")
    early = client.head()
    assert early.head == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n" + via(proxy) + b"\r\n\r\n"
    asked.answer(b"hi")
    assert client.answer().body == b"hi"


def test_an_old_client_hears_no_interim_response(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.get(version="1.0"))
    asked = proxy.asked()
    asked.peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    asked.answer(b"hi")
    assert client.answer().status == 200


# Expect: 100-continue.


def expecting(proxy: Proxy, length: int = 5) -> tuple[Peer, Asked]:
    client = proxy.connect()
    client.send(proxy.request("POST", "/", "Expect: 100-continue", f"Content-Length: {length}"))
    asked = proxy.asked()
    assert asked.fields[b"expect"] == b"100-continue"
    return client, asked


def test_100_comes_from_the_origin(proxy: Proxy) -> None:
    client, asked = expecting(proxy)
    client.expect_silence()
    asked.peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.expect(b"HTTP/1.1 100 Continue\r\n" + via(proxy) + b"\r\n\r\n")
    client.send(b"hello")
    assert asked.body() == b"hello"
    asked.peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    asked.answer(b"ok")
    assert client.answer().body == b"ok"


def test_100_comes_from_us_after_a_while(house: House, proxy: Proxy) -> None:
    client, asked = expecting(proxy)
    house.pass_time(0.9)
    client.expect_silence()
    house.pass_time(0.2)
    client.expect(b"HTTP/1.1 100 Continue\r\n\r\n")
    asked.peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")  # too late: one is enough
    client.send(b"hello")
    assert asked.body() == b"hello"
    asked.answer(b"ok")
    assert client.answer().body == b"ok"


@pytest.mark.parametrize("whole", [True, False])
def test_a_final_answer_instead_of_100(house: House, proxy: Proxy, whole: bool) -> None:
    client, asked = expecting(proxy)
    asked.begin("Content-Length: 2", status="417 Expectation Failed", first=b"no" if whole else b"n")
    house.pass_time(1.5)
    if not whole:
        asked.peer.send(b"o")
    answer = client.answer()
    assert (answer.status, answer.body, answer.fields[b"connection"]) == (417, b"no", b"close")
    client.expect_close()
    asked.peer.expect_reset()


def test_a_client_that_does_not_wait_gets_no_100(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.request("POST", "/", "Expect: 100-continue", "Content-Length: 5") + b"hello")
    asked = proxy.asked()
    assert b"expect" not in asked.fields
    assert asked.body() == b"hello"
    asked.peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    asked.answer(b"ok")
    assert client.answer().status == 200


# Order.


def test_pipelined_requests_are_answered_in_order(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(b"".join(proxy.get(f"/{n}") for n in range(5)))
    for n in range(5):
        asked = proxy.asked()
        assert asked.target == b"/%d" % n
        asked.answer(b"answer %d" % n)
    assert [client.answer().body for _ in range(5)] == [b"answer %d" % n for n in range(5)]


def test_an_early_answer_reaches_the_client_while_it_is_still_sending(house: House, proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.request("POST", "/", "Content-Length: 10000") + b"x" * 1000)
    asked = proxy.asked()
    asked.peer.take(1000)
    asked.answer(b"too large", status="413 Content Too Large")
    answer = client.answer()
    assert (answer.status, answer.body) == (413, b"too large")
    asked.peer.expect_reset()
    client.send(b"x" * 9000, proxy.get("/next"))  # what was left is drained, and the connection goes on
    again = proxy.asked()
    again.answer(b"hi")
    assert client.answer().body == b"hi"


def test_an_early_answer_is_read_though_the_origin_resets_at_once(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.request("POST", "/", "Content-Length: 10000000") + b"x" * 1000)
    asked = proxy.asked()
    asked.peer.take(1000)
    asked.peer.sock.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\ntoo large")
    asked.peer.reset()  # before the loop has turned
    client.offer(bytes(100_000))
    answer = client.answer()
    assert (answer.status, answer.body) == (413, b"too large")


def test_the_rest_of_a_request_is_drained_within_bounds(house: House) -> None:
    proxy = Proxy(house, server_limits=ServerLimits(drain_bytes=100_000))
    client = proxy.connect()
    client.send(proxy.request("POST", "/", "Content-Length: 10000000") + b"x" * 1000)
    asked = proxy.asked()
    asked.answer(b"too large", status="413 Content Too Large")
    assert client.answer().status == 413
    client.offer(bytes(200_000))
    client.until(lambda: client.over, "the end")


def test_a_streaming_answer_to_a_request_that_is_still_coming(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.request("POST", "/", "Transfer-Encoding: chunked") + chunk(b"one"))
    asked = proxy.asked()
    asked.peer.expect(chunk(b"one"))
    asked.begin("Transfer-Encoding: chunked", first=chunk(b"ONE"))
    answer = client.head()
    client.expect(chunk(b"ONE"))
    client.send(chunk(b"two"))
    asked.peer.expect(chunk(b"two"))
    asked.peer.send(chunk(b"TWO"))
    client.expect(chunk(b"TWO"))
    client.send(b"0\r\n\r\n")
    asked.peer.expect(b"0\r\n\r\n")
    asked.peer.send(b"0\r\n\r\n")
    client.expect(b"0\r\n\r\n")
    assert answer.status == 200


# Failures upstream.


def test_a_refused_connection_is_a_bad_gateway_that_says_who_and_why(house: House, proxy: Proxy) -> None:
    proxy.origin.sock.close()
    client = proxy.ask()
    answer = client.answer()
    assert answer.status == 502
    assert answer.body == f"502 Bad Gateway: upstream {proxy.authority}: Connection refused\n".encode()
    assert b"via" not in answer.fields
    client.expect_silence()
    (exchange,) = proxy.ended
    assert (exchange.upstream, exchange.status) == (proxy.authority, 502)


def test_a_silent_origin_is_a_timeout_that_says_who_and_how_long(house: House, proxy: Proxy) -> None:
    client = proxy.ask()
    asked = proxy.asked()
    house.pass_time(60.1)
    answer = client.answer()
    assert answer.status == 504
    assert answer.body == f"504 Gateway Timeout: upstream {proxy.authority}: did not answer within 60 s (first-byte timeout)\n".encode()
    asked.peer.expect_reset()
    client.expect_silence()


def test_an_ipv6_origin_is_named_with_its_brackets(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(b"GET http://[::1]:1/ HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = client.answer()
    assert (answer.status, b"upstream [::1]:1: " in answer.body) == (502, True)


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
def test_an_answer_in_doubt_is_a_bad_gateway(proxy: Proxy, wire: bytes) -> None:
    client = proxy.ask()
    peer = proxy.asked().peer
    peer.offer(wire)
    answer = client.answer()
    assert answer.status == 502
    assert proxy.authority.encode() in answer.body and b"no valid response" in answer.body
    peer.until(lambda: peer.over, "the end")
    client.send(proxy.get())
    asked = proxy.asked()
    assert asked.peer is not peer
    asked.answer(b"hi")
    assert client.answer().body == b"hi"


def test_what_follows_a_whole_response_reaches_nobody(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.get("/1") + proxy.get("/2"))
    first = proxy.asked()
    first.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    assert client.answer().body == b"ok"
    second = proxy.asked()
    assert (second.target, second.peer is first.peer) == (b"/2", False)
    second.answer(b"good")
    assert client.answer().body == b"good"


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("how", ["shutdown", "reset", "silence", "nonsense"])
def test_a_response_cut_short_is_seen_cut_short(house: House, proxy: Proxy, framing: str, how: str) -> None:
    client = proxy.ask()
    asked = proxy.asked()
    if framing == "length":
        asked.begin("Content-Length: 10", first=b"hello")
    else:
        asked.begin("Transfer-Encoding: chunked", first=chunk(b"hello"))
    head = client.head()
    body = b"hello" if framing == "length" else chunk(b"hello")
    client.expect(body)
    if how == "silence":
        house.pass_time(60.1)
    elif how == "nonsense" and framing == "length":
        asked.peer.shutdown()
    elif how == "nonsense":
        asked.peer.send(b"nonsense\r\n")
    else:
        getattr(asked.peer, how)()
    client.until(lambda: client.over, "the end")
    assert client.received == b"" and head.status == 200
    (exchange,) = proxy.ended
    assert exchange.failure is not None and proxy.authority in exchange.failure


@pytest.mark.parametrize("how", ["shutdown", "reset"])
def test_a_cut_that_only_the_close_would_show_is_a_reset(house: House, proxy: Proxy, how: str) -> None:
    client = proxy.connect()
    client.send(proxy.get(version="1.0"))
    asked = proxy.asked()
    asked.begin("Transfer-Encoding: chunked", first=chunk(b"hello"))
    assert client.head().fields.keys().isdisjoint({b"content-length", b"transfer-encoding"})
    client.expect(b"hello")
    getattr(asked.peer, how)()
    client.expect_reset()


# Retries.


def kept(proxy: Proxy) -> tuple[Peer, Peer]:
    """A client, and a connection to the origin that is kept."""
    client = proxy.ask()
    asked = proxy.asked()
    asked.answer(b"hi")
    assert client.answer().body == b"hi"
    assert proxy.pool.idle == 1
    return client, asked.peer


@pytest.mark.parametrize("how", ["shutdown", "reset"])
@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_a_stale_connection_costs_the_client_nothing(proxy: Proxy, method: str, how: str) -> None:
    client, stale = kept(proxy)
    client.send(
        proxy.request(method, "/again", *(["Content-Length: 4"] if method == "PUT" else []))
        + (b"body" if method == "PUT" else b"")
    )
    lost = proxy.asked()
    assert (lost.target, lost.peer is stale) == (b"/again", True)
    getattr(stale, how)()
    asked = proxy.asked()
    assert (asked.method, asked.target, asked.body()) == (method.encode(), b"/again", b"body" if method == "PUT" else b"")
    asked.answer(b"ok")
    assert client.answer().body == b"ok"
    assert len(proxy.ended) == 2


def test_an_origin_that_never_answers_is_asked_twice_at_the_most(proxy: Proxy) -> None:
    client, stale = kept(proxy)
    client.send(proxy.get("/again"))
    for _ in range(2):
        proxy.asked().peer.shutdown()
    assert client.answer().status == 502
    proxy.not_asked()


@pytest.mark.parametrize("how", ["shutdown", "reset"])
def test_a_post_is_never_sent_twice(proxy: Proxy, how: str) -> None:
    client, stale = kept(proxy)
    client.send(proxy.request("POST", "/", "Content-Length: 4") + b"body")
    assert proxy.asked().body() == b"body"
    getattr(stale, how)()
    answer = client.answer()
    assert (answer.status, proxy.authority.encode() in answer.body) == (502, True)
    proxy.not_asked()


def test_a_body_that_still_waits_for_its_100_goes_to_another_connection(proxy: Proxy) -> None:
    client, stale = kept(proxy)
    client.send(proxy.request("PUT", "/", "Expect: 100-continue", "Content-Length: 5"))
    assert proxy.asked().peer is stale
    stale.shutdown()
    asked = proxy.asked()
    asked.peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.head().status == 100
    client.send(b"hello")
    assert asked.body() == b"hello"
    asked.answer(b"ok")
    assert client.answer().body == b"ok"


def test_a_put_that_streams_is_not_sent_twice(proxy: Proxy) -> None:
    client, stale = kept(proxy)
    client.send(proxy.request("PUT", "/", "Content-Length: 100000") + bytes(50_000))
    proxy.asked()
    stale.shutdown()
    client.offer(bytes(50_000))
    assert client.answer().status == 502
    stale.take(len(stale.received))
    proxy.not_asked()


# Who leaves.


@pytest.mark.parametrize("phase", ["connecting", "asked", "head", "body"])
def test_a_client_that_resets_ends_the_fetch(house: House, proxy: Proxy, phase: str) -> None:
    client = proxy.connect()
    if phase == "connecting":
        client.sock.send(proxy.get())
        proxy.house.until(lambda: proxy.pool._all)
        client.reset()
    else:
        client.send(proxy.get())
        asked = proxy.asked()
        if phase == "head":
            asked.peer.send(b"HTTP/1.1 200 O")
        elif phase == "body":
            asked.begin("Content-Length: 10", first=b"hello")
            client.head()
        client.reset()
        asked.peer.expect_reset()
    house.until(lambda: proxy.ended)
    (exchange,) = proxy.ended
    assert exchange.client_gone and exchange.failure is not None and "client" in exchange.failure
    house.turns()
    assert not proxy.pool._all


def test_a_half_closed_client_is_answered_if_it_does_not_take_long(house: House, proxy: Proxy) -> None:
    client = proxy.ask()
    client.shutdown()
    asked = proxy.asked()
    house.pass_time(4.9)
    asked.answer(b"hi")
    assert client.answer().body == b"hi"
    client.expect_close()


def test_a_half_closed_client_is_given_up_after_a_while(house: House, proxy: Proxy) -> None:
    client = proxy.ask()
    client.shutdown()
    asked = proxy.asked()
    house.pass_time(5.1)
    asked.peer.expect_reset()
    client.until(lambda: client.over, "the end")


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("how", ["shutdown", "reset", "nonsense", "silence"])
def test_a_request_that_breaks_off_is_seen_so_by_the_origin(house: House, proxy: Proxy, framing: str, how: str) -> None:
    client = proxy.connect()
    if framing == "length":
        client.send(proxy.request("POST", "/", "Content-Length: 100") + b"hello")
    else:
        client.send(proxy.request("POST", "/", "Transfer-Encoding: chunked") + chunk(b"hello"))
    asked = proxy.asked()
    asked.peer.expect(b"hello" if framing == "length" else chunk(b"hello"))
    if how == "nonsense":
        client.send(b"nonsense\r\n") if framing == "chunks" else client.shutdown()
    elif how == "silence":
        house.pass_time(60.1)
    else:
        getattr(client, how)()
    asked.peer.until(lambda: asked.peer.over, "the end")
    assert asked.peer.was_reset and asked.peer.received == b""
    if how != "reset":
        assert client.answer().status == (408 if how == "silence" else 400)
        client.until(lambda: client.over, "the end")


# Pressure: what is held for a slow peer is bounded, whatever the size.


def held(proxy: Proxy) -> int:
    """Bytes buffered for the one exchange under way, both directions together."""
    (front,) = proxy.served.server.connections
    total = front.stream.backlog + front.parser.buffered
    for back in proxy.pool._all:
        total += back.stream.backlog + back.parser.buffered
        if back._body is not None:
            total += len(back._body._rest)
    return total


BOUND = 2 * (ClientLimits().read_ahead + LARGE_READ) + HIGH_WATER + PULL  # what is pulled from is filled again


def test_a_slow_client_slows_the_origin(house: House, proxy: Proxy) -> None:
    size = 40 * MIB
    client = proxy.connect(small_buffers=True)
    client.send(proxy.get())
    asked = proxy.asked()
    asked.begin(f"Content-Length: {size}")
    client.head()
    sent, most = 0, 0
    idle = 0
    while idle < 20:
        took = asked.peer.offer(bytes(min(256 * 1024, size - sent)))
        sent += took
        idle = 0 if took else idle + 1
        most = max(most, held(proxy))
    assert sent < size, "everything was taken from the origin though the client read nothing"
    received = 0
    while received < size:
        if sent < size:
            sent += asked.peer.offer(bytes(min(256 * 1024, size - sent)))
        client.read()
        received += len(client.received)
        client.received.clear()
        house.turns(1)
        most = max(most, held(proxy))
    assert most <= BOUND
    house.turns()
    assert proxy.pool.idle == 1


def test_a_slow_origin_slows_the_client(house: House, proxy: Proxy) -> None:
    size = 40 * MIB
    client = proxy.connect()
    client.send(proxy.request("POST", "/", f"Content-Length: {size}"))
    asked = proxy.asked()
    sent, most, idle = 0, 0, 0
    while idle < 20:
        took = client.offer(bytes(min(256 * 1024, size - sent)))
        sent += took
        idle = 0 if took else idle + 1
        most = max(most, held(proxy))
    assert sent < size
    received = 0
    while received < size:
        if sent < size:
            sent += client.offer(bytes(min(256 * 1024, size - sent)))
        asked.peer.read()
        received += len(asked.peer.received)
        asked.peer.received.clear()
        house.turns(1)
        most = max(most, held(proxy))
    assert most <= BOUND
    asked.answer(b"ok")
    assert client.answer().body == b"ok"


def test_a_client_that_reads_nothing_any_more_is_given_up(house: House, proxy: Proxy) -> None:
    client = proxy.connect(small_buffers=True)
    client.send(proxy.get())
    asked = proxy.asked()
    asked.begin("Content-Length: 10000000")
    client.head()
    while asked.peer.offer(bytes(100_000)):
        pass
    house.pass_time(60.1)
    asked.peer.expect_reset()
    (exchange,) = proxy.ended
    assert exchange.failure == "the client stopped reading"


# Upgrades.


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_a_websocket_passes_in_both_modes_and_through_a_cache(house: House, reverse: bool, cached: bool) -> None:
    proxy = Proxy(house, reverse=reverse, store=MemoryStore(1 << 20) if cached else None)
    if cached:  # what is stored under the same URL is no answer to an upgrade
        client = proxy.ask("/chat")
        proxy.asked().answer(b"a page", "Cache-Control: max-age=60")
        assert client.answer().body == b"a page"
    client = proxy.connect()
    client.send(proxy.get("/chat", "Connection: Upgrade", "Upgrade: websocket") + b"early ")
    asked = proxy.asked()
    assert (asked.target, asked.fields[b"upgrade"], asked.fields[b"connection"]) == (b"/chat", b"websocket", b"Upgrade")
    asked.peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
    assert client.head().status == 101
    client.expect(b"hello")
    client.send(b"bird")
    asked.peer.expect(b"early bird")
    asked.peer.shutdown()
    client.until(lambda: client.at_eof, "the end of the origin's side")
    client.send(b"last words")
    asked.peer.expect(b"last words")
    client.close()
    asked.peer.expect_close()
    house.until(lambda: len(proxy.ended) == 1 + cached)
    exchange = proxy.ended[-1]
    assert (exchange.status, exchange.bytes_in, exchange.bytes_out, exchange.failure) == (101, 20, 5, None)


def test_an_upgrade_joins_the_two(proxy: Proxy) -> None:
    client = proxy.ask("/chat", "Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")
    asked = proxy.asked()
    assert asked.lines[1:] == [b"Sec-WebSocket-Key: x", via(proxy), b"Upgrade: websocket", b"Connection: Upgrade"]
    asked.peer.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade, x-hop\r\nX-Hop: 1\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\nhello"
    )
    head = client.head()
    assert head.head == (
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: y\r\n"
        + via(proxy)
        + b"\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
    )
    client.expect(b"hello")
    client.send(b"ping")
    asked.peer.expect(b"ping")
    asked.peer.send(b"pong")
    client.expect(b"pong")
    client.shutdown()
    asked.peer.until(lambda: asked.peer.at_eof, "the end of the client's side")
    asked.peer.send(b"last words")
    client.expect(b"last words")
    asked.peer.close()
    client.expect_close()
    proxy.house.until(lambda: proxy.ended)
    (exchange,) = proxy.ended
    assert (exchange.status, exchange.bytes_in, exchange.bytes_out, exchange.failure) == (101, 4, 19, None)


def test_bytes_sent_early_by_the_client_of_an_upgrade_arrive_first(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.get("/", "Connection: Upgrade", "Upgrade: x") + b"early ")
    asked = proxy.asked()
    asked.peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
    client.send(b"bird")
    asked.peer.expect(b"early bird")


def test_a_refused_upgrade_is_an_answer_like_any_other(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.get("/", "Connection: Upgrade", "Upgrade: x") + proxy.get("/next"))
    proxy.asked().answer(b"no", status="426 Upgrade Required")
    assert client.answer().status == 426
    proxy.asked().answer(b"hi")
    assert client.answer().body == b"hi"


@pytest.mark.parametrize("offers", [[], ["Upgrade: y"], ["Connection: Upgrade", "Upgrade: y, z/1"]])
@pytest.mark.parametrize("line", [b"Upgrade: x\r\n", b"Upgrade: y, x\r\n", b""])
def test_an_upgrade_that_nobody_asked_for(proxy: Proxy, offers: list[str], line: bytes) -> None:
    client = proxy.ask("/", *offers)
    peer = proxy.asked().peer
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\n" + line + b"\r\nsecrets")
    answer = client.answer()
    assert (answer.status, b"unasked" in answer.body) == (502, True)
    peer.expect_reset()


def test_an_old_client_cannot_upgrade(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.get("/", "Connection: Upgrade", "Upgrade: x", version="1.0"))
    assert b"upgrade" not in proxy.asked().fields


def test_a_client_that_resets_an_upgraded_connection(proxy: Proxy) -> None:
    client = proxy.ask("/", "Connection: Upgrade", "Upgrade: x")
    peer = proxy.asked().peer
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
    client.head()
    client.reset()
    peer.until(lambda: peer.over, "the end")
    proxy.house.until(lambda: proxy.ended)


# Reverse mode.


def test_a_reverse_proxy_names_its_upstream_and_its_client(house: House) -> None:
    proxy = Proxy(house, reverse=True, prefix="/base/")
    client = proxy.connect()
    client.send(
        b"GET /x?y HTTP/1.1\r\nHost: WWW.example.com:80\r\nForwarded: for=evil\r\nX-Forwarded-For: 6.6.6.6\r\n"
        b"X-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\nX-Kept: 1\r\n\r\n"
    )
    asked = proxy.asked()
    assert asked.target == b"/base/x?y"
    assert asked.lines == [
        b"Host: " + proxy.authority.encode(),
        b"X-Kept: 1",
        via(proxy),
        b'Forwarded: for=127.0.0.1;host="www.example.com";proto=http',
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Forwarded-Host: www.example.com",
        b"X-Forwarded-Proto: http",
    ]
    asked.answer(b"hi")
    assert client.answer().body == b"hi"


def test_a_reverse_proxy_may_keep_the_host(house: House) -> None:
    proxy = Proxy(house, reverse=True, preserve_host=True)
    client = proxy.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
    assert proxy.asked().fields[b"host"] == b"www.example.com"


@pytest.mark.parametrize(
    ("spelled", "told"),
    [
        ("WWW.Example.com", "www.example.com"), ("example.com:80", "example.com"), ("example.com:", "example.com"),
        ("example.com:00080", "example.com"), ("Example.com:08080", "example.com:8080"), ("[::AB]:80", "[::ab]"),
        ("example.com.", "example.com."), ("", ""),
    ],
)  # fmt: skip
def test_hosts_that_are_one_to_the_cache_are_one_to_the_upstream(house: House, spelled: str, told: str) -> None:
    """RFC 9110 section 4.2.3. What the upstream makes of a spelling of its client's would be stored for everybody."""
    proxy = Proxy(house, reverse=True, preserve_host=True)
    client = proxy.connect()
    client.send(f"GET / HTTP/1.1\r\nHost: {spelled}\r\n\r\n".encode())
    asked = proxy.asked()
    assert asked.fields[b"host"] == (told or proxy.authority).encode()
    assert asked.fields.get(b"x-forwarded-host", b"") == told.encode()


@pytest.mark.parametrize(("target", "sent"), [("*", "*"), ("/a", "/p/a"), ("http://any/a?b", "/p/a?b")])
def test_targets_in_reverse(house: House, target: str, sent: str) -> None:
    proxy = Proxy(house, reverse=True, prefix="/p")
    client = proxy.connect()
    client.send(f"OPTIONS {target} HTTP/1.1\r\nHost: any\r\n\r\n".encode())
    assert proxy.asked().target == sent.encode()


def test_a_reverse_proxy_makes_no_tunnels(house: House) -> None:
    proxy = Proxy(house, reverse=True)
    client = proxy.connect()
    client.send(f"CONNECT {proxy.authority} HTTP/1.1\r\nHost: {proxy.authority}\r\n\r\n".encode())
    assert client.answer().status == 501
    client.expect_close()
    proxy.not_asked()


@pytest.mark.parametrize(
    "url",
    [
        "", "a", "http://", "http:///x", "https://", "ftp://a", "http://a?b", "http://a/b?c", "http://u@a", "http://a:99999",
        "http://a/b c", "http://a/\x7f", "http://ä", "http://a#b",
    ],
)  # fmt: skip
def test_an_upstream_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Upstream.parse(url)
    assert "\n" not in str(caught.value)


def test_an_upstream_that_is_one() -> None:
    upstream = Upstream.parse("http://A.example:8080/base//")
    assert (upstream.origin.host, upstream.origin.port, upstream.prefix) == (b"a.example", 8080, b"/base")
    assert Upstream.parse("http://[::1]").origin == (b"http", b"[::1]", 80)


# Whatever the pieces.


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_any_pieces_make_the_same_exchange(house: House, proxy: Proxy, size: int) -> None:
    client = proxy.connect()
    wire = proxy.request("POST", "/", "Transfer-Encoding: chunked") + chunk(b"hello") + chunk(b"world") + b"0\r\n\r\n"
    client.send(*[wire[at : at + size] for at in range(0, len(wire), size)])
    asked = proxy.asked()
    assert asked.body() == b"helloworld"
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"HELLO") + chunk(b"WORLD") + b"0\r\n\r\n"
    asked.peer.send(*[wire[at : at + size] for at in range(0, len(wire), size)])
    assert client.answer().body == b"HELLOWORLD"
    assert proxy.pool.idle == 1


def test_a_slow_exchange_does_not_hold_up_the_others(proxy: Proxy) -> None:
    slow = proxy.ask("/slow")
    asked = proxy.asked()
    asked.begin("Content-Length: 100", first=b"x")
    assert slow.head().status == 200
    for n in range(3):
        other = proxy.ask("/other")
        proxy.asked().answer(b"%d" % n)
        assert other.answer().body == b"%d" % n
        slow.take(1)
        asked.peer.send(b"x")


def test_no_cycles_are_left(house: House, proxy: Proxy) -> None:
    client = proxy.connect()
    with no_cycles():
        for lines, wire in (
            ([], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            ([], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n|0\r\n\r\n"),
            (
                ["TE: trailers", "Connection: TE"],
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\n\r\n",
            ),
            ([], b"bad\r\n\r\n"),
        ):
            client.send(proxy.request("POST", "/", "Transfer-Encoding: chunked", *lines), chunk(b"x"), b"0\r\n\r\n")
            asked = proxy.asked()
            asked.body()
            asked.peer.send(*wire.split(b"|"))
            client.answer()
            house.turns()
        del asked
        proxy.handling.exchanges.clear()
        proxy.handling.ended.clear()
