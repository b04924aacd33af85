"""TLS on a socket: an `ssl.SSLObject` between two memory buffers, over a Stream, with the Stream's own contract.

    state        on                               → state (and what happens)
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

`sent` and `backlog` count the owner's bytes, not the ciphertext.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable

from reactor.errors import BodyCutShort, ReactorError
from reactor.records import RECORD_BYTES, Records
from reactor.stream import HIGH_WATER, LOW_WATER, Stream, StreamOwner, _FileRange

BATCH_BYTES = 64 * 1024  # encrypted ahead of the kernel: what waits beyond that waits as plain bytes
TURN_BYTES = 1024 * 1024  # encrypted for one stream in one turn before the others get theirs
CONTROL_BYTES = 256 * 1024  # waiting in the stream beneath, with key updates' answers: the peer takes none, connection lost

_ORNAMENTS = re.compile(r"^\[[^]]*\] | \(_ssl\.c:[0-9]+\)$")  # that the ssl module puts around OpenSSL's words


class TlsError(ReactorError):
    """What went wrong between the two ends; `certificate` where the peer's own is not to be trusted."""

    def __init__(self, reason: str, certificate: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.certificate = certificate


class TlsStream:
    """A byte stream over TLS; see `reactor.stream.Stream` for the contract, and for what `owner` is told.

    It stands on the open stream `raw`, whose first bytes may have been `received` already (a tunnel's), and whose owner it
    becomes. The client's side unless `server_side`; `host` is the name or address that the peer must prove to be (unless the context
    asks for no proof), and a name is told it (RFC 6066 section 3). `on_open` is called by the loop, once, with None or with
    what the handshake failed by. `keep_session` gets the session as soon as the peer has sent something.
    """

    __slots__ = (
        "reactor", "owner", "state", "received", "reading", "at_eof", "_raw", "_ssl", "_incoming", "_outgoing", "_on_open",
        "_keep_session", "_records", "_encrypted", "_batch", "_mark", "_corked", "_above_high", "_waiting",
        "_shut", "_said_goodbye", "_scheduled", "_held", "_end", "_peer_done", "_error",
    )  # fmt: skip

    def __init__(
        self,
        raw: Stream,
        owner: StreamOwner | None,
        context: ssl.SSLContext,
        host: bytes | None = None,
        server_side: bool = False,
        session: ssl.SSLSession | None = None,
        on_open: Callable[[TlsError | None], object] | None = None,
        keep_session: Callable[[ssl.SSLSession], object] | None = None,
        received: bytes = b"",
    ) -> None:
        """Raises ValueError or ssl.SSLError where `host` can be no certificate's, and then leaves `raw` alone."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        # As bytes the name passes by the interpreter's IDNA codec, which is large and slow.
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side, host, session)
        self.reactor = raw.reactor
        self.owner = owner
        self.state = "handshaking"
        self.received = 0
        self.reading = True
        self.at_eof = False
        self._on_open = on_open
        self._keep_session = keep_session
        self._records = Records()
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
        self._raw = raw
        raw.owner = self
        raw.resume_reading()
        self._incoming.write(received)
        self.reactor.call_soon(self._shake_hands)

    @property
    def sock(self) -> socket.socket | None:
        return self._raw.sock

    @property
    def backlog(self) -> int:
        return self._records.size + self._in_flight if self.state not in ("broken", "closed") else 0

    @property
    def sent(self) -> int:
        return self._encrypted - self._in_flight

    @property
    def _in_flight(self) -> int:
        """At most so many of the owner's bytes wait as ciphertext, which is never shorter than they are."""
        return min(max(0, self._mark - self._raw.sent), self._batch)

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
            self._raw.pause_reading()
        self._tell_opened(None)
        if self.state == "open":
            self._begin_writing()
        if self.state in ("open", "flushing"):
            self._decrypt()

    def _begin_writing(self) -> None:
        if self._records.size and not self._corked:
            self._waiting = True
            self._go_on()
        elif self._shut and not self._records.size:
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
        return self._raw.taken()

    def cork(self) -> None:
        """Hold back writes until `uncork`, or until the high mark, so that they leave together."""
        self._corked = True

    def uncork(self) -> None:
        self._corked = False
        self._flush_now()

    def _enqueue(self, item: bytes | memoryview | _FileRange, size: int) -> None:
        if self._shut or self.state not in ("handshaking", "open"):
            return
        self._records.add(item, size)
        if self.backlog >= HIGH_WATER:
            self._above_high = True

    def _flush_now(self) -> None:
        if self.state == "open" and not self._waiting and (not self._corked or self.backlog >= HIGH_WATER):
            self._push()

    def _push(self) -> None:
        """Encrypt and send until nothing is queued, the kernel is full or the turn's share is used up."""
        raw = self._raw
        budget = TURN_BYTES
        while self._records.size and budget > 0 and not raw.backlog:
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
        if not self._records.size:
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
        records, batch = self._records, 0
        error: Exception | None = None
        try:
            while records.size and batch < BATCH_BYTES:
                taken = self._ssl.write(records.next())
                records.took(taken)
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

    def _all_encrypted(self) -> None:
        if self.state == "flushing":
            self._say_goodbye()
            self._raw.close()
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
        if self._outgoing.pending:
            self._raw.write(self._outgoing.read())

    def _break(self) -> None:
        """Nothing more can be written."""
        self.state = "broken"
        self._records.clear()

    def _give_up(self, error: Exception) -> None:
        """Reset the connection; the loop tells the owner why."""
        self._error = error
        self.abort()

    # Reading.

    def pause_reading(self) -> None:
        """Leave what arrives in the kernel, so that the peer feels it."""
        self.reading = False
        if self.state == "open":
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        if not self.reading:
            self.reading = True
            if self.state == "open":
                self._raw.resume_reading()
                if self._held or self._end is not None:
                    self.reactor.call_soon(self._deliver)

    def unread(self) -> bool:
        """Whether bytes or an end wait that the owner was not told of, as plain text or not yet decrypted."""
        return bool(self._held) or self._end is not None or self._raw.unread()

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
        if self._raw.backlog > CONTROL_BYTES:
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
            if self._records.size and not self._in_flight:
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
            if self._raw.state == "lingering":
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
        if not self._shut and self.state in ("handshaking", "open"):
            self._shut = True
            if self.state == "open" and not self._records.size:
                self._say_goodbye()

    def close(self) -> None:
        """Flush, say so by a close_notify, and close as a Stream does; `connection_lost(None)` follows."""
        if self.state == "handshaking":
            self.abort()
        elif self.state == "open":
            self._corked = False
            self.reading = True
            self._held = b""
            self._raw.resume_reading()
            self.state = "flushing"
            self._push()
            if self.state == "flushing" and self._raw.state == "lingering":
                self.state = "lingering"

    def abort(self) -> None:
        """Drop everything and reset the connection; `connection_lost(None)` follows."""
        if self.state == "closed":
            return
        self._break()
        self._held = b""
        self._end = None
        self._peer_done = True
        self._raw.abort()

    def release(self) -> socket.socket:
        """Give the socket away behind a close_notify; only with an empty backlog. The owner is not told."""
        if self.state == "open":
            self._say_goodbye()
        self._raw._drop_queue()  # what the kernel has no room for is this layer's own
        self.state, self.owner = "closed", None
        return self._raw.release()

    def _fail(self, error: TlsError) -> None:
        """The two ends do not understand each other. What the engine says of it is sent, and waited for by nobody."""
        self._send_control()
        self._raw.owner = None
        self._raw.close()
        self._over(error)

    def _over(self, error: Exception | None) -> None:
        if self.state == "closed":
            return
        self.state = "closed"
        self._records.clear()
        self._held = b""
        self._end = self._error = self._keep_session = None
        self._tell_opened(error if isinstance(error, TlsError) else TlsError("given up"))
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.connection_lost(error)

    def __repr__(self) -> str:
        return f"<TlsStream {self.state}{' eof' if self.at_eof else ''} backlog={self.backlog} over {self._raw!r}>"


def plain_words(failure: OSError) -> str:
    """OpenSSL's reason without the ssl module's ornaments."""
    return _ORNAMENTS.sub("", failure.strerror or str(failure))


def _told(failure: ssl.SSLError) -> TlsError:
    """OpenSSL's reason, in its own words."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        return TlsError(f"certificate verify failed: {failure.verify_message}", certificate=True)
    return TlsError(plain_words(failure))
