"""Standard output that is a pipe: its reader may be slow, or leave."""

from __future__ import annotations

import hashlib
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.exit_codes import OK, PARTIAL, TIMED_OUT, WRITE_ERROR
from handlers.output import Output
from tests.handlers.test_fetch_command import TEXT, Pipe, Role, one
from tests.loopback import House, housed

LONG = bytes(range(256)) * 4096  # 1 MiB, far beyond a pipe


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.reads.close()
    pipe.writes.close()


def length_of(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)


def read(house: House, pipe: Pipe, size: int) -> bytes:
    """So many bytes out of the pipe, while the loop turns."""
    got = bytearray()
    while len(got) < size:
        house.until(lambda: select.select([pipe.reads], [], [], 0)[0], f"more than {len(got)} bytes")
        got += os.read(pipe.fd, min(size - len(got), 10_000))
    return bytes(got)


def stuck(house: House, pipe: Pipe, answer: bytes, **options: object) -> Role:
    """A body that came as far as there was room for it: in the pipe, in the client, in the kernel."""
    role, asked = one(house, out=pipe.writes, answer=answer, **options)
    while asked.peer.offer(LONG) > 0:
        house.turns()
    return role


def test_a_slow_reader_gets_all_of_it(house: House, pipe: Pipe) -> None:
    role, asked = one(house, length_of(LONG), out=pipe.writes, include=True)
    whole = length_of(LONG) + LONG
    got = b""
    rest = memoryview(LONG)
    while rest:
        rest = rest[asked.peer.offer(bytes(rest[:50_000])) :]
        got += read(house, pipe, 20_000)
    got += read(house, pipe, len(whole) - len(got))
    assert (role.code(), hashlib.sha256(got).digest()) == (OK, hashlib.sha256(whole).digest())


def test_what_is_not_read_is_not_fetched_either(house: House, pipe: Pipe) -> None:
    role = stuck(house, pipe, length_of(LONG * 100))
    assert role.fetch._output.backlog < 1 << 18
    assert role.codes == []
    role.fetch.stop()


def test_while_a_reader_is_slow_the_deadline_holds(house: House, pipe: Pipe) -> None:
    role = stuck(house, pipe, length_of(LONG * 100), max_time=3.0)
    house.pass_time(2.9)
    assert role.codes == []
    house.pass_time(0.2)
    assert role.code() == TIMED_OUT


def test_the_next_url_waits_for_a_slow_reader(house: House, pipe: Pipe) -> None:
    role = Role(house, "http://{o}/1", "http://{o}/2", out=pipe.writes)
    peer = role.origin.accept()
    role.asked(peer)
    peer.send(length_of(LONG[:200_000]), LONG[:200_000])
    house.turns()
    peer.expect_silence()
    assert read(house, pipe, 200_000) == LONG[:200_000]
    role.asked(peer)
    peer.send(TEXT)
    assert (role.code(), read(house, pipe, 5)) == (OK, b"hello")


def test_what_came_before_a_cut_reaches_a_slow_reader(house: House, pipe: Pipe) -> None:
    role, asked = one(house, length_of(LONG), out=pipe.writes)
    asked.peer.send(LONG[:100_000])
    house.turns()
    asked.peer.close()
    assert read(house, pipe, 100_000) == LONG[:100_000]
    assert role.code() == PARTIAL


@pytest.mark.parametrize("left", [0, 1000])
def test_a_reader_that_leaves_is_no_fault_to_speak_of(house: House, pipe: Pipe, left: int) -> None:
    role, asked = one(house, length_of(LONG), out=pipe.writes)
    if left:
        asked.peer.send(LONG[:left])
        read(house, pipe, left)
    pipe.reads.close()
    asked.peer.send(LONG[left:100_000])
    assert (role.code(), role.said) == (WRITE_ERROR, "")
    asked.peer.expect_reset()


def test_a_reader_that_leaves_while_it_is_waited_for(house: House, pipe: Pipe) -> None:
    role = stuck(house, pipe, length_of(LONG * 100))
    pipe.reads.close()
    assert (role.code(), role.said) == (WRITE_ERROR, "")


def test_a_reader_that_leaves_after_the_end_of_the_body(house: House, pipe: Pipe) -> None:
    role, asked = one(house, length_of(LONG[:100_000]) + LONG[:100_000], out=pipe.writes)
    house.turns()
    assert role.codes == []
    pipe.reads.close()
    assert (role.code(), role.said) == (WRITE_ERROR, "")


class Listener:
    """Notes what an Output tells."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def output_drained(self) -> None:
        self.heard.append("drained")

    def output_failed(self, error: OSError) -> None:
        self.heard.append(error.errno)

    def failed(self, error: Exception) -> None:
        self.heard.append(error)


def test_a_file_is_written_at_once(house: House, tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb", buffering=0) as file:
        output = Output(house.reactor, file, Listener())
        output.write(LONG)
        assert (output.backlog, file.tell()) == (0, len(LONG))


def test_the_descriptor_stays_in_blocking_mode(house: House, pipe: Pipe) -> None:
    output = Output(house.reactor, pipe.writes, Listener())
    output.write(LONG)
    assert output.backlog and os.get_blocking(pipe.writes.fileno())
    output.drop()
    assert (output.backlog, house.reactor.watched) == (0, 0)


def test_a_socket_is_waited_for_too(house: House) -> None:
    ours, theirs = socket.socketpair()
    listener = Listener()
    with ours, theirs, open(ours.fileno(), "wb", buffering=0, closefd=False) as file:
        output = Output(house.reactor, file, listener)
        output.write(LONG)
        assert output.backlog
        got = 0
        while output.backlog:
            got += len(theirs.recv(1 << 16))
            house.turns(1)
        assert listener.heard == ["drained"]
        while got < len(LONG):
            got += len(theirs.recv(1 << 16))
