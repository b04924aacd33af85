"""One fetch, many readers: a body that is arriving, kept in the store as it comes, read by each at its own pace.

    state      on                                              → state
    filling    a piece arrives                                 → filling   (kept; waiting readers woken)
    filling    a piece that has no room in the store           → window    (not stored; no new readers)
    filling    the end                                         → complete  (committed: the entry can be found; discarded,
                                                                            where a part has more bytes than it told of)
    filling    the end, elsewhere than its head told           → broken    (discarded; every reader sees the cut)
    filling    cut off                                         → broken    (the same, or kept as the part that came)
    filling    the last reader leaves, much is missing         → broken    (the source is closed)
    filling    the last reader leaves, little is missing       → filling   (it goes on by itself)
    window     a piece arrives                                 → window    (kept until the slowest reader has it)
    window     nobody reads                                    → broken
    window     the end, cut off                                → complete, broken
    window     a reader stalls the others                      → window    (that reader is cut off)
    over       a reader reads                                  → over      (what there is, then the end or the cut)
    over       the last reader leaves                          → over      (the content is let go)

Over is complete or broken. The source is pulled when a reader has read all there is, so that it waits exactly when every
reader is behind; a fill that nobody reads (a background validation, or little missing) pulls by itself.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from cache.entry import Entry
from cache.partial import as_part, as_received
from reactor.errors import BodyCutShort
from reactor.exchange import PULL, Source
from reactor.loop import Reactor, Timer

log = logging.getLogger("cache.fill")

WINDOW = 1024 * 1024  # bytes kept for the slowest reader of a body that is not stored
STALL = 10.0  # seconds a reader may hold up the others of such a body before it is cut off
JOIN = 4 * 1024  # bytes: a piece of it is joined to the one before up to here, so that many small ones cost no more than few
LITTLE = 256 * 1024  # bytes still missing for which a fetch goes on although nobody waits for it
ALONE = 1024 * 1024  # bytes pulled in one turn for nobody; then the loop's other work has its turn


class Content(Protocol):
    """The stored bytes, as a store keeps them."""

    size: int

    def read(self, offset: int, limit: int) -> bytes | memoryview: ...
    def acquire(self) -> Content: ...
    def release(self) -> None: ...


class Writer(Protocol):
    """What a store's `begin` gives."""

    @property
    def content(self) -> Content: ...
    def write(self, data: bytes | memoryview) -> bool: ...
    def commit(self) -> Entry: ...
    def discard(self) -> None: ...  # idempotent


class Fill:
    """One body on its way from `source` to the store and to its readers.

    `on_over(fill)` is called once, when it is complete or broken; `entry` is the one being filled. `readers` are those
    who have not closed, in the order they came; `size` is how many bytes have arrived. With `parts`, what came of a body
    that broke off is stored as the part it is, where it can be told what fits to it.
    """

    __slots__ = (
        "reactor", "entry", "source", "state", "stored", "readers", "size", "_writer", "_content", "_on_over", "_parts",
        "_tail", "_tail_start", "_later", "_alone", "_cut", "_timer",
    )  # fmt: skip

    def __init__(
        self, reactor: Reactor, entry: Entry, source: Source, writer: Writer, on_over: Callable[[Fill], object],
        parts: bool = False,
    ) -> None:  # fmt: skip
        self.reactor = reactor
        self.entry = entry
        self.source = source
        self.state = "filling"
        self.stored = False  # the entry can be found, or could be until it was evicted
        self.readers: dict[FillReader, None] = {}
        self.size = 0
        self._writer = writer
        self._content: Content | None = writer.content.acquire()
        self._on_over: Callable[[Fill], object] | None = on_over
        self._parts = parts
        self._tail: deque[bytes | memoryview] = deque()  # what came after the store had no more room
        self._tail_start = 0
        self._later = False  # the source has nothing now, and will call
        self._alone = False
        self._cut = ""
        self._timer: Timer | None = None
        source.on_ready = self._source_ready

    @property
    def open(self) -> bool:
        """New readers may join."""
        return self.state == "filling" or self.state == "complete"

    @property
    def over(self) -> bool:
        return self.state == "complete" or self.state == "broken"

    def take_what_is_there(self) -> None:
        """Pull once without waiting, so that a small body is whole before the first reader is answered."""
        self._pull()

    def read_alone(self) -> None:
        """Nobody reads, but the entry is wanted: pull to the end."""
        self._alone = True
        self.reactor.call_soon(self._go_on)

    def unread(self) -> None:
        """Nobody reads: go on where little is missing, else end the fetch."""
        length = self.source.length
        if self.over:
            self._let_go()
        elif self.state == "filling" and (self._alone or length is not None and length - self.size <= LITTLE):
            self.read_alone()
        else:
            self._break("nobody reads it any more", self._parts)

    def join(self) -> FillReader:
        """A new reader, from the first byte on: while it is `open`, or before anybody has read at all."""
        reader = FillReader(self)
        self.readers[reader] = None
        return reader

    # Arriving.

    def _source_ready(self) -> None:
        """From the loop: the source has more."""
        self._later = False
        self._go_on()

    def _go_on(self) -> None:
        """From the loop: pull for whoever waits at the front, or for nobody."""
        stop = self.size + ALONE
        while not self.over and (self._alone or any(reader.waiting for reader in self.readers)):
            if self.size >= stop:
                self.reactor.call_soon(self._go_on)
                return
            if not self._pull():
                return
        if self.state == "window" and not self.readers:
            self._break("too large to be stored, and nobody reads it")

    def _pull(self) -> bool:
        """One pull from the source; False where it has nothing now, or may not be asked."""
        if self._later:
            return False
        if self.state == "window" and self.size - self._slowest() >= WINDOW:
            self._watch_stall()
            return False
        try:
            data = self.source.pull(PULL)
        except BodyCutShort as error:
            self._break(error.reason, self._parts)
            return False
        except Exception:  # whatever a handler's own Source raises, every reader must see the cut
            log.exception("exception while pulling for %r", self)
            self._break("an internal error")
            return False
        if data is None:
            self._later = True
            return False
        if not len(data):
            self._complete()
            return False
        self._keep(data)
        for reader in self.readers:
            reader.wake()
        return True

    def _keep(self, data: bytes | memoryview) -> None:
        if self.state == "filling" and not self._writer.write(data):
            self.state = "window"
            self._writer.discard()
            self._tail_start = self.size
            self._alone = False
        self.size += len(data)
        if self.state == "window":
            if self._tail and len(self._tail[-1]) + len(data) <= JOIN:
                data = b"".join((self._tail.pop(), data))
            self._tail.append(data)
            if self.readers and self._slowest() >= self.size:  # who reads a range further on needs none of this
                self.advanced()

    def _complete(self) -> None:
        length = self.source.length
        if length is not None and length != self.size:
            self._break("the body is not as long as its head said")
        else:
            self._over("complete", self.state == "filling" and as_received(self.entry, self.size))

    def _break(self, reason: str, keep: bool = False) -> None:
        self._cut = reason
        self._over("broken", keep and self.state == "filling" and as_part(self.entry, self.size, self.source.length))

    def _over(self, state: str, store: bool) -> None:
        self.state = state
        if store:
            self._writer.commit()
            self.stored = True
        else:
            self._writer.discard()
        self.source.close()
        self.source.on_ready = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for reader in self.readers:
            reader.wake()
        if not self.readers:
            self._let_go()
        on_over, self._on_over = self._on_over, None
        if on_over is not None:
            on_over(self)

    def _let_go(self) -> None:
        content, self._content = self._content, None
        if content is not None:
            content.release()
        self._tail.clear()

    # Reading.

    def read(self, reader: FillReader, limit: int) -> bytes | memoryview | None:
        """For FillReader.pull."""
        while True:
            offset = reader.offset
            if offset < self.size:
                return self._read_at(offset, limit)
            if self.state == "complete":
                return b""
            if self.state == "broken":
                raise BodyCutShort(self._cut)
            if not self._pull() and not self.over:
                return None

    def _read_at(self, offset: int, limit: int) -> bytes | memoryview:
        content = self._content
        if content is not None and offset < content.size:
            # Once it is stored, it may be made longer by other parts.
            return content.read(offset, min(limit, self.size - offset))
        start = self._tail_start
        for piece in self._tail:
            if offset < start + len(piece):
                return memoryview(piece)[offset - start : offset - start + limit]
            start += len(piece)
        raise BodyCutShort("the reader fell out of the window")

    def advanced(self) -> None:
        """For FillReader.pull: a reader has moved on; forget what every reader has."""
        if self.state != "window":
            return
        slowest = self._slowest()
        content = self._content
        if content is not None and slowest >= content.size:
            self._content = None
            content.release()
        while self._tail and self._tail_start + len(self._tail[0]) <= slowest:
            self._tail_start += len(self._tail.popleft())
        if self._timer is not None and self.size - slowest < WINDOW:
            self._timer.cancel()
            self._timer = None
            self.reactor.call_soon(self._go_on)

    def _slowest(self) -> int:
        return min((reader.offset for reader in self.readers), default=self.size)

    def _watch_stall(self) -> None:
        if self._timer is None and len(self.readers) > 1:
            self._timer = self.reactor.call_later(STALL, self._cut_stalled)

    def _cut_stalled(self) -> None:
        """Where others still wait: they have waited long enough for those who keep the window full."""
        self._timer = None
        if any(reader.waiting for reader in self.readers):
            for reader in [reader for reader in self.readers if self.size - reader.offset >= WINDOW]:
                reader.cut = "too slow for a body that others are reading too"
                del self.readers[reader]
            self.advanced()
            self._go_on()

    def leave(self, reader: FillReader) -> None:
        """For FillReader.close."""
        if reader not in self.readers:
            return
        del self.readers[reader]
        if self.readers:
            self.advanced()
        else:
            self.unread()

    def failed(self, error: Exception) -> None:
        """A callback of this fill raised (logged by the loop)."""
        if not self.over:
            self._break("an internal error")

    def __repr__(self) -> str:
        return f"<Fill {self.state} {self.size} bytes, {len(self.readers)} readers>"


class FillReader(Source):
    """One reader of a fill, at its own offset."""

    __slots__ = ("_fill", "_stop", "offset", "waiting", "cut")

    def __init__(self, fill: Fill) -> None:
        super().__init__(fill.size if fill.state == "complete" else fill.source.length)
        self._fill: Fill | None = fill
        self._stop: int | None = None
        self.offset = 0
        self.waiting = False
        self.cut: str | None = None

    def only(self, start: int, stop: int) -> FillReader:
        """Read these bytes of it alone; to be said before the first pull."""
        self.offset, self._stop = start, stop
        self.length = stop - start
        return self

    @property
    def entry(self) -> Entry:
        assert self._fill is not None
        return self._fill.entry

    def want_all(self) -> None:
        """The rest is wanted too, although this one does not read it."""
        if self._fill is not None and not self._fill.over:
            self._fill.read_alone()

    def pull(self, limit: int) -> bytes | memoryview | None:
        fill = self._fill
        if self.cut is not None:
            raise BodyCutShort(self.cut)
        if fill is None or self.offset == self._stop:
            return b""
        if self._stop is not None:
            limit = min(limit, self._stop - self.offset)
        data = fill.read(self, limit)
        if data is None:
            self.waiting = True
        elif len(data):
            self.offset += len(data)
            fill.advanced()
        else:
            self.trailers = fill.source.trailers
        return data

    def wake(self) -> None:
        if self.waiting:
            self.waiting = False
            if self.on_ready is not None and self._fill is not None:
                self._fill.reactor.call_soon(self.on_ready)

    def close(self) -> None:
        self.on_ready = None
        self.waiting = False
        fill, self._fill = self._fill, None
        if fill is not None:
            fill.leave(self)
