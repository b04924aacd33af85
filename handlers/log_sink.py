"""Where the lines of a log go: a file, a FIFO or standard output, that may be full, slow or moved away."""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
import time

from reactor.errors import ConfigError
from reactor.loop import WRITE, Reactor, Timer

log = logging.getLogger("handlers.access_log")

FLUSH_SECONDS = 1.0  # a line waits at most this long
FLUSH_BYTES = 64 * 1024  # lines that wait: written at once
BACKLOG_BYTES = 1024 * 1024  # lines that wait for a pipe whose reader is slow: the newest are lost
CLOSE_SECONDS = 1.0  # how long `close` waits for such a reader


class Sink:
    """Where lines go: a file, a FIFO, or standard output (`-`). Nothing here ever costs a request.

    Lines are kept until FLUSH_BYTES or FLUSH_SECONDS. What cannot be written (a full disk, a closed pipe, a reader too
    slow by BACKLOG_BYTES) is counted in `lost`, with one warning when that begins and one when it ends. A line that the
    disk took in part is ended there, so that the next one stands alone.
    """

    def __init__(self, path: str, reactor: Reactor) -> None:
        """Raises ConfigError where `path` cannot be opened for writing."""
        self.path = path
        self.lost = 0  # lines
        self._reactor = reactor
        self._lines: list[bytes] = []
        self._size = 0
        self._limit = FLUSH_BYTES
        self._mid_line = False  # what was written last is no whole line
        self._torn = False  # … and its rest is lost
        self._losing = 0  # lines lost since the last warning
        self._timer: Timer | None = None
        self._waiting = False  # registered: the pipe is full
        self._fd = _open(path)
        self._room = _poll_for_room(self._fd)

    def write(self, line: bytes) -> None:
        """Take one line, its newline included."""
        self._lines.append(line)
        self._size += len(line)
        if self._size >= self._limit:
            self._full()
        elif self._timer is None:
            self._timer = self._reactor.call_later(FLUSH_SECONDS, self._flush_due)

    def _full(self) -> None:
        if self._waiting:
            self._size -= len(self._lines.pop())
            self._lose(1, "the reader is too slow")
        else:
            self.flush()

    def _flush_due(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Write what there is, as far as that is possible at once."""
        if not self._lines:
            return
        whole = b"".join(self._lines)
        if self._torn:
            whole = b"\n" + whole
            self._torn = False
        written, error = self._write_out(whole)
        if written:
            self._mid_line = whole[written - 1] != 10
        rest = whole[written:]
        if error is not None:
            self._torn = self._mid_line
            self._lose(_lines_in(rest), error)
            rest = b""
        elif not rest and self._losing:
            log.warning("access log %s: written again; %d lines were lost", self.path, self._losing)
            self._losing = 0
        self._keep(rest)

    def _write_out(self, whole: bytes) -> tuple[int, str | None]:
        """(bytes written, why no more can be)."""
        view, written = memoryview(whole), 0
        try:
            while written < len(whole):
                if self._room is None:
                    written += os.write(self._fd, view[written:])
                elif self._room.poll(0):
                    written += os.write(self._fd, view[written : written + select.PIPE_BUF])
                else:
                    break
        except BlockingIOError:
            pass
        except OSError as error:
            return written, error.strerror
        return written, None

    def _keep(self, rest: bytes) -> None:
        """What a full pipe did not take waits until it has room."""
        self._lines = [rest] if rest else []
        self._size = len(rest)
        if rest and not self._waiting:
            self._reactor.register(self, WRITE, self)  # type: ignore[arg-type]
            self._waiting, self._limit = True, BACKLOG_BYTES
        elif not rest and self._waiting:
            self._reactor.unregister(self)  # type: ignore[arg-type]
            self._waiting, self._limit = False, FLUSH_BYTES

    def _lose(self, count: int, why: str) -> None:
        if count and not self._losing:
            log.warning("access log %s: %s; lines are lost", self.path, why)
        self.lost += count
        self._losing += count

    # What the loop calls while a pipe is full.

    def fileno(self) -> int:
        return self._fd

    def ready(self, mask: int) -> None:
        self.flush()

    def failed(self, error: Exception) -> None:
        """Logged by the loop; the lines that are left are tried again with the next."""

    # Rotation and the end.

    def reopen(self) -> None:
        """Open `path` again, after it was moved away; where that fails, the old file stays in use."""
        if self.path == "-" or self._fd < 0:
            return
        try:
            fd = _open(self.path)
        except ConfigError as error:
            log.error("%s; the old file stays in use", error)
            return
        self.flush()
        self._give_up_rest("the log was opened again")
        os.close(self._fd)
        self._fd, self._room = fd, _poll_for_room(fd)
        self._mid_line = self._torn = False

    def close(self) -> None:
        """Write what is left, waiting for a slow reader at most CLOSE_SECONDS."""
        if self._fd < 0:
            return
        self.flush()
        until = time.monotonic() + CLOSE_SECONDS
        while self._lines and (left := until - time.monotonic()) > 0:
            select.select((), (self._fd,), (), left)
            self.flush()
        self._give_up_rest("the reader is too slow")
        if self._losing:
            log.warning("access log %s: %d lines were lost", self.path, self._losing)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        os.close(self._fd)
        self._fd = -1

    def _give_up_rest(self, why: str) -> None:
        self._lose(sum(map(_lines_in, self._lines)), why)
        self._keep(b"")


def _lines_in(rest: bytes) -> int:
    # No line is empty: a newline in front only ends one that is written already.
    return rest.count(b"\n") - rest.startswith(b"\n")


def _open(path: str) -> int:
    try:
        if path == "-":
            return os.dup(1)
        # A FIFO without a reader is refused, and one that is full never blocks; a plain file knows neither.
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY, 0o640)
    except OSError as error:
        raise ConfigError(f"access log {path}: {error.strerror}") from None


def check_path(path: str) -> None:
    """Raises the ConfigError that a Sink would, and makes nothing."""
    if path != "-" and not os.path.exists(path):
        folder = os.path.dirname(path) or "."
        if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            return  # the file would be made there
        why = errno.EACCES if os.path.isdir(folder) else errno.ENOTDIR if os.path.exists(folder) else errno.ENOENT
        raise ConfigError(f"access log {path}: {os.strerror(why)}")
    os.close(_open(path))


def _poll_for_room(fd: int) -> select.poll | None:
    """A poll object where only asking first tells whether a write would block: a pipe or terminal opened by others.

    Making that non-blocking would make it so for every process that shares it.
    """
    if stat.S_ISREG(os.fstat(fd).st_mode) or not os.get_blocking(fd):
        return None
    room = select.poll()
    room.register(fd, select.POLLOUT)
    return room
