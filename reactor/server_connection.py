"""One client's connection: requests are read, handed to the handler, and its answers written, in order.

    state        on                                      → state
    idle         bytes that are no whole head yet        → head
    idle, head   a whole head                            → handling   (the handler is called)
    idle, head   what the parser refuses                 → closing    (4xx or 5xx, then close)
    head         the head's deadline                     → closing    (408)
    idle         its deadline, end of input, shutdown    → closing
    handling     respond()                               → sending    (where all of it is there: on at the turn's end)
    handling     upgrade()                               → upgraded   (the stream has a new owner)
    sending      the last byte handed to the stream      → idle, draining (request body still coming) or closing
    sending      the body breaks off                     → closing, or closed by a reset where only the close frames it
    draining     the request's end                       → idle
    draining     its bound in bytes or seconds           → closing
    closing      all is sent, and the client has closed  → closed     (or the stream's bounds on waiting for that)
    any          connection lost, abort(), stalled       → closed

One exchange runs at a time; what a client pipelines waits in the parser, and beyond `read_ahead` bytes in the kernel.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from reactor.errors import BodyCutShort, ProtocolError
from reactor.exchange import PULL, Body, Exchange, Head, Source, error_page
from reactor.http.dates import format_date
from reactor.http.parser import NEED_DATA, Data, EndOfMessage, Request, RequestParser
from reactor.http.writer import chunk, last_chunk, status_line
from reactor.loop import Timer
from reactor.request_body import RequestBody
from reactor.stream import HIGH_WATER, Stream

if TYPE_CHECKING:
    from reactor.server import Server

log = logging.getLogger("reactor.server")

JOIN_BODY = 32 * 1024  # bytes: a body up to this is copied behind its head and leaves in one send
REQUESTS_PER_TURN = 64  # of one connection's pipelined requests; then the loop's other work has its turn
PUMP_BYTES = 1024 * 1024  # pulled for one response in one turn, likewise, where its client takes them as fast as they come
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NEVER = float("inf")
_BODYLESS = frozenset((204, 304))  # whatever the method (RFC 9110 sections 15.3.5 and 15.4.5)
_FRAMING_BUT_LENGTH = frozenset((b"connection", b"transfer-encoding"))  # what the connection alone knows
_FRAMING = _FRAMING_BUT_LENGTH | {b"content-length"}
BODY_TOO_LARGE = ("the request's body is larger than this server takes", 413)


class ServerExchange(Exchange):
    """An exchange whose answer goes out on a ServerConnection."""

    __slots__ = ("end_at",)

    connection: ServerConnection
    end_at: float  # set with the answer: what the stream has sent once its last byte is in the kernel

    def _respond(self, head: Head, body: Body) -> None:
        connection = self.connection
        if (
            connection._plain and type(body) is bytes and head.status not in _BODYLESS and connection.exchange is self
            and not connection.server.stopping and len(body) <= JOIN_BODY
        ):  # fmt: skip
            self.bytes_out = size = len(body)
            data = (head.wire or connection._serialize(self, head, size)) + body
            if connection.reactor.dispatching and not connection._corked:
                connection.state = "sending"
                connection._held = data
                connection.reactor.held.append(connection)
            else:
                connection.stream.write(data)
                connection._response_done()
            return
        try:
            connection._send_response(self, head, body)
        except Exception:  # a head that cannot be written: nobody else knows of the body
            if isinstance(body, Source):
                body.close()
            elif type(body) is not bytes:
                raise TypeError(f"a body is bytes or a Source, not {type(body).__name__}") from None
            raise

    def _inform(self, head: Head) -> None:
        self.connection._send_interim(self, head)

    def _upgrade(self, head: Head) -> tuple[Stream, bytes]:
        return self.connection._hand_over(self, head)

    def _abort(self, reason: str) -> None:
        self.connection.abort(reason)


class ServerConnection:
    """One client's connection: a stream, a parser, and at most one open exchange."""

    __slots__ = (
        "server", "reactor", "stream", "parser", "peer", "state", "deadline", "exchange",
        "_timer", "_body", "_may_continue", "_source", "_chunked", "_left", "_keep_alive", "_unsent", "_advancing",
        "_corked", "_progress", "_judge_at", "_draining", "_file_at", "_plain", "_held", "requests_left",
    )  # fmt: skip

    exchange_type: type[ServerExchange] = ServerExchange

    def __init__(self, server: Server, sock: socket.socket, peer: str) -> None:
        self.server = server
        self.reactor = server.reactor
        self.parser = RequestParser(tells_ends=False)
        self.peer = peer
        self.state = "idle"
        self.exchange: ServerExchange | None = None
        self._body: RequestBody | None = None  # of the request that is being read
        self._may_continue = False  # a 100 (Continue) is still owed
        self._source: Source | None = None  # of the response that is being sent
        self._chunked = False
        self._left: int | None = None  # bytes of the response still to come, where its length is known
        self._keep_alive = True
        self._plain = False  # the request is a GET without content or Upgrade on a kept HTTP/1.1 connection: framing is as usual
        self._held: bytes | None = None  # a whole response, sent when this turn's events are all handed out
        self._unsent: list[ServerExchange] | None = None  # answered, but not all of it is in the kernel yet
        self._advancing = False
        self._corked = False
        self._progress = -1  # bytes that the client had taken when the present measure of its speed began; -1 without one
        self._judge_at = NEVER  # when that measure is over
        self._draining = 0
        self._file_at: int | None = None  # what the stream had sent before the file that it is sending
        self.requests_left = server.limits.requests  # below zero where there is no limit
        self.stream = Stream(self.reactor, self, sock)
        self.deadline = self.reactor.now + server.limits.idle
        self._timer: Timer | None = self.reactor.call_later(server.limits.idle, self._on_timer)

    # What the stream tells.

    def data_received(self, data: bytes) -> None:
        parser = self.parser
        if parser._data:
            parser.feed(data)
        else:
            parser._data = data
        if self.exchange is None:
            self._advance()
        elif self._body is not None and self._body.waiting:
            self._body.wake()
        elif parser.buffered > self.server.limits.read_ahead:
            self.stream.pause_reading()

    def eof_received(self) -> None:
        """Half-close: what was asked is answered."""
        self.parser.feed_eof()
        if self.exchange is None:
            self._advance()
        elif self._body is not None and self._body.waiting:
            self._body.wake()
        elif not self.exchange.status:
            self._deadline_at_most(self.server.limits.half_closed)

    def resume_writing(self) -> None:
        if self._source is not None:
            self._pump()
        self._settle()

    def drained(self) -> None:
        self._progress = -1
        if self._file_at is not None:
            self._response_done()
        elif self._source is not None:
            self._pump()
        self._settle()

    def connection_lost(self, error: Exception | None) -> None:
        was, self.state = self.state, "closed"
        self._held = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._body is not None and not self._body.ended:
            self._body.cut = BodyCutShort("the client's connection broke off")
            self._body.wake()
            self._body = None
        why = _why_lost(error)
        log.debug("%s is gone (%s): %s", self.peer, was, why)
        self._drop_source()
        exchange, self.exchange = self.exchange, None
        self._end_unsent(why)
        if exchange is not None:
            exchange.finish("aborted" if was == "closing" and error is None else why)
        self.server._forget(self)

    def failed(self, error: Exception) -> None:
        """A callback raised (logged by the loop): 500 where no head is out, and the end of this connection."""
        self._give_up(error)

    # Requests.

    def _advance(self) -> None:
        """Take up the requests that are there, until one is not answered at once, or others are due."""
        if self._advancing:
            return
        self._advancing = True
        parser, stream = self.parser, self.stream
        left = REQUESTS_PER_TURN
        while self.exchange is None and (self.state == "idle" or self.state == "head" or self._drain()):
            if stream.backlog >= HIGH_WATER or stream.state != "open":
                self._hold_back()
                break
            try:
                request = parser.next_event()
            except ProtocolError as error:
                self._refuse(error)
                break
            if request is NEED_DATA:
                self._await_request()
                break
            self._begin(request)  # type: ignore[arg-type]
            if self.exchange is not None:
                break
            if self.state == "idle" and not parser._data:
                self._await_request()
                break
            left -= 1
            if not left:
                if parser.buffered > self.server.limits.read_ahead:
                    stream.pause_reading()
                self.reactor.call_soon(self._settle)
                break
        self._advancing = False
        if self._corked:
            self._corked = False
            self.stream.uncork()
            if not self.stream.backlog:
                self._progress = -1
                if self._file_at is not None:
                    self._response_done()
                elif self.state == "idle":
                    self.deadline = self.reactor.now + self.server.limits.idle
        if self._unsent is not None:
            self._finish_unsent()
        if self.exchange is not None and self.stream.at_eof and self.state == "handling":
            self._deadline_at_most(self.server.limits.half_closed)

    def _hold_back(self) -> None:
        """A client that does not read its answers gets no more of them, and says no more: resume_writing goes on."""
        if self.parser.buffered > self.server.limits.read_ahead:
            self.stream.pause_reading()
        self._watch_progress()

    def _begin(self, request: Request) -> None:
        parser, server = self.parser, self.server
        handler = server.handler
        self.requests_left -= 1
        self._keep_alive = keep_alive = request.keep_alive and self.requests_left != 0
        if request.length == 0:
            body: Body = b""
            self._plain = keep_alive and request.version == 11 and request.method == b"GET" and request.upgrade is None
        else:
            body = self._begin_body(request)
            self._plain = False
            if request.length > server.limits.max_body:
                handler = server.body_refusal
        self.exchange = exchange = self.exchange_type(self.reactor, request, body, self.peer, server.scheme, self)
        if body and type(body) is bytes:
            exchange.bytes_in = len(body)
        if parser._data and not self._corked:
            self._corked = True
            self.stream.cork()
        self.state = "handling"
        try:
            handler.handle(exchange)
        except Exception as error:  # whatever a handler raises costs its own exchange alone
            log.exception("exception while handling %r", request)
            self._give_up(error)

    def _begin_body(self, request: Request) -> Body:
        parser = self.parser
        if 0 < request.length <= self.server.limits.whole_body and parser.buffered >= request.length:
            event = parser.next_event()
            assert type(event) is Data
            parser.next_event()  # EndOfMessage
            return event.data
        self._may_continue = request.expects_100
        self._body = RequestBody(self, request.length if request.length > 0 else None)
        return self._body

    def _await_request(self) -> None:
        """No whole head is there. Wait for more, or close where none can come."""
        stream, state, limits = self.stream, self.state, self.server.limits
        if state != "idle" and state != "head":
            return
        if not stream.reading:
            stream.resume_reading()
        if self.parser._data:
            if stream.at_eof:
                self._close()
            elif state == "idle":
                self.state = "head"
                self._deadline_at_most(limits.head)
        elif stream.at_eof or self.server.stopping:
            self._close()
        else:
            self.state = "idle"
            if stream.backlog:
                self._watch_progress()
            else:
                self.deadline = self.reactor.now + limits.idle

    def _refuse(self, error: ProtocolError) -> None:
        """Answer what is no request, and close: where one message ends and the next begins is in doubt."""
        self._keep_alive = False
        exchange = self.exchange = self.exchange_type(self.reactor, None, b"", self.peer, self.server.scheme, self)
        exchange.reason = error.reason
        if self.server.access_log is not None:
            exchange.on_end(self.server.access_log.record)
        exchange.respond(*error_page(error.status, error.reason))

    def _next_of_body(self, body: RequestBody) -> Data | EndOfMessage | None:
        """The next event of the request's body; None where it must be waited for. Raises BodyCutShort."""
        limits = self.server.limits
        try:
            event = self.parser.next_event()
        except ProtocolError as error:
            self._keep_alive = False
            body.cut = BodyCutShort(error.reason, error.status)
            raise BodyCutShort(error.reason, error.status) from None
        if event is NEED_DATA:
            if self._may_continue:
                self._may_continue = False
                if self.exchange is not None and not self.exchange.status:
                    self.stream.write(CONTINUE)  # RFC 9110 section 10.1.1
            self.stream.resume_reading()
            self._deadline_at_most(body.patience)
            return None
        self._may_continue = False
        if type(event) is Data:
            size = len(event.data)
            if self.exchange is not None:
                self.exchange.bytes_in += size
            body.received += size
            if body.received > limits.max_body:
                self._keep_alive = False
                body.cut = BodyCutShort(*BODY_TOO_LARGE)
                raise BodyCutShort(*BODY_TOO_LARGE)
            if limits.rate:
                body.patience = min(limits.body, body.patience + size / limits.rate)
            else:
                body.patience = limits.body
            if self.parser.buffered <= limits.read_ahead:
                self.stream.resume_reading()
            return event
        assert type(event) is EndOfMessage
        self._body = None
        return event

    # Responses.

    def _send_response(self, exchange: ServerExchange, head: Head, body: Body) -> None:
        if self.exchange is not exchange:  # aborted, and not yet told so
            if type(body) is not bytes:
                body.close()  # type: ignore[union-attr]
            return
        request = exchange.request
        if self.server.stopping or self._may_continue:
            self._keep_alive = False  # the client may, or may not, send the body it announced
        elif request is not None and request.method == b"CONNECT":
            self._keep_alive = False  # refused: what follows may already be the tunnel's
        wire = head.wire if self._keep_alive and request.version == 11 else None
        if request is not None and (request.method == b"HEAD" or head.status in _BODYLESS):
            self._send_bodyless(exchange, head, body, wire)
        elif type(body) is bytes:
            if wire is None:
                wire = self._serialize(exchange, head, len(body))
            exchange.bytes_out = len(body)
            if len(body) <= JOIN_BODY:
                self.stream.write(wire + body)
            else:
                self.stream.write_parts([wire, body])
            self._response_done()
        else:
            self._send_source(exchange, head, body, wire)  # type: ignore[arg-type]

    def _send_bodyless(self, exchange: ServerExchange, head: Head, body: Body, wire: bytes | None) -> None:
        """RFC 9110 sections 9.3.2, 15.3.5, 15.4.5: the head may tell a length, but no body follows."""
        length = None
        if exchange.request.method == b"HEAD" and head.status >= 200 and head.status not in (204, 304):
            length = (len(body) if type(body) is bytes else body.length) or None  # type: ignore[union-attr]
        if type(body) is not bytes:
            body.close()  # type: ignore[union-attr]
        if wire is None:
            if head.status == 204 and b"content-length" in head.fields:
                head = head.edited()
                head.fields.remove(b"content-length")
            wire = self._serialize(exchange, head, length)
        self.stream.write(wire)
        self._response_done()

    def _serialize(self, exchange: ServerExchange, head: Head, length: int | None, chunked: bool = False) -> bytes:
        """The head with the framing and connection fields that only the connection knows."""
        fields = head.fields
        index = fields.index
        if not _FRAMING.isdisjoint(index):
            fields = fields.copy()
            fields.drop(_FRAMING if length is not None else _FRAMING_BUT_LENGTH)
        if not self._keep_alive:
            end = b"Connection: close\r\n\r\n"
        elif exchange.request.version < 11:
            end = b"Connection: keep-alive\r\n\r\n"
        else:
            end = b"\r\n"
        if chunked:
            end = b"Transfer-Encoding: chunked\r\n" + end
        elif length is not None:
            end = b"Content-Length: %d\r\n%b" % (length, end)
        if b"date" not in index:  # RFC 9110 section 6.6.1
            end = b"Date: %b\r\n%b" % (format_date(self.reactor.wall), end)
        return status_line(head.status, head.reason) + fields.wire() + end

    def _send_source(self, exchange: ServerExchange, head: Head, source: Source, wire: bytes | None) -> None:
        length = source.length
        self._chunked = length is None and exchange.request.version == 11
        if length is None:
            if not self._chunked:
                self._keep_alive = False  # HTTP/1.0: only the close ends it
            if b"content-length" in head.fields.index:  # nobody would hold the body to it (RFC 9112 section 6.2)
                head = head.edited()
                head.fields.remove(b"content-length")
            wire = None
        if wire is None:
            wire = self._serialize(exchange, head, length, self._chunked)
        file = source.as_file() if length is not None else None
        self.state = "sending"
        if file is not None and file[2] == length:
            self._send_file(exchange, wire, source, *file)
            return
        self._source, self._left = source, length
        stream = self.stream
        stream.cork()
        stream.write(wire)
        source.on_ready = self._source_ready
        self._pump()
        if not self._corked:
            stream.uncork()
        if self._source is not None:
            self._watch_progress()

    def _send_file(self, exchange: ServerExchange, wire: bytes, source: Source, fd: int, offset: int, count: int) -> None:
        """The whole body is a range of a file: the kernel sends it."""
        stream = self.stream
        file_at = stream.sent + stream.backlog + len(wire)
        stream.send_with_file(wire, fd, offset, count, source.intact)
        if stream.backlog or self._corked or stream.state != "open":
            self._source, self._left, self._file_at = source, count, file_at
            self._watch_progress()
        else:
            exchange.bytes_out = count
            source.close()
            self._response_done()

    def _source_ready(self) -> None:
        if self._source is not None:
            self._pump()

    def _pump(self) -> None:
        """Pull from the source what the stream has room for."""
        source, stream, exchange = self._source, self.stream, self.exchange
        assert source is not None and exchange is not None
        if self._file_at is not None:
            return  # the kernel does the rest: drained() tells
        room = PUMP_BYTES
        while stream.backlog < HIGH_WATER and stream.state == "open":
            if room <= 0:
                self.reactor.call_soon(self._source_ready)
                break
            try:
                data = source.pull(PULL)
            except BodyCutShort as error:
                self._cut(str(error))
                return
            except Exception:  # whatever a body raises costs its own response, wherever the pull came from
                log.exception("exception in %r", source)
                self._cut("the server failed")
                return
            if data is None:
                break
            size = len(data)
            room -= size
            if self._left is not None:
                self._left -= size
                if self._left < 0 or (not size and self._left):
                    self._cut("the body is not as long as its head said")
                    return
            if not size:
                if self._chunked:
                    wanted = source.trailers is not None and b"trailers" in exchange.request.fields.options(b"te")
                    stream.write(last_chunk(source.trailers if wanted else None))
                self._response_done()
                return
            exchange.bytes_out += size
            if self._chunked:
                stream.write_parts(chunk(data))
            else:
                stream.write(data)
        self._watch_progress()

    def _cut(self, reason: str) -> None:
        """The response broke off: the client must see that it did (RFC 9112 section 8)."""
        exchange = self.exchange
        assert exchange is not None
        self._drop_source()
        if self._chunked or self._left is not None:
            # The framing shows the gap, and what came before it may still arrive.
            self.exchange = None
            self.reactor.call_soon(exchange.finish, reason)
            self._close()
        else:
            self.abort(reason)

    def _response_done(self) -> None:
        """Everything is handed to the stream. The end is told, and the next request taken up, from the loop."""
        exchange, stream, body = self.exchange, self.stream, self._body
        assert exchange is not None
        if self._source is not None:
            self._drop_source()
        self.exchange = None
        exchange.end_at = stream.sent + stream.backlog if stream.state == "open" else NEVER
        if self._unsent is None:
            self._unsent = [exchange]
        else:
            self._unsent.append(exchange)
        if not self._keep_alive:
            self._close()
        elif body is not None:
            self.state = "draining"
            self._draining = 0
            self._body = None
            body.end_early()
            self._deadline_at_most(self.server.limits.drain_seconds)
        else:
            self.state = "idle"
            if exchange.request.upgrade is not None:
                self.parser.resume()
        if not self._advancing:
            self.reactor.call_soon(self._settle)

    def send_held(self) -> None:
        """From the loop, at the end of a turn's events: a response that is whole, and the end of its exchange."""
        data, self._held = self._held, None
        if data is None:
            return  # reset meanwhile, or sent because the handler raised
        stream, exchange = self.stream, self.exchange
        stream.write(data)
        if not self._keep_alive or self._unsent is not None or stream.backlog or stream.state != "open":
            self._advancing = True
            self._response_done()
            self._advancing = False
            self._settle()
            return
        # What those would do where nothing is left to be done.
        self.exchange = None
        self.state = "idle"
        exchange.finish()  # type: ignore[union-attr]
        if self.parser._data or stream.at_eof or not stream.reading or self.server.stopping:
            self._settle()
        else:
            self.deadline = self.reactor.now + self.server.limits.idle

    def _drop_source(self) -> None:
        file_at, self._file_at = self._file_at, None
        if file_at is not None and self.exchange is not None:
            self.exchange.bytes_out = max(0, self.stream.sent - file_at)
        source, self._source = self._source, None
        if source is not None:
            source.on_ready = None
            source.close()

    def _settle(self) -> None:
        """From the loop, after a response: tell ends whose last byte is out, and go on reading."""
        if self._unsent is not None:
            self._finish_unsent()
        if self.exchange is None:
            if self.state == "idle" and not self.parser.buffered:
                self._await_request()
            else:
                self._advance()

    def _finish_unsent(self) -> None:
        """End those whose last byte is in the kernel."""
        unsent, sent = self._unsent, self.stream.sent
        assert unsent is not None
        self._unsent = None
        if unsent[-1].end_at > sent:
            self._unsent = [exchange for exchange in unsent if exchange.end_at > sent]
            del unsent[-len(self._unsent) :]
        for exchange in unsent:
            exchange.finish()

    def _end_unsent(self, why: str) -> None:
        """Nothing more is sent: those who still wait for that were cut."""
        unsent, self._unsent = self._unsent, None
        for exchange in unsent or ():
            exchange.finish(None if exchange.end_at <= self.stream.sent else why)

    def _drain(self) -> bool:
        """Read away what is left of an answered request's body, within bounds; True once the next request may come."""
        if self.state != "draining":
            return False
        while True:
            try:
                event = self.parser.next_event()
            except ProtocolError:
                self._close()
                return False
            if type(event) is EndOfMessage:
                self.state = "idle"
                self.parser.resume()
                return True
            if type(event) is not Data:
                self.stream.resume_reading()
                return False
            self._draining += len(event.data)
            if self._draining > self.server.limits.drain_bytes:
                self._close()
                return False

    def _send_interim(self, exchange: ServerExchange, head: Head) -> None:
        if exchange.request.version < 11:
            return  # RFC 9110 section 15.2
        if head.status == 100:
            if not self._may_continue:
                return  # at most one, and only to whom waits for it
            self._may_continue = False
        elif self.stream.backlog >= HIGH_WATER:
            return  # who does not read is told no news, which would pile up
        self.stream.write(b"%b%b\r\n" % (status_line(head.status, head.reason), head.fields.wire()))

    def _hand_over(self, exchange: ServerExchange, head: Head) -> tuple[Stream, bytes]:
        if self._body is not None:
            # RFC 9110 section 7.8: no other protocol before the request is whole.
            raise RuntimeError("the request's body was not read to its end")
        lines = [status_line(head.status, head.reason), head.fields.wire()]
        if head.status == 101:
            lines.append(b"Connection: upgrade\r\n")
        lines.append(b"\r\n")
        self.stream.write(b"".join(lines))
        self.state = "upgraded"
        exchange.on_end(self._upgrade_over)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.stream.resume_reading()
        return self.stream, self.parser.detach()

    def _upgrade_over(self, exchange: Exchange) -> None:
        exchange.connection = None
        self.state = "closed"
        self.exchange = None
        self._end_unsent("the client's connection was lost")
        self.server._forget(self)

    # Deadlines.

    def _deadline_at_most(self, seconds: float) -> None:
        """The deadline is `seconds` from now, or when a slow client is judged, and the timer fires no later than that."""
        when = self.reactor.now + seconds
        if self._progress >= 0 and self._judge_at < when:
            when = self._judge_at
        self.deadline = when
        if self._timer is not None and self._timer.when > when:
            self._timer.cancel()
            self._timer = self.reactor.call_later(max(0.0, when - self.reactor.now), self._on_timer)

    def _watch_progress(self) -> None:
        """While bytes wait for the client its speed is measured, over `stalled` seconds each time."""
        if not self.stream.backlog:
            self._progress = -1
        elif self._progress < 0:
            self._measure()

    def _measure(self) -> None:
        stalled = self.server.limits.stalled
        self._progress = self.stream.taken()
        self._judge_at = self.reactor.now + stalled
        self._deadline_at_most(stalled)

    def _judge(self) -> None:
        """All the while bytes were waiting for the client: it must have taken so many a second, and one at the least."""
        limits = self.server.limits
        taken = self.stream.taken() - self._progress
        if taken <= 0:
            self.abort("the client stopped reading")
        elif taken < limits.rate * limits.stalled:
            self.abort("the client reads too slowly")
        else:
            self._measure()

    def _on_timer(self) -> None:
        self._timer = None
        if self.deadline <= self.reactor.now:
            self._deadline_at_most(self.server.limits.idle)
            self._expired()
        if self._timer is None and self._has_deadline:
            self._timer = self.reactor.call_later(self.deadline - self.reactor.now, self._on_timer)

    @property
    def _has_deadline(self) -> bool:
        # A stream that is closing bounds the rest by itself, once all is sent.
        return self.state not in ("closed", "closing", "upgraded") or (self.state == "closing" and self.stream.backlog > 0)

    def _expired(self) -> None:
        """The deadline has passed: act by state, or look again at the next."""
        stream, body = self.stream, self._body
        if stream.backlog and self._progress >= 0 and self._judge_at <= self.reactor.now:
            self._judge()
        elif self.state == "draining":
            self._close()
        elif stream.backlog:
            self._watch_progress()
        elif self.state == "idle":
            self._close()
        elif self.state == "head":
            self._refuse(ProtocolError("the request's head did not arrive in time", 408))
        elif body is not None and body.waiting and (left := body.patience_left()) > 0:
            self._deadline_at_most(left)
        elif body is not None and body.waiting:
            body.cut = BodyCutShort("the request's body did not arrive in time", 408)
            self._keep_alive = False
            body.wake()
        elif self.state == "handling" and stream.at_eof and self.exchange is not None:
            self.exchange.abort("the client left")

    # The end.

    @property
    def is_idle(self) -> bool:
        """Nothing was asked that is not answered, and all of that sent."""
        return self.state == "idle" and self.exchange is None and not self.stream.backlog and not self.parser.buffered

    def close_if_idle(self) -> None:
        """The server is stopping: nothing new is taken up."""
        if self.is_idle:
            self._close()

    def _close(self) -> None:
        if self.state == "closed":
            return
        self.state = "closing"
        self.stream.close()
        if self.stream.backlog:
            self._watch_progress()
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self, error: Exception) -> None:
        """500 where no head is out, else a response cut short; in any case the end of this connection."""
        self._keep_alive = False
        self.send_held()
        exchange = self.exchange
        if exchange is None:
            self._close()
        elif self.state == "handling":
            exchange.status = 0  # it may have been answered with a head that cannot be written
            exchange.failed(error)
        elif self.state == "upgraded":
            self.abort("the server failed")
        else:
            self._cut("the server failed")

    def abort(self, reason: str) -> None:
        """Reset the connection; its open exchange ends with `reason`."""
        self._held = None
        self._drop_source()
        exchange, self.exchange = self.exchange, None
        if self.state != "upgraded":
            self.state = "closing"
        self.reactor.call_soon(self._end_unsent, reason)
        self.stream.abort()
        if exchange is not None:
            self.reactor.call_soon(exchange.finish, reason)

    def __repr__(self) -> str:
        return f"<ServerConnection {self.state} from {self.peer}, {self.parser!r}, {self.stream!r}>"


def _why_lost(error: Exception | None) -> str:
    if error is None:
        return "the client left"
    return f"the client's connection was lost: {getattr(error, 'strerror', None) or error}"
