"""Answers of an API that go on: server-sent events, and whatever else the application says when it has something to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from handlers.responses import Pause, Response
from reactor.errors import BodyCutShort
from reactor.exchange import Source
from reactor.loop import Reactor

EVENTS = b"text/event-stream"
CHANNEL_BYTES = 256 * 1024  # not yet taken by a channel's client: beyond it the client is too slow and is cut off


class Channel(Source):
    """A body that the application writes when it has something: `send`, and `end` when nothing more comes.

    `on_close` is called once when nobody listens any more. A client that leaves more than CHANNEL_BYTES untaken is cut off.
    """

    __slots__ = ("_ended", "_pieces", "_reactor", "_waiting", "backlog", "closed", "on_close")

    def __init__(self, reactor: Reactor, on_close: Callable[[Channel], object] | None = None) -> None:
        super().__init__()
        self._reactor = reactor
        self._pieces: list[bytes] = []
        self._ended = False
        self._waiting = False
        self.backlog = 0  # bytes
        self.closed = False
        self.on_close = on_close

    def send(self, data: bytes) -> bool:
        """Queue bytes; False where they go nowhere: closed, ended, or the client too slow."""
        if self.closed or self._ended or self.backlog > CHANNEL_BYTES:
            return False
        self._pieces.append(data)
        self.backlog += len(data)
        self._wake()
        return self.backlog <= CHANNEL_BYTES

    def end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting:
            self._waiting = False
            if self.on_ready is not None:
                self._reactor.call_soon(self.on_ready)

    def pull(self, limit: int) -> bytes | None:
        if self.backlog > CHANNEL_BYTES:
            raise BodyCutShort("the client is too slow for what it listens to")
        if self._pieces:
            data = b"".join(self._pieces)
            rest = data[limit:]
            self._pieces = [rest] if rest else []
            self.backlog = len(rest)
            return data[:limit]
        if self._ended:
            return b""
        self._waiting = True
        return None

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.on_ready = None
            self._pieces = []
            if self.on_close is not None:
                self._reactor.call_soon(self.on_close, self)


class Event(NamedTuple):
    """A server-sent event (the HTML standard, section 9.2); `retry` in milliseconds."""

    data: str
    event: str | None = None
    id: str | None = None
    retry: int | None = None

    def encode(self) -> bytes:
        """As lines of an event stream; ValueError where a name or an id would break out of its line."""
        lines = []
        for key, value in (("event", self.event), ("id", self.id)):
            if value is not None:
                if any(character in value for character in "\r\n\0"):
                    raise ValueError(f"line end or NUL in the {key} of an event")
                lines.append(f"{key}: {value}\n")
        if self.retry is not None:
            lines.append(f"retry: {self.retry:d}\n")
        text = self.data.replace("\r\n", "\n").replace("\r", "\n")
        lines += [f"data: {line}\n" for line in text.split("\n")]
        return ("".join(lines) + "\n").encode("utf-8")


def event_stream(events: Iterable[Event | str | Pause] | Channel) -> Response:
    """An answer of server-sent events: an iterable of Event, str (its data) and Pause, or a Channel of encoded ones."""
    body: Any = events if isinstance(events, Channel) else _encoded(events)
    return Response(body, fields=[(b"Cache-Control", b"no-store")], content_type=EVENTS)


def _encoded(events: Iterable[Event | str | Pause]) -> Iterator[bytes | Pause]:
    for event in events:
        if isinstance(event, Pause):
            yield event
        else:
            yield (event if isinstance(event, Event) else Event(event)).encode()
