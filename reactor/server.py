"""The server's side of HTTP/1.1: a handler, the limits its clients meet, and the connections that are open."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from reactor.exchange import Exchange, Handler, error_page
from reactor.http.dates import format_date
from reactor.http.writer import status_line
from reactor.loop import Reactor
from reactor.server_connection import ServerConnection
from reactor.stream import Stream

log = logging.getLogger("reactor.server")


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Deadlines in seconds, sizes in bytes, and what happens at each."""

    idle: float = 75.0  # between requests: closed
    head: float = 30.0  # from a head's first byte to its last: 408
    body: float = 60.0  # without a byte of a body that is waited for: 408, or cut off once answered
    stalled: float = 60.0  # without the client taking a byte of the answer: reset
    half_closed: float = 5.0  # after the client's end of input without an answer: the exchange is aborted
    read_ahead: int = 64 * 1024  # buffered while an exchange runs: reading pauses
    drain_bytes: int = 1024 * 1024  # of a request's body after its answer: closed
    drain_seconds: float = 5.0  # the same, in time
    whole_body: int = 64 * 1024  # a body that is there with its head, up to this, is given to the handler as bytes


REFUSED_AT_A_TIME = 64  # newcomers that are being told 503, each within the stream's own bounds; more are closed unheard
RETRY_SECONDS = 5  # when those are told to come again


class ExchangeLog(Protocol):
    """Told of exchanges that no handler saw: heads that were refused."""

    def record(self, exchange: Exchange) -> None: ...


class Door(Protocol):
    """Says who may come in; `leave` is called once for each connection that did, when it is gone."""

    def enter(self, peer: str) -> bool: ...
    def leave(self, peer: str) -> None: ...


class Server:
    """What the connections of one listener share: the handler, the limits, and the set of them."""

    def __init__(
        self,
        reactor: Reactor,
        handler: Handler,
        limits: ServerLimits = ServerLimits(),
        access_log: ExchangeLog | None = None,
        scheme: bytes = b"http",
        door: Door | None = None,
    ) -> None:
        self.reactor = reactor
        self.handler = handler
        self.limits = limits
        self.access_log = access_log
        self.scheme = scheme
        self.door = door
        self.stopping = False
        self.connections: set[ServerConnection] = set()
        self._refusals: set[Refusal] = set()
        self._on_empty: Callable[[], object] | None = None

    def accept(self, sock: socket.socket, peer: str) -> ServerConnection | None:
        """Serve a connected, non-blocking socket; None where it is refused, because too many are open."""
        if self.door is not None and not self.door.enter(peer):
            self._refuse(sock)
            return None
        connection = ServerConnection(self, sock, peer)
        self.connections.add(connection)
        return connection

    def _refuse(self, sock: socket.socket) -> None:
        """The newest goes, so that those who are there are served on."""
        if len(self._refusals) < REFUSED_AT_A_TIME:
            self._refusals.add(Refusal(self, sock))
        else:
            sock.close()

    def shutdown(self, on_empty: Callable[[], object]) -> None:
        """Close what is idle, let running exchanges end; `on_empty` is called once no connection is left."""
        self.stopping = True
        for refusal in list(self._refusals):
            refusal.stream.abort()
        if not self.connections:
            self.reactor.call_soon(on_empty)
            return
        self._on_empty = on_empty
        for connection in list(self.connections):
            connection.close_if_idle()

    def abort(self) -> None:
        """Reset every connection."""
        for connection in list(self.connections):
            connection.abort("shut down")
        for refusal in list(self._refusals):
            refusal.stream.abort()

    def _forget(self, connection: ServerConnection) -> None:
        if self.door is not None and connection in self.connections:
            self.door.leave(connection.peer)
        self.connections.discard(connection)
        if self.stopping and not self.connections and self._on_empty is not None:
            self.reactor.call_soon(self._on_empty)
            self._on_empty = None


class Refusal:
    """A connection too many: it is told so before it asks, and closed."""

    __slots__ = ("_server", "stream")

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self._server = server
        self.stream = Stream(server.reactor, self, sock)
        head, body = error_page(503, "too many connections are open")
        head.fields.add(b"Retry-After", b"%d" % RETRY_SECONDS)
        self.stream.write(
            b"%b%bDate: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (status_line(503), head.fields.wire(), format_date(server.reactor.wall), len(body), body)
        )
        self.stream.close()

    def data_received(self, data: bytes) -> None:
        """What it asks is not read."""

    def eof_received(self) -> None:
        """It is being closed anyway."""

    def resume_writing(self) -> None:
        """Nothing more is written."""

    def drained(self) -> None:
        """All is said."""

    def connection_lost(self, error: Exception | None) -> None:
        self._server._refusals.discard(self)

    def failed(self, error: Exception) -> None:
        self.stream.abort()
