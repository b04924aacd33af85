"""What a client gets from a stored response: all of it, a part, or word that it has it already (RFC 9111 section 4.3.2)."""

from __future__ import annotations

from typing import Final, NamedTuple

from cache.entry import Entry
from cache.rules import UNKNOWN_LENGTH
from reactor.http.conditional import if_range, not_modified
from reactor.http.fields import Fields
from reactor.http.parser import Request
from reactor.http.ranges import Range, parse_range


class Answer(NamedTuple):
    """`status` is the stored one, 304, 206 or 416; `ranges` are half-open places in the representation, for a 206 alone.

    The body of a stored part begins at `entry.span[0]` of the representation.
    """

    status: int
    ranges: tuple[Range, ...] = ()


NOT_MODIFIED: Final = Answer(304)
UNSATISFIABLE: Final = Answer(416)


def answer(request: Request, entry: Entry, length: int, wall: float) -> Answer:
    """How a request with conditions or a range is answered from the stored response that was chosen for it.

    `length` is that of the stored body in bytes; `wall` (seconds since the epoch) helps to read RFC 850 dates. The order is
    that of RFC 9110 section 13.2.2, without the preconditions that are for the origin.
    """
    # RFC 9110 section 13.2.1: conditions count only where the answer without them would be 2xx.
    if 200 <= entry.status < 300 and _not_modified(request, entry, wall):
        return NOT_MODIFIED
    value = request.fields.index.get(b"range")
    # RFC 9110 section 14.2: Range is for GET, and for what would otherwise be a 200.
    if value is None or request.method != b"GET" or entry.status not in (200, 206):
        return Answer(entry.status)
    if not if_range(request.fields, entry.etag, entry.last_modified, entry.date):
        return Answer(entry.status)
    if entry.span is not None:
        length = UNKNOWN_LENGTH if entry.span[2] is None else entry.span[2]
    ranges = parse_range(value, length)
    if ranges is None:
        return Answer(entry.status)
    return Answer(206, tuple(ranges)) if isinstance(ranges, list) else UNSATISFIABLE


def _not_modified(request: Request, entry: Entry, wall: float) -> bool:
    # RFC 9111 section 4.3.2: without Last-Modified, If-Modified-Since is compared with the stored Date.
    modified = entry.date if entry.last_modified is None else entry.last_modified
    return not_modified(request.method, request.fields, entry.etag, modified, wall)


_NOT_IN_304: Final = (
    b"content-type", b"content-encoding", b"content-language", b"content-length", b"content-range", b"content-md5",
    b"content-digest",
)  # fmt: skip


def not_modified_fields(entry: Entry) -> Fields:
    """The fields of a 304 made from a stored response (RFC 9110 section 15.4.5).

    Metadata of the representation goes, but for what keeps other caches up to date.
    """
    fields = entry.fields.copy()
    fields.remove(*_NOT_IN_304)
    if entry.etag is not None:
        fields.remove(b"last-modified")
    return fields
