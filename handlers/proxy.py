"""Forwarding: an exchange is sent on to its origin, and the origin's answer is passed back as it arrives.

What a proxy owes the message (RFC 9110 section 7): connection-level fields end here, Via is added both ways, the
path and query go on unaltered, and each message is framed anew from what was parsed.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from reactor.client import Call, Pool
from reactor.errors import ConfigError, ProtocolError, UpstreamError
from reactor.exchange import Body, Exchange, Head, error_page
from reactor.http.fields import Fields
from reactor.http.grammar import TARGET_OCTETS
from reactor.http.parser import Request, Response
from reactor.http.uri import Origin, origin_of, split_absolute
from reactor.relay import Relay

# RFC 9110 section 7.6.1, and what names or frames this hop alone.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authentication-info proxy-authorization te trailer"
    b" transfer-encoding upgrade".split()
)
_FRAMING = frozenset((b"content-length", b"host", b"expect"))
_NOT_SENT_ON = HOP_BY_HOP | _FRAMING
_NOT_SENT_BACK = HOP_BY_HOP | {b"content-length"}  # the connection frames a body itself
# Written by a reverse proxy about its own client, so never taken over from that client.
_FORWARDED = frozenset((b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"))
MEMO_CLIENTS = 1024  # clients remembered as Forwarded tells of them; likewise
MEMO_BLOCKS = 1024  # blocks of request lines remembered as they go on; at the limit the memo starts anew
_NAMES_NOTHING = frozenset((b"close", b"keep-alive", b"Keep-Alive"))  # values of Connection that name no other field
SCHEMES = frozenset((b"http",))


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a reverse proxy sends everything: an origin, and a path before every path."""

    origin: Origin
    prefix: bytes = b""

    @classmethod
    def parse(cls, url: str) -> Upstream:
        """`http://host[:port][/prefix]`; raises ConfigError."""
        try:
            scheme, authority, path = split_absolute(url.encode("ascii"))
            origin = origin_of(scheme, authority)
        except (ProtocolError, UnicodeEncodeError):
            raise ConfigError(f"--upstream {url!r} is no URL of the form http://host[:port][/path]") from None
        if scheme not in SCHEMES:
            raise ConfigError(f"--upstream {url!r}: only http:// is spoken to upstreams")
        if b"?" in path:
            raise ConfigError(f"--upstream {url!r}: a query has no place here")
        if path.translate(None, TARGET_OCTETS):
            raise ConfigError(f"--upstream {url!r}: its path has an octet that must be percent-encoded")
        return cls(origin, path.rstrip(b"/"))


class Forwarding:
    """Sends exchanges on: to their own origins (a forward proxy) or all to one upstream (a reverse proxy)."""

    def __init__(
        self, pool: Pool, upstream: Upstream | None = None, preserve_host: bool = False, tunnel_idle: float = 300.0
    ) -> None:
        self.pool = pool
        self.upstream = upstream
        self.preserve_host = preserve_host
        self.tunnel_idle = tunnel_idle  # seconds
        # RFC 9110 section 7.6.3: unique to the process, so that a loop shows itself.
        self.pseudonym = b"reactor-" + secrets.token_hex(4).encode("ascii")
        self._via_back, self._via_back_old = b"1.1 " + self.pseudonym, b"1.0 " + self.pseudonym
        self._via, self._via_old = b"Via: %b\r\n" % self._via_back, b"Via: %b\r\n" % self._via_back_old
        self._blocks: dict[bytes, bytes] = {}  # a block of request lines as received → as it goes on
        self._clients: dict[tuple[str, bytes, bytes], bytes] = {}
        self._drop = _NOT_SENT_ON if upstream is None else _NOT_SENT_ON | _FORWARDED

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        try:
            origin, target = self._destination(request)
        except ProtocolError as error:
            exchange.error = error
            exchange.respond(*error_page(error.status, error.reason))
            return
        if b"via" in request.fields.index and self.pseudonym in request.fields.index[b"via"]:
            exchange.error = ProtocolError("a forwarding loop", 508)
            exchange.respond(*error_page(508, "this request has been through this proxy before"))
            return
        _Forward(self, exchange, origin, self._head(exchange, origin, target))

    def _destination(self, request: Request) -> tuple[Origin, bytes]:
        """The origin to speak to, and the target it is sent; raises ProtocolError with the status to answer."""
        if request.method == b"CONNECT":
            raise ProtocolError("no tunnels are made here", 501)
        if self.upstream is not None:
            if request.path == b"*":
                return self.upstream.origin, b"*"
            return self.upstream.origin, self.upstream.prefix + request.path
        if request.scheme is None:
            raise ProtocolError("this is a proxy: the request target must be an absolute URL, http://host/path")
        if request.scheme not in SCHEMES:
            raise ProtocolError(f"no way to fetch {request.scheme.decode('ascii')}: URLs", 501)
        return origin_of(request.scheme, request.authority), request.path

    def _head(self, exchange: Exchange, origin: Origin, target: bytes) -> bytes:
        """Request line and fields as they go on, without framing (RFC 9112 section 3.2, RFC 9110 section 7.6)."""
        request = exchange.request
        fields = request.fields
        host = request.authority if self.preserve_host and request.authority else origin.authority
        parts = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (request.method, target, host)]
        cut = fields.cut
        if cut is None or fields.index.get(b"connection", b"keep-alive") != b"keep-alive":
            parts.append(self._sent_on(fields.lines, fields))
        else:
            block, cookie, referer = cut
            kept = self._blocks.get(block)
            if kept is None:
                kept = self._remember(block, fields)
            parts.append(kept)
            if cookie is not None:
                parts.append(b"Cookie: %b\r\n" % cookie)
            if referer is not None:
                parts.append(b"Referer: %b\r\n" % referer)
        parts.append(self._via if request.version == 11 else self._via_old)
        if self.upstream is not None:
            client = (exchange.peer, request.authority, exchange.scheme)
            parts.append(self._clients.get(client) or self._remember_client(client))
        if b"te" in fields.index and b"trailers" in fields.options(b"te"):
            parts.append(b"TE: trailers\r\nConnection: TE\r\n")
        if request.upgrade is not None:
            parts.append(b"Upgrade: %b\r\nConnection: Upgrade\r\n" % request.upgrade)
        if request.expects_100 and type(exchange.body) is not bytes:
            parts.append(b"Expect: 100-continue\r\n")
        return b"".join(parts)

    def _sent_on(self, lines: list[bytes], fields: Fields) -> bytes:
        """The lines that go on, each with its CRLF."""
        drop = self._drop
        if b"connection" in fields.index:
            drop = drop.union(fields.options(b"connection"))
        kept = [line for line in lines if line[: line.index(b":")].lower() not in drop]
        return b"\r\n".join(kept) + b"\r\n" if kept else b""

    def _remember(self, block: bytes, fields: Fields) -> bytes:
        """The same of a block of lines that the parser remembers too (see Fields.cut)."""
        kept = self._sent_on(block[:-4].split(b"\r\n")[1:], fields)
        if len(self._blocks) >= MEMO_BLOCKS:
            self._blocks.clear()
        self._blocks[block] = kept
        return kept

    def _remember_client(self, client: tuple[str, bytes, bytes]) -> bytes:
        """What a reverse proxy says of its client: (address, authority asked for, scheme)."""
        if len(self._clients) >= MEMO_CLIENTS:
            self._clients.clear()
        self._clients[client] = said = _forwarded(*client)
        return said

    def response_head(self, request: Request, response: Response) -> Head:
        """The origin's head as it goes back."""
        # RFC 9110 section 8.6: where there is no body, the length is told of one that would be.
        tells = request.method == b"HEAD" or response.status == 304
        return self._returned(response, HOP_BY_HOP if tells else _NOT_SENT_BACK)

    def interim_head(self, response: Response) -> Head:
        """The same for a 1xx."""
        return self._returned(response, _NOT_SENT_BACK)

    def _returned(self, response: Response, drop: frozenset[bytes]) -> Head:
        fields = response.fields
        index = fields.index
        if index.get(b"connection", b"close") not in _NAMES_NOTHING:
            drop = drop.union(fields.options(b"connection"))
        if not drop.isdisjoint(index):
            fields.remove(*drop.intersection(index))
        via = self._via_back if response.version == 11 else self._via_back_old
        fields.append_valid(b"Via: " + via, b"via", via)
        return Head(response.status, fields, response.reason, shared=False)


def _forwarded(address: str, host: bytes, scheme: bytes) -> bytes:
    """RFC 7239, and the older fields that most applications read."""
    peer = address.encode("ascii")
    node = b'"[%b]"' % peer if b":" in peer else peer
    return b'Forwarded: for=%b;host="%b";proto=%b\r\nX-Forwarded-For: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Proto: %b\r\n' % (
        node, host, scheme, peer, host, scheme,
    )  # fmt: skip


class _Forward:
    """One exchange on its way: what its call tells, and what its end undoes."""

    __slots__ = ("forwarding", "exchange", "call", "_relay")

    def __init__(self, forwarding: Forwarding, exchange: Exchange, origin: Origin, head: bytes) -> None:
        self.forwarding = forwarding
        self.exchange = exchange
        self._relay: Relay | None = None
        request = exchange.request
        waits = request.expects_100 and type(exchange.body) is not bytes
        times = None if exchange.timing is None else exchange.timing.fetch
        self.call: Call | None = forwarding.pool.call(origin, request.method, head, exchange.body, self, waits, times)
        exchange.on_end(self._ended)

    def call_informed(self, call: Call, response: Response) -> None:
        self.exchange.inform(self.forwarding.interim_head(response))

    def call_responded(self, call: Call, response: Response, body: Body) -> None:
        exchange = self.exchange
        exchange.upstream = call.address
        self.call = None
        if response.status == 101:
            self._upgraded(call, response)
            return
        exchange.respond(self.forwarding.response_head(exchange.request, response), body)

    def call_failed(self, call: Call, error: UpstreamError) -> None:
        exchange = self.exchange
        exchange.upstream = call.address
        exchange.error = error
        self.call = None
        if exchange.status:
            exchange.abort(str(error))
        elif error.status < 500:
            exchange.respond(*error_page(error.status, error.reason))  # the client's own body broke off
        else:
            exchange.respond(*error_page(error.status, f"upstream {error}"))

    def _upgraded(self, call: Call, response: Response) -> None:
        exchange = self.exchange
        upstream, from_upstream = call.take_stream()
        if exchange.request.upgrade is None:  # RFC 9110 section 15.2.2: nobody asked for it
            upstream.abort()
            exchange.respond(*error_page(502, f"upstream {call.address}: switched protocols unasked"))
            return
        protocol = response.fields.get(b"upgrade") or b""
        head = self.forwarding.interim_head(response)
        head.fields.add(b"Upgrade", protocol)
        client, from_client = exchange.upgrade(head)
        idle = self.forwarding.tunnel_idle
        self._relay = relay = Relay(exchange.reactor, client, upstream, idle, self._relay_over, ("client", "upstream"))
        relay.start(from_client, from_upstream)

    def _relay_over(self, relay: Relay) -> None:
        self._relay = None
        exchange = self.exchange
        exchange.bytes_in, exchange.bytes_out = relay.bytes_left_to_right, relay.bytes_right_to_left
        exchange.finish(None if relay.reason == "closed" else relay.reason)

    def _ended(self, exchange: Exchange) -> None:
        call, self.call = self.call, None
        if call is not None:
            call.abort()
        if self._relay is not None:
            self._relay.abort()
