"""One way of relaying: bytes that stay in the kernel, moved by splice(2) from one socket through a pipe to the other.

A pipe is lent to a direction only for as long as bytes are in it: a thousand idle tunnels hold no pipe at all, and those
that flow freely share one.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from reactor.loop import READ, WRITE
from reactor.stream import Stream

if TYPE_CHECKING:
    from reactor.relay import Relay

PIPE_BYTES = (1024 * 1024, 256 * 1024)  # sizes asked for, the first that is allowed; else the system's own 64 KiB
SPLICE_BYTES = 1024 * 1024  # moved for one direction in one turn, and so the most that waits in a pipe
KEPT_PIPES = 8  # empty pipes kept for the next who needs one, as long as there are relays

CAN_SPLICE = hasattr(os, "splice")
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if CAN_SPLICE else 0
_RESET = struct.pack("ii", 1, 0)
_BUSY = (BlockingIOError, InterruptedError)

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


class Side:
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

    def let_go(self) -> None:
        """A side that is done with keeps nothing alive."""
        del self.relay, self.other


class SpliceSide(Side):
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
            self.relay.end("closed")
            return
        self.watch()
        self.other.watch()

    def _take(self) -> bool:
        """From the socket into an empty pipe; false where that was the end of splicing."""
        relay = self.relay
        pipe = self.pipe = relay.pipes.take()
        if pipe is None:
            relay.copy_instead()
            return False
        try:
            count = os.splice(self._fd, pipe[1], SPLICE_BYTES, flags=_FLAGS)
        except _BUSY:
            self._give_back_pipe()
            return True
        except OSError as error:
            self._give_back_pipe()
            relay.splice_failed(self, error)
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
            relay.splice_failed(self.other, error)
            return False
        relay.active = relay.reactor.now
        if not self.held:
            self._give_back_pipe()
        return True

    def _give_back_pipe(self) -> None:
        pipe, self.pipe = self.pipe, None
        if pipe is not None:
            self.relay.pipes.give_back(pipe)

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
            self.relay.pipes.discard(pipe)
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
