"""Two streams joined: every byte in order both ways, half-close kept, reset for reset, nothing left behind.

Each dialogue is held twice: with plain streams, which are spliced, and with streams of another kind, which are copied.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import selectors
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactor.loop import Reactor
from reactor.relay import Relay
from reactor.splicing import KEPT_PIPES, SPLICE_BYTES, Pipe, Pipes
from reactor.stream import HIGH_WATER, LARGE_READ, Stream

IDLE = 30.0
PATTERN = random.Random(7).randbytes(1024 * 1024)
BUFFER = 64 * 1024  # asked for in the sockets, so that "full" comes soon


class OtherStream(Stream):
    """Has a Stream's contract without being one."""

    __slots__ = ()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Peer:
    """The far end of one side."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.got = bytearray()
        self.end: object = None  # "eof", or the error

    def send(self, data: bytes | memoryview) -> int:
        """How many bytes the kernel took."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def read(self, limit: int = 1024 * 1024) -> None:
        while self.end is None and limit > 0:
            try:
                data = self.sock.recv(min(limit, 256 * 1024))
            except BlockingIOError:
                return
            except OSError as error:
                self.end = error
                return
            if not data:
                self.end = "eof"
            self.got += data
            limit -= len(data)

    def finish(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    @property
    def was_reset(self) -> bool:
        return isinstance(self.end, ConnectionResetError)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        listener.listen(1)
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        one.connect(listener.getsockname())
        other, _ = listener.accept()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    for sock in (one, other):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
    return one, other


class House:
    def __init__(self, kind: type[Stream], pipes: Pipes | None = None) -> None:
        self.clock = Clock()
        self.selector = selectors.DefaultSelector()
        self.reactor = Reactor(self.selector, clock=self.clock)
        self.kind = kind
        self.pipes = Pipes() if pipes is None else pipes
        self.ended: list[Relay] = []
        self.peers: list[Peer] = []

    def join(self, **options: Any) -> tuple[Peer, Relay, Peer]:
        """client — left, right — server."""
        client, left = tcp_pair()
        server, right = tcp_pair()
        peers = Peer(client), Peer(server)
        self.peers += peers
        streams = self.kind(self.reactor, None, left), self.kind(self.reactor, None, right)
        relay = Relay(self.reactor, *streams, IDLE, self.ended.append, pipes=self.pipes, **options)
        return peers[0], relay, peers[1]

    def joined(self) -> tuple[Peer, Relay, Peer]:
        client, relay, server = self.join()
        relay.start()
        return client, relay, server

    def until(self, condition: Callable[[], object], *readers: Peer) -> None:
        for _ in range(2000):
            for reader in readers:
                reader.read()
            if condition():
                return
            self.reactor.turn(0.005)
        raise AssertionError("it did not come to pass")

    def turns(self, number: int = 10) -> None:
        for _ in range(number):
            self.reactor.turn(0)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.turns()

    def reason(self, relay: Relay) -> str:
        """Why it ended; it must have ended, once, and left nothing."""
        self.until(lambda: self.ended)
        self.turns()
        assert self.ended == [relay]
        assert relay.state == "ended"
        return relay.reason

    def fill(self, sender: Peer) -> int:
        """Send until nothing is taken any more, nor waited for by the relay; how many bytes that were."""
        total = 0
        calm = 0
        for _ in range(4000):
            taken = sender.send(memoryview(PATTERN)[total % len(PATTERN) :])
            total += taken
            calm = 0 if taken or self.listens_to(sender) else calm + 1
            if calm == 20 or total >= 64 * len(PATTERN):
                return total
            self.reactor.turn(0.001)
        raise AssertionError("the relay goes on listening, and hears nothing")

    def listens_to(self, sender: Peer) -> bool:
        """Whether the relay reads what comes from there; what is still in the kernel may come late."""
        name = sender.sock.getsockname()
        keys = self.selector.get_map().values()
        return any(key.events & selectors.EVENT_READ and key.data.sock.getpeername() == name for key in keys)

    def close(self) -> None:
        for peer in self.peers:
            peer.sock.close()
        self.pass_time(2 * IDLE)
        self.pass_time(2 * IDLE)
        assert self.reactor.watched == 0
        assert self.reactor.pending_timers == 0
        self.reactor.close()


@contextlib.contextmanager
def checked(kind: type[Stream], caplog: pytest.LogCaptureFixture) -> Iterator[House]:
    """A house that must be left empty, and in which nothing raised but what the test meant to raise ("no")."""
    gc.collect()
    before = descriptors()
    made = House(kind)
    yield made
    made.close()
    assert descriptors() == before
    assert [record for record in caplog.get_records("call") if record.exc_info and str(record.exc_info[1]) != "no"] == []


@pytest.fixture(params=[Stream, OtherStream], ids=["spliced", "copied"])
def house(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[House]:
    with checked(request.param, caplog) as made:
        yield made


@pytest.fixture
def spliced(caplog: pytest.LogCaptureFixture) -> Iterator[House]:
    with checked(Stream, caplog) as made:
        yield made


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def repeated(count: int) -> bytes:
    return (PATTERN * (count // len(PATTERN) + 1))[:count]


# Bytes.


def test_bytes_go_both_ways_and_are_counted(house: House) -> None:
    client, relay, server = house.joined()
    client.send(b"ping")
    server.send(b"pong!")
    house.until(lambda: server.got == b"ping" and client.got == b"pong!", client, server)
    assert (relay.bytes_left_to_right, relay.bytes_right_to_left) == (4, 5)


def test_bytes_left_over_come_first(house: House) -> None:
    client, relay, server = house.join()
    client.send(b" then this")
    server.send(b" then that")
    relay.start(b"first this", b"first that")
    house.until(lambda: len(server.got) == len(client.got) == 20, client, server)
    assert server.got == b"first this then this"
    assert client.got == b"first that then that"
    assert (relay.bytes_left_to_right, relay.bytes_right_to_left) == (20, 20)


def test_what_a_stream_still_has_queued_comes_before_everything(house: House) -> None:
    client, relay, server = house.join()
    head = repeated(3_000_000)
    relay._left.stream.write(head)  # type: ignore[union-attr]
    assert relay._left.stream.backlog  # type: ignore[union-attr]
    server.send(b", more")
    relay.start(b"", b", left over")
    house.until(lambda: len(client.got) == len(head) + 17, client)
    assert client.got == head + b", left over, more"
    assert relay.bytes_right_to_left == 17
    client.send(b"and back")
    house.until(lambda: server.got == b"and back", server)


def test_streams_that_were_paused_and_corked_flow_again(house: House) -> None:
    client, relay, server = house.join()
    for side in (relay._left, relay._right):
        side.stream.pause_reading()  # type: ignore[union-attr]
        side.stream.cork()  # type: ignore[union-attr]
    relay._left.stream.write(b"head, ")  # type: ignore[union-attr]
    client.send(b"up")
    server.send(b"down")
    relay.start()
    house.until(lambda: server.got == b"up", server)
    house.until(lambda: client.got == b"head, down", client)


def test_much_goes_both_ways_at_once(house: House) -> None:
    client, relay, server = house.joined()
    data = repeated(6_000_000)
    sent = [0, 0]

    def pump() -> bool:
        for index, peer in enumerate((client, server)):
            sent[index] += peer.send(memoryview(data)[sent[index] : sent[index] + 300_000]) if sent[index] < len(data) else 0
        return len(client.got) == len(server.got) == len(data)

    house.until(pump, client, server)
    assert client.got == server.got == data
    assert relay.bytes_left_to_right == relay.bytes_right_to_left == len(data)


def test_a_slow_reader_stops_the_sender_and_loses_nothing(house: House) -> None:
    client, _, server = house.joined()
    taken = house.fill(client)
    buffers = sum(peer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for peer in (client, server))
    assert taken < 4 * buffers + max(HIGH_WATER + LARGE_READ, SPLICE_BYTES)
    house.until(lambda: house.selector.select(0) == [])  # and the loop sleeps meanwhile
    server.send(b"the other way goes on")
    house.until(lambda: client.got == b"the other way goes on", client)
    house.until(lambda: len(server.got) == taken, server)
    assert server.got == repeated(taken)
    client.send(b"and on")
    house.until(lambda: server.got.endswith(b"and on"), server)


# Half-close.


@pytest.mark.parametrize("first", ["left", "right"])
def test_one_side_may_end_and_still_be_answered(house: House, first: str) -> None:
    client, relay, server = house.joined()
    one, other = (client, server) if first == "left" else (server, client)
    one.send(b"all I have to say")
    one.finish()
    house.until(lambda: other.end, other)
    assert (other.got, other.end) == (b"all I have to say", "eof")
    other.send(b"heard, ")
    house.until(lambda: one.got == b"heard, ", one)
    other.send(b"and answered")
    other.finish()
    house.until(lambda: one.end, one)
    assert (one.got, one.end) == (b"heard, and answered", "eof")
    assert house.reason(relay) == "closed"
    assert relay.bytes_left_to_right + relay.bytes_right_to_left == 36


def test_the_end_comes_after_all_that_waited_for_a_slow_reader(house: House) -> None:
    client, relay, server = house.joined()
    taken = house.fill(client)
    client.finish()
    house.turns()
    house.until(lambda: server.end, server)
    assert server.end == "eof"
    assert server.got == repeated(taken)
    server.finish()
    assert house.reason(relay) == "closed"


def test_both_ending_at_once_with_much_on_the_way_loses_nothing(house: House) -> None:
    client, relay, server = house.joined()
    one, two = house.fill(client), house.fill(server)
    client.finish()
    server.finish()
    house.until(lambda: client.end and server.end, client, server)
    assert (client.end, server.end) == ("eof", "eof")
    assert (client.got, server.got) == (repeated(two), repeated(one))
    assert house.reason(relay) == "closed"


def test_a_side_that_had_ended_before_the_start_is_passed_on(house: House) -> None:
    client, relay, server = house.join()
    client.finish()
    relay._left.stream.owner = Deaf()  # type: ignore[union-attr]
    house.until(lambda: relay._left.stream.at_eof)  # type: ignore[union-attr]
    relay.start(b"said before", b"")
    house.until(lambda: server.end, server)
    assert (server.got, server.end) == (b"said before", "eof")
    server.send(b"answer")
    server.finish()
    house.until(lambda: client.end, client)
    assert (client.got, client.end) == (b"answer", "eof")
    assert house.reason(relay) == "closed"


class Deaf:
    """The stream's owner before the relay: hears and forgets."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


# Reset.


@pytest.mark.parametrize("who", ["left", "right"])
@pytest.mark.parametrize("when", ["idle", "after data", "while the other is full", "after the other ended"])
def test_a_reset_is_passed_on_as_a_reset(house: House, who: str, when: str) -> None:
    client, relay, server = house.joined()
    one, other = (client, server) if who == "left" else (server, client)
    if when == "after data":
        one.send(b"some")
        house.until(lambda: other.got == b"some", other)
    if when == "while the other is full":
        house.fill(other)
        one.read()
        house.turns()
    if when == "after the other ended":
        other.finish()
        house.until(lambda: one.end == "eof", one)
    one.reset()
    house.until(lambda: house.ended)
    house.until(lambda: other.end, other)
    assert other.was_reset
    assert house.reason(relay) == f"reset by {who}"


def test_both_resetting_in_the_same_turn_is_one_end(house: House) -> None:
    client, relay, server = house.joined()
    house.turns()
    client.reset()
    server.reset()
    assert house.reason(relay).startswith("reset by ")


def test_the_names_given_are_those_in_the_reason(house: House) -> None:
    _, relay, server = house.join(names=("client", "upstream"))
    relay.start()
    server.reset()
    assert house.reason(relay) == "reset by upstream"


def test_the_last_words_before_a_reset_are_passed_on_with_it(house: House) -> None:
    client, relay, server = house.joined()
    client.send(b"to nobody")
    server.send(b"last words")
    server.reset()
    house.until(lambda: client.end, client)
    assert client.got == b"last words"
    assert client.was_reset
    assert house.reason(relay) == "reset by right"


def test_what_was_sent_whole_before_a_reset_is_delivered(house: House) -> None:
    """The server answers and closes; the client goes on sending to nobody, and still gets the whole answer."""
    client, relay, server = house.joined()
    answered = house.fill(server)
    server.finish()
    house.turns()
    house.until(lambda: relay.bytes_right_to_left == answered, client)
    house.turns()
    server.reset()
    for _ in range(50):
        client.send(b"more")
        house.reactor.turn(0.002)
    house.until(lambda: client.end, client)
    assert len(client.got) == answered
    assert client.end == "eof"
    client.finish()
    assert house.reason(relay) == "reset by right"


# Time.


def test_silence_both_ways_ends_it(house: House) -> None:
    client, relay, server = house.joined()
    house.pass_time(IDLE - 0.5)
    assert relay.state in ("copying", "splicing")
    house.pass_time(0.5)
    house.until(lambda: client.end and server.end, client, server)
    assert (client.end, server.end) == ("eof", "eof")
    client.finish()
    server.finish()
    assert house.reason(relay) == "idle"


@pytest.mark.parametrize("who", ["left", "right"])
def test_a_byte_either_way_moves_the_deadline(house: House, who: str) -> None:
    client, relay, server = house.joined()
    one, other = (client, server) if who == "left" else (server, client)
    for count in range(1, 4):
        house.pass_time(IDLE - 1)
        one.send(b"x")
        house.until(lambda count=count: len(other.got) == count, other)
    house.pass_time(IDLE - 1)
    assert not house.ended and relay.state in ("copying", "splicing")
    assert house.reactor.pending_timers == 1
    house.pass_time(1)
    client.finish()
    server.finish()
    assert house.reason(relay) == "idle"


def test_a_slow_reader_at_work_is_not_silence(house: House) -> None:
    client, relay, server = house.joined()
    taken = house.fill(client)
    while len(server.got) < taken:
        house.pass_time(IDLE - 1)
        assert not house.ended, relay
        before = len(server.got)
        server.read(250_000)
        house.turns()
        assert len(server.got) > before
    assert server.got == repeated(taken)


def test_a_slow_reader_at_work_is_not_silence_after_both_ended(house: House) -> None:
    client, relay, server = house.joined()
    taken = house.fill(client)
    client.finish()
    server.finish()
    house.turns()
    for _ in range(taken // 250_000 + 2):
        house.pass_time(IDLE - 1)
        server.read(250_000)
        house.turns()
    assert (server.end, server.got) == ("eof", repeated(taken))
    client.read()
    assert house.reason(relay) == "closed"


def test_a_reader_that_stopped_is_silence_and_is_reset(house: House) -> None:
    client, relay, server = house.joined()
    house.fill(client)
    house.pass_time(IDLE)
    house.pass_time(IDLE)
    assert house.reason(relay) == "idle"
    house.until(lambda: server.end, server)
    assert server.was_reset


def test_a_reader_that_stopped_after_both_ended_is_reset_as_well(house: House) -> None:
    client, relay, server = house.joined()
    house.fill(client)
    client.finish()
    server.finish()
    house.turns()
    house.pass_time(IDLE)
    house.pass_time(IDLE)
    assert house.reason(relay) in ("idle", "closed")
    house.until(lambda: server.end, server)
    assert server.was_reset


# Ends of other kinds.


def test_abort_resets_both_and_on_end_is_called_by_the_loop(house: House) -> None:
    client, relay, server = house.joined()
    house.turns()
    relay.abort()
    relay.abort("again")
    assert house.ended == []
    assert house.reason(relay) == "aborted"
    house.until(lambda: client.end and server.end, client, server)
    assert client.was_reset and server.was_reset


def test_abort_before_the_start(house: House) -> None:
    client, relay, server = house.join()
    relay.abort("not wanted")
    assert house.reason(relay) == "not wanted"
    house.until(lambda: client.end and server.end, client, server)


@pytest.mark.parametrize("who", ["left", "right", "both"])
def test_a_stream_that_was_lost_before_the_start_ends_it(house: House, who: str) -> None:
    client, relay, server = house.join()
    for side in (relay._left, relay._right):
        if who in (side.name, "both"):
            side.stream.abort()  # type: ignore[union-attr]
    house.turns()
    relay.start(b"for nobody", b"for nobody")
    assert house.ended == []
    assert house.reason(relay) == f"closed by {'left' if who == 'both' else who}"
    house.until(lambda: client.end and server.end, client, server)


def test_a_stream_that_is_lost_in_the_turn_of_the_start_ends_it(house: House) -> None:
    _, relay, _ = house.join()
    relay._right.stream.abort()  # type: ignore[union-attr]
    relay.start(b"for nobody")
    assert house.reason(relay) == "closed by right"


def test_an_on_end_that_raises_costs_nobody_else(house: House) -> None:
    def on_end(relay: Relay) -> None:
        raise RuntimeError("no")

    one, two = house.joined(), house.joined()
    one[1]._on_end = on_end
    one[1].abort()
    house.turns()
    two[0].send(b"still here")
    house.until(lambda: two[2].got == b"still here", two[2])


def test_an_ended_relay_leaves_no_cycle(house: House) -> None:
    client, relay, server = house.joined()
    client.send(b"x")
    house.until(lambda: server.got, server)
    client.finish()
    server.finish()
    assert house.reason(relay) == "closed"
    house.ended.clear()
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(thing, Relay) for thing in gc.get_objects())
        del relay
        assert sum(isinstance(thing, Relay) for thing in gc.get_objects()) == before - 1
    finally:
        gc.enable()


# Pipes.


class Counted(Pipes):
    """Says how many pipes are lent, and lends no more than `limit` at once, or `total` in all."""

    def __init__(self, limit: int = 1000, total: int = 1000) -> None:
        super().__init__()
        self.limit = limit
        self.total = total
        self.lent = 0
        self.most = 0

    def take(self) -> Pipe | None:
        if self.lent >= self.limit or not self.total:
            return None
        self.total -= 1
        self.lent += 1
        self.most = max(self.most, self.lent)
        return super().take()

    def give_back(self, pipe: Pipe) -> None:
        self.lent -= 1
        super().give_back(pipe)

    def discard(self, pipe: Pipe) -> None:
        super().discard(pipe)


def test_tunnels_that_flow_share_one_pipe_and_the_last_closes_it(spliced: House) -> None:
    gc.collect()
    before = descriptors()
    tunnels = [spliced.joined() for _ in range(20)]
    assert descriptors() == before + 20 * 4
    for client, _, server in tunnels:
        client.send(b"ping")
        spliced.until(lambda server=server: server.got == b"ping", server)
        server.send(b"pong")
        spliced.until(lambda client=client: client.got == b"pong", client)
    assert descriptors() == before + 20 * 4 + 2
    for _, relay, _ in tunnels:
        relay.abort()
    spliced.turns()
    assert len(spliced.ended) == 20
    assert descriptors() == before + 20 * 2  # the peers' own


def test_a_full_tunnel_keeps_its_pipe_and_holds_up_nobody(spliced: House) -> None:
    full, free = spliced.joined(), spliced.joined()
    taken = spliced.fill(full[0])
    free[0].send(b"freely")
    spliced.until(lambda: free[2].got == b"freely", free[2])
    assert len(full[2].got) == 0
    spliced.until(lambda: len(full[2].got) == taken, full[2])
    assert full[2].got == repeated(taken)


def test_no_more_pipes_are_kept_than_allowed(spliced: House) -> None:
    pipes = Pipes()
    pipes.enter()
    before = descriptors()
    taken = [pipes.take() for _ in range(KEPT_PIPES + 3)]
    for pipe in taken:
        assert pipe is not None
        pipes.give_back(pipe)
    assert descriptors() == before + 2 * KEPT_PIPES
    pipes.leave()
    assert descriptors() == before


@pytest.mark.parametrize("total", [0, 1, 2, 5])
def test_without_a_pipe_it_is_copied_instead(spliced: House, total: int) -> None:
    spliced.pipes = Counted(total=total)
    client, relay, server = spliced.joined()
    assert relay.state == "splicing"
    one = spliced.fill(client)
    two = spliced.fill(server)
    spliced.until(lambda: len(server.got) == one and len(client.got) == two, client, server)
    assert relay.state == "copying"
    assert (server.got, client.got) == (repeated(one), repeated(two))
    assert (relay.bytes_left_to_right, relay.bytes_right_to_left) == (one, two)
    client.finish()
    spliced.until(lambda: server.end, server)
    server.send(b"bye")
    server.finish()
    spliced.until(lambda: client.end, client)
    assert client.got.endswith(b"bye")
    assert spliced.reason(relay) == "closed"


def test_without_a_second_pipe_what_the_first_holds_is_not_lost(spliced: House) -> None:
    spliced.pipes = Counted(limit=1)
    client, relay, server = spliced.joined()
    one = spliced.fill(client)
    assert relay.state == "splicing"
    server.send(b"needs a pipe")
    spliced.until(lambda: client.got == b"needs a pipe", client)
    assert relay.state == "copying"
    client.finish()
    spliced.until(lambda: server.end, server)
    assert server.got == repeated(one)
    assert relay.bytes_left_to_right == one


def test_a_relay_that_was_once_without_a_pipe_goes_on_copying(spliced: House) -> None:
    spliced.pipes = pipes = Counted(total=0)
    client, relay, server = spliced.joined()
    taken = spliced.fill(client)
    pipes.total = 1000
    spliced.until(lambda: len(server.got) == taken, server)
    spliced.turns()
    assert relay.state == "copying"


def test_after_one_side_ended_a_relay_without_pipes_still_keeps_the_half_close(spliced: House) -> None:
    spliced.pipes = pipes = Counted()
    client, relay, server = spliced.joined()
    client.send(b"question")
    client.finish()
    spliced.until(lambda: server.end, server)
    pipes.total = 0
    server.send(b"answer")
    spliced.until(lambda: client.got == b"answer", client)
    assert relay.state == "copying" and client.end is None
    server.finish()
    spliced.until(lambda: client.end, client)
    assert spliced.reason(relay) == "closed"


def test_without_descriptors_take_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def pipe2(flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe2", pipe2)
    assert Pipes().take() is None


@pytest.mark.parametrize("call", [0, 1])
def test_a_socket_that_cannot_be_spliced_is_copied(spliced: House, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    splice, calls = os.splice, iter(range(1000))

    def refusing(*args: Any, **kwargs: Any) -> int:
        if next(calls) >= call:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return splice(*args, **kwargs)

    monkeypatch.setattr(os, "splice", refusing)
    client, relay, server = spliced.joined()
    client.send(b"hello")
    spliced.until(lambda: server.got == b"hello", server)
    assert relay.state == "copying"
    assert relay.bytes_left_to_right == 5


def test_a_socket_whose_failure_stays_is_reset_once(spliced: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(source: int, *args: Any, **kwargs: Any) -> int:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    client, relay, server = spliced.joined()
    client.send(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "splice", failing)
        spliced.until(lambda: spliced.ended)
    assert spliced.reason(relay) == f"left: {os.strerror(errno.ETIMEDOUT)}"
    spliced.until(lambda: server.end, server)
    assert server.was_reset


def test_an_exception_costs_its_own_relay_alone(spliced: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> int:
        raise RuntimeError("no")

    one, two = spliced.joined(), spliced.joined()
    with monkeypatch.context() as patch:
        patch.setattr(os, "splice", broken)
        one[0].send(b"x")
        spliced.until(lambda: spliced.ended)
    assert spliced.reason(one[1]) == "failed: no"
    two[0].send(b"still here")
    spliced.until(lambda: two[2].got == b"still here", two[2])


# The contract with a stream of any kind.


class Scripted:
    """Takes nothing until it is told to, and notes what it is told."""

    def __init__(self) -> None:
        self.owner: Any = None
        self.state = "open"
        self.at_eof = False
        self.backlog = 0
        self.sent = 0
        self.told: list[str] = []

    def write(self, data: bytes) -> None:
        self.backlog += len(data)

    def take(self, count: int) -> None:
        self.backlog -= count
        self.sent += count

    def __getattr__(self, name: str) -> Callable[[], None]:
        return lambda: self.told.append(name)


def test_a_stream_of_any_kind_is_paused_at_the_high_mark_and_read_again_at_the_low_one() -> None:
    reactor, left, right, ended = Reactor(), Scripted(), Scripted(), list[Relay]()
    relay = Relay(reactor, left, right, IDLE, ended.append)  # type: ignore[arg-type]
    relay.start()
    left.told.clear()
    left.owner.data_received(bytes(HIGH_WATER - 1))
    assert left.told == []
    left.owner.data_received(b"x")
    assert left.told == ["pause_reading"]
    right.take(HIGH_WATER - 1)
    right.owner.resume_writing()
    assert left.told == ["pause_reading", "resume_reading"]
    left.owner.eof_received()
    assert right.told[-1] == "shutdown_write"
    right.owner.connection_lost(ConnectionResetError(errno.ECONNRESET, "reset"))
    assert left.told[-1] == "abort"
    left.owner.connection_lost(None)
    assert ended == []
    reactor.turn(0)
    assert ended == [relay] and relay.reason == "reset by right"
    assert reactor.pending_timers == 0
    reactor.close()


# Any order of events.

STEP = st.one_of(
    st.tuples(st.sampled_from(["client", "server"]), st.just("send"), st.integers(1, 400_000)),
    st.tuples(st.sampled_from(["client", "server"]), st.just("read"), st.integers(1, 400_000)),
    st.tuples(st.sampled_from(["client", "server"]), st.just("finish"), st.just(0)),
    st.tuples(st.just("loop"), st.just("turn"), st.integers(1, 3)),
    st.tuples(st.just("pipes"), st.just("none"), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([Stream, OtherStream]), st.lists(STEP, max_size=25), st.binary(max_size=9), st.binary(max_size=9))
def test_in_any_order_of_events_every_byte_arrives_once_and_the_ends_after_them(
    kind: type[Stream], steps: list[tuple[str, str, int]], from_left: bytes, from_right: bytes
) -> None:
    pipes = Counted()
    house = House(kind, pipes)
    client, relay, server = house.join()
    peers = {"client": client, "server": server}
    sent = {"client": bytearray(from_left), "server": bytearray(from_right)}
    finished = set()
    relay.start(from_left, from_right)
    for who, what, count in [*steps, ("client", "finish", 0), ("server", "finish", 0)]:
        if what == "send" and who not in finished:
            taken = peers[who].send(PATTERN[:count])
            sent[who] += PATTERN[:taken]
        elif what == "read":
            peers[who].read(count)
        elif what == "finish" and who not in finished:
            finished.add(who)
            peers[who].finish()
        elif what == "none":
            pipes.total = 0
        elif what == "turn":
            house.turns(count)
    house.until(lambda: client.end and server.end, client, server)
    assert (client.end, server.end) == ("eof", "eof")
    assert client.got == sent["server"]
    assert server.got == sent["client"]
    assert house.reason(relay) == "closed"
    assert (relay.bytes_left_to_right, relay.bytes_right_to_left) == (len(sent["client"]), len(sent["server"]))
    house.close()
