"""Cache-Control read once: RFC 9111 sections 1.2.2, 4.2.1 and 5.2, RFC 9213."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import directives
from cache.directives import (
    DELTA_MAX,
    LISTED_FIELDS,
    NO_CONTROL,
    NO_REQUEST_CONTROL,
    RequestControl,
    ResponseControl,
    delta_seconds,
    request_control,
    response_control,
)  # fmt: skip
from reactor.http.fields import Fields


def of_response(value: str) -> ResponseControl:
    return response_control(Fields([("Cache-Control", value)]))


def of_request(value: str) -> RequestControl:
    return request_control(Fields([("Cache-Control", value)]))


@pytest.mark.parametrize(
    "text, seconds",
    [
        (b"0", 0),
        (b"5", 5),
        (b"0005", 5),
        (b"0" * 5000 + b"7", 7),
        (b"2147483647", 2**31 - 1),
        (b"2147483648", 2**31),
        (b"2147483649", 2**31),
        (b"4294967296", 2**31),
        (b"99999999999", 2**31),
        (b"9" * 10000, 2**31),
        (b"", None),
        (b"-1", None),
        (b"+5", None),
        (b"1_0", None),
        (b" 5", None),
        (b"5 ", None),
        (b"1.5", None),
        (b"1e3", None),
        (b"0x10", None),
        (b"5s", None),
        (b"\xb2", None),
        (b"5\n", None),
    ],
)
def test_delta_seconds(text: bytes, seconds: int | None) -> None:
    assert delta_seconds(text) == seconds


@pytest.mark.parametrize(
    "value, max_age",
    [
        ("max-age=5", 5),
        ("MAX-AGE=5", 5),
        ("Max-Age=5", 5),
        ("public,max-age=5,foo", 5),
        (" , max-age=5 , ,", 5),
        ('max-age="5"', 5),  # section 5.2: recipients ought to accept both forms
        ("max-age=0", 0),
        ("max-age=99999999999999", DELTA_MAX),
        # Malformed: stale (section 4.2.1).
        ("max-age", 0),
        ("max-age=", 0),
        ("max-age=-1", 0),
        ("max-age=1.5", 0),
        ("max-age=five", 0),
        ("max-age=5s", 0),
        ("max-age='5'", 0),
        ("max-age =5", 0),
        ("max-age= 5", 0),
        ("max-age=5; foo", 0),
        ("max-age:5", 0),
        ('max-age="5" x', 0),
        ('max-age="5', 0),
        ('max-age=""', 0),
        # Doubled: the most restrictive.
        ("max-age=5, max-age=5", 5),
        ("max-age=5, max-age=10", 5),
        ("max-age=10, max-age=5", 5),
        ("max-age=5, max-age=x", 0),
        ("max-age, max-age=5", 0),
        # Another directive, or part of its argument.
        ("x-max-age=5", None),
        ("max-age-x=5", None),
        ('foo="max-age=5"', None),
        ('foo="a, max-age=5"', None),
        ('foo="a\\", max-age=5"', None),
        ('foo="a, max-age=5, b="c"', 5),
        ('foo="max-age=5, max-age=7', 7),  # a quote never closed hides nothing
        ("", None),
    ],
)
def test_max_age(value: str, max_age: int | None) -> None:
    assert of_response(value).max_age == max_age


@pytest.mark.parametrize("name", ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"])
def test_each_lifetime_is_its_own(name: str) -> None:
    control = of_response(f"{name}=7, {name}=9")
    slot = name.replace("-", "_")
    assert getattr(control, slot) == 7
    assert getattr(of_response(f"{name}=bad"), slot) == 0
    others = {"max_age", "s_maxage", "stale_while_revalidate", "stale_if_error"} - {slot}
    assert all(getattr(control, other) is None for other in others)


@pytest.mark.parametrize(
    "name", ["no-store", "public", "must-revalidate", "proxy-revalidate", "must-understand", "no-transform", "immutable"]
)
def test_flags(name: str) -> None:
    slot = name.replace("-", "_")
    for value in (name, name.upper(), f"foo, {name}", f"{name}, {name}", f"{name}=x, {name}"):
        assert getattr(of_response(value), slot), value
    # With an argument, which none of them has: what restricts goes on to, what permits does not.
    for value in (f"{name}=", f"{name}=x", f'{name}="x"', f"{name};x", f"{name} x"):
        assert getattr(of_response(value), slot) is (name not in ("public", "must-understand", "immutable")), value
    for value in ("", f"x{name}", f"{name}-x", f'foo="{name}"', f'foo="a, {name}, b"'):
        assert not getattr(of_response(value), slot), value
    set_by_it = [other for other in ResponseControl.__slots__ if getattr(of_response(name), other) is True]
    assert set_by_it == [slot]


@pytest.mark.parametrize("name", ["no-cache", "private"])
@pytest.mark.parametrize(
    "argument, whole, names",
    [
        ("", True, ()),
        ("=", True, ()),
        ('=""', True, ()),
        ('="Foo"', False, (b"foo",)),
        ("=Foo", False, (b"foo",)),  # section 5.2.2.4: senders should not, recipients understand it
        ('="Foo, BAR"', False, (b"foo", b"bar")),
        ('=" Foo ,Bar "', False, (b"foo", b"bar")),
        ('="Foo,,Bar"', True, ()),
        ('="Foo Bar"', True, ()),
        ('="Foo" x', True, ()),
        ('="Foo', True, ()),
        (' ="Foo"', True, ()),
    ],
)
def test_directives_with_field_names(name: str, argument: str, whole: bool, names: tuple[bytes, ...]) -> None:
    control = of_response(name + argument)
    slot = name.replace("-", "_")
    assert getattr(control, slot) is whole
    assert getattr(control, slot + "_fields") == names
    other = "private" if slot == "no_cache" else "no_cache"
    assert getattr(control, other) is False and getattr(control, other + "_fields") == ()


@pytest.mark.parametrize("name", ["no-cache", "private"])
def test_with_too_many_field_names_it_is_about_the_whole_response(name: str) -> None:
    names = [f"x{number}" for number in range(LISTED_FIELDS + 1)]
    for said, whole in (names[1:], False), (names, True):
        for value in (f'{name}="{",".join(said)}"', ", ".join(f'{name}="{one}"' for one in said)):
            assert getattr(of_response(value), name.replace("-", "_")) is whole


def test_both_forms_of_no_cache_together() -> None:
    control = of_response('no-cache="a", no-cache, no-cache="b"')
    assert control.no_cache and control.no_cache_fields == (b"a", b"b")


def test_lines_are_joined() -> None:
    control = response_control(Fields([("Cache-Control", "max-age=5"), ("Cache-Control", "no-store")]))
    assert control.max_age == 5 and control.no_store and control.source == b"cache-control"


def test_no_cache_control_at_all() -> None:
    assert response_control(Fields()) is NO_CONTROL
    assert NO_CONTROL.source == b"" and not any(getattr(NO_CONTROL, slot) for slot in ResponseControl.__slots__)
    assert request_control(Fields()) is NO_REQUEST_CONTROL
    assert not any(getattr(NO_REQUEST_CONTROL, slot) for slot in RequestControl.__slots__)


# Requests: section 5.2.1.


@pytest.mark.parametrize(
    "value, slot, expected",
    [
        ("no-cache", "no_cache", True),
        ("NO-CACHE", "no_cache", True),
        ('no-cache="foo"', "no_cache", True),
        ("no-store", "no_store", True),
        ("only-if-cached", "only_if_cached", True),
        ("max-age=5", "max_age", 5),
        ('max-age="5"', "max_age", 5),
        ("max-age=5, max-age=3", "max_age", 3),
        ("max-age=3, max-age=5", "max_age", 3),
        ("max-age=x", "max_age", 0),
        ("max-age", "max_age", 0),
        ("min-fresh=5", "min_fresh", 5),
        ("min-fresh=5, min-fresh=3", "min_fresh", 5),
        ("min-fresh=3, min-fresh=5", "min_fresh", 5),
        ("min-fresh=x", "min_fresh", DELTA_MAX),
        ("min-fresh", "min_fresh", DELTA_MAX),
        ("max-stale", "max_stale", DELTA_MAX),
        ("max-stale=5", "max_stale", 5),
        ("max-stale=5, max-stale", "max_stale", 5),
        ("max-stale=5, max-stale=9", "max_stale", 5),
        ("max-stale=9, max-stale=5", "max_stale", 5),
        ("max-stale=x", "max_stale", 0),
        ("max-stale=", "max_stale", 0),
        ("stale-if-error=5", "stale_if_error", 5),
        ("stale-if-error=5, stale-if-error=3", "stale_if_error", 3),
        ("stale-if-error=3, stale-if-error=5", "stale_if_error", 3),
        ("stale-if-error", "stale_if_error", 0),
        ('foo="no-store"', "no_store", False),
    ],
)
def test_request_directives(value: str, slot: str, expected: int | bool) -> None:
    control = of_request(value)
    assert getattr(control, slot) == expected
    for other in set(RequestControl.__slots__) - {slot}:
        assert getattr(control, other) in (None, False)


@pytest.mark.parametrize(
    "lines, no_cache",
    [
        ([("Pragma", "no-cache")], True),
        ([("Pragma", "foo, NO-CACHE")], True),
        ([("Pragma", "foo")], False),
        ([("Pragma", "no-cache"), ("Cache-Control", "max-age=9")], False),
        ([("Pragma", "no-cache"), ("Cache-Control", "no-cache")], True),
    ],
)
def test_pragma_counts_without_cache_control(lines: list[tuple[str, str]], no_cache: bool) -> None:
    assert request_control(Fields(lines)).no_cache is no_cache


# Targeted fields: RFC 9213 section 2.

TARGETS = (b"example-cache-control", b"cdn-cache-control")


def targeted(*lines: tuple[str, str]) -> ResponseControl:
    return response_control(Fields(lines), TARGETS)


def test_the_first_target_of_the_list_that_is_valid_counts() -> None:
    both = [("CDN-Cache-Control", "max-age=1"), ("Example-Cache-Control", "max-age=2"), ("Cache-Control", "max-age=3")]
    assert targeted(*both).max_age == 2 and targeted(*both).source == b"example-cache-control"
    assert targeted(both[0], both[2]).max_age == 1
    assert targeted(both[2]).max_age == 3
    assert response_control(Fields(both)).max_age == 3, "without a target list they change nothing"


@pytest.mark.parametrize(
    "value",
    [
        "", "   ", "max-age=1,", "MAX-AGE=1", "max-age =1", "max-age= 1", "max-age='1'", "max-age=1, &&&", "max-age=1;;",
        "max-age=(1", 'max-age="1', "max-age=1 no-store", "max-age=--1", "max-age=1.", "max-age=?2", "max-age=:a",
        "1max-age=1", "a=(1 2)x", "max-age=1; ;", "a=9999999999999999",
    ],
)  # fmt: skip
def test_a_field_that_is_empty_or_no_dictionary_is_ignored(value: str) -> None:
    assert targeted(("CDN-Cache-Control", value), ("Cache-Control", "max-age=3")).max_age == 3
    assert targeted(("CDN-Cache-Control", "max-age=1"), ("Example-Cache-Control", value)).max_age == 1


@pytest.mark.parametrize(
    "value, expected",
    [
        ("max-age=60", {"max_age": 60}),
        ("  max-age=60 ,\tmust-revalidate  ", {"max_age": 60, "must_revalidate": True}),
        ("max-age=60;foo;bar=1, no-store", {"max_age": 60, "no_store": True}),  # parameters are ignored
        ("max-age=1, max-age=60", {"max_age": 60}),  # RFC 9651: the last of several
        ("no-store=?1", {"no_store": True}),
        ("none", {}),
        ("foo=(1 2 \"x\" a);p, bar=:YQ==:, x=@1, y=1.5, z=?0, w=%\"a%20\", max-age=9", {"max_age": 9}),
        ('private="a, B"', {"private_fields": (b"a", b"b")}),
        ("private", {"private": True}),
        ("no-cache", {"no_cache": True}),
        # Values of the wrong type are not read as if they were right.
        ("max-age=60.5", {"max_age": 0}),
        ('max-age="60"', {"max_age": 0}),
        ("max-age=?1", {"max_age": 0}),
        ("max-age", {"max_age": 0}),
        ("max-age=-60", {"max_age": 0}),
        ("max-age=x60", {"max_age": 0}),
        ("private=a", {"private": True}),
        ("private=1", {"private": True}),
        ("no-store=1", {"no_store": True}),
        ("public=?0, immutable=1, must-understand=a, must-revalidate=(a)", {"must_revalidate": True}),
        ('max-age=@60, private=%"a"', {"max_age": 0, "private": True}),
        ("max-age=2147483649", {"max_age": DELTA_MAX}),
    ],
)  # fmt: skip
def test_the_directives_of_a_targeted_field(value: str, expected: dict[str, object]) -> None:
    control = targeted(("CDN-Cache-Control", value), ("Cache-Control", "s-maxage=3, public"))
    found = {slot: getattr(control, slot) for slot in ResponseControl.__slots__ if slot != "source"}
    assert {slot: value for slot, value in found.items() if value not in (None, False, ())} == {
        slot: value for slot, value in expected.items() if value not in (None, False, ())
    } and all(found[slot] == value for slot, value in expected.items())


@pytest.mark.parametrize("memo, read", [(directives._responses, of_response), (directives._requests, of_request)])
def test_remembered_values_are_bounded(memo: dict[bytes, object], read: Callable[[str], object]) -> None:
    memo.clear()
    for number in range(directives.MEMO_VALUES):
        read(f"max-age={number}")
    assert len(memo) == directives.MEMO_VALUES
    assert read("max-age=1") is read("max-age=1")
    read("max-age=x")
    assert len(memo) == 1, "at the limit it starts anew"
    for length, remembered in ((directives.MEMO_VALUE_LENGTH, True), (directives.MEMO_VALUE_LENGTH + 1, False)):
        value = "x" * length
        read(value)
        assert (value.encode() in memo) is remembered


@given(st.text('max-ge=sotrpivnc, "\\\t;0123456789', max_size=60))
def test_whatever_it_says_it_is_read(value: str) -> None:
    control = of_response(value.strip(" \t"))
    for slot in ("max_age", "s_maxage", "stale_while_revalidate", "stale_if_error"):
        assert getattr(control, slot) is None or 0 <= getattr(control, slot) <= DELTA_MAX
    of_request(value.strip(" \t"))
    targeted(("CDN-Cache-Control", value.strip(" \t")))
