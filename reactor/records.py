"""What waits to be encrypted on a TLS stream, taken a record's worth at a time."""

from __future__ import annotations

import os
from collections import deque

from reactor.errors import BodyCutShort
from reactor.stream import _FileRange

RECORD_BYTES = 16 * 1024  # of the owner's in one record, RFC 8446 section 5.1


class Records:
    """A queue of buffers and parts of files; `size` counts its bytes."""

    __slots__ = ("size", "_queue", "_piece")

    def __init__(self) -> None:
        self.size = 0
        self._queue: deque[bytes | memoryview | _FileRange] = deque()
        self._piece: bytes | memoryview = b""  # out of the queue, but not encrypted yet

    def add(self, item: bytes | memoryview | _FileRange, size: int) -> None:
        self._queue.append(item)
        self.size += size

    def next(self) -> bytes | memoryview:
        """What is to be encrypted next: the same again, less what `took` was told. Raises BodyCutShort."""
        if not len(self._piece):
            self._piece = self._next_piece()
        return self._piece

    def took(self, count: int) -> None:
        """So many bytes of the next piece are encrypted."""
        self._piece = memoryview(self._piece)[count:] if count < len(self._piece) else b""
        self.size -= count

    def clear(self) -> None:
        self._queue.clear()
        self._piece = b""
        self.size = 0

    def _next_piece(self) -> bytes | memoryview:
        """At most a record's worth; small buffers are joined, so that they share one."""
        queue = self._queue
        first = queue.popleft()
        if isinstance(first, _FileRange):
            return self._read(first)
        if len(first) > RECORD_BYTES:
            view = memoryview(first)
            queue.appendleft(view[RECORD_BYTES:])
            return view[:RECORD_BYTES]
        parts, size = [first], len(first)
        while queue and not isinstance(queue[0], _FileRange) and size + len(queue[0]) <= RECORD_BYTES:
            parts.append(queue.popleft())  # type: ignore[arg-type]
            size += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read(self, file: _FileRange) -> bytes:
        file.check(RECORD_BYTES)
        piece = os.pread(file.fd, min(RECORD_BYTES, file.count), file.offset)
        if not piece:
            raise BodyCutShort("the file became shorter while it was sent")
        file.offset += len(piece)
        file.count -= len(piece)
        if file.count:
            self._queue.appendleft(file)
        return piece
