"""What a reverse proxy says of its clients: Forwarded (RFC 7239), and the older fields that most applications read.

What a client says there about others is taken over only where its address is trusted; else it is dropped, or anybody
could claim any address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from reactor.addresses import network_of, numeric
from reactor.errors import ConfigError, ProtocolError
from reactor.exchange import Exchange, Handler
from reactor.http.fields import Fields
from reactor.http.grammar import OWS
from reactor.http.uri import MEMO_AUTHORITY_LENGTH, split_authority

FORWARDED = frozenset((b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"))
# Beside X-Forwarded-*, what applications are known to take for the client's address, or in place of the request's target.
_CLAIMS = frozenset((b"forwarded", b"x-real-ip", b"x-original-url", b"x-rewrite-url"))
MEMO_CLIENTS = 1024  # clients remembered as these fields tell of them; at the limit the memo starts anew
MEMO_TRUSTED = 1024  # addresses remembered as trusted or not, likewise

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network(text: str) -> Network:
    """`address` or `address/bits`; raises ConfigError."""
    try:
        return network_of(text)
    except ValueError as error:
        raise ConfigError(f"--trust {text!r}: {error}") from None


class Trust(dict[str, bool]):
    """Which addresses may speak for others; itself the memo of what was asked."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        super().__init__()
        self.networks = tuple(networks)

    def __missing__(self, peer: str) -> bool:
        trusted = bool(self.networks) and self._holds(peer)
        if len(self) >= MEMO_TRUSTED:
            self.clear()
        self[peer] = trusted
        return trusted

    def _holds(self, peer: str) -> bool:
        try:
            address = numeric(peer)
        except ValueError:
            return False  # a socket without one
        return any(address in network for network in self.networks)


def is_claim(name: bytes) -> bool:
    """Whether a field, its name in lower case, is one in which a proxy speaks of its clients.

    CGI and what is made after it do not tell `_` from `-` (RFC 3875 section 4.1.18).
    """
    name = name.replace(b"_", b"-")
    return name.startswith(b"x-forwarded-") or name in _CLAIMS


class TrustedTarget:
    """Takes over the scheme and the host that a trusted client was asked with, from X-Forwarded-Proto and -Host.

    It stands before the cache, since what is answered may name either: both are part of the key, then.
    """

    def __init__(self, handler: Handler, trust: Trust) -> None:
        self._handler = handler
        self._trust = trust

    def handle(self, exchange: Exchange) -> None:
        index = exchange.request.fields.index
        if self._trust[exchange.peer]:
            scheme = _first(index.get(b"x-forwarded-proto", b"")).lower()
            if scheme in (b"http", b"https"):
                exchange.scheme = scheme
            host = _first(index.get(b"x-forwarded-host", b""))
            if host and _is_host(host):
                exchange.request.authority = host
        self._handler.handle(exchange)


def _first(said: bytes) -> bytes:
    return said.partition(b",")[0].strip(OWS)


def _is_host(value: bytes) -> bool:
    try:
        return bool(split_authority(value)[0])
    except ProtocolError:
        return False


class ForwardedFields:
    """Makes the lines that go on with a request."""

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self._clients: dict[tuple[str, bytes, bytes], bytes] = {}

    def lines(self, exchange: Exchange) -> bytes:
        """Each with its CRLF."""
        request = exchange.request
        client = (exchange.peer, request.authority, exchange.scheme)
        fields = request.fields
        if self.trust[exchange.peer] and any(map(is_claim, fields.index)):
            return _lines(*client, fields)
        return self._clients.get(client) or self._remember(client)

    def _remember(self, client: tuple[str, bytes, bytes]) -> bytes:
        said = _lines(*client, Fields())
        if len(client[1]) <= MEMO_AUTHORITY_LENGTH:
            if len(self._clients) >= MEMO_CLIENTS:
                self._clients.clear()
            self._clients[client] = said
        return said


def _lines(peer: str, host: bytes, scheme: bytes, said: Fields) -> bytes:
    """The four fields; `said` is what a trusted client said of its own.

    The lists (Forwarded, X-Forwarded-For) grow by this client. The other two are what TrustedTarget made of them, so that
    no upstream is told what the cache does not know; whatever else there is goes on as it is.
    """
    address = _address(peer)
    node = b"unknown" if address is None else b'"[%b]"' % address if b":" in address else address  # RFC 7239 section 6
    own = b"for=%b;%bproto=%b" % (node, b'host="%b";' % host if host else b"", scheme)
    lines = [b"Forwarded: %b\r\n" % _appended(said.get(b"forwarded"), own)]
    chain = _appended(said.get(b"x-forwarded-for"), address or b"unknown")
    lines.append(b"X-Forwarded-For: %b\r\n" % chain)
    if host:
        lines.append(b"X-Forwarded-Host: %b\r\n" % host)
    lines.append(b"X-Forwarded-Proto: %b\r\n" % scheme)
    more = [pair for pair in said if b"_" not in pair[0] and (name := pair[0].lower()) not in FORWARDED and is_claim(name)]
    lines += [b"%b: %b\r\n" % pair for pair in more]
    return b"".join(lines)


def _appended(before: bytes | None, own: bytes) -> bytes:
    return b"%b, %b" % (before, own) if before else own


def _address(peer: str) -> bytes | None:
    """The address without a zone, which means nothing elsewhere; None for a client that has none."""
    try:
        ipaddress.ip_address(peer)
    except ValueError:
        return None
    return peer.partition("%")[0].encode("ascii")
