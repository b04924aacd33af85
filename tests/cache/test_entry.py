"""What a stored response keeps and what it has read of itself: RFC 9111 sections 3.1, 4.2.3, 5.2.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.entry import GROUPS, GROUPS_BYTES, Entry, cache_groups, content_length, entity_tag, partial_span
from cache.policy import OperatorRule, Policy
from reactor.http.fields import Fields
from tests.cache.cases import NOW, WALL, date, fields, request, stored


def names(entry: Entry) -> list[str]:
    return [name.decode() for name, _ in entry.fields]


def test_every_field_is_kept_in_order_the_unknown_ones_too() -> None:
    entry = stored(
        "Cache-Control: max-age=9 | X-Unknown: 1 | Set-Cookie: a=1 | Set-Cookie: b=2 | Date: {0} | Content-Type: text/html"
        " | Cache-Status: Other; hit | Via: 1.1 other | Server: x"
    )
    assert names(entry) == [
        "Cache-Control", "X-Unknown", "Set-Cookie", "Set-Cookie", "Date", "Content-Type", "Cache-Status", "Via", "Server",
    ]  # fmt: skip
    assert entry.fields.get_all(b"set-cookie") == [b"a=1", b"b=2"]


@pytest.mark.parametrize(
    "name",
    [
        "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Transfer-Encoding", "Upgrade", "Trailer", "Content-Length",
        "Age",
        # Section 3.1: specific to the proxy that was asked.
        "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization",
    ],
)  # fmt: skip
def test_what_belongs_to_one_connection_or_to_framing_is_not_kept(name: str) -> None:
    for spelling in (name, name.lower(), name.upper()):
        entry = stored(f"Cache-Control: max-age=9 | {spelling}: 5 | X: y | Date: {{0}}")
        assert names(entry) == ["Cache-Control", "X", "Date"]


def test_what_connection_lists_is_not_kept() -> None:
    entry = stored(
        "Cache-Control: max-age=9 | Foo: 1 | Connection: close, foo | connection: BAR | bar: 2 | Baz: 3 | Date: {0}"
    )
    assert names(entry) == ["Cache-Control", "Baz", "Date"]


@pytest.mark.parametrize("directive", ["no-cache", "private"])
def test_fields_that_a_directive_lists_are_not_kept(directive: str) -> None:
    """Sections 5.2.2.4 and 5.2.2.7: the rest may be."""
    entry = stored(
        f'Cache-Control: max-age=9, {directive}="Foo, SET-cookie" | Foo: 1 | Set-Cookie: a=1 | Bar: 2 | Date: {{0}}'
    )
    assert names(entry) == ["Cache-Control", "Bar", "Date"]
    assert entry.is_fresh(NOW) and not entry.no_cache


def test_the_response_itself_is_left_as_it_came() -> None:
    came = fields("Cache-Control: max-age=9 | Connection: close | Age: 1")
    before = list(came)
    Entry(request(), 200, None, came, NOW, NOW, WALL, Policy())
    assert list(came) == before


@pytest.mark.parametrize("lines", ["X: y", "Date: nonsense", "Date: {-5} | Date: {-6}"])
def test_a_date_is_that_of_receipt_where_there_is_none(lines: str) -> None:
    """RFC 9110 section 6.6.1: a missing one is added."""
    entry = stored(f"Cache-Control: max-age=9 | {lines}", at=NOW + 0.7)
    assert entry.date == WALL
    if "Date" not in lines:
        assert entry.fields[b"date"].decode() == date(0)


# Age and freshness as time goes by.


@pytest.mark.parametrize(
    "lines, delay, after, age, ttl",
    [
        ("Cache-Control: max-age=10 | Date: {0}", 0, 0, 0, 10),
        ("Cache-Control: max-age=10 | Date: {0}", 0, 3, 3, 7),
        ("Cache-Control: max-age=10 | Date: {0}", 0, 9.9, 9, 1),
        ("Cache-Control: max-age=10 | Date: {0}", 0, 10, 10, 0),
        ("Cache-Control: max-age=10 | Date: {0}", 0, 15, 15, -5),
        ("Cache-Control: max-age=10 | Date: {0} | Age: 4", 0, 3, 7, 3),
        ("Cache-Control: max-age=10 | Date: {-4}", 0, 3, 7, 3),
        ("Cache-Control: max-age=10 | Date: {-4} | Age: 1", 2, 3, 7, 3),
        ("Cache-Control: max-age=10 | Date: {0} | Age: 4", 2, 3, 9, 1),
        ("Cache-Control: max-age=10 | Date: {+99}", 0, 3, 3, 7),
    ],
)
def test_age_and_time_to_live(lines: str, delay: float, after: float, age: int, ttl: int) -> None:
    entry = stored(f'{lines} | ETag: "x"', delay=delay)
    assert (entry.age(NOW + after), entry.ttl(NOW + after)) == (age, ttl)
    assert entry.is_fresh(NOW + after) is (ttl > 0 or after == 9.9)


def test_fresh_until_the_lifetime_no_longer_exceeds_the_age() -> None:
    """response_is_fresh = (freshness_lifetime > current_age)"""
    entry = stored("Cache-Control: max-age=10 | Date: {0}")
    assert entry.is_fresh(NOW + 9.999) and not entry.is_fresh(NOW + 10)
    assert entry.staleness(NOW + 12) == 2


@given(
    st.integers(0, 100), st.integers(-100, 100), st.floats(0, 50), st.lists(st.floats(0, 1000), min_size=2, max_size=5)
)
def test_age_never_goes_backward(age: int, shift: int, delay: float, times: list[float]) -> None:
    entry = stored(f'Cache-Control: max-age=10 | ETag: "x" | Age: {age} | Date: {{{shift}}}', delay=delay)
    ages = [entry.current_age(NOW + after) for after in sorted(times)]
    assert ages == sorted(ages) and ages[0] >= max(age, 0)


@given(st.floats(0, 1e9), st.integers(0, 10_000))
def test_no_rounding_makes_it_younger_than_it_came(at: float, age: int) -> None:
    entry = stored(f'Cache-Control: max-age={age} | ETag: "x" | Age: {age}', at=at)
    assert entry.age(at) == age and not entry.is_fresh(at)


@pytest.mark.parametrize(
    "lines, wall, initial_age, lifetime",
    [
        # What is told in seconds holds, whatever the wall clock says; a Date is as old as that makes it.
        ("Cache-Control: max-age=10", +5000, 0, 10),
        ("Cache-Control: max-age=10", -5000, 0, 10),
        ("Cache-Control: max-age=10 | Age: 4", -5000, 4, 10),
        ("Cache-Control: max-age=10 | Date: {0}", -5000, 0, 10),
        ("Cache-Control: max-age=10 | Date: {0}", +5000, 5000, 10),
        ("Expires: {+10} | Date: {0}", -5000, 0, 10),
        ("Last-Modified: {-100} | Date: {0}", -5000, 0, 10),
    ],
)
def test_the_wall_clock_is_asked_once(lines: str, wall: float, initial_age: float, lifetime: float) -> None:
    entry = stored(f'{lines} | ETag: "x"', wall=WALL + wall)
    assert (entry.initial_age, entry.lifetime, entry.received) == (initial_age, lifetime, WALL + wall)
    assert (entry.current_age(NOW + 7), entry.fresh_until) == (initial_age + 7, NOW + lifetime - initial_age)


# Validators.


@pytest.mark.parametrize(
    "lines, etag",
    [
        ('ETag: "x"', b'"x"'),
        ('ETag: W/"x"', b'W/"x"'),
        ('ETag: ""', b'""'),
        ('ETag: "a,b"', b'"a,b"'),
        ("ETag: abc", b"abc"),  # not an entity tag, but its origin will know it again
        ("ETag: W/abc", b"W/abc"),
        ("X: y", None),
        ("ETag:", None),
        ('ETag: "x" | ETag: "y"', None),
        ("ETag: a, b", None),
        ('ETag: "x', None),
        ('ETag: x"', None),
        ("ETag: a b", None),
    ],
)
def test_entity_tags(lines: str, etag: bytes | None) -> None:
    assert entity_tag(fields(lines)) == etag


def test_modification_dates() -> None:
    assert stored("Last-Modified: {-10}").last_modified == WALL - 10
    assert stored('Last-Modified: last week | ETag: "x"').last_modified is None
    assert stored("Last-Modified: {-10}").has_validator
    assert stored('ETag: "x"').has_validator
    assert not stored("Cache-Control: max-age=9").has_validator


@pytest.mark.parametrize(
    "directives, no_cache, no_stale",
    [
        ("max-age=9", False, False),
        ("max-age=9, must-revalidate", False, True),
        ("max-age=9, proxy-revalidate", False, True),
        ("s-maxage=9", False, True),
        ("s-maxage=0", False, True),
        ("max-age=9, no-cache", True, True),
        ('max-age=9, no-cache="foo"', False, False),
        ("max-age=9, immutable, public, stale-while-revalidate=9", False, False),
    ],
)
def test_what_forbids_stale_use(directives: str, no_cache: bool, no_stale: bool) -> None:
    entry = stored(f'Cache-Control: {directives} | ETag: "x"')
    assert (entry.no_cache, entry.no_stale) == (no_cache, no_stale)


@pytest.mark.parametrize(
    "lines, method, status, plain",
    [
        ("Cache-Control: max-age=9", "GET", 200, True),
        ("Cache-Control: max-age=9", "GET", 404, True),
        ("Cache-Control: max-age=9 | Vary: Foo", "GET", 200, True),
        ("Cache-Control: max-age=9 | Content-Location: /", "POST", 200, True),
        ("Cache-Control: max-age=9", "HEAD", 200, False),
        ('Cache-Control: no-cache | ETag: "x"', "GET", 200, False),
        ("Cache-Control: max-age=9 | Content-Range: bytes 0-4/9", "GET", 206, False),
    ],
)
def test_what_may_answer_a_plain_get_at_once(lines: str, method: str, status: int, plain: bool) -> None:
    entry = stored(lines, status, request(method=method), Policy(store_partial=True))
    assert entry.plain is plain


def test_the_secondary_key_is_that_of_the_request() -> None:
    entry = stored("Cache-Control: max-age=9 | Vary: Foo, Bar", asked=request("Foo: 1,  2"))
    assert entry.vary == (b"bar", b"foo") and entry.secondary == (None, b"1,2")
    assert stored("Cache-Control: max-age=9").secondary == ()


# Parts, lengths, groups.


@pytest.mark.parametrize(
    "value, span",
    [
        ("bytes 0-4/10", (0, 5, 10)),
        ("BYTES 5-9/10", (5, 10, 10)),
        ("bytes 0-4/*", (0, 5, None)),
        ("bytes 0-0/1", (0, 1, 1)),
        ("bytes 4-3/10", None),
        ("bytes 0-10/10", None),
        ("bytes */10", None),
        ("bytes 0-4", None),
        ("items 0-4/10", None),
        ("bytes=0-4/10", None),
        ("bytes 0-4/10, bytes 5-9/10", None),
        ("bytes -4/10", None),
        ("", None),
    ],
)
def test_content_range(value: str, span: tuple[int, int, int | None] | None) -> None:
    assert partial_span(Fields([("Content-Range", value)])) == span


def test_a_part_is_kept_as_one() -> None:
    partial = Policy(store_partial=True)
    entry = stored("Cache-Control: max-age=9 | Content-Range: bytes 0-4/10", 206, policy=partial)
    assert entry.span == (0, 5, 10) and b"content-range" not in entry.fields
    whole = stored("Cache-Control: max-age=9 | Content-Range: bytes 0-4/10", 200)
    assert whole.span is None, "Content-Range says nothing in a 200 (RFC 9110 section 14.4)"


@pytest.mark.parametrize("value, length", [("5", 5), ("5, 5", 5), ("5, 6", None), ("x", None), (None, None), ("0", 0)])
def test_content_length(value: str | None, length: int | None) -> None:
    assert content_length(Fields() if value is None else Fields([("Content-Length", value)])) == length


@pytest.mark.parametrize(
    "lines, groups",
    [
        ('Cache-Groups: "a"', (b"a",)),
        ('Cache-Groups: "a", "B" | cache-groups: "c";x=1', (b"a", b"B", b"c")),
        ('Cache-Groups: "a \\"b\\""', (b'a "b"',)),
        ("X: y", ()),
        # RFC 9875 section 2: a List of Strings, and nothing else is one.
        ("Cache-Groups: a", ()),
        ('Cache-Groups: "a", b', ()),
        ('Cache-Groups: ("a" "b")', ()),
        ("Cache-Groups: 1", ()),
        ("Cache-Groups: ?1", ()),
        ('Cache-Groups: "a" "b"', ()),
        ('Cache-Groups: "a",', ()),
        ("Cache-Groups:", ()),
    ],
)
def test_cache_groups(lines: str, groups: tuple[bytes, ...]) -> None:
    assert cache_groups(fields(lines)) == groups


def test_thirty_two_groups_of_thirty_two_characters() -> None:
    """RFC 9875 section 2: at least so many must be supported."""
    groups = tuple(b"%02d" % number + b"g" * 30 for number in range(32))
    assert cache_groups(Fields([("Cache-Groups", b", ".join(b'"%b"' % group for group in groups))])) == groups


# What the operator changes.


def test_groups_are_bounded() -> None:
    groups = [b"%d" % number for number in range(GROUPS + 1)]
    long = [b"x" * (GROUPS_BYTES - 2)]
    for said, read in ((groups[1:], groups[1:]), (groups, groups[:-1]), (long, long), ([b"x" * GROUPS_BYTES], [])):
        value = b", ".join(b'"%b"' % group for group in said)
        assert cache_groups(Fields([("Cache-Groups", value)])) == tuple(read)


def test_an_operators_rule_is_kept_with_what_it_let_in() -> None:
    rule = OperatorRule(ttl=60, ignore=frozenset(("no-cache", "set-cookie")))
    entry = stored("Cache-Control: no-cache | Set-Cookie: a=1 | Date: {0}", policy=Policy(rules=(rule,)))
    assert entry.rule is rule and entry.lifetime_source == "operator" and entry.ttl(NOW) == 60
    assert not entry.no_cache and not entry.no_stale and entry.plain
    assert names(entry) == ["Cache-Control", "Date"]


def test_invalidated_it_needs_validation() -> None:
    entry = stored("Cache-Control: max-age=9")
    assert entry.plain and not entry.invalid
    entry.invalidate()
    assert entry.invalid and not entry.plain


def test_it_shows_what_it_is() -> None:
    assert repr(stored("Cache-Control: max-age=9")) == "<Entry 200 max-age=9>"
