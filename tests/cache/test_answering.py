"""A client's conditions and ranges, answered from the store: RFC 9111 section 4.3.2, RFC 9110 sections 13.2.2, 14, 15.4."""

from __future__ import annotations

import pytest

from cache.answering import Answer, answer, not_modified_fields
from cache.policy import Policy
from tests.cache.cases import WALL, date, request, stored

FRESH = "Cache-Control: max-age=10"


def answered(response: str, asked: str, status: int = 200, method: str = "GET") -> Answer:
    for offset in (-10, -9, -8, 0):
        asked = asked.replace(f"{{{offset}}}", date(offset))
    entry = stored(f"{FRESH} | {response}", status, policy=Policy(store_partial=True))
    return answer(request(asked, method), entry, 100, WALL + 1)


@pytest.mark.parametrize(
    "response, asked, status",
    [
        ('ETag: "x"', 'If-None-Match: "x"', 304),
        ('ETag: "x"', 'If-None-Match: W/"x"', 304),
        ('ETag: W/"x"', 'If-None-Match: "x"', 304),
        ('ETag: W/"x"', 'If-None-Match: W/"x"', 304),
        ('ETag: "x"', 'If-None-Match: "y", "x"', 304),
        ('ETag: "x"', 'If-None-Match: "x" , "y"', 304),
        ('ETag: "x,y"', 'If-None-Match: "a", "x,y"', 304),
        ('ETag: "x"', "If-None-Match: *", 304),
        ("X: y", "If-None-Match: *", 304),
        ("ETag: abc", "If-None-Match: abc", 304),
        ('ETag: "\xe9"', 'If-None-Match: "\xe9"', 304),
        ('ETag: "x"', 'If-None-Match: "y"', 200),
        ('ETag: "x"', 'If-None-Match: "X"', 200),
        ('ETag: "x"', "If-None-Match: x", 200),
        ("X: y", 'If-None-Match: "x"', 200),
        ("Last-Modified: {-9}", "If-Modified-Since: {-9}", 304),
        ("Last-Modified: {-9}", "If-Modified-Since: {-8}", 304),
        ("Last-Modified: {-9}", "If-Modified-Since: {-10}", 200),
        ("Last-Modified: {-9}", "If-Modified-Since: yesterday", 200),
        # Without Last-Modified, the stored Date.
        ("Date: {-9}", "If-Modified-Since: {-9}", 304),
        ("Date: {-9}", "If-Modified-Since: {-10}", 200),
        ("X: y", "If-Modified-Since: {0}", 304),
        ("X: y", "If-Modified-Since: {-8}", 200),
        # If-None-Match comes before If-Modified-Since.
        ('ETag: "x" | Last-Modified: {-9}', 'If-None-Match: "y" | If-Modified-Since: {0}', 200),
        ('ETag: "x" | Last-Modified: {-9}', 'If-None-Match: "x" | If-Modified-Since: {-10}', 304),
        ("Last-Modified: {-9}", 'If-None-Match: "y" | If-Modified-Since: {0}', 200),
        ('ETag: "x"', "", 200),
    ],
)
def test_conditions(response: str, asked: str, status: int) -> None:
    assert answered(response, asked) == (status, ())
    assert answered(response, asked, method="HEAD") == (status, ())


@pytest.mark.parametrize("status", [203, 204, 299])
def test_conditions_count_for_any_success(status: int) -> None:
    assert answered('ETag: "x"', 'If-None-Match: "x"', status).status == 304


@pytest.mark.parametrize("status", [300, 301, 404, 410, 500])
def test_conditions_count_for_nothing_else(status: int) -> None:
    """RFC 9110 section 13.2.1."""
    assert answered('ETag: "x"', 'If-None-Match: "x"', status) == (status, ())
    assert answered("X: y", "Range: bytes=0-1", status) == (status, ())


@pytest.mark.parametrize(
    "asked, status, ranges",
    [
        ("Range: bytes=0-9", 206, [(0, 10)]),
        ("Range: bytes=90-", 206, [(90, 100)]),
        ("Range: bytes=-10", 206, [(90, 100)]),
        ("Range: bytes=90-999", 206, [(90, 100)]),
        ("Range: bytes=0-1, 5-6", 206, [(0, 2), (5, 7)]),
        ("Range: bytes=0-5, 5-6", 206, [(0, 7)]),
        ("Range: bytes=100-", 416, []),
        ("Range: bytes=-0", 416, []),
        ("Range: bytes=5-1", 200, []),
        ("Range: items=0-9", 200, []),
        ("Range: nonsense", 200, []),
        ('Range: bytes=0-9 | If-Range: "x"', 206, [(0, 10)]),
        ('Range: bytes=0-9 | If-Range: W/"x"', 200, []),
        ('Range: bytes=0-9 | If-Range: "y"', 200, []),
        ("Range: bytes=0-9 | If-Range: {-9}", 206, [(0, 10)]),
        ("Range: bytes=0-9 | If-Range: {-8}", 200, []),
        ("Range: bytes=0-9 | If-Range: {-10}", 200, []),
        ('If-Range: "x"', 200, []),
        # Conditions come first.
        ('Range: bytes=0-9 | If-None-Match: "x"', 304, []),
        ('Range: bytes=0-9 | If-None-Match: "y"', 206, [(0, 10)]),
        ('Range: bytes=200- | If-None-Match: "x"', 304, []),
    ],
)
def test_ranges(asked: str, status: int, ranges: list[tuple[int, int]]) -> None:
    assert answered('ETag: "x" | Last-Modified: {-9} | Date: {0}', asked) == (status, tuple(ranges))


def test_a_range_is_for_get_alone() -> None:
    assert answered("X: y", "Range: bytes=0-9", method="HEAD") == (200, ())


def test_a_weak_date_does_not_make_a_range_safe() -> None:
    """RFC 9110 section 8.8.2.2: of the same second as Date, it may have changed since."""
    assert answered("Last-Modified: {-9} | Date: {-9}", "Range: bytes=0-9 | If-Range: {-9}").status == 200


@pytest.mark.parametrize(
    "content_range, asked, ranges",
    [
        ("bytes 10-19/40", "Range: bytes=12-13", ((12, 14),)),
        ("bytes 30-39/40", "Range: bytes=-5", ((35, 40),)),
        ("bytes 10-19/*", "Range: bytes=12-13, 15-16", ((12, 14), (15, 17))),
    ],
)
def test_a_stored_part_answers_in_places_of_the_whole(
    content_range: str, asked: str, ranges: tuple[tuple[int, int], ...]
) -> None:
    assert answered(f"Content-Range: {content_range}", asked, 206) == (206, ranges)


def test_what_a_304_says() -> None:
    """RFC 9110 section 15.4.5."""
    entry = stored(
        FRESH
        + ' | ETag: "x" | Date: {0} | Vary: Foo | Expires: {9} | Content-Location: /a | Last-Modified: {-9}'
        " | Content-Type: a/b | Content-Encoding: gzip | Content-Language: en | X: y"
    )
    names = [name for name, _ in not_modified_fields(entry)]
    assert names == [b"Cache-Control", b"ETag", b"Date", b"Vary", b"Expires", b"Content-Location", b"X"]
    assert b"content-type" in entry.fields, "what is stored is left as it is"
    assert b"last-modified" in not_modified_fields(stored(FRESH + " | Last-Modified: {-9}"))
