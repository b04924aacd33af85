"""The server's side of HTTP/1.1: a handler, the limits its clients meet, and the connections that are open."""

from __future__ import annotations

import heapq
import logging
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from reactor.exchange import Exchange, Handler, error_page
from reactor.http.dates import format_date
from reactor.http.writer import status_line
from reactor.loop import Reactor
from reactor.server_connection import BODY_TOO_LARGE, ServerConnection
from reactor.stream import Stream
from reactor.timed_connection import TimedConnection

log = logging.getLogger("reactor.server")


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Deadlines in seconds, sizes in bytes, and what happens at each."""

    connections: int = 16_384  # open at a time: the one idle for longest is closed; without one, the newest is answered 503
    requests: int = 0  # on one connection, of which the last is answered with `Connection: close`; 0: any number
    idle: float = 75.0  # between requests: closed
    head: float = 30.0  # from a head's first byte to its last: 408
    body: float = 60.0  # waited for a body, in all, less what `rate` allows for the bytes that came: 408, or cut off
    stalled: float = 60.0  # in each span of so many, while an answer waits for its client, `rate` must be met: reset
    rate: float = 240.0  # bytes a second, of a body and of an answer alike; 0: a byte now and then is enough
    max_body: float = math.inf  # of a request's body: 413
    half_closed: float = 5.0  # after the client's end of input without an answer: the exchange is aborted
    read_ahead: int = 64 * 1024  # buffered while an exchange runs: reading pauses
    drain_bytes: int = 1024 * 1024  # of a request's body after its answer: closed
    drain_seconds: float = 5.0  # the same, in time
    whole_body: int = 64 * 1024  # a body that is there with its head, up to this, is given to the handler as bytes


REFUSED_AT_A_TIME = 64  # newcomers that are being told 503, each within the stream's own bounds; more are closed unheard
ROOM_AT_A_TIME = 256  # idle connections that are being closed to make room; beyond it newcomers are refused
IDLE_ENOUGH = 1.0  # seconds without a request until that may happen: sooner, the next one may be on its way
LOOK_SECONDS = 0.1  # between two looks at all connections for such ones
RETRY_SECONDS = 5  # when those are told to come again


class ExchangeLog(Protocol):
    """Told of exchanges that no handler saw: heads that were refused, and bodies that are too large."""

    def record(self, exchange: Exchange) -> None: ...


class Door(Protocol):
    """Says who may come in; `leave` is called once for each connection that did, when it is gone."""

    def enter(self, peer: str) -> bool: ...
    def leave(self, peer: str) -> None: ...


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
        door: Door | None = None,
        timed: bool = False,
    ) -> None:
        self.reactor = reactor
        self.handler = handler
        self.limits = limits
        self.access_log = access_log
        self.scheme = scheme
        self.body_refusal = BodyRefusal(access_log)
        self.door = door
        self.stopping = False
        self.connections: set[ServerConnection] = set()
        self.accepted = 0  # connections, so far
        self.refused = 0  # connections, so far: more than `limits.connections` at a time, or than the door lets in
        self._refusals: set[Refusal] = set()
        self._leaving: set[ServerConnection] = set()  # closed to make room
        self._spare: list[ServerConnection] = []  # idle when last looked at, the longest at the end
        self._look_at = 0.0
        self._past_requests = 0  # on connections that are gone
        self._on_empty: Callable[[], object] | None = None
        self._connection = TimedConnection if timed else ServerConnection

    def accept(self, sock: socket.socket, peer: str) -> ServerConnection | None:
        """Serve a connected, non-blocking socket; None where it is refused, because too many are open."""
        if self.door is not None and not self.door.enter(peer):
            self._refuse(sock)
            return None
        if len(self.connections) - len(self._leaving) >= self.limits.connections and not self._make_room():
            if self.door is not None:
                self.door.leave(peer)
            self._refuse(sock)
            return None
        self.accepted += 1
        connection = self._connection(self, sock, peer)
        self.connections.add(connection)
        return connection

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest, as RFC 9112 section 9.5 lets us; False where there is none."""
        if len(self._leaving) >= ROOM_AT_A_TIME:
            return False
        if not self._spare and self.reactor.now >= self._look_at:
            self._look_at = self.reactor.now + LOOK_SECONDS
            idle = filter(self._is_spare, self.connections)
            self._spare = heapq.nsmallest(ROOM_AT_A_TIME, idle, key=attrgetter("deadline"))[::-1]
        while self._spare:
            connection = self._spare.pop()
            if self._is_spare(connection):
                self._leaving.add(connection)
                connection.close_if_idle()
                return True
        return False

    def _is_spare(self, connection: ServerConnection) -> bool:
        since = connection.deadline - self.limits.idle
        return since <= self.reactor.now - IDLE_ENOUGH and connection.is_idle

    def _refuse(self, sock: socket.socket) -> None:
        """The newest goes, so that those who are there are served on."""
        self.refused += 1
        if len(self._refusals) < REFUSED_AT_A_TIME:
            self._refusals.add(Refusal(self, sock))
        else:
            sock.close()

    @property
    def requests(self) -> int:
        """Requests taken up so far, on all connections."""
        return self._past_requests + sum(map(self._requests_on, self.connections))

    def _requests_on(self, connection: ServerConnection) -> int:
        return self.limits.requests - connection.requests_left

    def facts(self) -> dict[str, object]:
        """What there is to tell of the connections, in numbers."""
        active = sum(1 for connection in self.connections if connection.exchange is not None)
        counts = {"open": len(self.connections), "active": active, "accepted": self.accepted, "refused": self.refused}
        return {"connections": counts, "exchanges": self.requests}

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
        for refusal in list(self._refusals):
            refusal.stream.abort()
        for connection in list(self.connections):
            connection.abort("shut down")

    def _forget(self, connection: ServerConnection) -> None:
        if self.door is not None and connection in self.connections:
            self.door.leave(connection.peer)
        self.connections.discard(connection)
        self._leaving.discard(connection)
        self._past_requests += self._requests_on(connection)
        if self.stopping and not self.connections and self._on_empty is not None:
            self.reactor.call_soon(self._on_empty)
            self._on_empty = None


class BodyRefusal:
    """The handler of requests whose Content-Length is beyond the limit."""

    def __init__(self, access_log: ExchangeLog | None) -> None:
        self._access_log = access_log

    def handle(self, exchange: Exchange) -> None:
        if self._access_log is not None:
            exchange.on_end(self._access_log.record)
        reason, status = BODY_TOO_LARGE
        exchange.respond(*error_page(status, reason))


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
