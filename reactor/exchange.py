"""The vocabulary every role speaks: Head, Source, Exchange, Handler.

An Exchange is one request and the way to answer it. A Handler is anything with `handle(exchange)`; handlers wrap
handlers. A body is plain bytes, or a Source that its one consumer pulls.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from reactor.errors import BodyCutShort, ReactorError
from reactor.http.fields import Fields, Text
from reactor.http.parser import Request
from reactor.http.writer import REASONS
from reactor.loop import Reactor
from reactor.stream import Stream
from reactor.timing import Timing

log = logging.getLogger("reactor.exchange")

PULL = 128 * 1024  # bytes asked of a Source at a time by those who have no better number


class Source:
    """A body, pulled by its one consumer. One object per message, never the connection itself.

    `pull(limit)` gives at most `limit` bytes, `b""` at the end, or None for "later": then `on_ready` is called once,
    always through `call_soon`. It raises BodyCutShort where the body breaks off. `trailers` are there after the end.
    `rewind` starts again where that is possible. `close` is idempotent: interest lost; before the end it costs a
    live connection its life.
    """

    __slots__ = ("on_ready", "length", "trailers")

    def __init__(self, length: int | None = None) -> None:
        self.length = length  # bytes, None where unknown
        self.on_ready: Callable[[], object] | None = None
        self.trailers: Fields | None = None

    def pull(self, limit: int) -> bytes | memoryview | None:
        raise NotImplementedError(f"{type(self).__name__} does not say how it is pulled")

    def as_file(self) -> tuple[int, int, int] | None:
        """(descriptor, offset, count) of what is still to be pulled, where that is a range of a file."""
        return None

    def intact(self) -> bool:
        """Whether that file still is what the head said of it: asked before its last bytes are sent."""
        return True

    def rewind(self) -> bool:
        return False

    def close(self) -> None:
        """Interest lost."""


Body = bytes | Source


class BytesSource(Source):
    """Bytes as a Source, for those who wrap one."""

    __slots__ = ("_data", "_pos")

    def __init__(self, data: bytes) -> None:
        super().__init__(len(data))
        self._data = data
        self._pos = 0

    def pull(self, limit: int) -> bytes | memoryview:
        piece = self._data[self._pos : self._pos + limit]
        self._pos += len(piece)
        return piece

    def rewind(self) -> bool:
        self._pos = 0
        return True


class FileSource(Source):
    """A range of an open file; owns the descriptor unless `owned` is false."""

    __slots__ = ("_fd", "_start", "_pos", "_end", "_owned")

    def __init__(self, fd: int, offset: int, count: int, owned: bool = True) -> None:
        super().__init__(count)
        self._fd = fd
        self._start = self._pos = offset
        self._end = offset + count
        self._owned = owned

    def pull(self, limit: int) -> bytes:
        want = min(limit, self._end - self._pos)
        if not want:
            return b""
        piece = os.pread(self._fd, want, self._pos)
        if not piece:
            raise BodyCutShort("the file became shorter while it was read")
        self._pos += len(piece)
        return piece

    def as_file(self) -> tuple[int, int, int]:
        return self._fd, self._pos, self._end - self._pos

    def rewind(self) -> bool:
        self._pos = self._start
        return True

    def close(self) -> None:
        if self._owned and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class WrappedSource(Source):
    """A body that is made of another one. Its `on_ready` is that one's own, so that an exception there costs the consumer."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Source, length: int | None = None) -> None:
        self._inner = inner
        super().__init__(length)

    @property
    def on_ready(self) -> Callable[[], object] | None:
        return self._inner.on_ready

    @on_ready.setter
    def on_ready(self, callback: Callable[[], object] | None) -> None:
        self._inner.on_ready = callback


def as_source(body: Body) -> Source:
    """The body as a Source, whichever of the two it is."""
    return body if isinstance(body, Source) else BytesSource(body)


class Head:
    """Status and field lines of a response, without framing or Connection, which the connection alone writes.

    `wire`, where given, is the whole head already serialized for a kept HTTP/1.1 connection. A Head may be shared by
    many exchanges (a stored response is, and a handler may keep one): whoever changes one takes `edited()`.
    """

    __slots__ = ("status", "fields", "reason", "wire", "shared")

    def __init__(
        self,
        status: int,
        fields: Fields | Iterable[tuple[Text, Text]] = (),
        reason: bytes | None = None,
        wire: bytes | None = None,
        shared: bool = True,
    ) -> None:
        self.status = status
        self.fields = fields if isinstance(fields, Fields) else Fields(fields)
        self.reason = reason
        self.wire = wire
        self.shared = shared

    def edited(self) -> Head:
        """A head whose fields may be changed: a copy, unless this one belongs to its exchange alone."""
        if not self.shared:
            return self
        return Head(self.status, self.fields.copy(), self.reason, shared=False)

    def __repr__(self) -> str:
        return f"<Head {self.status}>"


NO_STORE = (b"Cache-Control", b"no-store")
NOSNIFF = (b"X-Content-Type-Options", b"nosniff")  # a browser takes our page for the site's: nothing of it may be markup


def error_page(status: int, reason: str, *fields: tuple[bytes, bytes]) -> tuple[Head, bytes]:
    """A short text body that says what is wrong, for answers that no handler of the user's makes, and these fields with it."""
    title = REASONS.get(status, b"Error").decode("ascii")
    body = f"{status} {title}: {reason}\n".encode("utf-8", "backslashreplace")
    return Head(status, [(b"Content-Type", b"text/plain; charset=utf-8"), *fields]), body


class Handler(Protocol):
    """What answers an exchange, now or later. Raising means 500."""

    def handle(self, exchange: Exchange) -> None: ...


OnEnd = Callable[["Exchange"], object]
MapHead = Callable[["Exchange", Head], Head]


class Exchange:
    """One request and the way to answer it.

    It ends exactly once: a response completed, or aborted. `on_end` callbacks run then, after the last byte reached
    the kernel. The slots below `request` and `body` are the facts that logs and wrappers read.
    """

    __slots__ = (
        "reactor", "request", "body", "scheme", "connection",
        "peer", "user", "verdict", "status", "started", "head_sent", "finished", "bytes_in", "bytes_out", "failure", "upstream",
        "error", "reason", "timing", "ended", "_ends", "_maps",
    )  # fmt: skip

    def __init__(
        self, reactor: Reactor, request: Request | None, body: Body, peer: str, scheme: bytes = b"http", connection: Any = None
    ) -> None:
        self.reactor = reactor
        self.connection = connection  # what it is answered on, where that is one
        self.request: Any = request  # None where the head itself was refused
        self.body = body
        self.scheme = scheme
        self.peer = peer  # the client's address, without its port
        self.user: str | None = None
        self.verdict: str | None = None  # what the cache or the access rules said, one word
        self.status = 0  # of the final response, 0 before it
        self.started = reactor.now
        self.head_sent = 0.0
        self.finished = 0.0
        self.bytes_in = 0  # of the request's body
        self.bytes_out = 0  # of the response's body, or of a tunnel
        self.failure: str | None = None  # why it ended otherwise than whole
        self.upstream: str | None = None  # the address a forwarded request went to
        self.error: ReactorError | None = None  # why a handler of ours answered in the origin's place
        self.reason: str | None = None  # what the verdict rests on, where somebody said
        self.timing: Timing | None = None  # where a log wants it
        self.ended = False
        self._ends: list[OnEnd] | None = None
        self._maps: list[MapHead] | None = None

    # What a handler calls.

    def respond(self, head: Head, body: Body = b"") -> None:
        """Give the final response. What is given after the end (the client is gone) is closed and dropped.

        Raises RuntimeError where a response was given already.
        """
        if self.ended:
            if isinstance(body, Source):
                body.close()
            return
        if self.status:
            raise RuntimeError("the exchange was answered already")
        if self._maps is not None:
            head = self._mapped(head, body)
        self.status = head.status
        self.head_sent = self.reactor.now
        self._respond(head, body)

    def _mapped(self, head: Head, body: Body = b"") -> Head:
        try:
            for map_head in reversed(self._maps or ()):
                head = map_head(self, head)
        except Exception:
            if isinstance(body, Source):
                body.close()  # nobody else is going to
            raise
        return head

    def inform(self, head: Head) -> None:
        """Pass on an interim (1xx) response; dropped after the final head, or where the client speaks HTTP/1.0."""
        if not self.ended and not self.status:
            self._inform(head)

    def upgrade(self, head: Head) -> tuple[Stream, bytes]:
        """Answer with `head` (101, or 2xx to a CONNECT) and hand over the connection: (stream, left-over bytes).

        The caller becomes the stream's owner and calls `finish` when the two sides have nothing more to say.
        """
        if self.ended or self.status:
            raise RuntimeError("the exchange was answered already")
        if self._maps is not None:
            head = self._mapped(head)
        self.status = head.status
        self.head_sent = self.reactor.now
        return self._upgrade(head)

    def abort(self, reason: str) -> None:
        """End it without a whole response: the peer sees the connection reset, or the body break off."""
        if not self.ended:
            self._abort(reason)

    def finish(self, failure: str | None = None) -> None:
        """The exchange is over; called by the connection, or by whoever upgraded it."""
        if self.ended:
            return
        self.ended = True
        self.failure = failure
        self.finished = self.reactor.now
        if type(self.body) is not bytes:
            self._close_request_body()
        callbacks, self._ends, self._maps = self._ends, None, None
        if callbacks:
            for callback in callbacks:
                try:
                    callback(self)
                except Exception:
                    log.exception("exception at the end of %r", self)

    def on_end(self, callback: OnEnd, first: bool = False) -> None:
        """Call with this exchange once it has ended: after those asked before, or `first`."""
        if self.ended:
            self.reactor.call_soon(callback, self)
        elif self._ends is None:
            self._ends = [callback]
        elif first:
            self._ends.insert(0, callback)
        else:
            self._ends.append(callback)

    def map_head(self, map_head: MapHead) -> None:
        """Let a wrapper see, and replace, the final head; the one asked last is called first."""
        if self._maps is None:
            self._maps = [map_head]
        else:
            self._maps.append(map_head)

    def failed(self, error: Exception) -> None:
        """A callback of this exchange raised (logged by the loop): 500 where no head is out, else it is cut off."""
        if self.status:
            self.abort("the server failed")
        else:
            self._maps = None  # one of them may be what raised
            self.respond(*error_page(500, "the server failed"))

    @property
    def client_gone(self) -> bool:
        """Nobody waits for the answer any more."""
        return self.ended and self.failure is not None

    def derive(
        self,
        request: Request,
        body: Body,
        on_response: Callable[[Exchange, Head, Body], object],
        on_end: OnEnd | None = None,
        outlives: bool = False,
    ) -> DerivedExchange:
        """An inner exchange with facts and an end of its own, whose response goes to `on_response`.

        It ends when that response's Source ends, is closed or is cut. The outer one's end aborts it unless it `outlives`.
        """
        inner = DerivedExchange(self, request, body, on_response)
        if self.timing is not None:
            inner.timing = Timing() if outlives else self.timing
        if on_end is not None:
            inner.on_end(on_end)
        if not outlives:
            self.on_end(inner._outer_ended)
        return inner

    # What the connection behind it does.

    def _respond(self, head: Head, body: Body) -> None:
        raise NotImplementedError

    def _inform(self, head: Head) -> None:
        raise NotImplementedError

    def _upgrade(self, head: Head) -> tuple[Stream, bytes]:
        raise NotImplementedError

    def _abort(self, reason: str) -> None:
        raise NotImplementedError

    def _close_request_body(self) -> None:
        assert isinstance(self.body, Source)
        self.body.close()

    def __repr__(self) -> str:
        state = "ended" if self.ended else f"answered {self.status}" if self.status else "open"
        return f"<{type(self).__name__} {self.request!r} {state}>"


class DerivedExchange(Exchange):
    """See Exchange.derive."""

    __slots__ = ("outer", "_on_response", "_source")

    def __init__(
        self, outer: Exchange, request: Request, body: Body, on_response: Callable[[Exchange, Head, Body], object]
    ) -> None:
        super().__init__(outer.reactor, request, body, outer.peer, outer.scheme)
        self.user = outer.user
        self.outer = outer
        self._on_response: Callable[[Exchange, Head, Body], object] | None = on_response
        self._source: _WatchedSource | None = None

    def _respond(self, head: Head, body: Body) -> None:
        on_response, self._on_response = self._on_response, None
        assert on_response is not None
        if isinstance(body, Source):
            body = self._source = _WatchedSource(self, body)
        else:
            self.bytes_out = len(body)
            self.reactor.call_soon(self.finish)
        on_response(self, head, body)

    def _inform(self, head: Head) -> None:
        self.outer.inform(head)

    def _upgrade(self, head: Head) -> tuple[Stream, bytes]:
        stream, rest = self.outer.upgrade(head)
        self.on_end(_end_outer)
        return stream, rest

    def tell_outer(self) -> None:
        """What came of this one is what came of the outer one."""
        outer = self.outer
        outer.verdict, outer.upstream, outer.error, outer.reason = self.verdict, self.upstream, self.error, self.reason

    def _abort(self, reason: str) -> None:
        # Whoever aborts may be the one who wants to be told of the end: that comes from the loop.
        callbacks, self._ends = self._ends, None
        source = self._source
        self.finish(reason)
        for callback in callbacks or ():
            self.reactor.call_soon(callback, self)
        if source is not None:
            source.cut(reason)

    def finish(self, failure: str | None = None) -> None:
        super().finish(failure)
        self._source = self._on_response = None

    def _close_request_body(self) -> None:
        """The request's body is the outer exchange's to close, unless the inner one was given its own."""
        if self.body is not self.outer.body:
            super()._close_request_body()

    def _outer_ended(self, outer: Exchange) -> None:
        self.abort(outer.failure or "no longer wanted")


def _end_outer(inner: Exchange) -> None:
    """The connection was handed to the inner exchange, so its end is the outer one's."""
    assert isinstance(inner, DerivedExchange)
    outer = inner.outer
    inner.tell_outer()
    outer.bytes_in, outer.bytes_out = inner.bytes_in, inner.bytes_out
    outer.finish(inner.failure)


class _WatchedSource(WrappedSource):
    """A response's body that ends its derived exchange."""

    __slots__ = ("_exchange", "_sent_as_file", "_waiting", "_cut")

    def __init__(self, exchange: DerivedExchange, inner: Source) -> None:
        super().__init__(inner, inner.length)
        self._exchange = exchange
        self._sent_as_file = False
        self._waiting = False
        self._cut: str | None = None

    def cut(self, reason: str) -> None:
        """The exchange was aborted: whoever still reads sees the body break off."""
        self._cut = reason
        on_ready = self.on_ready
        self._inner.close()
        if self._waiting and on_ready is not None:
            self._exchange.reactor.call_soon(on_ready)

    def pull(self, limit: int) -> bytes | memoryview | None:
        exchange = self._exchange
        if self._cut is not None:
            raise BodyCutShort(self._cut)
        try:
            data = self._inner.pull(limit)
        except BodyCutShort as error:
            exchange.reactor.call_soon(exchange.finish, str(error))
            raise
        self._waiting = data is None
        if data is not None:
            if len(data):
                exchange.bytes_out += len(data)
            else:
                self.trailers = self._inner.trailers
                exchange.reactor.call_soon(exchange.finish)
        return data

    def as_file(self) -> tuple[int, int, int] | None:
        found = self._inner.as_file()
        self._sent_as_file = found is not None
        return found

    def intact(self) -> bool:
        return self._inner.intact()

    def rewind(self) -> bool:
        return self._inner.rewind()

    def close(self) -> None:
        self._inner.close()
        if not self._exchange.ended:
            self._exchange.reactor.call_soon(self._exchange.finish, None if self._sent_as_file else "not read to its end")
