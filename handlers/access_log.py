"""The access log: one line for every exchange that ended, refused heads and denied requests too.

`combined` is Apache's combined format with the verdict and the duration in milliseconds appended:

    peer - user [day/month/year:time zone] "request line" status bytes "referer" "user-agent" verdict ms

The time is the request's arrival, the bytes are the body's (or a tunnel's, to the client), `-` stands for what is not
known, and status 499 for an exchange that ended before its answer began: the client left. A quote, a backslash and
everything but visible ASCII and space is written as `\\xhh`, so that no value can end its field or its line. `json` is
one object a line with every fact of the exchange (json_log.py). Credentials are in neither: fields that carry them are
not logged, and userinfo is cut out of targets and of a Referer.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import select
import stat
import time
from collections.abc import Callable

from handlers.json_log import CLIENT_LEFT, json_line, note_head, without_userinfo
from reactor.errors import ConfigError
from reactor.exchange import Exchange, Handler
from reactor.loop import WRITE, Reactor, Timer

log = logging.getLogger("handlers.access_log")

FLUSH_SECONDS = 1.0  # a line waits at most this long
FLUSH_BYTES = 64 * 1024  # lines that wait: written at once
BACKLOG_BYTES = 1024 * 1024  # lines that wait for a pipe whose reader is slow: the newest are lost
CLOSE_SECONDS = 1.0  # how long `close` waits for such a reader
MEMO_WORDS = 1024  # rendered peers, users, verdicts and user agents; at the limit the memo starts anew
MEMO_WORD_LENGTH = 256  # bytes; longer ones are rendered each time

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_PLAIN = bytes(octet for octet in range(0x20, 0x7F) if octet not in b'"\\@')  # what needs no second look
_SPECIAL = re.compile(rb"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_SPECIAL_IN_WORD = re.compile(rb"[^\x21\x23-\x5b\x5d-\x7e]")


class AccessLog:
    """Writes a line for each exchange that its handler gets, once it has ended, and for those given to `record`."""

    def __init__(self, handler: Handler, sink: Sink, format: str = "combined") -> None:
        """Raises ConfigError for an unknown format."""
        make = _FORMATS.get(format)
        if make is None:
            raise ConfigError(f"unknown log format {format!r}: {' or '.join(_FORMATS)}")
        self.timed = format == "json"  # it tells what only the connections of a timed server note
        self._handler = _Answers(handler) if self.timed else handler
        self._render = make()
        self._write = sink.write

    def handle(self, exchange: Exchange) -> None:
        exchange.on_end(self.record)
        self._handler.handle(exchange)

    def record(self, exchange: Exchange) -> None:
        """Write the line of an exchange that has ended; `request` is None where its head was refused."""
        self._write(self._render(exchange))


class _Answers:
    """Has the heads of answers noted."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def handle(self, exchange: Exchange) -> None:
        if exchange.timing is not None:
            exchange.map_head(note_head)
        self._handler.handle(exchange)


def _escape(value: bytes, special: re.Pattern[bytes] = _SPECIAL) -> bytes:
    return special.sub(lambda match: b"\\x%02x" % ord(match[0]), value)


class _Words(dict[str | bytes | None, bytes]):
    """What is written alike on line after line: a peer, a user, a verdict, a user agent → escaped, `-` for nothing."""

    def __missing__(self, value: str | bytes | None) -> bytes:
        if isinstance(value, bytes):
            word = _escape(value)
        else:
            word = _escape((value or "").encode("utf-8", "backslashreplace"), _SPECIAL_IN_WORD)
        if len(value or "") <= MEMO_WORD_LENGTH:
            if len(self) >= MEMO_WORDS:
                self.clear()
            self[value] = word or b"-"
        return word or b"-"


class Combined:
    """Renders lines of the combined format; what repeats itself is rendered once."""

    def __init__(self) -> None:
        self._words = _Words()
        self._since = self._until = 0  # the second whose stamp is kept
        self._stamp = b""

    def render(self, exchange: Exchange) -> bytes:
        request = exchange.request
        if request is None:
            return self._refused(exchange)
        index = request.fields.index
        target, referer = request.target, index.get(b"referer", b"-")
        if (target + referer).translate(None, _PLAIN):
            target, referer = _escape(without_userinfo(target)), _escape(without_userinfo(referer))
        took = exchange.finished - exchange.started
        arrival = exchange.reactor.wall - took
        if not self._since <= arrival < self._until:
            self._new_second(arrival)
        words = self._words
        return b'%b - %b [%b] "%b %b HTTP/1.%d" %d %d "%b" "%b" %b %d\n' % (
            words[exchange.peer], words[exchange.user], self._stamp, request.method, target, request.version - 10,
            exchange.status or CLIENT_LEFT, exchange.bytes_out, referer, words[index.get(b"user-agent")],
            words[exchange.verdict], int(took * 1000),
        )  # fmt: skip

    def _refused(self, exchange: Exchange) -> bytes:
        self._new_second(exchange.reactor.wall)
        words, verdict = self._words, self._words[exchange.verdict]
        return b'%b - - [%b] "-" %d %d "-" "-" %b 0\n' % (
            words[exchange.peer], self._stamp, exchange.status or CLIENT_LEFT, exchange.bytes_out, verdict,
        )  # fmt: skip

    def _new_second(self, at: float) -> None:
        self._since = int(at)
        self._until = self._since + 1
        self._stamp = stamp(self._since)


def stamp(second: int) -> bytes:
    """A second since the epoch as `10/Oct/2000:13:55:36 -0700`, in local time."""
    at = time.localtime(second)
    sign, minutes = "-" if at.tm_gmtoff < 0 else "+", abs(at.tm_gmtoff) // 60
    day = f"{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}"
    clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    return f"{day}:{clock} {sign}{minutes // 60:02}{minutes % 60:02}".encode("ascii")


_FORMATS: dict[str, Callable[[], Callable[[Exchange], bytes]]] = {
    "combined": lambda: Combined().render,
    "json": lambda: json_line,
}


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
