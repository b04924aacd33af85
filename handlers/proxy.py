"""Forwarding: an exchange is sent on to its origin, and the origin's answer is passed back as it arrives.

What a proxy owes the message (RFC 9110 section 7): connection-level fields end here, Via is added both ways, the
path and query go on unaltered, and each message is framed anew from what was parsed.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from handlers.forwarded import ForwardedFields, Trust, is_claim
from handlers.mapped_fields import MAPPED, map_fields
from handlers.max_forwards import answer_as_last, hops_left
from handlers.rewrite import Rewriting
from handlers.upstreams import SCHEMES, Upstream, Upstreams
from reactor.client import Call, Pool
from reactor.errors import BodyCutShort, ProtocolError, UpstreamError
from reactor.exchange import Body, Exchange, Head, Source, error_page
from reactor.http.fields import Fields, split_tokens
from reactor.http.framing import CHUNKED, parse_length
from reactor.http.parser import Request, Response
from reactor.http.uri import Origin, origin_of, spellings, split_authority
from reactor.relay import IDLE, Relay

# RFC 9110 section 7.6.1, and what names or frames this hop alone.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authentication-info proxy-authorization te trailer"
    b" transfer-encoding upgrade".split()
)
_FRAMING = frozenset((b"content-length", b"host", b"expect", b"max-forwards"))  # written anew where they go on
# To a CGI program, Proxy would be HTTP_PROXY: the proxy that its own requests go through (RFC 3875 section 4.1.18).
_NOT_SENT_ON = HOP_BY_HOP | _FRAMING | {b"proxy"}
_NOT_SENT_BACK = HOP_BY_HOP | {b"content-length"}  # the connection frames a body itself
_NOT_SENT_BACK_WITH_TRAILERS = _NOT_SENT_BACK - {b"trailer"}
MEMO_BLOCKS = 1024  # blocks of request lines remembered as they go on; at the limit the memo starts anew
# RFC 9110 section 12.5.5: what varies on a client's address, which its request does not tell, is `*` to everybody else.
_OF_CLIENTS = frozenset((b"forwarded", b"x-forwarded-for"))
_TOLD_ANEW = frozenset((b"max-forwards", b"trailer", b"te", b"upgrade", b"expect"))
_ODD = b"?"  # no field lines
_CUT_OUT = (b"Cookie: ", b"Referer: ")  # see Fields.cut
_NAMES_NOTHING = frozenset((b"close", b"keep-alive", b"Keep-Alive"))  # values of Connection that name no other field


class Forwarding:
    """Sends exchanges on: to their own origins (a forward proxy) or to its upstreams (a reverse proxy).

    `trust` says whose word about other clients is passed on, `rewrite` the media types in which upstreams' URLs become
    this proxy's own. Raises ConfigError where two upstreams stand at the same place.
    """

    def __init__(
        self,
        pool: Pool,
        upstreams: Sequence[Upstream] = (),
        preserve_host: bool = False,
        tunnel_idle: float = IDLE,
        trust: Trust = Trust(),
        rewrite: frozenset[bytes] = frozenset(),
    ) -> None:
        self.pool = pool
        self.upstreams = Upstreams(upstreams) if upstreams else None
        self.rewriting = Rewriting(self.upstreams, rewrite) if self.upstreams and rewrite else None
        self._way = _Reverse if self.rewriting is None else _Rewritten
        self.preserve_host = preserve_host
        self.tunnel_idle = tunnel_idle  # seconds
        # RFC 9110 section 7.6.3: unique to the process, so that a loop shows itself.
        self.pseudonym = b"reactor-" + secrets.token_hex(4).encode("ascii")
        self._via_back, self._via_back_old = b"1.1 " + self.pseudonym, b"1.0 " + self.pseudonym
        self._via, self._via_old = b"Via: %b\r\n" % self._via_back, b"Via: %b\r\n" % self._via_back_old
        # A block of request lines as received → as it goes on, with Via; _ODD where one of them asks for more than that.
        self._blocks: dict[bytes, bytes] = {}
        self._forwarded = ForwardedFields(trust)

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        index = request.fields.index
        try:
            if b"via" in index and self.pseudonym in index[b"via"]:
                raise ProtocolError("this request has been through this proxy before", 508)
            if b"max-forwards" in index and hops_left(request) == 0:
                answer_as_last(exchange)
                return
            if request.method == b"CONNECT":
                raise ProtocolError("no tunnels are made here", 501)
            if self.upstreams is not None:
                self._reverse(exchange, self.upstreams)
                return
            origin = self._destination(request)
        except ProtocolError as error:
            exchange.error = error
            exchange.respond(*error_page(error.status, error.reason))
            return
        _Forward(self, exchange, origin, request.path)

    def _destination(self, request: Request) -> Origin:
        """The origin that a forward proxy speaks to; raises ProtocolError with the status to answer."""
        if request.scheme is None:
            raise ProtocolError("this is a proxy: the request target must be an absolute URL, http://host/path")
        if request.scheme not in SCHEMES:
            raise ProtocolError(f"no way to fetch {request.scheme.decode('ascii')}: URLs", 501)
        return origin_of(request.scheme, request.authority)

    def _reverse(self, exchange: Exchange, upstreams: Upstreams) -> None:
        """Send it to the upstream that its path is for; raises ProtocolError."""
        request = exchange.request
        path, scheme = request.path, request.scheme
        if request.authority:
            # What the cache takes for the same must be the same to the upstream, which may repeat it in its answer.
            request.authority = spellings[exchange.scheme, request.authority]
        if scheme is not None and scheme != exchange.scheme:
            # RFC 9110 section 7.4: else what the upstream says of one scheme would be stored for the other.
            raise ProtocolError("the request target's scheme is not the one that it came by", 421)
        if upstreams.plain is not None and path.startswith(b"/"):
            self._way(self, exchange, upstreams.plain, path)
        elif path != b"*":
            upstream = upstreams.find(path)
            self._way(self, exchange, upstream, upstream.target(path))
        elif (only := upstreams.for_asterisk()) is not None:
            self._way(self, exchange, only, b"*")
        else:
            answer_as_last(exchange)

    def head(self, exchange: Exchange, origin: Origin, target: bytes, fields: Fields) -> bytes:
        """Request line and fields as they go on, without framing (RFC 9112 section 3.2, RFC 9110 section 7.6)."""
        request = exchange.request
        host = request.authority if self.preserve_host and request.authority else origin.authority
        parts = [request.method, b" ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n"]
        known = _ODD
        if fields.cut is not None:
            block, cookie, referer, _ = fields.cut
            known = self._blocks.get(block) or self._remember(block, fields)
        if known is _ODD:
            parts.append(self._odd_lines(exchange, fields))
        else:
            parts.append(known)
            if cookie is not None:
                parts += (b"Cookie: ", cookie, b"\r\n")
            if referer is not None:
                parts += (b"Referer: ", referer, b"\r\n")
        if self.upstreams is not None:
            parts.append(self._forwarded.lines(exchange))
        return b"".join(parts)

    def _odd_lines(self, exchange: Exchange, fields: Fields) -> bytes:
        """The field lines that go on, and Via, where something is to be told anew or was not met before."""
        request, index = exchange.request, fields.index
        # In the order of those that are remembered, so that nothing shows which they were.
        last = sorted((line for line in fields.lines if line.startswith(_CUT_OUT)), key=_initial)
        lines = [line for line in fields.lines if not line.startswith(_CUT_OUT)]
        via = self._via if request.version == 11 else self._via_old
        parts = [self._sent_on(lines, fields), via, self._sent_on(last, fields)]
        if b"max-forwards" in index:
            left = hops_left(request)
            parts.append(b"Max-Forwards: %b\r\n" % (index[b"max-forwards"] if left is None else b"%d" % (left - 1)))
        if b"trailer" in index and request.length == CHUNKED:
            parts.append(b"Trailer: %b\r\n" % index[b"trailer"])
        if b"te" in index and b"trailers" in fields.options(b"te"):
            parts.append(b"TE: trailers\r\nConnection: TE\r\n")
        if request.upgrade is not None:
            parts.append(b"Upgrade: %b\r\nConnection: Upgrade\r\n" % request.upgrade)
        if request.expects_100 and type(exchange.body) is not bytes:
            parts.append(b"Expect: 100-continue\r\n")
        return b"".join(parts)

    def _sent_on(self, lines: list[bytes], fields: Fields) -> bytes:
        """The lines that go on, each with its CRLF."""
        drop = _NOT_SENT_ON
        if b"connection" in fields.index:
            drop = drop.union(fields.options(b"connection"))
        named = [(line[: line.index(b":")].lower(), line) for line in lines]
        if self.upstreams is not None:
            named = [pair for pair in named if not is_claim(pair[0])]
        kept = [line for name, line in named if name not in drop]
        return b"\r\n".join(kept) + b"\r\n" if kept else b""

    def _remember(self, block: bytes, fields: Fields) -> bytes:
        """The same of a block of lines that the parser remembers too (see Fields.cut), with Via; or _ODD."""
        index = fields.index
        if _TOLD_ANEW.isdisjoint(index) and index.get(b"connection", b"keep-alive") == b"keep-alive":
            kept = self._sent_on(block[:-4].split(b"\r\n")[1:], fields) + self._via
        else:
            kept = _ODD
        if len(self._blocks) >= MEMO_BLOCKS:
            self._blocks.clear()
        self._blocks[block] = kept
        return kept

    def response_head(self, request: Request, response: Response, body: Body = b"") -> Head:
        """The origin's head as it goes back with `body`."""
        fields = response.fields
        drop = _NOT_SENT_BACK
        if request.method == b"HEAD" or response.status == 304:
            # RFC 9110 section 8.6: where there is no body, the length is told of one that would be.
            drop = HOP_BY_HOP
            if b"content-length" in fields.index:
                _tell_length_once(fields)
        elif b"trailer" in fields.index and type(body) is not bytes and response.length == CHUNKED and request.version == 11:
            if b"trailers" in request.fields.options(b"te"):
                drop = _NOT_SENT_BACK_WITH_TRAILERS
        return self._returned(response, drop)

    def interim_head(self, response: Response) -> Head:
        """The same for a 1xx."""
        return self._returned(response, _NOT_SENT_BACK)

    def _returned(self, response: Response, drop: frozenset[bytes]) -> Head:
        fields = response.fields
        index = fields.index
        if index.get(b"connection", b"close") not in _NAMES_NOTHING:
            drop = drop.union(fields.options(b"connection"))
        fields.drop(drop)
        via = self._via_back if response.version == 11 else self._via_back_old
        fields.append_valid(b"Via: " + via, b"via", via)
        return Head(response.status, fields, response.reason, shared=False)


def _initial(line: bytes) -> bytes:
    return line[:1]


def _tell_length_once(fields: Fields) -> None:
    """The length that no body holds the upstream to: one number, or none where it said anything else."""
    value = fields.index[b"content-length"]
    if value.isdigit() and len(value) <= 16:
        return
    try:
        fields.set(b"Content-Length", b"%d" % parse_length(value))
    except ProtocolError:
        fields.remove(b"content-length")


class _Forward:
    """One exchange on its way: what its call tells, and what its end undoes."""

    __slots__ = ("forwarding", "exchange", "call", "_relay")

    def __init__(self, forwarding: Forwarding, exchange: Exchange, origin: Origin, target: bytes) -> None:
        self.forwarding = forwarding
        self.exchange = exchange
        self.call: Call | None = None
        self._relay: Relay | None = None
        self._send(origin, target, exchange.request.fields)
        exchange.on_end(self._ended)

    def _send(self, origin: Origin, target: bytes, fields: Fields) -> None:
        exchange, forwarding = self.exchange, self.forwarding
        request, body = exchange.request, exchange.body
        waits = request.expects_100 and type(body) is not bytes
        head = forwarding.head(exchange, origin, target, fields)
        times = None if exchange.timing is None else exchange.timing.fetch
        self.call = forwarding.pool.call(origin, request.method, head, body, self, waits, times)

    def call_informed(self, call: Call, response: Response) -> None:
        self.exchange.inform(self._interim_head(response))

    def _interim_head(self, response: Response) -> Head:
        return self.forwarding.interim_head(response)

    def call_responded(self, call: Call, response: Response, body: Body) -> None:
        exchange = self.exchange
        exchange.upstream = call.address
        self.call = None
        if response.status == 101:
            self._upgraded(call, response)
            return
        self._respond(self.forwarding.response_head(exchange.request, response, body), body)

    def _respond(self, head: Head, body: Body) -> None:
        self.exchange.respond(head, body)

    def call_failed(self, call: Call, error: UpstreamError) -> None:
        exchange = self.exchange
        exchange.upstream = call.address
        exchange.error = error
        self.call = None
        if exchange.status:
            exchange.abort(str(error))
        elif error.status < 500 and error.phase == "send":
            exchange.error = BodyCutShort(f"client: {error.reason}", error.status)  # its own body broke off
            exchange.respond(*error_page(error.status, error.reason))
        else:
            exchange.respond(*error_page(error.status, f"upstream {error}"))

    def _upgraded(self, call: Call, response: Response) -> None:
        exchange = self.exchange
        upstream, from_upstream = call.take_stream()
        offered = split_tokens(exchange.request.upgrade or b"")
        chosen = response.fields.options(b"upgrade")
        if not chosen or not set(chosen).issubset(offered):  # RFC 9110 section 7.8: nobody asked for it
            upstream.abort()
            exchange.respond(*error_page(502, f"upstream {call.address}: switched protocols unasked"))
            return
        protocol = response.fields[b"upgrade"]
        head = self._interim_head(response)
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


class _Reverse(_Forward):
    """The same to an upstream, whose answers name it by its own URLs."""

    __slots__ = ("_upstream", "_target")

    def __init__(self, forwarding: Forwarding, exchange: Exchange, upstream: Upstream, target: bytes) -> None:
        self._upstream = upstream
        self._target = target
        _Forward.__init__(self, forwarding, exchange, upstream.origin, target)

    def _respond(self, head: Head, body: Body) -> None:
        index = head.fields.index
        if not MAPPED.isdisjoint(index):
            self._map_back(head.fields)
        if b"vary" in index and not _OF_CLIENTS.isdisjoint(head.fields.options(b"vary")):
            head.fields.set(b"Vary", b"*")
        self.exchange.respond(head, body)

    def _interim_head(self, response: Response) -> Head:
        head = super()._interim_head(response)
        if not MAPPED.isdisjoint(head.fields.index):
            self._map_back(head.fields)
        return head

    def _map_back(self, fields: Fields) -> None:
        forwarding, exchange, upstream = self.forwarding, self.exchange, self._upstream
        assert forwarding.upstreams is not None
        authority, asked_as = exchange.request.authority, []
        if forwarding.preserve_host and authority:
            # It speaks of itself by its own scheme, or by the one that X-Forwarded-Proto tells it.
            asked_as = [b"%b://%b" % (scheme, authority) for scheme in (upstream.origin.scheme, exchange.scheme)]
        map_fields(fields, forwarding.upstreams, upstream, self._target, split_authority(authority)[0], asked_as)


class _Rewritten(_Reverse):
    """The same where upstreams' URLs in bodies become this proxy's own."""

    __slots__ = ("_asked_again",)

    def __init__(self, forwarding: Forwarding, exchange: Exchange, upstream: Upstream, target: bytes) -> None:
        self._asked_again = False
        super().__init__(forwarding, exchange, upstream, target)

    def _send(self, origin: Origin, target: bytes, fields: Fields) -> None:
        assert self.forwarding.rewriting is not None
        super()._send(origin, target, self.forwarding.rewriting.request_fields(self.exchange, whole=self._asked_again))

    def _respond(self, head: Head, body: Body) -> None:
        rewriting, exchange = self.forwarding.rewriting, self.exchange
        assert rewriting is not None
        if head.status == 304:
            rewriting.not_modified(exchange, head)
        elif rewriting.is_part(head) and not self._asked_again:
            self._ask_for_all(body)
            return
        elif rewriting.applies(exchange, head):
            body = rewriting.rewrite(exchange, head, body)
        super()._respond(head, body)

    def _ask_for_all(self, body: Body) -> None:
        """RFC 9110 section 14.2: a range may be left out of account; the body it came with is nobody's."""
        if isinstance(body, Source):
            body.close()
        self._asked_again = True
        self._send(self._upstream.origin, self._target, self.exchange.request.fields)
