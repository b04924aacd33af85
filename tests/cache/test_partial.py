"""Parts stored and put together: RFC 9111 sections 3.3 and 3.4, RFC 9110 section 15.3.7.3."""

from __future__ import annotations

import pytest

from cache.entry import Entry
from cache.partial import as_part, as_received, combine, joined_span
from cache.policy import Policy
from cache.rules import Hit, lookup
from tests.cache.cases import NOW, request, stored, word

POLICY = Policy(store_partial=True)
LINES = 'Cache-Control: max-age=10 | ETag: "x"'


def part(content_range: str, lines: str = LINES, at: float = NOW) -> Entry:
    return stored(f"{lines} | Content-Range: bytes {content_range}", 206, policy=POLICY, at=at)


def whole(lines: str = LINES, status: int = 200, method: str = "GET") -> Entry:
    return stored(lines, status, request(method=method))


# A body that broke off.


def test_a_whole_that_broke_off_is_the_part_that_came() -> None:
    entry = whole()
    assert as_part(entry, 40, 100) and entry.span == (0, 40, 100)
    assert word(lookup(request("Range: bytes=0-39"), [entry], NOW)) == "hit"
    assert word(lookup(request("Range: bytes=0-40"), [entry], NOW)) == "miss partial"
    assert word(lookup(request(), [entry], NOW)) == "miss partial"


@pytest.mark.parametrize(
    "entry, received, complete",
    [
        (whole(), 0, 100),
        (whole(), 100, 100),
        (whole(), 101, 100),
        (whole(), 40, None),
        (whole("Cache-Control: max-age=10"), 40, 100),
        (whole('Cache-Control: max-age=10 | ETag: W/"x"'), 40, 100),
        (whole("Cache-Control: max-age=10 | Last-Modified: {-9}"), 40, 100),
        (whole(status=404), 40, 100),
        (whole(method="HEAD"), 40, 100),
        (part("0-49/100"), 40, 100),
    ],
)
def test_what_broke_off_and_is_of_no_use(entry: Entry, received: int, complete: int | None) -> None:
    before = entry.span, entry.plain
    assert not as_part(entry, received, complete)
    assert (entry.span, entry.plain) == before


@pytest.mark.parametrize(
    "content_range, status, plain",
    [("0-9/10", 200, True), ("0-8/10", 206, False), ("1-9/10", 206, False), ("0-9/*", 206, False)],
)
def test_a_part_that_is_everything_is_the_whole(content_range: str, status: int, plain: bool) -> None:
    entry = part(content_range, "Cache-Control: max-age=10")
    assert entry.span is not None and as_received(entry, entry.span[1] - entry.span[0])
    assert (entry.status, entry.plain, entry.span is None) == (status, plain, plain)
    assert word(lookup(request(), [entry], NOW)) == ("hit" if plain else "miss partial")


@pytest.mark.parametrize(
    "content_range, size, span",
    [
        ("4-9/10", 6, (4, 10, 10)),
        ("4-9/10", 5, (4, 9, 10)),  # told of more
        ("0-9/10", 9, (0, 9, 10)),
        ("0-9/*", 10, (0, 10, None)),
        ("4-9/10", 7, None),  # told of fewer: what is what?
        ("0-8/10", 10, None),
        ("4-9/10", 0, None),
    ],
)
def test_a_part_is_what_came_of_it(content_range: str, size: int, span: tuple[int, int, int] | None) -> None:
    entry = part(content_range)
    assert as_received(entry, size) is (span is not None)
    assert span is None or entry.span == span
    whole = stored(LINES)
    assert as_received(whole, size) and whole.status == 200


# Two parts.


@pytest.mark.parametrize(
    "old, new, span",
    [
        ("0-9/100", "10-19/100", (0, 20, 100)),
        ("10-19/100", "0-9/100", (0, 20, 100)),
        ("0-9/100", "5-19/100", (0, 20, 100)),
        ("0-19/100", "5-9/100", (0, 20, 100)),
        ("0-9/*", "10-19/100", (0, 20, 100)),
        ("0-9/100", "10-19/*", (0, 20, 100)),
        ("0-9/*", "10-19/*", (0, 20, None)),
        ("0-9/100", "11-19/100", None),
        ("11-19/100", "0-9/100", None),
        ("0-9/100", "10-19/101", None),
    ],
)
def test_parts_that_touch_are_one(old: str, new: str, span: tuple[int, int, int | None] | None) -> None:
    assert joined_span(part(old), part(new)) == span
    assert (combine(part(old), part(new), request()) is None) is (span is None)


@pytest.mark.parametrize(
    "old, new",
    [
        ('ETag: "x"', 'ETag: "y"'),
        ('ETag: W/"x"', 'ETag: W/"x"'),
        ("ETag: x", "ETag: x"),
        ("X: y", "X: y"),
        ("X: y", 'ETag: "x"'),
        ("Last-Modified: {-9}", "Last-Modified: {-9}"),
    ],
)
def test_only_with_the_same_strong_tag(old: str, new: str) -> None:
    lines = "Cache-Control: max-age=10 | {}"
    assert joined_span(part("0-9/100", lines.format(old)), part("10-19/100", lines.format(new))) is None


def test_a_whole_is_not_combined() -> None:
    assert joined_span(whole(), part("0-9/100")) is None
    assert joined_span(part("0-9/100"), whole()) is None


def test_the_new_parts_fields_replace_the_old_ones() -> None:
    old = part("0-9/100", LINES + " | A: 1 | B: 1 | Age: 3")
    new = part("10-19/100", 'Cache-Control: max-age=20 | ETag: "x" | B: 2 | Age: 5', at=NOW + 30)
    entry = combine(old, new, request("Range: bytes=10-19"), POLICY)
    assert entry is not None
    assert (entry.status, entry.span, entry.length, entry.plain) == (206, (0, 20, 100), 20, False)
    assert entry.fields[b"a"] == b"1" and entry.fields[b"b"] == b"2" and b"content-range" not in entry.fields
    assert (
        (entry.age(NOW + 30), entry.ttl(NOW + 31)) == (5, 14) and entry.is_fresh(NOW + 44) and not entry.is_fresh(NOW + 45)
    )
    assert (entry.request_time, entry.response_time) == (NOW + 30, NOW + 30)
    assert word(lookup(request("Range: bytes=5-14"), [entry], NOW + 31)) == "hit"


def test_when_nothing_is_missing_it_is_whole() -> None:
    entry = combine(part("0-9/20"), part("10-19/20"), request(), POLICY)
    assert entry is not None and (entry.status, entry.span, entry.length, entry.plain) == (200, None, 20, True)
    found = lookup(request(), [entry], NOW)
    assert isinstance(found, Hit) and found.entry is entry
    not_yet = combine(part("1-9/20"), part("10-19/20"), request(), POLICY)
    assert not_yet is not None and not_yet.status == 206
