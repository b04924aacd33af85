"""HTTP dates: three formats read, one written (RFC 9110 section 5.6.7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.http import dates
from reactor.http.dates import format_date, parse_date
from tests.strategies import thorough

BIRTH = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT, the RFC's example
NOW = 1_750_000_000  # 15 June 2025


@pytest.mark.parametrize(
    "value", [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"]
)
def test_the_examples_of_the_rfc(value):
    assert parse_date(value, NOW) == BIRTH


def test_format():
    assert format_date(BIRTH) == format_date(BIRTH + 0.9) == b"Sun, 06 Nov 1994 08:49:37 GMT"
    assert format_date(0) == b"Thu, 01 Jan 1970 00:00:00 GMT"


@thorough
@given(st.integers(0, 253402300799))
def test_what_is_written_is_read(second):
    assert parse_date(format_date(second), NOW) == second


@pytest.mark.parametrize(
    ("year", "full"),
    [(b"25", 2025), (b"00", 2000), (b"26", 2026), (b"75", 2075), (b"76", 1976), (b"99", 1999)],
)
def test_two_digit_years_lie_at_most_fifty_years_ahead(year, full):
    found = parse_date(b"Monday, 01-Jan-%b 00:00:00 GMT" % year, NOW)
    assert found == parse_date(b"Mon, 01 Jan %d 00:00:00 GMT" % full, NOW)


def test_the_fifty_years_are_counted_to_the_day():
    assert format_date(parse_date(b"Monday, 10-Jun-75 00:00:00 GMT", NOW) or 0).endswith(b"2075 00:00:00 GMT")
    assert format_date(parse_date(b"Monday, 20-Jun-75 00:00:00 GMT", NOW) or 0).endswith(b"1975 00:00:00 GMT")


def test_a_leap_day_and_a_leap_second():
    assert parse_date(b"Thu, 29 Feb 2024 00:00:00 GMT", NOW) == 1709164800
    assert parse_date(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW) == parse_date(b"Sun, 01 Jan 2017 00:00:00 GMT", NOW)


@pytest.mark.parametrize(
    "value",
    [
        b"", b"0", b"-1", b"Sun, 06 Nov 1994 08:49:37", b"Sun, 06 Nov 1994 08:49:37 UTC", b"Sun, 06 Nov 1994 08:49:37 +0000",
        b"sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 nov 1994 08:49:37 GMT", b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun,06 Nov 1994 08:49:37 GMT",
        b"Sun, 31 Nov 1994 08:49:37 GMT", b"Sun, 00 Nov 1994 08:49:37 GMT", b"Tue, 29 Feb 2023 00:00:00 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT", b"Sun, 06 Nov 1994 08:60:37 GMT", b"Sun, 06 Nov 1994 08:49:61 GMT",
        b"Sun, 06 Nov 1994 8:49:37 GMT",
        b" Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 08:49:37 GMT\n", b"Sun, 0\xb2 Nov 1994 08:49:37 GMT",
        b"Sunday, 06-Nov-1994 08:49:37 GMT", b"Sun, 06-Nov-94 08:49:37 GMT", b"Sun Nov 6 08:49:37 1994",
        b"Sun Nov  6 08:49:37 94",
    ],
)  # fmt: skip
def test_what_is_no_date(value):
    assert parse_date(value, NOW) is None


@thorough
@given(st.binary(max_size=40))
def test_any_bytes_are_a_date_or_none(value):
    found = parse_date(value, NOW)
    assert found is None or isinstance(found, int)


def test_the_memo_is_bounded():
    for second in range(2 * dates.MEMO_DATES):
        parse_date(format_date(second), NOW)
    assert len(dates._known) <= dates.MEMO_DATES
