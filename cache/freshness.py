"""Age and freshness lifetime of a response: RFC 9111 section 4.2. Dates are seconds since the epoch."""

from __future__ import annotations

from cache.directives import DELTA_MAX, ResponseControl, delta_seconds
from cache.policy import OperatorRule, Policy
from reactor.http.dates import parse_date
from reactor.http.fields import Fields
from reactor.http.grammar import OWS

# RFC 9110 section 15.1; 451 by RFC 7725 section 3.
HEURISTICALLY_CACHEABLE = frozenset((200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 451, 501))

PAST = 0  # what an invalid Expires stands for (RFC 9111 section 5.3)


def lenient_date(value: bytes, now: float) -> int | None:
    """A date whatever the case of its letters, as caches should read it (RFC 9111 section 4.2); None where invalid."""
    found = parse_date(value, now)
    if found is None:
        value = value.title()
        found = parse_date(value[:-3] + b"GMT" if value.endswith(b" Gmt") else value, now)
    return found


def date_of(fields: Fields, name: bytes, now: float) -> int | None:
    """The one date of a field; None where it is absent, invalid or given twice with two values."""
    value = fields.index.get(name)
    if value is None:
        return None
    if len(fields) == len(fields.index):
        return lenient_date(value, now)
    # Some name has several lines. If it is this one, they are no list, and what they make up together is no date.
    dates = {lenient_date(line, now) for line in fields.get_all(name)}
    return dates.pop() if len(dates) == 1 else None


def age_value(fields: Fields) -> int:
    """The Age field in seconds: its first member, 0 where that is absent or invalid (section 5.1)."""
    value = fields.index.get(b"age")
    if value is None:
        return 0
    return delta_seconds(value.partition(b",")[0].strip(OWS)) or 0


def corrected_initial_age(age: int, date: float, received: float, response_delay: float) -> float:
    """How old a response was when it arrived, at `received` by the wall clock (section 4.2.3).

    Date has whole seconds, so that the arrival counts in whole seconds too where the two are compared. `response_delay` is
    the time from the request on, in seconds.
    """
    apparent_age = max(0, int(received) - int(date))
    return max(apparent_age, age + response_delay)


def freshness_lifetime(
    status: int, fields: Fields, control: ResponseControl, date: float, policy: Policy, rule: OperatorRule | None = None
) -> tuple[float, str]:
    """(seconds, where they come from): operator, s-maxage, max-age, expires, heuristic or none (section 4.2.1).

    With a targeted field the source is prefixed by its name, and Expires counts for nothing (RFC 9213 section 2.2).
    """
    targeted = control.source not in (b"", b"cache-control")
    prefix = f"{control.source.decode('ascii')} " if targeted else ""
    if rule is not None and rule.ttl is not None and status in HEURISTICALLY_CACHEABLE and (status < 400 or not rule.ttl):
        # An error is kept no longer for it: who asks for what is not there yet would keep it from everybody.
        return rule.ttl, "operator"
    if control.s_maxage is not None:
        return control.s_maxage, prefix + "s-maxage"
    if control.max_age is not None:
        return control.max_age, prefix + "max-age"
    if b"expires" in fields.index and not targeted:
        expires = date_of(fields, b"expires", date)
        return max(0, min((PAST if expires is None else expires) - date, DELTA_MAX)), "expires"
    return _heuristic_lifetime(status, fields, control, date, policy)


def _heuristic_lifetime(
    status: int, fields: Fields, control: ResponseControl, date: float, policy: Policy
) -> tuple[float, str]:
    """Section 4.2.2: only for status codes defined so, or where the response says that it may be cached."""
    if status not in HEURISTICALLY_CACHEABLE and not control.public:
        return 0, "none"
    if b"no-cache" in fields.options(b"pragma"):  # says nothing by section 5.4, but is no reason to guess either
        return 0, "none"
    modified = date_of(fields, b"last-modified", date)
    if modified is None or modified >= date:
        return 0, "none"
    return min((date - modified) * policy.heuristic_fraction, policy.heuristic_cap), "heuristic"
