"""The keys responses are stored under: RFC 9111 sections 2 and 4.1, RFC 9110 section 4.2.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import key as key_module
from cache.key import MEMO_SELECTING_LENGTH, VARY_NAMES, normalize, primary_key, secondary_key, vary_names
from cache.lists import list_members
from reactor.errors import ProtocolError
from reactor.http.fields import Fields


@pytest.mark.parametrize(
    "scheme, authority, path, key",
    [
        (b"http", b"example.com", b"/", b"http://example.com/"),
        (b"http", b"EXAMPLE.com", b"/A?b=C", b"http://example.com/A?b=C"),
        (b"http", b"example.com:80", b"/", b"http://example.com/"),
        (b"http", b"example.com:", b"/", b"http://example.com/"),
        (b"http", b"example.com:8080", b"/", b"http://example.com:8080/"),
        (b"https", b"example.com:443", b"/", b"https://example.com/"),
        (b"https", b"example.com:80", b"/", b"https://example.com:80/"),
        (b"http", b"[::1]:80", b"/", b"http://[::1]/"),
        # Nothing in path and query is equated: %7E and ~, /a/../b and /b may differ to an origin.
        (b"http", b"example.com", b"/%7Ea/../b", b"http://example.com/%7Ea/../b"),
    ],
)
def test_uris_that_are_equivalent_share_a_key(scheme: bytes, authority: bytes, path: bytes, key: bytes) -> None:
    assert primary_key(scheme, authority, path) == key
    assert primary_key(scheme, authority, path) == key


@pytest.mark.parametrize("authority", [b"", b"a b", b"user@example.com", b"example.com:99999"])
def test_what_has_no_origin_has_no_key(authority: bytes) -> None:
    with pytest.raises(ProtocolError):
        primary_key(b"http", authority, b"/")


def test_remembered_spellings_are_bounded() -> None:
    memo, limit = key_module._origins, key_module.MEMO_ORIGINS
    memo.clear()
    for number in range(limit):
        primary_key(b"http", b"h%d.example" % number, b"/")
    assert len(memo) == limit
    primary_key(b"http", b"one.more.example", b"/")
    assert len(memo) == 1, "at the limit it starts anew"
    for length, remembered in ((key_module.MEMO_VALUE_LENGTH, True), (key_module.MEMO_VALUE_LENGTH + 1, False)):
        authority = b"a" * length
        assert primary_key(b"http", authority, b"/") == b"http://" + authority + b"/"
        assert ((b"http", authority) in memo) is remembered


@pytest.mark.parametrize(
    "value, names",
    [
        (b"Accept-Encoding", (b"accept-encoding",)),
        (b"Foo, accept-ENCODING ,\tBar", (b"accept-encoding", b"bar", b"foo")),
        (b"Foo, foo", (b"foo",)),
        (b"", ()),
        (b" , ,", ()),
        # RFC 9110 section 12.5.5: a member `*`, wherever it stands.
        (b"*", None),
        (b"*, *", None),
        (b"Foo, *", None),
        (b", *", None),
        (b"*, Foo", None),
        # What is no field name cannot be compared.
        (b"Accept Encoding", None),
        (b"Foo;q=1", None),
        (b'"Foo"', None),
    ],
)
def test_vary_names(value: bytes, names: tuple[bytes, ...] | None) -> None:
    assert vary_names(Fields([("Vary", value)])) == names


def test_a_vary_of_too_many_names_never_matches() -> None:
    names = [b"x%d" % number for number in range(VARY_NAMES + 1)]
    for lines, matched in ((names[1:], True), (names[1:] + names[1:], True), (names, False)):
        fields = Fields([("Vary", b",".join(lines[:20])), ("Vary", b", ".join(lines[20:]))])
        assert vary_names(fields) == (tuple(sorted(names[1:])) if matched else None)


def test_no_vary_and_several_lines_of_it() -> None:
    assert vary_names(Fields()) == ()
    assert vary_names(Fields([("Vary", "b"), ("Vary", "a")])) == (b"a", b"b")
    assert vary_names(Fields([("Vary", "a"), ("Vary", "*")])) is None


def matches(name: str, one: str | None, other: str | None) -> bool:
    names = (name.lower().encode(),)
    left = Fields([] if one is None else [(name, one)])
    right = Fields([] if other is None else [(name, other)])
    return secondary_key(names, left) == secondary_key(names, right)


@pytest.mark.parametrize(
    "name, one, other",
    [
        # Adding or removing white space.
        ("Foo", "1,2", "1, 2"),
        ("Foo", "1,2", "1 ,\t2"),
        ("Foo", '"a,b",c', '"a,b" , c'),
        # Lists of weighted tokens: case, order, and how a weight is written.
        ("Accept-Encoding", "gzip, br", "BR,gzip"),
        ("Accept-Encoding", "gzip;q=0.5", "gzip ; q=0.500"),
        ("Accept-Encoding", "gzip;q=1.0", "gzip"),
        ("Accept-Encoding", "gzip;q=0", "gzip;q=0.0"),
        ("Accept-Encoding", "gzip,,br,", "gzip, br"),
        ("Accept-Encoding", "gzip, gzip", "gzip"),
        ("Accept-Language", "en-GB, de;q=0.5", "DE;Q=0.5,EN-gb"),
        ("Accept-Language", "en, de", "de, en"),
        ("Accept-Charset", "utf-8", "UTF-8"),
    ],
)
def test_values_that_mean_the_same_match(name: str, one: str, other: str) -> None:
    assert matches(name, one, other)


@pytest.mark.parametrize(
    "name, one, other",
    [
        ("Foo", "1", "2"),
        ("Foo", "1", None),
        ("Foo", "", None),
        ("Foo", "a", "A"),
        ("Foo", "1, 2", "2, 1"),
        ("Foo", "1,,2", "1,2"),
        ("Foo", "1 2", "12"),
        ("Foo", '"a, b"', '"a,b"'),
        ("Foo", '"a, b', '"a,  b'),  # not a quoted string, but not the same either
        ("Accept-Encoding", "gzip", "br"),
        ("Accept-Encoding", "gzip", "gzip;q=0.5"),
        ("Accept-Encoding", "gzip;q=0.5", "gzip;q=0.05"),
        ("Accept-Encoding", "gzip;q=1", "gzip;q=0"),
        ("Accept-Encoding", "", None),
        # What is malformed is not rewritten.
        ("Accept-Encoding", "gzip, b r", "b r, gzip"),
        ("Accept-Encoding", "gzip;q=1;x=2, br", "br, gzip;q=1;x=2"),
        ("Accept-Encoding", "gzip;q=1, gzip;q=0", "gzip;q=0, gzip;q=1"),
        ("Accept", "text/html, */*", "*/*, text/html"),
        # In these a comma separates nothing.
        ("User-Agent", "a (b,c)", "a (b, c)"),
        ("Cookie", "a=1,2", "a=1, 2"),
    ],
)
def test_values_that_may_mean_something_else_do_not_match(name: str, one: str, other: str | None) -> None:
    assert not matches(name, one, other)
    assert not matches(name, "x" if other is None else other, None if other is None else one)


def test_lines_of_one_name_are_one_list() -> None:
    two_lines = Fields([("Foo", "1"), ("Foo", "2")])
    assert secondary_key((b"foo",), two_lines) == secondary_key((b"foo",), Fields([("Foo", "1,2")]))


def test_every_name_counts() -> None:
    names = (b"bar", b"foo")
    one = Fields([("Foo", "1"), ("Bar", "2")])
    assert secondary_key(names, one) == (b"2", b"1")
    assert secondary_key(names, Fields([("Foo", "1")])) == (None, b"1")


def test_remembered_selecting_values_are_bounded() -> None:
    names = (b"bar", b"foo")
    memo, limit = key_module._selecting, key_module.MEMO_SELECTING
    memo.clear()
    for number in range(limit):
        secondary_key(names, Fields([("Foo", b"%d" % number)]))
    assert len(memo) == limit
    secondary_key(names, Fields([("Foo", b"x")]))
    assert len(memo) == 1, "at the limit it starts anew"
    for length, remembered in ((key_module.MEMO_SELECTING_LENGTH, True), (key_module.MEMO_SELECTING_LENGTH + 1, False)):
        value = b"x" * (length - len(b"barfooy"))
        fields = Fields([("Foo", value), ("Bar", b"y")])
        assert secondary_key(names, fields) == (b"y", value)
        assert ((names, (b"y", value)) in memo) is remembered


def test_long_names_are_not_remembered() -> None:
    key_module._selecting.clear()
    secondary_key((b"x" * MEMO_SELECTING_LENGTH, b"y"), Fields([("Y", "1")]))
    assert not key_module._selecting
    secondary_key((b"x" * (MEMO_SELECTING_LENGTH - 2), b"y"), Fields([("Y", "1")]))
    assert key_module._selecting


def test_remembered_vary_values_are_bounded() -> None:
    memo, limit = key_module._vary, key_module.MEMO_VARY
    memo.clear()
    for number in range(limit):
        vary_names(Fields([("Vary", b"x%d" % number)]))
    assert len(memo) == limit
    vary_names(Fields([("Vary", b"x")]))
    assert len(memo) == 1, "at the limit it starts anew"
    for length, remembered in ((key_module.MEMO_VALUE_LENGTH, True), (key_module.MEMO_VALUE_LENGTH + 1, False)):
        assert vary_names(Fields([("Vary", b"x" * length)])) == (b"x" * length,)
        assert (b"x" * length in memo) is remembered


@given(
    st.text(' \t,"\\aB1;q=.0', max_size=30), st.sampled_from([b"foo", b"accept-encoding", b"accept-language", b"user-agent"])
)
def test_normalizing_twice_changes_nothing(text: str, name: bytes) -> None:
    value = text.strip(" \t").encode()
    once = normalize(name, value)
    assert normalize(name, once) == once


@given(st.text(' \t,"\\ab', max_size=30))
def test_a_list_split_and_joined_says_the_same(text: str) -> None:
    members = list_members(text.encode())
    assert b"".join(members).translate(None, b" \t,") == text.encode().translate(None, b" \t,")
    assert list_members(b",".join(members)) == members


@pytest.mark.parametrize(
    "value, members",
    [
        (b"", [b""]),
        (b"a", [b"a"]),
        (b"a, b ,,c,", [b"a", b"b", b"", b"c", b""]),
        (b'a="x,y" , b', [b'a="x,y"', b"b"]),
        (b'a="x\\",y", b', [b'a="x\\",y"', b"b"]),
        (b'a="x, b, c', [b'a="x', b"b", b"c"]),
        (b'"a,"b,c",d"', [b'"a,"b', b'c",d"']),
    ],
)
def test_list_members(value: bytes, members: list[bytes]) -> None:
    assert list_members(value) == members
