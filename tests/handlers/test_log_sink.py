"""Where lines of a log go, and what a bad disk or a slow reader costs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers import log_sink
from handlers.log_sink import Sink
from reactor.errors import ConfigError
from tests.loopback import House, housed


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


# Files.


def test_lines_are_written_within_a_second(house: House, tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = Sink(str(path), house.reactor)
    sink.write(b"one\n")
    sink.write(b"two\n")
    house.pass_time(0.9)
    assert path.read_bytes() == b""
    house.pass_time(0.1)
    assert path.read_bytes() == b"one\ntwo\n"
    assert house.reactor.pending_timers == 0  # nothing to write, nothing to wake up for
    sink.close()


def test_many_lines_are_written_at_once(house: House, tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = Sink(str(path), house.reactor)
    line = b"x" * 1023 + b"\n"
    for _ in range(log_sink.FLUSH_BYTES // 1024):
        sink.write(line)
    assert path.stat().st_size == log_sink.FLUSH_BYTES
    sink.close()


def test_close_writes_what_is_left(house: House, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    sink = Sink(str(path), house.reactor)
    sink.write(b"one\n")
    sink.close()
    sink.close()
    assert path.read_bytes() == b"before\none\n"
    sink.write(b"late\n")
    house.pass_time(1.0)
    assert sink.lost == 1


def test_a_log_is_readable_by_its_owner_and_group_alone(house: House, tmp_path: Path) -> None:
    Sink(str(tmp_path / "log"), house.reactor).close()
    assert (tmp_path / "log").stat().st_mode & 0o7 == 0


def test_a_path_that_cannot_be_written_is_refused(house: House, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent" / "log"):
        with pytest.raises(ConfigError, match=f"access log {path}: "):
            Sink(str(path), house.reactor)


def test_standard_output(house: House, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    sink = Sink("-", house.reactor)
    sink.write(b"one\n")
    sink.reopen()
    sink.close()
    assert capfdbinary.readouterr().out == b"one\n"
    os.write(1, b"still open")  # only a duplicate was closed
    assert capfdbinary.readouterr().out == b"still open"


def test_rotation(house: House, tmp_path: Path) -> None:
    path, old = tmp_path / "log", tmp_path / "log.1"
    sink = Sink(str(path), house.reactor)
    sink.write(b"one\n")
    path.rename(old)
    sink.reopen()
    sink.write(b"two\n")
    sink.close()
    assert (old.read_bytes(), path.read_bytes()) == (b"one\n", b"two\n")


def test_a_rotation_that_fails_keeps_the_old_file(house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = Sink(str(folder / "log"), house.reactor)
    folder.rename(tmp_path / "moved")
    sink.reopen()
    assert "the old file stays in use" in caplog.text
    sink.write(b"one\n")
    sink.close()
    assert (tmp_path / "moved" / "log").read_bytes() == b"one\n"


# A full disk.


class Disk:
    """os.write onto a disk with so much room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(fd, data[: self.room])
        self.room -= written
        return written


def test_a_full_disk_costs_lines_and_is_told_once(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    sink = Sink(str(path), house.reactor)
    disk = Disk(monkeypatch, room=0)
    for _ in range(3):
        sink.write(b"lost\n")
        house.pass_time(1.0)
    assert sink.lost == 3
    disk.room = 1000
    sink.write(b"kept\n")
    house.pass_time(1.0)
    assert path.read_bytes() == b"kept\n"
    assert [record.message for record in caplog.records] == [
        f"access log {path}: No space left on device; lines are lost",
        f"access log {path}: written again; 3 lines were lost",
    ]
    sink.close()


def test_a_line_torn_by_a_full_disk_is_ended_before_the_next(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    sink = Sink(str(path), house.reactor)
    disk = Disk(monkeypatch, room=6)
    for line in (b"one\n", b"two\n", b"three\n"):
        sink.write(line)
    house.pass_time(1.0)
    assert sink.lost == 2
    sink.write(b"four\n")  # still no room
    house.pass_time(1.0)
    assert sink.lost == 3
    disk.room = 1000
    sink.write(b"five\n")
    house.pass_time(1.0)
    assert path.read_bytes() == b"one\ntw\nfive\n"
    sink.close()


@pytest.mark.parametrize("room", range(1, 13))
def test_wherever_a_line_is_torn_what_follows_stands_alone(
    room: int, house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Sink(str(tmp_path / "log"), house.reactor)
    disk = Disk(monkeypatch, room)
    for line in (b"one\n", b"two\n", b"six\n"):
        sink.write(line)
    sink.flush()
    disk.room = 1000
    sink.write(b"end\n")
    sink.close()
    lines = (tmp_path / "log").read_bytes().split(b"\n")
    assert lines[-2:] == [b"end", b""]
    whole = [line for line in lines[:-2] if line in (b"one", b"two", b"six")]
    assert b"" not in lines[:-1]
    assert len(whole) + sink.lost == 3


# Pipes.


@pytest.fixture(params=["fifo", "standard output"])
def pipe(request: pytest.FixtureRequest, house: House, tmp_path: Path) -> Iterator[tuple[Sink, int]]:
    """A sink on a pipe, and the reading end's descriptor."""
    if request.param == "fifo":
        os.mkfifo(tmp_path / "fifo")
        reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        sink = Sink(str(tmp_path / "fifo"), house.reactor)
    else:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        kept = os.dup(1)
        os.dup2(writer, 1)
        os.close(writer)
        sink = Sink("-", house.reactor)
        os.dup2(kept, 1)
        os.close(kept)
    yield sink, reader
    sink.close()
    os.close(reader)


def read_all(fd: int) -> bytes:
    data = b""
    try:
        while piece := os.read(fd, 1 << 20):
            data += piece
    except BlockingIOError:
        pass
    return data


def test_a_slow_reader_gets_every_line_and_nobody_waits(house: House, pipe: tuple[Sink, int]) -> None:
    sink, reader = pipe
    lines = [b"%09d\n" % number for number in range(50_000)]
    for line in lines:
        sink.write(line)
    house.turns(2)
    assert house.reactor.watched == 1  # the pipe is full
    received = b""
    while len(received) < 500_000:
        before = len(received)
        received += read_all(reader)
        house.pass_time(1.0)
        assert len(received) > before or received == b""
    assert received == b"".join(lines)
    assert house.reactor.watched == 0
    assert sink.lost == 0


def test_a_reader_that_never_reads_costs_lines_beyond_a_bound(
    house: House, pipe: tuple[Sink, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_sink, "BACKLOG_BYTES", 200_000)
    monkeypatch.setattr(log_sink, "CLOSE_SECONDS", 0.0)
    sink, reader = pipe
    for number in range(50_000):
        sink.write(b"%09d\n" % number)
    assert 0 < sink.lost < 50_000
    assert sink._size <= 200_000
    received = read_all(reader)
    house.turns(2)
    while more := read_all(reader):
        received += more
        house.turns(2)
    assert received == b"".join(b"%09d\n" % number for number in range(50_000 - sink.lost))
    sink.write(b"after\n")
    house.pass_time(1.0)
    assert read_all(reader) == b"after\n"
    assert [record.message.split(": ")[1] for record in caplog.records] == [
        "the reader is too slow; lines are lost",
        f"written again; {sink.lost} lines were lost",
    ]


def test_a_closed_pipe_costs_lines(house: House, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    sink = Sink(str(tmp_path / "fifo"), house.reactor)
    sink.write(b"one\n")
    sink.flush()
    os.close(reader)
    sink.write(b"two\n")
    house.pass_time(1.0)
    assert sink.lost == 1
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    sink.write(b"three\n")
    house.pass_time(1.0)
    assert read_all(reader) == b"one\nthree\n"
    sink.close()
    os.close(reader)


def test_a_pipe_that_is_closed_while_it_is_full_is_noticed(house: House, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    sink = Sink(str(tmp_path / "fifo"), house.reactor)
    for number in range(20_000):
        sink.write(b"%09d\n" % number)
    assert house.reactor.watched == 1
    os.close(reader)
    house.until(lambda: house.reactor.watched == 0, "the end of the wait")
    assert sink.lost > 0
    sink.close()


def test_a_fifo_nobody_reads_is_refused(house: House, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="access log .*fifo: "):
        Sink(str(tmp_path / "fifo"), house.reactor)


def test_rotation_leaves_a_full_pipe_behind(house: House, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    sink = Sink(str(tmp_path / "log"), house.reactor)
    for number in range(20_000):
        sink.write(b"%09d\n" % number)
    assert house.reactor.watched == 1
    (tmp_path / "log").unlink()
    sink.reopen()
    assert house.reactor.watched == 0
    assert sink.lost > 0
    sink.write(b"fresh\n")
    sink.close()
    assert (tmp_path / "log").read_bytes() == b"fresh\n"
    os.close(reader)
