"""The path of a request target as the names it is made of (RFC 3986 sections 2.1 and 3.3)."""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from reactor.errors import ProtocolError

_ENCODED = re.compile(rb"(?:[^%]|%[0-9A-Fa-f]{2})*")
_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SEGMENT_SAFE = "!$&'()*+,;=:@-._~"  # pchar, which needs no encoding within a segment


def decode_segment(segment: bytes) -> bytes:
    """Percent-decode once; raises ProtocolError where a percent sign is followed by anything but two digits."""
    if b"%" not in segment:
        return segment
    if _ENCODED.fullmatch(segment) is None:
        raise ProtocolError("invalid percent-encoding in the path")
    return unquote_to_bytes(segment)


def file_segments(path: bytes) -> tuple[list[bytes], bool]:
    """A path without its query → (the file names it is made of, whether it ends as a directory's does).

    Empty and dot segments are resolved, so that no name is empty, `.` or `..`, or holds a slash, a backslash or a NUL.
    Raises ProtocolError: 404 for a path that leads above where it began or that encodes a separator, 400 for one that is
    malformed.
    """
    names: list[bytes] = []
    name = b""
    for segment in path.split(b"/"):
        name = decode_segment(segment)
        if name in (b"", b"."):
            continue
        if name == b"..":
            if not names:
                raise ProtocolError("the path leads above the root", 404)
            names.pop()
            continue
        if b"\0" in name:
            raise ProtocolError("NUL in the path")
        if b"/" in name or b"\\" in name:
            raise ProtocolError("encoded separator in the path", 404)
        names.append(name)
    return names, bool(path) and name in (b"", b".", b"..")


def encode_segment(name: bytes) -> bytes:
    """A file name as a segment of a path; it can hold no separator and begin no scheme or authority."""
    return quote_from_bytes(name, safe=_SEGMENT_SAFE).encode("ascii")


def normal_path(path: bytes) -> bytes:
    """The path with what needed no encoding decoded, and the rest encoded in upper case (RFC 3986 section 6.2.2)."""
    if b"%" not in path:
        return path
    return _ESCAPE.sub(_normal_escape, path)


def _normal_escape(match: re.Match[bytes]) -> bytes:
    octet = int(match[0][1:], 16)
    return bytes((octet,)) if octet in _UNRESERVED else match[0].upper()
