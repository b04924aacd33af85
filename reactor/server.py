"""The server's side of HTTP/1.1: a handler, the limits its clients meet, and the connections that are open."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from reactor.exchange import Exchange, Handler
from reactor.loop import Reactor
from reactor.server_connection import ServerConnection
from reactor.timed_connection import TimedConnection

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


class ExchangeLog(Protocol):
    """Told of exchanges that no handler saw: heads that were refused."""

    def record(self, exchange: Exchange) -> None: ...


class Server:
    """What the connections of one listener share: the handler, the limits, and the set of them.

    Where it is `timed`, exchanges note where their time goes (Exchange.timing).
    """

    def __init__(
        self,
        reactor: Reactor,
        handler: Handler,
        limits: ServerLimits = ServerLimits(),
        access_log: ExchangeLog | None = None,
        scheme: bytes = b"http",
        timed: bool = False,
    ) -> None:
        self.reactor = reactor
        self.handler = handler
        self.limits = limits
        self.access_log = access_log
        self.scheme = scheme
        self.stopping = False
        self.connections: set[ServerConnection] = set()
        self._on_empty: Callable[[], object] | None = None
        self._connection = TimedConnection if timed else ServerConnection

    def accept(self, sock: socket.socket, peer: str) -> ServerConnection:
        """Serve a connected, non-blocking socket."""
        connection = self._connection(self, sock, peer)
        self.connections.add(connection)
        return connection

    def shutdown(self, on_empty: Callable[[], object]) -> None:
        """Close what is idle, let running exchanges end; `on_empty` is called once no connection is left."""
        self.stopping = True
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

    def _forget(self, connection: ServerConnection) -> None:
        self.connections.discard(connection)
        if self.stopping and not self.connections and self._on_empty is not None:
            self.reactor.call_soon(self._on_empty)
            self._on_empty = None
