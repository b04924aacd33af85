"""TLS on a socket: an `ssl.SSLObject` between two memory buffers, over a Stream, with the Stream's own contract.

    state        on                               → state (and what happens)
    connecting   start(sock)                      → handshaking
    handshaking  the handshake is done            → open         (on_open(None); what was queued is sent)
    handshaking  an alert, the end, a reset       → closed       (on_open(error), connection_lost(error))
    open         the peer's close_notify          → open         (eof_received once; writing goes on)
    open         an end without close_notify      → closed       (connection_lost(error): what came may be cut short)
    open         what is no TLS record            → closed       (an alert; connection_lost(error))
    open         close()                          → flushing     or, with nothing queued, lingering
    flushing     all sent, close_notify too       → lingering
    lingering    the stream beneath is closed     → closed       (connection_lost(None))
    open, …      a write fails                    → broken       (no more is written; what the peer sent is still read)
    any          abort()                          → closed       (a reset; connection_lost(None))

`sent` and `backlog` count the owner's bytes, not the ciphertext. Importing this costs time and memory: that is done where
the first TLS connection is made.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable

from reactor.connector import Attempt, Connector, address_text
from reactor.errors import BodyCutShort, ConfigError, ReactorError, UpstreamError
from reactor.loop import Reactor, Timer
from reactor.stream import HIGH_WATER, LOW_WATER, Stream, StreamOwner, _FileRange
from reactor.timing import FetchTimes

log = logging.getLogger("reactor.tls")

RECORD_BYTES = 16 * 1024  # of the owner's in one record, RFC 8446 section 5.1
BATCH_BYTES = 64 * 1024  # encrypted ahead of the kernel: what waits beyond that waits as plain bytes
TURN_BYTES = 1024 * 1024  # encrypted for one stream in one turn before the others get theirs
CONTROL_BYTES = 256 * 1024  # waiting in the stream beneath, with key updates' answers: the peer takes none, connection lost
SESSIONS = 256  # remembered for resumption; the oldest goes first

PHASE = "TLS handshake"
_ORNAMENTS = re.compile(r"^\[[^]]*\] | \(_ssl\.c:[0-9]+\)$")  # that the ssl module puts around OpenSSL's words


class TlsError(ReactorError):
    """What went wrong between the two ends; `certificate` where the peer's own is not to be trusted."""

    def __init__(self, reason: str, certificate: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.certificate = certificate


class TlsStream:
    """A byte stream over TLS; see `reactor.stream.Stream` for the contract, and for what `owner` is told.

    The client's side unless `server_side`; `host` is the name or address that the peer must prove to be (unless the context
    asks for no proof), and a name is told it (RFC 6066 section 3). `on_open` is called by the loop, once, with None or with
    what the handshake failed by. `keep_session` gets the session as soon as the peer has sent something.
    """

    __slots__ = (
        "reactor", "owner", "state", "received", "reading", "at_eof", "_raw", "_ssl", "_incoming", "_outgoing", "_on_open",
        "_keep_session", "_queue", "_piece", "_queued", "_encrypted", "_batch", "_mark", "_corked", "_above_high", "_waiting",
        "_shut", "_said_goodbye", "_scheduled", "_held", "_end", "_peer_done", "_error",
    )  # fmt: skip

    def __init__(
        self,
        reactor: Reactor,
        owner: StreamOwner | None,
        context: ssl.SSLContext,
        host: bytes | None = None,
        server_side: bool = False,
        session: ssl.SSLSession | None = None,
        on_open: Callable[[TlsError | None], object] | None = None,
        keep_session: Callable[[ssl.SSLSession], object] | None = None,
        sock: socket.socket | None = None,
    ) -> None:
        """Raises ValueError or ssl.SSLError where `host` can be no certificate's."""
        self.reactor = reactor
        self.owner = owner
        self.state = "connecting"
        self.received = 0
        self.reading = True
        self.at_eof = False
        self._raw: Stream | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        # As bytes the name passes by the interpreter's IDNA codec, which is large and slow.
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side, host, session)
        self._on_open = on_open
        self._keep_session = keep_session
        self._queue: deque[bytes | memoryview | _FileRange] = deque()
        self._piece: bytes | memoryview = b""  # taken from the queue, but not by the engine yet
        self._queued = 0  # bytes in both
        self._encrypted = 0  # bytes that the engine took
        self._batch = 0  # the last of them, which may still wait in the stream beneath,
        self._mark = 0  # until that has sent so many bytes
        self._corked = False
        self._above_high = False
        self._waiting = False  # a backlog was left: from here on the loop writes, and tells the owner how far that has come
        self._shut = False  # shutdown_write was called: close_notify follows once the queue is empty
        self._said_goodbye = False
        self._scheduled = False
        self._held = b""  # decrypted, while reading is paused
        self._end: str | TlsError | None = None  # what comes behind it: "eof", or an error
        self._peer_done = False
        self._error: Exception | None = None
        if sock is not None:
            self.start(sock)

    def start(self, sock: socket.socket) -> None:
        """Take a connected, non-blocking socket, and begin the handshake."""
        if self.state != "connecting":  # aborted meanwhile
            sock.close()
        else:
            self.start_over(Stream(self.reactor, self, sock), b"")

    def start_over(self, stream: Stream, received: bytes) -> None:
        """The same over an open stream, whose first bytes may have been received already (a tunnel's)."""
        self._raw = stream
        stream.owner = self
        stream.resume_reading()
        self.state = "handshaking"
        self._incoming.write(received)
        self.reactor.call_soon(self._shake_hands)

    @property
    def sock(self) -> socket.socket | None:
        return self._raw.sock if self._raw is not None else None

    @property
    def backlog(self) -> int:
        return self._queued + self._in_flight if self.state not in ("broken", "closed") else 0

    @property
    def sent(self) -> int:
        return self._encrypted - self._in_flight

    @property
    def _in_flight(self) -> int:
        """At most so many of the owner's bytes wait as ciphertext, which is never shorter than they are."""
        return min(max(0, self._mark - self._raw.sent), self._batch) if self._raw is not None else 0

    # The handshake.

    def _shake_hands(self) -> None:
        if self.state != "handshaking":
            return
        error = None
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._send_control()
            return
        except ssl.SSLError as failure:
            error = _told(failure)
        if error is not None:
            self._fail(error)
            return
        self.state = "open"
        if not self.reading:
            self._raw.pause_reading()  # type: ignore[union-attr]
        self._tell_opened(None)
        if self.state == "open":
            self._begin_writing()
        if self.state in ("open", "flushing"):
            self._decrypt()

    def _begin_writing(self) -> None:
        if self._queued and not self._corked:
            self._waiting = True
            self._go_on()
        elif self._shut and not self._queued:
            self._say_goodbye()
        self._send_control()  # the handshake's last words, unless they left with what was queued

    def _tell_opened(self, error: TlsError | None) -> None:
        on_open, self._on_open = self._on_open, None
        if on_open is not None:
            on_open(error)

    # Writing.

    def write(self, data: bytes | memoryview) -> None:
        """Send, or queue what the kernel does not take. Never calls back; dropped where the stream is going down."""
        if len(data):
            self._enqueue(data, len(data))
            self._flush_now()

    def write_parts(self, parts: list[bytes | memoryview]) -> None:
        """Send several buffers, which share records."""
        for part in parts:
            if len(part):
                self._enqueue(part, len(part))
        self._flush_now()

    def send_file(self, fd: int, offset: int, count: int, intact: Callable[[], bool] | None = None) -> None:
        """Send `count` bytes of a file, read as they are needed; the descriptor must stay open until `drained`.

        A file that turns out shorter, or that is not `intact` before its last bytes, breaks the stream with a reset, so that
        nobody takes it for whole.
        """
        if count:
            self._enqueue(_FileRange(fd, offset, count, intact), count)
            self._flush_now()

    def send_with_file(self, head: bytes, fd: int, offset: int, count: int, intact: Callable[[], bool] | None = None) -> None:
        """`write` and `send_file` as one."""
        was_corked, self._corked = self._corked, True
        self.write(head)
        self.send_file(fd, offset, count, intact)
        self._corked = was_corked
        self._flush_now()

    def taken(self) -> int:
        """Bytes that have reached the peer's kernel, encryption included."""
        return self._raw.taken() if self._raw is not None else 0

    def cork(self) -> None:
        """Hold back writes until `uncork`, or until the high mark, so that they leave together."""
        self._corked = True

    def uncork(self) -> None:
        self._corked = False
        self._flush_now()

    def _enqueue(self, item: bytes | memoryview | _FileRange, size: int) -> None:
        if self._shut or self.state not in ("connecting", "handshaking", "open"):
            return
        self._queue.append(item)
        self._queued += size
        if self.backlog >= HIGH_WATER:
            self._above_high = True

    def _flush_now(self) -> None:
        if self.state == "open" and not self._waiting and (not self._corked or self.backlog >= HIGH_WATER):
            self._push()

    def _push(self) -> None:
        """Encrypt and send until nothing is queued, the kernel is full or the turn's share is used up."""
        raw = self._raw
        assert raw is not None
        budget = TURN_BYTES
        while self._queued and budget > 0 and not raw.backlog:
            taken = self._encrypt()
            if self.state not in ("open", "flushing"):
                return
            if self._outgoing.pending:
                data = self._outgoing.read()
                self._mark = raw.sent + len(data)
                raw.write(data)
            if raw.state == "broken":
                self._break()
                return
            if not taken:
                break  # a renegotiation waits for the peer
            budget -= taken
        if not self._queued:
            self._all_encrypted()
        elif budget <= 0 and not raw.backlog and not self._scheduled:
            self._scheduled = True
            self.reactor.call_soon(self._take_turn)
        self._waiting = self.backlog > 0
        self._above_high = self._above_high and self._waiting

    def _take_turn(self) -> None:
        self._scheduled = False
        self._go_on()

    def _encrypt(self) -> int:
        """One batch from the queue through the engine; how many bytes of it."""
        batch = 0
        error: Exception | None = None
        try:
            while self._queued and batch < BATCH_BYTES:
                piece = self._piece if len(self._piece) else self._next_piece()
                self._piece = piece
                taken = self._ssl.write(piece)
                self._piece = memoryview(piece)[taken:] if taken < len(piece) else b""
                self._queued -= taken
                batch += taken
        except ssl.SSLWantReadError:
            pass
        except BodyCutShort as cut:
            error = BodyCutShort(cut.reason)  # without a traceback, which would hold this stream
        except ssl.SSLError as failure:
            error = _told(failure)
        self._encrypted += batch
        self._batch = batch
        if error is not None:
            self._give_up(error)
        return batch

    def _next_piece(self) -> bytes | memoryview:
        """At most a record's worth; small buffers are joined, so that they share one. Raises BodyCutShort."""
        queue = self._queue
        first = queue.popleft()
        if type(first) is _FileRange:
            first.check(RECORD_BYTES)
            piece = os.pread(first.fd, min(RECORD_BYTES, first.count), first.offset)
            if not piece:
                raise BodyCutShort("the file became shorter while it was sent")
            first.offset += len(piece)
            first.count -= len(piece)
            if first.count:
                queue.appendleft(first)
            return piece
        if len(first) > RECORD_BYTES:  # type: ignore[arg-type]
            view = memoryview(first)  # type: ignore[arg-type]
            queue.appendleft(view[RECORD_BYTES:])
            return view[:RECORD_BYTES]
        parts: list[bytes | memoryview] = [first]  # type: ignore[list-item]
        size = len(first)  # type: ignore[arg-type]
        while queue and type(queue[0]) is not _FileRange and size + len(queue[0]) <= RECORD_BYTES:  # type: ignore[arg-type]
            size += len(queue[0])  # type: ignore[arg-type]
            parts.append(queue.popleft())  # type: ignore[arg-type]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _all_encrypted(self) -> None:
        raw = self._raw
        assert raw is not None
        if self.state == "flushing":
            self._say_goodbye()
            raw.close()
        elif self._shut:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        """close_notify, once. The peer's own is read like the rest, not waited for here (RFC 8446 section 6.1)."""
        if not self._said_goodbye:
            self._said_goodbye = True
            try:
                self._ssl.unwrap()
            except ssl.SSLError:
                pass  # it waits for the peer's; or the engine is out of order, and says nothing any more
            self._send_control()

    def _send_control(self) -> None:
        """What the engine has to say of its own: the handshake, key updates, alerts."""
        raw = self._raw
        assert raw is not None
        if self._outgoing.pending:
            raw.write(self._outgoing.read())

    def _break(self) -> None:
        """Nothing more can be written."""
        self.state = "broken"
        self._drop_queue()

    def _give_up(self, error: Exception) -> None:
        """Reset the connection; the loop tells the owner why."""
        self._error = error
        self.abort()

    def _drop_queue(self) -> None:
        self._queue.clear()
        self._piece = b""
        self._queued = 0

    # Reading.

    def pause_reading(self) -> None:
        """Leave what arrives in the kernel, so that the peer feels it."""
        self.reading = False
        if self.state == "open":
            self._raw.pause_reading()  # type: ignore[union-attr]

    def resume_reading(self) -> None:
        if not self.reading:
            self.reading = True
            if self.state == "open":
                self._raw.resume_reading()  # type: ignore[union-attr]
                if self._held or self._end is not None:
                    self.reactor.call_soon(self._deliver)

    def unread(self) -> bool:
        """Whether bytes or an end wait that the owner was not told of, as plain text or not yet decrypted."""
        return bool(self._held) or self._end is not None or self._raw.unread()  # type: ignore[union-attr]

    def _decrypt(self) -> None:
        """All that has come, so that the engine never holds a whole record back, and on to the owner."""
        pieces: list[bytes] = []
        try:
            while piece := self._ssl.read(RECORD_BYTES):
                pieces.append(piece)
            self._peer_says_goodbye()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._peer_says_goodbye()
        except ssl.SSLError as failure:
            self._peer_done = True
            self._end = _told(failure)
        self._send_control()
        if pieces and self.state != "flushing":
            self._held = b"".join([self._held, *pieces]) if self._held or len(pieces) > 1 else pieces[0]
            self.received += sum(map(len, pieces))
        if self._keep_session is not None and pieces and self._ssl.session is not None:
            self._keep_session(self._ssl.session)
            self._keep_session = None
        if self._raw.backlog > CONTROL_BYTES:  # type: ignore[union-attr]
            self._give_up(TlsError("asked for more answers in the TLS layer than it took"))
        self._deliver()

    def _peer_says_goodbye(self) -> None:
        self._peer_done = True
        self._end = "eof"

    def _deliver(self) -> None:
        """Hand on what was decrypted, and what comes behind it, as far as the owner reads."""
        if self._held and self.reading and self.state in ("open", "broken"):
            data, self._held = self._held, b""
            self.owner.data_received(data)  # type: ignore[union-attr]
        if self._end is None or self._held or not self.reading or self.state in ("lingering", "closed"):
            return
        end, self._end = self._end, None
        if end == "eof":
            self.at_eof = True
        if self.state == "flushing":
            return  # what is left to say is still said
        if isinstance(end, TlsError):
            self._fail(end)
        else:
            self.owner.eof_received()  # type: ignore[union-attr]

    # What the stream beneath tells.

    def data_received(self, data: bytes) -> None:
        if self._peer_done:
            return  # RFC 8446 section 6.1: what comes behind a close_notify is ignored
        self._incoming.write(data)
        if self.state == "handshaking":
            self._shake_hands()
        else:
            self._decrypt()
            if self._queued and not self._in_flight:
                self._go_on()  # a renegotiation may have held it back

    def eof_received(self) -> None:
        if self.state == "handshaking":
            self._fail(TlsError("the connection was closed in the handshake"))
        elif not self._peer_done:
            # RFC 9112 section 9.8: an end that the peer did not announce may be anybody's cut.
            self._peer_done = True
            self._end = TlsError("closed without a close_notify")
            self._deliver()

    def resume_writing(self) -> None:
        """`drained` follows, and is soon enough: the kernel is full."""

    def drained(self) -> None:
        self._go_on()

    def _go_on(self) -> None:
        """Write on, and tell the owner how far that has come. Only from the loop."""
        waited = self._waiting and self.state in ("open", "flushing")
        if waited:
            self._push()
        owner = self.owner
        if self.state == "flushing":
            if self._raw.state == "lingering":  # type: ignore[union-attr]
                self.state = "lingering"
                if owner is not None:
                    owner.drained()
        elif waited and self.state == "open" and owner is not None:
            if not self._waiting:
                owner.drained()
            elif self._above_high and self.backlog <= LOW_WATER:
                self._above_high = False
                owner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if self.state == "handshaking":
            why = getattr(error, "strerror", None) or "closed"
            error = TlsError(f"the connection was lost in the handshake ({why})")
        elif self._held and self.owner is not None and self.state in ("open", "broken"):
            held, self._held = self._held, b""
            self.owner.data_received(held)
        self._over(self._error or error)

    def failed(self, error: Exception) -> None:
        """An exception in a callback (already logged): the owner says what is left to say, or the stream is reset."""
        if self.owner is not None:
            self.owner.failed(error)
        else:
            self.abort()

    # The end.

    def shutdown_write(self) -> None:
        """End the write side, by a close_notify, once everything queued is sent; reading goes on."""
        if not self._shut and self.state in ("connecting", "handshaking", "open"):
            self._shut = True
            if self.state == "open" and not self._queued:
                self._say_goodbye()

    def close(self) -> None:
        """Flush, say so by a close_notify, and close as a Stream does; `connection_lost(None)` follows."""
        if self.state in ("connecting", "handshaking"):
            self.abort()
        elif self.state == "open":
            raw = self._raw
            assert raw is not None
            self._corked = False
            self.reading = True
            self._held = b""
            raw.resume_reading()
            self.state = "flushing"
            self._push()
            if self.state == "flushing" and raw.state == "lingering":
                self.state = "lingering"

    def abort(self) -> None:
        """Drop everything and reset the connection; `connection_lost(None)` follows."""
        if self.state == "closed":
            return
        self._break()
        self._held = b""
        self._end = None
        self._peer_done = True
        if self._raw is not None:
            self._raw.abort()
        else:
            self.reactor.call_soon(self._over, None)

    def release(self) -> socket.socket:
        """Give the socket away behind a close_notify; only with an empty backlog. The owner is not told."""
        raw = self._raw
        assert raw is not None
        if self.state == "open":
            self._say_goodbye()
        raw._drop_queue()  # what the kernel has no room for is this layer's own
        self.state, self.owner = "closed", None
        return raw.release()

    def _fail(self, error: TlsError) -> None:
        """The two ends do not understand each other. What the engine says of it is sent, and waited for by nobody."""
        raw = self._raw
        assert raw is not None
        self._send_control()
        raw.owner = None
        raw.close()
        self._over(error)

    def _over(self, error: Exception | None) -> None:
        if self.state == "closed":
            return
        self.state = "closed"
        self._drop_queue()
        self._held = b""
        self._end = self._error = self._keep_session = None
        self._tell_opened(error if isinstance(error, TlsError) else TlsError("given up"))
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.connection_lost(error)

    def __repr__(self) -> str:
        return f"<TlsStream {self.state}{' eof' if self.at_eof else ''} backlog={self.backlog} over {self._raw!r}>"


def _told(failure: ssl.SSLError) -> TlsError:
    """OpenSSL's reason, in its own words."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        return TlsError(f"certificate verify failed: {failure.verify_message}", certificate=True)
    return TlsError(_ORNAMENTS.sub("", failure.strerror or str(failure)))


class ClientTls:
    """What connections to TLS origins share: whom they trust, and the sessions that they may resume (RFC 8446 section 2.2).

    `ca_file` names the only authorities that are trusted, PEM; without it the system's are. `insecure` asks for no proof at
    all. Raises ConfigError, with the exit status that curl has for it, where the file cannot be used.
    """

    def __init__(self, ca_file: str | None = None, insecure: bool = False) -> None:
        try:
            self.context = ssl.create_default_context(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"{ca_file}: {_ORNAMENTS.sub('', error.strerror or str(error)).lower()}", 77) from None
        self.context.hostname_checks_common_name = False  # RFC 9110 section 4.3.4: a name is in subjectAltName, or nowhere
        self.context.set_alpn_protocols(["http/1.1"])
        self._sessions: dict[tuple[str, int], ssl.SSLSession] = {}
        if insecure:
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE
            log.warning("--insecure: NO CERTIFICATE IS VERIFIED; whoever stands between can read and change everything")

    def connect(self, connector: Connector, host: str, port: int, callback: Callback, seconds: float) -> SecureAttempt:
        """Connect as `Connector.connect` does, and end the handshake, all within `seconds`; the result is a TlsStream."""
        attempt = self.attempt(connector.reactor, host, port, callback, seconds)
        attempt.begin(connector)
        return attempt

    def attempt(self, reactor: Reactor, host: str, port: int, callback: Callback, seconds: float) -> SecureAttempt:
        """The same, not begun yet: `secure` goes over a stream that leads there already."""
        return SecureAttempt(self, reactor, host, port, callback, seconds)

    def _keep(self, key: tuple[str, int], session: ssl.SSLSession) -> None:
        self._sessions.pop(key, None)
        if len(self._sessions) >= SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[key] = session


Callback = Callable[[TlsStream | UpstreamError, str], object]


class SecureAttempt:
    """A connection with TLS being made: connecting → handshaking → over. `cancel` may be called any number of times."""

    __slots__ = (
        "state", "address", "_tls", "_reactor", "_key", "_callback", "_seconds", "_until", "_attempt", "_stream", "_timer",
        "_times",
    )  # fmt: skip

    def __init__(self, tls: ClientTls, reactor: Reactor, host: str, port: int, callback: Callback, seconds: float) -> None:
        self.state = "connecting"
        self.address = address_text(host, port)
        self._tls = tls
        self._reactor = reactor
        self._key = (host, port)
        self._callback: Callback | None = callback
        self._seconds = seconds
        self._until = reactor.now + seconds
        self._attempt: Attempt | None = None
        self._stream: TlsStream | None = None
        self._timer: Timer | None = None
        self._times = FetchTimes()

    def begin(self, connector: Connector) -> None:
        """By a connection of its own."""
        self._attempt = connector.connect(*self._key, self._connected, self._seconds)

    def fail(self, error: UpstreamError) -> None:
        """There is no connection to shake hands over."""
        self._finish(error)

    def tell(self, times: FetchTimes) -> None:
        """For the callback: when the name was resolved, and that it is connected and secure now, or is not going to be."""
        times.resolved = self._times.resolved
        times.connected = self._reactor.now

    def cancel(self) -> None:
        """Give up; the callback is not called any more, and nothing of the attempt stays open."""
        self._callback = None
        if self._attempt is not None:
            self._attempt.cancel()
        stream = self._stream
        self._leave()
        if stream is not None:
            stream.abort()

    def _connected(self, result: socket.socket | UpstreamError, address: str) -> None:
        if self._attempt is not None:
            self._attempt.tell(self._times)
            self._attempt = None
        self.address = address
        if isinstance(result, UpstreamError):
            self._finish(result)
        else:
            self.secure(Stream(self._reactor, None, result), b"")

    def secure(self, stream: Stream, received: bytes) -> None:
        """Shake hands over an open stream, of which these bytes were received already."""
        self.state = "handshaking"
        host, tls = self._key[0], self._tls
        session = tls._sessions.pop(self._key, None)  # kept again once it has proved good
        # A name's final dot is the resolver's affair: no certificate has it.
        name = host.removesuffix(".").encode("ascii")
        try:
            self._stream = TlsStream(self._reactor, None, tls.context, name, False, session, self._shaken, self._keep_session)
        except (ValueError, ssl.SSLError):
            stream.abort()
            self._finish(UpstreamError(f"{PHASE}: no name that a certificate could be for", PHASE, self.address))
            return
        self._timer = self._reactor.call_later(max(0.0, self._until - self._reactor.now), self._timed_out)
        self._stream.start_over(stream, received)

    def _keep_session(self, session: ssl.SSLSession) -> None:
        self._tls._keep(self._key, session)

    def _shaken(self, error: TlsError | None) -> None:
        stream = self._stream
        if self.state == "over" or stream is None:
            return
        if error is None:
            self._finish(stream)
        elif error.certificate:
            self._finish(UpstreamError(f"{PHASE}: {error.reason}", "certificate", self.address))
        else:
            self._finish(UpstreamError(f"{PHASE}: {error.reason}", PHASE, self.address))

    def _timed_out(self) -> None:
        stream = self._stream
        reason = f"{PHASE}: not done within {self._seconds:g} s (connect timeout)"
        self._finish(UpstreamError(reason, PHASE, self.address, 504))
        if stream is not None:
            stream.abort()

    def _finish(self, result: TlsStream | UpstreamError) -> None:
        callback, self._callback = self._callback, None
        self._leave()
        if callback is not None:
            callback(result, self.address)

    def _leave(self) -> None:
        self.state = "over"
        self._attempt = self._stream = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def failed(self, error: Exception) -> None:
        """A timer's callback raised (already logged): who waits is told."""
        self._finish(UpstreamError(f"could not connect: {error}", PHASE, self.address))

    def __repr__(self) -> str:
        return f"<SecureAttempt {self.address} {self.state}>"
