"""The length of a body, step by step as in RFC 9112 section 6.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.errors import ProtocolError
from reactor.http.fields import Fields
from reactor.http.framing import CHUNKED, UNTIL_CLOSE, body_length, parse_length
from tests.strategies import thorough

BOTH = [("Transfer-Encoding", "chunked"), ("Content-Length", "5")]


@pytest.mark.parametrize(
    ("status", "method"),
    [
        (200, b"HEAD"),
        (404, b"HEAD"),
        (100, b"GET"),
        (101, b"GET"),
        (103, b"POST"),
        (204, b"GET"),
        (304, b"GET"),
        (200, b"CONNECT"),
        (299, b"CONNECT"),
    ],
)
def test_steps_1_and_2_no_body_whatever_the_fields_say(status, method):
    for pairs in ([], [("Content-Length", "5")], [("Transfer-Encoding", "chunked")], BOTH, [("Content-Length", "x")]):
        assert body_length(Fields(pairs), 11, status, method) == 0


@pytest.mark.parametrize(("status", "method"), [(0, b""), (200, b"GET"), (407, b"CONNECT")])
def test_steps_3_to_6(status, method):
    def length(*pairs, version=11):
        return body_length(Fields(pairs), version, status, method)

    assert length(("Transfer-Encoding", "chunked")) == CHUNKED
    assert length(("Content-Length", "5")) == length(("Content-Length", "5"), version=10) == 5
    with pytest.raises(ProtocolError, match="both"):
        length(*BOTH)
    with pytest.raises(ProtocolError, match="1.0"):
        length(("Transfer-Encoding", "chunked"), version=10)


def test_steps_7_and_8():
    assert body_length(Fields(), 11) == 0
    assert body_length(Fields(), 11, 200, b"GET") == UNTIL_CLOSE


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"cow", 501), (b"cow, chunked", 501), (b"gzip, chunked", 501), (b"x-cow,deflate,chunked", 501),
        (b"gzip", 400), (b"identity", 400), (b"chunked, chunked", 400), (b"chunked, cow", 400), (b"chunked, gzip", 400),
        (b"", 400), (b",", 400), (b"chunked,", 400), (b",chunked", 400), (b"chunked;a=b", 400), (b"cow;a", 400),
        (b"chun ked", 400),
        (b"chunked\xa0", 400), (b'"chunked"', 400), (b"chunked\tgzip", 400),
    ],
)  # fmt: skip
def test_transfer_codings(value, status):
    with pytest.raises(ProtocolError) as caught:
        body_length(Fields([(b"Transfer-Encoding", value)]), 11)
    assert caught.value.status == status


def test_a_second_transfer_encoding_line_is_seen():
    with pytest.raises(ProtocolError):
        body_length(Fields([("Transfer-Encoding", "chunked"), ("transfer-encoding", "identity")]), 11)


@pytest.mark.parametrize("value", [b"0", b"7", b"007", b"5, 5", b"5,5 ,\t5", b"9007199254740991"])
def test_lengths(value):
    assert parse_length(value) == int(value.partition(b",")[0])


@pytest.mark.parametrize(
    "value",
    [
        b"", b" ", b"+5", b"-5", b"5_0", b"0x5", b"5.0", b"5e1", b"5 0", b"\xb2", b"\xd9\xa5", b"\xef\xbc\x95", b"5\n",
        b"\x0c5", b"five",
        b"5, 6", b"5,05", b"5,", b",5", b",", b"5;5", b"9007199254740992", b"18446744073709551616", b"1" * 5000, b"0" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_length(value):
    with pytest.raises(ProtocolError):
        parse_length(value)


@thorough
@given(st.one_of(st.binary(max_size=12), st.text("0123456789,+-_ \t", max_size=12).map(str.encode)))
def test_a_length_is_digits_and_nothing_else(value):
    try:
        length = parse_length(value)
    except ProtocolError:
        return
    members = {member.strip(b" \t") for member in value.split(b",")}
    (only,) = members
    assert only and set(only) <= set(b"0123456789") and length == int(only)
