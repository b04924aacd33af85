"""A stream and its peer: what was written and what arrived, what the owner was told and when, in every state.

The owner writes down what it is told. Nothing may be written down while a method of the stream runs: every step is
checked for that before the loop is turned.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reactor import stream as stream_module
from reactor.errors import BodyCutShort
from reactor.loop import READ
from reactor.stream import FIRST_READ, HIGH_WATER, LINGER_BYTES, LINGER_SECONDS, LOW_WATER, Stream
from tests.loopback import House, housed, tcp_pair

RESET = struct.pack("ii", 1, 0)
MUCH = bytes(range(256)) * 8192  # 2 MiB: more than any kernel buffer here takes


class Owner:
    """Writes down what it is told; `on` says what to do at a word."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.on: dict[str, Callable[[], object]] = {}

    def _tell(self, word: str, *more: Any) -> None:
        self.told.append((word, *more) if more else word)
        action = self.on.get(word)
        if action is not None:
            action()

    def data_received(self, data: bytes) -> None:
        self._tell("data", data)

    def eof_received(self) -> None:
        self._tell("eof")

    def resume_writing(self) -> None:
        self._tell("resume")

    def drained(self) -> None:
        self._tell("drained")

    def connection_lost(self, error: Exception | None) -> None:
        self._tell("lost", _name(error))

    def failed(self, error: Exception) -> None:
        self._tell("failed", str(error))


def _name(error: Exception | None) -> str | None:
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode[error.errno]
    return None if error is None else type(error).__name__


class CountedSocket(socket.socket):
    """Counts the calls that send, and takes at most so much of each."""

    sends = 0
    room: int | None = None

    def _limited(self, data: bytes) -> bytes:
        self.sends += 1
        if self.room == 0:
            raise BlockingIOError(errno.EAGAIN, "full")
        return data if self.room is None else data[: self.room]

    def send(self, data: Any, *flags: Any) -> int:
        return super().send(self._limited(bytes(data)), *flags)

    def sendmsg(self, buffers: Any, *rest: Any) -> int:
        return super().sendmsg([self._limited(b"".join(buffers))], *rest)


class Scene:
    """A stream over TCP, its owner, and the peer at the other end."""

    def __init__(self, house: House, connected: bool = True) -> None:
        self.house = house
        accepted, self.far = tcp_pair()
        self.near = CountedSocket(fileno=accepted.detach())
        self.near.setblocking(False)
        self.owner = Owner()
        self.stream = Stream(house.reactor, self.owner)
        house.cleanups += [self.near.close, self.far.close, self.stream.abort]
        if connected:
            self.stream.start(self.near)

    @property
    def state(self) -> str:
        return self.stream.state

    def told(self) -> list[Any]:
        """What the owner was told since this was asked last, with the loop turned."""
        self.house.turns()
        told, self.owner.told = self.owner.told, []
        return told

    def quietly(self, call: Callable[..., object], *args: Any) -> None:
        """Call, and see that nobody is called back from within."""
        before = list(self.owner.told)
        call(*args)
        assert self.owner.told == before, "called back from inside a call"

    def do(self, event: str) -> None:
        """One event of the table."""
        stream = self.stream
        calls: dict[str, Callable[[], object]] = {
            "start": lambda: stream.start(self.near),
            "write": lambda: stream.write(b"hello"),
            "write nothing": lambda: stream.write(b""),
            "write much": lambda: stream.write(MUCH),
            "write parts": lambda: stream.write_parts([b"hel", b"", b"lo"]),
            "send file": self._send_file,
            "cork, uncork": self._cork_and_uncork,
            "pause, resume": self._pause_and_resume,
            "shut down": stream.shutdown_write,
            "close": stream.close,
            "abort": stream.abort,
            "peer sends": lambda: self.far.send(b"ping"),
            "peer ends": lambda: self.far.shutdown(socket.SHUT_WR),
            "peer resets": self.reset,
            "peer reads": lambda: None,
            "time": lambda: None,
        }
        self.quietly(calls[event])
        if event == "time":
            self.house.pass_time(LINGER_SECONDS)
        elif event == "peer reads":
            self.read()

    def _cork_and_uncork(self) -> None:
        self.stream.cork()
        self.stream.uncork()

    def _pause_and_resume(self) -> None:
        self.stream.pause_reading()
        self.stream.resume_reading()

    def _send_file(self) -> None:
        fd = os.memfd_create("file")
        os.write(fd, b"hello")
        self.stream.send_file(fd, 0, 5)
        self.house.cleanups.append(lambda: os.close(fd))

    def reset(self) -> None:
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.far.close()

    def read(self, most: int = 1 << 30) -> bytes:
        """What the peer can read while the loop turns; `over` or `was_reset` tell of an end."""
        data = bytearray()
        idle = 0
        while len(data) < most and idle < 30:
            try:
                piece = self.far.recv(min(1 << 16, most - len(data)))
            except BlockingIOError:
                idle += 1
                self.house.turns(2)
                continue
            if not piece:
                break
            data += piece
            idle = 0
        return bytes(data)

    def peer_end(self) -> str:
        """How the connection looks from the other side once everything was read."""
        self.house.turns()
        try:
            while self.far.recv(1 << 16):
                pass
        except BlockingIOError:
            return "open"
        except ConnectionResetError:
            return "reset"
        return "ended"


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture
def scene(house: House) -> Scene:
    return Scene(house)


# Every state and every event.


def _into(house: House, state: str) -> Scene:
    scene = Scene(house, connected=state != "connecting")
    if state == "flushing":
        scene.stream.write(MUCH)
        scene.stream.close()
    elif state == "lingering":
        scene.stream.close()
    elif state == "broken":
        scene.reset()
        scene.stream.write(b"into the void")
    elif state == "closed":
        scene.stream.abort()
        scene.house.turns()
        scene.owner.told.clear()
    assert scene.state == state
    assert scene.owner.told == []
    return scene


NOTHING: tuple[str, list[Any]] = ("same", [])
LOST: tuple[str, list[Any]] = ("closed", [("lost", None)])
TABLE: dict[str, dict[str, tuple[str, list[Any]]]] = {
    "connecting": {
        "start": ("open", []),
        "write": NOTHING,
        "write nothing": NOTHING,
        "write much": NOTHING,
        "write parts": NOTHING,
        "send file": NOTHING,
        "cork, uncork": NOTHING,
        "pause, resume": NOTHING,
        "shut down": NOTHING,
        "close": LOST,
        "abort": LOST,
        "time": NOTHING,
    },
    "open": {
        "write": NOTHING,
        "write nothing": NOTHING,
        "write much": NOTHING,
        "write parts": NOTHING,
        "send file": NOTHING,
        "cork, uncork": NOTHING,
        "pause, resume": NOTHING,
        "shut down": NOTHING,
        "close": ("lingering", []),
        "abort": LOST,
        "peer sends": ("open", [("data", b"ping")]),
        "peer ends": ("open", ["eof"]),
        "peer resets": ("closed", [("lost", "ECONNRESET")]),
        "peer reads": NOTHING,
        "time": NOTHING,
    },
    "flushing": {
        "write": NOTHING,
        "write nothing": NOTHING,
        "write much": NOTHING,
        "write parts": NOTHING,
        "send file": NOTHING,
        "cork, uncork": NOTHING,
        "pause, resume": NOTHING,
        "shut down": NOTHING,
        "close": NOTHING,
        "abort": LOST,
        "peer sends": NOTHING,
        "peer ends": NOTHING,
        "peer resets": ("closed", [("lost", "ECONNRESET")]),
        "peer reads": ("lingering", ["drained"]),
        "time": NOTHING,  # how long a peer may take is the owner's to say
    },
    "lingering": {
        "write": NOTHING,
        "write nothing": NOTHING,
        "write much": NOTHING,
        "write parts": NOTHING,
        "send file": NOTHING,
        "cork, uncork": NOTHING,
        "pause, resume": NOTHING,
        "shut down": NOTHING,
        "close": NOTHING,
        "abort": LOST,
        "peer sends": NOTHING,
        "peer ends": LOST,
        "peer resets": LOST,
        "peer reads": NOTHING,
        "time": LOST,
    },
    "broken": {
        event: ("closed", [("lost", "ECONNRESET")])
        for event in (
            "write",
            "write nothing",
            "write much",
            "write parts",
            "send file",
            "cork, uncork",
            "pause, resume",
            "shut down",
            "close",
            "abort",
            "time",
        )
    },
    "closed": {
        event: NOTHING
        for event in (
            "start",
            "write",
            "write nothing",
            "write much",
            "write parts",
            "send file",
            "cork, uncork",
            "pause, resume",
            "shut down",
            "close",
            "abort",
            "time",
        )
    },
}


@pytest.mark.parametrize(("state", "event"), [(state, event) for state, events in TABLE.items() for event in events])
def test_every_state_and_every_event(state: str, event: str, house: House) -> None:
    scene = _into(house, state)
    after, told = TABLE[state][event]
    scene.do(event)
    assert scene.told() == told
    assert scene.state == (state if after == "same" else after)
    assert f" {scene.state}" in repr(scene.stream)
    scene.stream.abort()
    lost = [word for word in told + scene.told() if word[0] == "lost"]
    assert len(lost) == (state != "closed")  # the last call, and made once
    assert scene.owner.told == []


# Writing.


def test_what_is_written_arrives_at_once(scene: Scene) -> None:
    scene.quietly(scene.stream.write, b"hello")
    assert scene.far.recv(100) == b"hello"
    assert (scene.stream.backlog, scene.stream.sent) == (0, 5)
    assert scene.told() == []  # who wrote knows from the backlog


def test_what_was_written_before_the_connection_stands_is_sent_then(house: House) -> None:
    scene = Scene(house, connected=False)
    scene.quietly(scene.stream.write, b"hel")
    scene.quietly(scene.stream.write, b"lo")
    assert scene.stream.backlog == 5
    scene.quietly(scene.stream.start, scene.near)
    assert scene.far.recv(100) == b"hello"
    assert scene.told() == ["drained"]


def test_an_end_asked_for_before_the_connection_stands_comes_then(house: House) -> None:
    for written in (b"", b"hello"):
        scene = Scene(house, connected=False)
        scene.stream.write(written)
        scene.stream.shutdown_write()
        scene.quietly(scene.stream.start, scene.near)
        assert scene.read() == written
        assert scene.peer_end() == "ended"
        assert scene.state == "open"
        scene.stream.abort()


def test_a_connection_that_comes_after_an_abort_is_closed(house: House) -> None:
    scene = Scene(house, connected=False)
    scene.stream.abort()
    scene.stream.start(scene.near)
    assert scene.told() == [("lost", None)]
    assert scene.peer_end() == "ended"
    assert scene.near.fileno() == -1


def test_what_the_kernel_does_not_take_is_sent_later_and_in_order(scene: Scene) -> None:
    for start in range(0, len(MUCH), 100_000):
        scene.quietly(scene.stream.write, MUCH[start : start + 100_000])
    assert scene.stream.backlog == len(MUCH) - scene.stream.sent > 0
    assert scene.read() == MUCH
    assert scene.stream.backlog == 0
    assert scene.told() == ["resume", "drained"]


def test_a_full_kernel_at_the_first_byte(scene: Scene) -> None:
    scene.near.room = 0
    scene.quietly(scene.stream.write, b"hello")
    assert scene.stream.backlog == 5
    scene.near.room = 2
    assert scene.read() == b"hello"
    assert scene.told() == ["drained"]


def test_memoryviews_may_be_written(scene: Scene) -> None:
    scene.near.room = 3
    scene.stream.write(memoryview(b"hello")[1:])
    scene.stream.write_parts([memoryview(b" wor"), b"", memoryview(b"ld")])
    assert scene.read() == b"ello world"


def test_the_marks(scene: Scene) -> None:
    scene.near.room = 0
    scene.stream.write(b"x" * (HIGH_WATER - 1))
    scene.near.room = HIGH_WATER - LOW_WATER
    scene.read(HIGH_WATER - LOW_WATER)
    scene.near.room = 0
    assert scene.told() == []  # it never was above the high mark
    scene.stream.write(b"x" * HIGH_WATER)
    assert scene.stream.backlog > HIGH_WATER
    scene.near.room = None
    scene.read(scene.stream.backlog - LOW_WATER)
    while scene.stream.backlog > LOW_WATER:
        assert scene.told() == []
        scene.read(4096)
    assert scene.told() == ["resume"]
    scene.read()
    assert scene.told() == ["drained"]


def test_a_backlog_that_goes_at_once_tells_drained_alone(scene: Scene) -> None:
    scene.near.room = 0
    scene.stream.write(b"x" * (HIGH_WATER + 1))
    scene.stream.write(b"y")
    scene.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * HIGH_WATER)
    scene.near.room = None
    assert scene.told() == ["drained"]
    scene.read()


def test_a_high_mark_that_passed_within_a_call_is_forgotten(scene: Scene) -> None:
    scene.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * HIGH_WATER)
    scene.stream.cork()
    scene.stream.write(b"x" * HIGH_WATER)
    assert scene.stream.backlog == 0
    scene.stream.uncork()
    scene.near.room = 0
    scene.stream.write(b"hello")
    scene.near.room = 1
    assert scene.told() == ["drained"]  # and nobody is told to resume who never had to stop
    scene.read()


def test_one_streams_share_of_a_turn_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "TURN_BYTES", 10)
    monkeypatch.setattr(stream_module, "GATHER", 1)
    scene.stream.write_parts([b"123456"] * 10)
    assert scene.stream.sent == 12
    scene.house.reactor.turn(0)
    assert scene.stream.sent == 24
    assert scene.read() == b"123456" * 10
    assert scene.told() == ["drained"]


# Corks.


def test_corked_writes_leave_together(scene: Scene) -> None:
    scene.stream.cork()
    for piece in (b"a", b"b", b"c"):
        scene.quietly(scene.stream.write, piece)
    scene.stream.write_parts([b"d", b"e"])
    assert (scene.near.sends, scene.stream.backlog) == (0, 5)
    scene.quietly(scene.stream.uncork)
    assert (scene.near.sends, scene.stream.backlog) == (1, 0)
    assert scene.read() == b"abcde"
    assert scene.told() == []


def test_a_cork_gives_way_at_the_high_mark(scene: Scene) -> None:
    scene.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * HIGH_WATER)
    scene.stream.cork()
    scene.stream.write(b"x" * (HIGH_WATER - 1))
    assert scene.near.sends == 0
    scene.quietly(scene.stream.write, b"x")
    assert scene.near.sends > 0
    scene.stream.uncork()
    assert len(scene.read()) == HIGH_WATER


def test_parts_leave_with_one_call(scene: Scene) -> None:
    scene.quietly(scene.stream.write_parts, [b"head", b"", b"body"])
    assert scene.near.sends == 1
    assert scene.read() == b"headbody"


@pytest.mark.parametrize("room", range(9))
def test_of_parts_that_leave_in_part_the_rest_follows(scene: Scene, room: int) -> None:
    scene.near.room = room
    scene.quietly(scene.stream.write_parts, [b"head", b"", b"body"])
    assert (scene.stream.sent, scene.stream.backlog) == (room, 8 - room)
    scene.near.room = 100
    scene.told()
    assert scene.read() == b"headbody" and scene.stream.backlog == 0


def test_more_parts_than_one_call_takes(scene: Scene) -> None:
    parts: list[bytes | memoryview] = [b"%d," % number for number in range(1000)]
    scene.stream.write_parts(parts)
    assert scene.read() == b"".join(parts)


def test_closing_pulls_the_cork(scene: Scene) -> None:
    scene.stream.cork()
    scene.stream.write(b"hello")
    scene.quietly(scene.stream.close)
    assert scene.read() == b"hello"
    assert scene.state == "lingering"


def test_a_cork_while_connecting_holds(house: House) -> None:
    scene = Scene(house, connected=False)
    scene.stream.cork()
    scene.stream.write(b"hel")
    scene.stream.start(scene.near)
    scene.stream.write(b"lo")
    assert scene.near.sends == 0
    scene.stream.uncork()
    assert scene.read() == b"hello"


# Files.


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(MUCH)
    fd = os.open(tmp_path / "file", os.O_RDWR)
    yield fd
    os.close(fd)


def test_a_file_is_sent_between_its_neighbours(scene: Scene, file: int) -> None:
    scene.quietly(scene.stream.write, b"before,")
    scene.quietly(scene.stream.send_file, file, 1000, len(MUCH) - 2000)
    scene.quietly(scene.stream.write, b",after")
    assert scene.stream.backlog == len(MUCH) - 2000 + len(b"before,,after") - scene.stream.sent
    assert scene.read() == b"before," + MUCH[1000:-1000] + b",after"
    assert scene.told() == ["resume", "drained"]


@pytest.mark.parametrize("size", [0, 100, len(MUCH)])
@pytest.mark.parametrize("before", ["nothing", "a cork", "what the kernel did not take"])
def test_a_head_and_its_file_as_one(scene: Scene, file: int, size: int, before: str) -> None:
    if before == "a cork":
        scene.stream.cork()
    elif before != "nothing":
        scene.quietly(scene.stream.write, MUCH)
    scene.quietly(scene.stream.send_with_file, b"head,", file, 0, size)
    scene.quietly(scene.stream.write, b",after")
    scene.stream.uncork()
    sent_before = b"" if before in ("nothing", "a cork") else MUCH
    assert scene.read() == sent_before + b"head," + MUCH[:size] + b",after"
    assert scene.stream.backlog == 0


def test_a_head_and_its_file_after_the_write_side_was_shut_are_dropped(scene: Scene, file: int) -> None:
    scene.stream.shutdown_write()
    scene.quietly(scene.stream.send_with_file, b"head,", file, 0, 100)
    assert (scene.read(), scene.stream.state, scene.told()) == (b"", "open", [])


def takes(monkeypatch: pytest.MonkeyPatch, *answers: int | OSError) -> None:
    """What the kernel takes of a file at the first calls, at most; then it takes what it can."""
    left, sendfile = list(answers), os.sendfile

    def limited(out: int, file: int, offset: int, count: int) -> int:
        answer = left.pop(0) if left else count
        if isinstance(answer, OSError):
            raise answer
        return sendfile(out, file, offset, min(count, answer))

    monkeypatch.setattr(os, "sendfile", limited)


FULL = BlockingIOError(errno.EAGAIN, "full")


@pytest.mark.parametrize(
    ("room", "answers", "sent"),
    [
        (None, (), 105),
        (None, (100,), 105),
        (None, (99,), 104),
        (None, (1, FULL), 6),
        (None, (FULL, FULL), 5),
        (None, (FULL, 40, FULL), 45),
        (None, (FULL,), 105),  # there was room by then
        (0, (), 0),
        (3, (), 105),
        (3, (40, FULL), 45),
        (3, (FULL,), 5),
    ],
)
def test_what_the_kernel_takes_of_a_head_and_its_file(
    room: int | None, answers: tuple[int | OSError, ...], sent: int, scene: Scene, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes(monkeypatch, *answers)
    scene.near.room = room
    scene.quietly(scene.stream.send_with_file, b"head,", file, 7, 100)
    assert (scene.stream.sent, scene.stream.backlog) == (sent, 105 - sent)
    assert (scene.stream._queue is None) == (sent == 105)
    scene.near.room = None
    scene.quietly(scene.stream.write, b",after")
    assert scene.read() == b"head," + MUCH[7:107] + b",after"
    assert scene.told() == ([] if sent == 105 else ["drained"])
    assert scene.stream.sent == 111


def test_a_head_and_its_file_have_a_share_of_the_turn(scene: Scene, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "TURN_BYTES", 10)
    scene.quietly(scene.stream.send_with_file, b"head,", file, 0, 25)
    assert scene.stream.sent == 15
    scene.house.reactor.turn(0)
    assert scene.stream.sent == 25
    assert scene.read() == b"head," + MUCH[:25]


def test_a_head_and_its_file_before_the_connection_stands(house: House, file: int) -> None:
    scene = Scene(house, connected=False)
    scene.quietly(scene.stream.send_with_file, b"head,", file, 0, 100)
    assert scene.stream.backlog == 105
    scene.quietly(scene.stream.start, scene.near)
    assert scene.read() == b"head," + MUCH[:100]
    assert scene.told() == ["drained"]


def test_a_head_and_its_file_that_reach_the_high_mark(scene: Scene, file: int) -> None:
    scene.near.room = 0
    scene.quietly(scene.stream.send_with_file, b"head,", file, 0, HIGH_WATER - 5)
    scene.near.room = None
    scene.read(HIGH_WATER - LOW_WATER + 1)
    assert scene.told() == ["resume"]
    scene.read()
    assert scene.told() == ["drained"]


def test_a_corked_head_and_its_file_leave_when_the_cork_is_pulled(scene: Scene, file: int) -> None:
    scene.stream.cork()
    scene.quietly(scene.stream.send_with_file, b"head,", file, 0, 100)
    assert (scene.near.sends, scene.stream.sent, scene.stream.backlog) == (0, 0, 105)
    scene.quietly(scene.stream.send_with_file, b"head,", file, 0, 100)
    scene.quietly(scene.stream.uncork)
    assert (scene.stream.sent, scene.stream.backlog) == (210, 0)
    assert scene.read() == (b"head," + MUCH[:100]) * 2


@pytest.mark.parametrize("error", [None, OSError(errno.EIO, "the disk is broken")])
def test_a_head_and_its_file_that_cannot_be_sent(
    error: OSError | None, scene: Scene, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if error is None:
        scene.reset()
    else:
        takes(monkeypatch, error, error)
    scene.quietly(scene.stream.send_with_file, b"head,", file, 0, 100)
    assert scene.state == "broken"
    assert scene.stream.sent == (0 if error is None else 5)
    assert scene.told() == [("lost", "EPIPE" if error is None else "EIO")]


@pytest.mark.parametrize("length", [0, 40])
def test_a_head_whose_file_is_too_short_is_seen_cut_short(length: int, scene: Scene, file: int) -> None:
    os.ftruncate(file, length)
    scene.quietly(scene.stream.send_with_file, b"head,", file, 0, 100)
    assert scene.state == ("open" if length else "broken")
    scene.house.turns()
    assert scene.peer_end() == "reset"
    assert scene.told() == [("lost", "BodyCutShort")]


@pytest.mark.parametrize("answers", [(40, FULL), (FULL, FULL), (FULL, 40, FULL)])
@pytest.mark.parametrize("changed", [True, False])
def test_a_head_whose_file_changes_once_it_is_out(
    answers: tuple[int | OSError, ...], changed: bool, scene: Scene, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes(monkeypatch, *answers)
    scene.quietly(scene.stream.send_with_file, b"head,", file, 0, 100, lambda: not changed)
    scene.house.turns()
    assert scene.told() == [("lost", "BodyCutShort") if changed else "drained"]
    assert scene.peer_end() == ("reset" if changed else "open")


@pytest.mark.parametrize("answers", [(), (FULL,)])
def test_a_file_that_left_with_its_head_is_not_asked_for(
    answers: tuple[OSError, ...], scene: Scene, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes(monkeypatch, *answers)
    scene.quietly(scene.stream.send_with_file, b"head,", file, 0, 100, lambda: False)
    assert scene.read() == b"head," + MUCH[:100]


def test_a_file_is_asked_for_before_its_last_bytes(scene: Scene, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "TURN_BYTES", 10)
    asked: list[int] = []

    def intact() -> bool:
        asked.append(scene.stream.sent)
        return True

    scene.quietly(scene.stream.send_with_file, b"head,", file, 0, 30, intact)
    assert scene.read() == b"head," + MUCH[:30]
    assert asked == [25]


def test_a_head_leaves_with_the_first_bytes_of_its_file(scene: Scene, file: int) -> None:
    scene.stream.cork()
    scene.stream.write(b"head,")
    scene.stream.send_file(file, 0, 100)
    scene.stream.uncork()
    assert scene.stream.backlog == 0
    assert scene.far.recv(1000) == b"head," + MUCH[:100]
    assert scene.told() == []


def test_an_empty_range_is_nothing(scene: Scene, file: int) -> None:
    scene.stream.send_file(file, 0, 0)
    assert (scene.stream.backlog, scene.told()) == (0, [])


@pytest.mark.parametrize("length", [0, 10, 1_000_000])
def test_a_file_that_becomes_shorter_is_seen_cut_short(length: int, scene: Scene, file: int) -> None:
    scene.stream.write(b"head,")
    if not length:
        os.ftruncate(file, 0)
        scene.quietly(scene.stream.send_file, file, 0, len(MUCH))
    else:
        scene.quietly(scene.stream.send_file, file, 0, len(MUCH))
        os.ftruncate(file, min(length, scene.stream.sent))
    with pytest.raises(ConnectionResetError):
        scene.read()
    assert scene.told() == [("lost", "BodyCutShort")]


def test_a_file_that_changed_is_not_sent_to_its_end(scene: Scene, file: int) -> None:
    """It is asked for only where some of it has gone and the rest may go with one call."""
    asked: list[int] = []

    def intact() -> bool:
        asked.append(scene.stream.sent)
        return False

    scene.quietly(scene.stream.send_file, file, 0, 100, intact)
    assert (scene.stream.sent, asked) == (100, [])
    scene.quietly(scene.stream.send_file, file, 0, len(MUCH), intact)
    with pytest.raises(ConnectionResetError):
        scene.read()
    assert asked == [scene.stream.sent] and 100 < scene.stream.sent < len(MUCH)
    assert scene.told() == [("lost", "BodyCutShort")]


def test_what_the_peers_kernel_has_taken(scene: Scene) -> None:
    scene.stream.write(b"x" * 1000)
    scene.house.until(lambda: scene.stream.taken() == 1000, "its word of that")
    scene.stream.write(b"x" * 1_000_000)
    assert 1000 <= scene.stream.taken() < scene.stream.sent <= 1_001_000 - scene.stream.backlog, "ours holds some"
    scene.stream.abort()
    assert scene.stream.taken() <= scene.stream.sent


def test_closing_sends_the_file_first(scene: Scene, file: int) -> None:
    scene.stream.send_file(file, 0, len(MUCH))
    scene.quietly(scene.stream.close)
    assert scene.state == "flushing"
    assert scene.read() == MUCH
    assert scene.peer_end() == "ended"
    assert scene.told() == ["resume", "drained"][1:]


# Reading.


def test_what_arrives_is_told_in_order_and_counted(scene: Scene) -> None:
    scene.far.send(b"one")
    assert scene.told() == [("data", b"one")]
    scene.far.send(b"two")
    scene.far.shutdown(socket.SHUT_WR)
    assert scene.told() == [("data", b"two"), "eof"]
    assert (scene.stream.received, scene.stream.at_eof) == (6, True)


def test_a_paused_stream_leaves_it_in_the_kernel(scene: Scene) -> None:
    scene.quietly(scene.stream.pause_reading)
    scene.quietly(scene.stream.pause_reading)
    scene.far.send(b"hello")
    assert scene.told() == []
    assert not scene.stream.reading
    assert scene.house.reactor.watched == 0  # a selector refuses an empty mask: it is not watched at all
    scene.quietly(scene.stream.resume_reading)
    scene.quietly(scene.stream.resume_reading)
    assert scene.told() == [("data", b"hello")]


def test_a_paused_stream_still_writes(scene: Scene) -> None:
    scene.stream.pause_reading()
    scene.stream.write(MUCH)
    scene.far.send(b"hello")
    assert scene.read() == MUCH
    assert scene.told() == ["resume", "drained"]
    assert scene.house.reactor.watched == 0


def test_pausing_from_within_a_callback_holds_back_the_next(scene: Scene) -> None:
    scene.owner.on["data"] = scene.stream.pause_reading
    scene.far.send(b"one")
    scene.house.turns()
    scene.far.send(b"two")
    assert scene.told() == [("data", b"one")]


def test_a_reset_behind_a_pause_shows_at_the_next_write(scene: Scene) -> None:
    scene.stream.pause_reading()
    scene.reset()
    assert scene.told() == []
    scene.quietly(scene.stream.write, b"x")
    assert scene.told() == [("lost", "ECONNRESET")]


def test_a_large_reader_is_read_in_large_pieces(scene: Scene) -> None:
    scene.near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    scene.stream.pause_reading()
    rest = memoryview(MUCH)[: 1 << 18]
    received = b""
    while len(received) < 1 << 18:
        try:
            rest = rest[scene.far.send(rest) :]
        except BlockingIOError:
            pass
        scene.stream.resume_reading()
        received += b"".join(word[1] for word in scene.told())
    assert received == MUCH[: 1 << 18]


@pytest.mark.parametrize("size", [1, FIRST_READ - 1, FIRST_READ, FIRST_READ + 1])
def test_what_no_read_has_shown(size: int, house: House) -> None:
    """A read that was not filled has left nothing; one that was may have, and so may a pause."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = Stream(house.reactor, owner := Owner(), ours)
    house.cleanups += [stream.abort, theirs.close]
    assert not stream.unread()
    theirs.send(bytes(size))
    house.reactor.turn(0)
    (told,) = owner.told
    assert len(told[1]) == min(size, FIRST_READ)
    assert stream.unread() == (size > FIRST_READ)
    house.turns()
    assert stream.received == size and not stream.unread()


def test_what_came_during_a_pause_is_unread_until_it_is_read(scene: Scene) -> None:
    scene.stream.pause_reading()
    assert not scene.stream.unread()
    scene.far.send(b"hello")
    assert scene.told() == [] and scene.stream.unread()
    scene.stream.resume_reading()
    assert scene.stream.unread()
    assert scene.told() == [("data", b"hello")]
    assert not scene.stream.unread()


def test_an_end_or_a_reset_is_nothing_unread(scene: Scene) -> None:
    scene.stream.pause_reading()
    scene.far.shutdown(socket.SHUT_WR)
    assert not scene.stream.unread()
    scene.reset()
    assert not scene.stream.unread()


def test_a_read_that_finds_nothing_after_all(scene: Scene) -> None:
    scene.stream.ready(READ)
    assert scene.told() == []
    scene.far.send(b"hello")
    assert scene.told() == [("data", b"hello")]


def test_writable_and_readable_at_once(scene: Scene) -> None:
    scene.near.room = 0
    scene.stream.write(b"hello")
    scene.near.room = None
    scene.far.send(b"hi")
    assert scene.told() == ["drained", ("data", b"hi")]


def test_what_the_word_of_progress_closes_is_not_read(scene: Scene) -> None:
    scene.near.room = 0
    scene.stream.write(b"hello")
    scene.near.room = None
    scene.owner.on["drained"] = scene.stream.abort
    scene.far.send(b"hi")
    assert scene.told() == ["drained", ("lost", None)]


def test_what_the_word_of_progress_pauses_is_not_read(scene: Scene) -> None:
    scene.near.room = 0
    scene.stream.write(b"hello")
    scene.near.room = None
    scene.owner.on["drained"] = scene.stream.pause_reading
    scene.far.send(b"hi")
    assert scene.told() == ["drained"]


# Half-closed.


def test_after_the_peers_end_it_can_still_be_written(scene: Scene) -> None:
    scene.far.shutdown(socket.SHUT_WR)
    assert scene.told() == ["eof"]
    assert scene.house.reactor.watched == 0
    scene.quietly(scene.stream.write, MUCH)
    assert scene.read() == MUCH
    assert scene.told() == ["resume", "drained"]
    scene.quietly(scene.stream.close)
    assert scene.told() == [("lost", None)]
    assert scene.peer_end() == "ended"


def test_after_its_own_end_it_can_still_be_read(scene: Scene) -> None:
    scene.stream.write(MUCH)
    scene.quietly(scene.stream.shutdown_write)
    scene.quietly(scene.stream.shutdown_write)
    scene.quietly(scene.stream.write, b"too late")
    assert scene.read() == MUCH
    assert scene.peer_end() == "ended"
    scene.far.send(b"hello")
    assert scene.told() == ["resume", "drained", ("data", b"hello")]
    scene.far.shutdown(socket.SHUT_WR)
    assert scene.told() == ["eof"]
    assert scene.state == "open"  # both halves are closed; the owner says when the whole is


def test_a_write_after_its_own_end_is_dropped(scene: Scene, file: int) -> None:
    scene.stream.shutdown_write()
    scene.quietly(scene.stream.write, b"x")
    scene.quietly(scene.stream.write_parts, [b"x", b"y"])
    scene.quietly(scene.stream.send_file, file, 0, 10)
    scene.far.send(b"hello")
    assert scene.told() == [("data", b"hello")]
    assert scene.stream.backlog == 0


# The end.


def test_close_flushes_then_lingers_then_closes(scene: Scene) -> None:
    scene.stream.write(MUCH)
    scene.quietly(scene.stream.close)
    assert scene.state == "flushing"
    scene.far.send(b"still talking")
    assert scene.read() == MUCH
    assert scene.peer_end() == "ended"
    assert scene.state == "lingering"
    scene.far.send(b"and talking")
    scene.far.shutdown(socket.SHUT_WR)
    assert scene.told() == ["drained", ("lost", None)]
    assert scene.house.reactor.pending_timers == 0


def test_a_peer_that_sends_before_it_reads_is_heard_out_while_flushing(scene: Scene) -> None:
    scene.stream.pause_reading()
    scene.stream.write(MUCH)
    scene.quietly(scene.stream.close)
    rest = memoryview(MUCH)[: 1 << 20]
    for _ in range(10_000):
        if not rest:
            break
        try:
            rest = rest[scene.far.send(rest) :]
        except BlockingIOError:
            scene.house.turns(2)
    assert not rest
    assert scene.read() == MUCH


def test_lingering_ends_after_a_time(scene: Scene) -> None:
    scene.stream.close()
    scene.house.pass_time(LINGER_SECONDS - 0.1)
    assert scene.told() == []
    scene.house.pass_time(0.1)
    assert scene.told() == [("lost", None)]


def test_lingering_ends_after_so_many_bytes(scene: Scene) -> None:
    scene.stream.close()
    sent = 0
    while scene.state == "lingering" and sent < 4 * LINGER_BYTES:
        try:
            sent += scene.far.send(MUCH[:4096])
        except BlockingIOError:
            scene.house.turns(1)
        except (BrokenPipeError, ConnectionResetError):
            break
        scene.house.turns(1)
    assert scene.told() == [("lost", None)]
    assert LINGER_BYTES <= sent < 4 * LINGER_BYTES


def test_a_reset_while_there_is_still_something_to_say_is_told(scene: Scene) -> None:
    scene.stream.write(MUCH)
    scene.stream.close()
    scene.reset()
    assert scene.told() == [("lost", "ECONNRESET")]


def test_closing_a_corked_stream_whose_peer_is_gone(scene: Scene) -> None:
    scene.stream.cork()
    scene.stream.write(b"hello")
    scene.reset()
    scene.quietly(scene.stream.close)
    assert scene.told() == [("lost", "ECONNRESET")]


def test_abort_resets(scene: Scene) -> None:
    scene.stream.write(b"hello")
    scene.stream.write(MUCH)
    scene.quietly(scene.stream.abort)
    scene.quietly(scene.stream.abort)
    scene.quietly(scene.stream.close)
    assert scene.stream.backlog == 0
    assert scene.told() == [("lost", None)]
    assert scene.peer_end() == "reset"


def test_after_an_abort_nothing_more_is_read(scene: Scene) -> None:
    scene.far.send(b"hello")
    scene.quietly(scene.stream.abort)
    assert scene.told() == [("lost", None)]


def test_a_failed_write_still_reads_what_the_peer_said(scene: Scene) -> None:
    scene.stream.write(b"a long upload")
    scene.far.send(b"413 too large")
    scene.far.close()  # with the upload unread: a reset
    scene.quietly(scene.stream.write, b"more of it")
    assert scene.state == "broken"
    scene.quietly(scene.stream.write, b"and more")
    assert scene.told() == [("data", b"413 too large"), ("lost", "ECONNRESET")]


def test_an_abort_from_what_the_peer_said_last_ends_the_reading(scene: Scene) -> None:
    scene.stream.write(b"a long upload")
    scene.far.send(b"x" * (stream_module.FIRST_READ + 10))
    scene.far.close()
    scene.quietly(scene.stream.write, b"more of it")
    scene.owner.on["data"] = scene.stream.abort
    told = scene.told()
    assert [word[0] for word in told] == ["data", "lost"]


def test_an_exception_over_what_the_peer_said_last_still_closes(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("no")

    scene.stream.write(b"a long upload")
    scene.far.send(b"hello")
    scene.far.close()
    scene.stream.write(b"more of it")
    scene.owner.on["data"] = fail
    assert scene.told() == [("data", b"hello"), ("failed", "no"), ("lost", None)]
    assert scene.house.reactor.watched == 0


def test_an_exception_in_a_callback_goes_to_the_owner(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("no")

    scene.owner.on["data"] = fail
    scene.far.send(b"hello")
    assert scene.told() == [("data", b"hello"), ("failed", "no")]
    assert scene.state == "open"  # the owner has the last word


def test_without_an_owner_an_exception_resets(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.stream.owner = None
    scene.far.send(b"hello")
    scene.house.turns()
    assert scene.state == "closed"
    assert scene.peer_end() == "reset"


def test_the_owner_may_change(scene: Scene) -> None:
    second = Owner()
    scene.stream.owner = second
    scene.far.send(b"hello")
    assert scene.told() == []
    assert second.told == [("data", b"hello")]


def test_a_callback_may_close(scene: Scene) -> None:
    for word in ("data", "eof", "drained"):
        scene = Scene(scene.house)
        scene.owner.on[word] = scene.stream.close
        if word == "data":
            scene.far.send(b"hello")
        elif word == "eof":
            scene.far.shutdown(socket.SHUT_WR)
        else:
            scene.stream.write(MUCH)
            scene.read()
        assert word in [one[0] if isinstance(one, tuple) else one for one in scene.told()]
        scene.far.close()
        scene.house.turns()
        assert scene.state == "closed"


def test_an_event_that_comes_after_the_close_of_its_turn_is_nothing(house: House) -> None:
    first, second = Scene(house), Scene(house)

    def abort_both() -> None:
        first.stream.abort()
        second.stream.abort()

    first.owner.on["data"] = second.owner.on["data"] = abort_both
    first.far.send(b"hello")
    second.far.send(b"hello")
    house.turns()
    told = first.told() + second.told()
    assert sorted(told, key=str) == [("data", b"hello"), ("lost", None), ("lost", None)]


def test_release_gives_the_socket_away(scene: Scene) -> None:
    scene.stream.write(b"hello")
    sock = scene.stream.release()
    assert sock is scene.near
    assert (scene.house.reactor.watched, scene.state) == (0, "closed")
    sock.send(b" world")
    assert scene.far.recv(100) == b"hello world"
    assert scene.told() == []


# Cycles.


def _orderly(scene: Scene) -> None:
    scene.stream.write(MUCH)
    scene.far.send(b"hello")
    scene.read()
    scene.stream.close()
    scene.far.shutdown(socket.SHUT_WR)


def _linger(scene: Scene) -> None:
    scene.stream.close()
    scene.house.pass_time(LINGER_SECONDS)


def _reset(scene: Scene) -> None:
    scene.reset()


def _write_fails(scene: Scene) -> None:
    scene.far.send(b"bye")
    scene.reset()
    scene.stream.write(b"hello")


def _flush_fails(scene: Scene) -> None:
    scene.stream.write(MUCH)
    scene.stream.close()
    scene.reset()


def _abort(scene: Scene) -> None:
    scene.stream.write(MUCH)
    scene.stream.abort()


def _owner_fails(scene: Scene) -> None:
    scene.owner.on["data"] = _raise
    scene.far.send(b"hello")
    scene.house.turns()
    scene.stream.abort()


def _raise() -> None:
    raise ValueError("no")


def _file_is_cut(scene: Scene) -> None:
    fd = os.memfd_create("file")
    scene.stream.send_file(fd, 0, 100)
    os.close(fd)


class Holding(Owner):
    """An owner as they are: it holds its stream."""

    stream: Stream


@pytest.mark.parametrize(
    "life",
    [_orderly, _linger, _reset, _write_fails, _flush_fails, _abort, _owner_fails, _file_is_cut],
    ids=lambda life: life.__name__,
)
def test_no_cycle_is_left_behind(life: Callable[[Scene], None], house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # a record that is kept would hold the traceback
    scene = Scene(house)
    owner = Holding()
    owner.stream = scene.stream
    scene.owner = scene.stream.owner = owner
    gc.collect()
    gc.disable()
    try:
        life(scene)
        house.turns()
        assert scene.state == "closed"
        house.cleanups.clear()
        scene.far.close()
        owner.on.clear()
        del scene, owner
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_body_cut_short_is_an_error_of_its_own() -> None:
    assert not issubclass(BodyCutShort, OSError)  # else a short file would be taken for the peer's failure
