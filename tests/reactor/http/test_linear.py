"""No value, however hostile, takes time that grows with the square of its length.

Nothing is timed: what were quadratic would need hours for a value of SIZE octets.
"""

from __future__ import annotations

import contextlib

import pytest

from reactor.errors import ProtocolError
from reactor.http.conditional import entity_tags
from reactor.http.dates import parse_date
from reactor.http.fields import Fields, parse_line, split_tokens
from reactor.http.forms import MultipartParser, parse_urlencoded
from reactor.http.framing import body_length, parse_length
from reactor.http.grammar import CHUNK_LINE, REQUEST_LINE, STATUS_LINE
from reactor.http.negotiation import weights
from reactor.http.parameters import split_parameters
from reactor.http.paths import file_segments, normal_path
from reactor.http.ranges import parse_range
from reactor.http.structured import parse_dictionary, parse_item, parse_list
from reactor.http.uri import split_absolute, split_authority

SIZE = 256 * 1024

PARTS = [
    b" ", b"\t ", b",", b", ", b";", b"; ", b"a", b"1", b"-", b"1-", b'"', b'\\"', b"%", b"%41", b"%4", b"(", b"=", b"a=", b":",
    b"/", b"../",
]  # fmt: skip
READERS = {
    "entity tags": (entity_tags, b'"a",'),
    "range": (lambda value: parse_range(value, 100), b"bytes=0-1,"),
    "parameters": (split_parameters, b"a;"),
    "parameter in quotes": (split_parameters, b'a;b="'),
    "weights": (weights, b"a,"),
    "weight": (weights, b"a;q="),
    "tokens": (split_tokens, b"a,"),
    "length": (parse_length, b"1,"),
    "coding": (lambda value: body_length(Fields([(b"Transfer-Encoding", value)]), 11), b"chunked,"),
    "date": (lambda value: parse_date(value, 0), b"Sun, "),
    "list": (parse_list, b"a,"),
    "dictionary": (parse_dictionary, b"a=1,"),
    "item": (parse_item, b"a;"),
    "string": (parse_item, b'"'),
    "bytes": (parse_item, b":"),
    "display string": (parse_item, b'%"'),
    "inner list": (parse_list, b"(a"),
    "authority": (split_authority, b"a"),
    "address": (split_authority, b"["),
    "absolute form": (split_absolute, b"http://"),
    "field line": (parse_line, b"A: "),
    "field name": (parse_line, b"A"),
    "request line": (REQUEST_LINE.fullmatch, b"GET "),
    "status line": (STATUS_LINE.fullmatch, b"HTTP/1.1 200 "),
    "chunk line": (CHUNK_LINE.fullmatch, b"1;a"),
    "file": (file_segments, b"/a"),
    "path": (normal_path, b"/"),
    "boundary": (MultipartParser.for_type, b"multipart/form-data; boundary="),
    "form": (parse_urlencoded, b"a="),
}


@pytest.mark.parametrize("name", READERS)
def test_hostile_values(name):
    read, start = READERS[name]
    for part in PARTS:
        for end in (b"", b"x", b"5", b"\x00"):
            with contextlib.suppress(ProtocolError):
                read(start + part * (SIZE // len(part)) + end)
