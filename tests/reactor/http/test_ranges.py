"""Byte ranges against slices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.http.ranges import (
    MAX_RANGES,
    UNSATISFIABLE,
    coalesce,
    content_range,
    multipart,
    parse_range,
    unsatisfied_range,
)
from tests.strategies import thorough


@pytest.mark.parametrize(
    ("value", "length", "ranges"),
    [
        (b"bytes=0-4", 10, [(0, 5)]),
        (b"bytes=0-0", 10, [(0, 1)]),
        (b"bytes=5-", 10, [(5, 10)]),
        (b"bytes=-3", 10, [(7, 10)]),
        (b"bytes=-30", 10, [(0, 10)]),
        (b"bytes=5-999", 10, [(5, 10)]),
        (b"bytes=9-9", 10, [(9, 10)]),
        (b"bytes=0-1,8-9", 10, [(0, 2), (8, 10)]),
        (b"bytes=8-9,0-1", 10, [(8, 10), (0, 2)]),  # the order asked for is kept
        (b"bytes= 0-1 ,\t8-9 ", 10, [(0, 2), (8, 10)]),
        (b"bytes=0-1,,8-9,", 10, [(0, 2), (8, 10)]),
        (b"BYTES=0-1", 10, [(0, 2)]),  # section 14.1: range units are case-insensitive
        (b"bytes=0-3,2-5", 10, [(0, 6)]),
        (b"bytes=0-3,4-5", 10, [(0, 6)]),
        (b"bytes=8-9,0-3,2-5", 10, [(8, 10), (0, 6)]),
        (b"bytes=0-1,20-30", 10, [(0, 2)]),  # what is unsatisfiable is left out
        (b"bytes=0-00000000000000000000000000004", 10, [(0, 5)]),
        (b"bytes=2-99999999999999999999999999999", 10, [(2, 10)]),
    ],
)
def test_what_is_sent(value: bytes, length: int, ranges: list[tuple[int, int]]) -> None:
    assert parse_range(value, length) == ranges


@pytest.mark.parametrize(
    ("value", "length"),
    [
        (b"bytes=10-", 10),
        (b"bytes=10-20", 10),
        (b"bytes=-0", 10),
        (b"bytes=99999999999999999999999999999-", 10),
        (b"bytes=0-", 0),
        (b"bytes=11-12,13-14", 10),
        (b"bytes=-0", 0),
    ],
)
def test_what_cannot_be_sent(value: bytes, length: int) -> None:
    assert parse_range(value, length) is UNSATISFIABLE


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"bytes",
        b"bytes=",
        b"bytes=,",
        b"bytes=-",
        b"bytes=a-b",
        b"bytes=5-4",
        b"bytes=0-1,5-4",
        b"items=0-1",
        b"bytes 0-1",
        b"bytes=0-1;2-3",
        b"bytes=0-1-2",
        b"bytes=+0-1",
        b"bytes=0_0-1",
        b"bytes=0x0-1",
        b"bytes==0-1",
        b"bytes=--1",
        b"bytes=0 - 1",
        b"bytes=\xb2-",
        b"bytes=0-1\n",
        b" bytes=0-1",
        b"bytes =0-1",
    ],
)
def test_what_is_ignored(value: bytes) -> None:
    assert parse_range(value, 10) is None


def test_the_end_of_nothing_is_ignored() -> None:
    assert parse_range(b"bytes=-5", 0) is None


def test_too_many_ranges_are_ignored() -> None:
    many = b"bytes=" + b",".join(b"%d-%d" % (at, at) for at in range(0, 4 * MAX_RANGES, 2))
    assert parse_range(many, 10_000) is None
    most = b"bytes=" + b",".join(b"%d-%d" % (at, at) for at in range(0, 2 * MAX_RANGES, 2))
    assert parse_range(most, 10_000) == [(at, at + 1) for at in range(0, 2 * MAX_RANGES, 2)]


def test_content_range() -> None:
    assert content_range(0, 5, 10) == b"bytes 0-4/10"
    assert unsatisfied_range(10) == b"bytes */10"


positions = st.integers(0, 60)
specs = st.one_of(
    st.tuples(positions, positions).map(lambda pair: (min(pair), max(pair))),
    st.tuples(positions, st.none()),
    st.tuples(st.none(), positions),
)


def _covered(spec: tuple[int | None, int | None], size: int) -> set[int]:
    """The positions that one range-spec means, by Python's own slices."""
    first, last = spec
    everything = range(size)
    if first is None:
        assert last is not None
        return set(everything[-last:]) if last else set()
    return set(everything[first:] if last is None else everything[first : last + 1])


@thorough
@given(st.lists(specs, min_size=1, max_size=8), st.integers(1, 50))
def test_any_set_against_slices(wanted: list[tuple[int | None, int | None]], size: int) -> None:
    def spell(number: int | None) -> bytes:
        return b"" if number is None else b"%d" % number

    value = b"bytes=" + b",".join(b"%b-%b" % (spell(first), spell(last)) for first, last in wanted)
    found = parse_range(value, size)
    expected = set().union(*(_covered(spec, size) for spec in wanted))
    if not expected:
        assert found is UNSATISFIABLE
        return
    assert isinstance(found, list)
    sent = [position for start, stop in found for position in range(start, stop)]
    assert set(sent) == expected
    assert len(sent) == len(set(sent)), "no byte is sent twice"
    assert all(0 <= start < stop <= size for start, stop in found)


@thorough
@given(st.binary(max_size=40), st.integers(0, 100))
def test_any_bytes_give_an_answer(value: bytes, size: int) -> None:
    for field in (value, b"bytes=" + value):
        found = parse_range(field, size)
        assert found is None or found is UNSATISFIABLE or all(0 <= start < stop <= size for start, stop in found)


@thorough
@given(st.lists(st.tuples(positions, positions).map(lambda pair: (min(pair), max(pair) + 1)), min_size=1, max_size=10))
def test_coalescing_keeps_every_byte_once_and_the_first_in_front(ranges: list[tuple[int, int]]) -> None:
    joined = coalesce(ranges)
    assert {at for start, stop in joined for at in range(start, stop)} == {
        at for start, stop in ranges for at in range(start, stop)
    }
    for start, stop in joined:
        assert not any(start <= other <= stop for other, _ in joined if other != start), "what touches is joined"
    assert joined[0][0] <= ranges[0][0] < joined[0][1]


def test_a_multipart_body_is_as_long_as_it_says_and_reads_back() -> None:
    content = bytes(range(100))
    layout = multipart([(0, 5), (90, 100)], len(content), b"image/png", b"edge")
    body = b"".join(head + content[start:stop] for head, start, stop in layout.parts) + layout.end
    assert layout.content_type == b"multipart/byteranges; boundary=edge"
    assert len(body) == layout.length
    assert body == (
        b"--edge\r\nContent-Type: image/png\r\nContent-Range: bytes 0-4/100\r\n\r\n" + content[:5] + b"\r\n"
        b"--edge\r\nContent-Type: image/png\r\nContent-Range: bytes 90-99/100\r\n\r\n" + content[90:] + b"\r\n--edge--\r\n"
    )


def test_a_part_without_a_type() -> None:
    layout = multipart([(0, 1), (3, 4)], 5, None, b"edge")
    assert layout.parts[0][0] == b"--edge\r\nContent-Range: bytes 0-0/5\r\n\r\n"
