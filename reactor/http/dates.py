"""HTTP dates: RFC 9110 section 5.6.7. Times are seconds since the epoch, in whole seconds."""

from __future__ import annotations

import calendar
import datetime
import re
from email.utils import formatdate

_MONTHS = {name: number for number, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_MONTH = rb"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_TIME = rb"([0-9]{2}):([0-9]{2}):([0-9]{2})"
_IMF_FIXDATE = re.compile(rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{2}) " + _MONTH + rb" ([0-9]{4}) " + _TIME + rb" GMT")
_RFC850 = re.compile(
    rb"(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday), ([0-9]{2})-"
    + _MONTH
    + rb"-([0-9]{2}) "
    + _TIME
    + rb" GMT"
)
_ASCTIME = re.compile(rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) " + _MONTH + rb" ([0-9]{2}| [0-9]) " + _TIME + rb" ([0-9]{4})")

MEMO_DATES = 1024  # distinct IMF-fixdates remembered; at the limit the memo starts anew

_last: tuple[int, bytes] = (-1, b"")
_known: dict[bytes, int | None] = {}


def format_date(seconds: float) -> bytes:
    """IMF-fixdate of a time; the last second asked for is remembered, since every response of it says the same."""
    global _last
    second = int(seconds)
    if _last[0] != second:
        _last = (second, formatdate(second, usegmt=True).encode("ascii"))
    return _last[1]


def parse_date(value: bytes, now: float) -> int | None:
    """Seconds since the epoch, or None where `value` is none of the three formats or no real date.

    `now` (seconds since the epoch) decides the century of an RFC 850 date: one that seems more than
    50 years ahead lies in the past (section 5.6.7).
    """
    if value in _known:
        return _known[value]
    if match := _IMF_FIXDATE.fullmatch(value):
        day, month, year, *clock = match.groups()
        if len(_known) >= MEMO_DATES:
            _known.clear()
        stamp = _known[value] = _timestamp(int(year), _MONTHS[month], int(day), clock)
        return stamp
    if match := _RFC850.fullmatch(value):
        day, month, year, *clock = match.groups()
        century = datetime.datetime.fromtimestamp(now, datetime.UTC).year // 100 * 100
        stamp = _timestamp(century + int(year), _MONTHS[month], int(day), clock)
        if stamp is not None and stamp > now + 50 * 365.2425 * 86400:
            stamp = _timestamp(century - 100 + int(year), _MONTHS[month], int(day), clock)
        return stamp
    if match := _ASCTIME.fullmatch(value):
        month, day, *clock, year = match.groups()
        return _timestamp(int(year), _MONTHS[month], int(day), clock)
    return None


def _timestamp(year: int, month: int, day: int, clock: list[bytes]) -> int | None:
    hour, minute, second = map(int, clock)
    # A leap second (60) is allowed by the grammar and read as the second after it.
    if hour > 23 or minute > 59 or second > 60 or year < 1 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    return calendar.timegm((year, month, day, hour, minute, second))
