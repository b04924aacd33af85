"""The client role: what it asks, what it writes where, and with which code it ends."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from handlers.fetch import (
    BAD_URL, BROKEN, HTTP_ERROR, MAX_REDIRECTS, NO_ANSWER, NOT_CONNECTED, NOT_RESOLVED, OK, PARTIAL, TIMED_OUT,
    TOO_MANY_REDIRECTS, UNSUPPORTED_SCHEME, WRITE_ERROR, Fetch, FetchOptions, read_data,
)  # fmt: skip
from reactor.client import Pool
from reactor.connector import Connector
from reactor.errors import UpstreamError
from reactor.http.uri import Origin
from reactor.resolver import Resolver
from tests.loopback import House, Peer, housed
from tests.origin import Asked

TEXT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


class Names:
    """A resolver that knows no name."""

    def __init__(self, house: House) -> None:
        self.house = house

    def resolve(self, host: str, port: int, callback: Any) -> Names:
        self.house.reactor.call_soon(callback, UpstreamError("not found", "resolve", host))
        return self

    def cancel(self) -> None: ...

    def close(self) -> None: ...


class Role:
    """The client role at work, and the origin that the test plays."""

    def __init__(
        self, house: House, *urls: str, resolver: Any = None, out: Any = None, stop: bool = False, **options: Any
    ) -> None:
        self.house = house
        self.origin = house.listen()
        self.other = house.listen()
        self.authority = f"127.0.0.1:{self.origin.port}"
        resolver = resolver or Resolver(house.reactor)
        self.pool = Pool(house.reactor, Connector(house.reactor, resolver))
        house.cleanups += [resolver.close, self.pool.close]
        self.out = out if out is not None else io.BytesIO()
        self.err = io.BytesIO()
        self.codes: list[int] = []
        proxy = Origin(b"http", b"127.0.0.1", self.origin.port) if options.pop("proxied", False) else None
        known = {"o": self.authority, "other": f"127.0.0.1:{self.other.port}"}
        made = FetchOptions([url.format(**known) for url in urls], proxy=proxy, **options)
        self.fetch = Fetch(house.reactor, self.pool, made, self.codes.append, self.out, self.err)
        self.fetch.start()

    def asked(self, peer: Peer | None = None) -> Asked:
        return Asked(peer if peer is not None else self.origin.accept())

    def code(self) -> int:
        self.house.until(lambda: self.codes, lambda: f"the end; {self.err.getvalue()!r}")
        (code,) = self.codes
        return code

    @property
    def said(self) -> str:
        return self.err.getvalue().decode()


def one(house: House, answer: bytes = TEXT, url: str = "http://{o}/", **options: Any) -> tuple[Role, Asked]:
    """One URL, asked for and answered."""
    role = Role(house, url, **options)
    asked = role.asked()
    asked.peer.send(answer)
    return role, asked


# Asking.


def test_a_get(house: House) -> None:
    role, asked = one(house, url="http://{o}/a?b#c")
    assert (
        asked.head == f"GET /a?b HTTP/1.1\r\nHost: {role.authority}\r\nUser-Agent: reactor\r\nAccept: */*\r\n\r\n".encode()
    )
    assert (role.code(), role.out.getvalue(), role.said) == (OK, b"hello", "")


def test_a_url_without_a_scheme(house: House) -> None:
    role, asked = one(house, url="{o}")
    assert (asked.target, role.code()) == (b"/", OK)


def test_method_and_fields(house: House) -> None:
    fields = [("X-One", "1"), ("x-one", "2"), ("Accept", "text/x"), ("User-Agent", None), ("Host", "elsewhere")]
    role, asked = one(house, method="DELETE", fields=fields)
    assert asked.head == b"DELETE / HTTP/1.1\r\nHost: elsewhere\r\nX-One: 1\r\nx-one: 2\r\nAccept: text/x\r\n\r\n"
    assert role.code() == OK


def test_data_makes_it_a_post(house: House) -> None:
    role, asked = one(house, data=b"a=b")
    assert (asked.method, asked.fields[b"content-type"]) == (b"POST", b"application/x-www-form-urlencoded")
    assert asked.body() == b"a=b"
    assert role.code() == OK


def test_empty_data_is_data(house: House) -> None:
    role, asked = one(house, data=b"")
    assert (asked.method, asked.fields[b"content-length"]) == (b"POST", b"0")


def test_the_framing_is_ours_whatever_is_asked_for(house: House) -> None:
    fields = [("Content-Length", "10"), ("Transfer-Encoding", "chunked"), ("Content-Type", "text/x")]
    role, asked = one(house, data=b"abc", method="PUT", fields=fields)
    assert asked.head.lower().count(b"content-length") == 1 and b"transfer-encoding" not in asked.fields
    assert (asked.fields[b"content-type"], asked.body()) == (b"text/x", b"abc")


def test_head_shows_the_head(house: House) -> None:
    role, asked = one(house, b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX: 1\r\n\r\n", head=True)
    assert asked.method == b"HEAD"
    assert (role.code(), role.out.getvalue()) == (OK, b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX: 1\r\n\r\n")


def test_include_shows_head_and_body(house: House) -> None:
    role, _ = one(house, b"HTTP/1.1 103 Early Hints\r\n\r\n" + TEXT, include=True)
    assert (role.code(), role.out.getvalue()) == (OK, TEXT)


def test_verbose_shows_both_heads_and_the_interim_ones(house: House) -> None:
    role, _ = one(house, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + TEXT, verbose=True)
    assert (role.code(), role.out.getvalue()) == (OK, b"hello")
    assert role.said == (
        f"> GET / HTTP/1.1\n> Host: {role.authority}\n> User-Agent: reactor\n> Accept: */*\n> \n"
        "< HTTP/1.1 103 Early Hints\n< Link: x\n< \n< HTTP/1.1 200 OK\n< Content-Length: 5\n< \n"
    )


def test_through_a_proxy(house: House) -> None:
    role, asked = one(house, url="http://Example.com:80/a?b", proxied=True)
    assert asked.head.startswith(b"GET http://example.com/a?b HTTP/1.1\r\nHost: example.com\r\n")
    assert role.code() == OK


# Several.


def test_several_urls_over_one_connection(house: House) -> None:
    role = Role(house, "http://{o}/1", "http://{o}/2", "http://{other}/3")
    peer = role.origin.accept()
    for target in (b"/1", b"/2"):
        asked = role.asked(peer)
        assert asked.target == target
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + target)
    role.other.accept().send(TEXT)
    assert (role.code(), role.out.getvalue()) == (OK, b"/1/2hello")


def test_the_first_failure_counts_and_the_others_are_fetched(house: House) -> None:
    role = Role(house, "http://{other}/", "ftp://a/", "http://{o}/")
    role.other.sock.close()
    role.asked().peer.send(TEXT)
    assert (role.code(), role.out.getvalue()) == (NOT_CONNECTED, b"hello")
    first, second = role.said.splitlines()
    assert first.startswith("reactor: http://127.0.0.1:") and "refused" in first.lower()
    assert second.startswith("reactor: ftp://a/: ")


def test_into_a_file(house: House, tmp_path: Any) -> None:
    path = tmp_path / "out"
    role = Role(house, "http://{o}/1", "http://{o}/2", output=str(path))
    peer = role.origin.accept()
    for _ in range(2):
        role.asked(peer)
        peer.send(TEXT)
    assert (role.code(), role.out.getvalue(), path.read_bytes()) == (OK, b"", b"hellohello")


# Bodies.


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"he", b"llo"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nhe\r\n", b"3\r\nllo\r\n0\r\nX: 1\r\n\r\n"],
        [b"HTTP/1.0 200 OK\r\n\r\nhe", b"llo", b""],
    ],
)
def test_a_body_is_written_as_it_comes(house: House, pieces: list[bytes]) -> None:
    role = Role(house, "http://{o}/")
    peer = role.asked().peer
    peer.send(*pieces[:2])
    house.until(lambda: role.out.getvalue().startswith(b"he"))
    assert not role.codes
    if pieces[2]:
        peer.send(pieces[2])
    else:
        peer.shutdown()
    assert (role.code(), role.out.getvalue()) == (OK, b"hello")


def test_an_empty_body(house: House) -> None:
    role, _ = one(house, b"HTTP/1.1 204 No Content\r\n\r\n")
    assert (role.code(), role.out.getvalue()) == (OK, b"")


# Failures.


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://a/", UNSUPPORTED_SCHEME),
        ("ftp://a/", UNSUPPORTED_SCHEME),
        ("http://", BAD_URL),
        ("http:///x", BAD_URL),
        ("http://a:port/", BAD_URL),
        ("http://a:99999/", BAD_URL),
        ("http://user:word@a/", BAD_URL),
        ("http://a/b c", BAD_URL),
        ("http://a/\x7f", BAD_URL),
        ("http://a/\r\nX: 1", BAD_URL),
        ("http://ä/", BAD_URL),
        ("http://[::1/", BAD_URL),
        ("", BAD_URL),
    ],
)
def test_a_url_that_cannot_be_fetched(house: House, url: str, code: int) -> None:
    role = Role(house, url)
    assert role.code() == code
    assert role.said.startswith("reactor: ") and role.said.count("\n") == 1 + url.count("\n")


def test_a_method_that_is_none(house: House, caplog: pytest.LogCaptureFixture) -> None:
    assert Role(house, "http://{o}/", method="BAD METHOD").code() == BAD_URL
    assert caplog.text == ""


def test_a_name_that_is_not_known(house: House) -> None:
    role = Role(house, "http://nowhere.invalid/", resolver=Names(house))
    assert role.code() == NOT_RESOLVED


def test_silence(house: House) -> None:
    role = Role(house, "http://{o}/")
    role.asked()
    house.pass_time(60.1)
    assert role.code() == TIMED_OUT


def test_an_end_without_an_answer(house: House) -> None:
    role = Role(house, "http://{o}/")
    role.asked().peer.shutdown()
    assert role.code() == NO_ANSWER


def test_nonsense(house: House) -> None:
    role, _ = one(house, b"nonsense\r\n\r\n")
    assert role.code() == BROKEN


@pytest.mark.parametrize("how", ["shutdown", "reset"])
def test_a_body_cut_short(house: House, how: str) -> None:
    role, asked = one(house, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    house.until(lambda: role.out.getvalue() == b"hello")
    getattr(asked.peer, how)()
    assert (role.code(), role.out.getvalue()) == (PARTIAL, b"hello")


def test_errors_of_the_server_are_answers_too(house: House) -> None:
    role, _ = one(house, b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
    assert (role.code(), role.out.getvalue()) == (OK, b"no")


@pytest.mark.parametrize("body", [b"no", b"n"])
def test_with_fail_they_are_errors(house: House, body: bytes) -> None:
    role, _ = one(house, b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n" + body, fail=True)
    assert (role.code(), role.out.getvalue()) == (HTTP_ERROR, b"")
    assert "404" in role.said


class Full(io.RawIOBase):
    """Takes nothing."""

    def write(self, data: Any) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("body", [b"hello", b"hel"])
def test_where_it_cannot_be_written(house: House, include: bool, body: bytes) -> None:
    role, asked = one(house, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body, out=Full(), include=include)
    assert role.code() == WRITE_ERROR
    assert "No space left" in role.said
    if body == b"hel":
        asked.peer.expect_reset()


def test_a_file_that_cannot_be_opened(house: House, tmp_path: Any) -> None:
    role, _ = one(house, output=str(tmp_path / "no" / "such"))
    assert role.code() == WRITE_ERROR


def test_a_protocol_that_is_not_spoken(house: House) -> None:
    role, asked = one(
        house,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        fields=[("Upgrade", "x"), ("Connection", "upgrade")],
    )
    assert role.code() == BROKEN
    asked.peer.expect_reset()


def test_stopped(house: House) -> None:
    role, asked = one(house, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    house.until(lambda: role.out.getvalue() == b"hello")
    role.fetch.stop()
    asked.peer.expect_reset()
    assert role.codes == []


def test_stopped_between_two(house: House) -> None:
    role = Role(house, "ftp://a/", "http://{o}/")
    house.reactor.turn(0.0)
    role.fetch.stop()
    house.turns()
    assert role.codes == []


# Redirects.


def redirect(status: int, location: str) -> bytes:
    return f"HTTP/1.1 {status} Go\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\ngone".encode()


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "GET", "GET"), (302, "GET", "GET"), (303, "GET", "GET"), (307, "GET", "GET"), (308, "GET", "GET"),
        (301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"), (307, "POST", "POST"), (308, "POST", "POST"),
        (301, "PUT", "PUT"), (303, "PUT", "GET"), (307, "PUT", "PUT"),
        (301, "HEAD", "HEAD"), (303, "HEAD", "HEAD"),
    ],
)  # fmt: skip
def test_redirects_are_followed(house: House, status: int, method: str, then: str) -> None:
    data = b"data" if method in ("POST", "PUT") else None
    role = Role(house, "http://{o}/a/b?c", location=True, method=method, data=data)
    peer = role.origin.accept()
    asked = role.asked(peer)
    asked.body()
    answer = redirect(status, "../d?e")
    peer.send(answer.partition(b"gone")[0] if method == "HEAD" else answer)
    again = role.asked(peer)
    assert (again.method, again.target) == (then.encode(), b"/d?e")
    assert again.body() == (b"data" if then == method and data else b"")
    assert (b"content-type" in again.fields) == (then == method and data is not None)
    peer.send(TEXT.partition(b"hello")[0] if then == "HEAD" else TEXT)
    assert (role.code(), role.out.getvalue()) == (OK, b"" if then == "HEAD" else b"hello")


def test_without_being_asked_none_is_followed(house: House) -> None:
    role, _ = one(house, redirect(302, "/x"))
    assert (role.code(), role.out.getvalue()) == (OK, b"gone")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 302 Found\r\nContent-Length: 2\r\n\r\nhm", redirect(300, "/x"), redirect(304, "/x")]
)
def test_not_everything_is_a_redirect(house: House, answer: bytes) -> None:
    role, _ = one(house, answer, location=True)
    assert role.code() == OK


def test_secrets_stay_with_their_origin(house: House) -> None:
    fields = [("Authorization", "Basic x"), ("Cookie", "a=b"), ("Host", "name"), ("X-One", "1")]
    role = Role(house, "http://{o}/", location=True, fields=fields)
    peer = role.origin.accept()
    role.asked(peer)
    peer.send(redirect(302, "/here"))
    asked = role.asked(peer)
    assert asked.fields[b"authorization"] == b"Basic x" and asked.fields[b"host"] == b"name"
    peer.send(redirect(302, f"http://127.0.0.1:{role.other.port}/there"))
    asked = role.asked(role.other.accept())
    assert asked.fields.keys() == {b"host", b"user-agent", b"accept", b"x-one"}
    assert asked.fields[b"host"] == f"127.0.0.1:{role.other.port}".encode()
    asked.peer.send(TEXT)
    assert role.code() == OK


def test_a_redirect_with_a_body_still_coming(house: House) -> None:
    role = Role(house, "http://{o}/", location=True)
    first = role.asked().peer
    first.send(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 10\r\n\r\nhm")
    role.asked().peer.send(TEXT)
    assert (role.code(), role.out.getvalue()) == (OK, b"hello")
    first.expect_reset()


def test_round_and_round(house: House) -> None:
    role = Role(house, "http://{o}/", location=True)
    peer = role.origin.accept()
    for _ in range(MAX_REDIRECTS + 1):
        role.asked(peer)
        peer.send(redirect(302, "/"))
    assert role.code() == TOO_MANY_REDIRECTS


@pytest.mark.parametrize(
    ("location", "code"),
    [("ftp://a/", UNSUPPORTED_SCHEME), ("http://[::1", BAD_URL), ("http://a:99999/", BAD_URL), ("/\xe4", BAD_URL)],
)
def test_a_redirect_to_nowhere(house: House, location: str, code: int, caplog: pytest.LogCaptureFixture) -> None:
    role, _ = one(
        house,
        b"HTTP/1.1 302 Found\r\nLocation: " + location.encode("latin-1") + b"\r\nContent-Length: 0\r\n\r\n",
        location=True,
    )
    assert role.code() == code
    assert caplog.text == ""


# What -d means.


def test_data_from_the_command_line_and_from_files(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"a=b\r\n&c=\xff\n")
    assert read_data("a=b\n") == b"a=b\n"
    assert read_data(f"@{path}") == b"a=b&c=\xff"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"in\n")))
    assert read_data("@-") == b"in"
    with pytest.raises(OSError):
        read_data(f"@{tmp_path}/none")
