"""Heads of the client's requests: what a URL asks whom for, the fields that go along unasked, and what is left to others."""

from __future__ import annotations

from collections.abc import Iterable

from reactor.client import Via
from reactor.errors import FetchFailed, ProtocolError
from reactor.http.codings import ACCEPT_ENCODING
from reactor.http.fields import Fields, Text
from reactor.http.grammar import TARGET_TABLE
from reactor.http.uri import DEFAULT_PORTS, Origin, origin_of, split_absolute
from reactor.http.writer import request_line

USER_AGENT = b"reactor"
MEMO_URLS = 1024  # URLs remembered with their parts; at the limit the memo starts anew
MEMO_URL_LENGTH = 1024  # characters; longer ones are not remembered

EXPECT = b"Expect: 100-continue\r\n"

_DEFAULTS = b"User-Agent: %b\r\nAccept: */*\r\n" % USER_AGENT
_DEFAULTS_DECODED = b"%bAccept-Encoding: %b\r\n" % (_DEFAULTS, ACCEPT_ENCODING)
# Made by the connection or by the URL; "Host" alone may be said otherwise.
_NOT_SENT = (b"host", b"content-length", b"transfer-encoding")

Way = tuple[Origin, Via | None, bytes]  # whom a request goes to, through whose tunnel, and its head without framing


class _Targets(dict[str, tuple[Origin, bytes]]):
    """URL → origin, and path with query as they are sent; raises FetchFailed (phases "url" and "scheme")."""

    def __missing__(self, url: str) -> tuple[Origin, bytes]:
        try:
            scheme, authority, path = split_absolute(url.partition("#")[0].encode("ascii"))
            if scheme not in DEFAULT_PORTS:
                raise FetchFailed(f"{scheme.decode('ascii')}: is not spoken, only http:// and https:// are", "scheme", url)
            if path.translate(TARGET_TABLE) != path:
                raise ProtocolError("white space or a control character in it")
            found = origin_of(scheme, authority), path
        except UnicodeEncodeError:
            raise FetchFailed("not a URL: characters beyond ASCII must be percent-encoded", "url", url) from None
        except ProtocolError as error:
            raise FetchFailed(f"not a URL: {error}", "url", url) from None
        if len(url) <= MEMO_URL_LENGTH:
            if len(self) >= MEMO_URLS:
                self.clear()
            self[url] = found
        return found


targets = _Targets()


class Heads(dict[tuple[bytes, str, bool], Way]):
    """(method, URL, decode) → the way of a request with the default fields; `via` is the proxy that it goes by, if any."""

    def __init__(self, via: Via | None) -> None:
        super().__init__()
        self._via = via

    def make(self, method: bytes, url: str, host: bytes | None, lines: bytes) -> Way:
        """The way of a request with these field lines; raises FetchFailed and ProtocolError."""
        origin, path = targets[url]
        to, via = origin, self._via
        if via is not None and origin.scheme == b"http":
            to, path, lines, via = via.proxy, bytes(origin) + path, lines + via.fields, None
        line = request_line(method, path)
        return to, via, b"%bHost: %b\r\n%b" % (line, origin.authority if host is None else host, lines)

    def __missing__(self, key: tuple[bytes, str, bool]) -> Way:
        method, url, decode = key
        found = self.make(method, url, None, default_lines(decode))
        if len(url) <= MEMO_URL_LENGTH:
            if len(self) >= MEMO_URLS:
                self.clear()
            self[key] = found
        return found


def default_lines(decode: bool) -> bytes:
    """The field lines of a request that says nothing of its own."""
    return _DEFAULTS_DECODED if decode else _DEFAULTS


def with_defaults(given: Iterable[tuple[Text, Text | None]], decode: bool) -> Fields:
    """The fields of a request, with the default ones that it does not name; raises ProtocolError."""
    pairs = list(given)
    named = {(name if isinstance(name, bytes) else name.encode("latin-1", "replace")).lower() for name, _ in pairs}
    fields = Fields([(b"User-Agent", USER_AGENT), (b"Accept", b"*/*")])
    if decode and b"range" not in named:  # a part of a coded whole could not be undone
        fields.add(b"Accept-Encoding", ACCEPT_ENCODING)
    fields.remove(*named)
    for name, value in pairs:
        if value is not None:
            fields.add(name, value)
    return fields


def sent_lines(fields: Fields) -> bytes:
    """The field lines as they are sent, without what the connection and the URL say."""
    if not fields.index.keys().isdisjoint(_NOT_SENT):
        fields = fields.copy()
        fields.remove(*_NOT_SENT)
    return fields.wire()
