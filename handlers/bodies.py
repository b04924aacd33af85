"""Bodies that a client sends: files, iterators, what can be read, a pipe; and bodies that it takes, gathered."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from reactor.errors import BodyCutShort
from reactor.exchange import PULL, Body, FileSource, Source, WrappedSource
from reactor.loop import READ, Reactor
from reactor.sources import ChainSource

PIPE_READ = 64 * 1024  # bytes taken from a pipe at a time: what Linux lets one hold


def as_body(content: Any) -> Body:
    """Bytes, text (UTF-8), a Source, an open file (from where it stands), or an iterable of bytes, as a body.

    A regular file has a length and is sent by sendfile; what has none is sent in chunks. Raises TypeError.
    """
    if isinstance(content, (bytes, Source)):
        return content
    if isinstance(content, str):
        return content.encode()
    if isinstance(content, (bytearray, memoryview)):
        return bytes(content)
    if hasattr(content, "read"):
        return _file_source(content) or IterSource(iter(lambda: content.read(PULL), b""))
    if isinstance(content, Iterable):
        return IterSource(iter(content))
    raise TypeError(f"a body is bytes, text, a file, an iterable of bytes or a Source, not {type(content).__name__}")


def _file_source(file: Any) -> FileSource | None:
    """A regular file from where it stands, its descriptor left to its owner."""
    try:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
        start = file.tell()
    except (AttributeError, OSError):
        return None
    return None if size is None else FileSource(descriptor, start, max(0, size - start), owned=False)


class IterSource(Source):
    """Pieces from an iterator. It is asked only when there is room, and must not wait for anything."""

    __slots__ = ("_pieces", "_rest")

    def __init__(self, pieces: Iterator[bytes], length: int | None = None) -> None:
        super().__init__(length)
        self._pieces = pieces
        self._rest = memoryview(b"")

    def pull(self, limit: int) -> bytes | memoryview:
        rest = self._rest
        try:
            while not len(rest):
                piece = next(self._pieces, None)
                if piece is None:
                    return b""
                rest = memoryview(piece)
        except Exception as error:  # the iterator is the caller's, and may raise anything
            raise BodyCutShort(f"the body's iterator failed: {error!r}") from error
        self._rest = rest[limit:]
        return rest[:limit]


class PipeSource(Source):
    """What can be polled (a pipe, a terminal), read only where it is ready: the loop never waits for it.

    The descriptor stays the caller's and is left in blocking mode, since that belongs to everybody who has it open.
    """

    __slots__ = ("reactor", "_fd", "_state")

    def __init__(self, reactor: Reactor, fd: int) -> None:
        super().__init__(None)
        self.reactor = reactor
        self._fd = fd
        self._state = "idle"  # → watched → ready → idle; over

    def fileno(self) -> int:
        return self._fd

    def pull(self, limit: int) -> bytes | None:
        if self._state == "idle":
            try:
                self.reactor.register(self, READ, self)  # type: ignore[arg-type]
                self._state = "watched"
            except PermissionError:
                pass  # a device such as /dev/null, that cannot be polled and never waits
            except OSError as error:
                raise BodyCutShort(f"cannot be read: {error.strerror}") from None
        if self._state == "watched":
            return None
        if self._state == "over":
            return b""
        self._state = "idle"
        try:
            data = os.read(self._fd, min(limit, PIPE_READ))
        except OSError as error:
            raise BodyCutShort(f"cannot be read: {error.strerror}") from None
        if not data:
            self._state = "over"
        return data

    def ready(self, mask: int) -> None:
        self.reactor.unregister(self)  # type: ignore[arg-type]
        self._state = "ready"
        if self.on_ready is not None:
            self.reactor.call_soon(self.on_ready)

    def failed(self, error: Exception) -> None:
        self.close()

    def close(self) -> None:
        if self._state == "watched":
            self.reactor.unregister(self)  # type: ignore[arg-type]
        self._state = "over"


class Gathering:
    """Pulls a body to its end, or to more than `limit` bytes; then `on_done(bytes, rest)` or `on_cut(error)`.

    `rest` is None where the bytes are all of it. `stop` gives up.
    """

    __slots__ = ("_body", "_limit", "_on_done", "_on_cut", "_pieces", "_size")

    def __init__(
        self, body: Source, limit: int, on_done: Callable[[bytes, Source | None], object], on_cut: Callable[[BodyCutShort], object]
    ) -> None:
        self._body = body
        self._limit = limit
        self._on_done = on_done
        self._on_cut = on_cut
        self._pieces: list[bytes] = []
        self._size = 0

    def start(self) -> None:
        self._body.on_ready = self._pull
        self._pull()

    def _pull(self) -> None:
        try:
            while (data := self._body.pull(PULL)) is not None:
                self._size += len(data)
                self._pieces.append(bytes(data))
                if not len(data) or self._size > self._limit:
                    self._body.on_ready = None
                    self._on_done(b"".join(self._pieces), self._body if len(data) else None)
                    return
        except BodyCutShort as error:
            self._on_cut(error)

    def stop(self) -> None:
        self._body.close()
        self._body.on_ready = None


class StrippedSource(WrappedSource):
    """A body without its line ends and NULs, as curl's -d sends a file."""

    __slots__ = ()

    def pull(self, limit: int) -> bytes | None:
        while True:
            data = self._inner.pull(limit)
            if data is None:
                return None
            kept = stripped(bytes(data))
            if kept or not len(data):
                return kept

    def close(self) -> None:
        self._inner.close()


def stripped(data: bytes) -> bytes:
    return data.translate(None, b"\r\n\0")


def joined(parts: list[Body]) -> Body:
    """Bodies one after the other; bytes where all of them are."""
    if all(type(part) is bytes for part in parts):
        return b"".join(parts)  # type: ignore[arg-type]
    lengths = [len(part) if isinstance(part, bytes) else part.length for part in parts]
    known = [length for length in lengths if length is not None]
    return ChainSource(sum(known) if len(known) == len(lengths) else None, parts)


class ReadFileSource(FileSource):
    """A file that is read, not sent by sendfile, for who must see every byte of it."""

    __slots__ = ()

    def as_file(self) -> None:  # type: ignore[override]
        return None
