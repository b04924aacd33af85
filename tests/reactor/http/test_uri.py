"""Authorities, origins and absolute targets: what RFC 9110 section 4 equates, and nothing more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.errors import ProtocolError
from reactor.http import uri
from reactor.http.uri import Origin, origin_of, split_absolute, split_authority
from tests.strategies import thorough


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [
        (b"example.com", b"example.com", None),
        (b"EXAMPLE.com:8080", b"example.com", 8080),
        (b"example.com:", b"example.com", None),
        (b"example.com:080", b"example.com", 80),
        (b"example.com:65535", b"example.com", 65535),
        (b"127.0.0.1:1", b"127.0.0.1", 1),
        (b"[::1]", b"[::1]", None),
        (b"[2001:DB8::A]:443", b"[2001:db8::a]", 443),
        (b"[::ffff:127.0.0.1]:1", b"[::ffff:127.0.0.1]", 1),
        (b"a_b-c~d!$&'()*+,;=%C3%a9", b"a_b-c~d!$&'()*+,;=%c3%a9", None),
        (b"", b"", None),
    ],
)
def test_split_authority(authority, host, port):
    assert split_authority(authority) == (host, port)


@pytest.mark.parametrize(
    "authority",
    [
        b"user@example.com", b"a:b@c", b":80", b":", b"a:65536", b"a:-1", b"a:+1", b"a:1_0", b"a:000080", b"a:8 0",
        b"a:\xb2", b"a:80\n",
        b"a b", b" a", b"a/", b"a?b", b"a#b", b"a\\b", b"a%", b"a%2", b"a%zz", b"\xc3\xa9", b"a\0", b"a,b c", b"::1",
        b"[::1", b"::1]", b"[]",
        b"[::1]a", b"[::1]:a", b"[1.2.3.4]", b"[::1%25eth0]", b"[fe80::1%eth0]", b"[:::1]", b"[v1.a]", b"[g::]",
        b"[::1][::1]", b'"a"', b"<a>",
    ],
)  # fmt: skip
def test_what_is_no_authority(authority):
    with pytest.raises(ProtocolError):
        split_authority(authority)


def test_origins_equate_case_and_default_port():
    assert origin_of(b"http", b"Example.COM") == origin_of(b"http", b"example.com:80") == Origin(b"http", b"example.com", 80)
    assert origin_of(b"https", b"example.com:") == Origin(b"https", b"example.com", 443)
    assert origin_of(b"http", b"example.com") != origin_of(b"https", b"example.com")
    assert origin_of(b"http", b"example.com.") != origin_of(b"http", b"example.com"), "only what section 4.2.3 names"


def test_an_origin_as_text():
    assert str(origin_of(b"http", b"A:80")) == "http://a"
    assert bytes(origin_of(b"https", b"[::1]:8443")) == b"https://[::1]:8443"
    assert origin_of(b"http", b"[::1]").connect_host == "::1"
    assert origin_of(b"http", b"a:443").authority == b"a:443"


@pytest.mark.parametrize(("scheme", "authority"), [(b"ftp", b"a"), (b"http", b""), (b"http", b"u@a")])
def test_what_is_no_origin(scheme, authority):
    with pytest.raises(ProtocolError):
        origin_of(scheme, authority)


def test_an_unknown_scheme_with_a_port_is_an_origin():
    assert origin_of(b"ftp", b"a:21") == Origin(b"ftp", b"a", 21)


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"http://a/b?c", (b"http", b"a", b"/b?c")),
        (b"HTTPS://A:1", (b"https", b"A:1", b"/")),
        (b"http://a?c/d", (b"http", b"a", b"/?c/d")),
        (b"http://a/%41/../b//", (b"http", b"a", b"/%41/../b//")),
        (b"x-1.+://a", (b"x-1.+", b"a", b"/")),
        (b"http:///b", (b"http", b"", b"/b")),
    ],
)
def test_split_absolute(target, parts):
    assert split_absolute(target) == parts


@pytest.mark.parametrize(
    "target",
    [b"", b"/", b"a", b"http:", b"http:/a", b"://a", b"1http://a", b"http//a", b"http://a#b", b"http://a/#", b" http://a"],
)
def test_what_is_no_absolute_target(target):
    with pytest.raises(ProtocolError):
        split_absolute(target)


@thorough
@given(st.one_of(st.binary(max_size=24), st.text("ab.:[]%@09/ ,f", max_size=16).map(str.encode)))
def test_an_accepted_authority_is_itself_again(authority):
    try:
        host, port = split_authority(authority)
    except ProtocolError:
        return
    spelled = host if port is None else b"%b:%d" % (host, port)
    assert split_authority(spelled) == (host, port)
    assert not set(b"@/?#\\ \t\r\n\0") & set(host)


def test_the_memo_is_bounded():
    for number in range(2 * uri.MEMO_AUTHORITIES):
        split_authority(b"host-%d" % number)
    for length in (uri.MEMO_AUTHORITY_LENGTH, uri.MEMO_AUTHORITY_LENGTH + 1):
        split_authority(b"a" * length)
    assert len(uri._authorities) <= uri.MEMO_AUTHORITIES
    assert max(map(len, uri._authorities)) == uri.MEMO_AUTHORITY_LENGTH
