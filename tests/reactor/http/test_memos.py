"""What is remembered of bytes from the network: each memo holds so many and so long ones, and begins anew at its limit."""

from __future__ import annotations

import pytest

from reactor.http import dates, fields, incremental, negotiation, parser, uri, writer
from reactor.http.parser import NEED_DATA, RequestParser, ResponseParser

KNOWN_CODINGS = negotiation.accepted_codings.__self__  # type: ignore[attr-defined]


def read(reader: RequestParser | ResponseParser, data: bytes) -> None:
    reader.feed(data)
    while reader.next_event() is not NEED_DATA:
        pass


def read_block(number: int) -> None:
    """A head of lines that were met before, so that it is remembered."""
    for _ in range(2):
        lines = b"X-A: %d\r\nX-B: %d\r\n" % (number % 64, number // 64)
        read(RequestParser(), b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")


def read_status_line(number: int) -> None:
    read(ResponseParser(), b"HTTP/1.1 200 OK %d\r\nContent-Length: 0\r\n\r\n" % number)


def read_chunk_line(digits: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    read(RequestParser(), head + digits + b"\r\n" + b"x" * int(digits, 16) + b"\r\n0\r\n\r\n")


def fixdate(second: int) -> bytes:
    return dates.format_date(1_700_000_000 + second)


# The memo, how many it holds, and what teaches it one more.
MEMOS = {
    "lines": (fields.known_lines, fields.MEMO_LINES, lambda number: fields.parse_line(b"X-A: %d" % number)),
    "names": (fields._lower, fields.MEMO_NAMES, lambda number: fields.parse_line(b"X-%d:" % number)),
    "authorities": (uri._authorities, uri.MEMO_AUTHORITIES, lambda number: uri.split_authority(b"a-%d" % number)),
    "blocks": (parser._known_blocks, parser.MEMO_BLOCKS, read_block),
    "status lines": (parser._known_status_lines, parser.MEMO_STATUS_LINES, read_status_line),
    "chunk lines": (incremental._chunk_sizes, incremental.MEMO_CHUNK_LINES - 1, lambda n: read_chunk_line(b"%x" % (n + 1))),
    "dates": (dates._known, dates.MEMO_DATES, lambda number: dates.parse_date(fixdate(number), 0)),
    "codings": (KNOWN_CODINGS, negotiation.MEMO_VALUES, lambda number: negotiation.accepted_codings(b"a-%d" % number)),
}


@pytest.mark.parametrize("name", MEMOS)
def test_a_memo_fills_up_and_begins_anew(name):
    memo, most, teach = MEMOS[name]
    memo.clear()
    beside = name == "chunk lines"  # the last chunk's line is remembered too
    for number in range(most):
        teach(number)
    assert len(memo) == most + beside
    teach(most)
    assert len(memo) == 1 + beside


# The memo, the length of what it remembers at the most, and what teaches it something so long.
LENGTHS = {
    "lines": (fields.known_lines, fields.MEMO_LINE_LENGTH, lambda n: fields.parse_line(b"X-A: " + b"a" * (n - 5))),
    "names": (fields._lower, fields.MEMO_NAME_LENGTH, lambda n: fields.parse_line(b"a" * n + b": b")),
    "authorities": (uri._authorities, uri.MEMO_AUTHORITY_LENGTH, lambda n: uri.split_authority(b"a" * n)),
    "status lines": (
        parser._known_status_lines,
        parser.MEMO_STATUS_LINE_LENGTH,
        lambda n: read(ResponseParser(), b"HTTP/1.1 204 " + b"a" * (n - 13) + b"\r\n\r\n"),
    ),
    "chunk lines": (
        incremental._chunk_sizes,
        incremental.MEMO_CHUNK_LINE_LENGTH,
        lambda n: read_chunk_line(b"%0*x" % (n - 2, 1)),
    ),
    "codings": (KNOWN_CODINGS, negotiation.MEMO_VALUE_LENGTH, lambda n: negotiation.accepted_codings(b"a" * n)),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_a_memo_keeps_nothing_longer(name):
    memo, most, teach = LENGTHS[name]
    memo.clear()
    teach(most + 1)
    assert max(map(len, memo), default=0) < most
    teach(most)
    assert max(map(len, memo)) == most


def block_of(lines: int, size: int) -> bytes:
    """The block of a request with so many lines and octets, its version included."""
    start = b"HTTP/1.1\r\nHost: a\r\n"
    room = size - len(start) - 2 - (lines - 1) * len(b"X-00: \r\n")
    values = [room // (lines - 1) + (number < room % (lines - 1)) for number in range(lines - 1)]
    return start + b"".join(b"X-%02d: %s\r\n" % (number, b"a" * length) for number, length in enumerate(values)) + b"\r\n"


@pytest.mark.parametrize(
    ("lines", "size", "remembered"),
    [
        (parser.MEMO_BLOCK_LINES, 1800, True),
        (parser.MEMO_BLOCK_LINES + 1, 1800, False),
        (30, parser.MEMO_BLOCK_LENGTH, True),
        (30, parser.MEMO_BLOCK_LENGTH + 1, False),
    ],
)
def test_the_size_of_a_block_that_is_remembered(lines, size, remembered):
    block = block_of(lines, size)
    assert len(block) == size
    for _ in range(3):
        read(RequestParser(), b"GET / " + block)
    assert (block in parser._known_blocks) == remembered


def test_status_lines_are_written_from_memory_up_to_a_number():
    writer._status_lines.clear()
    for number in range(2 * writer.MEMO_STATUS_LINES):
        assert writer.status_line(200, b"%d" % number) == b"HTTP/1.1 200 %d\r\n" % number
    assert len(writer._status_lines) == writer.MEMO_STATUS_LINES
