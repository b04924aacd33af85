"""Age and freshness lifetime: RFC 9111 sections 4.2, 5.1, 5.3. Everything is received at NOW unless it says otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.directives import DELTA_MAX, response_control
from cache.freshness import (
    HEURISTICALLY_CACHEABLE,
    age_value,
    corrected_initial_age,
    date_of,
    freshness_lifetime,
    lenient_date,
)
from cache.policy import OperatorRule, Policy
from tests.cache.cases import WALL, fields

POLICY = Policy()


def lifetime(lines: str, status: int = 200, policy: Policy = POLICY, rule: OperatorRule | None = None) -> tuple[float, str]:
    found = fields(lines)
    date = date_of(found, b"date", WALL)
    return freshness_lifetime(status, found, response_control(found, policy.targets), date or int(WALL), policy, rule)


@pytest.mark.parametrize(
    "text, valid",
    [
        ("Sun, 09 Sep 2001 01:46:40 GMT", True),
        ("Sunday, 09-Sep-01 01:46:40 GMT", True),
        ("Sun Sep  9 01:46:40 2001", True),
        # Section 4.2: case is matched insensitively.
        ("SUN, 09 SEP 2001 01:46:40 GMT", True),
        ("sun, 09 sep 2001 01:46:40 gmt", True),
        ("sUNDAY, 09-sep-01 01:46:40 Gmt", True),
        ("SUN SEP  9 01:46:40 2001", True),
        # ... and zones other than GMT are invalid.
        ("Sun, 09 Sep 2001 01:46:40 UTC", False),
        ("Sun, 09 Sep 2001 01:46:40 EST", False),
        ("Sun, 09 Sep 2001 01:46:40 +0000", False),
        ("Sun, 09 Sep 2001 01:46:40", False),
        ("Sun, 9 Sep 2001 01:46:40 GMT", False),
        ("Sun, 09 Sep 01 01:46:40 GMT", False),
        ("Sun, 09  Sep 2001 01:46:40 GMT", False),
        ("Sun, 09-Sep-2001 01:46:40 GMT", False),
        ("Sun 09 Sep 2001 01:46:40 GMT", False),
        ("Sun, 09 Sep 2001 01.46.40 GMT", False),
        ("Sun, 09 Sep 2001 1:46:40 GMT", False),
        ("Sun, 31 Sep 2001 01:46:40 GMT", False),
        ("0", False),
        ("-1", False),
        ("", False),
        ("1000000000", False),
    ],
)
def test_dates(text: str, valid: bool) -> None:
    assert lenient_date(text.encode(), WALL) == (int(WALL) if valid else None)


@pytest.mark.parametrize(
    "lines, offset",
    [
        ("Date: {-5}", -5),
        ("X: {-5}", None),
        ("Date: nonsense", None),
        ("Date: {-5} | Date: {-5}", -5),
        ("Date: {-5} | Date: {-7}", None),
        ("Date: Sun Sep  9 01:46:40 2001 | Date: Sun Sep  9 01:46:40 2001", 0),
        ("Date: Sun Sep  9 01:46:40 2001 | Date: {0}", 0),
        ("Date: {-5} | Date: nonsense", None),
        ("Date: {-5} | X: y | X: z", -5),
        ("Date: Sun | Date: 09 Sep 2001 01:46:40 GMT", None),  # no date, though it looks like one when it is joined
        ("Date: nonsense | Date: nonsense", None),
    ],
)
def test_the_one_date_of_a_field(lines: str, offset: int | None) -> None:
    assert date_of(fields(lines), b"date", WALL) == (None if offset is None else WALL + offset)


@pytest.mark.parametrize(
    "lines, expected",
    [
        # The first match of: s-maxage, max-age, Expires (section 4.2.1).
        ("Cache-Control: s-maxage=1, max-age=2 | Expires: {+3} | Date: {0}", (1, "s-maxage")),
        ("Cache-Control: max-age=2 | Expires: {+3} | Date: {0}", (2, "max-age")),
        ("Cache-Control: max-age=2, s-maxage=1", (1, "s-maxage")),
        ("Expires: {+3} | Date: {0}", (3, "expires")),
        ("Cache-Control: max-age=0 | Expires: {+3} | Date: {0}", (0, "max-age")),
        ("Cache-Control: s-maxage=0, max-age=9", (0, "s-maxage")),
        ("Cache-Control: s-maxage=x, max-age=9", (0, "s-maxage")),
        ("Cache-Control: max-age=bad | Expires: {+3} | Date: {0}", (0, "max-age")),
        ("Cache-Control: foo=1 | Expires: {+3} | Date: {0}", (3, "expires")),
        ("Cache-Control: max-age=99999999999", (DELTA_MAX, "max-age")),
        # Expires less Date, and no clock of ours (section 4.2.1, at the end).
        ("Expires: {-100} | Date: {-160}", (60, "expires")),
        ("Expires: {+100} | Date: {+40}", (60, "expires")),
        ("Expires: {+5}", (5, "expires")),  # no Date: that of receipt
        ("Expires: {+5} | Date: nonsense", (5, "expires")),
        ("Expires: {0} | Date: {0}", (0, "expires")),
        ("Expires: {-5} | Date: {0}", (0, "expires")),
        # Section 5.3: whatever is no date is in the past, "0" above all.
        ("Expires: 0 | Date: {0}", (0, "expires")),
        ("Expires: | Date: {0}", (0, "expires")),
        ("Expires: tomorrow", (0, "expires")),
        ("Expires: {+5} | Expires: {+5} | Date: {0}", (5, "expires")),
        ("Expires: {+5} | Expires: {+9} | Date: {0}", (0, "expires")),
        ("Expires: Thu, 31 Dec 9999 23:59:59 GMT | Date: {0}", (DELTA_MAX, "expires")),
        # Section 4.2.2: an explicit time leaves nothing to guess.
        ("Expires: 0 | Last-Modified: {-1000} | Date: {0}", (0, "expires")),
        ("Cache-Control: max-age=0 | Last-Modified: {-1000}", (0, "max-age")),
        ("Last-Modified: {-1000} | Date: {0}", (100, "heuristic")),
        ("Last-Modified: {-1000}", (100, "heuristic")),
        ("Last-Modified: {-1500} | Date: {-500}", (100, "heuristic")),
        ("Cache-Control: must-revalidate | Last-Modified: {-1000}", (100, "heuristic")),
        ("Last-Modified: {-100000000}", (86400, "heuristic")),
        ("Last-Modified: {0} | Date: {0}", (0, "none")),
        ("Last-Modified: {+10} | Date: {0}", (0, "none")),
        ("Last-Modified: long ago", (0, "none")),
        ("Pragma: no-cache | Last-Modified: {-1000}", (0, "none")),
        ("Pragma: foo | Last-Modified: {-1000}", (100, "heuristic")),
        ("X: y", (0, "none")),
    ],
)
def test_freshness_lifetime(lines: str, expected: tuple[float, str]) -> None:
    assert lifetime(lines) == expected


@pytest.mark.parametrize("status", range(200, 600))
def test_who_may_be_guessed_about(status: int) -> None:
    """RFC 9110 section 15.1 lists them; `public` makes it so for others (RFC 9111 section 5.2.2.9)."""
    guess, nothing = (100.0, "heuristic"), (0, "none")
    listed = {200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501, 451}
    assert lifetime("Last-Modified: {-1000}", status) == (guess if status in listed else nothing)
    assert lifetime("Cache-Control: public | Last-Modified: {-1000}", status) == guess
    assert (status in HEURISTICALLY_CACHEABLE) == (status in listed)


def test_the_guess_is_configured() -> None:
    policy = Policy(heuristic_fraction=0.5, heuristic_cap=60)
    assert lifetime("Last-Modified: {-100}", policy=policy) == (50, "heuristic")
    assert lifetime("Last-Modified: {-1000}", policy=policy) == (60, "heuristic")


@pytest.mark.parametrize(
    "lines, expected",
    [
        ("CDN-Cache-Control: max-age=1 | Cache-Control: max-age=2", (1, "cdn-cache-control max-age")),
        ("CDN-Cache-Control: s-maxage=1 | Cache-Control: s-maxage=2", (1, "cdn-cache-control s-maxage")),
        # RFC 9213 section 2.2: Cache-Control and Expires are ignored.
        ("CDN-Cache-Control: none | Cache-Control: max-age=2 | Expires: {+3}", (0, "none")),
        ("CDN-Cache-Control: none | Expires: {+3} | Last-Modified: {-1000}", (100, "heuristic")),
        ("CDN-Cache-Control: | Cache-Control: max-age=2", (2, "max-age")),
        ("CDN-Cache-Control: MAX-AGE=1 | Expires: {+3}", (3, "expires")),
    ],
)
def test_targeted_fields_come_first(lines: str, expected: tuple[float, str]) -> None:
    assert lifetime(lines, policy=Policy(targets=(b"cdn-cache-control",))) == expected


def test_the_operator_comes_before_all() -> None:
    rule = OperatorRule(ttl=7)
    for lines in ("Cache-Control: s-maxage=1", "Expires: 0", "X: y"):
        assert lifetime(lines, rule=rule) == (7, "operator")
    assert lifetime("Cache-Control: max-age=1", 500, rule=rule) == (1, "max-age"), "errors are not made to last"
    assert lifetime("Cache-Control: max-age=1", rule=OperatorRule(stale=5)) == (1, "max-age")
    assert lifetime("Cache-Control: max-age=1", rule=OperatorRule(ttl=0)) == (0, "operator")


@pytest.mark.parametrize("status", [404, 405, 410, 414, 501])
def test_no_error_is_kept_for_as_long_as_the_operator_says_of_the_rest(status: int) -> None:
    """Else who asks before it is there, or with more than the origin takes, keeps it from everybody."""
    rule = OperatorRule(ttl=31536000)
    assert lifetime("X: y", status, rule=rule) == (0, "none")
    assert lifetime("Cache-Control: max-age=5", status, rule=rule) == (5, "max-age")
    assert lifetime("Cache-Control: max-age=5", status, rule=OperatorRule(ttl=0)) == (0, "operator")


@pytest.mark.parametrize(
    "lines, age",
    [
        ("Age: 5", 5),
        ("Age: 0", 0),
        ("Age: 00005", 5),
        ("X: y", 0),
        # Section 5.1: the first member; what is invalid then is ignored.
        ("Age: 5 | Age: 9", 5),
        ("Age: 9, 5", 9),
        ("Age: 5 , 9", 5),
        ("Age: x, 5", 0),
        ("Age: , 5", 0),
        ("Age: -5", 0),
        ("Age: 5.5", 0),
        ("Age: 5;x=1", 0),
        ("Age: five", 0),
        ("Age: 5x", 0),
        ("Age: +5", 0),
        ("Age:", 0),
        # Section 1.2.2.
        ("Age: 2147483648", 2**31),
        ("Age: 99999999999999999999", 2**31),
    ],
)
def test_the_age_field(lines: str, age: int) -> None:
    assert age_value(fields(lines)) == age


@pytest.mark.parametrize(
    "age, date, received, delay, initial",
    [
        (0, 0, 0, 0, 0),
        (5, 0, 0, 0, 5),
        (0, -5, 0, 0, 5),  # apparent_age
        (3, -5, 0, 0, 5),
        (9, -5, 0, 0, 9),
        (0, +5, 0, 0, 0),  # a Date ahead of our clock
        (9, +5, 0, 0, 9),
        (0, 0, 0, 2, 2),  # response_delay
        (9, 0, 0, 2, 11),
        (9, -10, 0, 2, 11),
        (9, -12, 0, 2, 12),
        (0, 0, 0.9, 0.9, 0.9),  # Date has no fractions: no apparent age
        (0, 0, 0.9, 0.4, 0.4),
    ],
)
def test_corrected_initial_age(age: int, date: float, received: float, delay: float, initial: float) -> None:
    found = corrected_initial_age(age, WALL + date, WALL + received, delay)
    assert found == pytest.approx(initial, abs=1e-6)


@given(st.text("0123456789 SunSepGMT,:-", max_size=40))
def test_no_date_is_an_error(text: str) -> None:
    found = fields("X: y")
    found.add("Expires", text.strip())
    seconds, source = freshness_lifetime(200, found, response_control(found), WALL, POLICY)
    assert 0 <= seconds <= DELTA_MAX and source == "expires"
