"""Two open streams joined after an upgrade or a CONNECT: bytes both ways, back-pressure, half-close, reset for reset.

    relay      on                                             → relay
    new        start()                                        → copying   (left-over bytes first)
    copying    nothing is queued, and both are plain sockets  → splicing  (bytes stay in the kernel from here on)
    splicing   no pipe to be had                              → copying   (for good)
    copying    both sides ended, a reset, idle, abort()       → closing   (the streams flush, or are reset)
    closing    both streams are lost                          → ended     (`on_end` is called by the loop)
    splicing   both sides ended, a reset, idle, abort()       → ended

A side has *ended* when its end of input was read: then the other's write side is shut down, and bytes the other way go on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from reactor.loop import Reactor, Timer
from reactor.splicing import CAN_SPLICE, PIPES, Pipes, Side, SpliceSide
from reactor.stream import HIGH_WATER, Stream

IDLE = 300.0  # seconds without a byte either way, unless whoever makes a relay says otherwise


class _CopySide(Side):
    """One end as the owner of its stream."""

    __slots__ = ("stream", "lost")

    def __init__(self, relay: Relay, name: str, stream: Stream, taken: int = 0, ended: bool = False) -> None:
        super().__init__(relay, name, taken, ended)
        self.stream = stream
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.taken += len(data)
        self.relay.active = self.relay.reactor.now
        target = self.other.stream
        target.write(data)
        if target.backlog >= HIGH_WATER:
            self.stream.pause_reading()

    def eof_received(self) -> None:
        self.ended = True
        self.other.stream.shutdown_write()
        if self.other.ended:
            self.relay.end("closed")

    def resume_writing(self) -> None:
        self.relay.active = self.relay.reactor.now
        self.other.stream.resume_reading()

    def drained(self) -> None:
        self.relay.active = self.relay.reactor.now
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


class Relay:
    """Joins two open streams and owns them from `start` on; a stream is a `Stream` or anything with its contract.

    After `idle_timeout` seconds without a byte either way both are closed. `on_end(relay)` is called once, by the loop,
    with the `reason`: "closed" (both ended), "idle", "reset by left", another failure, or what `abort` was told.
    `names` are what the two ends are called there. Only Stream itself is spliced, through `pipes`.
    """

    __slots__ = (
        "reactor", "idle_timeout", "reason", "state", "_on_end", "_left", "_right", "active", "_sent", "_timer", "pipes",
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
        self._left: _CopySide | SpliceSide
        self._right: _CopySide | SpliceSide
        self._join(_CopySide(self, names[0], left), _CopySide(self, names[1], right))
        self.active = reactor.now
        self._sent = 0
        self._timer: Timer | None = None
        self.pipes = pipes
        self._may_splice = CAN_SPLICE and type(left) is Stream and type(right) is Stream

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
        self.active = self.reactor.now
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
        self.end(reason, reset=True)

    def _join(self, left: _CopySide | SpliceSide, right: _CopySide | SpliceSide) -> None:
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
        self.pipes.enter()
        ends = [SpliceSide(self, side.name, side.stream.release(), side.taken, side.ended) for side in (left, right)]
        self._join(*ends)
        left.let_go()
        right.let_go()
        for end in ends:
            end.watch()

    def copy_instead(self) -> None:
        """Take what the pipes hold into this process, and go on with streams."""
        if self.state != "splicing":
            return
        self.state = "copying"
        self._may_splice = False
        old = (self._left, self._right)
        released = [side.release() for side in old if isinstance(side, SpliceSide)]
        self.pipes.leave()
        ends = []
        for side, (sock, _) in zip(old, released, strict=True):
            ends.append(_CopySide(self, side.name, Stream(self.reactor, None, sock), side.taken, side.ended))
            side.let_go()
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

    def splice_failed(self, side: SpliceSide, error: OSError) -> None:
        """The socket of `side` could not be read, or took nothing more."""
        if self.state != "splicing":
            return
        if error.errno == errno.EINVAL:  # a socket that cannot be spliced
            self.copy_instead()
            return
        self.state = "closing"
        whole = side.ended
        if not whole and not side.held and side._take():
            side._push()  # what it said before it went, as far as that goes
        self.end(_why(side.name, error), reset=not whole)

    def _check_idle(self) -> None:
        now = self.reactor.now
        left, right = self._left, self._right
        queued = left.queued or right.queued
        sent = left.sent + right.sent
        if queued and sent != self._sent:
            self.active = now  # nothing new came, but a slow reader is at work on what is queued
        self._sent = sent
        due = self.active + self.idle_timeout
        if due > now:
            self._timer = self.reactor.call_later(due - now, self._check_idle)
            return
        self._timer = self.reactor.call_later(self.idle_timeout, self._check_idle)
        self.end("idle", reset=bool(queued) or self.state == "closing")

    def end(self, reason: str, reset: bool = False) -> None:
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
        if isinstance(self._left, SpliceSide):
            self.pipes.leave()
            self._finish()

    def _finish(self) -> None:
        self.state = "ended"
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._left.let_go()
        self._right.let_go()
        self.reactor.call_soon(self._on_end, self)

    def __repr__(self) -> str:
        counts = f"{self.bytes_left_to_right} → {self.bytes_right_to_left} ←"
        return f"<Relay {self.state} {counts}{' ' + self.reason if self.reason else ''}>"


def _why(name: str, error: Exception | None) -> str:
    if error is None:
        return f"closed by {name}"
    if isinstance(error, ConnectionError):
        return f"reset by {name}"
    return f"{name}: {getattr(error, 'strerror', None) or error}"
