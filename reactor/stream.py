"""One non-blocking socket: written at once and queued only where the kernel is full, read as the loop says.

    state        on                          → state (and what happens)
    connecting   start(sock)                 → open        (what was queued is sent)
    open         end of input                → open        (eof_received once; writing goes on)
    open         close()                     → flushing    or, with nothing queued, lingering
    flushing     all sent                    → lingering   (write side shut down)
    lingering    end of input, or the bounds → closed      (connection_lost(None))
    open, …      a write fails               → broken      (nothing more is written; what the peer sent is still read)
    any          a read fails, abort()       → closed      (connection_lost(error), connection_lost(None))

Nobody is called back from inside a call of theirs: `write` that fails tells by `call_soon`, an `uncork` or `write` that
empties the queue tells by its return, and only what the loop did is told through the owner.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import termios
from collections import deque
from collections.abc import Callable
from typing import Protocol

from reactor.errors import BodyCutShort
from reactor.loop import READ, WRITE, Reactor, Timer

HIGH_WATER = 128 * 1024  # bytes in the backlog at which whoever writes should stop
LOW_WATER = 32 * 1024  # bytes at which `resume_writing` is called
FIRST_READ = 16 * 1024  # bytes asked of recv; a read that fills it asks for LARGE_READ from then on
LARGE_READ = 128 * 1024
GATHER = 64  # buffers in one sendmsg, well under IOV_MAX
TURN_BYTES = 4 * 1024 * 1024  # sent for one stream in one turn before the others get theirs
LINGER_SECONDS = 2.0  # RFC 9112 section 9.6: how long a closed stream goes on reading, so that no reset
LINGER_BYTES = 256 * 1024  # destroys what the peer has not read yet; then it is closed all the same

_RESET = struct.pack("ii", 1, 0)
_BUSY = (BlockingIOError, InterruptedError)


class StreamOwner(Protocol):
    """What a stream calls, always from the loop. `connection_lost` is the last call, made exactly once."""

    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> None: ...
    def resume_writing(self) -> None: ...
    def drained(self) -> None: ...
    def connection_lost(self, error: Exception | None) -> None: ...
    def failed(self, error: Exception) -> None: ...


class _FileRange:
    __slots__ = ("fd", "offset", "count", "_intact", "_begun")

    def __init__(self, fd: int, offset: int, count: int, intact: Callable[[], bool] | None, begun: bool = False) -> None:
        self.fd = fd
        self.offset = offset
        self.count = count
        self._intact = intact
        self._begun = begun  # some of it was sent

    def check(self, most: int) -> None:
        """Before up to `most` bytes are sent: not the last of a file that has changed since the first were. Raises BodyCutShort."""
        if self._begun and self.count <= most and self._intact is not None and not self._intact():
            raise BodyCutShort("the file changed while it was sent")
        self._begun = True


class Stream:
    """A byte stream over a socket; `owner` may be changed while it is open.

    `sent` and `received` count bytes that went to and came from the kernel; `backlog` those queued in between.
    `reading` is false while reading is paused, `at_eof` true once the peer has shut down its sending side.
    """

    __slots__ = (
        "reactor", "sock", "owner", "state", "backlog", "sent", "received", "_queue", "_mask", "_corked", "_above_high",
        "reading", "at_eof", "_shut", "_read_size", "_timer", "_linger_left",
    )  # fmt: skip

    def __init__(self, reactor: Reactor, owner: StreamOwner | None, sock: socket.socket | None = None) -> None:
        self.reactor = reactor
        self.owner = owner
        self.sock: socket.socket | None = None
        self.state = "connecting"
        self.backlog = 0
        self.sent = 0
        self.received = 0
        self._queue: deque[bytes | memoryview | _FileRange] | None = None
        self._mask = 0
        self._corked = False
        self._above_high = False
        self.reading = True
        self.at_eof = False
        self._shut = False  # shutdown_write was called: the write side ends once the queue is empty
        self._read_size = FIRST_READ
        self._timer: Timer | None = None
        self._linger_left = LINGER_BYTES
        if sock is not None:
            self.start(sock)

    def start(self, sock: socket.socket) -> None:
        """Take a connected, non-blocking socket; what was written before is sent now."""
        if self.state != "connecting":  # aborted meanwhile
            sock.close()
            return
        self.sock = sock
        self.state = "open"
        self._update_mask()
        if self._queue is None:
            if self._shut:
                self._shutdown_socket()
        elif not self._corked:
            self._push()
            self.reactor.call_soon(self._tell_progress)

    # Writing.

    def write(self, data: bytes | memoryview) -> None:
        """Send, or queue what the kernel does not take. Never calls back; dropped where the stream is going down."""
        if self._queue is None and self.state == "open" and not self._corked:
            try:
                sent = self.sock.send(data)  # type: ignore[union-attr]
            except _BUSY:
                sent = 0
            except OSError as error:
                if not self._shut:  # after shutdown_write this says nothing about the peer
                    self._write_failed(error)
                return
            self.sent += sent
            if sent == len(data):
                return
            self._enqueue(memoryview(data)[sent:], len(data) - sent)
            self._update_mask()
        elif len(data) and not self._shut:
            self._enqueue(data, len(data))

    def write_parts(self, parts: list[bytes | memoryview]) -> None:
        """Send several buffers with one call and without joining them."""
        if self._queue is None and self.state == "open" and not self._corked and not self._shut and len(parts) <= GATHER:
            try:
                sent = self.sock.sendmsg(parts)  # type: ignore[union-attr]
            except _BUSY:
                sent = 0
            except OSError as error:
                self._write_failed(error)
                return
            self.sent += sent
            for part in parts:
                size = len(part)
                if sent < size:
                    self._enqueue(memoryview(part)[sent:], size - sent)
                sent = max(0, sent - size)
            if self._queue is not None:
                self._update_mask()
            return
        was_corked, self._corked = self._corked, True
        for part in parts:
            self.write(part)
        self._corked = was_corked
        if not was_corked:
            self._flush_now()

    def send_file(self, fd: int, offset: int, count: int, intact: Callable[[], bool] | None = None) -> None:
        """Send `count` bytes of a file by sendfile(2); the descriptor must stay open until `drained`.

        A file that turns out shorter, or that is not `intact` before its last bytes, breaks the stream with a reset, so that
        nobody takes it for whole.
        """
        if count and not self._shut:
            self._enqueue(_FileRange(fd, offset, count, intact), count)
            self._flush_now()

    def send_with_file(self, head: bytes, fd: int, offset: int, count: int, intact: Callable[[], bool] | None = None) -> None:
        """`write` and `send_file` as one: the head leaves in front of the file's first bytes."""
        if self._queue is None and self.state == "open" and not self._corked and not self._shut and count:
            sock, sent, moved = self.sock, 0, 0
            try:
                sent = sock.send(head, socket.MSG_MORE)  # type: ignore[union-attr]
                if sent == len(head):
                    moved = os.sendfile(sock.fileno(), fd, offset, min(count, TURN_BYTES))  # type: ignore[union-attr]
            except OSError:
                pass  # what is wrong shows again below
            self.sent += sent + moved
            if moved == count:
                return
            if sent < len(head):
                self._enqueue(memoryview(head)[sent:], len(head) - sent)
            self._enqueue(_FileRange(fd, offset + moved, count - moved, intact, moved > 0), count - moved)
            if moved:  # the turn's share is used up, or the kernel is full
                self._update_mask()
            else:
                self._push()
        else:
            was_corked, self._corked = self._corked, True
            self.write(head)
            self.send_file(fd, offset, count, intact)
            self._corked = was_corked
            self._flush_now()

    def cork(self) -> None:
        """Hold back writes until `uncork`, or until the high mark, so that they leave together."""
        self._corked = True

    def uncork(self) -> None:
        self._corked = False
        self._flush_now()

    def taken(self) -> int:
        """Bytes that have reached the peer's kernel: those sent, less what waits in ours (SIOCOUTQ, tcp(7))."""
        if self.sock is None or self.state == "closed":
            return self.sent
        waiting = int.from_bytes(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return max(0, self.sent - waiting)

    def _flush_now(self) -> None:
        if self._queue and not self._corked and not self._mask & WRITE and self.state == "open":
            self._push()

    def _enqueue(self, item: bytes | memoryview | _FileRange, size: int) -> None:
        if self.state not in ("open", "connecting"):
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append(item)
        self.backlog += size
        if self.backlog >= HIGH_WATER:
            self._above_high = True
            if self._corked and self.state == "open" and not self._mask & WRITE:
                self._push()

    def _push(self) -> None:
        """Send from the queue until it is empty, the kernel is full or the turn's share is used up."""
        queue, sock = self._queue, self.sock
        assert sock is not None
        budget = TURN_BYTES
        try:
            while queue and budget > 0:
                first = queue[0]
                sent = self._send_file_range(first) if type(first) is _FileRange else self._send_buffers()
                self.sent += sent
                self.backlog -= sent
                budget -= sent
        except _BUSY:
            pass
        except (OSError, BodyCutShort) as error:
            self._write_failed(error)
            return
        if not queue:
            self._queue = None
            self._above_high = False
            if self._shut:
                self._shutdown_socket()
        self._update_mask()

    def _send_file_range(self, item: _FileRange) -> int:
        item.check(TURN_BYTES)
        sent = os.sendfile(self.sock.fileno(), item.fd, item.offset, min(item.count, TURN_BYTES))  # type: ignore[union-attr]
        if sent == 0:
            raise BodyCutShort("the file became shorter while it was sent")
        item.offset += sent
        item.count -= sent
        if not item.count:
            self._queue.popleft()  # type: ignore[union-attr]
        return sent

    def _send_buffers(self) -> int:
        queue = self._queue
        assert queue is not None and self.sock is not None
        buffers: list[bytes | memoryview] = []
        flags = 0
        for item in queue:
            if type(item) is _FileRange:
                flags = socket.MSG_MORE  # the head waits for the file's first bytes
                break
            buffers.append(item)  # type: ignore[arg-type]
            if len(buffers) == GATHER:
                break
        sent = left = self.sock.sendmsg(buffers, (), flags)
        for buffer in buffers:
            if left < len(buffer):
                queue[0] = memoryview(buffer)[left:]
                break
            left -= len(buffer)
            queue.popleft()
        return sent

    def _write_failed(self, error: Exception) -> None:
        self._drop_queue()
        self._set_mask(0)
        if self.state in ("flushing", "lingering"):
            self.state = "broken"
            self.reactor.call_soon(self._close_socket, error)
            return
        self.state = "broken"
        if isinstance(error, BodyCutShort):
            self._reset_on_close()
            self.reactor.call_soon(self._close_socket, error)
        else:
            self.reactor.call_soon(self._read_rest, error)

    def _read_rest(self, error: Exception) -> None:
        """The peer took no more, but may have said why: read what it sent before giving up."""
        while self._linger_left > 0 and self.state == "broken" and self.sock is not None and not self.at_eof:
            try:
                data = self.sock.recv(FIRST_READ)
            except OSError:
                break
            if not data:
                break
            self._linger_left -= len(data)
            self.received += len(data)
            if self.owner is not None:
                try:
                    self.owner.data_received(data)
                except Exception:
                    self.abort()  # the loop logs what was raised, and tells the owner
                    raise
        if self.state == "broken":
            self._close_socket(error)

    def _drop_queue(self) -> None:
        self._queue = None
        self.backlog = 0

    # Reading.

    def pause_reading(self) -> None:
        """Leave what arrives in the kernel, so that the peer feels it."""
        if self.reading:
            self.reading = False
            self._read_size = LARGE_READ  # for what has come by the time that it is resumed; see `unread`
            self._update_mask()

    def resume_reading(self) -> None:
        if not self.reading:
            self.reading = True
            self._update_mask()

    def unread(self) -> bool:
        """Whether bytes wait that no read has shown; the kernel is asked only where the last read may have left some."""
        if self._read_size == FIRST_READ:
            return False
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))  # type: ignore[union-attr]
        except OSError:
            return False

    def ready(self, mask: int) -> None:
        if mask != READ and self._queue is not None and mask & WRITE:
            self._push()
            self._tell_progress()
        if not mask & READ or not self._mask & READ:
            return
        try:
            data = self.sock.recv(self._read_size)  # type: ignore[union-attr]
        except _BUSY:
            return
        except OSError as error:
            self._close_socket(error if self.state != "lingering" else None)
            return
        if self.state != "open":
            self._discard(len(data))
        elif data:
            size = len(data)
            self.received += size
            if size < FIRST_READ:
                self._read_size = FIRST_READ
            elif size == self._read_size:
                self._read_size = LARGE_READ
            self.owner.data_received(data)  # type: ignore[union-attr]
        else:
            self.at_eof = True
            self._update_mask()
            self.owner.eof_received()  # type: ignore[union-attr]

    def _tell_progress(self) -> None:
        owner = self.owner
        if self.state == "flushing":
            if self._queue is None:
                self._linger()
                if owner is not None:
                    owner.drained()
            return
        if owner is None or self.state != "open":
            return
        if self._queue is None:
            owner.drained()
        elif self._above_high and self.backlog <= LOW_WATER:
            self._above_high = False
            owner.resume_writing()

    def _discard(self, size: int) -> None:
        self._linger_left -= size
        if not size:
            self.at_eof = True
            self._update_mask()
        if self.state == "lingering" and (not size or self._linger_left <= 0):
            self._close_socket(None)

    # The end.

    def shutdown_write(self) -> None:
        """End the write side once everything queued is sent; reading goes on."""
        if not self._shut and self.state in ("open", "connecting"):
            self._shut = True
            if self._queue is None and self.state == "open":
                self._shutdown_socket()

    def _shutdown_socket(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)  # type: ignore[union-attr]
        except OSError:
            pass  # not connected any more: the next read tells

    def close(self) -> None:
        """Flush, shut down writing, read on within LINGER_SECONDS and LINGER_BYTES, close; `connection_lost(None)` follows."""
        if self.state == "connecting":
            self.abort()
        elif self.state == "open":
            self._corked = False
            self.reading = True
            self._flush_now()
            if self.state != "open":
                return
            self.state = "flushing"
            if self._queue is None:
                self._linger()
            else:
                self._update_mask()  # a peer that waits with reading until it has sent all must get that done

    def _linger(self) -> None:
        self.state = "lingering"
        self._shut = True
        self._shutdown_socket()
        if self.at_eof:
            self.reactor.call_soon(self._close_socket, None)
            return
        self._update_mask()
        self._timer = self.reactor.call_later(LINGER_SECONDS, self._close_socket, None)

    def abort(self) -> None:
        """Drop everything and reset the connection; `connection_lost(None)` follows."""
        if self.state != "closed":
            self._reset_on_close()
            self._drop_queue()
            self.state = "broken"
            self._linger_left = 0  # nothing more is read either
            self.reactor.call_soon(self._close_socket, None)

    def _reset_on_close(self) -> None:
        if self.sock is not None:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except OSError:
                pass  # already disconnected
            self._set_mask(0)

    def failed(self, error: Exception) -> None:
        """An exception in a callback (already logged): the owner says what is left to say, or the stream is reset."""
        if self.owner is not None:
            self.owner.failed(error)
        else:
            self.abort()

    def _close_socket(self, error: Exception | None) -> None:
        if self.state == "closed":
            return
        self.state = "closed"
        self._drop_queue()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.sock is not None:
            self._set_mask(0)
            self.sock.close()
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.connection_lost(error)

    def release(self) -> socket.socket:
        """Give the socket away, unwatched; only with an empty backlog. The stream is closed and its owner not told."""
        assert self.sock is not None and self._queue is None
        self._set_mask(0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.state = "closed"
        self.owner = None
        return self.sock

    # Interest.

    def _update_mask(self) -> None:
        mask = 0
        if self.state != "closed" and not self.at_eof and (self.reading or self.state != "open"):
            mask = READ
        if self._queue is not None and self.state in ("open", "flushing"):
            mask |= WRITE
        self._set_mask(mask)

    def _set_mask(self, mask: int) -> None:
        before = self._mask
        if mask == before or self.sock is None:
            return
        # A selector refuses an empty mask: such a socket is not watched at all.
        if not mask:
            self.reactor.unregister(self.sock)
        elif not before:
            self.reactor.register(self.sock, mask, self)
        else:
            self.reactor.modify(self.sock, mask, self)
        self._mask = mask

    def __repr__(self) -> str:
        fd = self.sock.fileno() if self.sock is not None else -1
        return f"<Stream fd={fd} {self.state}{' eof' if self.at_eof else ''} backlog={self.backlog}>"
