"""Max-Forwards: TRACE and OPTIONS say how far they want to go (RFC 9110 section 7.6.2)."""

from __future__ import annotations

from reactor.errors import ProtocolError
from reactor.exchange import Exchange, Head, error_page
from reactor.http.grammar import DIGITS
from reactor.http.parser import Request

BOUNDED = frozenset((b"TRACE", b"OPTIONS"))  # the methods that it means something for
MOST = 999_999  # the largest number that is understood; a larger one is taken for it
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE"
# RFC 9110 section 9.3.8: what is sent back may be read by who may not read these.
_SECRET = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"cookie2"))


def hops_left(request: Request) -> int | None:
    """How many more times the request may be forwarded; None where nothing says so."""
    value = request.fields.index.get(b"max-forwards")
    if value is None or request.method not in BOUNDED or DIGITS.fullmatch(value) is None:
        return None
    digits = value.lstrip(b"0")
    return min(int(digits or b"0"), MOST) if len(digits) <= len(str(MOST)) else MOST


def answer_as_last(exchange: Exchange, methods: bytes = METHODS) -> None:
    """Answer a TRACE or OPTIONS in the place of whom it would have been forwarded to."""
    request = exchange.request
    if request.method == b"OPTIONS":
        exchange.respond(Head(200, [(b"Allow", methods)]))
    elif request.length:
        exchange.error = ProtocolError("a TRACE with content")  # section 9.3.8
        exchange.respond(*error_page(400, "a TRACE has no content"))
    else:
        fields = [(b"Content-Type", b"message/http"), (b"X-Content-Type-Options", b"nosniff")]
        exchange.respond(Head(200, fields), as_received(request))


def as_received(request: Request) -> bytes:
    """The request's head as `message/http`, without credentials and cookies."""
    start = b"%b %b HTTP/%d.%d" % (request.method, request.target, *divmod(request.version, 10))
    kept = [line for line in request.fields.lines if line[: line.index(b":")].lower() not in _SECRET]
    return b"\r\n".join([start, *kept, b"", b""])
