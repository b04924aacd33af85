"""The patterns and sets of octets say what the RFCs say, octet by octet, and none of them can be made slow."""

from __future__ import annotations

import re

import pytest

from reactor.http import grammar

ALPHA = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
DIGIT = b"0123456789"


def accepted(pattern: re.Pattern[bytes], before: bytes = b"", after: bytes = b"") -> bytes:
    """The octets that may stand alone between `before` and `after`."""
    return bytes(code for code in range(256) if pattern.fullmatch(before + bytes((code,)) + after))


def test_token_octets():
    assert sorted(accepted(grammar.TOKEN)) == sorted(b"!#$%&'*+-.^_`|~" + DIGIT + ALPHA)


def test_field_octets():
    allowed = [0x09, 0x20, *range(0x21, 0x7F), *range(0x80, 0x100)]
    assert sorted(grammar.FIELD_OCTETS) == allowed


def test_target_octets():
    assert sorted(grammar.TARGET_OCTETS) == [code for code in range(0x21, 0x7F) if code != ord("#")]
    assert accepted(grammar.REQUEST_LINE, b"GET /", b" HTTP/1.1") == bytes(range(0x21, 0x7F))


@pytest.mark.parametrize(
    ("table", "octets"), [(grammar.TARGET_TABLE, grammar.TARGET_OCTETS), (grammar.FIELD_TABLE, grammar.FIELD_OCTETS)]
)
def test_tables_leave_alone_what_is_allowed_and_nothing_else(table, octets):
    for code in range(256):
        octet = bytes((code,))
        assert (octet.translate(table) == octet) == (octet in octets)


def test_quoted_string_octets():
    pattern = re.compile(grammar.QUOTED_STRING)
    plain = [code for code in grammar.FIELD_OCTETS if code not in b'"\\']
    assert sorted(accepted(pattern, b'"', b'"')) == sorted(plain)
    assert sorted(accepted(pattern, b'"\\', b'"')) == sorted(grammar.FIELD_OCTETS)


@pytest.mark.parametrize(
    ("pattern", "good"),
    [
        (grammar.TOKEN, b"a"),
        (grammar.DIGITS, b"1"),
        (grammar.REQUEST_LINE, b"GET / HTTP/1.1"),
        (grammar.STATUS_LINE, b"HTTP/1.1 200 OK"),
        (grammar.CHUNK_LINE, b"1;a=b"),
    ],
)
def test_no_pattern_takes_a_final_line_end(pattern, good):
    assert pattern.fullmatch(good)
    for end in (b"\n", b"\r", b"\r\n", b"\0"):
        assert not pattern.fullmatch(good + end)
        assert not pattern.fullmatch(end + good)


@pytest.mark.parametrize("status", [b"099", b"000", b"20", b"2000", b"2xx", b"\xb200", b"+20"])
def test_status_has_three_digits(status):
    assert not grammar.STATUS_LINE.fullmatch(b"HTTP/1.1 " + status + b" OK")


@pytest.mark.parametrize(
    "line", [b"a", b"0", b"ffFF", b"1;a", b"1 ; a", b"1;a=b;c", b'1;a="b;c"', b'1;a="\\"" ;b', b"1;a\t=\tb"]
)
def test_chunk_lines(line):
    assert grammar.CHUNK_LINE.fullmatch(line)


@pytest.mark.parametrize(
    "line", [b"", b";a", b" 1", b"1 ", b"1;", b"1;;a", b"1;a=", b'1;a="b', b'1;a=b"', b"1;a b", b"g", b"1,2", b"0x1"]
)
def test_bad_chunk_lines(line):
    assert not grammar.CHUNK_LINE.fullmatch(line)


def test_a_hostile_chunk_line_is_read_in_no_time():
    # Each would take longer than the age of the universe, were there two ways to read one of its parts.
    for part in (b";a", b" ;a", b'="a"', b";a=b ", b"\t", b'\\"', b"a", b" "):
        assert not grammar.CHUNK_LINE.fullmatch(b"1;a" + part * 400 + b"\x00")
        assert not grammar.CHUNK_LINE.fullmatch(b'1;a="' + part * 400 + b"\x00")


def test_the_limits_leave_room_for_what_is_remembered():
    from reactor.http import incremental, parser

    assert min(grammar.LIMITS.start_line, grammar.LIMITS.field_line, grammar.LIMITS.head) >= parser.MEMO_HEAD_LENGTH
    assert grammar.LIMITS.chunk_line >= incremental.MEMO_CHUNK_LINE_LENGTH
