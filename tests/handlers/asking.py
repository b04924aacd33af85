"""A handler asked without a connection: bytes of a request in, the answer out, on a loop with clocks of the test's own."""

from __future__ import annotations

import json
import selectors
from typing import Any

from reactor.errors import BodyCutShort
from reactor.exchange import Body, BytesSource, Exchange, Handler, Head, Source
from reactor.http.parser import Data, EndOfMessage, Request, RequestParser
from reactor.loop import Reactor

NOON = 1_700_000_000.25  # the test's wall clock, unless it says otherwise


class _NoSockets(selectors.SelectSelector):
    """A selector that never waits, and that needs no descriptor of its own: time passes only where the test says so."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(0)


class Clock:
    """A loop whose clocks are set by hand."""

    def __init__(self, wall: float = NOON) -> None:
        self.seconds = 1000.0
        self.wall = wall
        self.reactor = Reactor(_NoSockets(), lambda: self.seconds, lambda: self.wall)

    def settle(self) -> None:
        """Run what is due now, and what that leads to."""
        for _ in range(20):
            self.reactor.turn(0)

    def pass_(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall += seconds
        self.settle()


class Answer(Exchange):
    """An exchange that keeps its answer; `content` pulls the body as far as it comes."""

    __slots__ = ("_content", "aborted", "answer_body", "head", "whole")

    def __init__(self, clock: Clock, request: Request, body: Body) -> None:
        super().__init__(clock.reactor, request, body, "192.0.2.7")
        self.head: Head | None = None
        self.answer_body: Body = b""
        self.aborted: str | None = None
        self.whole = False
        self._content = bytearray()

    def _respond(self, head: Head, body: Body) -> None:
        self.head = head
        self.answer_body = body
        if isinstance(body, Source):
            body.on_ready = self._pull

    def _abort(self, reason: str) -> None:
        self.aborted = reason
        self.leave()

    def _pull(self) -> None:
        source = self.answer_body
        assert isinstance(source, Source)
        while not self.whole and (data := source.pull(1000)) is not None:
            self._content += data
            self.whole = not len(data)
        if self.whole:
            source.close()
            self.finish()

    def leave(self) -> None:
        """The client goes away before the end."""
        if isinstance(self.answer_body, Source):
            self.answer_body.close()
        self.finish("the client left")

    @property
    def content(self) -> bytes:
        if isinstance(self.answer_body, bytes):
            return self.answer_body
        self._pull()
        return bytes(self._content)

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    def field(self, name: str) -> str | None:
        assert self.head is not None
        value = self.head.fields.get(name.lower().encode())
        return None if value is None else value.decode("latin-1")


class SlowBody(Source):
    """A request's body that comes when the test sends it."""

    def __init__(self, clock: Clock, length: int | None = None) -> None:
        super().__init__(length)
        self._clock = clock
        self._pieces: list[bytes] = []
        self._waiting = False
        self._error: BodyCutShort | None = None

    def send(self, *pieces: bytes) -> None:
        self._pieces += pieces
        self._wake()

    def cut(self, error: BodyCutShort) -> None:
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiting and self.on_ready is not None:
            self._waiting = False
            self._clock.reactor.call_soon(self.on_ready)
        self._clock.settle()

    def pull(self, limit: int) -> bytes | None:
        if self._pieces:
            return self._pieces.pop(0)
        if self._error is not None:
            raise self._error
        self._waiting = True
        return None


def parse(text: str | bytes) -> tuple[Request, bytes]:
    """A request as it is on the wire, lines ended by LF alone for legibility; without a Host, one is added."""
    data = text.encode("latin-1") if isinstance(text, str) else text
    head, _, body = data.partition(b"\n\n")
    lines = head.split(b"\n")
    if not any(line.lower().startswith(b"host:") for line in lines):
        lines.append(b"Host: example.com")
    if body and b"content-length:" not in head.lower():
        lines.append(b"Content-Length: %d" % len(body))
    parser = RequestParser()
    parser.feed(b"".join(line + b"\r\n" for line in [lines[0] + b" HTTP/1.1", *lines[1:]]) + b"\r\n" + body)
    request = parser.next_event()
    assert isinstance(request, Request)
    pieces = []
    while not isinstance(event := parser.next_event(), EndOfMessage):
        if not isinstance(event, Data):
            break
        pieces.append(event.data)
    return request, b"".join(pieces)


def ask(
    handler: Handler, text: str | bytes, clock: Clock | None = None, body: Body | None = None, streamed: bool = False
) -> Answer:
    """Hand the request to the handler. `body` replaces the one written; `streamed` makes a Source of it."""
    clock = clock or Clock()
    clock.settle()
    request, written = parse(text)
    if body is None:
        body = BytesSource(written) if streamed else written
    answer = Answer(clock, request, body)
    handler.handle(answer)
    return answer
