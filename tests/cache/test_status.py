"""Cache-Status as RFC 9211 and RFC 9651 write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.status import forward_status, hit_status, sf_string, stale_status, with_key
from reactor.http.structured import Item, parse_list


def test_a_hit() -> None:
    assert hit_status(b"reactor", 376) == b"reactor; hit; ttl=376"
    assert hit_status(b"reactor", -412) == b"reactor; hit; ttl=-412"
    assert stale_status(b"reactor", -412, "stale-if-error") == b"reactor; hit; ttl=-412; detail=stale-if-error"


def test_what_went_forward() -> None:
    assert forward_status(b"reactor", "uri-miss") == b"reactor; fwd=uri-miss"
    assert forward_status(b"reactor", "stale", 304) == b"reactor; fwd=stale; fwd-status=304"
    assert forward_status(b"reactor", "uri-miss", collapsed=True) == b"reactor; fwd=uri-miss; collapsed"
    assert forward_status(b"reactor", "uri-miss", in_vain=True) == b"reactor; fwd=uri-miss; collapsed=?0"
    assert forward_status(b"reactor", "uri-miss", stored=True, ttl=0) == b"reactor; fwd=uri-miss; stored; ttl=0"
    everything = forward_status(
        b"reactor", "vary-miss", 200, stored=True, collapsed=True, ttl=-5, detail="stale-if-error"
    )
    assert everything == b"reactor; fwd=vary-miss; fwd-status=200; stored; collapsed; ttl=-5; detail=stale-if-error"
    assert with_key(b"reactor; hit", b'http://a/?"') == b'reactor; hit; key="http://a/?\\""'


@pytest.mark.parametrize(
    "value, text",
    [(b"", b'""'), (b"a b", b'"a b"'), (b'a"b', b'"a\\"b"'), (b"a\\b", b'"a\\\\b"'), (b"\xe9\x00\x7f~", b'"???~"')],
)
def test_strings(value: bytes, text: bytes) -> None:
    assert sf_string(value) == text


@given(st.binary(max_size=30))
def test_whatever_is_in_it_it_is_one_member(key: bytes) -> None:
    [member] = parse_list(with_key(forward_status(b"reactor", "request", 304, True, True, 5, "grace"), key))
    assert isinstance(member, Item) and member.value == "reactor"
    assert list(member.parameters) == ["fwd", "fwd-status", "stored", "collapsed", "ttl", "detail", "key"]
    assert member.parameters["key"] == "".join(chr(octet) if 32 <= octet < 127 else "?" for octet in key)
