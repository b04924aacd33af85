"""One fetch, many readers: every state of a fill with every event, and any order of them against a plain model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cache.entry import Entry
from cache.fill import ALONE, JOIN, LITTLE, STALL, WINDOW, Fill, FillReader
from cache.policy import DEFAULT_POLICY
from cache.stores.memory import MemoryStore
from reactor.errors import BodyCutShort
from reactor.exchange import PULL, Source
from reactor.http.fields import Fields
from reactor.loop import Reactor
from tests.cache.cases import NOW, WALL, date, request
from tests.loopback import Clock, open_descriptors
from tests.origin import no_cycles

MIB = 1 << 20


class Feed(Source):
    """A body played by a test. Who was told "later" must not ask again before it is called."""

    def __init__(self, reactor: Reactor, pieces: list[Any], length: int | None, trailers: Fields | None) -> None:
        super().__init__(length)
        self.reactor = reactor
        self.pieces = pieces
        self.over = False
        self.trailers = trailers
        self.pulls = 0
        self.closes = 0
        self.waiting = False

    def pull(self, limit: int) -> bytes | None:
        assert not self.closes and not self.waiting
        self.pulls += 1
        if not self.pieces:
            self.waiting = not self.over
            return b"" if self.over else None
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        if len(piece) > limit:
            self.pieces.insert(0, piece[limit:])
        return bytes(piece[:limit])

    def go(self, *pieces: Any, over: bool = False) -> None:
        self.pieces += pieces
        self.over = over
        if self.waiting and self.on_ready is not None:
            self.waiting = False
            self.reactor.call_soon(self.on_ready)

    def close(self) -> None:
        self.closes += 1


class Reader:
    """Someone who reads along, and keeps what it got."""

    def __init__(self, fill: Fill) -> None:
        self.source: FillReader = fill.join()
        self.source.on_ready = self._ready
        self.got = bytearray()
        self.ended = False
        self.cut: str | None = None
        self.called = 0
        self.waits = False

    def _ready(self) -> None:
        self.called += 1
        self.waits = False

    def read(self, limit: int = PULL, times: int = 1_000_000) -> bytes:
        """Pull until there is nothing for now; what came."""
        before = len(self.got)
        for _ in range(times):
            try:
                data = self.source.pull(limit)
            except BodyCutShort as error:
                self.cut = error.reason
                break
            if data is None:
                self.waits = True
                break
            if not data:
                self.ended = True
                break
            assert len(data) <= limit
            self.got += data
        return bytes(self.got[before:])


class Hall:
    """A loop, a store, and one fill from a body that the test plays."""

    def __init__(
        self, limit: int = 64 * MIB, length: int | None = None, *pieces: Any, trailers: Fields | None = None
    ) -> None:
        self.clock = Clock(1000.0)
        self.reactor = Reactor(clock=self.clock, wall_clock=lambda: WALL)
        self.store = MemoryStore(limit)
        self.source = Feed(self.reactor, list(pieces), length, trailers)
        self.entry = Entry(
            request(), 200, b"OK", Fields([("Date", date(0)), ("Cache-Control", "max-age=60")]), NOW, NOW, WALL, DEFAULT_POLICY
        )
        writer = self.store.begin(b"k", self.entry, length)
        assert writer is not None
        self.over: list[str] = []
        self.fill = Fill(self.reactor, self.entry, self.source, writer, self._over)

    def _over(self, fill: Fill) -> None:
        self.over.append(fill.state)

    def turns(self, number: int = 10) -> None:
        for _ in range(number):
            self.reactor.turn(0.0)

    def comes(self, *pieces: Any) -> None:
        """These arrive, and then nothing for now."""
        self.source.go(*pieces)
        self.turns()

    def ends(self, *pieces: Any) -> None:
        """These arrive, and the end."""
        self.source.go(*pieces, over=True)
        self.turns()

    def breaks(self, reason: str = "broken off") -> None:
        self.ends(BodyCutShort(reason))

    def join(self) -> Reader:
        return Reader(self.fill)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.turns()

    @property
    def body(self) -> bytes | None:
        """What is stored, where it can be found."""
        found = self.store.get(b"k")
        return bytes(found[0].body.read(0, 1 << 30)) if found else None

    def close(self) -> None:
        """Whoever is left leaves; nothing may be left behind."""
        for reader in list(self.fill.readers):
            reader.close()
        self.turns()
        if not self.fill.over:
            self.fill.failed(RuntimeError())
        self.turns()
        self.store.close()
        assert (self.store.used, self.reactor.pending_timers, self.reactor.watched) == (0, 0, 0)
        assert len(self.over) == 1 and self.source.closes == 1 and self.source.on_ready is None
        self.reactor.close()


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


# Filling.


def test_a_body_is_read_as_it_arrives_and_stored_with_its_end() -> None:
    hall = Hall()
    reader = hall.join()
    assert reader.read() == b"" and reader.waits
    hall.comes(b"hel")
    assert (reader.read(), hall.body, hall.fill.state) == (b"hel", None, "filling")
    hall.ends(b"lo")
    assert (reader.read(), reader.ended) == (b"lo", True)
    assert (hall.body, hall.fill.state, hall.over, hall.fill.stored) == (b"hello", "complete", ["complete"], True)
    hall.close()


def test_the_first_piece_is_taken_without_a_reader() -> None:
    hall = Hall(64 * MIB, None, b"hello")
    hall.fill.take_what_is_there()
    assert hall.fill.size == 5
    reader = hall.join()
    pulls = hall.source.pulls
    assert reader.read(times=1) == b"hello"
    assert hall.source.pulls == pulls
    hall.close()


def test_a_reader_that_joins_late_gets_it_from_the_first_byte() -> None:
    hall = Hall()
    first = hall.join()
    first.read()
    hall.comes(b"abc")
    first.read()
    second = hall.join()
    assert second.read() == b"abc"
    hall.ends(b"def")
    assert (first.read(), second.read()) == (b"def", b"def")
    assert (bytes(first.got), bytes(second.got)) == (b"abcdef", b"abcdef")
    hall.close()


def test_each_reads_at_its_own_pace() -> None:
    hall = Hall()
    fast, slow = hall.join(), hall.join()
    fast.read()
    for letter in b"abcdef":
        hall.comes(bytes([letter]) * 10)
        fast.read()
    hall.ends()
    fast.read()
    assert fast.ended and bytes(fast.got) == b"".join(bytes([letter]) * 10 for letter in b"abcdef")
    while slow.read(limit=7, times=1):
        pass
    assert slow.ended and slow.got == fast.got
    hall.close()


def test_upstream_waits_exactly_when_every_reader_is_behind() -> None:
    hall = Hall(64 * MIB, None, *[bytes([n]) * 1000 for n in range(50)])
    first, second = hall.join(), hall.join()
    first.read(1000, times=3)
    assert hall.fill.size == 3000
    second.read(1000, times=3)
    assert hall.fill.size == 3000
    second.read(1000, times=1)
    assert hall.fill.size == 4000
    hall.turns()
    assert hall.fill.size == 4000
    hall.close()


def test_only_who_waits_is_called_and_once() -> None:
    hall = Hall()
    waiting, idle = hall.join(), hall.join()
    waiting.read()
    hall.comes(b"a")
    assert (waiting.called, idle.called) == (1, 0)
    hall.comes(b"b")  # nobody waits: nobody pulls
    assert (waiting.called, hall.fill.size) == (1, 1)
    waiting.read()
    assert hall.fill.size == 2
    hall.close()


def test_nobody_is_called_from_within_a_pull() -> None:
    hall = Hall(64 * MIB, None)
    first, second = hall.join(), hall.join()
    first.read()
    hall.source.go(b"x")
    hall.fill._source_ready()
    second.read(times=1)
    assert first.called == 0 and bytes(second.got) == b"x"
    hall.turns(1)
    assert first.called == 1
    hall.close()


def test_trailers_come_to_every_reader() -> None:
    trailers = Fields([(b"X-Sum", b"7")])
    hall = Hall(64 * MIB, None, b"x", trailers=trailers)
    one, two = hall.join(), hall.join()
    for reader in (one, two):
        reader.read()
    hall.ends()
    for reader in (one, two):
        reader.read()
        assert reader.ended and reader.source.trailers is trailers
    hall.close()


def test_a_known_length_is_told() -> None:
    hall = Hall(64 * MIB, 5, b"hello")
    assert hall.join().source.length == 5
    hall.close()


@pytest.mark.parametrize("sent", [b"", b"hell", b"hello!"])
def test_a_body_of_another_length_than_its_head_says_is_not_stored(sent: bytes) -> None:
    hall = Hall(64 * MIB, 5, *([sent] if sent else []))
    reader = hall.join()
    reader.read()
    hall.ends()
    reader.read()
    assert (reader.cut is not None, hall.body, hall.over) == (True, None, ["broken"])
    hall.close()


def test_a_body_that_breaks_off_is_broken_for_all() -> None:
    hall = Hall()
    fast, slow, absent = hall.join(), hall.join(), hall.join()
    fast.read()
    hall.comes(b"abc")
    fast.read()
    slow.read(limit=1, times=1)
    hall.breaks("the line went dead")
    for reader in (fast, slow, absent):
        reader.read()
        assert (bytes(reader.got), reader.cut, reader.ended) == (b"abc", "the line went dead", False)
        reader.cut = None
        reader.read()
        assert reader.cut is not None  # and again
    assert (hall.body, hall.over, hall.fill.open) == (None, ["broken"], False)
    hall.close()


def test_a_source_that_raises_something_else_is_broken_for_all(caplog: pytest.LogCaptureFixture) -> None:
    hall = Hall()
    first, second = hall.join(), hall.join()
    first.read()
    second.read()
    hall.ends(ValueError("of the handler's own"))
    first.read()
    second.read()
    assert first.cut is not None and second.cut is not None
    assert "of the handler's own" in caplog.text and hall.over == ["broken"]
    hall.close()


# Leaving.


def test_a_reader_that_leaves_harms_nobody() -> None:
    hall = Hall()
    stays, leaves = hall.join(), hall.join()
    stays.read()
    leaves.read()
    hall.comes(b"abc")
    leaves.source.close()
    leaves.source.close()
    assert leaves.source.pull(10) == b""
    stays.read()
    hall.ends(b"def")
    stays.read()
    assert (bytes(stays.got), hall.body, leaves.called) == (b"abcdef", b"abcdef", 1)
    hall.close()


def test_a_reader_that_has_left_is_not_called() -> None:
    hall = Hall()
    stays, leaves = hall.join(), hall.join()
    stays.read()
    leaves.read()
    leaves.source.close()
    hall.comes(b"abc")
    assert (stays.called, leaves.called) == (1, 0)
    hall.close()


@pytest.mark.parametrize("length", [None, LITTLE + 4])
def test_the_last_one_leaving_ends_a_fetch_of_which_much_is_missing(length: int | None) -> None:
    hall = Hall(64 * MIB, length, b"abc")
    reader = hall.join()
    reader.read()
    reader.source.close()
    assert (hall.over, hall.source.closes, hall.body) == (["broken"], 1, None)
    assert hall.store.used == 0
    hall.close()


@pytest.mark.parametrize(
    ("etag", "length", "parts", "kept"),
    [('"a"', 100, True, True), ('"a"', 100, False, False), ('W/"a"', 100, True, False), (None, 100, True, False),
     ('"a"', None, True, False)],
)  # fmt: skip
def test_what_came_of_a_body_that_broke_off_may_be_kept_as_a_part(
    etag: str | None, length: int | None, parts: bool, kept: bool
) -> None:
    hall = Hall(64 * MIB, length)
    hall.fill._parts = parts
    hall.entry.etag = None if etag is None else etag.encode()
    reader = hall.join()
    reader.read()
    hall.comes(b"hello")
    hall.breaks()
    reader.read()
    assert reader.cut is not None and reader.got == b"hello"
    assert (hall.body, hall.fill.stored) == ((b"hello", True) if kept else (None, False))
    assert hall.entry.span == ((0, 5, 100) if kept else None)
    hall.close()


def test_what_is_stored_may_be_made_longer_while_it_is_read() -> None:
    hall = Hall()
    reader = hall.join()
    other = hall.join()
    other.read()
    hall.ends(b"hello")
    assert other.read() == b"hello" and other.ended
    assert reader.read(2, 1) == b"he"
    content = hall.entry.body
    assert content.reserve(10)
    content.append(b"WORLD")
    hall.store.findable += 5
    reader.read()
    assert reader.got == b"hello" and reader.ended
    hall.close()


def test_one_range_of_what_is_arriving() -> None:
    hall = Hall(64 * MIB, 10)
    reader = hall.join()
    reader.source.only(3, 7)
    assert reader.source.length == 4 and reader.read() == b"" and reader.waits
    hall.comes(b"012")
    assert reader.read() == b""
    hall.comes(b"34")
    assert reader.read() == b"34"
    hall.comes(b"5678")
    reader.read()
    assert reader.got == b"3456" and reader.ended
    reader.source.want_all()
    hall.ends(b"9")
    assert hall.body == b"0123456789"
    reader.source.want_all()
    hall.close()


def test_the_rest_of_a_range_may_be_wanted_too() -> None:
    hall = Hall(64 * MIB, LITTLE * 2)
    reader = hall.join()
    reader.source.only(0, 1)
    reader.source.want_all()
    hall.comes(b"x")
    reader.read()
    reader.source.close()
    hall.ends(bytes(LITTLE * 2 - 1))
    assert hall.over == ["complete"] and hall.body is not None
    hall.close()


def test_the_last_one_leaving_lets_a_fetch_go_on_of_which_little_is_missing() -> None:
    hall = Hall(64 * MIB, LITTLE + 3, b"abc")
    reader = hall.join()
    reader.read()
    reader.source.close()
    assert hall.over == [] and hall.fill.open
    late = hall.join()  # one may come meanwhile, and leave again
    late.read()
    late.source.close()
    hall.ends(bytes(LITTLE))
    assert (hall.over, hall.body) == (["complete"], b"abc" + bytes(LITTLE))
    hall.close()


def test_one_that_goes_on_alone_may_still_break() -> None:
    hall = Hall(64 * MIB, 10, b"abc")
    reader = hall.join()
    reader.read()
    reader.source.close()
    hall.breaks()
    assert (hall.over, hall.body, hall.store.used) == (["broken"], None, 0)
    hall.close()


def test_a_fill_that_nobody_reads_reads_itself() -> None:
    hall = Hall(64 * MIB, None, b"abc")
    hall.fill.take_what_is_there()
    hall.fill.read_alone()
    hall.turns()
    hall.ends(b"def")
    assert (hall.over, hall.body) == (["complete"], b"abcdef")
    hall.close()


def test_a_fill_that_nobody_reads_leaves_the_loop_its_turns() -> None:
    hall = Hall(64 * MIB, None, *[bytes(PULL)] * 40)
    hall.fill.read_alone()
    sizes = []
    for _ in range(4):
        hall.turns(1)
        sizes.append(hall.fill.size)
    assert sizes == [ALONE, 2 * ALONE, 3 * ALONE, 4 * ALONE]
    hall.close()


def test_nobody_was_there_at_all() -> None:
    hall = Hall(64 * MIB, None, b"abc")
    hall.fill.take_what_is_there()
    hall.fill.unread()
    assert hall.over == ["broken"]
    hall.close()


# Over.


@pytest.mark.parametrize("pieces", [[], [b"hello"]])
def test_an_entry_evicted_while_it_is_read_is_read_to_its_end(pieces: list[bytes]) -> None:
    hall = Hall(64 * MIB, None, *pieces)
    reader = hall.join()
    reader.read()
    late = hall.join()
    hall.ends(b"!")
    late.read()
    assert late.ended and hall.body == bytes(late.got)
    late.source.close()
    hall.store.remove(hall.entry)
    assert hall.body is None and hall.store.used > 0
    reader.read()
    assert reader.ended and bytes(reader.got) == b"".join(pieces) + b"!"
    reader.source.close()
    assert hall.store.used == 0
    hall.close()


def test_an_empty_body_is_complete_at_once() -> None:
    hall = Hall()
    hall.source.over = True
    hall.fill.take_what_is_there()
    assert (hall.over, hall.body) == (["complete"], b"")
    readers = [hall.join(), hall.join()]
    for reader in readers:
        reader.read()
        assert reader.ended and reader.source.length == 0
        reader.source.close()
    assert hall.store.used > 0 and hall.body == b""
    hall.close()


def test_a_body_broken_at_once_is_broken_for_those_who_waited() -> None:
    hall = Hall()
    hall.source.pieces[:] = [BodyCutShort("nothing came")]
    hall.fill.take_what_is_there()
    assert (hall.over, hall.store.used) == (["broken"], 0)
    for reader in (hall.join(), hall.join()):
        reader.read()
        assert reader.cut == "nothing came"
        reader.source.close()
    hall.close()


# The window of a body that is too large.


def large(length: int | None = None, *, readers: int = 2, limit: int = 4 * MIB) -> tuple[Hall, list[Reader]]:
    """A fill that has become a window: its object limit of a MiB is passed by a byte."""
    hall = Hall(limit)
    found = [hall.join() for _ in range(readers)]
    for reader in found:
        reader.read()
    hall.comes(*[bytes(PULL)] * 8, b"x")
    for reader in found:
        reader.read()
    assert (hall.fill.state, hall.fill.open, hall.fill.size) == ("window", False, MIB + 1)
    return hall, found


def test_a_body_that_is_too_large_is_read_to_its_end_and_not_stored() -> None:
    hall, readers = large()
    for n in range(20):
        hall.comes(bytes([n]) * 100_000)
        for reader in readers:
            assert reader.read() == bytes([n]) * 100_000
    hall.ends()
    for reader in readers:
        reader.read()
        assert reader.ended and len(reader.got) == MIB + 1 + 2_000_000
    assert (hall.over, hall.body, hall.fill.stored) == (["complete"], None, False)
    hall.close()


def test_who_reads_a_range_further_on_needs_none_of_what_comes_before() -> None:
    hall = Hall(4 * MIB)
    reader = Reader(hall.fill)
    reader.source.only(2 * MIB, 2 * MIB + 10)
    reader.read()
    for _ in range(30):
        hall.comes(bytes(100_000))
        assert sum(map(len, hall.fill._tail)) <= 200_000
        reader.read()
    assert reader.got == bytes(10)
    hall.close()


def test_small_pieces_of_a_window_are_joined() -> None:
    """A reader that is behind would have to look through each of them."""
    hall, (fast, slow) = large()
    for _ in range(3 * JOIN):
        hall.comes(b"x")
        assert fast.read() == b"x"
    assert slow.source.pull(PULL) == b"x" * JOIN
    assert slow.read() == b"x" * 2 * JOIN
    hall.close()


def test_what_every_reader_has_is_forgotten() -> None:
    hall, readers = large()
    assert hall.store.used == 0, "the store's part is given back once all have passed it"
    for _ in range(100):
        hall.comes(bytes(100_000))
        for reader in readers:
            reader.read()
        assert sum(map(len, hall.fill._tail)) <= 100_000
    hall.close()


def test_too_large_with_the_very_first_piece() -> None:
    hall = Hall(16_000, None, b"x" * 5000, b"y" * 5000)
    hall.fill.take_what_is_there()
    assert hall.fill.state == "window"
    readers = [hall.join(), hall.join()]
    for reader in readers:
        reader.read()
    hall.ends()
    for reader in readers:
        reader.read()
        assert reader.ended and bytes(reader.got) == b"x" * 5000 + b"y" * 5000
    hall.close()


def test_a_fill_that_nobody_reads_ends_where_it_turns_out_too_large() -> None:
    hall = Hall(4 * MIB, None, *[bytes(PULL)] * 9)
    hall.fill.read_alone()
    hall.turns()
    assert (hall.over, hall.source.closes, hall.store.used) == (["broken"], 1, 0)
    hall.close()


def test_a_window_breaks_off_for_all() -> None:
    hall, readers = large()
    hall.fill._parts, hall.source.length, hall.entry.etag = True, 64 * MIB, b'"one"'  # what is not stored leaves no part
    hall.comes(b"abc")
    readers[0].read()
    hall.breaks()
    for reader in readers:
        reader.read()
        assert reader.cut == "broken off" and reader.got.endswith(b"abc")
    assert not hall.fill.stored and hall.body is None
    hall.close()


def test_the_last_one_leaving_a_window_ends_it() -> None:
    hall, readers = large()
    for reader in readers:
        reader.source.close()
    assert (hall.over, hall.source.closes) == (["broken"], 1)
    hall.close()


def stalled(readers: int = 2) -> tuple[Hall, list[Reader]]:
    """A window that its last reader keeps full; the others wait."""
    hall, found = large(readers=readers)
    pieces = 0
    for _ in range(100):
        hall.comes(bytes(PULL))
        if not [reader.read() for reader in found[:-1]][0]:
            break
        pieces += 1
    assert hall.fill.size - found[-1].source.offset >= WINDOW
    assert hall.fill.size - found[-1].source.offset <= WINDOW + PULL
    assert all(reader.waits for reader in found[:-1])
    return hall, found


def test_a_window_is_bounded_and_waits_for_the_slowest() -> None:
    hall, (fast, slow) = stalled()
    pulls = hall.source.pulls
    fast.read()
    hall.turns()
    assert hall.source.pulls == pulls
    slow.read(PULL, times=2)
    hall.turns()
    assert fast.called and fast.read()
    assert hall.reactor.pending_timers == 0 or not fast.ended
    hall.close()


def test_a_reader_that_stalls_the_others_is_cut_off() -> None:
    hall, (fast, other, slow) = stalled(3)
    hall.pass_time(STALL - 0.1)
    fast.read()
    assert slow.source.cut is None
    hall.pass_time(0.2)
    assert slow.source.cut is not None
    hall.comes(b"more")
    for reader in (fast, other):
        reader.read()
        assert reader.got.endswith(b"more") and reader.cut is None
    slow.read()
    assert slow.cut is not None and "slow" in slow.cut
    slow.source.close()
    hall.ends()
    fast.read()
    assert fast.ended
    hall.close()


def test_a_slow_reader_that_nobody_waits_for_is_left_in_peace() -> None:
    hall, (fast, slow) = stalled()
    fast.source.close()
    hall.pass_time(STALL + 1)
    assert slow.source.cut is None
    before = len(slow.got)
    slow.read()
    assert len(slow.got) == hall.fill.size > before
    hall.ends()
    slow.read()
    assert slow.ended
    hall.close()


def test_the_slow_one_leaving_lets_the_others_go_on() -> None:
    hall, (fast, slow) = stalled()
    slow.source.close()
    hall.comes(b"more")
    fast.read()
    assert fast.got.endswith(b"more")
    hall.close()


def test_a_reader_that_is_slow_but_moves_is_not_cut_off() -> None:
    hall, (fast, slow) = stalled()
    for _ in range(20):
        hall.pass_time(STALL - 1)
        slow.read(PULL, times=2)
        hall.comes(bytes(PULL))
        fast.read()
    assert slow.source.cut is None and slow.cut is None
    hall.close()


def test_a_trickle_is_not_enough() -> None:
    hall, (fast, slow) = stalled()
    for _ in range(12):
        hall.pass_time(1.0)
        slow.read(1, times=1)
        fast.read()
    assert slow.cut is not None or slow.source.cut is not None
    hall.close()


# Every state with every event, as the table at the head of the file has it.


def in_state(state: str) -> tuple[Hall, Reader]:
    if state == "window":
        hall, (reader,) = large(readers=1)
        return hall, reader
    hall = Hall(64 * MIB, None, b"abc")
    reader = hall.join()
    reader.read()
    if state == "complete":
        hall.ends()
    elif state == "broken":
        hall.breaks()
    return hall, reader


TABLE = {
    ("filling", "piece"): "filling",
    ("filling", "piece without room"): "window",
    ("filling", "end"): "complete",
    ("filling", "cut"): "broken",
    ("filling", "last leaves"): "broken",
    ("filling", "failed"): "broken",
    ("window", "piece"): "window",
    ("window", "piece without room"): "window",
    ("window", "end"): "complete",
    ("window", "cut"): "broken",
    ("window", "last leaves"): "broken",
    ("window", "failed"): "broken",
    ("complete", "piece"): "complete",
    ("complete", "piece without room"): "complete",
    ("complete", "end"): "complete",
    ("complete", "cut"): "complete",
    ("complete", "last leaves"): "complete",
    ("complete", "failed"): "complete",
    ("broken", "piece"): "broken",
    ("broken", "piece without room"): "broken",
    ("broken", "end"): "broken",
    ("broken", "cut"): "broken",
    ("broken", "last leaves"): "broken",
    ("broken", "failed"): "broken",
}


@pytest.mark.parametrize(("state", "event"), TABLE)
def test_the_table(state: str, event: str) -> None:
    hall, reader = in_state(state)
    assert hall.fill.state == state and state in repr(hall.fill)
    if event == "piece":
        hall.comes(b"x")
    elif event == "piece without room":
        hall.store.largest = 0
        hall.comes(b"x")
    elif event == "end":
        hall.ends()
    elif event == "cut":
        hall.breaks()
    elif event == "last leaves":
        reader.source.close()
    else:
        hall.fill.failed(RuntimeError("a callback's"))
    assert hall.fill.state == TABLE[state, event]
    assert hall.fill.open == (hall.fill.state in ("filling", "complete"))
    assert hall.over == ([hall.fill.state] if hall.fill.over else [])
    hall.close()


# Any order.


class Histories(RuleBasedStateMachine):
    """Pieces come, readers come, read and go; each must see what arrived, in order, to the end or the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.hall = Hall(4 * 300_000)
        self.arriving = bytearray()  # what the source has given or will give
        self.finished = ""
        self.readers: list[Reader] = []
        self.number = 0

    @precondition(lambda self: self.hall.fill.open)
    @rule()
    def join(self) -> None:
        self.readers.append(self.hall.join())

    @precondition(lambda self: not self.finished)
    @rule(size=st.sampled_from([1, 1000, 50_000, 200_000]))
    def comes(self, size: int) -> None:
        self.number += 1
        piece = bytes([self.number % 256]) * size
        self.arriving += piece
        self.hall.source.go(piece)

    @precondition(lambda self: not self.finished)
    @rule(cut=st.booleans())
    def finish(self, cut: bool) -> None:
        self.finished = "cut" if cut else "end"
        self.hall.source.go(*([BodyCutShort("cut")] if cut else []), over=True)

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 9), limit=st.sampled_from([1000, PULL]), times=st.integers(1, 300))
    def read(self, which: int, limit: int, times: int) -> None:
        self.readers[which % len(self.readers)].read(limit, times)

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 9))
    def leave(self, which: int) -> None:
        self.readers.pop(which % len(self.readers)).source.close()

    @rule()
    def turn(self) -> None:
        self.hall.turns(3)

    @rule()
    def time_passes(self) -> None:
        self.hall.pass_time(STALL + 1)

    @invariant()
    def readers_see_what_arrived(self) -> None:
        for reader in self.readers:
            assert self.arriving.startswith(reader.got)
            if reader.ended:
                assert self.finished == "end" and reader.got == self.arriving

    @invariant()
    def memory_is_bounded(self) -> None:
        assert sum(map(len, self.hall.fill._tail)) <= WINDOW + 2 * PULL
        assert self.hall.store.used <= self.hall.store.limit

    @invariant()
    def stored_means_whole(self) -> None:
        if self.hall.body is not None:
            assert self.hall.body == self.arriving and self.finished == "end"

    @invariant()
    def it_is_over_once(self) -> None:
        assert len(self.hall.over) == self.hall.fill.over

    def teardown(self) -> None:
        try:
            for _ in range(50):
                self.hall.turns(3)
                for reader in self.readers:
                    reader.read()
            if self.finished:
                for reader in self.readers:
                    assert reader.ended or reader.cut is not None, "a reader was forgotten"
        finally:
            for reader in self.readers:
                reader.source.close()
            self.hall.close()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("end", ["ends", "breaks"])
def test_no_cycles_are_left(end: str) -> None:
    hall = Hall()
    with no_cycles():
        other = Hall()
        sources: list[Source] = [other.fill.join(), other.fill.join()]
        for source in sources:
            source.pull(10)
        other.comes(b"abc")
        getattr(other, end)()
        for source in sources:
            source.close()
        other.turns()
        other.store.close()
        other.reactor.close()
        del other, source, sources
    hall.close()
