"""A TLS stream against the interpreter's own engine, and against itself: the Stream's contract, and TLS's own ways to fail.

Where nothing else is said, the stream is the client and the peer is stepped by hand.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reactor.records import RECORD_BYTES
from reactor.stream import HIGH_WATER, LINGER_SECONDS, Stream
from reactor.tls_stream import BATCH_BYTES, CONTROL_BYTES, TlsError, TlsStream
from tests.loopback import House, Peer, housed, tcp_pair
from tests.secured import TlsPeer, client_context, server_context

MUCH = bytes(range(256)) * 8192  # 2 MiB: more than any kernel buffer here takes
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Owner:
    """Writes down what it is told; data that came in a row is one word. `on` says what to do at a word."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.on: dict[str, Callable[[], object]] = {}

    def _tell(self, word: str, more: Any = None) -> None:
        if word == "data" and self.told and self.told[-1][0] == "data":
            self.told[-1] = ("data", self.told[-1][1] + more)
        else:
            self.told.append((word, more) if more is not None else word)
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
        if isinstance(error, OSError) and error.errno is not None:
            self._tell("lost", errno.errorcode[error.errno])
        else:
            self._tell("lost", str(error) if isinstance(error, TlsError) else type(error).__name__)

    def failed(self, error: Exception) -> None:
        self._tell("failed", str(error))


LOST = ("lost", "NoneType")


class Scene:
    """A TLS stream that is connected, but has not shaken hands yet, its owner, and the peer at the other end."""

    def __init__(self, house: House, server_side: bool = False, context: ssl.SSLContext | None = None) -> None:
        self.house = house
        near, far = tcp_pair()
        self.owner = Owner()
        self.opened: list[TlsError | None] = []
        ours, theirs = (server_context(), client_context()) if server_side else (client_context(), context or server_context())
        host = None if server_side else b"origin.test"
        raw = Stream(house.reactor, None, near)
        self.stream = TlsStream(raw, self.owner, ours, host, server_side, on_open=self.opened.append)
        self.peer = TlsPeer(house, Peer(house, far), theirs, "origin.test" if server_side else None)
        house.peers.append(self.peer)
        house.cleanups.append(self.stream.abort)

    def open(self) -> Scene:
        self.peer.shake()
        self.house.until(lambda: self.stream.state == "open", "the handshake")
        assert self.opened == [None]
        return self

    @property
    def state(self) -> str:
        return self.stream.state

    def told(self) -> list[Any]:
        self.house.turns()
        told, self.owner.told = self.owner.told, []
        return told

    def quietly(self, call: Callable[..., object], *args: Any) -> None:
        """Call, and see that nobody is called back from within."""
        before = (list(self.owner.told), list(self.opened))
        call(*args)
        assert (self.owner.told, self.opened) == before, "called back from inside a call"


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture(params=["client", "server"])
def scene(request: pytest.FixtureRequest, house: House) -> Scene:
    """An open stream, on either side."""
    return Scene(house, server_side=request.param == "server").open()


# The contract that it has from Stream.


def test_what_is_written_arrives_and_what_arrives_is_told(scene: Scene) -> None:
    scene.quietly(scene.stream.write, b"hello")
    assert scene.peer.take(5) == b"hello"
    assert (scene.stream.backlog, scene.stream.sent) == (0, 5)
    scene.peer.send(b"one", b"two")
    assert scene.told() == [("data", b"onetwo")]
    assert scene.stream.received == 6


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_both_versions(version: ssl.TLSVersion, house: House) -> None:
    scene = Scene(house, context=server_context(version=version)).open()
    scene.stream.write(MUCH)
    assert scene.peer.take(len(MUCH)) == MUCH
    scene.peer.send(b"hello")
    assert scene.told()[-1] == ("data", b"hello")
    assert scene.peer.tls.version() == {TLS12: "TLSv1.2", TLS13: "TLSv1.3"}[version]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_an_older_version_is_refused(house: House) -> None:
    context = server_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    scene = Scene(house, context=context)
    with pytest.raises(ssl.SSLError):
        scene.peer.shake()
    scene.peer.flush()
    assert scene.told() == [("lost", "tlsv1 alert protocol version")]


@pytest.mark.parametrize("server_side", [False, True])
def test_what_was_written_before_the_handshake_is_sent_then(server_side: bool, house: House) -> None:
    scene = Scene(house, server_side)
    scene.quietly(scene.stream.write, b"hel")
    scene.quietly(scene.stream.write, b"lo")
    assert (scene.state, scene.stream.backlog, scene.stream.sent) == ("handshaking", 5, 0)
    scene.peer.shake()
    assert scene.peer.take(5) == b"hello"
    assert scene.told() == ["drained"]
    assert scene.stream.sent == 5


def test_an_end_asked_for_before_the_handshake_comes_then(house: House) -> None:
    for written in (b"", b"hello"):
        scene = Scene(house)
        scene.stream.write(written)
        scene.stream.shutdown_write()
        scene.open()
        assert scene.peer.take(len(written)) == written
        scene.peer.until(lambda scene=scene: scene.peer.notified, "close_notify")
        assert scene.state == "open"


def test_back_pressure_and_its_end(scene: Scene) -> None:
    while scene.stream.backlog < HIGH_WATER:
        scene.quietly(scene.stream.write, MUCH[:100_000])
    written = scene.stream.sent + scene.stream.backlog
    assert scene.told() == []
    assert scene.stream.sent < written
    raw = scene.stream._raw
    assert raw is not None and raw.backlog <= BATCH_BYTES + 1024  # what is encrypted is bounded; the rest waits as it is
    scene.peer.take(written)
    assert scene.told() in (["resume", "drained"], ["drained"])
    assert (scene.stream.backlog, scene.stream.sent) == (0, written)


def test_sent_and_backlog_always_make_up_what_was_written(scene: Scene) -> None:
    raw = scene.stream._raw
    scene.stream.write(MUCH)
    before = 0
    while scene.stream.backlog:
        assert scene.stream.sent + scene.stream.backlog == len(MUCH)
        assert before <= scene.stream.sent <= raw.sent  # what is encrypted but not in the kernel has not been sent
        before = scene.stream.sent
        scene.peer.read(4096)
        scene.house.turns(1)
    assert scene.stream.sent == len(MUCH)


def test_one_streams_share_of_a_turn_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.tls_stream.TURN_BYTES", 10)
    monkeypatch.setattr("reactor.tls_stream.BATCH_BYTES", 1)
    monkeypatch.setattr("reactor.records.RECORD_BYTES", 6)
    scene.quietly(scene.stream.write, b"123456" * 10)
    assert scene.stream.sent == 12
    scene.house.reactor.turn(0)
    assert scene.stream.sent == 24
    assert scene.peer.take(60) == b"123456" * 10
    assert scene.told() == ["drained"]


def test_corked_writes_and_parts_share_a_record(scene: Scene) -> None:
    raw = scene.stream._raw
    before = raw.sent
    scene.stream.cork()
    for piece in (b"a", memoryview(b"b"), b"c"):
        scene.quietly(scene.stream.write, piece)
    scene.stream.write_parts([b"d", b"", memoryview(b"e")])
    assert (raw.sent, scene.stream.backlog) == (before, 5)
    scene.quietly(scene.stream.uncork)
    assert scene.stream.backlog == 0
    assert raw.sent - before < 50  # one record's overhead
    assert scene.peer.take(5) == b"abcde"
    assert scene.told() == []


def test_a_cork_gives_way_at_the_high_mark(scene: Scene) -> None:
    scene.stream.cork()
    scene.stream.write(b"x" * (HIGH_WATER - 1))
    assert scene.stream.sent == 0
    scene.quietly(scene.stream.write, b"x")
    scene.house.turns()
    assert scene.stream.sent > 0
    assert scene.peer.take(HIGH_WATER) == b"x" * HIGH_WATER


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
    expected = b"before," + MUCH[1000:-1000] + b",after"
    assert scene.stream.backlog == len(expected) - scene.stream.sent
    assert scene.peer.take(len(expected)) == expected
    assert scene.told()[-1] == "drained"


@pytest.mark.parametrize("size", [0, 100, len(MUCH)])
def test_a_head_and_its_file_as_one(scene: Scene, file: int, size: int) -> None:
    scene.quietly(scene.stream.send_with_file, b"head,", file, 0, size)
    expected = b"head," + MUCH[:size]
    assert scene.peer.take(len(expected)) == expected


def test_a_file_that_becomes_shorter_is_seen_cut_short(scene: Scene, file: int) -> None:
    scene.quietly(scene.stream.send_file, file, 0, len(MUCH))
    os.ftruncate(file, 1_000_000)
    scene.peer.until(lambda: scene.peer.over, "the end")
    assert scene.peer.end == "reset"
    assert scene.told()[-1] == ("lost", "BodyCutShort")


def test_a_file_that_changed_is_not_sent_to_its_end(scene: Scene, file: int) -> None:
    scene.quietly(scene.stream.send_file, file, 0, 100, lambda: False)
    assert scene.peer.take(100) == MUCH[:100]
    scene.told()
    scene.quietly(scene.stream.send_file, file, 0, len(MUCH), lambda: False)
    scene.peer.until(lambda: scene.peer.over, "the end")
    assert scene.peer.end == "reset"
    assert 100 < scene.stream.taken()
    assert scene.told()[-1] == ("lost", "BodyCutShort")


def test_a_paused_stream_leaves_it_in_the_kernel(scene: Scene) -> None:
    scene.quietly(scene.stream.pause_reading)
    assert not scene.stream.unread()
    scene.peer.send(b"hello")
    assert scene.told() == []
    assert scene.stream.unread()
    scene.quietly(scene.stream.resume_reading)
    assert scene.stream.unread()
    assert scene.told() == [("data", b"hello")]
    assert not scene.stream.unread()


@pytest.mark.parametrize("server_side", [False, True])
def test_what_comes_with_the_handshakes_end_waits_for_a_paused_owner(server_side: bool, house: House) -> None:
    scene = Scene(house, server_side)
    scene.stream.pause_reading()
    peer = scene.peer
    peer.until(lambda: _shaken(peer), "the handshake")
    peer.tls.write(b"hello")
    try:
        peer.tls.unwrap()
    except ssl.SSLWantReadError:
        pass
    peer.flush()
    house.until(lambda: scene.state == "open", "the handshake")
    assert scene.told() == []
    assert scene.stream.unread()
    scene.quietly(scene.stream.resume_reading)
    assert scene.told() == [("data", b"hello"), "eof"]
    assert not scene.stream.unread()
    assert scene.stream.at_eof


@pytest.mark.parametrize("server_side", [False, True])
def test_what_comes_later_waits_in_the_kernel(server_side: bool, house: House) -> None:
    scene = Scene(house, server_side)
    scene.stream.pause_reading()
    scene.open()
    raw = scene.stream._raw
    house.turns()
    before = raw.received
    scene.peer.send(b"hello")
    assert (scene.told(), raw.received) == ([], before)
    scene.stream.resume_reading()
    assert scene.told() == [("data", b"hello")]


def _shaken(peer: TlsPeer) -> bool:
    """Shaken hands, but the last words not sent yet."""
    try:
        peer.tls.do_handshake()
        return True
    except ssl.SSLWantReadError:
        peer.flush()
        return False


def test_a_pause_holds_back_the_end_too(scene: Scene) -> None:
    scene.owner.on["data"] = scene.stream.pause_reading
    scene.peer.tls.write(b"hello")
    scene.peer.notify()
    assert scene.told() == [("data", b"hello")]
    scene.quietly(scene.stream.resume_reading)
    assert scene.told() == ["eof"]


def test_big_bodies_both_ways_at_once(scene: Scene) -> None:
    """Neither side reads before it has written: the stream must do both."""
    scene.stream.write(MUCH)
    scene.peer.send(MUCH)
    assert scene.peer.take(len(MUCH)) == MUCH
    words = scene.told()
    assert b"".join(word[1] for word in words if word[0] == "data") == MUCH


def test_one_byte_at_a_time(house: House) -> None:
    for server_side in (False, True):
        scene = Scene(house, server_side)
        scene.peer.step = 1
        scene.peer.shake()
        scene.peer.send(b"hello")
        scene.peer.notify()
        house.turns()
        assert scene.told() == [("data", b"hello"), "eof"]
        scene.stream.write(b"answer")
        assert scene.peer.take(6) == b"answer"


def test_many_small_records_are_one_word(scene: Scene) -> None:
    data = b"".join(scene.peer.record(b"x") for _ in range(1000))
    scene.stream.pause_reading()
    scene.peer.wire(data)
    calls: list[int] = []
    scene.owner.on["data"] = lambda: calls.append(1)
    scene.stream.resume_reading()
    assert scene.told() == [("data", b"x" * 1000)]
    assert len(calls) < 10


def test_half_closed_by_the_peer_it_can_still_be_written(scene: Scene) -> None:
    scene.peer.notify()
    assert scene.told() == ["eof"]
    scene.quietly(scene.stream.write, MUCH)
    assert scene.peer.take(len(MUCH)) == MUCH
    scene.stream.close()
    scene.peer.expect_close()


def test_half_closed_by_itself_it_can_still_be_read(scene: Scene) -> None:
    scene.stream.write(MUCH)
    scene.quietly(scene.stream.shutdown_write)
    scene.quietly(scene.stream.shutdown_write)
    scene.quietly(scene.stream.write, b"too late")
    assert scene.peer.take(len(MUCH)) == MUCH
    scene.peer.until(lambda: scene.peer.notified, "close_notify")
    assert not scene.peer.ended
    scene.told()
    scene.peer.send(b"hello", MUCH)
    assert scene.told() == [("data", b"hello" + MUCH)]
    scene.peer.notify()
    assert scene.told() == ["eof"]
    assert scene.state == "open"


def test_close_flushes_says_goodbye_and_lingers(scene: Scene) -> None:
    scene.stream.write(MUCH)
    scene.quietly(scene.stream.close)
    assert scene.state == "flushing"
    scene.peer.send(b"still talking")
    assert scene.peer.take(len(MUCH)) == MUCH
    scene.peer.expect_close()  # with a close_notify
    assert scene.state == "lingering"
    assert scene.told() == ["drained"]
    scene.peer.close()
    assert scene.told() == [LOST]
    assert scene.house.reactor.pending_timers == 0


def test_lingering_ends_after_a_time(scene: Scene) -> None:
    scene.quietly(scene.stream.close)
    assert scene.state == "lingering"
    assert scene.told() == []
    scene.house.pass_time(LINGER_SECONDS)
    assert scene.told() == [LOST]


def test_a_peer_that_leaves_while_it_is_flushed_to_still_gets_the_rest(scene: Scene) -> None:
    scene.stream.write(MUCH)
    scene.stream.close()
    scene.peer.shutdown()  # without a close_notify
    assert scene.peer.take(len(MUCH)) == MUCH
    scene.peer.expect_close()


def test_abort_resets(scene: Scene) -> None:
    scene.stream.write(MUCH)
    scene.quietly(scene.stream.abort)
    scene.quietly(scene.stream.abort)
    scene.quietly(scene.stream.close)
    assert scene.stream.backlog == 0
    assert scene.told() == [LOST]
    scene.peer.expect_reset()


def test_in_the_handshake_it_may_be_given_up(house: House) -> None:
    scene = Scene(house)
    house.turns()
    scene.quietly(scene.stream.close)
    assert scene.told() == [LOST]
    scene.peer.expect_reset()


def test_after_an_abort_nothing_more_is_told(scene: Scene) -> None:
    scene.stream.pause_reading()
    scene.peer.send(b"hello")
    scene.peer.notify()
    scene.stream.resume_reading()
    scene.stream.abort()
    assert scene.told() == [LOST]


def test_a_reset_is_told(scene: Scene) -> None:
    scene.peer.reset()
    assert scene.told() == [("lost", "ECONNRESET")]


def test_a_failed_write_still_reads_what_the_peer_said(scene: Scene) -> None:
    scene.stream.write(b"a long upload")
    scene.house.turns()
    scene.stream.pause_reading()
    scene.peer.send(b"413 too large")
    scene.peer.close()  # with the upload unread: a reset
    scene.quietly(scene.stream.write, b"more of it")
    assert scene.state == "broken"
    scene.quietly(scene.stream.write, b"and more")
    assert scene.stream.backlog == 0
    assert scene.told() == [("data", b"413 too large"), ("lost", "ECONNRESET")]


def test_what_a_broken_stream_could_not_send_is_not_counted_as_sent(scene: Scene) -> None:
    scene.stream.write(MUCH)
    sent = scene.stream.sent
    assert sent < len(MUCH)
    scene.peer.reset()
    scene.told()
    assert (scene.stream.sent, scene.stream.backlog, scene.state) == (sent, 0, "closed")


def test_an_exception_in_a_callback_goes_to_the_owner(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.owner.on["data"] = _raise
    scene.peer.send(b"hello")
    assert scene.told() == [("data", b"hello"), ("failed", "no")]
    assert scene.state == "open"


def test_without_an_owner_an_exception_resets(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.stream.owner = None
    scene.peer.send(b"hello")
    scene.house.turns()
    assert scene.state == "closed"
    scene.peer.expect_reset()


def _raise() -> None:
    raise ValueError("no")


def test_against_itself(house: House) -> None:
    """Both sides on one loop: 4 MiB each way, echoed, and an orderly end."""
    near, far = tcp_pair()
    far.setblocking(False)
    client, server = Owner(), Owner()
    one = TlsStream(Stream(house.reactor, None, near), client, client_context(), b"localhost")
    two = TlsStream(Stream(house.reactor, None, far), server, server_context(), server_side=True)
    server.on["data"] = lambda: two.write(server.told.pop()[1])
    server.on["eof"] = two.shutdown_write
    one.write(MUCH)
    one.write(MUCH)
    one.shutdown_write()
    house.until(lambda: "eof" in client.told, "the echo")
    assert b"".join(word[1] for word in client.told if word[0] == "data") == MUCH + MUCH
    one.close()
    two.close()
    house.until(lambda: (one.state, two.state) == ("closed", "closed"), "the end")


# TLS's own ways to fail.


def test_the_end_without_a_close_notify_is_a_cut(scene: Scene) -> None:
    scene.peer.send(b"hello")
    scene.peer.shutdown()
    assert scene.told() == [("data", b"hello"), ("lost", "closed without a close_notify")]


def test_an_end_in_the_middle_of_a_record_is_a_cut(scene: Scene) -> None:
    scene.peer.wire(scene.peer.record(b"hello")[:-1])
    scene.peer.shutdown()
    assert scene.told() == [("lost", "closed without a close_notify")]


def test_a_damaged_record_is_refused_with_an_alert(scene: Scene) -> None:
    record = bytearray(scene.peer.record(b"hello"))
    record[-1] ^= 1
    before = scene.peer.record(b"")
    scene.peer.wire(before)
    scene.peer.wire(bytes(record))
    (told,) = scene.told()
    assert told[0] == "lost" and "mac" in told[1].lower()
    with pytest.raises(ssl.SSLError, match="(?i)alert"):
        scene.peer.until(lambda: scene.peer.over, "the alert")


def test_garbage_between_records(scene: Scene) -> None:
    scene.peer.wire(b"HTTP/1.1 200 OK\r\n\r\n")
    (told,) = scene.told()
    assert told[0] == "lost" and "version" in told[1]


def test_what_comes_behind_a_close_notify_is_ignored(scene: Scene) -> None:
    scene.peer.notify()
    scene.peer.wire(b"garbage" * 1000)
    assert scene.told() == ["eof"]
    assert scene.state == "open"


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "wrong version number"), (b"\x16\x03\x03\x00\x04zzzz" * 3, "")],
)
def test_garbage_instead_of_a_handshake(garbage: bytes, reason: str, house: House) -> None:
    for server_side in (False, True):
        scene = Scene(house, server_side)
        house.turns()
        scene.peer.wire(garbage)
        (told,) = scene.told()
        assert told[0] == "lost" and (reason in told[1] or server_side)
        (error,) = scene.opened
        assert error is not None and str(error) == told[1]


def test_an_end_at_every_step_of_the_handshake(house: House) -> None:
    flight = _servers_flight(house)
    for size in {0, 1, 5, 6, len(flight) // 2, len(flight) - 1}:
        for leave in ("shutdown", "reset"):
            scene = Scene(house)
            house.until(scene.peer.read, "the hello")
            scene.peer.wire(flight[:size])
            getattr(scene.peer, leave)()
            (told,) = scene.told()
            assert told[0] == "lost" and isinstance(scene.opened[0], TlsError), (size, leave)


def _servers_flight(house: House) -> bytes:
    """What a server says first, to some other client: as good as any for being cut."""
    scene = Scene(house)
    house.until(scene.peer.read, "the client's hello")
    with pytest.raises(ssl.SSLWantReadError):
        scene.peer.tls.do_handshake()
    return scene.peer.outgoing.read()


def test_a_peer_that_asks_for_the_clients_certificate_later(house: House) -> None:
    """RFC 8446 section 4.6.2: an exchange within the TLS layer, in the middle of the owner's bytes; as a key update is."""
    context = server_context(version=TLS13)
    context.post_handshake_auth = True
    context.verify_mode = ssl.CERT_OPTIONAL
    near, far = tcp_pair()
    ours = client_context()
    ours.post_handshake_auth = True
    owner = Owner()
    stream = TlsStream(Stream(house.reactor, None, near), owner, ours, b"origin.test")
    peer = TlsPeer(house, Peer(house, far), context)
    house.peers.append(peer)
    house.cleanups.append(stream.abort)
    peer.shake()
    stream.write(b"one")
    assert peer.take(3) == b"one"
    peer.tls.verify_client_post_handshake()
    peer.send(b"two")
    house.turns()
    assert owner.told == [("data", b"two")]
    stream.write(b"three")
    assert peer.take(5) == b"three"
    assert stream.state == "open"


class Renegotiating:
    """An engine that takes nothing until it has read something: TLS 1.2's renegotiation, which the module cannot start."""

    def __init__(self, engine: ssl.SSLObject) -> None:
        self.engine = engine
        self.blocked = True

    def write(self, data: Any) -> int:
        if self.blocked:
            raise ssl.SSLWantReadError
        return self.engine.write(data)

    def read(self, size: int) -> bytes:
        self.blocked = False
        return self.engine.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def test_writing_goes_on_after_a_renegotiation(scene: Scene) -> None:
    scene.stream._ssl = Renegotiating(scene.stream._ssl)  # type: ignore[assignment]
    scene.stream.write(b"hel")
    scene.stream.write(b"lo")
    assert scene.stream.backlog == 5
    scene.house.turns()
    scene.peer.send(b"x")
    assert scene.peer.take(5) == b"hello"
    assert sorted(scene.told(), key=str) == [("data", b"x"), "drained"]


class Chatty(Renegotiating):
    """An engine that answers each read with a word of its own."""

    def __init__(self, engine: ssl.SSLObject, outgoing: ssl.MemoryBIO) -> None:
        super().__init__(engine)
        self.outgoing = outgoing

    def read(self, size: int) -> bytes:
        self.outgoing.write(b"x" * RECORD_BYTES)
        return self.engine.read(size)


def test_a_peer_that_makes_it_talk_and_does_not_listen_is_cut_off(scene: Scene) -> None:
    scene.stream._ssl = Chatty(scene.stream._ssl, scene.stream._outgoing)  # type: ignore[assignment]
    raw = scene.stream._raw
    for _ in range(1000):
        if scene.state == "closed":
            break
        scene.peer.send(b"x")
        assert raw.backlog <= CONTROL_BYTES + 2 * RECORD_BYTES
    assert scene.told()[-1] == ("lost", "asked for more answers in the TLS layer than it took")


def test_an_engine_that_fails_in_a_write_tells_from_the_loop(scene: Scene) -> None:
    class Broken(Renegotiating):
        def write(self, data: Any) -> int:
            raise ssl.SSLError(1, "[SSL] internal error (_ssl.c:1)")

    scene.stream._ssl = Broken(scene.stream._ssl)  # type: ignore[assignment]
    scene.quietly(scene.stream.write, b"hello")
    assert scene.told() == [("lost", "internal error")]
    scene.peer.expect_reset()


def test_over_a_stream_that_was_somebody_elses(house: House) -> None:
    """As behind a CONNECT: the first bytes may have been read already, by whoever owned the stream."""
    near, far = tcp_pair()
    far.setblocking(False)
    before = Owner()
    raw = Stream(house.reactor, before, far)
    client = TlsStream(Stream(house.reactor, None, near), Owner(), client_context(), b"localhost")
    house.until(lambda: before.told, "the client's hello")
    ((_, hello),) = before.told
    owner = Owner()
    server = TlsStream(raw, owner, server_context(), server_side=True, received=hello)
    client.write(b"hello")
    house.until(lambda: owner.told, "the greeting")
    assert owner.told == [("data", b"hello")]
    for stream in (client, server):
        house.cleanups.append(stream.abort)


# Cycles.


def _orderly(scene: Scene) -> None:
    scene.open()
    scene.stream.write(MUCH)
    scene.peer.send(b"hello")
    scene.peer.take(len(MUCH))
    scene.stream.close()
    scene.peer.notify()


def _cut(scene: Scene) -> None:
    scene.open()
    scene.peer.send(b"hello")
    scene.peer.shutdown()


def _reset(scene: Scene) -> None:
    scene.open()
    scene.stream.write(MUCH)
    scene.peer.reset()


def _garbage(scene: Scene) -> None:
    scene.open()
    scene.peer.wire(b"garbage, garbage")


def _abort(scene: Scene) -> None:
    scene.open()
    scene.stream.write(MUCH)
    scene.stream.abort()


def _file_is_cut(scene: Scene) -> None:
    scene.open()
    fd = os.memfd_create("file")
    scene.stream.send_file(fd, 0, 100)
    os.close(fd)


def _handshake_fails(scene: Scene) -> None:
    scene.house.turns()
    scene.peer.wire(b"garbage, garbage")


class Holding(Owner):
    """An owner as they are: it holds its stream."""

    stream: TlsStream


@pytest.mark.parametrize(
    "life", [_orderly, _cut, _reset, _garbage, _abort, _file_is_cut, _handshake_fails], ids=lambda life: life.__name__
)
def test_no_cycle_is_left_behind(life: Callable[[Scene], None], house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    scene = Scene(house)
    owner = Holding()
    owner.stream = scene.stream
    scene.owner = scene.stream.owner = owner
    gc.collect()
    gc.disable()
    try:
        life(scene)
        scene.peer.close()
        house.turns()
        assert scene.state == "closed"
        house.cleanups.clear()
        house.peers.clear()
        scene.peer.tls.context.sni_callback = None
        owner.on.clear()
        del scene, owner
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [one for one in gc.garbage if type(one).__module__.startswith("reactor.")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
