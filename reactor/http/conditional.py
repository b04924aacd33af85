"""Preconditions: RFC 9110 section 13, as pure functions over a request's fields and a representation's validators.

An entity tag is passed as its field value (`b'"x"'`, `b'W/"x"'`) or None, a modification time in whole seconds since
the epoch or None. A precondition that cannot be evaluated (no such validator, no valid date) counts as absent where the
RFC says so, and a member that is no entity tag matches nothing.
"""

from __future__ import annotations

import re

from reactor.http.dates import parse_date
from reactor.http.fields import Fields
from reactor.http.grammar import OWS

# Section 8.8.3. A comma may stand within the quotes, so a list of tags is not simply split at commas.
_ENTITY_TAG = rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_ONE_TAG = re.compile(_ENTITY_TAG)
_MEMBER = re.compile(rb"[ \t]*(?:(" + _ENTITY_TAG + rb")[ \t]*)?(?:,|\Z)")

# Section 13.2.1: methods that neither select nor modify a representation have no preconditions.
_UNCONDITIONAL = frozenset((b"CONNECT", b"OPTIONS", b"TRACE"))


def entity_tags(value: bytes) -> list[bytes]:
    """The entity tags of a list, in order; what follows a malformed member is not read."""
    tags = []
    pos = 0
    while pos < len(value) and (match := _MEMBER.match(value, pos)) is not None:
        if match[1] is not None:
            tags.append(match[1])
        pos = match.end()
    return tags


def strong_match(one: bytes, other: bytes) -> bool:
    """Section 8.8.3.2: equal, and neither of them weak."""
    return one == other and not one.startswith(b"W/")


def weak_match(one: bytes, other: bytes) -> bool:
    """Section 8.8.3.2: equal, weak or not."""
    return one.removeprefix(b"W/") == other.removeprefix(b"W/")


def evaluate(method: bytes, fields: Fields, etag: bytes | None, last_modified: int | None, now: float) -> int | None:
    """What the preconditions ask an origin server to answer instead of 2xx: 304, 412, or None to go on.

    To be asked only where a representation exists and the answer without them would be 2xx (section 13.2.1); the order
    is that of section 13.2.2. `now` (seconds since the epoch) helps to read RFC 850 dates. If-Range is `if_range`.
    """
    index = fields.index
    if method in _UNCONDITIONAL:
        return None
    if b"if-match" in index:  # step 1
        if not _if_match(index[b"if-match"], etag):
            return 412
    elif b"if-unmodified-since" in index and last_modified is not None:  # step 2
        since = parse_date(index[b"if-unmodified-since"], now)
        if since is not None and last_modified > since:
            return 412
    if not_modified(method, fields, etag, last_modified, now):  # steps 3 and 4
        return 304 if method in (b"GET", b"HEAD") else 412
    return None


def not_modified(method: bytes, fields: Fields, etag: bytes | None, last_modified: int | None, now: float) -> bool:
    """Whether If-None-Match, or without it If-Modified-Since, finds what the client has to be current.

    These two are all that a cache evaluates (RFC 9111 section 4.3.2).
    """
    index = fields.index
    if b"if-none-match" in index:
        return not _if_none_match(index[b"if-none-match"], etag)
    if b"if-modified-since" in index and last_modified is not None and method in (b"GET", b"HEAD"):
        since = parse_date(index[b"if-modified-since"], now)
        return since is not None and last_modified <= since
    return False


def if_range(fields: Fields, etag: bytes | None, last_modified: int | None, now: float) -> bool:
    """Whether a Range may be honoured: no If-Range, or one that matches strongly (section 13.1.5).

    `now` is the time at which the validators were last known to be current. A date is a strong validator only where it
    is a second or more behind that (section 8.8.2.2), and must be met exactly.
    """
    value = fields.index.get(b"if-range")
    if value is None:
        return True
    if _ONE_TAG.fullmatch(value):
        return etag is not None and strong_match(value, etag)
    date = parse_date(value, now)
    return date is not None and date == last_modified and now - date >= 1


def _if_match(value: bytes, etag: bytes | None) -> bool:
    """Section 13.1.1."""
    if value.strip(OWS) == b"*":
        return True
    return etag is not None and any(strong_match(tag, etag) for tag in entity_tags(value))


def _if_none_match(value: bytes, etag: bytes | None) -> bool:
    """Section 13.1.2."""
    if value == etag:  # by far the most frequent: one tag, as it was given
        return False
    if value.strip(OWS) == b"*":
        return False
    return etag is None or not any(weak_match(tag, etag) for tag in entity_tags(value))
