"""Two open streams joined after an upgrade or a CONNECT: bytes both ways, back-pressure, half-close, reset for reset.

    relay      on                                             → relay
    new        start()                                        → copying   (left-over bytes first)
    copying    nothing is queued, and both are plain sockets  → splicing  (bytes stay in the kernel from here on)
    splicing   no pipe to be had                              → copying   (for good)
    copying    both sides ended, a reset, idle, abort()       → closing   (the streams flush, or are reset)
    closing    both streams are lost                          → ended     (`on_end` is called by the loop)
    splicing   both sides ended, a reset, idle, abort()       → ended

A side has *ended* when its end of input was read: then the other's write side is shut down, and bytes the other way go
on. While splicing, a pipe is lent to a direction only for as long as bytes are in it: a thousand idle tunnels hold no
pipe at all, and those that flow freely share one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from reactor.loop import READ, WRITE, Reactor, Timer
from reactor.stream import HIGH_WATER, Stream

PIPE_BYTES = (1024 * 1024, 256 * 1024)  # sizes asked for, the first that is allowed; else the system's own 64 KiB
IDLE = 300.0  # seconds without a byte either way, unless whoever makes a relay says otherwise
SPLICE_BYTES = 1024 * 1024  # moved for one direction in one turn, and so the most that waits in a pipe
KEPT_PIPES = 8  # empty pipes kept for the next who needs one, as long as there are relays

_RESET = struct.pack("ii", 1, 0)
_BUSY = (BlockingIOError, InterruptedError)
_CAN_SPLICE = hasattr(os, "splice")
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if _CAN_SPLICE else 0

Pipe = tuple[int, int]  # (read end, write end)


class Pipes:
    """Empty pipes, lent to relays. `take` and `give_back` or `discard` go together, and so do `enter` and `leave`."""

    def __init__(self) -> None:
        self._free: list[Pipe] = []
        self._users = 0

    def enter(self) -> None:
        self._users += 1

    def leave(self) -> None:
        """The last who leaves closes what is kept."""
        self._users -= 1
        if not self._users:
            while self._free:
                self.discard(self._free.pop())

    def take(self) -> Pipe | None:
        """An empty pipe, or None where this process has no descriptors left."""
        if self._free:
            return self._free.pop()
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        for size in PIPE_BYTES:
            try:
                fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, size)
                break
            except OSError:
                pass  # beyond what this user may have in pipes
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """The pipe must be empty."""
        if len(self._free) < KEPT_PIPES and self._users:
            self._free.append(pipe)
        else:
            self.discard(pipe)

    def discard(self, pipe: Pipe) -> None:
        os.close(pipe[0])
        os.close(pipe[1])


PIPES = Pipes()  # one thread, and a pipe is shared only while it is empty: one stock serves every reactor


class _Side:
    """What both ways of relaying know of one end: where its bytes go, how many it sent, whether it has ended."""

    __slots__ = ("relay", "other", "name", "taken", "ended")

    def __init__(self, relay: Relay, name: str, taken: int, ended: bool) -> None:
        self.relay = relay
        self.other: Any = None  # the same kind of side, set when the two are joined
        self.name = name
        self.taken = taken
        self.ended = ended

    def failed(self, error: Exception) -> None:
        self.relay.abort(f"failed: {error}")


class _CopySide(_Side):
    """One end as the owner of its stream."""

    __slots__ = ("stream", "lost")

    def __init__(self, relay: Relay, name: str, stream: Stream, taken: int = 0, ended: bool = False) -> None:
        super().__init__(relay, name, taken, ended)
        self.stream = stream
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.taken += len(data)
        self.relay._active = self.relay.reactor.now
        target = self.other.stream
        target.write(data)
        if target.backlog >= HIGH_WATER:
            self.stream.pause_reading()

    def eof_received(self) -> None:
        self.ended = True
        self.other.stream.shutdown_write()
        if self.other.ended:
            self.relay._end("closed")

    def resume_writing(self) -> None:
        self.relay._active = self.relay.reactor.now
        self.other.stream.resume_reading()

    def drained(self) -> None:
        self.relay._active = self.relay.reactor.now
        self.other.stream.resume_reading()
        self.relay._splice_if_clear()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self.relay._stream_lost(self, error)

    @property
    def queued(self) -> int:
        """Bytes that wait for this end to take them."""
        return self.stream.backlog

    @property
    def sent(self) -> int:
        return self.stream.sent

    def close(self) -> None:
        self.stream.close()

    def reset(self) -> None:
        self.stream.abort()


class _SpliceSide(_Side):
    """One end as a bare socket, registered with the loop; `held` bytes that it sent wait in `pipe` for the other."""

    __slots__ = ("sock", "pipe", "held", "_fd", "_mask")

    sent = 0  # what this way sends moves the deadline at once

    def __init__(self, relay: Relay, name: str, sock: socket.socket, taken: int, ended: bool) -> None:
        super().__init__(relay, name, taken, ended)
        self.sock = sock
        self.pipe: Pipe | None = None
        self.held = 0
        self._fd = sock.fileno()
        self._mask = 0

    def ready(self, mask: int) -> None:
        # Its own mask is looked at each time: the first move may end the relay, and so may the other end's turn have.
        if mask & self._mask & WRITE:
            self.other.move()
        if mask & self._mask & READ:
            self.move()

    def move(self) -> None:
        """Push what is held; once that is gone, take what came in, one pipe full, and push that."""
        if self.held and not self._push():
            return
        if not self.held and not (self._take() and self._push()):
            return
        if self.ended and self.other.ended:
            self.relay._end("closed")
            return
        self.watch()
        self.other.watch()

    def _take(self) -> bool:
        """From the socket into an empty pipe; false where that was the end of splicing."""
        relay = self.relay
        pipe = self.pipe = relay._pipes.take()
        if pipe is None:
            relay._copy_instead()
            return False
        try:
            count = os.splice(self._fd, pipe[1], SPLICE_BYTES, flags=_FLAGS)
        except _BUSY:
            self._give_back_pipe()
            return True
        except OSError as error:
            self._give_back_pipe()
            relay._splice_failed(self, error)
            return False
        if count:
            self.held = count
            self.taken += count
            return True
        self._give_back_pipe()
        self.ended = True
        if relay.state == "splicing":  # once the socket has failed, its end is a cut, and must not look like an end
            self.other.shutdown_write()
        return True

    def _push(self) -> bool:
        """From the pipe into the other socket; false where that was the end of splicing."""
        pipe = self.pipe
        if pipe is None:
            return True
        relay = self.relay
        try:
            self.held -= os.splice(pipe[0], self.other._fd, self.held, flags=_FLAGS)
        except _BUSY:
            return True
        except OSError as error:
            relay._splice_failed(self.other, error)
            return False
        relay._active = relay.reactor.now
        if not self.held:
            self._give_back_pipe()
        return True

    def _give_back_pipe(self) -> None:
        pipe, self.pipe = self.pipe, None
        if pipe is not None:
            self.relay._pipes.give_back(pipe)

    def shutdown_write(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # not connected any more: the next read tells

    def watch(self) -> None:
        """Wait for what can be used: input while nothing is held, room while the other holds something."""
        mask = 0 if self.held or self.ended else READ
        if self.other.held:
            mask |= WRITE
        if mask != self._mask:
            self._set_mask(mask)

    def _set_mask(self, mask: int) -> None:
        # A selector refuses an empty mask: such a socket is not watched at all.
        reactor = self.relay.reactor
        if not mask:
            reactor.unregister(self.sock)
        elif not self._mask:
            reactor.register(self.sock, mask, self)
        else:
            reactor.modify(self.sock, mask, self)
        self._mask = mask

    @property
    def queued(self) -> int:
        """Bytes that wait for this end to take them."""
        return int(self.other.held)

    def release(self) -> tuple[socket.socket, bytes]:
        """The socket, unwatched, and what was held."""
        if self._mask:
            self._set_mask(0)
        pieces = []
        while self.held and self.pipe is not None:
            piece = os.read(self.pipe[0], self.held)
            self.held -= len(piece)
            pieces.append(piece)
        self._drop_pipe()
        return self.sock, b"".join(pieces)

    def _drop_pipe(self) -> None:
        pipe, self.pipe = self.pipe, None
        if pipe is not None:
            self.relay._pipes.discard(pipe)
        self.held = 0

    def close(self) -> None:
        self._drop_pipe()
        if self._mask:
            self._set_mask(0)
        if self.ended:
            self.sock.close()
        else:
            # What it may still send would be answered by a reset, which can destroy what it has not read yet.
            Stream(self.relay.reactor, None, self.sock).close()

    def reset(self) -> None:
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass  # already disconnected
        self.ended = True
        self.close()


class Relay:
    """Joins two open streams and owns them from `start` on; a stream is a `Stream` or anything with its contract.

    After `idle_timeout` seconds without a byte either way both are closed. `on_end(relay)` is called once, by the loop,
    with the `reason`: "closed" (both ended), "idle", "reset by left", another failure, or what `abort` was told.
    `names` are what the two ends are called there. Only Stream itself is spliced, through `pipes`.
    """

    __slots__ = (
        "reactor", "idle_timeout", "reason", "state", "_on_end", "_left", "_right", "_active", "_sent", "_timer", "_pipes",
        "_may_splice",
    )  # fmt: skip

    def __init__(
        self,
        reactor: Reactor,
        left: Stream,
        right: Stream,
        idle_timeout: float,
        on_end: Callable[[Relay], object],
        names: tuple[str, str] = ("left", "right"),
        pipes: Pipes = PIPES,
    ) -> None:
        self.reactor = reactor
        self.idle_timeout = idle_timeout
        self.reason = ""
        self.state = "new"
        self._on_end = on_end
        self._left: _CopySide | _SpliceSide
        self._right: _CopySide | _SpliceSide
        self._join(_CopySide(self, names[0], left), _CopySide(self, names[1], right))
        self._active = reactor.now
        self._sent = 0
        self._timer: Timer | None = None
        self._pipes = pipes
        self._may_splice = _CAN_SPLICE and type(left) is Stream and type(right) is Stream

    @property
    def bytes_left_to_right(self) -> int:
        """Bytes that left has sent, those left over included."""
        return self._left.taken

    @property
    def bytes_right_to_left(self) -> int:
        return self._right.taken

    def start(self, from_left: bytes = b"", from_right: bytes = b"") -> None:
        """Begin, with the bytes that were read from either side before it became part of a relay."""
        left, right = self._left, self._right
        assert isinstance(left, _CopySide) and isinstance(right, _CopySide)
        self.state = "copying"
        self._active = self.reactor.now
        self._timer = self.reactor.call_later(self.idle_timeout, self._check_idle)
        left.stream.owner, right.stream.owner = left, right
        for side, data in ((left, from_left), (right, from_right)):
            side.stream.uncork()
            side.stream.resume_reading()
            if data:
                side.data_received(data)
        for side in (left, right):
            if side.stream.state == "closed":
                self.reactor.call_soon(side.connection_lost, None)
            elif side.stream.at_eof and self.state == "copying":
                side.eof_received()
        self._splice_if_clear()

    def abort(self, reason: str = "aborted") -> None:
        """Reset both sides; `on_end` follows."""
        if self.state == "new":
            self.start()
        self._end(reason, reset=True)

    def _join(self, left: _CopySide | _SpliceSide, right: _CopySide | _SpliceSide) -> None:
        left.other, right.other = right, left
        self._left, self._right = left, right

    # From one way of relaying to the other.

    def _splice_if_clear(self) -> None:
        left, right = self._left, self._right
        if not self._may_splice or self.state != "copying" or left.queued or right.queued:
            return
        assert isinstance(left, _CopySide) and isinstance(right, _CopySide)
        if left.stream.state != "open" or right.stream.state != "open":
            return
        self.state = "splicing"
        self._pipes.enter()
        ends = [_SpliceSide(self, side.name, side.stream.release(), side.taken, side.ended) for side in (left, right)]
        self._join(*ends)
        _let_go(left)
        _let_go(right)
        for end in ends:
            end.watch()

    def _copy_instead(self) -> None:
        """Take what the pipes hold into this process, and go on with streams."""
        if self.state != "splicing":
            return
        self.state = "copying"
        self._may_splice = False
        old = (self._left, self._right)
        released = [side.release() for side in old if isinstance(side, _SpliceSide)]
        self._pipes.leave()
        ends = []
        for side, (sock, _) in zip(old, released, strict=True):
            ends.append(_CopySide(self, side.name, Stream(self.reactor, None, sock), side.taken, side.ended))
            _let_go(side)
        self._join(*ends)
        for end, (_, held) in zip(ends, released, strict=True):
            end.stream.owner = end
            if held:
                end.taken -= len(held)  # counted when it was spliced
                end.data_received(held)

    # The end.

    def _stream_lost(self, side: _CopySide, error: Exception | None) -> None:
        if self.state == "copying":
            self.state = "closing"
            self.reason = _why(side.name, error)
            if side.ended:  # all it had to say was read, and is delivered whole
                side.other.close()
            else:
                side.other.reset()
        if side.other.lost:
            self._finish()

    def _splice_failed(self, side: _SpliceSide, error: OSError) -> None:
        """The socket of `side` could not be read, or took nothing more."""
        if self.state != "splicing":
            return
        if error.errno == errno.EINVAL:  # a socket that cannot be spliced
            self._copy_instead()
            return
        self.state = "closing"
        whole = side.ended
        if not whole and not side.held and side._take():
            side._push()  # what it said before it went, as far as that goes
        self._end(_why(side.name, error), reset=not whole)

    def _check_idle(self) -> None:
        now = self.reactor.now
        left, right = self._left, self._right
        queued = left.queued or right.queued
        sent = left.sent + right.sent
        if queued and sent != self._sent:
            self._active = now  # nothing new came, but a slow reader is at work on what is queued
        self._sent = sent
        due = self._active + self.idle_timeout
        if due > now:
            self._timer = self.reactor.call_later(due - now, self._check_idle)
            return
        self._timer = self.reactor.call_later(self.idle_timeout, self._check_idle)
        self._end("idle", reset=bool(queued) or self.state == "closing")

    def _end(self, reason: str, reset: bool = False) -> None:
        """Close or reset both; the first reason stays."""
        if self.state == "ended":
            return
        self.state = "closing"
        self.reason = self.reason or reason
        for side in (self._left, self._right):
            if reset:
                side.reset()
            else:
                side.close()
        if isinstance(self._left, _SpliceSide):
            self._pipes.leave()
            self._finish()

    def _finish(self) -> None:
        self.state = "ended"
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        _let_go(self._left)
        _let_go(self._right)
        self.reactor.call_soon(self._on_end, self)

    def __repr__(self) -> str:
        counts = f"{self.bytes_left_to_right} → {self.bytes_right_to_left} ←"
        return f"<Relay {self.state} {counts}{' ' + self.reason if self.reason else ''}>"


def _let_go(side: _Side) -> None:
    """A side that is done with keeps nothing alive."""
    del side.relay, side.other


def _why(name: str, error: Exception | None) -> str:
    if error is None:
        return f"closed by {name}"
    if isinstance(error, ConnectionError):
        return f"reset by {name}"
    return f"{name}: {getattr(error, 'strerror', None) or error}"
