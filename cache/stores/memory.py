"""The store in memory: entries by primary key, a hard limit in bytes, bodies shared by their readers.

What counts against the limit: each entry's body, head and key, and flat amounts for the objects around them. A body
that somebody still reads stays charged after its entry is gone, until the last reader has closed.
"""

from __future__ import annotations

import bisect
import os
import resource
import tempfile
from collections.abc import Callable

from cache.entry import Entry
from cache.eviction import Node, Sieve
from reactor.errors import BodyCutShort
from reactor.exchange import Source

SPILL = 64 * 1024  # bytes: a longer body lies in a file in memory, so that sendfile serves it
ENTRY_OVERHEAD = 2048  # bytes charged for the objects of one entry
LINE_OVERHEAD = 160  # bytes charged for those of each field line
HEAD_COPIES = 3  # a head is kept as lines, as values to look up, and written out
AHEAD = 128 * 1024  # bytes of an announced length that room is made for before they have come
LARGEST_SHARE = 4  # one object may take a quarter of the limit; a larger one is not stored
JOINED_AT_ONCE = 4 * 1024 * 1024  # bytes copied to join two parts; where it would be more, they stay apart
VARIANTS = 32  # stored under one primary key; the oldest goes
JOIN = 4 * 1024  # bytes: a piece is joined to the one before it up to here, so that many small ones do not cost much more


def _file_budget() -> int:
    """Descriptors that bodies may take: a quarter of what the process has; beyond, bodies lie in plain memory."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if limit == resource.RLIM_INFINITY else limit // 4


class Content:
    """The bytes of one body, complete or still arriving, shared by whoever `acquire`d them.

    Up to SPILL bytes they are pieces in memory; beyond that a memory file, while there is a descriptor to spare.
    """

    __slots__ = ("size", "room", "charged", "_store", "_pieces", "_starts", "_fd", "_users")

    def __init__(self, store: MemoryStore, charged: int, room: int = 0) -> None:
        self.size = 0
        self.room = room  # bytes of body that are charged for already
        self.charged = charged  # bytes, with what the head and the key take
        self._store = store
        self._pieces: list[bytes] = []
        self._starts: list[int] = []
        self._fd = -1
        self._users = 1

    def reserve(self, size: int) -> bool:
        """Make room for `size` bytes of body in all; False where the store has none."""
        missing = size - self.room
        if missing > 0:
            if size > self._store.largest or not self._store.charge(missing):
                return False
            self.room = size
            self.charged += missing
        return True

    def append(self, data: bytes | memoryview) -> None:
        """Keep a piece for which room was reserved. Raises OSError where the system has no more memory for files."""
        if self._fd < 0 and self.size + len(data) > SPILL and self._store.take_descriptor():
            self._spill()
        if self._fd >= 0:
            _write_all(self._fd, data)
        elif self._pieces and len(self._pieces[-1]) + len(data) <= JOIN:
            self._pieces[-1] += data
        else:
            self._pieces.append(bytes(data))
            self._starts.append(self.size)
        self.size += len(data)

    def _spill(self) -> None:
        fd = -1
        try:
            fd = _memory_file()
            for piece in self._pieces:
                _write_all(fd, piece)
        except OSError:  # no descriptor after all, or no memory for files: plain memory does as well
            if fd >= 0:
                os.close(fd)
            self._store.give_descriptor()
            return
        self._fd = fd
        self._pieces, self._starts = [], []

    def read(self, offset: int, limit: int) -> bytes | memoryview:
        """At most `limit` bytes from `offset`; empty where no more have arrived."""
        if self._fd >= 0:
            return os.pread(self._fd, min(limit, self.size - offset), offset)
        if offset >= self.size:
            return b""
        at = bisect.bisect_right(self._starts, offset) - 1
        skip = offset - self._starts[at]
        piece = self._pieces[at]
        return piece if not skip and len(piece) <= limit else memoryview(piece)[skip : skip + limit]

    def whole(self) -> bytes | None:
        """All of it where it lies in memory in one piece (then nothing needs to be acquired), else None."""
        if self._fd >= 0 or self.size > SPILL:
            return None
        if len(self._pieces) != 1:
            self._pieces, self._starts = [b"".join(self._pieces)], [0]
        return self._pieces[0]

    @property
    def fd(self) -> int | None:
        return self._fd if self._fd >= 0 else None

    def acquire(self) -> Content:
        self._users += 1
        return self

    def release(self) -> None:
        """One user fewer; the last one frees the bytes and what was charged for them."""
        self._users -= 1
        if self._users:
            return
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._store.give_descriptor()
        self._pieces, self._starts = [], []
        self._store.used -= self.charged
        self.charged = self.room = 0


class ContentSource(Source):
    """A reader of stored bytes: `count` of them from `offset`."""

    __slots__ = ("_content", "_start", "_pos", "_end")

    def __init__(self, content: Content, offset: int, count: int) -> None:
        super().__init__(count)
        self._content: Content | None = content.acquire()
        self._start = self._pos = offset
        self._end = offset + count

    def pull(self, limit: int) -> bytes | memoryview:
        want = min(limit, self._end - self._pos)
        if not want or self._content is None:
            return b""
        piece = self._content.read(self._pos, want)
        if not len(piece):
            raise BodyCutShort("the stored body is shorter than its entry says")
        self._pos += len(piece)
        return piece

    def as_file(self) -> tuple[int, int, int] | None:
        fd = self._content.fd if self._content is not None else None
        return None if fd is None else (fd, self._pos, self._end - self._pos)

    def rewind(self) -> bool:
        self._pos = self._start
        return True

    def close(self) -> None:
        content, self._content = self._content, None
        if content is not None:
            content.release()


class _Place(Node):
    """An entry's place in the store: what eviction needs to find it again."""

    __slots__ = ("key", "entry")

    def __init__(self, key: bytes, entry: Entry) -> None:
        super().__init__()
        self.key = key
        self.entry = entry


class Writer:
    """A body on its way into the store."""

    __slots__ = ("content", "_store", "_key", "_entry", "_open")

    def __init__(self, store: MemoryStore, key: bytes, entry: Entry, content: Content) -> None:
        self.content = content
        self._store = store
        self._key = key
        self._entry = entry
        self._open = True

    def write(self, data: bytes | memoryview) -> bool:
        """Keep a piece; False where it would pass a limit, and then nothing of it was kept."""
        content = self.content
        if not content.reserve(content.size + len(data)):
            return False
        try:
            content.append(data)
        except OSError:
            return False
        return True

    def commit(self) -> Entry:
        """The body is whole: the entry can be found from now on."""
        assert self._open
        self._open = False
        self._entry.length = self.content.size
        self._store.put(self._key, self._entry, self.content)
        return self._entry

    def discard(self) -> None:
        """It is not to be stored after all; whoever reads it goes on reading."""
        if self._open:
            self._open = False
            self.content.release()


class _Entries(dict[bytes, "tuple[Entry, ...]"]):
    def __missing__(self, key: bytes) -> tuple[Entry, ...]:
        return ()


class MemoryStore:
    """Entries in memory, never more than `limit` bytes of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.largest = limit // LARGEST_SHARE
        self.used = 0
        self.findable = 0  # of that, what entries take that can be evicted; the rest is arriving, or only still read
        self.evicted = 0
        self._entries = _Entries()
        # Every variant stored under a primary key, without a call's cost.
        self.get: Callable[[bytes], tuple[Entry, ...]] = self._entries.__getitem__
        self._order = Sieve()
        self._descriptors = _file_budget()

    def begin(self, key: bytes, entry: Entry, length: int | None) -> Writer | None:
        """A writer for an entry's body of `length` bytes (None where unknown); None where it cannot be stored.

        A length is only announced: room for most of it is made as it comes.
        """
        head, room = _head_size(key, entry), min(length or 0, AHEAD)
        if max(head, length or 0) > self.largest or not self.charge(head + room):
            return None
        return Writer(self, key, entry, Content(self, head + room, room))

    def put(self, key: bytes, entry: Entry, content: Content) -> None:
        """Make an entry findable; takes over its writer's hold on the content."""
        place = _Place(key, entry)
        entry.body, entry.store = content, place
        entries = self._entries.get(key, ())
        if len(entries) >= VARIANTS:
            self.remove(entries[0])
            entries = self._entries.get(key, ())
        self._entries[key] = (*entries, entry)
        self._order.add(place)
        self.findable += content.charged

    def update(self, old: Entry, new: Entry) -> None:
        """`new` stands for `old` from now on, with the same body: a validation freshened it."""
        place = old.store
        if place is None:
            return  # evicted meanwhile
        new.body, new.store = old.body, place
        old.store = None
        place.entry = new
        self._entries[place.key] = tuple([new if entry is old else entry for entry in self._entries[place.key]])
        self._charge_more(new, _head_size(place.key, new) - _head_size(place.key, old))

    def _charge_more(self, entry: Entry, amount: int) -> None:
        """An entry's head has grown, or shrunk; it goes where there is no room for that."""
        content: Content = entry.body.acquire()  # making room may evict this very entry
        if not self.charge(amount):
            self.remove(entry)
        else:
            content.charged += amount
            if entry.store is not None:
                self.findable += amount
        content.release()

    def join(self, lower: Entry, upper: Entry, joined: Entry) -> bool:
        """`joined` stands for two parts that touch or overlap: the lower one's body, made longer by what the upper one adds.

        False, and nothing is changed, where that is too much to be copied at once, or there is no room for it.
        """
        assert lower.span is not None and upper.span is not None
        more = upper.span[1] - lower.span[1]
        if lower.store is None or upper.store is None or more > JOINED_AT_ONCE:
            return False
        key = lower.store.key
        first, second = lower.body.acquire(), upper.body.acquire()
        self.remove(lower)  # what can be found could be evicted while room is made
        self.remove(upper)
        done = more <= 0 or self._append(first, second, second.size - more)
        if not done:
            self.put(key, upper, second)
            self.put(key, lower, first)
            return False
        second.release()
        self.put(key, joined, first)
        self._charge_more(joined, _head_size(key, joined) - _head_size(key, lower))
        return True

    def _append(self, content: Content, other: Content, offset: int) -> bool:
        """Add what `other` holds from `offset` on."""
        if not content.reserve(content.size + other.size - offset):
            return False
        try:
            while offset < other.size:
                piece = other.read(offset, JOINED_AT_ONCE)
                content.append(piece)
                offset += len(piece)
        except OSError:  # what was added lies beyond what the lower part's entry speaks of
            return False
        return True

    def remove(self, entry: Entry) -> None:
        """Take an entry out; its bytes stay with those who read them."""
        place = entry.store
        if place is None:
            return
        entry.store = None
        rest = tuple(other for other in self._entries[place.key] if other is not entry)
        if rest:
            self._entries[place.key] = rest
        else:
            del self._entries[place.key]
        self._order.remove(place)
        self.findable -= entry.body.charged
        entry.body.release()

    def purge(self, selector: Callable[[bytes, Entry], bool]) -> int:
        """Remove every entry for which `selector(key, entry)` holds; how many those were."""
        chosen = [entry for key, entries in self._entries.items() for entry in entries if selector(key, entry)]
        for entry in chosen:
            self.remove(entry)
        return len(chosen)

    def charge(self, amount: int) -> bool:
        """Count `amount` bytes as used, evicting where they would pass the limit; False where even that is not enough."""
        while self.used + amount > self.limit:
            if self.used - self.findable + amount > self.limit:
                return False  # to evict everything would not be enough
            victim = self._order.victim()
            if victim is None:
                return False
            self.evicted += 1
            self.remove(victim.entry)  # type: ignore[attr-defined]
        self.used += amount
        return True

    def take_descriptor(self) -> bool:
        if self._descriptors <= 0:
            return False
        self._descriptors -= 1
        return True

    def give_descriptor(self) -> None:
        self._descriptors += 1

    def __len__(self) -> int:
        return self._order.size

    def close(self) -> None:
        """Let every entry go."""
        self.purge(lambda key, entry: True)


def _head_size(key: bytes, entry: Entry) -> int:
    """What an entry costs beside its body, in bytes."""
    lines = entry.fields.lines
    selecting = sum([len(value) for value in entry.secondary if value is not None])  # the client's choice, not the origin's
    objects = len(lines) + len(entry.groups) + len(entry.secondary)
    return ENTRY_OVERHEAD + len(key) + selecting + LINE_OVERHEAD * objects + HEAD_COPIES * sum(map(len, lines))


def _memory_file() -> int:
    """A file that lies in memory, where the system has such a thing. Raises OSError."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("reactor-cache", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while len(view):
        view = view[os.write(fd, view) :]
