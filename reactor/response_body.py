"""A response's body, as its owner pulls it from the connection to the origin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactor.errors import BodyCutShort
from reactor.exchange import Source
from reactor.http.fields import Fields
from reactor.http.parser import Data

if TYPE_CHECKING:
    from reactor.client_connection import ClientConnection


class ResponseBody(Source):
    """A response's body, pulled from its connection. It ends the call when it ends."""

    __slots__ = ("_connection", "_rest", "waiting", "_ended", "_cut")

    def __init__(self, connection: ClientConnection, length: int | None, first: bytes) -> None:
        super().__init__(length)
        self._connection: ClientConnection | None = connection
        self._rest: bytes | memoryview = first  # received, but more than the last pull wanted
        self.waiting = False
        self._ended = False
        self._cut: str | None = None

    def pull(self, limit: int) -> bytes | memoryview | None:
        rest = self._rest
        if len(rest):
            if len(rest) <= limit:
                self._rest = b""
                return rest
            rest = memoryview(rest)
            self._rest = rest[limit:]
            return rest[:limit]
        connection = self._connection
        if connection is None:
            return self._end()
        event = connection.next_of_body()
        if event is None:
            if self._cut is not None:
                return self._end()
            self.waiting = True
            return None
        if type(event) is Data:
            if len(event.data) > limit:
                self._rest = memoryview(event.data)[limit:]
                return memoryview(event.data)[:limit]
            return event.data
        self._connection = None
        self.trailers = event.trailers  # type: ignore[union-attr]
        return b""

    def _end(self) -> bytes:
        if self._cut is not None:
            raise BodyCutShort(self._cut)
        return b""

    def wake(self) -> None:
        """There may be more to pull."""
        if self.waiting:
            self.waiting = False
            if self.on_ready is not None and self._connection is not None:
                self._connection.reactor.call_soon(self.on_ready)

    def end(self, trailers: Fields | None) -> None:
        """All of it is here already."""
        self.trailers = trailers
        self.wake()
        self._connection = None

    def cut(self, reason: str) -> None:
        """The connection is gone before the body was whole."""
        self._cut = reason
        self.wake()
        self._connection = None

    def keep(self, pieces: list[bytes]) -> None:
        """Take what the connection still had."""
        self._rest = b"".join([self._rest, *pieces])

    def close(self) -> None:
        self.on_ready = None
        self.waiting = False
        self._rest = b""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
