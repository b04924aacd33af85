"""Heads and chunks → bytes (RFC 9112). Fields were validated when they became Fields; the rest is validated here."""

from __future__ import annotations

from http import HTTPStatus

from reactor.errors import ProtocolError
from reactor.http.fields import Fields
from reactor.http.grammar import FIELD_TABLE, TARGET_TABLE, TOKEN

REASONS = {int(status): status.phrase.encode("ascii") for status in HTTPStatus}
# Renamed by RFC 9110 section 15; the standard library still has the older phrases.
REASONS.update(
    {413: b"Content Too Large", 414: b"URI Too Long", 416: b"Range Not Satisfiable", 422: b"Unprocessable Content"}
)
LAST_CHUNK = b"0\r\n\r\n"

_status_lines: dict[tuple[int, bytes | None], bytes] = {}
MEMO_STATUS_LINES = 256  # distinct status and reason; beyond that they are made each time


def status_line(status: int, reason: bytes | None = None) -> bytes:
    """`HTTP/1.1 200 OK` CRLF; without a reason, the registered one (RFC 9112 section 4).

    Raises ProtocolError for a status that is not of three digits, or a reason with an octet that has no place there.
    """
    line = _status_lines.get((status, reason))
    if line is None:
        phrase = REASONS.get(status, b"") if reason is None else reason
        if not 100 <= status <= 999 or phrase.translate(FIELD_TABLE) != phrase:
            raise ProtocolError("invalid status or reason phrase", 500)
        line = b"HTTP/1.1 %d %b\r\n" % (status, phrase)
        if len(_status_lines) < MEMO_STATUS_LINES:
            _status_lines[(status, reason)] = line
    return line


def request_line(method: bytes, target: bytes) -> bytes:
    """`GET /path HTTP/1.1` CRLF; raises ProtocolError where method or target could end the line or shift its parts."""
    if not target or target.translate(TARGET_TABLE) != target or TOKEN.fullmatch(method) is None:
        raise ProtocolError("invalid method or request target")
    return b"%b %b HTTP/1.1\r\n" % (method, target)


def chunk(data: bytes | memoryview) -> list[bytes | memoryview]:
    """One chunk as buffers to be sent together (RFC 9112 section 7.1); none for no data, since that would be the end."""
    size = len(data)
    return [b"%x\r\n" % size, data, b"\r\n"] if size else []


def last_chunk(trailers: Fields | None) -> bytes:
    """The end of a chunked body, with its trailer section."""
    if trailers is None or not len(trailers):
        return LAST_CHUNK
    return b"0\r\n%b\r\n" % trailers.wire()
