"""A client's connection whose exchanges note where their time goes, for a log that writes it down.

All of the noting is here and in `Timing`, so that a server without such a log pays nothing for it.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from reactor.exchange import Body, Head, Source
from reactor.http.parser import Data, EndOfMessage, Request
from reactor.loop import Reactor
from reactor.request_body import RequestBody
from reactor.server_connection import ServerConnection, ServerExchange
from reactor.stream import HIGH_WATER
from reactor.timing import Timing

if TYPE_CHECKING:
    from reactor.server import Server


class TimedExchange(ServerExchange):
    """An exchange with its `timing`."""

    __slots__ = ()

    def __init__(
        self, reactor: Reactor, request: Request | None, body: Body, peer: str, scheme: bytes, connection: TimedConnection
    ) -> None:
        super().__init__(reactor, request, body, peer, scheme, connection)
        self.timing = Timing(reactor.clock() - connection.head_since)


class TimedConnection(ServerConnection):
    """See ServerConnection; each override notes, and leaves the rest to it."""

    __slots__ = ("head_since",)

    exchange_type = TimedExchange

    def __init__(self, server: Server, sock: socket.socket, peer: str) -> None:
        self.head_since = server.reactor.now  # when the first bytes of the next head were there
        super().__init__(server, sock, peer)

    def _advance(self) -> None:
        if self.state != "head":
            self.head_since = self.reactor.clock()
        super()._advance()

    def _begin(self, request: Request) -> None:
        super()._begin(request)
        self.head_since = self.reactor.clock()

    def _next_of_body(self, body: RequestBody) -> Data | EndOfMessage | None:
        exchange = self.exchange
        if exchange is None or exchange.timing is None:
            return super()._next_of_body(body)
        exchange.timing.go_on(self.reactor.now)
        event = super()._next_of_body(body)
        if event is None:
            exchange.timing.wait_for_client(self.reactor.now)
        return event

    def _send_source(self, exchange: ServerExchange, head: Head, source: Source, wire: bytes | None) -> None:
        super()._send_source(exchange, head, source, wire)
        if self._file_at is not None and exchange.timing is not None:
            exchange.timing.wait_for_client(self.reactor.now)

    def _pump(self) -> None:
        exchange, now = self.exchange, self.reactor.now
        super()._pump()
        if exchange is None or exchange.timing is None or self.exchange is not exchange:
            return  # all of it is handed over
        if self._file_at is not None or self.stream.backlog >= HIGH_WATER:
            exchange.timing.wait_for_client(now)
        else:
            exchange.timing.wait_for_source(now)

    def _response_done(self) -> None:
        exchange = self.exchange
        super()._response_done()
        if exchange is not None and exchange.timing is not None:
            exchange.timing.wait_for_client(self.reactor.now)  # until the last byte is in the kernel
