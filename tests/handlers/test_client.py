"""The client on a running loop: what a transfer asks, what it makes of answers and faults, and that it ends once."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers.client import EXPECT_ABOVE, RETRY_MOST, Client, Transfer, Watcher
from reactor.client import ClientLimits, Pool
from reactor.connector import Connector
from reactor.errors import BodyCutShort, ContentError, FetchFailed, TimedOut
from reactor.exchange import FileSource, Source
from reactor.http.parser import Response
from reactor.http.uri import Origin
from reactor.resolver import Resolver
from tests.loopback import House, Peer, Script, housed
from tests.origin import Asked, no_cycles

TEXT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
EMPTY = "HTTP/1.1 {} X\r\nContent-Length: 0\r\n{}\r\n"


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


class Requests:
    """A client, the origins that the test plays, and what the client's callbacks were told."""

    def __init__(self, house: House, limits: ClientLimits = ClientLimits(), proxied: bool = False) -> None:
        self.house = house
        self.origin, self.other = house.listen(), house.listen()
        resolver = Resolver(house.reactor)
        self.pool = Pool(house.reactor, Connector(house.reactor, resolver), limits)
        house.cleanups += [resolver.close, self.pool.close]
        proxy = Origin(b"http", b"127.0.0.1", self.origin.port) if proxied else None
        self.client = Client(self.pool, proxy, b"Proxy-Authorization: Basic p\r\n" if proxied else b"")
        self.responses: list[Transfer] = []
        self.errors: list[FetchFailed] = []

    def url(self, path: str = "/", other: bool = False) -> str:
        return f"http://127.0.0.1:{(self.other if other else self.origin).port}{path}"

    def request(self, method: str = "GET", url: str | None = None, **options: Any) -> Transfer:
        return self.client.request(
            method, url or self.url(), self.responses.append, lambda _, error: self.errors.append(error), **options
        )

    def asked(self, peer: Peer | None = None) -> Asked:
        return Asked(peer if peer is not None else self.origin.accept())

    def response(self) -> Transfer:
        self.house.until(lambda: self.responses or self.errors, "an answer")
        assert not self.errors, self.errors
        (transfer,) = self.responses
        return transfer

    def error(self) -> FetchFailed:
        self.house.until(lambda: self.responses or self.errors, "an error")
        assert not self.responses
        (error,) = self.errors
        return error


def content(house: House, transfer: Transfer) -> bytes:
    """The body, pulled to its end."""
    body = transfer.body
    if not isinstance(body, Source):
        return body
    pieces: list[bytes] = []

    def pulled() -> bool:
        while (data := body.pull(1000)) is not None:
            if not len(data):
                return True
            pieces.append(bytes(data))
        return False

    house.until(pulled, "the body's end")
    return b"".join(pieces)


# Asking.


def test_a_request_and_its_response(house: House) -> None:
    requests = Requests(house)
    transfer = requests.request(url=requests.url("/a?b#c"))
    asked = requests.asked()
    assert asked.head == (
        f"GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:{requests.origin.port}\r\n"
        "User-Agent: reactor\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n\r\n"
    ).encode()
    house.pass_time(2.0)
    asked.peer.send(TEXT)
    assert requests.response() is transfer
    assert (transfer.body, transfer.response and transfer.response.status, transfer.elapsed) == (b"hello", 200, 2.0)
    assert transfer.address == f"127.0.0.1:{requests.origin.port}" and transfer.history == []
    house.pass_time(5.0)
    assert transfer.elapsed == 2.0


def test_nothing_is_told_from_within_the_call(house: House) -> None:
    requests = Requests(house)
    for url in ("nonsense", "ftp://a/", "http://a/ b"):
        requests.request(url=url)
    requests.request(fields=[("A", "b\r\nC: d")])
    requests.request("A B")
    assert not requests.errors
    house.turns(2)
    assert [error.phase for error in requests.errors] == ["url", "scheme", "url", "request", "request"]


@pytest.mark.parametrize("value", ["b\r\nC: d", "b\nC: d", "b\0"])
@pytest.mark.parametrize("name", ["A", "A\r\nB", "A:B", "", "A B"])
def test_no_field_smuggles_another(house: House, name: str, value: str) -> None:
    requests = Requests(house)
    requests.request(fields=[(name, value)])
    assert requests.error().phase == "request"


@pytest.mark.parametrize("path", ["/\r\nX: 1", "/ HTTP/1.1\r\n\r\n", "/\x00", "/ä", "/\x7f"])
def test_no_url_smuggles_a_field(house: House, path: str) -> None:
    requests = Requests(house)
    requests.request(url=requests.url(path))
    assert requests.error().phase == "url"


def test_defaults_give_way_and_framing_stays_ours(house: House) -> None:
    requests = Requests(house)
    fields = [("host", "name"), (b"accept", b"text/x"), ("User-Agent", None), ("Content-Length", "9"), ("Range", "bytes=0-1")]
    requests.request("POST", fields=fields, body=b"abc")
    asked = requests.asked()
    assert asked.head == b"POST / HTTP/1.1\r\nHost: name\r\naccept: text/x\r\nRange: bytes=0-1\r\nContent-Length: 3\r\n\r\n"
    asked.peer.send(TEXT)
    requests.response()


def test_through_a_proxy_which_alone_is_told_who_asks(house: House) -> None:
    requests = Requests(house, proxied=True)
    requests.request(url="http://example.com/a")
    asked = requests.asked()
    assert asked.head.startswith(b"GET http://example.com/a HTTP/1.1\r\nHost: example.com\r\n")
    assert asked.fields[b"proxy-authorization"] == b"Basic p"
    asked.peer.send(TEXT)
    requests.response()


# Bodies.


def test_a_file_goes_up_by_the_kernel(house: House, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    requests = Requests(house)

    class NotPulled(FileSource):
        __slots__ = ()

        def pull(self, limit: int) -> bytes:
            raise AssertionError("pulled")

    source = NotPulled(os.open(path, os.O_RDONLY), 100, 200_000)
    requests.request("PUT", body=source)
    asked = requests.asked()
    assert asked.fields[b"content-length"] == b"200000"
    assert asked.body() == path.read_bytes()[100:200_100]
    asked.peer.send(TEXT)
    requests.response()
    assert source._fd == -1, "the file is closed with its transfer"


def test_a_file_that_shrinks_is_no_whole_body(house: House, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    requests = Requests(house)
    requests.request("PUT", body=FileSource(os.open(path, os.O_RDONLY), 0, 10))
    requests.origin.accept().expect_reset()
    assert "shorter" in requests.error().reason


@pytest.mark.parametrize("size", [EXPECT_ABOVE, EXPECT_ABOVE + 1])
def test_large_bodies_wait_for_a_100(house: House, size: int) -> None:
    requests = Requests(house)
    requests.request("PUT", body=bytes(size))
    asked = requests.asked()
    assert (b"expect" in asked.fields) == (size > EXPECT_ABOVE)
    if size > EXPECT_ABOVE:
        asked.peer.expect_silence()
        asked.peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert len(asked.body()) == size
    asked.peer.send(TEXT)
    requests.response()


def test_without_a_100_the_body_is_sent_after_a_while(house: House) -> None:
    requests = Requests(house)
    requests.request("PUT", body=Script(house.reactor, b"hello"))
    asked = requests.asked()
    asked.peer.expect_silence()
    house.pass_time(1.1)
    assert asked.body() == b"hello"
    asked.peer.send(TEXT)
    requests.response()


def test_refused_the_expectation_is_dropped(house: House) -> None:
    requests = Requests(house)
    requests.request("PUT", body=bytes(EXPECT_ABOVE + 1))
    first = requests.asked()
    first.peer.send(EMPTY.format(417, "").encode())
    second = requests.asked()
    assert b"expect" not in second.fields and len(second.body()) == EXPECT_ABOVE + 1
    second.peer.send(TEXT)
    requests.response()
    first.peer.expect_reset()


def test_a_final_answer_instead_of_a_100(house: House) -> None:
    requests = Requests(house)
    body = Script(house.reactor, b"hello")
    requests.request("PUT", body=body)
    asked = requests.asked()
    asked.peer.send(EMPTY.format(413, "").encode())
    assert requests.response().response.status == 413  # type: ignore[union-attr]
    assert (body.pulls, body.closes) == (0, 1)
    asked.peer.expect_reset()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("coding", "coded"),
    [("gzip", gzip.compress(b"hello")), ("deflate", zlib.compress(b"hello")), ("gzip, x-gzip", gzip.compress(gzip.compress(b"hello")))],
)
def test_codings_are_undone(house: House, coding: str, coded: bytes, whole: bool) -> None:
    requests = Requests(house)
    requests.request()
    peer = requests.asked().peer
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(coded)}\r\n\r\n".encode()
    peer.send(*([head + coded] if whole else [head + coded[:3], coded[3:7], coded[7:]]))
    assert content(house, requests.response()) == b"hello"


@pytest.mark.parametrize(("status", "decode"), [(206, True), (200, False)])
def test_what_is_not_undone(house: House, status: int, decode: bool) -> None:
    requests = Requests(house)
    requests.request(decode=decode)
    asked = requests.asked()
    assert (b"accept-encoding" in asked.fields) == decode
    asked.peer.send(f"HTTP/1.1 {status} OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nraw".encode())
    assert content(house, requests.response()) == b"raw"


def test_a_head_alone_has_nothing_to_undo(house: House) -> None:
    requests = Requests(house)
    requests.request("HEAD")
    requests.asked().peer.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 30\r\n\r\n")
    assert content(house, requests.response()) == b""


def test_a_coding_that_is_not_known(house: House) -> None:
    requests = Requests(house)
    requests.request()
    requests.asked().peer.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nraw")
    assert requests.error().phase == "content"


@pytest.mark.parametrize("coded", [b"nonsense", gzip.compress(b"hello" * 100)[:-1], gzip.compress(bytes(1 << 26))])
def test_a_coding_that_is_broken_costs_its_connection(house: House, coded: bytes) -> None:
    requests = Requests(house)
    requests.request()
    peer = requests.asked().peer
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(coded), coded))
    transfer = requests.response()
    peer.send(b"0\r\n\r\n")
    with pytest.raises(ContentError):
        content(house, transfer)
    with pytest.raises(ContentError):
        transfer.body.pull(1)  # type: ignore[union-attr]
    house.turns()
    assert transfer.ended is not None


def test_trailers_come_with_the_end(house: House) -> None:
    requests = Requests(house)
    requests.request()
    peer = requests.asked().peer
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nDigest: x\r\n\r\n")
    transfer = requests.response()
    assert content(house, transfer) == b"hello"
    assert transfer.body.trailers.get(b"digest") == b"x"  # type: ignore[union-attr]


# Redirects.


def test_a_redirect_takes_the_way_and_leaves_the_secrets(house: House) -> None:
    requests = Requests(house)
    secrets = [("Authorization", "a"), ("Cookie", "c"), ("Proxy-Authorization", "p"), ("X-Mine", "m"), ("Content-Type", "t")]
    requests.request("POST", fields=secrets, body=b"data")
    first = requests.asked()
    assert first.body() == b"data"
    first.peer.send(EMPTY.format(307, f"Location: {requests.url('/2', other=True)}\r\n").encode())
    second = requests.asked(requests.other.accept())
    assert (second.method, second.target, second.body()) == (b"POST", b"/2", b"data")
    assert second.fields[b"x-mine"] == b"m" and second.fields[b"content-type"] == b"t"
    assert not {b"authorization", b"cookie", b"proxy-authorization"} & second.fields.keys()
    second.peer.send(EMPTY.format(303, f"Location: {requests.url('/3')}\r\n").encode())
    third = requests.asked(first.peer)
    assert (third.method, third.target) == (b"GET", b"/3")
    assert not {b"authorization", b"cookie", b"content-type", b"content-length"} & third.fields.keys()
    third.peer.send(TEXT)
    transfer = requests.response()
    assert transfer.url == requests.url("/3")
    assert [(hop.url, hop.response.status) for hop in transfer.history] == [
        (requests.url(), 307), (requests.url("/2", other=True), 303)
    ]  # fmt: skip


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://a/", "javascript:1", "https:a", "data:,x", "gopher://a:70/"])
def test_other_schemes_are_not_followed(house: House, location: str) -> None:
    requests = Requests(house)
    requests.request()
    requests.asked().peer.send(EMPTY.format(302, f"Location: {location}\r\n").encode())
    assert requests.error().phase in ("scheme", "url")


@pytest.mark.parametrize("location", ["http://user:word@a/", "http://a:99999/", "http://[::1", "/a\tb"])
def test_a_redirect_to_what_is_no_url(house: House, location: str) -> None:
    requests = Requests(house)
    requests.request()
    requests.asked().peer.send(EMPTY.format(302, f"Location: {location}\r\n").encode())
    assert requests.error().phase == "url"


def test_redirects_without_end(house: House) -> None:
    requests = Requests(house)
    requests.request(redirects=3)
    peer = requests.origin.accept()
    for _ in range(4):
        requests.asked(peer)
        peer.send(EMPTY.format(302, "Location: /\r\n").encode())
    error = requests.error()
    assert (error.phase, error.reason) == ("redirect", "more than 3 redirects")


def test_none_is_followed_where_none_is_wanted(house: House) -> None:
    requests = Requests(house)
    requests.request(redirects=None)
    requests.asked().peer.send(EMPTY.format(302, "Location: /\r\n").encode())
    assert requests.response().response.status == 302  # type: ignore[union-attr]


def test_a_body_that_cannot_be_sent_twice(house: House) -> None:
    requests = Requests(house)
    body = Script(house.reactor, b"hello", length=5)
    requests.request("POST", body=body)
    asked = requests.asked()
    assert asked.body() == b"hello"
    asked.peer.send(EMPTY.format(308, "Location: /x\r\n").encode())
    assert (requests.error().phase, body.closes) == ("rewind", 1)


# Repetitions.


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(house: House, status: int) -> None:
    requests = Requests(house)
    requests.request(retries=2)
    peer = requests.origin.accept()
    for wait in (1.0, 2.0):
        requests.asked(peer)
        peer.send(EMPTY.format(status, "").encode())
        house.pass_time(wait - 0.1)
        peer.expect_silence()
        house.pass_time(0.1)
    requests.asked(peer)
    peer.send(EMPTY.format(status, "").encode())
    assert requests.response().response.status == status  # type: ignore[union-attr]


@pytest.mark.parametrize(("told", "wait"), [("7", 7.0), ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0), ("soon", 1.0), ("+3", 1.0)])
def test_the_server_says_when(house: House, told: str, wait: float) -> None:
    requests = Requests(house)
    requests.request(retries=1)
    peer = requests.origin.accept()
    requests.asked(peer)
    peer.send(EMPTY.format(503, f"Retry-After: {told}\r\n").encode())
    house.pass_time(wait - 0.5)
    peer.expect_silence()
    house.pass_time(0.6)
    requests.asked(peer)
    peer.send(TEXT)
    assert requests.response().body == b"hello"


def test_not_later_than_anybody_would_wait(house: House) -> None:
    requests = Requests(house)
    requests.request(retries=1)
    requests.asked().peer.send(EMPTY.format(503, f"Retry-After: {RETRY_MOST + 1:.0f}\r\n").encode())
    assert requests.response().response.status == 503  # type: ignore[union-attr]


@pytest.mark.parametrize(("method", "status"), [("POST", 503), ("PATCH", 500), ("GET", 404), ("GET", 501)])
def test_what_is_not_tried_again(house: House, method: str, status: int) -> None:
    requests = Requests(house)
    requests.request(method, retries=5)
    requests.asked().peer.send(EMPTY.format(status, "").encode())
    assert requests.response().response.status == status  # type: ignore[union-attr]


def test_a_lost_connection_is_a_passing_failure(house: House) -> None:
    requests = Requests(house)
    requests.request(retries=1)
    requests.asked().peer.reset()
    house.pass_time(1.0)
    requests.asked().peer.send(TEXT)
    assert requests.response().body == b"hello"


def test_given_up_while_it_pauses(house: House) -> None:
    requests = Requests(house)
    transfer = requests.request(retries=1)
    requests.asked().peer.send(EMPTY.format(503, "").encode())
    house.turns()
    transfer.abort()
    house.pass_time(2.0)
    assert not requests.responses and not requests.errors


# Faults, phase by phase.


def test_nobody_there(house: House) -> None:
    requests = Requests(house)
    requests.origin.sock.close()
    requests.request()
    error = requests.error()
    assert (error.phase, error.address) == ("connect", f"127.0.0.1:{requests.origin.port}")


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-"])
@pytest.mark.parametrize("how", ["shutdown", "reset"])
def test_cut_before_the_head(house: House, said: bytes, how: str) -> None:
    requests = Requests(house)
    requests.request()
    peer = requests.asked().peer
    peer.send(said)
    getattr(peer, how)()
    assert requests.error().phase == "head"


@pytest.mark.parametrize("said", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n"])
def test_what_is_no_response(house: House, said: bytes) -> None:
    requests = Requests(house)
    requests.request()
    peer = requests.asked().peer
    peer.send(said)
    assert requests.error().phase == "head"
    peer.expect_reset()


@pytest.mark.parametrize(
    "head", [b"Content-Length: 10\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n9\r\n", b"Content-Encoding: gzip\r\nContent-Length: 40\r\n\r\n"]
)
@pytest.mark.parametrize("how", ["shutdown", "reset"])
def test_cut_in_the_body(house: House, head: bytes, how: str) -> None:
    requests = Requests(house)
    requests.request()
    peer = requests.asked().peer
    peer.send(b"HTTP/1.1 200 OK\r\n" + head + gzip.compress(b"hello")[:5])
    transfer = requests.response()
    getattr(peer, how)()
    with pytest.raises(BodyCutShort):
        content(house, transfer)
    assert transfer.ended is not None


def test_a_flood_of_interim_responses(house: House) -> None:
    seen: list[int] = []

    class Counting(Watcher):
        def informed(self, transfer: Transfer, response: Response) -> None:
            seen.append(response.status)

    requests = Requests(house)
    requests.request(watcher=Counting())
    requests.asked().peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100)
    assert requests.error().phase == "head"
    assert seen == [103] * ClientLimits().interim


def test_a_switch_that_nobody_asked_for(house: House) -> None:
    requests = Requests(house)
    requests.request()
    peer = requests.asked().peer
    peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
    assert requests.error().phase == "head"
    peer.expect_reset()


def test_an_iterator_that_raises(house: House) -> None:
    from handlers.bodies import as_body

    def pieces() -> Iterator[bytes]:
        yield b"one"
        raise KeyError("two")

    requests = Requests(house)
    requests.request("PUT", body=as_body(pieces()), expect=False)
    error = requests.error()
    assert error.phase == "send" and "KeyError('two')" in error.reason


# Deadlines and ends.


def test_a_deadline_before_the_head(house: House) -> None:
    requests = Requests(house)
    requests.request(timeout=5.0)
    peer = requests.asked().peer
    house.pass_time(5.1)
    error = requests.error()
    assert isinstance(error, TimedOut) and (error.phase, error.reason) == ("head", "not done within 5 s")
    assert error.seconds == pytest.approx(5.1)
    peer.expect_reset()


@pytest.mark.parametrize("coded", [False, True])
def test_a_deadline_in_the_body(house: House, coded: bool) -> None:
    requests = Requests(house)
    requests.request(timeout=5.0)
    peer = requests.asked().peer
    coding = "Content-Encoding: gzip\r\n" if coded else ""
    peer.send(f"HTTP/1.1 200 OK\r\n{coding}Content-Length: 50\r\n\r\n".encode())
    transfer = requests.response()
    ready: list[bool] = []
    body = transfer.body
    assert isinstance(body, Source)
    body.on_ready = lambda: ready.append(True)
    assert body.pull(10) is None
    house.pass_time(5.1)
    assert ready
    with pytest.raises(BodyCutShort) as caught:
        body.pull(10)
    assert caught.value.status == 504
    peer.expect_reset()


def test_a_deadline_is_gone_with_the_end(house: House) -> None:
    requests = Requests(house)
    requests.request(timeout=5.0)
    requests.asked().peer.send(TEXT)
    requests.response()
    house.pass_time(6.0)
    assert not requests.errors


def test_a_deadline_covers_all_hops_and_pauses(house: House) -> None:
    requests = Requests(house)
    requests.request(timeout=5.0, retries=9)
    peer = requests.origin.accept()
    requests.asked(peer)
    peer.send(EMPTY.format(302, "Location: /x\r\n").encode())
    requests.asked(peer)
    house.pass_time(3.0)
    peer.send(EMPTY.format(503, "Retry-After: 100\r\n").encode())
    house.pass_time(2.1)
    assert isinstance(requests.error(), TimedOut)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"])
def test_given_up(house: House, said: bytes) -> None:
    requests = Requests(house)
    transfer = requests.request(timeout=9.0)
    peer = requests.asked().peer
    peer.send(said)
    transfer.abort()
    peer.expect_reset()
    transfer.abort()
    assert len(requests.responses) == bool(said) and not requests.errors


def test_a_callback_that_raises_hears_of_it(house: House, caplog: pytest.LogCaptureFixture) -> None:
    requests = Requests(house)

    def wrong(transfer: Transfer) -> None:
        raise KeyError("mine")

    errors: list[FetchFailed] = []
    requests.client.request("GET", requests.url(), wrong, lambda _, error: errors.append(error))
    requests.asked().peer.send(TEXT)
    house.until(lambda: errors)
    assert errors[0].phase == "internal" and "mine" in caplog.text


@pytest.mark.parametrize("answer", [TEXT, b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 25\r\n\r\n" + gzip.compress(b"hello")])
def test_nothing_is_left_for_the_collector(house: House, answer: bytes) -> None:
    requests = Requests(house)
    with no_cycles():
        requests.request(timeout=5.0)
        requests.asked().peer.send(answer)
        assert content(house, requests.response()) == b"hello"
        requests.responses.clear()
