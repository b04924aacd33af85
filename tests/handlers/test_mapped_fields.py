"""An upstream's answer names itself in several fields: what they say here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.stores.memory import MemoryStore
from handlers.mapped_fields import MAX_BASES, MAX_LINKS, map_fields
from handlers.upstreams import Upstream, Upstreams
from reactor.http.fields import Fields
from tests.loopback import House, housed
from tests.origin import Proxy

ALL = ["http://root.example", "/pypi=http://pypi.example/base", "/npm=http://registry.npm.example"]


def mapped(
    name: str, *values: str, path: str = "/pypi/dir/page?q", asked_as: str = "proxy.example", table: Sequence[str] = ALL
) -> list[str]:
    """The lines of that name, after the way back."""
    upstreams = Upstreams([Upstream.parse_mapped(text) for text in table])
    used = upstreams.find(path.encode())
    fields = Fields([(name, value) for value in values] + [("Other", "x")])
    map_fields(fields, upstreams, used, used.target(path.encode()), asked_as.encode())
    assert fields[b"other"] == b"x"
    return [value.decode("latin-1") for value in fields.get_all(name.lower().encode())]


@pytest.mark.parametrize("name", ["Location", "Content-Location", "SourceMap", "sourcemap"])
def test_bare_references(name: str) -> None:
    assert mapped(name, "http://pypi.example/base/x.js.map") == ["/pypi/x.js.map"]
    assert mapped(name, "http://elsewhere.example/base/x") == ["http://elsewhere.example/base/x"]
    assert mapped(name, "/base/y", "/base/z") == ["/base/y", "/base/z"]  # one is meant, and which of them nobody knows


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5; url=http://pypi.example/base/x", "5; url=/pypi/x"),
        ("0;URL='/base/x'", "0;URL='/pypi/x'"),
        ('1.5 , Url = "/base/x?y;z"', '1.5 , Url = "/pypi/x?y;z"'),
        ("5", "5"),
        ("5; /base/x", "5; /base/x"),
        ("soon; url=/base/x", "soon; url=/base/x"),
        ("5; url='/base/x", "5; url='/base/x"),
        ("5; url=/base/x y", "5; url=/base/x y"),
        ("5; url=http://elsewhere.example/", "5; url=http://elsewhere.example/"),
    ],
)
def test_refresh(value: str, expected: str) -> None:
    assert mapped("Refresh", value) == [expected]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('<http://pypi.example/base/l?page=2>; rel="next"', '</pypi/l?page=2>; rel="next"'),
        ("<http://pypi.example/base/a,b;c>;rel=prev,</base/d>; rel=next", "</pypi/a,b;c>;rel=prev,</pypi/d>; rel=next"),
        ('</base/x>; rel="next"; anchor="/base/y"', '</pypi/x>; rel="next"; anchor="/pypi/y"'),
        ("</base/x>; rel=preload; type=text/css; crossorigin;", "</pypi/x>; rel=preload; type=text/css; crossorigin;"),
        ("<http://registry.npm.example/x>; rel=license", "</npm/x>; rel=license"),
        ('</base/x>; rel="http://pypi.example/base/rel"', '</pypi/x>; rel="http://pypi.example/base/rel"'),
        ('</base/x>; title="; anchor=\\"/base/y\\", </base/z>"', '</pypi/x>; title="; anchor=\\"/base/y\\", </base/z>"'),
        ("</base/x>; title*=UTF-8'de'n%c3%a4chstes, , <y>", "</pypi/x>; title*=UTF-8'de'n%c3%a4chstes, , </pypi/dir/y>"),
        ("</other>; rel=next", "<http://pypi.example/other>; rel=next"),
        ("<mailto:a@pypi.example>; rel=author", "<mailto:a@pypi.example>; rel=author"),
        # What does not parse stays, all of it.
        ("</base/x>; rel=next, </base/y", "</base/x>; rel=next, </base/y"),
        ("/base/x; rel=next", "/base/x; rel=next"),
        ('</base/x>; title="open', '</base/x>; title="open'),
        ("</base/x> rel=next", "</base/x> rel=next"),
        ("</base/<x>>; rel=next", "</base/<x>>; rel=next"),
    ],
)  # fmt: skip
def test_links(value: str, expected: str) -> None:
    assert mapped("Link", value) == [expected]


def test_links_on_several_lines_each_parse_for_themselves() -> None:
    assert mapped("Link", "</base/x>", "/base/y", "</base/z>") == ["</pypi/x>", "/base/y", "</pypi/z>"]


def test_links_without_number_stay() -> None:
    many = ["<x>, " * (MAX_LINKS // 2 - 1) + "</base/x>", "</base/x>, " * (MAX_LINKS // 2 - 1) + "</base/x>"]
    assert "</pypi/x>" in mapped("Link", *many)[0]
    assert mapped("Link", *many, "</base/x>") == [*many, "</base/x>"]
    anchors = "</base/x>" + '; Anchor="y"' * MAX_LINKS
    assert mapped("Link", anchors) == [anchors]


def test_links_without_number_on_a_long_path_stay() -> None:
    long = "/pypi/" + "x" * (MAX_BASES // 8)
    assert mapped("Link", *["</base/x>"] * 7, path=long) == ["</pypi/x>"] * 7
    assert mapped("Link", *["</base/x>"] * 8, path=long) == ["</base/x>"] * 8


def test_a_path_that_the_client_chose_ends_no_link() -> None:
    path = '/pypi/x>;rel=stylesheet;a="/page'
    assert mapped("Link", "<style.css>; rel=preload, </base/y>", path=path) == ["<style.css>; rel=preload, </pypi/y>"]
    assert mapped("Refresh", "0; url='y'", path="/pypi/x';'/page") == ["0; url='y'"]


PIECES = st.sampled_from([*'<>;, \t"\\=', "rel", "anchor", "/base/x", "http://pypi.example/base", "é"])


@given(st.lists(PIECES, max_size=30).map("".join))
def test_links_in_any_shape_keep_their_shape(value: str) -> None:
    value = value.strip(" \t")
    (after,) = mapped("Link", value)
    assert [after.count(mark) for mark in '<>;,"'] == [value.count(mark) for mark in '<>;,"']


def test_a_link_of_white_space_and_semicolons_is_read_once() -> None:
    for value in ("<x>" + " ; " * 5000 + "?", "<x>" + " , " * 5000 + "?", "<x>;a" + " " * 15000 + "?"):
        assert mapped("Link", value) == [value]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a=b; Path=/base", "a=b; Path=/pypi"),
        ("a=b; Path=/base/", "a=b; Path=/pypi/"),
        ("a=b;path = /base/x ;HttpOnly", "a=b;path =/pypi/x;HttpOnly"),
        ("a=b; Path=/; Secure; SameSite=Lax", "a=b; Path=/pypi; Secure; SameSite=Lax"),
        ("a=b; Path=/based", "a=b; Path=/based"),
        ("a=b; Path=/bas", "a=b; Path=/bas"),
        ("a=b; Path=/base%2fx", "a=b; Path=/base%2fx"),
        ("a=b; Path=base", "a=b; Path=base"),
        ("a=b; Path", "a=b; Path"),
        ("a=b; Path= /other ; x", "a=b; Path= /other ; x"),
        ("a=b", "a=b"),
        ("Path=/base", "Path=/base"),
        ("a; Path=/base", "a; Path=/base"),
        ("__Host-a=b; Secure; Path=/", "__Host-a=b; Secure; Path=/"),
        ("__Secure-a=b; Secure; Path=/", "__Secure-a=b; Secure; Path=/pypi"),
        ('a="x; Path=/base"; Path=/base', 'a="x; Path=/base"; Path=/pypi'),
        ("a=b; Domain=pypi.example; Path=/base", "a=b; Path=/pypi"),
        ("a=b; domain=.PyPI.example", "a=b"),
        ("a=b; Domain=example", "a=b; Domain=example"),  # of both, and meant for both
        ("a=b; Domain=proxy.example", "a=b; Domain=proxy.example"),
        ("a=b; Domain=x.pypi.example", "a=b; Domain=x.pypi.example"),
        ("a=b; Domain=elsewhere.example", "a=b; Domain=elsewhere.example"),
        ("a=b; Domain=; Domain", "a=b; Domain=; Domain"),
        ("a=b; Expires=Wed, 21 Oct 2015 07:28:00 GMT; Path=/base", "a=b; Expires=Wed, 21 Oct 2015 07:28:00 GMT; Path=/pypi"),
    ],
)
def test_cookies(value: str, expected: str) -> None:
    assert mapped("Set-Cookie", value) == [expected]


def test_each_cookie_keeps_its_line_and_its_place() -> None:
    assert mapped("Set-Cookie", "a=1; Path=/", "b=2", "c=3; Path=/base/x") == ["a=1; Path=/pypi", "b=2", "c=3; Path=/pypi/x"]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("/npm/x", "a=b; Path=/; Domain=npm.example", "a=b; Path=/npm"),
        ("/npm/x", "a=b; Path=/x", "a=b; Path=/npm/x"),
        ("/x", "a=b; Path=/; Domain=root.example", "a=b; Path=/"),
        ("/x", "a=b; Path=/x", "a=b; Path=/x"),
    ],
)
def test_cookies_of_other_upstreams(path: str, value: str, expected: str) -> None:
    assert mapped("Set-Cookie", value, path=path) == [expected]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/shop"),
        ("/in", "/shop/login"),
        ("/in/", "/shop/login/"),
        ("/out/x", "/shop/out/x"),
        ("/elsewhere", "/elsewhere"),
    ],
)
def test_a_cookie_is_for_every_place_of_its_origin_and_for_no_other(path: str, expected: str) -> None:
    table = ["http://b.example", "/shop/login=http://a.example/in", "/shop/out=http://a.example/out", "/b=http://a.example:1"]
    assert mapped("Set-Cookie", f"a=b; Path={path}", path="/shop/login/x", table=table) == [f"a=b; Path={expected}"]


def test_places_that_have_nothing_in_common_have_the_root() -> None:
    table = ["/a=http://a.example/x", "/b=http://a.example/y", "/c=http://a.example/y/z"]
    assert mapped("Set-Cookie", "a=b; Path=/", "c=d; Path=/y/z/", path="/a/x", table=table) == ["a=b; Path=/", "c=d; Path=/"]


@pytest.mark.parametrize(
    ("asked_as", "expected"),
    [("", "a=b"), ("[::1]", "a=b"), ("127.0.0.1", "a=b"), ("a.pypi.example", "a=b; Domain=pypi.example")],
)
def test_a_domain_stays_where_the_host_that_was_asked_may_set_it(asked_as: str, expected: str) -> None:
    assert mapped("Set-Cookie", "a=b; Domain=pypi.example", asked_as=asked_as) == [expected]


@pytest.mark.parametrize("name", ["Access-Control-Allow-Origin", "Alt-Svc", "Content-Security-Policy", "Origin"])
def test_what_names_others_stays(name: str) -> None:
    assert mapped(name, "http://pypi.example") == ["http://pypi.example"]


# Over sockets.


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


def test_interim_answers_and_upgrades_are_mapped_too(house: House) -> None:
    proxy = Proxy(house, reverse=True, prefix="/base", at="/pypi")
    client = proxy.ask("/pypi/x", "Connection: upgrade", "Upgrade: chat")
    asked = proxy.asked()
    asked.begin("Link: </base/style.css>; rel=preload", status="103 Early Hints")
    assert client.head().fields[b"link"] == b"</pypi/style.css>; rel=preload"
    asked.begin("Connection: upgrade", "Upgrade: chat", "Set-Cookie: a=b; Path=/", status="101 Switching Protocols")
    assert client.head().fields[b"set-cookie"] == b"a=b; Path=/pypi"


def test_what_is_stored_is_what_each_client_is_to_read(house: House) -> None:
    """A cookie's Domain depends on the name we are asked by, which is in the key; after a 304 it is mapped again."""
    proxy = Proxy(house, reverse=True, prefix="/base", at="/pypi", store=MemoryStore(1 << 20))
    lines = [f"Link: <http://{proxy.authority}/base/2>; rel=next", "Set-Cookie: a=b; Domain=127.0.0.1; Path=/base"]
    for host, cookie in (("127.0.0.1", b"a=b; Domain=127.0.0.1; Path=/pypi"), ("other.example", b"a=b; Path=/pypi")):
        request = b"GET /pypi/x HTTP/1.1\r\nHost: %b\r\n" % host.encode()
        for terms, fetches in ((b"", True), (b"", False), (b"Cache-Control: no-cache\r\n", True)):
            client = proxy.connect()
            client.send(request + terms + b"\r\n")
            if fetches:
                status = "304 Not Modified" if terms else "200 OK"
                proxy.asked().begin(*lines, 'ETag: "1"', "Cache-Control: max-age=60", "Content-Length: 0", status=status)
            answer = client.answer()
            assert (answer.fields[b"link"], answer.fields[b"set-cookie"]) == (b"</pypi/2>; rel=next", cookie)
        proxy.not_asked()
