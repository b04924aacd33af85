"""What a command writes to standard output, on the loop: a slow reader holds up what is read for it, and nothing else."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections import deque
from typing import Any, Protocol

from reactor.loop import WRITE, Reactor


class OutputOwner(Protocol):
    """What an Output calls, always from the loop."""

    def output_drained(self) -> None: ...
    def output_failed(self, error: OSError) -> None: ...
    def failed(self, error: Exception) -> None: ...


class Output:
    """Writes to a raw file; `backlog` counts bytes that a pipe, a socket or a terminal has not taken yet.

    The file stays in blocking mode, since that belongs to everybody who has it open. It is asked whether there is room, and
    is then given no more than PIPE_BUF bytes, for which it does not make us wait (pipe(7), poll(2)). What cannot be polled,
    such as a file on disk, is written at once.
    """

    def __init__(self, reactor: Reactor, file: Any, owner: OutputOwner) -> None:
        self.reactor = reactor
        self.backlog = 0
        self._file = file
        self._owner = owner
        self._queue: deque[memoryview] = deque()
        self._watched = False
        self._room: select.poll | None = None
        if _can_be_polled(file):
            self._room = select.poll()
            self._room.register(file, select.POLLOUT)

    def write(self, data: bytes | memoryview) -> None:
        """Write, or queue what there is no room for: then `output_drained` tells when all of it is written. Raises OSError."""
        if self._room is None:
            write_all(self._file, data)
        elif len(data):
            self._queue.append(memoryview(data))
            self.backlog += len(data)
            if not self._watched:
                self._push(self._room)

    def _push(self, room: select.poll) -> None:
        """Raises OSError, and nothing is left to be written then."""
        queue = self._queue
        try:
            while queue and room.poll(0):
                written = os.write(self._file.fileno(), queue[0][: select.PIPE_BUF])
                self.backlog -= written
                if written < len(queue[0]):
                    queue[0] = queue[0][written:]
                else:
                    queue.popleft()
        except BlockingIOError:
            pass  # somebody made it non-blocking, or was quicker than we
        except OSError:
            self.drop()
            raise
        self._watch(bool(queue))

    def _watch(self, wanted: bool) -> None:
        if wanted and not self._watched:
            self.reactor.register(self._file, WRITE, self)
        elif self._watched and not wanted:
            self.reactor.unregister(self._file)
        self._watched = wanted

    def ready(self, mask: int) -> None:
        assert self._room is not None
        try:
            self._push(self._room)
        except OSError as error:
            self._owner.output_failed(error)
            return
        if not self._queue:
            self._owner.output_drained()

    def failed(self, error: Exception) -> None:
        self._owner.failed(error)

    def drop(self) -> None:
        """Forget what is not written yet."""
        self._queue.clear()
        self.backlog = 0
        self._watch(False)


def _can_be_polled(file: Any) -> bool:
    try:
        mode = os.fstat(file.fileno()).st_mode
    except OSError:  # no file of the system's
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or file.isatty()


def write_all(file: Any, data: bytes | memoryview) -> None:
    """Write to a raw file, however long it takes. Raises OSError."""
    view = memoryview(data)
    while len(view):
        written = file.write(view)
        if written is None:  # somebody made it non-blocking
            select.select([], [file], [])
        else:
            view = view[written:]


def why_unwritable(error: OSError) -> str:
    """Nothing where the reader has left, which is its right."""
    return "" if error.errno == errno.EPIPE else f"cannot write: {error.strerror}"
