"""Byte ranges: RFC 9110 section 14. Positions are half-open `(start, stop)` pairs, as Python's slices are."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, Literal, NamedTuple

MAX_RANGES = 64  # members of one Range field; with more, the field is ignored (section 14.2 allows it)
MAX_DIGITS = 18  # beyond that many a position is past the end of anything

# Section 14.1.1. An empty member is allowed by the list rule (section 5.6.1.2) and means nothing.
_SET = re.compile(rb"[Bb][Yy][Tt][Ee][Ss]=([0-9\-, \t]*)")
_SPEC = re.compile(rb"[ \t]*(?:([0-9]*)-([0-9]*)[ \t]*)?")


class Unsatisfiable(Enum):
    """No range of the set overlaps the representation: 416 (section 15.5.17)."""

    UNSATISFIABLE = "unsatisfiable"


UNSATISFIABLE: Final = Unsatisfiable.UNSATISFIABLE

Range = tuple[int, int]
Ranges = list[Range] | Literal[Unsatisfiable.UNSATISFIABLE]


def parse_range(value: bytes, length: int) -> Ranges | None:
    """A Range field's value against a representation of `length` bytes.

    The ranges to send, in the order asked for and coalesced; UNSATISFIABLE; or None where the field is to be ignored:
    another unit, malformed, too many ranges, or the end of an empty representation (which no Content-Range can express).
    """
    found = _SET.fullmatch(value)
    if found is None:
        return None
    specs = found[1].split(b",")
    if len(specs) > MAX_RANGES:
        return None
    ranges: list[Range] = []
    given = False
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None:
            return None
        if match[1] is None:
            continue
        given = True
        found_range = _resolve(match[1], match[2], length)
        if found_range is None:
            return None
        if found_range[0] < found_range[1]:
            ranges.append(found_range)
    if not given:
        return None
    return coalesce(ranges) if ranges else UNSATISFIABLE


def _resolve(first: bytes, last: bytes, length: int) -> Range | None:
    """One range-spec against a length: empty where it is unsatisfiable, None where the whole set is to be ignored."""
    if first:
        start = _position(first)
        stop = _position(last) + 1 if last else max(start + 1, length)
        return (start, min(stop, length)) if start < stop else None  # section 14.1.1: last before first is invalid
    if not last:
        return None
    suffix = _position(last)
    if suffix and not length:
        return None
    return max(0, length - suffix), length


def _position(digits: bytes) -> int:
    if len(digits) > MAX_DIGITS:
        digits = digits.lstrip(b"0")[: MAX_DIGITS + 1] or b"0"
    return int(digits)


def coalesce(ranges: list[Range]) -> list[Range]:
    """Join ranges that overlap or touch (section 15.3.7.2), so that no byte is sent twice.

    A joined range stands where the first of its members was asked for.
    """
    if len(ranges) == 1:
        return ranges
    joined: list[tuple[int, int, int]] = []  # place, start, stop
    for place, (start, stop) in sorted(enumerate(ranges), key=lambda item: item[1]):
        if joined and start <= joined[-1][2]:
            before, first, last = joined[-1]
            joined[-1] = (min(place, before), first, max(stop, last))
        else:
            joined.append((place, start, stop))
    joined.sort()
    return [(start, stop) for _, start, stop in joined]


def content_range(start: int, stop: int, length: int) -> bytes:
    """The Content-Range of a 206, or of one of its parts (section 14.4)."""
    return b"bytes %d-%d/%d" % (start, stop - 1, length)


def unsatisfied_range(length: int) -> bytes:
    """The Content-Range of a 416."""
    return b"bytes */%d" % length


class Multipart(NamedTuple):
    """A multipart/byteranges body: each part is its own head, then the bytes from start to stop; `end` closes it."""

    content_type: bytes
    parts: list[tuple[bytes, int, int]]
    end: bytes
    length: int  # of the whole body in bytes


def multipart(ranges: list[Range], length: int, content_type: bytes | None, boundary: bytes) -> Multipart:
    """Lay out several ranges of a representation of `length` bytes (section 14.6).

    `boundary` must not occur in what is sent: the caller takes a random one, of token characters, at most 70 long.
    """
    kind = b"" if content_type is None else b"Content-Type: %b\r\n" % content_type
    parts: list[tuple[bytes, int, int]] = []
    total = 0
    for start, stop in ranges:
        lead = b"\r\n--" if parts else b"--"
        head = b"%b%b\r\n%bContent-Range: %b\r\n\r\n" % (lead, boundary, kind, content_range(start, stop, length))
        parts.append((head, start, stop))
        total += len(head) + stop - start
    end = b"\r\n--%b--\r\n" % boundary
    return Multipart(b"multipart/byteranges; boundary=" + boundary, parts, end, total + len(end))
