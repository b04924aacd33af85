"""What is read in one go, because others taught it, is what the states read: every line in every place of a usual head.

`properties.short_ways_lead_to_the_same` compares the two event for event; here are the heads that could part them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactor.errors import ProtocolError
from reactor.http.grammar import LIMITS
from reactor.http.parser import (
    MEMO_BLOCK_LINES,
    MEMO_HEAD_LENGTH,
    SHORT_BLOCK_LENGTH,
    WHOLE_BUFFER_LENGTH,
    Request,
    RequestParser,
    Response,
    ResponseParser,
)
from tests.reactor.http.properties import LONG_WAYS, go_together, short_ways_lead_to_the_same, teach
from tests.reactor.http.transcript import new_parser
from tests.strategies import (
    BEHIND,
    REQUEST_BLOCKS,
    REQUEST_STARTS,
    RESPONSE_BLOCKS,
    RESPONSE_STARTS,
    SPLICED_LINES,
    cuts,
    mutated,
    spliced_requests,
    spliced_responses,
)

CUT_OUT = [line for line in SPLICED_LINES if b"Cookie" in line or b"Referer" in line]
SIDES = {
    "requests": (None, REQUEST_STARTS, REQUEST_BLOCKS),
    "responses": (b"GET", RESPONSE_STARTS, RESPONSE_BLOCKS),
}


def compare(method: bytes | None, data: bytes, limits=LIMITS, ways=(False, True)) -> None:
    for as_connections_do in ways:
        go_together(new_parser(method, limits), new_parser(method, limits, LONG_WAYS), [data], as_connections_do)


def splices(head: list[bytes], line: bytes) -> list[list[bytes]]:
    """The lines of a head with one more among them, behind its last, and behind its empty line."""
    whole = [*head, b"", b""]
    return [[*whole[:at], line, *whole[at:]] for at in range(1, len(whole))]


@pytest.mark.parametrize("side", SIDES)
def test_every_line_in_every_place(side):
    method, starts, blocks = SIDES[side]
    teach()
    for start, block, line in product((starts[0], starts[2]), blocks, SPLICED_LINES):
        for lines in splices([start, *block], line):
            compare(method, b"\r\n".join(lines))


def test_every_two_of_the_lines_that_are_cut_out():
    teach()
    for first, second in product(CUT_OUT, CUT_OUT):
        for lines in splices([REQUEST_STARTS[0], *REQUEST_BLOCKS[1]], first):
            for both in splices(lines, second):
                compare(None, b"\r\n".join(both), ways=(True,))


@pytest.mark.parametrize("side", SIDES)
def test_every_start_line_and_what_may_be_behind_the_head(side):
    method, starts, blocks = SIDES[side]
    teach()
    another = b"\r\n".join([starts[0], *blocks[0]]) + b"\r\n\r\n"
    for start, block, behind, more in product(starts, blocks, BEHIND, (b"", another)):
        compare(method, b"\r\n".join([start, *block]) + b"\r\n\r\n" + behind + more)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"CONNECT", b"POST", b"head"])
def test_every_response_to_every_method(method):
    teach()
    for start, block in product(RESPONSE_STARTS, RESPONSE_BLOCKS):
        compare(method, b"\r\n".join([start, *block]) + b"\r\n\r\nhello" + b"\r\n".join([start, *block]) + b"\r\n\r\n")


def test_what_one_head_has_is_not_what_the_next_one_has():
    teach()
    some: list[list[bytes]] = [
        [], [b"Cookie: a=b"], [b"Referer: c"], [b"Cookie: d", b"Referer: e"], [b"Referer: ", b"Cookie: "],
    ]  # fmt: skip
    for block in REQUEST_BLOCKS[:3]:
        for heads in product(some, repeat=3):
            data = b"".join(b"\r\n".join([REQUEST_STARTS[0], *lines, *block]) + b"\r\n\r\n" for lines in heads)
            compare(None, data)


def test_interim_responses_are_counted_anew_behind_each_final_one():
    teach()
    final = b"\r\n".join([RESPONSE_STARTS[0], *RESPONSE_BLOCKS[0]]) + b"\r\n\r\nhello"
    hint = b"HTTP/1.1 103 a\r\n\r\n"
    for number in (LIMITS.interim, LIMITS.interim + 1):
        compare(b"GET", (hint * LIMITS.interim + final) * 2 + hint * number + final)


@pytest.mark.parametrize("side", SIDES)
def test_any_of_that_together(side):
    method = SIDES[side][0]
    strategy = spliced_requests if method is None else spliced_responses

    @settings(max_examples=300, deadline=None)
    @given(st.one_of(strategy, strategy, mutated(strategy)), cuts)
    def holds(data, places):
        short_ways_lead_to_the_same(method, data, places)

    holds()


# The borders.


def padded(lines: list[bytes], size: int) -> bytes:
    """A head of just so many bytes, its empty line included."""
    lines = [*lines, b"X-Pad: "]
    lines[-1] += b"x" * (size - sum(len(line) + 2 for line in lines) - 2)
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    assert len(head) == size
    return head


@pytest.mark.parametrize("more", [-2, -1, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("border", [WHOLE_BUFFER_LENGTH, MEMO_HEAD_LENGTH, SHORT_BLOCK_LENGTH + len(b"GET / ")])
def test_a_head_that_is_about_as_long_as_one_read_in_one_go(border, more):
    """A line too long to be remembered is in none of these; a Cookie makes the head of a request so long."""
    teach()
    for behind in (b"", b"\n", b"hello", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
        request = padded([b"GET / HTTP/1.1", b"Host: a", b"Accept: x"], border + more).replace(b"X-Pad: x", b"Cookie: x")
        compare(None, request.replace(b"Cookie: xxxx", b"Cookie: x") + behind)
        compare(None, request + behind)
        compare(b"GET", padded([b"HTTP/1.1 200 OK", b"Content-Length: 5"], border + more) + behind)


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("most", [MEMO_BLOCK_LINES, LIMITS.fields])
def test_about_as_many_lines_as_one_read_in_one_go(most, more):
    lines = [b"X-%d: a" % number for number in range(most - 1 + more)]
    for _ in range(3):
        compare(None, b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *lines]) + b"\r\n\r\n")
        compare(None, b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *lines[2:], b"Cookie: a", b"Referer: b"]) + b"\r\n\r\n")
        compare(b"GET", b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: 5", *lines[1:]]) + b"\r\n\r\nhello")


@pytest.mark.parametrize("body", [4, 5, 6])
@pytest.mark.parametrize("remembers", [True, False])
def test_about_as_much_body_as_is_allowed(body, remembers):
    limits = replace(LIMITS, body=body, remembers=remembers)
    teach()
    for method, starts, blocks in SIDES.values():
        for block in blocks:
            compare(method, b"\r\n".join([starts[0], *block]) + b"\r\n\r\nhello", limits)


# That they are taken.


class Taken(AssertionError):
    """The long way was."""


def taken(monkeypatch, kind, parser, data):
    """The next event, which must come in one go."""

    def no_long_way(self, head):
        raise Taken(head)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "_read", no_long_way)
        parser.feed(data)
        return parser.next_event()


@pytest.mark.parametrize("behind", [b"", b"hello", b"GET / HTTP/1.1\r\nHost: a\r\n\r"])
@pytest.mark.parametrize("block", REQUEST_BLOCKS, ids=lambda block: block[-1].decode())
@pytest.mark.parametrize("start", [REQUEST_STARTS[0], *REQUEST_STARTS[2:5]])
def test_a_request_that_was_met_twice_comes_in_one_go(start, block, behind, monkeypatch):
    teach()
    for lines in ([], [b"Cookie: a"], [b"Referer: b"], [b"Referer: ", b"Cookie: "]):
        for at in range(1, len(block) + 2):
            head = [start, *block]
            head[at:at] = lines
            data = b"\r\n".join(head) + b"\r\n\r\n" + behind
            assert type(taken(monkeypatch, RequestParser, RequestParser(), data)) is Request


@pytest.mark.parametrize("behind", [b"", b"hello", b"hell"])
@pytest.mark.parametrize("block", RESPONSE_BLOCKS[:3], ids=lambda block: block[0].decode())
def test_a_usual_response_comes_in_one_go(block, behind, monkeypatch):
    teach()
    data = b"\r\n".join([RESPONSE_STARTS[0], *block]) + b"\r\n\r\n"
    for method in (b"GET", b"POST"):
        assert type(taken(monkeypatch, ResponseParser, ResponseParser(method), data + behind)) is Response


@pytest.mark.parametrize("start", RESPONSE_STARTS[4:])
@pytest.mark.parametrize("block", RESPONSE_BLOCKS, ids=lambda block: block[0].decode())
def test_no_other_response_does(start, block, monkeypatch):
    compare(b"GET", b"\r\n".join([start, *block]) + b"\r\n\r\n")
    if start not in (b"HTTP/1.1 999 a", b"HTTP/1.2 200 OK") or block not in RESPONSE_BLOCKS[:3]:
        with pytest.raises((Taken, ProtocolError)):
            taken(monkeypatch, ResponseParser, ResponseParser(), b"\r\n".join([start, *block]) + b"\r\n\r\n")
