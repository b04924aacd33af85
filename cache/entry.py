"""A stored response: everything it says, read once when it is stored (RFC 9111 section 3.1)."""

from __future__ import annotations

import re
from typing import Any

from cache.directives import ResponseControl, response_control
from cache.freshness import age_value, corrected_initial_age, date_of, freshness_lifetime
from cache.key import SecondaryKey, secondary_key, vary_names
from cache.policy import OperatorRule, Policy
from reactor.errors import ProtocolError
from reactor.http.dates import format_date
from reactor.http.fields import Fields
from reactor.http.framing import parse_length
from reactor.http.parser import Request
from reactor.http.structured import Item, parse_list

# RFC 9110 section 7.6.1, the fields of one connection; RFC 9111 section 3.1, those of the proxy asked. Content-Length is the
# framing's, Age is made anew for each use, and trailers are not stored.
NOT_STORED = frozenset(
    b"connection keep-alive proxy-connection te transfer-encoding upgrade trailer content-length age"
    b" proxy-authenticate proxy-authentication-info proxy-authorization".split()
)
# RFC 9110 section 8.8.3. The second form is no entity tag, but the origin that sent it will know it again.
_ENTITY_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"|[!#-+\--~]+')
_CONTENT_RANGE = re.compile(rb"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE)

GROUPS = 128  # of one field; further ones are not read (RFC 9875 section 2 asks for as many, of 32 characters each)
GROUPS_BYTES = 8 * 1024  # a longer Cache-Groups field is left out of account

Span = tuple[int, int, int | None]
"""start, stop (half-open) and the complete length, None where unknown, of a partial response."""


class Entry:
    """One stored response. Made anew when a 304 freshens it; the slots at the end are the store's.

    `request_time`, `response_time` and `fresh_until` are seconds on the monotonic clock, by which it ages here, whatever
    becomes of the wall clock; `received` is response_time by the latter. `received`, `date` and `last_modified` are seconds
    since the epoch; `initial_age` and `lifetime` are seconds. `etag` is the field's value as it came, None where it is no
    single tag.

    A store that outlives the process keeps `received` and `initial_age`: what it reads back has a response_time of
    `now - max(0, wall - received)`, with both clocks as they are by then.
    """

    __slots__ = (
        "method", "status", "reason", "fields", "request_time", "response_time", "received", "date", "initial_age", "lifetime",
        "lifetime_source", "fresh_until", "control", "rule", "no_cache", "no_stale", "invalid", "plain",
        "etag", "last_modified", "vary", "secondary", "span", "length", "groups",
        "body", "store", "rendered",
    )  # fmt: skip

    def __init__(
        self, request: Request, status: int, reason: bytes | None, fields: Fields, request_time: float, response_time: float,
        received: float, policy: Policy, control: ResponseControl | None = None, rule: OperatorRule | None = None,
    ) -> None:
        """Read a response that `may_store` let in; `control` and `rule` are what that decision carries."""
        self.method = request.method
        self.status = status
        self.reason = reason
        self.request_time = request_time
        self.response_time = response_time
        self.received = received
        self.control = control = response_control(fields, policy.targets) if control is None else control
        self.rule = rule
        self._read_times(fields, policy)
        self._read_validators(fields)
        self.vary = vary_names(fields)
        self.secondary: SecondaryKey = secondary_key(self.vary, request.fields) if self.vary else ()
        self.span = partial_span(fields) if status == 206 else None
        self.length = content_length(fields)
        self.fields = stored_fields(fields, control, self.date, rule)
        if self.span is not None:
            self.fields.remove(b"content-range")  # of each answer's own part
        if self.method == b"HEAD" and self.length is not None and status != 204:
            self.fields.add(b"Content-Length", b"%d" % self.length)  # there is no body that would tell it
        ignored = rule.ignore if rule is not None else ()
        self.no_cache = control.no_cache and "no-cache" not in ignored
        # Sections 5.2.2.2, 5.2.2.8 and 5.2.2.10: these forbid serving it stale, whoever would allow it.
        self.no_stale = (
            control.must_revalidate or control.proxy_revalidate or control.s_maxage is not None or self.no_cache
        )
        self.invalid = False
        self.settle()
        self.body: Any = None
        self.store: Any = None
        self.rendered: Any = None

    def _read_times(self, fields: Fields, policy: Policy) -> None:
        date = date_of(fields, b"date", self.received)
        # RFC 9110 section 6.6.1: a missing or invalid Date is the time of receipt.
        self.date = int(self.received) if date is None else date
        delay = self.response_time - self.request_time
        self.initial_age = corrected_initial_age(age_value(fields), self.date, self.received, delay)
        self.lifetime, self.lifetime_source = freshness_lifetime(
            self.status, fields, self.control, self.date, policy, self.rule
        )
        # RFC 9111 section 4.2: fresh while the lifetime exceeds the age, which grows with time from here on.
        self.fresh_until = self.response_time + (self.lifetime - self.initial_age)

    def _read_validators(self, fields: Fields) -> None:
        self.etag = entity_tag(fields)
        self.last_modified = date_of(fields, b"last-modified", self.received)
        self.groups = cache_groups(fields)

    def settle(self) -> None:
        """Find out anew, after a change, whether it is plain: whole, and good for a GET while fresh where its Vary matches.

        That is the one look-up which must be quick.
        """
        self.plain = (
            self.method != b"HEAD" and self.span is None and self.vary is not None and not self.no_cache and not self.invalid
        )

    def take_age_of(self, other: Entry) -> None:
        """It is as old as that one: both are from the same response, whose Age is read already."""
        self.initial_age = other.initial_age
        self.fresh_until = self.response_time + (self.lifetime - self.initial_age)

    def current_age(self, now: float) -> float:
        """Seconds (section 4.2.3)."""
        return self.initial_age + (now - self.response_time)

    def age(self, now: float) -> int:
        """The value of an Age field (section 5.1)."""
        return int(self.current_age(now))

    def ttl(self, now: float) -> int:
        """Seconds it stays fresh; negative where it is stale since then."""
        return int(self.lifetime) - self.age(now)

    def is_fresh(self, now: float) -> bool:
        return self.staleness(now) < 0

    def staleness(self, now: float) -> float:
        """Seconds since it went stale, less than 0 while it is fresh."""
        return now - self.fresh_until

    def invalidate(self) -> None:
        """Mark it as in need of validation before any further use (section 4.4)."""
        self.invalid = True
        self.settle()

    @property
    def has_validator(self) -> bool:
        return self.etag is not None or self.last_modified is not None

    def __repr__(self) -> str:
        return f"<Entry {self.status} {self.lifetime_source}={self.lifetime:g}>"


def entity_tag(fields: Fields) -> bytes | None:
    """The ETag field's value where it is one entity tag, or one word a careless origin left unquoted."""
    value = fields.index.get(b"etag")
    return value if value is not None and _ENTITY_TAG.fullmatch(value) else None


def is_strong(etag: bytes | None) -> bool:
    """Whether it is an entity tag that stands for one sequence of bytes (RFC 9110 section 8.8.1)."""
    return etag is not None and etag.startswith(b'"')


def partial_span(fields: Fields) -> Span | None:
    """What part of the representation a single-part 206 carries; None where Content-Range is absent or invalid."""
    match = _CONTENT_RANGE.fullmatch(fields.index.get(b"content-range", b""))
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    complete = None if match[3] == b"*" else int(match[3])
    # RFC 9110 section 14.4: last before first, or beyond the complete length, is invalid.
    if last < first or (complete is not None and last >= complete):
        return None
    return first, last + 1, complete


def cache_groups(fields: Fields, name: bytes = b"cache-groups") -> tuple[bytes, ...]:
    """The strings of a Cache-Groups or Cache-Group-Invalidation field (RFC 9875 sections 2 and 3).

    () where it is invalid or longer than GROUPS_BYTES; the first GROUPS of them.
    """
    value = fields.index.get(name)
    if value is None or len(value) > GROUPS_BYTES:
        return ()
    try:
        members = [member.value if isinstance(member, Item) else None for member in parse_list(value)]
    except ProtocolError:
        return ()
    groups = [member.encode("ascii") for member in members if type(member) is str]
    return tuple(groups[:GROUPS]) if len(groups) == len(members) else ()


def content_length(fields: Fields) -> int | None:
    try:
        return parse_length(fields.index[b"content-length"]) if b"content-length" in fields.index else None
    except ProtocolError:
        return None


def stored_fields(
    fields: Fields, control: ResponseControl, date: int, rule: OperatorRule | None = None
) -> Fields:
    """The fields that are stored and sent again (RFC 9111 section 3.1).

    Those named by Connection, by `no-cache="…"` (section 5.2.2.4) and by `private="…"` (section 5.2.2.7) go too; a Date is
    added where there is none (RFC 9110 section 6.6.1).
    """
    gone = NOT_STORED.union(fields.options(b"connection"), control.no_cache_fields, control.private_fields)
    if rule is not None and "set-cookie" in rule.ignore:
        gone |= {b"set-cookie"}
    kept = fields.copy()
    kept.remove(*(gone & kept.index.keys()))
    kept.setdefault(b"Date", format_date(date))
    return kept
