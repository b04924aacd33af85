"""Redirects against a plain reading of RFC 9110 section 15.4 and of the Fetch standard's HTTP-redirect fetch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.errors import ProtocolError
from reactor.http.fields import Fields
from reactor.http.redirects import OF_THE_BODY, OF_THE_ORIGIN, STATUSES, after, carry_on, resolve

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY"]
ORIGINS = ["http://a", "http://a:80", "http://A", "http://a:8080", "http://b", "https://a", "https://a:443", "http://[::1]"]


def model_method(status: int, method: str) -> str:
    if status == 303 and method not in ("GET", "HEAD"):
        return "GET"
    if status in (301, 302) and method == "POST":
        return "GET"
    return method


def same(one: str, other: str) -> bool:
    normal = {"http://a:80": "http://a", "http://A": "http://a", "https://a:443": "https://a"}
    return normal.get(one, one) == normal.get(other, other)


@given(st.sampled_from(sorted(STATUSES)), st.sampled_from(METHODS), st.sampled_from(ORIGINS), st.sampled_from(ORIGINS))
def test_methods_bodies_and_credentials(status: int, method: str, here: str, there: str) -> None:
    fields = Fields([(name, b"x") for name in (*OF_THE_BODY, *OF_THE_ORIGIN, b"accept", b"x-mine")])
    step = after(status, here + "/p", method.encode(), there + "/q?r")
    assert step.method == model_method(status, method).encode()
    assert step.with_body == (step.method == method.encode())
    assert step.same_origin == same(here, there)
    left = {name.lower() for name, _ in carry_on(fields, step)}
    wanted = {b"accept", b"x-mine"}
    wanted |= set(OF_THE_BODY) if step.with_body else set()
    wanted |= set(OF_THE_ORIGIN) if same(here, there) else set()
    assert left == wanted
    assert len(fields) == len(OF_THE_BODY) + len(OF_THE_ORIGIN) + 2, "the request that was made is left alone"


@pytest.mark.parametrize(
    ("location", "where"),
    [
        (b"/x", "http://a/x"),
        (b"x", "http://a/b/x"),
        (b"../x?y", "http://a/x?y"),
        (b"../../../x", "http://a/x"),
        (b"?y", "http://a/b/c?y"),
        (b"", "http://a/b/c?d"),
        (b"//b/x", "http://b/x"),
        (b"https://b:8/", "https://b:8/"),
        (b"/a b", "http://a/a%20b"),
        (b"/\xc3\xa4\xff", "http://a/%C3%A4%FF"),
        (b"/100%", "http://a/100%25"),
        (b"/%41%zz", "http://a/%41%25zz"),
    ],
)
def test_where_a_location_leads(location: bytes, where: str) -> None:
    assert resolve("http://a/b/c?d", location) == where


def test_fragments_are_inherited() -> None:
    assert resolve("http://a/b#one", b"/c") == "http://a/c#one"
    assert resolve("http://a/b#one", b"/c#two") == "http://a/c#two"


@pytest.mark.parametrize("location", [b"/a\tb", b"/\x00", b"/\x7f", b"http://[::1", b"http:///c", b"HTTPS:c", b"http://?"])
def test_where_none_leads(location: bytes) -> None:
    with pytest.raises(ProtocolError):
        resolve("http://a/", location)


@given(st.binary(max_size=40))
def test_whatever_a_location_says(location: bytes) -> None:
    try:
        where = resolve("http://a/b", location)
    except ProtocolError:
        return
    assert where.isascii() and where.isprintable() and " " not in where
