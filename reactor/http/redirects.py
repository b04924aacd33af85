"""Where a redirect leads, and what may go along (RFC 9110 section 15.4). Pure: no request is made here."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urljoin

from reactor.errors import ProtocolError
from reactor.http.fields import Fields
from reactor.http.uri import Origin, origin_of, split_absolute

STATUSES = frozenset((301, 302, 303, 307, 308))
# Said of a body that is not sent any more (Fetch standard, "HTTP-redirect fetch", and RFC 9110 section 15.4).
OF_THE_BODY = (
    b"content-type", b"content-length", b"content-encoding", b"content-language", b"content-location", b"content-range",
    b"content-digest", b"digest", b"expect",
)  # fmt: skip
# What is one origin's business: never sent to another, and not sent again where a chain of redirects comes back.
OF_THE_ORIGIN = (b"host", b"authorization", b"cookie", b"proxy-authorization")

_NOT_IN_A_URL = re.compile(rb"[^\x21-\x7e]|%(?![0-9A-Fa-f]{2})")
_NO_HOST = re.compile(r"https?:(?!//[^/?#])", re.IGNORECASE)  # which urljoin takes for a relative one
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class Next(NamedTuple):
    """What is asked for after a redirect; `with_body` is whether the request's body goes along."""

    url: str
    method: bytes
    with_body: bool
    same_origin: bool


def after(status: int, url: str, method: bytes, where: str) -> Next:
    """The request that follows when `url` redirects to `where` (see `resolve`); raises ProtocolError for what is no URL."""
    changed = becomes_get(status, method)
    return Next(where, b"GET" if changed else method, not changed, origin_of_url(where) == origin_of_url(url))


def becomes_get(status: int, method: bytes) -> bool:
    """Sections 15.4.2 to 15.4.4: 303 turns all but HEAD into GET; 301 and 302 do so to POST, as everybody does."""
    return (status == 303 and method not in (b"GET", b"HEAD")) or (status in (301, 302) and method == b"POST")


def resolve(url: str, location: bytes) -> str:
    """Location against the URL that was asked for (RFC 9110 section 10.2.2); raises ProtocolError.

    Octets that no URL holds, such as spaces and UTF-8, are percent-encoded, as browsers do. A fragment is inherited.
    Whether the scheme of what comes out is one to be asked is the caller's to judge.
    """
    if _CONTROL.search(location):
        raise ProtocolError("a redirect with control characters in its Location")
    text = _NOT_IN_A_URL.sub(lambda match: b"%%%02X" % match[0][0], location).decode("ascii")
    if _NO_HOST.match(text):
        raise ProtocolError(f"a redirect to {text!r}, which names no host")  # RFC 9110 section 4.2.1
    try:
        where = urljoin(url, text)
    except ValueError as error:
        raise ProtocolError(f"a redirect to {text!r}: {error}") from None
    fragment = url.partition("#")[2]
    return where if "#" in where or not fragment else f"{where}#{fragment}"


def origin_of_url(url: str) -> Origin:
    """Scheme, host and port of an absolute URL; raises ProtocolError."""
    try:
        scheme, authority, _ = split_absolute(url.partition("#")[0].encode("ascii"))
    except UnicodeEncodeError:
        raise ProtocolError("a URL is ASCII: write the others percent-encoded") from None
    return origin_of(scheme, authority)


def carry_on(fields: Fields, step: Next) -> Fields:
    """The fields of the request that follows: without those of a body that stays behind, and of an origin that is left."""
    fields = fields.copy()
    if not step.with_body:
        fields.remove(*OF_THE_BODY)
    if not step.same_origin:
        fields.remove(*OF_THE_ORIGIN)
    return fields
