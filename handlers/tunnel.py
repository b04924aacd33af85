"""CONNECT: a tunnel to the host and port that the client names (RFC 9110 section 9.3.6)."""

from __future__ import annotations

import socket

from reactor.connector import Attempt, Connector
from reactor.errors import ProtocolError, UpstreamError
from reactor.exchange import Exchange, Handler, Head, error_page
from reactor.http.uri import split_authority
from reactor.relay import Relay
from reactor.stream import Stream

ESTABLISHED = b"Connection established"


class Tunnel:
    """Answers CONNECT itself, and leaves every other method to `handler`. `idle` is in seconds."""

    def __init__(self, connector: Connector, handler: Handler, idle: float = 300.0) -> None:
        self.connector = connector
        self.handler = handler
        self.idle = idle

    def handle(self, exchange: Exchange) -> None:
        if exchange.request.method != b"CONNECT":
            self.handler.handle(exchange)
            return
        exchange.verdict = "tunnel"
        if exchange.request.length:  # RFC 9110 section 9.3.6: it means nothing, and where the tunnel begins is in doubt
            exchange.error = ProtocolError("a CONNECT with content")
            exchange.respond(*error_page(400, "a CONNECT has no content"))
            return
        _Connect(self, exchange)


class _Connect:
    """One tunnel: connecting, then relaying."""

    __slots__ = ("tunnel", "exchange", "_attempt", "_relay")

    def __init__(self, tunnel: Tunnel, exchange: Exchange) -> None:
        self.tunnel = tunnel
        self.exchange = exchange
        self._relay: Relay | None = None
        host, port = split_authority(exchange.request.authority)
        assert port is not None  # the parser refuses a CONNECT without one
        name = host.strip(b"[]").decode("ascii")
        if exchange.timing is not None:
            exchange.timing.fetch.began = exchange.reactor.now
        self._attempt: Attempt | None = tunnel.connector.connect(name, port, self._connected)
        exchange.on_end(self._ended)

    def _connected(self, result: socket.socket | UpstreamError, address: str) -> None:
        attempt, self._attempt = self._attempt, None
        exchange = self.exchange
        if exchange.timing is not None and attempt is not None:
            attempt.tell(exchange.timing.fetch)
        exchange.upstream = address
        if isinstance(result, UpstreamError):
            exchange.error = result
            exchange.respond(*error_page(result.status, f"upstream {result}"))
            return
        upstream = Stream(exchange.reactor, None, result)
        client, left_over = exchange.upgrade(Head(200, (), ESTABLISHED))
        self._relay = relay = Relay(exchange.reactor, client, upstream, self.tunnel.idle, self._over, ("client", "upstream"))
        relay.start(left_over, b"")

    def _over(self, relay: Relay) -> None:
        self._relay = None
        exchange = self.exchange
        exchange.bytes_in, exchange.bytes_out = relay.bytes_left_to_right, relay.bytes_right_to_left
        exchange.finish(None if relay.reason == "closed" else relay.reason)

    def _ended(self, exchange: Exchange) -> None:
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        if self._relay is not None:
            self._relay.abort()
