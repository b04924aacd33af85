"""What a reverse proxy says of its clients: Forwarded (RFC 7239), and the older fields that most applications read.

What a client says there about others is taken over only where its address is trusted; else it is dropped, or anybody
could claim any address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from reactor.errors import ConfigError
from reactor.exchange import Exchange, Handler
from reactor.http.fields import Fields
from reactor.http.uri import MEMO_AUTHORITY_LENGTH

FORWARDED = frozenset((b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"))
MEMO_CLIENTS = 1024  # clients remembered as these fields tell of them; at the limit the memo starts anew
MEMO_TRUSTED = 1024  # addresses remembered as trusted or not, likewise

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network(text: str) -> Network:
    """`address` or `address/bits`; raises ConfigError."""
    try:
        found = ipaddress.ip_network(text.removeprefix("[").replace("]", "", 1))
    except ValueError as error:
        raise ConfigError(f"--trust {text!r}: {error}") from None
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    if mapped is not None and found.prefixlen >= 96:  # RFC 4291 section 2.5.5.2
        return ipaddress.IPv4Network((mapped, found.prefixlen - 96))
    return found


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
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False  # a socket without one
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.networks)


class TrustedScheme:
    """Takes over the scheme that a trusted client was asked with: who ends TLS before us says so in X-Forwarded-Proto.

    It stands before the cache, since what is answered may name the scheme.
    """

    def __init__(self, handler: Handler, trust: Trust) -> None:
        self._handler = handler
        self._trust = trust

    def handle(self, exchange: Exchange) -> None:
        said = exchange.request.fields.index.get(b"x-forwarded-proto")
        if said is not None and self._trust[exchange.peer]:
            scheme = said.partition(b",")[0].strip(b" \t").lower()
            if scheme in (b"http", b"https"):
                exchange.scheme = scheme
        self._handler.handle(exchange)


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
        if not FORWARDED.isdisjoint(fields.index) and self.trust[exchange.peer]:
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
    """The four fields; `said` is what a trusted client said in them.

    The lists (Forwarded, X-Forwarded-For) grow by this client. The other two are of the first request alone.
    """
    address = _address(peer)
    node = b"unknown" if address is None else b'"[%b]"' % address if b":" in address else address  # RFC 7239 section 6
    own = b"for=%b;%bproto=%b" % (node, b'host="%b";' % host if host else b"", scheme)
    lines = [b"Forwarded: %b\r\n" % _appended(said.get(b"forwarded"), own)]
    chain = _appended(said.get(b"x-forwarded-for"), address or b"unknown")
    lines.append(b"X-Forwarded-For: %b\r\n" % chain)
    named = said.get(b"x-forwarded-host") or host
    if named:
        lines.append(b"X-Forwarded-Host: %b\r\n" % named)
    lines.append(b"X-Forwarded-Proto: %b\r\n" % (said.get(b"x-forwarded-proto") or scheme))
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
