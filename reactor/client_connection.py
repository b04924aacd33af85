"""One connection to an origin: a call's request is sent, its response read, and the next call waits for both.

    state of a connection   on                                   → state
    connecting              connected                            → busy       (the request is sent)
    connecting              refused, timed out                   → closed     (the call fails)
    busy                    any byte, before the request is sent → closed     (the call goes to another, or fails)
    busy                    a final head, all of the body there  → idle or closed, then the owner gets bytes
    busy                    a final head, more to come           → busy       (the owner gets a Source)
    busy                    the body pulled to its end           → idle or closed
    busy                    101, or 2xx to a CONNECT             → upgraded   (the owner takes the stream)
    busy                    lost, late, or not understood        → closed     (the call fails, or its body is cut)
    idle                    another call                         → busy
    idle                    any byte, end of input, its deadline → closed
    any                     abort()                              → closed

A connection goes back to the pool only where request and response both ended and not a byte is left over, here or in the
kernel (RFC 9112 sections 9.2, 9.3); in any doubt it is closed.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any, Protocol

from reactor.errors import BodyCutShort, ProtocolError, UpstreamError
from reactor.exchange import PULL, Body, Source
from reactor.http.framing import CHUNKED, UNTIL_CLOSE
from reactor.http.parser import NEED_DATA, Data, EndOfMessage, Response, ResponseParser
from reactor.http.writer import chunk, last_chunk
from reactor.loop import Timer
from reactor.response_body import ResponseBody
from reactor.stream import HIGH_WATER, Stream
from reactor.timing import FetchTimes

if TYPE_CHECKING:
    from reactor.client import Call, Pool

log = logging.getLogger("reactor.client")

_WITH_CONTENT = frozenset((b"POST", b"PUT", b"PATCH"))  # methods that mean something by a body
# Reasons that those who told one from another have to know again.
NO_ANSWER = "closed the connection without an answer"
NO_RESPONSE = "sent what is no valid response"
BROKE_FRAMING = "broke the body's framing"
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))  # RFC 9110 section 9.2.2


class Connecting(Protocol):
    """A connection being made: an Attempt, or what does more than that."""

    def cancel(self) -> None: ...
    def tell(self, times: FetchTimes) -> None: ...


class ClientConnection:
    """One connection to an origin: a stream, a parser, and at most one call."""

    __slots__ = (
        "pool", "reactor", "route", "address", "stream", "parser", "state", "call", "deadline", "retires",
        "_timer", "_attempt", "_body", "_unsent", "_chunked", "_left", "_held", "_holding", "_progress", "_interim", "_mark", "_response",
    )  # fmt: skip

    def __init__(self, pool: Pool, call: Call) -> None:
        self.pool = pool
        self.reactor = pool.reactor
        self.route = call.route
        self.address = call.address
        self.parser = ResponseParser()
        self.state = "connecting"
        self.call: Call | None = call
        call.connection = self
        self.deadline = self.reactor.now + pool.limits.first_byte
        self._timer: Timer | None = None
        self._body: ResponseBody | None = None
        self._response: Response | None = None
        self._unsent: Source | None = None  # the request's body, not sent to its end yet
        self._chunked = False
        self._left: int | None = None
        # A whole request, or a body whose head is not sent either: they are when this turn's events are all handed out.
        self._held: bytes | Source | None = None
        self._holding = False  # the body waits for a 100 (Continue)
        self._progress = 0
        self._interim = 0
        self._mark = 0  # what the stream had sent before this call
        self.retires = self.reactor.now + pool.limits.lifetime
        self.stream = Stream(self.reactor, self)
        self._attempt: Connecting | None = pool.connect(call, self._connected)

    # Sending.

    def _connected(self, result: object, address: str) -> None:
        attempt, self._attempt = self._attempt, None
        call = self.call
        if call is not None and call.times is not None and attempt is not None:
            attempt.tell(call.times)
        if isinstance(result, UpstreamError):
            self.call = None
            self._over()
            if call is not None:
                call._address = address
                call._fail(result)
            return
        self.address = address
        if isinstance(result, socket.socket):
            self.stream.start(result)
        else:
            self.stream = result  # type: ignore[assignment]  # a TlsStream, which has a Stream's contract
            self.stream.owner = self
        self._timer = self.reactor.call_later(self.pool.limits.idle, self._on_timer)
        if call is None:
            self.close()
            return
        self.begin(call)

    def begin(self, call: Call) -> None:
        """Send a call's request on this connected, idle connection."""
        self.state = "busy"
        self.call = call
        call.connection = self
        call._address = self.address
        if call.times is not None:
            call.times.sent = self.reactor.now
        self.parser.expect(call.method)
        self._interim = 0
        stream, body = self.stream, call.body
        self._mark = stream.sent
        if type(body) is bytes:
            if body or call.method in _WITH_CONTENT:
                data = b"%bContent-Length: %d\r\n\r\n%b" % (call.head, len(body), body)
            else:  # RFC 9110 section 8.6: a method that means nothing by a body says nothing of its length
                data = call.head + b"\r\n"
            if self.reactor.dispatching:
                self._held = data
                self.reactor.held.append(self)
            else:
                self._send(data)
        elif self.reactor.dispatching:
            self._held = body
            self.reactor.held.append(self)
        else:
            self._begin_upload(call, body)  # type: ignore[arg-type]

    def send_held(self) -> None:
        """From the loop; nothing is left where nobody wants its answer any more, or the connection was lost meanwhile."""
        held, self._held = self._held, None
        if type(held) is bytes:
            self._send(held)
        elif held is not None:
            assert self.call is not None
            self._begin_upload(self.call, held)  # type: ignore[arg-type]

    def _send(self, data: bytes) -> None:
        """A whole request."""
        self.stream.write(data)
        self._deadline_at_most(self.pool.limits.first_byte)
        if self.stream.backlog:
            self._watch_progress()

    def _begin_upload(self, call: Call, body: Source) -> None:
        self._unsent = body
        self._left = length = body.length
        self._chunked = length is None
        framing = b"Transfer-Encoding: chunked\r\n\r\n" if length is None else b"Content-Length: %d\r\n\r\n" % length
        body.on_ready = self._pump
        self._holding = call.waits_for_100
        self.stream.cork()
        self.stream.write(call.head + framing)
        if self._holding:
            self._deadline_at_most(self.pool.limits.continue_wait)
        else:
            self._pump()
        self.stream.uncork()

    def _pump(self) -> None:
        """Pull from the request's body what the stream has room for."""
        source, stream = self._unsent, self.stream
        if source is None or self._holding:
            return
        if self._left and self._left == source.length and (file := source.as_file()) is not None:
            self._send_file(source, file)
            return
        while stream.backlog < HIGH_WATER:
            try:
                data = source.pull(PULL)
            except BodyCutShort as error:
                self._request_cut(error)
                return
            if data is None:
                return
            size = len(data)
            if self._left is not None:
                self._left -= size
                if self._left < 0 or (not size and self._left):
                    self._request_cut(BodyCutShort("the request's body is not as long as its head said"))
                    return
            if not size:
                if self._chunked:
                    stream.write(last_chunk(source.trailers))
                self._unsent = None
                source.on_ready = None
                self._all_sent()
                return
            if self._chunked:
                stream.write_parts(chunk(data))
            else:
                stream.write(data)
        self._watch_progress()

    def _send_file(self, source: Source, file: tuple[int, int, int]) -> None:
        """The whole body is a range of a file: the kernel sends it. One that is not as long as was said is cut."""
        if file[2] != self._left:
            self._request_cut(BodyCutShort("the request's body is not as long as its head said"))
            return
        self._unsent = source.on_ready = None
        self.stream.send_file(*file)
        self._all_sent()

    def _request_cut(self, error: BodyCutShort) -> None:
        """The request's own body broke off: the peer must not take it for whole, and nobody is to blame upstream."""
        call, body = self.call, self._body
        self.abort()
        if body is not None:
            body.cut(f"the request broke off: {error.reason}")
        elif call is not None:
            self.reactor.call_soon(call._fail, UpstreamError(error.reason, "send", self.address, error.status))

    def _all_sent(self) -> None:
        if self._body is None:
            self._deadline_at_most(self.pool.limits.first_byte)
        if self.stream.backlog:
            self._watch_progress()

    # What the stream tells.

    def data_received(self, data: bytes) -> None:
        if self.state != "busy":
            # RFC 9112 section 9.2: bytes that answer nothing; whose they are nobody can tell.
            self.close()
            return
        if self._held is not None:
            self._lost("answered before it was asked")
            return
        parser = self.parser
        if parser._data:
            parser.feed(data)
        else:
            parser._data = data
        body = self._body
        if body is not None:
            self.deadline = self.reactor.now + self.pool.limits.between_bytes
            if body.waiting:
                body.wake()
            elif parser.buffered > self.pool.limits.read_ahead:
                self.stream.pause_reading()
        else:
            self._read_head()

    def eof_received(self) -> None:
        self.parser.feed_eof()
        if self.state != "busy":
            self.close()
        elif self._body is not None:
            self._body.wake()  # what is buffered may still end it; else the pull says that it is cut
        else:
            self._read_head()
            if self.call is not None and self._body is None and self.state == "busy":
                self._lost(NO_ANSWER)

    def resume_writing(self) -> None:
        self._pump()

    def drained(self) -> None:
        if self._unsent is not None:
            self._pump()
        elif self._body is None and self.state == "busy":
            self._deadline_at_most(self.pool.limits.first_byte)

    def connection_lost(self, error: Exception | None) -> None:
        if self._body is not None:
            self._take_rest(self._body)
        if self.state == "busy":
            self._lost(f"the connection was lost ({getattr(error, 'strerror', None) or error or 'closed'})")
        self._over()

    def failed(self, error: Exception) -> None:
        """A callback raised (logged by the loop): its call, and this connection, are over."""
        call, body = self.call, self._body
        self.abort()
        if body is not None:
            body.cut("an internal error")
        elif call is not None:
            call._fail(UpstreamError("an internal error", "internal", self.address, 500))

    # Receiving.

    def _read_head(self) -> None:
        call = self.call
        assert call is not None
        event: Any  # a Response, where it is something
        while True:
            try:
                event = self.parser.next_event()
            except ProtocolError as error:
                self._lost(f"{NO_RESPONSE}: {error.reason}")
                return
            if event is NEED_DATA:
                return
            status = event.status
            if status >= 200 or status == 101:
                break
            if not self._interim_head(event):
                return
        if call.times is not None:
            call.times.answered = self.reactor.now
        if status < 300 and (status == 101 or call.method == b"CONNECT"):
            self._begin_upgrade(call, event)
        else:
            self._begin_response(call, event)

    def _begin_upgrade(self, call: Call, response: Response) -> None:
        if self._unsent is not None:  # RFC 9110 section 7.8: not before the request was wholly sent
            self._lost("switched protocols in the middle of the request")
            return
        self.parser.next_event()  # EndOfMessage
        self.state = "upgraded"
        _answer(call, response, b"")
        if self.state == "upgraded":
            self.abort()  # nobody took the stream

    def _interim_head(self, response: Response) -> bool:
        call = self.call
        self._interim += 1
        if self._interim > self.pool.limits.interim:
            self._lost("sent too many interim responses")
            return False
        if call is not None and call.owner is not None:
            call.owner.call_informed(call, response)
        if response.status == 100 and self._holding:
            self._holding = False
            self._pump()
        return self.call is call and self.state == "busy"

    def _begin_response(self, call: Call, response: Response) -> None:
        """Give the owner what is there: bytes where the body is whole, else a Source."""
        whole = self.parser.take_whole()
        if whole is not None:
            self._call_over(response)
            _answer(call, response, whole)
        else:
            self._begin_body(call, response)

    def _begin_body(self, call: Call, response: Response) -> None:
        pieces: list[bytes] = []
        end: EndOfMessage | None = None
        fault: str | None = None
        try:
            while type(event := self.parser.next_event()) is Data:
                pieces.append(event.data)
            if type(event) is EndOfMessage:
                end = event
        except ProtocolError as error:
            fault = error.reason  # what came before it is delivered, and seen to be cut
        first = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if end is not None and end.trailers is None:
            self._call_over(response)
            _answer(call, response, first)
            return
        self._response = response
        body = self._body = ResponseBody(self, _known(response), first)
        if fault is not None:
            self._lost(f"{BROKE_FRAMING}: {fault}")
        elif end is not None:
            body.end(end.trailers)
            self._call_over(response)
        else:
            self._deadline_at_most(self.pool.limits.between_bytes)
        _answer(call, response, body)

    def next_of_body(self) -> Data | EndOfMessage | None:
        """For ResponseBody: the next event, or None where it must be waited for (or the body was cut)."""
        try:
            event = self.parser.next_event()
        except ProtocolError as error:
            self._lost(f"{BROKE_FRAMING}: {error.reason}")
            return None
        if event is NEED_DATA:
            self._deadline_at_most(self.pool.limits.between_bytes)
            self.stream.resume_reading()
            return None
        if type(event) is EndOfMessage:
            assert self._response is not None
            self._call_over(self._response)
            return event
        if self.parser.buffered <= self.pool.limits.read_ahead:
            self.stream.resume_reading()
        assert type(event) is Data
        return event

    def _call_over(self, response: Response) -> None:
        """The response is whole: back to the pool, or closed where anything is in doubt."""
        call, self.call = self.call, None
        if call is not None:
            call.connection = None
        self._body = self._response = None
        stream, pool = self.stream, self.pool
        reusable = response.keep_alive and self._unsent is None and not stream.backlog and not stream.at_eof
        # RFC 9112 section 9.2: what waits behind a response may not become the answer to the next request.
        if reusable and self.parser.between_messages and not stream.unread() and pool._keep(self):
            self.state = "idle"
            self._deadline_at_most(pool.limits.idle)
            if not stream.reading:
                stream.resume_reading()
        else:
            self._close_doubtful()

    def _close_doubtful(self) -> None:
        if self._unsent is not None or self.stream.backlog:
            self.abort()  # the peer is still being sent a request that nobody wants answered
        else:
            self.close()

    def _take_rest(self, body: ResponseBody) -> None:
        """The connection is gone; what arrived before that counts, and may be the whole of the body."""
        pieces: list[bytes] = []
        try:
            while type(event := self.parser.next_event()) is Data:
                pieces.append(event.data)
        except ProtocolError:
            event = NEED_DATA  # it is about to be cut anyway
        body.keep(pieces)
        if type(event) is EndOfMessage:
            assert self._response is not None
            body.end(event.trailers)
            self._call_over(self._response)

    # The end.

    def _lost(self, reason: str, status: int = 502) -> None:
        """The call fails, is sent again on a fresh connection, or its body is cut."""
        call, body = self.call, self._body
        retry = call is not None and body is None and call.owner is not None and status == 502 and self._may_retry(call)
        self.call = None
        if body is not None:
            self._body = None
            body.cut(f"{self.address} {reason}")
        sending = self._unsent is not None
        self.abort()
        if call is None or body is not None:
            return
        if retry:
            call.fresh = True
            self.pool._start(call)
        else:
            call._fail(UpstreamError(reason, "send" if sending else "head", self.address, status))

    def _may_retry(self, call: Call) -> bool:
        """A kept connection that was closed before a byte of the answer costs nothing where sending again is safe."""
        if call.fresh or not self.parser.between_messages or self._interim:
            return False
        if call.method not in IDEMPOTENT and self.stream.sent > self._mark:
            return False
        # A body that still waits for its 100, or for the turn's end, has not been touched.
        return type(call.body) is bytes or self._holding or self._held is not None or call.body.rewind()  # type: ignore[union-attr]

    def _drop_unsent(self) -> None:
        source, self._unsent = self._unsent, None
        if source is not None:
            source.on_ready = None

    def abort(self) -> None:
        """Give up at once: the call in progress, if any, is over."""
        self._leave_pool()
        self._drop_unsent()
        self.call = self._body = self._held = None
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        if self.state != "closed":
            self.state = "closed"
            if self.stream.sock is None:
                self._over()
            else:
                self.stream.abort()

    def close(self) -> None:
        """Close in order what nobody uses any more."""
        self._leave_pool()
        self.state = "closed"
        self.stream.close()

    def _leave_pool(self) -> None:
        if self.state == "idle":
            self.pool._unkeep(self)

    def _over(self) -> None:
        self._leave_pool()
        self.state = "closed"
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.pool._forget(self)

    def hand_over(self) -> tuple[Stream, bytes]:
        """After an upgrade: the stream changes owners."""
        assert self.state == "upgraded"
        rest = self.parser.detach()
        call, self.call = self.call, None
        if call is not None:
            call.connection = None
        self._over()
        self.stream.resume_reading()
        return self.stream, rest

    # Deadlines.

    def _deadline_at_most(self, seconds: float) -> None:
        self.deadline = when = self.reactor.now + seconds
        if self._timer is not None and self._timer.when > when:
            self._timer.cancel()
            self._timer = self.reactor.call_later(seconds, self._on_timer)

    def _watch_progress(self) -> None:
        self._progress = self.stream.sent
        self._deadline_at_most(self.pool.limits.stalled)

    def _on_timer(self) -> None:
        remaining = self.deadline - self.reactor.now
        if remaining <= 0:
            remaining = self._expired()
            if self.deadline > self.reactor.now:  # a new one was set meanwhile
                remaining = min(remaining, self.deadline - self.reactor.now)
        if self.state in ("idle", "busy"):
            self._timer = self.reactor.call_later(remaining, self._on_timer)

    def _expired(self) -> float:
        """The deadline has passed: act by state; the seconds until the next look."""
        limits, stream = self.pool.limits, self.stream
        if self.state == "idle":
            self.close()
        elif self._holding and self._body is None:  # law 9: after a final head the request's body is not wanted
            self._holding = False
            self._pump()
        elif stream.backlog:
            if stream.sent == self._progress:
                self._lost(f"took no byte of the request for {limits.stalled:g} s", 504)
            self._progress = stream.sent
            return limits.stalled
        elif self._body is not None:
            if self._body.waiting:
                self._lost(f"sent no byte of the body for {limits.between_bytes:g} s (between-bytes timeout)", 504)
        elif self._unsent is None:
            self._lost(f"did not answer within {limits.first_byte:g} s (first-byte timeout)", 504)
        return limits.idle

    def __repr__(self) -> str:
        return f"<ClientConnection {self.state} to {self.address}, {self.parser!r}, {self.stream!r}>"


def _answer(call: Call, response: Response, body: Body) -> None:
    owner, call.owner = call.owner, None
    assert owner is not None
    try:
        owner.call_responded(call, response, body)
    except Exception:  # an owner that raises is told so, or its exchange would never end
        log.exception("exception while taking %r", response)
        if isinstance(body, Source):
            body.close()
        owner.call_failed(call, UpstreamError("an internal error", "internal", call.address, 500))


def _known(response: Response) -> int | None:
    return response.length if response.length not in (CHUNKED, UNTIL_CLOSE) else None
