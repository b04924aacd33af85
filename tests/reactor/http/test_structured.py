"""Structured fields: the examples of RFC 9651 and RFC 9211, what is refused, and the way there and back."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.errors import ProtocolError
from reactor.http.structured import (
    Date,
    DisplayString,
    InnerList,
    Item,
    Token,
    parse_dictionary,
    parse_item,
    parse_list,
    serialize_dictionary,
    serialize_item,
    serialize_list,
)
from tests.strategies import thorough


def words(*names: str) -> list[Item]:
    return [Item(Token(name)) for name in names]


@pytest.mark.parametrize(
    ("value", "members"),
    [
        (b"", []),
        (b"   ", []),
        (b"sugar, tea, rum", words("sugar", "tea", "rum")),
        (b"sugar,tea\t,\t rum  ", words("sugar", "tea", "rum")),
        (b"sugar, sugar", words("sugar", "sugar")),
        (
            b'("foo" "bar"), ("baz"), ("bat" "one"), ()',
            [
                InnerList([Item("foo"), Item("bar")]),
                InnerList([Item("baz")]),
                InnerList([Item("bat"), Item("one")]),
                InnerList([]),
            ],
        ),
        (
            b'("foo"; a=1;b=2);lvl=5, ("bar" "baz");lvl=1',
            [InnerList([Item("foo", {"a": 1, "b": 2})], {"lvl": 5}), InnerList([Item("bar"), Item("baz")], {"lvl": 1})],
        ),
        (b"(  a  b  )", [InnerList(words("a", "b"))]),
        (
            b'abc;a=1;b=2; cde_456, (ghi;jk=4 l);q="9";r=w',
            [
                Item(Token("abc"), {"a": 1, "b": 2, "cde_456": True}),
                InnerList([Item(Token("ghi"), {"jk": 4}), Item(Token("l"))], {"q": "9", "r": Token("w")}),
            ],
        ),
    ],
)
def test_lists(value, members):
    assert parse_list(value) == members
    assert parse_list(serialize_list(members)) == members


@pytest.mark.parametrize(
    ("value", "members"),
    [
        (b"", {}),
        (b'en="Applepie", da=:w4ZibGV0w6ZydGU=:', {"en": Item("Applepie"), "da": Item("Æbletærte".encode())}),
        (b"a=?0, b, c; foo=bar", {"a": Item(False), "b": Item(True), "c": Item(True, {"foo": Token("bar")})}),
        (b"rating=1.5, feelings=(joy sadness)",
        {"rating": Item(Decimal("1.5")), "feelings": InnerList(words("joy", "sadness"))}),
        (b"a=(1 2), b=3, c=4;aa=bb, d=(5 6);valid", {
            "a": InnerList([Item(1), Item(2)]), "b": Item(3), "c": Item(4, {"aa": Token("bb")}),
            "d": InnerList([Item(5), Item(6)], {"valid": True}),
        }),
        (b"a=1,b=2,a=3", {"a": Item(3), "b": Item(2)}),
        (b"a=1;x=1;x=2", {"a": Item(1, {"x": 2})}),
        (b"max-age=600, must-revalidate, *x=1", {"max-age": Item(600), "must-revalidate": Item(True), "*x": Item(1)}),
    ],
)  # fmt: skip
def test_dictionaries(value, members):
    found = parse_dictionary(value)
    assert found == members and list(found) == list(members)
    assert parse_dictionary(serialize_dictionary(members)) == members


@pytest.mark.parametrize(
    ("value", "item"),
    [
        (b"5", Item(5)),
        (b"  5  ", Item(5)),
        (b"5; foo=bar", Item(5, {"foo": Token("bar")})),
        (b"42", Item(42)),
        (b"-0", Item(0)),
        (b"00", Item(0)),
        (b"999999999999999", Item(999999999999999)),
        (b"-999999999999999", Item(-999999999999999)),
        (b"4.5", Item(Decimal("4.5"))),
        (b"-123456789012.125", Item(Decimal("-123456789012.125"))),
        (b"0.0", Item(Decimal("0.0"))),
        (b'"hello world"', Item("hello world")),
        (b'"a\\"b\\\\c"', Item('a"b\\c')),
        (b'""', Item("")),
        (b"foo123/456", Item(Token("foo123/456"))),
        (b"*:a!", Item(Token("*:a!"))),
        (b":cHJldGVuZCB0aGlzIGlzIGJpbmFyeSBjb250ZW50Lg==:", Item(b"pretend this is binary content.")),
        (b":aGVsbG8:", Item(b"hello")),
        (b"::", Item(b"")),
        (b"?1", Item(True)),
        (b"?0;a=?0", Item(False, {"a": False})),
        (b"@1659578233", Item(Date(1659578233))),
        (b"@-1", Item(Date(-1))),
        (b'%"This is intended for display to %c3%bcsers."', Item(DisplayString("This is intended for display to üsers."))),
    ],
)
def test_items(value, item):
    found = parse_item(value)
    assert found == item and type(found.value) is type(item.value)
    again = parse_item(serialize_item(item))
    assert again == item and type(again.value) is type(item.value)


def test_cache_status():
    value = (
        b'OriginCache; hit; ttl=1100, "CDN Company Here"; fwd=uri-miss; fwd-status=304; stored; collapsed=?0; key="a b"; '
        b"detail=x"
    )
    near, far = parse_list(value)
    assert near == Item(Token("OriginCache"), {"hit": True, "ttl": 1100})
    assert (
        far.parameters["fwd"] == Token("uri-miss")
        and far.parameters["stored"] is True
        and far.parameters["collapsed"] is False
    )
    assert serialize_list([near]) == b"OriginCache;hit;ttl=1100"
    assert serialize_list([near, far]) == (
        b'OriginCache;hit;ttl=1100, "CDN Company Here";fwd=uri-miss;fwd-status=304;stored;collapsed=?0;key="a b";detail=x'
    )


@pytest.mark.parametrize(
    "value",
    [
        b"", b" ", b"\t1", b"1\t", b"1,2", b"1 2", b"-", b"--1", b"+1", b"1.", b".5", b"-.5", b"1.1234", b"1.2.3", b"1e5",
        b"1_0", b"1234567890123456",
        b"1234567890123.0", b"\xb2", b"\xd9\xa1", b'"', b'"a', b"a\"", b'"\\a"', b'"\\"', b'"a\x7f"', b'"\xc3\xa9"',
        b'"a\nb"', b"'a'", b"a\xe9", b"a b",
        b"a,", b"?", b"?2", b"?true", b"?10", b":", b":a:", b":a b=:", b":YQ==", b":YQ===:", b":Y=Q=:", b":_-8=:", b"@",
        b"@1.5", b"@ 1", b"@a", b"%a",
        b'%"%C3%BC"', b'%"%c3"', b'%"%"', b'%"\xc3\xbc"', b"1;", b"1;A", b"1;1", b"1;a=", b"1;a =1", b"1 ;a", b"1;a= 1",
        b"1;\ta", b"(a)", b"{}", b"=1", b"!a",
    ],
)  # fmt: skip
def test_what_is_no_item(value):
    with pytest.raises(ProtocolError):
        parse_item(value)


@pytest.mark.parametrize(
    "value",
    [
        b",",
        b"a,",
        b"a, ",
        b",a",
        b"a,,b",
        b"a b",
        b"(",
        b"(a",
        b"a)",
        b"(a,b)",
        b"(a;)",
        b"((a))",
        b"(a)b",
        b"(\ta)",
        b"(a\tb)",
        b'("a""b")',
        b"(a b",
        b"\ta",
    ],
)
def test_what_is_no_list(value):
    with pytest.raises(ProtocolError):
        parse_list(value)


@pytest.mark.parametrize(
    "value",
    [
        b",",
        b"a=",
        b"a=,b",
        b"a=1,",
        b"A=1",
        b"1=a",
        b"a =1",
        b"a= 1",
        b"=1",
        b"a=1 b=2",
        b"a==1",
        b'"a"=1',
        b"a-B=1",
        b"a=(",
        b"-a",
    ],
)
def test_what_is_no_dictionary(value):
    with pytest.raises(ProtocolError):
        parse_dictionary(value)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Decimal("1"), b"1.0"), (Decimal("1.10"), b"1.1"), (Decimal("0.0005"), b"0.0"), (Decimal("0.0015"), b"0.002"),
        (Decimal("-0.0001"), b"0.0"),
        (Decimal("-1.2345"), b"-1.234"), (Decimal("1E+3"), b"1000.0"), (True, b"?1"), (Date(0), b"@0"),
        (DisplayString('ü%"'), b'%"%c3%bc%25%22"'),
    ],
)  # fmt: skip
def test_canonical_forms(value, written):
    assert serialize_item(Item(value)) == written


@pytest.mark.parametrize(
    "value",
    [
        10**15, -(10**15), Date(10**15), Decimal(10**12), Decimal("999999999999.9996"), Decimal("NaN"),
        Decimal("Infinity"), "é", "a\n", "\x7f",
        Token(""), Token("1a"), Token("a b"), Token("é"), 1.5, None,
    ],
)  # fmt: skip
def test_what_cannot_be_written(value):
    with pytest.raises(ValueError, match="structured field"):
        serialize_item(Item(value))
    with pytest.raises(ValueError, match="structured field"):
        serialize_list([Item(1, {"a": value})])


@pytest.mark.parametrize("key", ["", "A", "1", "a b", "é", "a=", "-a"])
def test_what_is_no_key(key):
    with pytest.raises(ValueError, match="key"):
        serialize_dictionary({key: Item(1)})


ASCII = "".join(map(chr, range(0x20, 0x7F)))
keys = st.builds(str.__add__, st.sampled_from("abz*"), st.text("abz019_-.*", max_size=5))
tokens = st.builds(lambda a, b: Token(a + b), st.sampled_from("aZ*"), st.text("aZ09!#$%&'*+-.^_`|~:/", max_size=6))
bare_items = st.one_of(
    st.booleans(),
    st.integers(-999999999999999, 999999999999999),
    st.decimals(-999999999999, 999999999999, places=3),
    st.text(ASCII, max_size=8),
    tokens,
    st.binary(max_size=8),
    st.integers(-(10**12), 10**12).map(Date),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(DisplayString),
)
parameters = st.dictionaries(keys, bare_items, max_size=3)
items = st.builds(Item, bare_items, parameters)
members = st.one_of(items, st.builds(InnerList, st.lists(items, max_size=3), parameters))


@thorough
@given(items, st.lists(members, max_size=4), st.dictionaries(keys, members, max_size=4))
def test_what_is_written_is_read(item, some, named):
    for value, parse, serialize in (
        (item, parse_item, serialize_item), (some, parse_list, serialize_list),
        (named, parse_dictionary, serialize_dictionary),
    ):  # fmt: skip
        written = serialize(value)
        found = parse(written)
        assert found == value
        assert serialize(found) == written, "types are kept, too"


@thorough
@given(st.one_of(st.binary(max_size=20), st.text('ab1.-"\\ ,;=()?@:%*\t', max_size=20).map(str.encode)))
def test_any_bytes_are_read_or_refused(value):
    for parse, serialize in (
        (parse_item, serialize_item),
        (parse_list, serialize_list),
        (parse_dictionary, serialize_dictionary),
    ):
        try:
            found = parse(value)
        except ProtocolError:
            continue
        assert parse(serialize(found)) == found
