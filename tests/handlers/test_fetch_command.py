"""The client role: what it asks, what it writes where, and with which code it ends."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers.exit_codes import (
    BAD_CONTENT,
    BAD_URL,
    BROKEN,
    CANNOT_RESUME,
    HTTP_ERROR,
    NO_ANSWER_AT_ALL,
    NOT_CONNECTED,
    NOT_RESOLVED,
    NOT_SENT_TWICE,
    OK,
    PARTIAL,
    PROXY_NOT_RESOLVED,
    READ_ERROR,
    TIMED_OUT,
    TOO_MANY_REDIRECTS,
    UNSUPPORTED_SCHEME,
    WEIRD_REPLY,
    WRITE_ERROR,
)
from handlers.fetch_command import MAX_REDIRECTS, REMOTE_NAME, Fetch, FetchOptions
from handlers.parts import FilePart, InputPart
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
        self.err = options.pop("err", None) or io.BytesIO()
        self.codes: list[int] = []
        proxied = options.pop("proxied", None)
        proxy = Origin(b"http", proxied.encode(), self.origin.port) if proxied else None
        known = {"o": self.authority, "other": f"127.0.0.1:{self.other.port}"}
        stdin = options.pop("stdin", 0)
        made = FetchOptions([url.format(**known) for url in urls], proxy=proxy, **options)
        self.fetch = Fetch(house.reactor, self.pool, made, self.codes.append, self.out, self.err, stdin)
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
    role, asked = one(house, data=[b"a=", b"b"])
    assert asked.method == b"POST"
    assert asked.body() == b"a=b"
    assert role.code() == OK


def test_empty_data_is_data(house: House) -> None:
    role, asked = one(house, data=[b""])
    assert (asked.method, asked.fields[b"content-length"]) == (b"POST", b"0")


def test_the_framing_is_ours_whatever_is_asked_for(house: House) -> None:
    fields = [("Content-Length", "10"), ("Transfer-Encoding", "chunked"), ("Content-Type", "text/x")]
    role, asked = one(house, data=[b"abc"], method="PUT", fields=fields)
    assert asked.head.lower().count(b"content-length") == 1 and b"transfer-encoding" not in asked.fields
    assert (asked.fields[b"content-type"], asked.body()) == (b"text/x", b"abc")


def test_head_shows_the_head(house: House) -> None:
    role, asked = one(house, b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX: 1\r\n\r\n", head=True)
    assert asked.method == b"HEAD"
    assert (role.code(), role.out.getvalue()) == (OK, b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX: 1\r\n\r\n")


def test_include_shows_head_and_body(house: House) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    role, _ = one(house, early + TEXT, include=True)
    assert (role.code(), role.out.getvalue()) == (OK, early + TEXT)
    old = b"HTTP/1.0 200 OK\r\n\r\nhello"
    role, asked = one(house, old, include=True)
    asked.peer.close()
    assert (role.code(), role.out.getvalue()) == (OK, old)


def test_head_by_another_method_shows_no_more(house: House) -> None:
    role, asked = one(house, TEXT, head=True, method="POST")
    assert asked.method == b"POST"
    assert (role.code(), role.out.getvalue()) == (OK, TEXT[:-5])


def test_a_failure_is_shown_with_the_heads_before_it(house: House) -> None:
    role, _ = one(house, TEXT.replace(b"200", b"404"), include=True, fail=True)
    assert (role.code(), role.out.getvalue()) == (HTTP_ERROR, TEXT[:-5].replace(b"200", b"404"))
    there = b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"
    role, _ = one(house, there, include=True, verbose=True, location=True, max_redirects=0)
    assert (role.code(), role.out.getvalue()) == (TOO_MANY_REDIRECTS, there)
    assert "< Location: /" in role.said
    role, _ = one(house, there, include=True, location=True, max_redirects=0, out=Full())
    assert role.code() == WRITE_ERROR


def test_verbose_shows_both_heads_and_the_interim_ones(house: House) -> None:
    role, _ = one(house, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + TEXT, verbose=True)
    assert (role.code(), role.out.getvalue()) == (OK, b"hello")
    assert role.said == (
        f"> GET / HTTP/1.1\n> Host: {role.authority}\n> User-Agent: reactor\n> Accept: */*\n> \n"
        "< HTTP/1.1 103 Early Hints\n< Link: x\n< \n< HTTP/1.1 200 OK\n< Content-Length: 5\n< \n"
    )


@pytest.mark.parametrize(
    ("fields", "sent"),
    [([], b"Basic bWU6cEB3"), ([("authorization", "mine")], b"mine"), ([("Authorization", None)], None)],
)
def test_who_is_told_in_the_url(house: House, fields: list[tuple[str, str | None]], sent: bytes | None) -> None:
    role, asked = one(house, url="http://me:p%40w@{o}/a@b", fields=fields)
    assert (asked.target, asked.fields.get(b"authorization")) == (b"/a@b", sent)
    assert asked.fields[b"host"] == role.authority.encode()
    assert role.code() == OK


def test_a_referer_that_follows_the_redirects(house: House) -> None:
    role = Role(house, "http://{o}/1#x", location=True, auto_referer=True, fields=[("Referer", "http://a/")])
    peer = role.origin.accept()
    referers = []
    for target in (b"/2", b"/3", None):
        asked = role.asked(peer)
        referers.append(asked.fields[b"referer"])
        peer.send(TEXT if target is None else b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % target)
    base = f"http://{role.authority}".encode()
    assert referers == [b"http://a/", base + b"/1", base + b"/2"]
    assert role.code() == OK


def test_through_a_proxy(house: House) -> None:
    role, asked = one(house, url="http://Example.com:80/a?b", proxied="127.0.0.1")
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
    role = Role(house, "http://{o}/1", "http://{o}/2", outputs=[str(path)])
    peer = role.origin.accept()
    for text in (b"first", b"other"):
        role.asked(peer)
        peer.send(TEXT.replace(b"hello", text))
    assert (role.code(), role.out.getvalue(), path.read_bytes()) == (OK, b"other", b"first")
    assert os.listdir(tmp_path) == ["out"]


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
        ("gopher://a/", UNSUPPORTED_SCHEME),
        ("ftp://a/", UNSUPPORTED_SCHEME),
        ("http://", BAD_URL),
        ("http:///x", BAD_URL),
        ("http://a:port/", BAD_URL),
        ("http://a:99999/", BAD_URL),
        ("http://user:word@/", BAD_URL),
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
    assert role.said.startswith("reactor: ") and role.said.count("\n") == 1


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
    assert role.code() == NO_ANSWER_AT_ALL


def test_nonsense(house: House) -> None:
    role, _ = one(house, b"nonsense\r\n\r\n")
    assert role.code() == WEIRD_REPLY


@pytest.mark.parametrize("how", ["shutdown", "reset"])
def test_a_body_cut_short(house: House, how: str) -> None:
    role, asked = one(house, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    house.until(lambda: role.out.getvalue() == b"hello")
    getattr(asked.peer, how)()
    assert (role.code(), role.out.getvalue()) == (PARTIAL, b"hello")


@pytest.mark.parametrize("rest", [b"zz\r\n", b"5\r\nhello, world\r\n", b"-1\r\n"])
@pytest.mark.parametrize("at_once", [False, True])
def test_malformed_chunks(house: House, rest: bytes, at_once: bool) -> None:
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    role, asked = one(house, start + rest if at_once else start)
    house.until(lambda: role.out.getvalue()[:5] == b"hello")
    asked.peer.send(b"" if at_once else rest)
    assert role.code() == BROKEN


@pytest.mark.parametrize("start", [b"", b"5\r", b"5\r\nhel", b"5\r\nhello\r\n"])
def test_chunks_cut_short(house: House, start: bytes) -> None:
    role, asked = one(house, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + start)
    asked.peer.shutdown()
    assert role.code() == PARTIAL


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
    role, _ = one(house, outputs=[str(tmp_path / "no" / "such")])
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
    fields = [("Content-Type", "text/x")] if data else []
    role = Role(house, "http://{o}/a/b?c", location=True, method=method, data=data and [data], fields=fields)
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
    [("gopher://a/", UNSUPPORTED_SCHEME), ("http://[::1", BAD_URL), ("http://a:99999/", BAD_URL), ("file:///etc/passwd", UNSUPPORTED_SCHEME), ("/\ta", BAD_URL)],
)
def test_a_redirect_to_nowhere(house: House, location: str, code: int, caplog: pytest.LogCaptureFixture) -> None:
    role, _ = one(
        house,
        b"HTTP/1.1 302 Found\r\nLocation: " + location.encode("latin-1") + b"\r\nContent-Length: 0\r\n\r\n",
        location=True,
    )
    assert role.code() == code
    assert caplog.text == ""


# Files.

HALF = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 10\r\n\r\nhello'


def test_a_broken_download_goes_on_where_it_broke_off(house: House, tmp_path: Path) -> None:
    path = tmp_path / "file"
    role, asked = one(house, HALF, outputs=[str(path)])
    house.until(lambda: (tmp_path / "file.part").exists())
    asked.peer.shutdown()
    assert role.code() == PARTIAL
    assert role.said.endswith(f"; 5 bytes of it are in {path}.part: -C - goes on from there\n")
    assert not path.exists()
    url = f"http://{role.authority}/"
    again = Role(house, url, outputs=[str(path)], resume=None)
    asked = again.asked(role.origin.accept())
    assert (asked.fields[b"range"], asked.fields[b"if-range"]) == (b"bytes=5-", b'"1"')
    asked.peer.send(b'HTTP/1.1 206 P\r\nETag: "1"\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\nthere')
    assert (again.code(), path.read_bytes(), os.listdir(tmp_path)) == (OK, b"hellothere", ["file"])


def test_a_part_and_an_answer_that_does_not_fit(house: House, tmp_path: Path) -> None:
    path = tmp_path / "file"
    role, asked = one(house, HALF, outputs=[str(path)])
    house.until(lambda: (tmp_path / "file.part").exists())
    role.fetch.stop("interrupted")
    assert "interrupted; 5 bytes of it are in" in role.said and role.codes == []
    again = Role(house, f"http://{role.authority}/", outputs=[str(path)], resume=None)
    again.asked(role.origin.accept()).peer.send(b"HTTP/1.1 503 Later\r\nContent-Length: 4\r\n\r\nbusy")
    assert again.code() == CANNOT_RESUME
    assert (tmp_path / "file.part").read_bytes() == b"hello"
    asked.peer.expect_reset()


def test_an_offset(house: House, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    role = Role(house, "http://{o}/", outputs=[str(path)], resume=5)
    asked = role.asked()
    assert asked.fields[b"range"] == b"bytes=5-" and b"if-range" not in asked.fields
    asked.peer.send(b"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\nthere")
    assert (role.code(), path.read_bytes()) == (OK, b"hellothere")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\nthere", OK),
        (b"HTTP/1.1 206 P\r\nContent-Range: bytes 6-9/10\r\nContent-Length: 4\r\n\r\nhere", CANNOT_RESUME),
        (TEXT, CANNOT_RESUME),
    ],
)
def test_an_offset_to_standard_output(house: House, answer: bytes, code: int) -> None:
    role, _ = one(house, answer, resume=5)
    assert (role.code(), role.out.getvalue()) == (code, b"there" if code == OK else b"")


def test_with_fail_no_file_is_made(house: House, tmp_path: Path) -> None:
    role, _ = one(house, b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", outputs=[str(tmp_path / "file")], fail=True)
    assert (role.code(), os.listdir(tmp_path)) == (HTTP_ERROR, [])


def test_named_as_in_the_url(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    role = Role(house, "http://{o}/a/one%20two?x/y", "http://{o}/three#z", "http://{o}/a/", outputs=[REMOTE_NAME])
    peer = role.origin.accept()
    for _ in range(2):
        role.asked(peer)
        peer.send(TEXT)
    assert role.code() == WRITE_ERROR, "the last one has no name"
    assert sorted(os.listdir(tmp_path)) == ["one%20two", "three"]


@pytest.mark.parametrize("path", ["/", "/..", "/%2e%2e", "/.", ""])
def test_no_name_of_a_file(house: House, path: str) -> None:
    assert Role(house, "http://{o}" + path, outputs=[REMOTE_NAME]).code() == WRITE_ERROR


def test_the_time_of_the_origin(house: House, tmp_path: Path) -> None:
    path = tmp_path / "file"
    answer = b"HTTP/1.1 200 OK\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n"
    role, _ = one(house, answer, outputs=[str(path)], remote_time=True)
    assert (role.code(), path.stat().st_mtime) == (OK, 784111777)


# Bodies that are sent.


def test_a_file_is_the_body(house: House, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"one\ntwo\n")
    role = Role(house, "http://{o}/", "http://{o}/2", method="PUT", data=[FilePart(str(tmp_path / "body"))])
    peer = role.origin.accept()
    for _ in range(2):
        asked = role.asked(peer)
        assert (asked.fields[b"content-length"], asked.body()) == (b"8", b"one\ntwo\n")
        peer.send(TEXT)
    assert role.code() == OK


def test_a_file_that_is_not_there_any_more(house: House, tmp_path: Path) -> None:
    assert Role(house, "http://{o}/", data=[FilePart(str(tmp_path / "none"))]).code() == READ_ERROR
    assert Role(house, "http://{o}/", data=[FilePart(str(tmp_path))]).code() == READ_ERROR


class Pipe:
    """Standard input, and who writes into it."""

    def __init__(self) -> None:
        reads, writes = os.pipe()
        self.reads, self.writes = open(reads, "rb", buffering=0), open(writes, "wb", buffering=0)
        self.fd = reads


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.reads.close()
    pipe.writes.close()


@pytest.mark.parametrize("strip", [False, True])
def test_a_short_pipe_has_a_length(house: House, pipe: Pipe, strip: bool) -> None:
    role = Role(house, "http://{o}/", "http://{o}/2", data=[b"a=1&", InputPart(strip)], stdin=pipe.fd)
    pipe.writes.write(b"b=2\n")
    house.turns()
    role.origin.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        role.origin.sock.accept()  # nothing is asked while the pipe is open, and the loop goes on
    pipe.writes.close()
    peer = role.origin.accept()
    for _ in range(2):
        asked = role.asked(peer)
        body = b"a=1&b=2" if strip else b"a=1&b=2\n"
        assert (asked.fields[b"content-length"], asked.body()) == (b"%d" % len(body), body)
        peer.send(TEXT)
    assert role.code() == OK


def test_a_long_pipe_is_sent_as_it_comes(house: House, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.parts.GATHER", 10)
    role = Role(house, "http://{o}/", data=[InputPart(strip=True)], stdin=pipe.fd, fields=[("Expect", None)])
    pipe.writes.write(b"0123456789\n")
    asked = role.asked()
    assert asked.fields[b"transfer-encoding"] == b"chunked"
    asked.peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert asked.peer.take_until(b"0123456789\r\n")
    pipe.writes.write(b"more\n")
    pipe.writes.close()
    assert asked.body() == b"more"
    asked.peer.send(TEXT)
    assert role.code() == OK


def test_an_upload_from_a_pipe(house: House, pipe: Pipe) -> None:
    role = Role(house, "http://{o}/", method="PUT", data=[InputPart(gather=False)], stdin=pipe.fd, location=True)
    asked = role.asked()
    assert (asked.fields[b"transfer-encoding"], asked.fields[b"expect"]) == (b"chunked", b"100-continue")
    asked.peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    pipe.writes.write(b"hello")
    pipe.writes.close()
    assert asked.body() == b"hello"
    asked.peer.send(redirect(307, "/2"))
    assert role.code() == NOT_SENT_TWICE


def test_standard_input_that_is_a_file(house: House, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"skipped hello\n")
    with open(tmp_path / "in", "rb", buffering=0) as file:
        file.seek(8)
        role = Role(house, "http://{o}/", method="PUT", data=[InputPart(gather=False)], stdin=file.fileno())
        asked = role.asked()
        assert (asked.fields[b"content-length"], asked.body()) == (b"6", b"hello\n")
        asked.peer.send(TEXT)
        assert role.code() == OK


@pytest.mark.parametrize("gather", [False, True])
def test_there_is_no_standard_input(house: House, gather: bool, caplog: pytest.LogCaptureFixture) -> None:
    role = Role(house, "http://{o}/", data=[InputPart(gather=gather)], stdin=-1)
    assert (role.code(), caplog.text) == (READ_ERROR, "")


def test_stopped_while_a_pipe_is_waited_for(house: House, pipe: Pipe) -> None:
    role = Role(house, "http://{o}/", data=[InputPart()], stdin=pipe.fd)
    house.turns()
    role.fetch.stop("interrupted")
    assert "interrupted" in role.said and role.codes == []


# On a terminal.


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("no terminal has this one")


JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX: \x1b[31m\r\nContent-Length: 7\r\n\r\n"


def test_json_is_made_readable_on_a_terminal(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    role, _ = one(house, JSON.replace(b"\x1b", b"\xc2\x9b") + b'{"a":1}', out=Terminal(), include=True)
    assert role.code() == OK
    assert role.out.getvalue() == (
        b'HTTP/1.1 200 OK\nContent-Type: application/json\nX: \\x9b[31m\nContent-Length: 7\n\n{\n    "a": 1\n}\n'
    )


def test_in_colour_where_that_is_wanted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    role, _ = one(house, TEXT.replace(b"\r\n\r\n", b"\r\nX: \xc2\x9b\r\n\r\n"), out=Terminal(), err=Terminal(), verbose=True, include=True)
    assert role.code() == OK
    for shown in (role.out.getvalue(), role.err.getvalue()):
        assert b"\x1b[36mContent-Length\x1b[0m" in shown and b"\x9b" not in shown and b"\\x9b" in shown


def test_what_is_no_text_is_not_shown(house: House) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe\0lo"
    role, _ = one(house, answer, out=Terminal())
    assert (role.code(), role.out.getvalue()) == (WRITE_ERROR, b"")
    assert one(house, answer, out=Terminal(), outputs=["-"])[0].code() == OK


def test_json_that_is_no_text_is_not_shown_either(house: House, caplog: pytest.LogCaptureFixture) -> None:
    role, _ = one(house, JSON.replace(b"\x1b", b"") + b'{"\0":1}'[:7], out=Terminal())
    assert (role.code(), role.out.getvalue(), caplog.text) == (WRITE_ERROR, b"", "")


class ClosedTerminal(Terminal):
    def write(self, data: Any) -> int:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("include", [False, True])
def test_a_terminal_that_is_gone(house: House, include: bool, caplog: pytest.LogCaptureFixture) -> None:
    role, _ = one(house, JSON.replace(b"\x1b", b"") + b'{"a":1}', out=ClosedTerminal(), include=include)
    assert (role.code(), caplog.text) == (WRITE_ERROR, "")


def test_no_error_says_more_than_a_line(house: House) -> None:
    role, _ = one(house, b"HTTP/1.1 302 Found\r\nLocation: ftp://a/\xc2\x9b\r\nContent-Length: 0\r\n\r\n", location=True)
    assert role.code() == UNSUPPORTED_SCHEME
    assert role.said.count("\n") == 1 and "\x9b" not in role.said


def test_a_bar_for_what_takes_long(house: House, tmp_path: Path) -> None:
    role = Role(house, "http://{o}/", outputs=[str(tmp_path / "file")], err=Terminal())
    peer = role.asked().peer
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + bytes(25))
    house.turns()
    for _ in range(6):
        house.pass_time(0.21)
    assert b" 25%  25 B of 100 B" in role.err.getvalue()
    peer.send(bytes(75))
    assert role.code() == OK
    assert role.err.getvalue().endswith(b"\r\x1b[K")


# Ways and ends.


@pytest.mark.parametrize("show", [False, True])
def test_silence_is_kept_or_not(house: House, show: bool) -> None:
    role = Role(house, "ftp://a/", silent=True, show_errors=show)
    assert (role.code(), bool(role.said)) == (UNSUPPORTED_SCHEME, show)


def test_a_proxy_that_is_not_known(house: House) -> None:
    assert Role(house, "http://a/", proxied="proxy.invalid", resolver=Names(house)).code() == PROXY_NOT_RESOLVED


def test_compressed(house: House) -> None:
    coded = gzip.compress(b"hello")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(coded)
    role, asked = one(house, head + coded, compressed=True)
    assert asked.fields[b"accept-encoding"] == b"gzip, deflate"
    assert (role.code(), role.out.getvalue()) == (OK, b"hello")
    role, asked = one(house, head + coded)
    assert b"accept-encoding" not in asked.fields
    assert (role.code(), role.out.getvalue()) == (OK, coded)
    assert one(house, head + b"x" * len(coded), compressed=True)[0].code() == BAD_CONTENT


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"])
def test_no_longer_than_it_may_take(house: House, answer: bytes) -> None:
    role, _ = one(house, answer, max_time=3.0)
    house.turns()
    house.pass_time(3.1)
    assert role.code() == TIMED_OUT


def test_tried_again(house: House) -> None:
    role = Role(house, "http://{o}/", retries=1, include=True)
    peer = role.origin.accept()
    role.asked(peer)
    peer.send(b"HTTP/1.1 503 Later\r\nContent-Length: 4\r\n\r\nbusy")
    house.pass_time(1.1)
    role.asked(peer)
    peer.send(TEXT)
    assert (role.code(), role.out.getvalue()) == (OK, b"HTTP/1.1 503 Later\r\nContent-Length: 4\r\n\r\n" + TEXT)


def test_every_head_on_the_way_is_shown(house: House) -> None:
    role = Role(house, "http://{o}/", location=True, include=True)
    peer = role.origin.accept()
    role.asked(peer)
    peer.send(redirect(302, "/x"))
    role.asked(peer)
    peer.send(TEXT)
    assert (role.code(), role.out.getvalue()) == (OK, redirect(302, "/x").removesuffix(b"gone") + TEXT)
