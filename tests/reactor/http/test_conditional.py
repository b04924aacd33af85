"""Preconditions: the rules one by one, and all of them against a model that reads like the RFC."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.http.conditional import entity_tags, evaluate, if_range, not_modified, strong_match, weak_match
from reactor.http.dates import format_date
from reactor.http.fields import Fields
from tests.strategies import thorough

NOW = 1_700_000_000
CHANGED = NOW - 3600
TAG = b'"abc"'


def date(seconds: int) -> bytes:
    return format_date(seconds)


def ask(method: bytes, *fields: tuple[bytes, bytes], etag: bytes | None = TAG, changed: int | None = CHANGED) -> int | None:
    return evaluate(method, Fields(fields), etag, changed, NOW)


@pytest.mark.parametrize(
    ("one", "other", "strong", "weak"),
    [  # RFC 9110 section 8.8.3.2, the table
        (b'W/"1"', b'W/"1"', False, True),
        (b'W/"1"', b'W/"2"', False, False),
        (b'W/"1"', b'"1"', False, True),
        (b'"1"', b'"1"', True, True),
    ],
)
def test_comparison_of_entity_tags(one: bytes, other: bytes, strong: bool, weak: bool) -> None:
    assert strong_match(one, other) is strong
    assert weak_match(one, other) is weak


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        (b'"a"', [b'"a"']),
        (b'"a", W/"b" ,"c"', [b'"a"', b'W/"b"', b'"c"']),
        (b'"a,b", "c"', [b'"a,b"', b'"c"']),
        (b'""', [b'""']),
        (b',,"a",', [b'"a"']),
        (b'w/"a"', []),  # the W is case-sensitive
        (b"abc", []),
        (b'"a" "b"', []),
        (b'"a", b, "c"', [b'"a"']),
        (b'"a b"', []),
        (b"", []),
    ],
)
def test_lists_of_entity_tags(value: bytes, tags: list[bytes]) -> None:
    assert entity_tags(value) == tags


@pytest.mark.parametrize(
    ("value", "answer"),
    [(TAG, None), (b"*", None), (b'"x", "abc"', None), (b'"x"', 412), (b'W/"abc"', 412), (b"abc", 412), (b"", 412)],
)
def test_if_match(value: bytes, answer: int | None) -> None:
    assert ask(b"GET", (b"If-Match", value)) == answer
    assert ask(b"PUT", (b"If-Match", value)) == answer


@pytest.mark.parametrize(
    ("value", "get", "put"),
    [
        (TAG, 304, 412),
        (b'W/"abc"', 304, 412),
        (b"*", 304, 412),
        (b'"x"', None, None),
        (b'"x", "abc"', 304, 412),
        (b"abc", None, None),
    ],
)
def test_if_none_match(value: bytes, get: int | None, put: int | None) -> None:
    assert ask(b"GET", (b"If-None-Match", value)) == get
    assert ask(b"HEAD", (b"If-None-Match", value)) == get
    assert ask(b"PUT", (b"If-None-Match", value)) == put


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (date(CHANGED), 304),
        (date(CHANGED + 1), 304),
        (date(CHANGED - 1), None),
        (b"yesterday", None),
        (date(CHANGED) + b", " + date(CHANGED), None),
    ],
)
def test_if_modified_since(value: bytes, answer: int | None) -> None:
    assert ask(b"GET", (b"If-Modified-Since", value)) == answer
    assert ask(b"POST", (b"If-Modified-Since", value)) is None
    assert ask(b"GET", (b"If-Modified-Since", value), changed=None) is None


@pytest.mark.parametrize(
    ("value", "answer"), [(date(CHANGED), None), (date(CHANGED + 1), None), (date(CHANGED - 1), 412), (b"yesterday", None)]
)
def test_if_unmodified_since(value: bytes, answer: int | None) -> None:
    assert ask(b"GET", (b"If-Unmodified-Since", value)) == answer
    assert ask(b"DELETE", (b"If-Unmodified-Since", value)) == answer
    assert ask(b"GET", (b"If-Unmodified-Since", value), changed=None) is None


def test_a_tag_goes_before_a_date() -> None:
    assert ask(b"GET", (b"If-None-Match", b'"x"'), (b"If-Modified-Since", date(NOW))) is None
    assert ask(b"GET", (b"If-Match", TAG), (b"If-Unmodified-Since", date(0))) is None


def test_match_goes_before_none_match() -> None:
    assert ask(b"GET", (b"If-Match", b'"x"'), (b"If-None-Match", TAG)) == 412
    assert ask(b"GET", (b"If-Match", TAG), (b"If-None-Match", TAG)) == 304
    assert ask(b"GET", (b"If-Unmodified-Since", date(NOW)), (b"If-None-Match", TAG)) == 304


@pytest.mark.parametrize("method", [b"OPTIONS", b"TRACE", b"CONNECT"])
def test_methods_without_preconditions(method: bytes) -> None:
    assert ask(method, (b"If-Match", b'"x"'), (b"If-None-Match", b"*")) is None


def test_what_a_cache_looks_at() -> None:
    assert not_modified(b"GET", Fields([(b"If-None-Match", TAG), (b"If-Match", b'"x"')]), TAG, None, NOW)
    assert not not_modified(b"GET", Fields([(b"If-Match", b'"x"')]), TAG, None, NOW)


@pytest.mark.parametrize(
    ("value", "etag", "changed", "honoured"),
    [
        (None, TAG, CHANGED, True),
        (TAG, TAG, CHANGED, True),
        (b'"x"', TAG, CHANGED, False),
        (b'W/"abc"', b'W/"abc"', CHANGED, False),  # only strong validators tell byte from byte
        (TAG, b'W/"abc"', CHANGED, False),
        (TAG, None, CHANGED, False),
        (date(CHANGED), TAG, CHANGED, True),
        (date(CHANGED + 1), TAG, CHANGED, False),  # an exact match, not "since"
        (date(CHANGED - 1), TAG, CHANGED, False),
        (date(CHANGED), TAG, None, False),
        (date(NOW), TAG, NOW, False),  # it could still change within this second
        (date(NOW - 1), TAG, NOW - 1, True),
        (b"abc", TAG, CHANGED, False),
        (b'"abc", "x"', TAG, CHANGED, False),
    ],
)
def test_if_range(value: bytes | None, etag: bytes | None, changed: int | None, honoured: bool) -> None:
    fields = Fields() if value is None else Fields([(b"If-Range", value)])
    assert if_range(fields, etag, changed, NOW) is honoured


Tags = list[str] | str | None  # a str is "*"
Time = int | None


def _model(
    method: str, match: Tags, none_match: Tags, unmodified: Time, modified: Time, etag: str | None, changed: Time
) -> int | None:  # fmt: skip
    """RFC 9110 section 13.2.2, step by step."""
    safe = method in ("GET", "HEAD")

    def opaque(tag: str) -> str:
        return tag.removeprefix("W/")

    if match is not None:
        if match != "*" and not any(tag == etag and not tag.startswith("W/") for tag in match):
            return 412
    elif unmodified is not None and changed is not None and changed > unmodified:
        return 412
    if none_match is not None:
        if none_match == "*" or (etag is not None and any(opaque(tag) == opaque(etag) for tag in none_match)):
            return 304 if safe else 412
    elif modified is not None and safe and changed is not None and changed <= modified:
        return 304
    return None


tags = st.sampled_from(['"a"', '"b"', 'W/"a"', '"a,b"', '""'])
tag_lists = st.one_of(st.none(), st.just("*"), st.lists(tags, min_size=1, max_size=3))
times = st.one_of(st.none(), st.integers(CHANGED - 2, CHANGED + 2))


@thorough
@given(
    st.sampled_from(["GET", "HEAD", "PUT", "DELETE"]), tag_lists, tag_lists, times, times, st.one_of(st.none(), tags), times
)
def test_all_together_against_the_model(
    method: str, match: Tags, none_match: Tags, unmodified: Time, modified: Time, etag: str | None, changed: Time
) -> None:  # fmt: skip
    fields = Fields()
    for name, wanted in ((b"If-Match", match), (b"If-None-Match", none_match)):
        if wanted is not None:
            fields.add(name, wanted if isinstance(wanted, str) else " , ".join(wanted))
    for name, seconds in ((b"If-Unmodified-Since", unmodified), (b"If-Modified-Since", modified)):
        if seconds is not None:
            fields.add(name, date(seconds))
    found = evaluate(method.encode(), fields, None if etag is None else etag.encode(), changed, NOW)
    assert found == _model(method, match, none_match, unmodified, modified, etag, changed)


@thorough
@given(st.binary(max_size=30))
def test_any_value_gives_an_answer(value: bytes) -> None:
    printable = bytes(octet for octet in value if octet in b"\t" or 0x20 <= octet < 0x7F or octet >= 0x80)
    for name in (b"If-Match", b"If-None-Match", b"If-Modified-Since", b"If-Unmodified-Since", b"If-Range"):
        fields = Fields([(name, printable)])
        assert evaluate(b"GET", fields, TAG, CHANGED, NOW) in (None, 304, 412)
        assert if_range(fields, TAG, CHANGED, NOW) in (True, False)
