"""The same bytes to our parsers and to the standard library's `http.server` and `http.client`.

Where the two disagree the table says why; a disagreement that is not in it, or one in it that is none any more, fails.
Verdicts are a status for what is refused, or what the message says: for requests the method, target, body length (None
where nothing tells it, the library does not decode bodies of requests) and whether the connection is kept; for
responses the status and the body.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import io
import re

import pytest
from hypothesis import given

from reactor.errors import ProtocolError
from tests.reactor.http.properties import next_message
from tests.reactor.http.transcript import new_parser
from tests.strategies import requests, responses, thorough

GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
OK = b"HTTP/1.1 200 OK\r\n"

LENIENT_LINES = "the library takes a bare LF for a line end; two readers who differ on that see two messages"
NO_HOST = "the library does not look at Host; RFC 9112 section 3.2 demands 400"
SPLIT = "the library splits at any white space and strips; RFC 9112 section 3 has single spaces"
NO_FRAMING = "the library leaves the body, and so the framing, to its user"
DEFECTS = (
    "the library's fields are those of e-mail: what is malformed ends the head, or is noted as a defect and passed over"
)
NO_TARGET = "the library does not look at the target"
LOOSE_NUMBERS = "int() takes signs, underscores, white space and other scripts' digits"

# name, bytes, why ours is not the library's verdict (None where it is)
REQUESTS = [
    ("plain", GET + b"Host: a\r\n\r\n", None),
    ("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", None),
    ("HTTP/1.0 kept alive", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", None),
    ("closing", GET + b"Host: a\r\nConnection: close\r\n\r\n", None),
    (
        "closing, in a list",
        GET + b"Host: a\r\nConnection: close, TE\r\n\r\n",
        "the library compares the whole value of Connection",
    ),
    ("body", POST + b"Content-Length: 2\r\n\r\nhi", None),
    ("major version 2", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", None),
    (
        "major version 0",
        b"GET / HTTP/0.9\r\n\r\n",
        "the library answers 0.9 with any version below 1.1; we know only major version 1",
    ),
    (
        "version of two digits",
        b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        "RFC 9112 section 2.3 has one digit; the library allows ten",
    ),
    ("version in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n", None),
    ("no version", b"GET /\r\n\r\n", "the library still speaks HTTP/0.9"),
    ("request line too long", b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", None),
    (
        "request line of 9000 octets",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        "the library's limit is 64 KiB, ours 8",
    ),
    ("two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", SPLIT),
    ("tab as space", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", SPLIT),
    ("vertical tab as space", b"GET\x0b/ HTTP/1.1\r\nHost: a\r\n\r\n", SPLIT),
    ("no-break space as space", b"GET\xa0/ HTTP/1.1\r\nHost: a\r\n\r\n", SPLIT),
    ("space at the end", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", SPLIT),
    ("four words", b"GET / / HTTP/1.1\r\nHost: a\r\n\r\n", None),
    ("invalid method", b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "the library takes any word for a method"),
    ("target beyond ASCII", b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", NO_TARGET),
    ("fragment", b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", NO_TARGET),
    ("asterisk for GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", NO_TARGET),
    ("authority for GET", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", NO_TARGET),
    ("userinfo", b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", NO_TARGET),
    (
        "two slashes",
        b"GET //a/b HTTP/1.1\r\nHost: a\r\n\r\n",
        "the library joins slashes at the front, for the sake of its redirects",
    ),
    (
        "empty line before",
        b"\r\n" + GET + b"Host: a\r\n\r\n",
        "the library's caller gives up on an empty line; RFC 9112 section 2.2 ignores it",
    ),
    ("bare LF", b"GET / HTTP/1.1\nHost: a\n\n", LENIENT_LINES),
    ("bare LF in a field", GET + b"Host: a\nX-A: b\r\n\r\n", LENIENT_LINES),
    ("bare CR in a field", GET + b"Host: a\rX-A: b\r\n\r\n", DEFECTS),
    ("no Host", GET + b"\r\n", NO_HOST),
    ("two Hosts", GET + b"Host: a\r\nHost: b\r\n\r\n", NO_HOST),
    ("invalid Host", GET + b"Host: a/b\r\n\r\n", NO_HOST),
    ("space before the colon", GET + b"Host : a\r\n\r\n", DEFECTS),
    ("no colon", GET + b"Host: a\r\nX-A\r\n\r\n", DEFECTS),
    ("folded line", GET + b"Host: a\r\nX-A: b\r\n c\r\n\r\n", DEFECTS),
    ("NUL in a field", GET + b"Host: a\r\nX-A: \0\r\n\r\n", DEFECTS),
    ("field name beyond ASCII", GET + b"Host: a\r\n\xe9: b\r\n\r\n", DEFECTS),
    ("field line too long", GET + b"Host: a\r\nX-A: " + b"a" * 70000 + b"\r\n\r\n", None),
    ("too many fields", GET + b"Host: a\r\n" + b"A: b\r\n" * 200 + b"\r\n", None),
    ("110 fields", GET + b"Host: a\r\n" + b"A: b\r\n" * 109 + b"\r\n", "the library's limit is 100 fields, ours 128"),
    (
        "unknown expectation",
        POST + b"Expect: magic\r\nContent-Length: 0\r\n\r\n",
        "the library ignores it; RFC 9110 section 10.1.1 allows 417",
    ),
    ("length with a sign", POST + b"Content-Length: +2\r\n\r\nhi", NO_FRAMING + "; " + LOOSE_NUMBERS),
    ("length with an underscore", POST + b"Content-Length: 1_0\r\n\r\n0123456789", NO_FRAMING + "; " + LOOSE_NUMBERS),
    ("lengths that differ", POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", NO_FRAMING),
    ("length and coding", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", NO_FRAMING),
    ("chunked", POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None),
    ("unknown coding", POST + b"Transfer-Encoding: cow\r\n\r\n", NO_FRAMING),
    ("coding in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", NO_FRAMING),
]
RESPONSES = [
    ("length", OK + b"Content-Length: 2\r\n\r\nhi", None),
    ("chunked", OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", None),
    ("ended by the close", OK + b"\r\nhi", None),
    ("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\nhi", None),
    ("204", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", None),
    ("304", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", None),
    ("interim", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi", None),
    (
        "early hints",
        b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi",
        "the library knows 100 alone as interim",
    ),
    ("no reason", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", None),
    ("folded", OK + b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\nhi", None),
    ("trailers", OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: b\r\n\r\n", None),
    ("cut short", OK + b"Content-Length: 3\r\n\r\nhi", None),
    ("cut short in chunks", OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhi", None),
    ("empty line before", b"\r\n" + OK + b"Content-Length: 2\r\n\r\nhi", None),
    ("two-digit status", b"HTTP/1.1 20 OK\r\n\r\n", None),
    ("major version 2", b"HTTP/2.0 200 OK\r\n\r\n", None),
    ("minor version 12", b"HTTP/1.12 200 OK\r\nContent-Length: 0\r\n\r\n", "the library looks no further than HTTP/1."),
    ("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", LENIENT_LINES),
    ("status with a sign", b"HTTP/1.1 +200 OK\r\nContent-Length: 0\r\n\r\n", LOOSE_NUMBERS),
    ("length with a sign", OK + b"Content-Length: +2\r\n\r\nhi", LOOSE_NUMBERS),
    ("length with an underscore", OK + b"Content-Length: 1_0\r\n\r\n0123456789", LOOSE_NUMBERS),
    ("negative length", OK + b"Content-Length: -1\r\n\r\nhi", "the library reads until the close instead"),
    ("length that is no number", OK + b"Content-Length: x\r\n\r\nhi", "the library reads until the close instead"),
    ("lengths that differ", OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", "the library takes the first"),
    (
        "length and coding",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "the library lets the coding win",
    ),
    (
        "coding in HTTP/1.0",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "the library decodes it in any version",
    ),
    ("unknown coding", OK + b"Transfer-Encoding: cow\r\n\r\nhi", "the library passes over codings it does not know"),
    ("chunk size with a sign", OK + b"Transfer-Encoding: chunked\r\n\r\n+2\r\nhi\r\n0\r\n\r\n", LOOSE_NUMBERS),
    ("chunk size with a prefix", OK + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n", LOOSE_NUMBERS),
    (
        "chunk longer than its size",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhixx0\r\n\r\n",
        "the library throws two octets away, whatever they are",
    ),
    (
        "chunk extension without a name",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2;\r\nhi\r\n0\r\n\r\n",
        "the library does not look behind the semicolon",
    ),
    (
        "white space behind the coding",
        OK + b"Transfer-Encoding: chunked \r\n\r\n0\r\n\r\n",
        "the library keeps the space and misses the coding",
    ),
    ("space before the colon", OK + b"Content-Length : 2\r\n\r\nhi", DEFECTS),
]


class Server(http.server.BaseHTTPRequestHandler):
    """The library's request parser, without a socket."""

    protocol_version = "HTTP/1.1"

    def __init__(self, data: bytes) -> None:
        self.rfile = io.BytesIO(data)
        self.wfile = io.BytesIO()
        self.status = 0

    def send_error(self, code, message=None, explain=None):
        self.status = int(code)

    def handle_expect_100(self) -> bool:
        return True


def library_request(data: bytes) -> object:
    server = Server(data)
    server.raw_requestline = server.rfile.readline(65537)
    if len(server.raw_requestline) > 65536:
        return 414
    if not server.parse_request():
        return server.status or 400
    length = server.headers.get("Content-Length", "0")
    if "Transfer-Encoding" in server.headers:
        body = None
    else:
        with contextlib.suppress(ValueError):
            length = int(length)
        body = length
    return server.command.encode("latin-1"), server.path.encode("latin-1"), body, not server.close_connection


def our_request(data: bytes) -> object:
    parser = new_parser(None)
    parser.feed(data)
    try:
        request = parser.next_event()
    except ProtocolError as error:
        return error.status
    return request.method, request.target, None if request.length < 0 else request.length, request.keep_alive


class Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def library_response(data: bytes, method: bytes = b"GET") -> object:
    response = http.client.HTTPResponse(Socket(data), method=method.decode())  # type: ignore[arg-type]
    try:
        response.begin()
        return response.status, response.read()
    except (http.client.HTTPException, ValueError):
        return "refused"


def our_response(data: bytes, method: bytes = b"GET") -> object:
    parser = new_parser(method)
    parser.feed(data)
    parser.feed_eof()
    while (message := next_message(parser)) is not None:
        head, body, _ = message
        if head.status >= 200:
            return head.status, body
    return "refused"


@pytest.mark.parametrize(("name", "data", "why"), REQUESTS, ids=[case[0] for case in REQUESTS])
def test_request(name, data, why):
    ours, library = our_request(data), library_request(data)
    assert (ours == library) == (why is None), f"ours {ours}, the library's {library}"


@pytest.mark.parametrize(("name", "data", "why"), RESPONSES, ids=[case[0] for case in RESPONSES])
def test_response(name, data, why):
    ours, library = our_response(data), library_response(data)
    assert (ours == library) == (why is None), f"ours {ours}, the library's {library}"


@thorough
@given(requests())
def test_what_is_valid_is_read_alike(message):
    ours, library = our_request(message.wire), library_request(message.wire)
    if message.start[2] == b"HTTP/1.0" or any(name == b"Connection" for name, _ in message.fields):
        ours, library = ours[:3], library[:3]  # see "closing, in a list"
    if message.start[1].startswith(b"//"):
        library = (library[0], message.start[1], *library[2:])  # see "two slashes"
    assert ours == library


@thorough
@given(responses())
def test_what_is_valid_of_responses_is_read_alike(message):
    if message.start[1] not in (b"100", b"103"):  # no final response follows; see "interim"
        wire = re.sub(
            rb"(?i)(transfer-encoding:[ \t]*chunked)[ \t]+\r", rb"\1\r", message.wire
        )  # see "white space behind …"
        assert our_response(wire, message.request_method) == library_response(wire, message.request_method)
