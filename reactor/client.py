"""The client's side of HTTP/1.1: calls, and the pool of the connections that they run on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from reactor.client_connection import ClientConnection, Connecting
from reactor.connector import Callback, Connector
from reactor.errors import UpstreamError
from reactor.exchange import Body
from reactor.http.parser import Response
from reactor.http.uri import Origin
from reactor.loop import Reactor
from reactor.proxied import Through
from reactor.stream import Stream
from reactor.timing import FetchTimes

if TYPE_CHECKING:
    from reactor.tls import ClientTls


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Deadlines in seconds, sizes in bytes, and what happens at each."""

    connect: float = 10.0  # resolving and connecting: 504
    first_byte: float = 60.0  # from the request's last byte to the response's head: 504
    between_bytes: float = 60.0  # without a byte of a body that is waited for: cut off
    stalled: float = 60.0  # without the peer taking a byte of the request: 504
    continue_wait: float = 1.0  # for a 100 (Continue) before the body is sent all the same
    idle: float = 30.0  # kept between calls: closed
    lifetime: float = 600.0  # since it was made, then it is not kept again: a name that has moved is followed
    read_ahead: int = 128 * 1024  # of a body that is not pulled: reading pauses
    connections: int = 4096  # open at once in one pool: an idle one is given up, else further calls fail with 503
    idle_per_origin: int = 64  # kept for one origin: the oldest is closed
    interim: int = 32  # 1xx responses before the final one: 502


class CallOwner(Protocol):
    """What a call tells, always from the loop: any `call_informed`, then one of the other two, once."""

    def call_informed(self, call: Call, response: Response) -> None: ...
    def call_responded(self, call: Call, response: Response, body: Body) -> None: ...
    def call_failed(self, call: Call, error: UpstreamError) -> None: ...


class Via(NamedTuple):
    """A proxy that is asked for a tunnel; `fields` are further field lines of that request, each with its CRLF."""

    proxy: Origin
    fields: bytes = b""


Route = Origin | tuple[Via, Origin]  # straight, or through a tunnel: what connections are kept by


class Call:
    """One request to one origin, and its way to an answer.

    `head` is the request line and the field lines, each with its CRLF, without framing, Connection and the empty line.
    `waits_for_100` holds the body back until the peer's 100 (Continue), or a named wait. `via` leads through
    a proxy's tunnel to the origin, which must be https.
    """

    __slots__ = (
        "pool", "origin", "via", "route", "method", "head", "body", "owner", "waits_for_100", "connection", "_address", "fresh",
        "times",
    )  # fmt: skip

    def __init__(
        self, pool: Pool, origin: Origin, method: bytes, head: bytes, body: Body, owner: CallOwner, waits_for_100: bool = False,
        times: FetchTimes | None = None, via: Via | None = None,
    ) -> None:  # fmt: skip
        self.pool = pool
        self.origin = origin
        self.via = via
        self.route: Route = origin if via is None else (via, origin)
        self.method = method
        self.head = head
        self.body = body
        self.owner: CallOwner | None = owner
        self.waits_for_100 = waits_for_100
        self.connection: ClientConnection | None = None
        self._address: str | None = None
        self.times = times  # filled in, where somebody wants to know
        self.fresh = False  # on a connection of its own, so that a loss is no stale connection's

    @property
    def address(self) -> str:
        """`ip:port` once it is connected, the origin before."""
        return self._address or str(self.origin)

    @property
    def sent(self) -> int:
        """Bytes of the request, its head included, that the kernel has taken."""
        connection = self.connection
        return connection.stream.sent - connection._mark if connection is not None else 0

    def abort(self) -> None:
        """Nobody waits for this call any more; its owner hears nothing further."""
        self.owner = None
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()

    def take_stream(self) -> tuple[Stream, bytes]:
        """After a 101, or a 2xx to CONNECT: the stream and what came behind the head. The caller becomes its owner.

        To be called from within `call_responded`, or the connection is reset.
        """
        assert self.connection is not None
        return self.connection.hand_over()

    def _fail(self, error: UpstreamError) -> None:
        self.connection = None
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.call_failed(self, error)


class Pool:
    """Connections per origin, the last one used taken first. `tls` says whom to trust; without it the system's authorities.

    A connection is given to a call only where the connector permits its address (still), so that the pool is no way round.
    """

    def __init__(
        self, reactor: Reactor, connector: Connector, limits: ClientLimits = ClientLimits(), tls: ClientTls | None = None
    ) -> None:
        self.reactor = reactor
        self.connector = connector
        self.limits = limits
        self._tls = tls
        self.closed = False
        self._idle: dict[Route, deque[ClientConnection]] = {}
        self._all: set[ClientConnection] = set()

    def call(
        self, origin: Origin, method: bytes, head: bytes, body: Body, owner: CallOwner, waits_for_100: bool = False,
        times: FetchTimes | None = None, via: Via | None = None,
    ) -> Call:  # fmt: skip
        """Send a request; its owner is told from the loop. See Call."""
        call = Call(self, origin, method, head, body, owner, waits_for_100, times, via)
        if times is not None:
            times.began = self.reactor.now
        self._start(call)
        return call

    def _start(self, call: Call) -> None:
        idle = self._idle.get(call.route) if not call.fresh else None
        if idle and self.connector.permit is not None:
            self._drop_forbidden(idle)
        if idle:
            idle.pop().begin(call)
        elif len(self._all) >= self.limits.connections and not self._give_up_idle():
            self.reactor.call_soon(call._fail, UpstreamError("too many connections are open", "connect", call.address, 503))
        else:
            call.fresh = True
            self._all.add(ClientConnection(self, call))

    def _drop_forbidden(self, idle: deque[ClientConnection]) -> None:
        """Close what leads to an address that is not permitted any more."""
        while idle and not self.connector.permits(idle[-1].address):
            idle[-1].abort()

    def connect(self, call: Call, callback: Callback) -> Connecting:
        """A connection for a call being made: a socket, or for https a TlsStream. See `Connector.connect`."""
        origin = call.origin
        host, port, seconds = origin.connect_host, origin.port, self.limits.connect
        if call.via is not None:
            return Through(self, call.via, origin, self._trust().attempt(self.reactor, host, port, callback, seconds))
        if origin.scheme != b"https":
            return self.connector.connect(host, port, callback, seconds)
        return self._trust().connect(self.connector, host, port, callback, seconds)

    def _trust(self) -> ClientTls:
        if self._tls is None:
            from reactor.tls import ClientTls  # here, because most runs do without, and it costs time and memory

            self._tls = ClientTls()
        return self._tls

    def _keep(self, connection: ClientConnection) -> bool:
        """Take back a connection between calls; False where it is not to be kept."""
        if self.closed or self.reactor.now >= connection.retires:
            return False
        idle = self._idle.get(connection.route)
        if idle is None:
            idle = self._idle[connection.route] = deque()
        elif len(idle) >= self.limits.idle_per_origin:
            idle.popleft().close()
        idle.append(connection)
        return True

    def _unkeep(self, connection: ClientConnection) -> None:
        idle = self._idle.get(connection.route)
        if idle is not None:
            try:
                idle.remove(connection)
            except ValueError:
                return  # it was closed because the deque was full

    def _give_up_idle(self) -> bool:
        """Make room for a connection to another origin; False where none is idle."""
        for idle in self._idle.values():
            if idle:
                idle[0].abort()
                return True
        return False

    def _forget(self, connection: ClientConnection) -> None:
        self._all.discard(connection)
        if connection.route in self._idle and not self._idle[connection.route]:
            del self._idle[connection.route]

    @property
    def idle(self) -> int:
        """Connections kept at the moment."""
        return sum(map(len, self._idle.values()))

    def close(self) -> None:
        """Close what is idle; what is busy is closed when its call ends."""
        self.closed = True
        kept = [connection for idle in self._idle.values() for connection in idle]
        for connection in kept:
            connection.close()

    def abort(self) -> None:
        """Close every connection at once, the busy ones with a reset; calls on them hear nothing further."""
        self.closed = True
        for connection in list(self._all):
            if connection.state == "idle" or connection.stream.state == "lingering":
                connection.stream.release().close()
                connection._over()
            else:
                connection.abort()
                connection.stream.abort()
