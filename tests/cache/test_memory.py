"""The store in memory: the limit that is never passed, bodies that outlive their entries, descriptors given back."""

from __future__ import annotations

import os
import resource
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cache.entry import Entry
from cache.policy import DEFAULT_POLICY
from cache.stores import memory
from cache.stores.memory import (
    AHEAD,
    ENTRY_OVERHEAD,
    JOIN,
    JOINED_AT_ONCE,
    SPILL,
    VARIANTS,
    Content,
    ContentSource,
    MemoryStore,
    Writer,
)  # fmt: skip
from cache.validation import freshen
from handlers.stored import Rendered
from reactor.http.fields import Fields
from tests.cache.cases import NOW, WALL, date, request
from tests.loopback import open_descriptors

MIB = 1 << 20


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """No test leaves a descriptor open."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def entry(*lines: tuple[str, str], vary: str = "") -> Entry:
    fields = Fields([("Date", date(0)), ("Cache-Control", "max-age=60"), *lines])
    if vary:
        fields.add("Vary", "X")
    return Entry(request(f"X: {vary}" if vary else ""), 200, b"OK", fields, NOW, NOW, WALL, DEFAULT_POLICY)


def test_what_selects_a_variant_counts_against_the_limit() -> None:
    """It is the client's to choose, and may be as long as a head."""
    store = MemoryStore(MIB)
    for number in range(200):
        put(store, b"/%d" % number, b"x", vary="v" * 15_000)
    assert 0 < len(store) < MIB // 15_000


def put(store: MemoryStore, key: bytes, body: bytes, *, vary: str = "", length: int | None = -1) -> Entry | None:
    """Store a body, in one piece; None where there is no room."""
    one = entry(vary=vary)
    writer = store.begin(key, one, len(body) if length == -1 else length)
    if writer is None:
        return None
    if not writer.write(body):
        writer.discard()
        return None
    return writer.commit()


def stored(store: MemoryStore, key: bytes, body: bytes, **more: str) -> Entry:
    found = put(store, key, body, **more)  # type: ignore[arg-type]
    assert found is not None
    return found


def read(source: ContentSource, limit: int = 1000) -> bytes:
    pieces = []
    while piece := source.pull(limit):
        assert len(piece) <= limit
        pieces.append(bytes(piece))
    return b"".join(pieces)


def whole(one: Entry) -> bytes:
    source = ContentSource(one.body, 0, one.body.size)
    try:
        return read(source)
    finally:
        source.close()


# Storing and finding.


def test_nothing_is_found_before_it_is_committed() -> None:
    store = MemoryStore(MIB)
    one = entry()
    writer = store.begin(b"k", one, 5)
    assert writer is not None
    assert writer.write(b"hel") and writer.write(b"lo")
    assert store.get(b"k") == ()
    assert writer.commit() is one
    assert store.get(b"k") == (one,)
    assert (one.length, one.body.size, whole(one), len(store)) == (5, 5, b"hello", 1)
    store.close()
    assert (len(store), store.used, store.get(b"k")) == (0, 0, ())


def test_what_is_discarded_is_gone() -> None:
    store = MemoryStore(MIB)
    writer = store.begin(b"k", entry(), None)
    assert writer is not None and writer.write(b"x" * 1000)
    assert store.used > 1000
    writer.discard()
    writer.discard()
    assert (store.used, store.get(b"k")) == (0, ())


def test_variants_stand_side_by_side_up_to_a_limit() -> None:
    store = MemoryStore(MIB)
    entries = [stored(store, b"k", b"%d" % n, vary=str(n)) for n in range(VARIANTS + 2)]
    assert store.get(b"k") == tuple(entries[2:])
    assert entries[0].store is None and len(store) == VARIANTS
    store.close()


def test_removing_takes_one_variant() -> None:
    store = MemoryStore(MIB)
    one, two = stored(store, b"k", b"1", vary="1"), stored(store, b"k", b"2", vary="2")
    store.remove(one)
    store.remove(one)
    assert store.get(b"k") == (two,)
    store.remove(two)
    assert store.get(b"k") == () and store.used == 0


def test_purging() -> None:
    store = MemoryStore(MIB)
    for key in (b"http://a/1", b"http://a/2", b"http://b/1"):
        stored(store, key, b"x")
    assert store.purge(lambda key, entry: key.startswith(b"http://a/")) == 2
    assert store.get(b"http://a/1") == () and len(store.get(b"http://b/1")) == 1
    assert store.purge(lambda key, entry: entry.status == 200) == 1
    assert store.used == 0


# Updating.


def freshened(old: Entry, *lines: tuple[str, str]) -> Entry:
    return freshen(old, request(), Fields([("Date", date(5)), *lines]), NOW + 5, NOW + 5, WALL + 5)


def test_an_update_keeps_body_place_and_order() -> None:
    store = MemoryStore(MIB)
    old, other = stored(store, b"k", b"body", vary="1"), stored(store, b"k", b"other", vary="2")
    new = freshened(old, ("ETag", '"x"'))
    store.update(old, new)
    assert store.get(b"k") == (new, other)
    assert (whole(new), old.store) == (b"body", None)
    store.remove(old)  # it stands for nothing any more
    assert store.get(b"k") == (new, other)
    store.close()
    assert store.used == 0


def test_an_update_of_what_was_evicted_does_nothing() -> None:
    store = MemoryStore(MIB)
    old = stored(store, b"k", b"body")
    store.remove(old)
    store.update(old, freshened(old))
    assert store.get(b"k") == () and store.used == 0


def test_a_head_that_grows_is_charged_for() -> None:
    store = MemoryStore(MIB)
    old = stored(store, b"k", b"body")
    before = store.used
    new = freshened(old, ("X-Long", "x" * 10_000))
    store.update(old, new)
    assert store.used >= before + 10_000
    store.remove(new)
    assert store.used == 0


def test_a_head_that_grows_evicts_others_or_itself() -> None:
    store = MemoryStore(60_000)
    old, other = stored(store, b"k", b"body"), stored(store, b"o", b"x" * 14_000)
    old.store.visited = True
    new = freshened(old, ("X-Long", "x" * 14_000))
    store.update(old, new)
    assert store.get(b"k") == (new,) and other.store is None
    assert store.used <= store.limit
    far_too_long = freshened(new, ("X-Longer", "x" * 16_000))
    store.update(new, far_too_long)
    assert (len(store), store.used) == (0, 0)


# Parts.


def part(store: MemoryStore, start: int, body: bytes, *lines: tuple[str, str]) -> Entry:
    one = entry(*lines)
    one.span = (start, start + len(body), None)
    writer = store.begin(b"k", one, len(body))
    assert writer is not None and writer.write(body)
    return writer.commit()


@pytest.mark.parametrize("size", [10, SPILL - 5, SPILL * 2])
def test_the_lower_part_is_made_longer_by_what_the_upper_one_adds(size: int) -> None:
    store = MemoryStore(8 * MIB)
    body = os.urandom(size * 2)
    lower, upper = part(store, 7, body[: size + 3]), part(store, 7 + size, body[size:])
    source = ContentSource(lower.body, 0, size + 3)  # somebody reads the lower one meanwhile
    first = bytes(source.pull(5))
    joined = entry(("X-Long", "x" * 5000))
    assert store.join(lower, upper, joined)
    assert store.get(b"k") == (joined,) and whole(joined) == body
    assert (lower.store, upper.store) == (None, None)
    assert first + read(source) == body[: size + 3]
    source.close()
    assert store.used == store.findable == joined.body.charged > size * 2 + 5000
    store.close()
    assert (store.used, len(store)) == (0, 0)


def test_a_part_within_another_adds_nothing() -> None:
    store = MemoryStore(MIB)
    lower, upper = part(store, 0, b"0123456789"), part(store, 3, b"345")
    joined = entry()
    assert store.join(lower, upper, joined) and whole(joined) == b"0123456789"
    store.close()
    assert store.used == 0


@pytest.mark.parametrize("why", ["too much at once", "too large", "no room", "evicted", "no memory"])
def test_parts_that_cannot_be_joined_stay_apart(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(64 * MIB if why == "too much at once" else 4 * MIB)
    size = {"too much at once": JOINED_AT_ONCE + 1, "too large": 600_000}.get(why, 400_000)
    lower, upper = part(store, 0, b"l" * size), part(store, size, b"u" * size)
    held = []
    if why == "no room":
        while (writer := store.begin(b"o", entry(), 0)) and store.used < store.limit - 300_000:
            assert writer.write(bytes(100_000))
            held.append(writer)
        assert writer is not None
        held.append(writer)
    if why == "evicted":
        store.remove(upper)
    if why == "no memory":
        monkeypatch.setattr(Content, "append", lambda *_: os.open("/nowhere", os.O_RDONLY))
    before = store.used
    assert not store.join(lower, upper, entry())
    assert set(store.get(b"k")) == ({lower} if why == "evicted" else {lower, upper})
    assert whole(lower) == b"l" * size and (why == "evicted" or whole(upper) == b"u" * size)
    assert before <= store.used <= store.limit
    for writer in held:
        writer.discard()
    store.close()
    assert (store.used, store.findable, len(store)) == (0, 0, 0)


# The limit.


@pytest.mark.parametrize(("lines", "size"), [(8, 30), (120, 1), (100, 500), (4, 15_000)])
def test_what_is_charged_is_what_is_taken(lines: int, size: int) -> None:
    """Of memory, by entries that are served as well, within a fifth."""
    store = MemoryStore(64 * MIB)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(100):
            one = entry(*[(f"X-{line}", f"{n:06}".ljust(size, "x")) for line in range(lines)])
            writer = store.begin(b"http://example.com/%d" % n, one, 1000)
            assert writer is not None and writer.write(bytes(1000))
            writer.commit()
            one.rendered = Rendered(one, 0, b"reactor; hit; ttl=60")
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= store.used * 1.2, (taken, store.used)
    store.close()


def test_the_oldest_unused_goes_where_room_is_needed() -> None:
    store = MemoryStore(10 * (ENTRY_OVERHEAD + 1000))
    entries = [stored(store, b"k%d" % n, b"x" * 800) for n in range(5)]
    entries[0].store.visited = True
    while store.evicted < 2:
        stored(store, b"more%d" % len(store), b"x" * 800)
        assert store.used <= store.limit
    assert entries[0].store is not None
    assert entries[1].store is None and entries[2].store is None
    store.close()


@pytest.mark.parametrize("length", [None, -1])
def test_what_is_too_large_for_one_object_is_not_stored(length: int | None) -> None:
    store = MemoryStore(400_000)
    assert put(store, b"k", b"x" * 100_001, length=length) is None
    assert (store.used, len(store)) == (0, 0)
    assert put(store, b"k", b"x" * 100_000, length=length) is not None
    store.close()


def test_what_could_not_be_stored_whoever_went_evicts_nobody() -> None:
    store = MemoryStore(400_000)
    arriving = []
    for _ in range(4):
        arriving.append(store.begin(b"k", entry(), 92_000))
    small = stored(store, b"small", b"x")
    assert store.begin(b"k", entry(), 90_000) is None
    assert small.store is not None and store.evicted == 0
    for writer in arriving:
        assert writer is not None
        writer.discard()
    store.close()
    assert (store.used, store.findable) == (0, 0)


def test_what_is_too_large_evicts_nobody() -> None:
    store = MemoryStore(400_000)
    stored(store, b"k", b"x" * 90_000)
    assert store.begin(b"o", entry(), 100_001) is None
    assert len(store) == 1 and store.evicted == 0
    store.close()


def test_a_limit_that_holds_nothing() -> None:
    store = MemoryStore(100)
    assert store.begin(b"k", entry(), 1) is None
    assert store.used == 0


def test_an_announced_body_takes_its_room_as_it_comes() -> None:
    store = MemoryStore(4 * MIB)
    writer = store.begin(b"k", entry(), MIB)
    assert writer is not None and AHEAD <= store.used < AHEAD + 4000
    for n in range(1, 11):
        assert writer.write(bytes(100_000)) and store.used - 4000 < max(AHEAD, n * 100_000) <= store.used
    writer.discard()
    assert store.used == 0
    short = store.begin(b"k", entry(), 1000)
    assert short is not None and 1000 < store.used < 5000
    short.discard()


def test_lengths_that_are_only_announced_evict_nobody() -> None:
    store = MemoryStore(8 * MIB)
    small = [stored(store, b"%d" % n, b"x" * 1000) for n in range(100)]
    huge = [store.begin(b"huge %d" % n, entry(), 2 * MIB) for n in range(20)]
    assert all(huge) and all(one.store is not None for one in small)
    for writer in huge:
        assert writer is not None
        while writer.content.size < 2 * MIB and writer.write(bytes(MIB // 8)):
            assert store.used <= store.limit
        writer.discard()
    assert store.used <= store.limit
    store.close()
    assert (store.used, store.findable) == (0, 0)


# Readers.


@pytest.mark.parametrize("size", [10, SPILL + 1])
def test_a_body_that_is_read_stays_and_stays_charged(size: int) -> None:
    store = MemoryStore(MIB)
    body = os.urandom(size)
    one = stored(store, b"k", body)
    source = ContentSource(one.body, 0, size)
    first = bytes(source.pull(5))
    store.remove(one)
    assert store.get(b"k") == () and store.used >= size
    assert first + read(source) == body
    source.close()
    source.close()
    assert store.used == 0
    assert source.pull(5) == b"" and source.as_file() is None


def test_pinned_bodies_leave_no_room_for_others() -> None:
    store = MemoryStore(400_000)
    sources = []
    for n in range(4):
        one = stored(store, b"k%d" % n, b"x" * 90_000)
        sources.append(ContentSource(one.body, 0, 90_000))
    assert put(store, b"new", b"x" * 90_000) is None
    assert store.used <= store.limit  # some are evicted, but none of them gone
    for source in sources:
        assert len(read(source, 10_000)) == 90_000
        source.close()
    assert store.used == 0
    stored(store, b"new", b"x" * 90_000)
    store.close()


@pytest.mark.parametrize("size", [10, 3000, SPILL, SPILL + 1, 100_000])
@pytest.mark.parametrize("pieces", [1, 7])
def test_any_part_can_be_read(size: int, pieces: int) -> None:
    store = MemoryStore(MIB)
    body = os.urandom(size)
    writer = store.begin(b"k", entry(), size)
    assert writer is not None
    step = -(-size // pieces)
    for at in range(0, size, step):
        assert writer.write(memoryview(body)[at : at + step])
    one = writer.commit()
    for start, stop in ((0, size), (size // 3, size // 2), (size - 1, size), (0, 1)):
        source = ContentSource(one.body, start, stop - start)
        file = source.as_file()
        assert (file is None) == (size <= SPILL)
        if file is not None:
            assert os.pread(file[0], file[2], file[1]) == body[start:stop]
        assert read(source, 700) == body[start:stop]
        assert source.rewind() and read(source, 100_000) == body[start:stop]
        source.close()
    assert (one.body.whole() == body) if size <= SPILL else (one.body.whole() is None)
    store.close()


def test_what_was_read_before_more_came_stays_what_it_was() -> None:
    store = MemoryStore(MIB)
    writer = store.begin(b"k", entry(), None)
    assert writer is not None
    writer.write(b"abc")
    first = writer.content.read(0, 10)
    writer.write(b"def")
    assert (bytes(first), bytes(writer.content.read(3, 10)), bytes(writer.content.read(2, 2))) == (b"abc", b"def", b"cd")
    writer.discard()


def test_many_small_pieces_cost_little_more_than_their_bytes() -> None:
    store = MemoryStore(MIB)
    writer = store.begin(b"k", entry(), None)
    assert writer is not None
    for n in range(20_000):
        writer.write(b"%c" % (n % 256))
    assert len(writer.content._pieces) <= 20_000 // (JOIN // 2)
    assert whole(writer.commit()) == bytes(n % 256 for n in range(20_000))
    store.close()


# Descriptors.


def test_a_long_body_lies_in_a_file_and_gives_its_descriptor_back() -> None:
    store = MemoryStore(MIB)
    before = open_descriptors()
    one = stored(store, b"k", b"x" * (SPILL + 1))
    assert one.body.fd is not None and open_descriptors() == before + 1
    store.remove(one)
    assert open_descriptors() == before


def test_a_long_body_arriving_in_pieces_moves_to_a_file() -> None:
    store = MemoryStore(MIB)
    writer = store.begin(b"k", entry(), None)
    assert writer is not None
    writer.write(b"a" * SPILL)
    assert writer.content.fd is None
    writer.write(b"b")
    assert writer.content.fd is not None
    assert bytes(writer.content.read(SPILL - 1, 10)) == b"ab"
    writer.discard()


def test_beyond_the_budget_of_descriptors_bodies_lie_in_memory() -> None:
    store = MemoryStore(MIB)
    store._descriptors = 1
    body = os.urandom(SPILL + 10_000)
    one, two = stored(store, b"1", body), stored(store, b"2", body)
    assert one.body.fd is not None and two.body.fd is None
    assert whole(two) == body
    store.remove(one)
    assert stored(store, b"3", body).body.fd is not None
    store.close()
    assert store._descriptors == 1


def test_the_budget_is_a_share_of_what_the_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1000, 4000))
    assert MemoryStore(MIB)._descriptors == 250
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert MemoryStore(MIB)._descriptors > 1000


def test_without_a_descriptor_after_all_memory_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(memory, "_memory_file", none_left)
    store = MemoryStore(MIB)
    body = os.urandom(100_000)
    one = stored(store, b"k", body)
    assert one.body.fd is None and whole(one) == body
    store.close()


def full(fd: int, data: object) -> None:
    raise OSError(28, "No space left on device")


def test_without_memory_for_files_at_the_start_memory_of_ours_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(MIB)
    budget = store._descriptors
    writer = store.begin(b"k", entry(), None)
    assert writer is not None and writer.write(b"a" * SPILL)
    monkeypatch.setattr(memory, "_write_all", full)
    assert writer.write(b"b" * 1000)
    one = writer.commit()
    assert one.body.fd is None and whole(one) == b"a" * SPILL + b"b" * 1000
    store.close()
    assert store._descriptors == budget


def test_without_memory_for_files_later_the_body_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(MIB)
    writer = store.begin(b"k", entry(), None)
    assert writer is not None and writer.write(b"a" * (SPILL + 1))
    monkeypatch.setattr(memory, "_write_all", full)
    assert not writer.write(b"b")
    assert bytes(writer.content.read(SPILL, 10)) == b"a"
    writer.discard()
    assert store.used == 0


# Whatever happens.


class Histories(RuleBasedStateMachine):
    """Any order of storing, reading, removing and updating; a plain dictionary says what must be there."""

    LIMIT = 60_000

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore(self.LIMIT)
        self.store._descriptors = 2
        self.writers: list[tuple[bytes, Entry, Writer, bytearray]] = []
        self.known: list[tuple[bytes, Entry, bytes]] = []  # committed, perhaps evicted since
        self.readers: list[tuple[ContentSource, bytes]] = []

    @rule(key=st.integers(0, 3), announced=st.none() | st.integers(0, 20_000), vary=st.sampled_from(["", "a", "b"]))
    def begin(self, key: int, announced: int | None, vary: str) -> None:
        one = entry(vary=vary)
        name = b"k%d" % key
        writer = self.store.begin(name, one, announced)
        if writer is not None:
            self.writers.append((name, one, writer, bytearray()))

    @precondition(lambda self: self.writers)
    @rule(which=st.integers(0, 100), size=st.sampled_from([1, 100, 5000, 15_000]))
    def write(self, which: int, size: int) -> None:
        at = which % len(self.writers)
        _, _, writer, body = self.writers[at]
        piece = bytes([which]) * size
        if writer.write(piece):
            body += piece
        else:
            writer.discard()
            del self.writers[at]

    @precondition(lambda self: self.writers)
    @rule(which=st.integers(0, 100), keep=st.booleans())
    def end(self, which: int, keep: bool) -> None:
        key, one, writer, body = self.writers.pop(which % len(self.writers))
        if keep:
            assert writer.commit() is one
            self.known.append((key, one, bytes(body)))
        else:
            writer.discard()

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 100))
    def open(self, which: int) -> None:
        _, one, body = self.known[which % len(self.known)]
        if one.store is not None:
            one.store.visited = True
            self.readers.append((ContentSource(one.body, 0, one.body.size), body))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 100))
    def read_and_close(self, which: int) -> None:
        source, body = self.readers.pop(which % len(self.readers))
        assert read(source) == body
        source.close()

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 100))
    def remove(self, which: int) -> None:
        self.store.remove(self.known[which % len(self.known)][1])

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 100), size=st.sampled_from([0, 1000, 30_000]))
    def update(self, which: int, size: int) -> None:
        at = which % len(self.known)
        key, old, body = self.known[at]
        if old.store is not None:
            new = freshened(old, ("X-Long", "x" * size))
            self.store.update(old, new)
            self.known[at] = (key, new, body)

    @rule(key=st.integers(0, 3))
    def purge(self, key: int) -> None:
        name = b"k%d" % key
        assert self.store.purge(lambda found, one: found == name) >= 0
        assert self.store.get(name) == ()

    @invariant()
    def the_limit_holds(self) -> None:
        assert 0 <= self.store.used <= self.LIMIT
        assert 0 <= self.store._descriptors <= 2

    @invariant()
    def what_is_charged_is_there(self) -> None:
        contents = {id(one.body): one.body for entries in self.store._entries.values() for one in entries}
        contents.update((id(writer.content), writer.content) for _, _, writer, _ in self.writers)
        contents.update((id(source._content), source._content) for source, _ in self.readers if source._content is not None)
        assert sum(content.charged for content in contents.values()) == self.store.used
        found = [one for entries in self.store._entries.values() for one in entries]
        assert sum(one.body.charged for one in found) == self.store.findable

    @invariant()
    def what_is_found_is_whole(self) -> None:
        bodies = {id(one): body for _, one, body in self.known}
        found = [one for entries in self.store._entries.values() for one in entries]
        assert len(found) == len(self.store)
        for one in found:
            assert one.store is not None and whole(one) == bodies[id(one)]

    def teardown(self) -> None:
        for _, _, writer, _ in self.writers:
            writer.discard()
        for source, _ in self.readers:
            source.close()
        self.store.close()
        assert (self.store.used, self.store._descriptors, len(self.store)) == (0, 2, 0)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=9000), max_size=12), st.integers(1, 20_000))
def test_pieces_come_back_as_the_bytes_they_were(pieces: list[bytes], limit: int) -> None:
    store = MemoryStore(MIB)
    content = Content(store, 0)
    for piece in pieces:
        assert content.reserve(content.size + len(piece))
        content.append(piece)
    source = ContentSource(content, 0, content.size)
    assert read(source, limit) == b"".join(pieces)
    source.close()
    content.release()
    assert store.used == 0
