"""A request's body, as the handler pulls it from the client's connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from reactor.errors import BodyCutShort
from reactor.exchange import Source
from reactor.http.parser import EndOfMessage

if TYPE_CHECKING:
    from reactor.server_connection import ServerConnection


class RequestBody(Source):
    """A request's body, pulled from its connection."""

    __slots__ = ("_connection", "_rest", "_since", "patience", "received", "waiting", "ended", "cut")

    def __init__(self, connection: ServerConnection, length: int | None) -> None:
        super().__init__(length)
        self._connection: ServerConnection | None = connection
        self._rest = b""  # received, but more than the last pull wanted
        self._since = 0.0  # when the present wait began
        self.patience = connection.server.limits.body  # seconds that may still be waited; bytes that come bring them back
        self.received = 0  # bytes
        self.waiting = False
        self.ended = False
        self.cut: BodyCutShort | None = None

    def pull(self, limit: int) -> bytes | memoryview | None:
        if self._rest:
            piece, self._rest = self._rest[:limit], self._rest[limit:]
            return piece
        if self.ended:
            return b""
        if self.cut is not None:
            # A new one each time: what is raised refers to the frames, and they to this body.
            raise BodyCutShort(self.cut.reason, self.cut.status)
        if self._connection is None:
            raise BodyCutShort("the body was closed")
        event = self._connection._next_of_body(self)
        if event is None:
            self.waiting = True
            self._since = self._connection.reactor.now
            return None
        if isinstance(event, EndOfMessage):
            self.ended = True
            self.trailers = event.trailers
            return b""
        if len(event.data) > limit:
            self._rest = event.data[limit:]
            return event.data[:limit]
        return event.data

    def wake(self) -> None:
        """There may be more to pull."""
        if self.waiting and self._connection is not None:
            self.patience = self.patience_left()
            self.waiting = False
            self._connection.reactor.call_soon(self._tell, self.on_ready)

    def patience_left(self) -> float:
        """Seconds; only the time in which its consumer waits counts, and not that in which nobody wants more."""
        assert self._connection is not None
        return self.patience - (self._connection.reactor.now - self._since)

    def _tell(self, on_ready: Callable[[], object] | None) -> None:
        if on_ready is not None:
            on_ready()

    def failed(self, error: Exception) -> None:
        """Its consumer raised (logged by the loop): that is told, or else the connection, so that the client is answered."""
        told = getattr(getattr(self.on_ready, "__self__", None), "failed", None)
        if told is not None:
            told(error)
        elif self._connection is not None:
            self._connection.failed(error)

    def end_early(self) -> None:
        """The exchange was answered before the body was whole: it is the connection's again."""
        self.cut = BodyCutShort("answered before the body was whole")
        self._rest = b""
        self.wake()

    def close(self) -> None:
        self._connection = None
        self.on_ready = None
        self.waiting = False
        self._rest = b""
