"""What requests and responses share: the buffer, the bodies, and the states of a parser (RFC 9112).

Bytes in, events out, no I/O. A parser is `feed` bytes in any pieces and asked for `next_event()` until it says
NEED_DATA. The pieces never change the events nor the error, except that a body may come in other portions; a body of
known length that is wholly there comes in one. What the grammar or a limit forbids raises ProtocolError, and goes on
raising it: a connection whose framing is in doubt is never read further.

    state            on                                → state, event
    head             a whole head                      → body | chunked | until_close | end, Request or Response
    head             1xx but 101 (responses)           → head, Response
    body             bytes                             → body or end, Data
    chunked          bytes                             → chunked or trailer_section, Data
    trailer_section  an empty line                     → head or paused, EndOfMessage
    until_close      bytes, then end of input          → until_close, Data; then head, EndOfMessage
    end              nothing needed                    → head or paused, EndOfMessage
    paused           resume()                          → head      (a refused Upgrade)
    paused           detach()                          → detached  (an accepted Upgrade or CONNECT, left-over bytes out)
    any              what is forbidden                 → failed, ProtocolError

Time is linear in the bytes fed: a search that came to nothing is resumed where it ended. Memory is bounded by the
limits plus what was fed since `next_event` last said NEED_DATA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from reactor.errors import ProtocolError
from reactor.http.events import END, NEED_DATA, Data, EndOfMessage, Event
from reactor.http.fields import Fields, parse_line
from reactor.http.framing import FORBIDDEN_TRAILERS
from reactor.http.grammar import CHUNK_LINE, LIMITS, Limits

CRLF = b"\r\n"
HEAD_END = b"\r\n\r\n"
_CR = 0x0D

MAX_SIZE_DIGITS = 16  # of a chunk size, zeros in front included: beyond 64 bits, readers are known to differ

MEMO_CHUNK_LINES = 1024  # distinct chunk lines remembered; at the limit the memo starts anew
MEMO_CHUNK_LINE_LENGTH = 10  # bytes, with the CRLF before it: none with extensions, none above 4 GiB
_chunk_sizes: dict[bytes, int] = {}
_nothing: dict[bytes, int] = {}  # what parsers with limits of their own remember

_BAD_CHUNK_END = "chunk data does not end where its size says"
_BAD_CHUNK_LINE = "invalid chunk line"
BODY_TOO_LARGE = "body too large"
CUT_OFF = "connection closed in the middle of the"


class IncrementalParser:
    """The buffer, the bodies and the states that requests and responses share."""

    __slots__ = ("limits", "_data", "_pos", "_scan", "_eof", "_state", "_after", "_left", "_lead", "_room", "_fault")

    _first: ClassVar[frozenset[int]]  # octets that a head can begin with; a bare LF is refused as such

    limits: Limits
    _data: bytes | bytearray  # a bytearray only while something incomplete is awaited
    _pos: int  # consumed up to here
    _scan: int  # searched in vain up to here
    _eof: bool
    _state: Callable[[Any], Event]  # a plain function of the class, so that no parser refers to itself
    _after: Callable[[Any], Event]  # the state after the end of this message
    _left: int  # bytes of the body, or of the chunk begun, still to come
    _lead: int  # length of the CRLF before the next chunk line: 0 before the first, then 2
    _room: int  # what further chunks may carry; counted only under limits that are the parser's own
    _fault: tuple[str, int]  # reason and status; the error itself would hold its traceback, and so this parser

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer; nothing is parsed until `next_event` is called."""
        if not self._data:
            self._data = data
            return
        pos = self._pos
        if type(self._data) is bytearray:
            # Deleting the front of a bytearray moves its start, not its bytes.
            del self._data[:pos]
        else:
            self._data = bytearray(memoryview(self._data)[pos:])
        self._data += data
        self._scan = max(0, self._scan - pos)
        self._pos = 0

    def feed_eof(self) -> None:
        """The peer has shut down its sending side."""
        self._eof = True

    def next_event(self) -> Event:
        """The next event, or NEED_DATA; raises ProtocolError."""
        return self._state(self)

    def take_whole(self) -> bytes | None:
        """After a head: all of a body that is there already, and its end with it; None where that takes events."""
        state = self._state
        if state is _BODY:
            data, pos = self._data, self._pos
            end = pos + self._left
            if type(data) is not bytes or len(data) < end:
                return None
            piece = data[pos:end]
            if end == len(data):
                self._data = b""
                self._pos = self._scan = 0
            else:
                self._pos = end
        elif state is _END:
            piece = b""
        else:
            return None
        self._state = self._after
        return piece

    @property
    def buffered(self) -> int:
        """Bytes fed and not yet given out."""
        return len(self._data) - self._pos

    @property
    def between_messages(self) -> bool:
        """Nothing of a message has been read yet, but perhaps an empty line before it."""
        return self._state is type(self)._head and not self._data

    def detach(self) -> bytes:
        """Give up parsing: the bytes left over, for whoever speaks on this connection from now on."""
        rest = bytes(memoryview(self._data)[self._pos :])
        self._release()
        self._state = IncrementalParser._detached
        return rest

    def resume(self) -> None:
        """Go on parsing after an Upgrade that was refused."""
        if self._state is IncrementalParser._paused:
            self._state = type(self)._head

    def _release(self) -> None:
        """Let go of the buffer. It is empty exactly when nothing is left in it."""
        self._data = b""
        self._pos = self._scan = 0

    def _consume(self, pos: int) -> None:
        if pos < len(self._data):
            self._pos = pos
        else:
            self._release()

    def _settle(self) -> bytes:
        """The buffer as bytes again, once what was incomplete is there."""
        data = self._data
        if type(data) is bytes:
            return data
        self._data = data = bytes(data)
        return data

    def _fail(self, reason: str, status: int = 400) -> ProtocolError:
        return self._failed_with(ProtocolError(reason, status))

    def _failed_with(self, error: ProtocolError) -> ProtocolError:
        self._fault = (error.reason, error.status)
        self._state = IncrementalParser._failed
        self._release()
        return error

    # The states.

    def _head(self) -> Event:
        raise AssertionError("each parser reads its own heads")

    def _failed(self) -> Event:
        self._release()
        raise ProtocolError(*self._fault)

    def _paused(self) -> Event:
        return NEED_DATA

    def _detached(self) -> Event:
        return NEED_DATA

    def _end(self) -> Event:
        self._state = self._after
        return END

    def _body(self) -> Event:
        data, pos, left = self._settle(), self._pos, self._left
        there = len(data) - pos
        if there > left:
            piece = data[pos : pos + left]
            self._pos = pos + left
            self._state = IncrementalParser._end
        elif there:
            piece = data[pos:] if pos else data
            self._release()
            self._left = left - there
            if there == left:
                self._state = IncrementalParser._end
        else:
            return self._starved("body")
        return Data(piece)

    def _until_close(self) -> Event:
        if self._data:
            piece = self._settle()[self._pos :]
            self._release()
            return Data(piece)
        if self._eof:
            return self._end()
        return NEED_DATA

    def _chunked(self) -> Event:
        """RFC 9112 section 7.1. What several chunks in the buffer carry comes out as one Data."""
        data, left, lead = self._data, self._left, self._lead
        if type(data) is not bytes:
            if not left and data.find(b"\n", self._scan) < 0:
                return self._await_chunk_line()
            data = self._settle()
        pos, size, find = self._pos, len(data), data.find
        known = (_chunk_sizes if self.limits is LIMITS else _nothing).get
        pieces = []
        while True:
            if left:
                if pos == size:
                    break
                stop = pos + left
                pieces.append(data[pos:stop])
                if stop >= size:
                    pos, left = size, stop - size
                    break
                pos, left = stop, 0
            line_end = find(CRLF, pos + lead)
            if line_end < 0:
                break
            # One look-up for both: the CRLF that ends the last chunk's data, and the line of the next.
            line = data[pos:line_end] if lead else CRLF + data[pos:line_end]
            said = known(line)
            if said is None:
                try:
                    said = self._read_chunk_line(line)
                except ProtocolError as error:
                    if pieces:
                        break  # what was whole goes out first; the next call fails
                    raise self._failed_with(error) from None
            pos, left, lead = line_end + 2, said, 2
            if not said:
                self._state = IncrementalParser._trailer_section
                break
        self._left, self._lead = left, lead
        self._consume(pos)
        if pieces:
            return Data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._state is IncrementalParser._trailer_section:
            return self._trailer_section()
        return self._starved("chunked body") if left else self._await_chunk_line()

    def _read_chunk_line(self, line: bytes) -> int:
        """The size in a chunk line, which comes with the CRLF before it and without the one behind it."""
        if not line.startswith(CRLF):
            raise ProtocolError(_BAD_CHUNK_END)
        match = CHUNK_LINE.fullmatch(line, 2)
        if match is None or len(line) - 2 > self.limits.chunk_line:
            raise ProtocolError(_BAD_CHUNK_LINE)
        digits = match[1]
        if len(digits) > MAX_SIZE_DIGITS or (size := int(digits, 16)) > self.limits.content_length:
            raise ProtocolError("chunk size beyond all reason")
        if self.limits is not LIMITS:
            self._room -= size
            if self._room < 0:
                raise ProtocolError(BODY_TOO_LARGE, 413)
        elif len(line) <= MEMO_CHUNK_LINE_LENGTH:
            if len(_chunk_sizes) >= MEMO_CHUNK_LINES:
                _chunk_sizes.clear()
            _chunk_sizes[line] = size
        return size

    def _await_chunk_line(self) -> Event:
        """A chunk line is due and not whole: refuse what can never become one."""
        data = self._data
        line = self._pos + self._lead
        if not CRLF.startswith(bytes(data[self._pos : line])):
            raise self._fail(_BAD_CHUNK_END)
        if data.find(b"\n", max(line, self._scan)) >= 0 or len(data) - line > self.limits.chunk_line + 1:
            raise self._fail(_BAD_CHUNK_LINE)
        self._scan = len(data)
        return self._starved("chunked body")

    def _trailer_section(self) -> Event:
        """RFC 9112 section 7.1.2."""
        data, pos, limits = self._data, self._pos, self.limits
        if data.startswith(CRLF, pos):
            self._consume(pos + 2)
            return self._end()
        end = data.find(HEAD_END, max(pos, self._scan - 3))
        there = len(data) if end < 0 else end + 3
        self._refuse_bare_lf(pos, max(pos, self._scan), min(there, pos + limits.trailers + 4))
        if there - pos >= limits.trailers + 4:
            raise self._fail("trailers too large", 431)
        if end < 0:
            self._scan = len(data)
            return self._starved("trailers")
        try:
            trailers = self._read_trailers(bytes(data[pos:end]).split(CRLF))
        except ProtocolError as error:
            raise self._failed_with(error) from None
        self._settle()
        self._consume(end + 4)
        self._state = self._after
        return EndOfMessage(trailers)

    def _read_trailers(self, lines: list[bytes]) -> Fields | None:
        if len(lines) > self.limits.fields:
            raise ProtocolError("too many trailers", 431)
        kept = [line for line in lines if parse_line(line)[0] not in FORBIDDEN_TRAILERS]
        return Fields.from_lines(kept) if kept else None

    def _starved(self, what: str) -> Event:
        if self._eof:
            raise self._fail(f"{CUT_OFF} {what}")
        return NEED_DATA

    # What heads have in common.

    def _bad_start(self, line: bytes) -> ProtocolError:
        raise AssertionError("each parser has start lines of its own")

    def _await_head(self, pos: int) -> Event:
        """A head is not whole: refuse what can never become one."""
        size = len(self._data)
        self._refuse_early(pos, max(pos, self._scan), size)
        self._scan = size
        return self._starved("head")

    def _refuse_early(self, pos: int, since: int, end: int) -> None:
        """Raise for what shows in a head that begins at `pos` before its last byte, at `end`, has come.

        Of several faults the one that shows first counts, so that it does not matter in which pieces the bytes came.
        Up to `since` they were searched before.
        """
        data, limits = self._data, self.limits
        if data[pos] not in self._first and (data[pos] != _CR or len(data) > pos + 1):
            raise self._failed_with(self._bad_start(bytes(data[pos : pos + 1])))
        stop = pos + limits.start_line + 2
        if since < stop <= end and data.find(CRLF, pos, stop) < 0:
            self._refuse_bare_lf(pos, since, stop)
            raise self._fail("start line too long", 414)
        self._refuse_bare_lf(pos, since, min(end, pos + limits.head + 4))
        if end - pos >= limits.head + 4:
            raise self._fail("head too large", 431)

    def _refuse_bare_lf(self, pos: int, since: int, end: int) -> None:
        # RFC 9112 section 2.2 lets a bare LF end a line; two readers who differ on that see two messages.
        data = self._data
        at = data.find(b"\n", since, end)
        while at >= 0:
            if at == pos or data[at - 1] != _CR:
                raise self._fail("bare LF as a line end")
            at = data.find(b"\n", at + 1, end)

    def _check_sizes(self, size: int, lines: list[bytes]) -> None:
        """Raise for a head, or one of its lines (the start line first), that is too long, or for too many lines."""
        limits = self.limits
        if size > limits.head or len(lines[0]) > limits.start_line:
            raise ProtocolError("head too large", 431)  # _refuse_early knows better which
        if size > limits.field_line and max(map(len, lines[1:]), default=0) > limits.field_line:
            raise ProtocolError("field line too long", 431)
        if len(lines) > limits.fields + 1:
            raise ProtocolError("too many field lines", 431)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state.__name__.lstrip('_')}, {self.buffered} bytes buffered>"


_BODY, _END = IncrementalParser._body, IncrementalParser._end
