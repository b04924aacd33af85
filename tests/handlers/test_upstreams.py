"""Several upstreams on one listener: which path goes where, and what their URLs become on the way back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.proxy import Forwarding
from handlers.upstreams import Upstream, Upstreams
from reactor.errors import ConfigError, ProtocolError
from tests.loopback import House, housed
from tests.origin import Proxy

ALL = [
    "http://root.example", "/pypi=http://pypi.example/base", "/pypi/simple=http://simple.example:8080", "/npm=http://npm.example/",
]  # fmt: skip


def table(*texts: str) -> Upstreams:
    return Upstreams([Upstream.parse_mapped(text) for text in texts or ALL])


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/", "http://root.example/"),
        ("/x?y=/pypi/z", "http://root.example/x?y=/pypi/z"),
        ("/pypi", "http://pypi.example/base"),
        ("/pypi/", "http://pypi.example/base/"),
        ("/pypi?x", "http://pypi.example/base?x"),
        ("/pypi/a//b/%2e?c", "http://pypi.example/base/a//b/%2e?c"),
        ("/pypix/a", "http://root.example/pypix/a"),
        ("/pypi/simpler", "http://pypi.example/base/simpler"),
        ("/pypi/simple", "http://simple.example:8080/"),
        ("/pypi/simple?x", "http://simple.example:8080/?x"),
        ("/pypi/simple/a/../b", "http://simple.example:8080/a/../b"),
        ("/npm/@scope%2fname", "http://npm.example/@scope%2fname"),
        ("/PYPI/a", "http://root.example/PYPI/a"),
    ],
)
def test_the_longest_prefix_wins(path: str, url: str) -> None:
    upstream = table().find(path.encode())
    assert bytes(upstream.origin) + upstream.target(path.encode()) == url.encode()


@pytest.mark.parametrize(
    "path",
    [
        "/pypi/..", "/pypi/../npm", "/pypi/a/../../x", "/pypi/%2e%2e/x", "/pypi/.%2E/x", "/pypi/a%2f..%2f../x",
        "/pypi/..%5cx", "/pypi/a\\..\\..\\x", "/pypi/a//../../x", "/pypi/./../x", "/..",
        "/pypi/..;/x", "/pypi/..;a=b/x", "/pypi/a/..%3b/%2e%2e;/x", "/pypi/;a/../x", "/pypi/a;b/..;c/..;d",
    ],
)  # fmt: skip
def test_a_path_does_not_climb_out_of_its_prefix(path: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        table().find(path.encode())
    assert caught.value.status == 400


def test_a_path_for_nobody_is_not_found() -> None:
    with pytest.raises(ProtocolError) as caught:
        table("/pypi=http://a", "/npm=http://b").find(b"/other")
    assert caught.value.status == 404


def test_where_nothing_is_mapped_paths_are_the_origins_own_affair() -> None:
    assert table("http://a").find(b"/a/../../b").target(b"/a/../../b") == b"/a/../../b"


@pytest.mark.parametrize(
    "text",
    [
        "/", "/a", "/a=", "/a=b", "/a=https", "/a?=http://a", "/a/../b=http://a", "/a//b=http://a", "/./a=http://a",
        "/a%20=http://a", "/a b=http://a", "/ä=http://a", "a=http://a", "/a=/b=http://a", "/a\\b=http://a", "/a=ftp://a",
        "/#=http://a", "/\ud800=http://a", '/a"b=http://a', "/<a>=http://a", "/a;b=http://a",
    ],
)  # fmt: skip
def test_what_is_no_upstream(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Upstream.parse_mapped(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("texts", [("http://a", "http://b"), ("/a=http://a", "/a/=http://b"), ("/=http://a", "http://a")])
def test_two_at_one_place(texts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        table(*texts)


# The way back.


@pytest.mark.parametrize(
    ("location", "mapped"),
    [
        ("http://pypi.example/base/x", "/pypi/x"),
        ("http://pypi.example/base", "/pypi"),
        ("HTTP://PyPI.example:80/base/x?y#z", "/pypi/x?y#z"),
        ("http://pypi.example/base?y", "/pypi?y"),
        ("http://pypi.example/base/../secret", "http://pypi.example/base/../secret"),
        ("http://pypi.example/base/%2E%2e/secret?..", "http://pypi.example/base/%2E%2e/secret?.."),
        ("http://pypi.example/base/a/../b;c?../..", "/pypi/a/../b;c?../.."),
        ("http://pypi.example/%62ase/x", "http://pypi.example/%62ase/x"),
        ("http://root.example/a/../../x", "/a/../../x"),
        ("http://pypi.example/based", "http://pypi.example/based"),
        ("http://pypi.example/", "http://pypi.example/"),
        ("https://pypi.example/base/x", "https://pypi.example/base/x"),  # mapped back, it would lead here for ever
        ("http://pypi.example:8080/base/x", "http://pypi.example:8080/base/x"),
        ("http://pypi.example@evil.example/base/x", "http://pypi.example@evil.example/base/x"),
        ("http://npm.example", "/npm/"),
        ("http://npm.example#x", "/npm/#x"),
        ("http://root.example", "/"),
        ("http://root.example?x", "/?x"),
        ("http://root.example//evil.example/x", "/.//evil.example/x"),
        ("http://elsewhere.example/x", "http://elsewhere.example/x"),
        ("//npm.example/x", "/npm/x"),
        ("//elsewhere.example/x", "http://elsewhere.example/x"),
        ("/base/y", "/pypi/y"),
        ("/y", "http://pypi.example/y"),
        ("y", "/pypi/dir/y"),
        ("../y?z", "/pypi/y?z"),
        ("../../y", "http://pypi.example/y"),
        ("?z", "/pypi/dir/page?z"),
        ("#z", "/pypi/dir/page?q#z"),
        ("", "/pypi/dir/page?q"),
        ("mailto:a@b.example", "mailto:a@b.example"),
        ("http://[", "http://["),
        ("//[", "//["),
        ("/base/\xe9", "/pypi/\xe9"),
    ],
)
def test_locations_are_mapped_back(location: str, mapped: str) -> None:
    upstreams = table()
    used = upstreams.find(b"/pypi/dir/page?q")
    assert upstreams.map_back(location.encode("latin-1"), used, b"/base/dir/page?q") == mapped.encode("latin-1")


SEGMENTS = st.sampled_from(["pypi", "simple", "base", "npm", "x", "", "%2f", "a;b=c", "y?z=/npm"])


@given(st.lists(SEGMENTS, max_size=5).map(lambda segments: "/" + "/".join(segments)))
def test_what_a_path_stands_for_leads_back_to_the_same(path: str) -> None:
    upstreams = table()
    used = upstreams.find(path.encode())
    url = bytes(used.origin) + used.target(path.encode())
    back = upstreams.locate(url, used)
    assert back is not None
    again = upstreams.find(back.removeprefix(b"/."))
    if again is used:  # and not shadowed: a part of the root's paths is another's here
        assert bytes(again.origin) + again.target(back.removeprefix(b"/.")) == url


@pytest.mark.parametrize("location", ["/y", "y", "../../y", "?x", ""])
def test_where_nothing_is_mapped_relative_references_stay(location: str) -> None:
    upstreams = table("http://a.example")
    assert upstreams.map_back(location.encode(), upstreams.all[0], b"/x") == location.encode()


def test_of_two_that_stand_for_the_same_the_one_in_use_is_preferred() -> None:
    upstreams = table("/a=http://x.example", "/b=http://x.example", "/c=http://x.example/deep")
    for at in (b"/a", b"/b"):
        assert upstreams.map_back(b"http://x.example/y", upstreams.find(at), b"/") == at + b"/y"
        assert upstreams.map_back(b"http://x.example/deep/y", upstreams.find(at), b"/") == b"/c/y"


@pytest.mark.parametrize(
    ("location", "mapped"),
    [
        ("http://www.example:81/base/y", "/pypi/y"),
        ("http://WWW.example:81/base/y", "/pypi/y"),
        ("http://www.example:812/base/y", "http://www.example:812/base/y"),
        ("https://www.example:81/base/y", "/pypi/y"),  # as X-Forwarded-Proto told it
        ("ftp://www.example:81/base/y", "ftp://www.example:81/base/y"),
        ("//www.example:81/base/y", "/pypi/y"),
        ("/base/y", "/pypi/y"),
        ("/y", "http://pypi.example/y"),
        ("http://npm.example/y", "/npm/y"),
    ],
)
def test_an_upstream_that_was_told_the_clients_host(location: str, mapped: str) -> None:
    upstreams = table()
    used = upstreams.find(b"/pypi/x")
    asked_as = (b"http://www.example:81", b"https://www.example:81")
    assert upstreams.map_back(location.encode(), used, b"/base/x", asked_as) == mapped.encode()


# Over sockets.


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


def test_a_redirect_and_a_content_location_lead_back_here(house: House) -> None:
    proxy = Proxy(house, reverse=True, prefix="/base", at="/pypi")
    client = proxy.ask("/pypi/x")
    asked = proxy.asked()
    assert asked.target == b"/base/x"
    asked.answer(b"", f"Location: http://{proxy.authority}/base/y", "Content-Location: /base/z", status="302 Found")
    answer = client.answer()
    assert (answer.fields[b"location"], answer.fields[b"content-location"]) == (b"/pypi/y", b"/pypi/z")


@pytest.mark.parametrize(("scheme", "mapped"), [("https", b"/pypi/y"), ("http", None)])
def test_an_upstream_that_was_told_the_clients_host_and_scheme(house: House, scheme: str, mapped: bytes | None) -> None:
    """Sent from http to https, the client has to leave: mapped back, it would be led here for ever."""
    proxy = Proxy(house, reverse=True, prefix="/base", at="/pypi", preserve_host=True, trust="127.0.0.0/8")
    client = proxy.ask("/pypi/x", f"X-Forwarded-Proto: {scheme}", "X-Forwarded-Host: www.example")
    asked = proxy.asked()
    assert asked.fields[b"host"] == b"www.example"
    asked.answer(b"", "Location: https://www.example/base/y", status="302 Found")
    assert client.answer().fields[b"location"] == (mapped or b"https://www.example/base/y")


def test_two_origins_share_a_listener(house: House) -> None:
    one, other = Proxy(house, reverse=True, at="/one"), Proxy(house, reverse=True, at="/other")
    upstreams = [*one.forwarding.upstreams.all, *other.forwarding.upstreams.all]  # type: ignore[union-attr]
    one.forwarding = Forwarding(one.pool, upstreams)
    one.handling.answer = one.forwarding.handle
    client = one.connect()
    client.send(b"".join(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path for path in (b"/one/x", b"/other/y", b"/none")))
    asked = one.asked()
    assert (asked.target, asked.fields[b"host"]) == (b"/x", one.authority.encode())
    asked.answer(b"from one")
    asked = other.asked()
    assert (asked.target, asked.fields[b"host"]) == (b"/y", other.authority.encode())
    asked.answer(b"from the other")
    assert [client.answer().body for _ in range(2)] == [b"from one", b"from the other"]
    assert client.answer().status == 404


def test_what_climbs_reaches_nobody(house: House) -> None:
    proxy = Proxy(house, reverse=True, prefix="/base", at="/pypi")
    client = proxy.ask("/pypi/%2e%2e/secret")
    assert client.answer().status == 400
    proxy.not_asked()
    client.send(proxy.get("/pypi/x"))
    proxy.asked().answer(b"hi")
    assert client.answer().body == b"hi"
