"""Listening: addresses that can and cannot be had, bursts, connections that are gone again, and no descriptors left."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from reactor.errors import ConfigError
from reactor.listener import ACCEPTS_PER_TURN, OUT_OF_DESCRIPTORS_PAUSE, Listener
from reactor.loop import READ
from tests.loopback import House, housed


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


class Door:
    """A listener, and the sockets that it gave."""

    def __init__(self, house: House, host: str = "127.0.0.1", port: int = 0) -> None:
        self.accepted: list[tuple[socket.socket, str]] = []
        self.listener = Listener(house.reactor, host, port, self.take)
        house.cleanups.append(self.close)

    def take(self, sock: socket.socket, peer: str) -> None:
        self.accepted.append((sock, peer))

    def close(self) -> None:
        self.listener.close()
        for sock, _ in self.accepted:
            sock.close()


class Faulty:
    """A listening socket whose `accept` raises what it is told to, and else does what it should."""

    def __init__(self, sock: socket.socket, *errors: int) -> None:
        self._sock = sock
        self.errors = list(errors)
        self.accepts = 0

    def accept(self) -> Any:
        self.accepts += 1
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        return self._sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_a_connection_is_handed_over_ready_for_the_loop(house: House) -> None:
    door = Door(house)
    peer = house.connect(door.listener.port)
    house.until(lambda: door.accepted)
    ((sock, host),) = door.accepted
    assert host == "127.0.0.1"
    assert sock.getblocking() is False
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    sock.send(b"hello")
    peer.expect(b"hello")


def test_port_0_takes_a_free_port_and_tells_it(house: House) -> None:
    one, other = Door(house), Door(house)
    assert 0 < one.listener.port != other.listener.port > 0
    assert one.listener.address == f"127.0.0.1:{one.listener.port}"


def test_an_ipv6_address_is_written_as_in_a_url(house: House) -> None:
    door = Door(house, "::1")
    assert door.listener.address == f"[::1]:{door.listener.port}"
    house.connect(door.listener.port, "::1")
    house.until(lambda: door.accepted)
    assert door.accepted[0][1] == "::1"


def test_a_name_is_an_address_too(house: House) -> None:
    door = Door(house, "localhost")
    assert door.listener.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "port", "shown"),
    [
        ("192.0.2.1", 80, "192.0.2.1:80"),
        ("2001:db8::1", 80, "[2001:db8::1]:80"),
        ("127.0.0.1", 65536, "127.0.0.1:65536"),
        ("x" * 64 + ".example", 80, "x" * 64 + ".example:80"),
        ("a..b", 80, "a..b:80"),
        ("no such host", 80, "no such host:80"),
    ],
)
def test_an_address_that_cannot_be_had_is_named_in_one_line(house: House, host: str, port: int, shown: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Listener(house.reactor, host, port, lambda sock, peer: None)
    assert str(refused.value).startswith(f"cannot listen on {shown}: ")
    assert "\n" not in str(refused.value)


def test_a_port_in_use_is_refused(house: House) -> None:
    door = Door(house)
    with pytest.raises(ConfigError, match="in use"):
        Listener(house.reactor, "127.0.0.1", door.listener.port, door.take)


def test_a_family_that_the_system_does_not_have_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", no_socket)
    with pytest.raises(ConfigError, match="not supported"):
        Listener(house.reactor, "::1", 0, lambda sock, peer: None)


def test_a_burst_is_taken_in_over_several_turns(house: House) -> None:
    door = Door(house)
    number = ACCEPTS_PER_TURN + 10
    for _ in range(number):
        house.connect(door.listener.port)
    house.reactor.turn(0)
    assert len(door.accepted) == ACCEPTS_PER_TURN
    house.reactor.turn(0)
    assert len(door.accepted) == number


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.ENETUNREACH, errno.EPERM])
def test_a_connection_that_is_gone_again_does_not_hide_the_next(house: House, number: int) -> None:
    door = Door(house)
    door.listener.sock = faulty = Faulty(door.listener.sock, number, number)  # type: ignore[assignment]
    house.connect(door.listener.port)
    house.turns(1)
    assert len(door.accepted) == 1
    assert faulty.accepts == 4  # two errors, one connection, and nothing more


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_descriptors_accepting_pauses_and_goes_on(
    house: House, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(house)
    door.listener.sock = faulty = Faulty(door.listener.sock, number, number)  # type: ignore[assignment]
    house.connect(door.listener.port)
    house.turns()
    assert faulty.accepts == 1, "a listener that cannot accept does not spin"
    assert repr(door.listener) == f"<Listener {door.listener.address} paused>"
    assert os.strerror(number) in caplog.text
    house.pass_time(OUT_OF_DESCRIPTORS_PAUSE / 2)
    assert faulty.accepts == 1
    house.pass_time(OUT_OF_DESCRIPTORS_PAUSE / 2)
    assert (faulty.accepts, door.accepted) == (2, [])
    house.pass_time(OUT_OF_DESCRIPTORS_PAUSE)
    assert len(door.accepted) == 1
    assert repr(door.listener) == f"<Listener {door.listener.address}>"
    assert house.reactor.pending_timers == 0


def test_the_real_limit_on_descriptors(house: House) -> None:
    door = Door(house)
    for _ in range(3):
        house.connect(door.listener.port)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        house.turns()
        assert door.accepted == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    house.pass_time(OUT_OF_DESCRIPTORS_PAUSE)
    assert len(door.accepted) == 3
    assert highest < soft


def test_closing_stops_listening_and_leaves_connections_alone(house: House) -> None:
    door = Door(house)
    port = door.listener.port
    peer = house.connect(port)
    house.until(lambda: door.accepted)
    door.listener.close()
    door.listener.close()
    assert house.reactor.watched == 0
    assert repr(door.listener).endswith("closed>")
    with pytest.raises(ConnectionRefusedError):
        house.connect(port)
    door.accepted[0][0].send(b"still here")
    peer.expect(b"still here")


def test_closing_while_accepting_is_paused_leaves_no_timer(house: House) -> None:
    door = Door(house)
    door.listener.sock = Faulty(door.listener.sock, errno.EMFILE)  # type: ignore[assignment]
    house.connect(door.listener.port)
    house.turns()
    door.listener.close()
    assert house.reactor.pending_timers == 0
    house.pass_time(OUT_OF_DESCRIPTORS_PAUSE)
    assert house.reactor.watched == 0


def test_a_connection_that_arrives_in_the_turn_of_closing_is_not_an_error(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(house)
    house.connect(door.listener.port)
    door.listener.close()
    door.listener.ready(READ)  # the selector had told of it already
    assert (door.accepted, caplog.text) == ([], "")


def test_what_fails_for_one_connection_does_not_stop_the_listener(house: House, caplog: pytest.LogCaptureFixture) -> None:
    door = Door(house)
    take, calls = door.take, []

    def fails_first(sock: socket.socket, peer: str) -> None:
        calls.append(peer)
        if len(calls) == 1:
            raise KeyError("a bug")
        take(sock, peer)

    door.listener._accepted = fails_first
    first, second = (house.connect(door.listener.port) for _ in range(2))
    first.expect_close()
    house.until(lambda: door.accepted)
    second.expect_silence()
    assert "KeyError: 'a bug'" in caplog.text


def test_an_error_of_the_listener_itself_is_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    door = Door(house)
    door.listener.sock = Faulty(door.listener.sock, errno.EINVAL)  # type: ignore[assignment]
    house.connect(door.listener.port)
    house.turns()
    assert "Invalid argument" in caplog.text
    assert len(door.accepted) == 1
