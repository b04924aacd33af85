"""What the writer writes: one spelling each, and nothing that could end a line or a body too early."""

from __future__ import annotations

import pytest
from hypothesis import example, given

from reactor.errors import ProtocolError
from reactor.http.fields import Fields
from reactor.http.parser import Request, Response
from reactor.http.writer import LAST_CHUNK, REASONS, chunk, last_chunk, request_line, status_line
from tests.reactor.http.properties import forwarded, next_message
from tests.reactor.http.transcript import new_parser
from tests.strategies import Message, requests, responses, thorough


def test_status_line():
    assert status_line(200) == b"HTTP/1.1 200 OK\r\n"
    assert status_line(200, b"") == b"HTTP/1.1 200 \r\n"
    assert status_line(299) == b"HTTP/1.1 299 \r\n"
    assert (status_line(100, b""), status_line(999)) == (b"HTTP/1.1 100 \r\n", b"HTTP/1.1 999 \r\n")
    assert status_line(404, b"Tr\xe8s absent") == b"HTTP/1.1 404 Tr\xe8s absent\r\n"
    assert REASONS[413] == b"Content Too Large"


@pytest.mark.parametrize(
    ("status", "reason"), [(200, b"a\r\nb"), (200, b"\n"), (200, b"\0"), (99, None), (1000, None), (-200, None)]
)
def test_what_is_no_status_line(status, reason):
    with pytest.raises(ProtocolError):
        status_line(status, reason)


def test_request_line():
    assert request_line(b"GET", b"/a?b") == b"GET /a?b HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (b"", b"/"),
        (b"G T", b"/"),
        (b"GET\r\n", b"/"),
        (b"GET", b""),
        (b"GET", b"/ a"),
        (b"GET", b"/\r\n"),
        (b"GET", b"/#a"),
        (b"GET", b"/\xe9"),
        (b"GET", b"/\0"),
    ],
)
def test_what_is_no_request_line(method, target):
    with pytest.raises(ProtocolError):
        request_line(method, target)


def test_chunks():
    assert b"".join(chunk(b"x" * 26)) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert b"".join(chunk(memoryview(b"abc")[1:])) == b"2\r\nbc\r\n"
    assert chunk(b"") == [], "an empty chunk would be the last one"
    assert last_chunk(None) == last_chunk(Fields()) == LAST_CHUNK == b"0\r\n\r\n"
    assert last_chunk(Fields([("X-Sum", "7")])) == b"0\r\nX-Sum: 7\r\n\r\n"


@thorough
@given(requests())
@example(Message((b"GET", b"/", b"HTTP/1.1"), [(b"Host", b"a")], wire=b"GET / HTTP/1.1\r\nHost:a\r\n\r\n"))
def test_a_request_is_read_as_it_was_meant(message):
    parser = new_parser(None)
    parser.feed(message.wire)
    head, body, end = next_message(parser)
    assert isinstance(head, Request)
    method, target, version = message.start
    assert (head.method, head.target, head.version) == (method, target, 10 if version == b"HTTP/1.0" else 11)
    assert list(head.fields) == message.fields
    assert body == message.body
    assert list(end.trailers or ()) == message.trailers
    parser.resume()  # behind a CONNECT or an Upgrade
    assert parser.buffered == 0 and parser.between_messages
    written_and_read(head, body, end, None)


@thorough
@given(responses())
def test_a_response_is_read_as_it_was_meant(message):
    parser = new_parser(message.request_method)
    parser.feed(message.wire)
    head, body, end = next_message(parser)
    assert isinstance(head, Response)
    version, status, reason = message.start
    assert (head.version, head.status, head.reason) == (10 if version == b"HTTP/1.0" else 11, int(status), reason)
    assert list(head.fields) == message.fields
    assert body == message.body
    assert list((end and end.trailers) or ()) == message.trailers
    assert parser.buffered == 0
    written_and_read(head, body, end, message.request_method)


def written_and_read(head, body, end, method):
    parser = new_parser(method)
    parser.feed(forwarded(head, body, end))
    again, body_again, end_again = next_message(parser)
    assert list(again.fields) == list(head.fields) and body_again == body
    assert list((end_again and end_again.trailers) or ()) == list((end and end.trailers) or ())
