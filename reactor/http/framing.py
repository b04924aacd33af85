"""How long a body is: the one function that decides it, for requests and responses (RFC 9112 section 6.3)."""

from __future__ import annotations

from reactor.errors import ProtocolError
from reactor.http.fields import Fields
from reactor.http.grammar import LIMITS, OWS, TOKEN

CHUNKED = -1
UNTIL_CLOSE = -2

_KNOWN_CODINGS = frozenset((b"chunked", b"gzip", b"x-gzip", b"compress", b"x-compress", b"deflate", b"identity"))

# RFC 9110 section 6.5.1: what decides framing, routing, authentication or processing has no meaning in a trailer.
FORBIDDEN_TRAILERS = frozenset(
    b"transfer-encoding content-length host connection keep-alive proxy-connection upgrade te trailer expect range"
    b" max-forwards authorization proxy-authorization proxy-authenticate www-authenticate cookie set-cookie"
    b" content-encoding content-type content-range content-location cache-control pragma expires age date vary location"
    b" if-match if-none-match if-modified-since if-unmodified-since if-range retry-after warning via forwarded"
    b" x-forwarded-for x-forwarded-host x-forwarded-proto".split()
)


def body_length(fields: Fields, version: int, status: int = 0, method: bytes = b"") -> int:
    """The body's length in bytes, or CHUNKED, or UNTIL_CLOSE.

    `version` is 10 or 11. A request has status 0; for a response, `method` is the request's. Raises ProtocolError
    (with 501 for an unknown transfer coding) wherever two readers could see two lengths.
    """
    if status:
        # Steps 1 and 2: these have no body, whatever their fields say.
        if method == b"HEAD" or status == 204 or status == 304 or status < 200:
            return 0
        if method == b"CONNECT" and status < 300:
            return 0
    index = fields.index
    coding = index.get(b"transfer-encoding")
    length = index.get(b"content-length")
    if coding is not None:
        if length is not None:  # step 3: a smuggling attempt or a broken sender; never guessed
            raise ProtocolError("both Transfer-Encoding and Content-Length")
        if version < 11:  # section 6.1: HTTP/1.0 has no transfer codings
            raise ProtocolError("Transfer-Encoding in an HTTP/1.0 message")
        _check_codings(coding)  # step 4
        return CHUNKED
    if length is not None:
        # Steps 5 and 6. So few digits, and nothing else, need no second look.
        return int(length) if len(length) < 16 and length.isdigit() else parse_length(length)
    return UNTIL_CLOSE if status else 0  # steps 8 and 7


def _check_codings(value: bytes) -> None:
    """Accept `chunked` alone. Empty list members and parameters are refused: readers are known to differ on them."""
    codings = [coding.strip(OWS) for coding in value.lower().split(b",")]
    if codings == [b"chunked"]:
        return
    if not all(map(TOKEN.fullmatch, codings)):
        raise ProtocolError("invalid Transfer-Encoding")
    if b"chunked" in codings[:-1]:
        raise ProtocolError("chunked is not the one, final transfer coding")
    if not _KNOWN_CODINGS.issuperset(codings):
        raise ProtocolError("unknown transfer coding", 501)
    if codings[-1] != b"chunked":
        raise ProtocolError("chunked is not the one, final transfer coding")
    raise ProtocolError("unsupported transfer coding", 501)


def parse_length(value: bytes) -> int:
    """A Content-Length value; a list of one and the same number counts as that number (section 6.3, step 5)."""
    if b"," in value:
        first, *others = (member.strip(OWS) for member in value.split(b","))
        if any(other != first for other in others):
            raise ProtocolError("Content-Length values differ")
        value = first
    if not value.isdigit():  # of bytes, that means ASCII digits alone and at least one (RFC 9110 section 8.6)
        raise ProtocolError("invalid Content-Length")
    if len(value) > 16 or (length := int(value)) > LIMITS.content_length:
        raise ProtocolError("Content-Length beyond all reason")
    return length
