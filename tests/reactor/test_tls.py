"""A TLS stream against the interpreter's own engine, and against itself: the Stream's contract, and TLS's own ways to fail.

Where nothing else is said, the stream is the client and the peer is stepped by hand.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reactor import tls as tls_module
from reactor.connector import Connector
from reactor.errors import ConfigError, UpstreamError
from reactor.resolver import Resolver
from reactor.stream import HIGH_WATER, LINGER_SECONDS, Stream
from reactor.tls import BATCH_BYTES, CONTROL_BYTES, RECORD_BYTES, SESSIONS, ClientTls, TlsError, TlsStream
from tests.loopback import House, Peer, housed, tcp_pair
from tests.secured import AUTHORITY, TlsPeer, client_context, server_context

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
    """A TLS stream, its owner, and the peer at the other end."""

    def __init__(self, house: House, server_side: bool = False, context: ssl.SSLContext | None = None) -> None:
        self.house = house
        self.near, far = tcp_pair()
        self.owner = Owner()
        self.opened: list[TlsError | None] = []
        ours, theirs = (server_context(), client_context()) if server_side else (client_context(), context or server_context())
        host = None if server_side else b"origin.test"
        self.stream = TlsStream(house.reactor, self.owner, ours, host, server_side, on_open=self.opened.append)
        self.peer = TlsPeer(house, Peer(house, far), theirs, "origin.test" if server_side else None)
        house.peers.append(self.peer)
        house.cleanups.append(self.stream.abort)

    def start(self) -> Scene:
        """Connected, but no handshake yet."""
        self.quietly(self.stream.start, self.near)
        return self

    def open(self) -> Scene:
        self.start()
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
    scene = Scene(house, context=context).start()
    with pytest.raises(ssl.SSLError):
        scene.peer.shake()
    scene.peer.flush()
    assert scene.told() == [("lost", "tlsv1 alert protocol version")]


@pytest.mark.parametrize("server_side", [False, True])
def test_what_was_written_before_the_handshake_is_sent_then(server_side: bool, house: House) -> None:
    scene = Scene(house, server_side)
    scene.quietly(scene.stream.write, b"hel")
    scene.start()
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
    assert raw is not None
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
    monkeypatch.setattr(tls_module, "TURN_BYTES", 10)
    monkeypatch.setattr(tls_module, "BATCH_BYTES", 1)
    monkeypatch.setattr(tls_module, "RECORD_BYTES", 6)
    scene.quietly(scene.stream.write, b"123456" * 10)
    assert scene.stream.sent == 12
    scene.house.reactor.turn(0)
    assert scene.stream.sent == 24
    assert scene.peer.take(60) == b"123456" * 10
    assert scene.told() == ["drained"]


def test_corked_writes_and_parts_share_a_record(scene: Scene) -> None:
    raw = scene.stream._raw
    assert raw is not None
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
    scene.start()
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
    assert raw is not None
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
        scene = Scene(house, server_side).start()
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


def test_before_its_connection_stands_it_may_be_given_up(house: House) -> None:
    scene = Scene(house)
    scene.quietly(scene.stream.close)
    scene.stream.start(scene.near)
    assert scene.told() == [LOST]
    assert scene.near.fileno() == -1


def test_in_the_handshake_it_may_be_given_up(house: House) -> None:
    scene = Scene(house).start()
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
    one = TlsStream(house.reactor, client, client_context(), b"localhost", sock=near)
    two = TlsStream(house.reactor, server, server_context(), server_side=True, sock=far)
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
        scene = Scene(house, server_side).start()
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
            scene = Scene(house).start()
            house.until(scene.peer.read, "the hello")
            scene.peer.wire(flight[:size])
            getattr(scene.peer, leave)()
            (told,) = scene.told()
            assert told[0] == "lost" and isinstance(scene.opened[0], TlsError), (size, leave)


def _servers_flight(house: House) -> bytes:
    """What a server says first, to some other client: as good as any for being cut."""
    scene = Scene(house).start()
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
    stream = TlsStream(house.reactor, owner, ours, b"origin.test", sock=near)
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
    assert raw is not None
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


# A client's trust.


class Reaching:
    """Somebody who connects with TLS to a listener that the test plays."""

    def __init__(self, house: House, tls: ClientTls | None = None) -> None:
        self.house = house
        self.listener = house.listen()
        self.resolver = Resolver(house.reactor)
        self.connector = Connector(house.reactor, self.resolver)
        self.tls = tls or ClientTls(AUTHORITY)
        self.results: list[tuple[Any, str]] = []
        house.cleanups.append(self.resolver.close)

    def connect(self, host: str = "localhost", seconds: float = 10.0) -> Any:
        if host == "localhost":  # without a look-up, which has a process of its own
            self.resolver._memo[b"localhost"] = (1e9, ((socket.AF_INET, "127.0.0.1", 0),))
        return self.tls.connect(self.connector, host, self.listener.port, lambda *told: self.results.append(told), seconds)

    def accept(self, context: ssl.SSLContext | None = None) -> TlsPeer:
        peer = TlsPeer(self.house, self.listener.accept(), context or server_context())
        self.house.peers.append(peer)
        return peer

    def result(self) -> Any:
        self.house.until(lambda: self.results, "the result")
        ((result, address),) = self.results
        self.results.clear()
        assert address == f"127.0.0.1:{self.listener.port}" or result.phase == "connect"
        return result

    def opened(self, context: ssl.SSLContext | None = None) -> tuple[TlsStream, TlsPeer]:
        self.connect()
        peer = self.accept(context).shake()
        stream = self.result()
        assert isinstance(stream, TlsStream)
        stream.owner = Owner()
        self.house.cleanups.append(stream.abort)
        return stream, peer


def test_a_certificate_that_proves_it(house: House) -> None:
    stream, peer = Reaching(house).opened()
    assert peer.server_name == "localhost"
    assert peer.tls.selected_alpn_protocol() == "http/1.1"
    stream.write(b"hello")
    assert peer.take(5) == b"hello"
    assert house.reactor.pending_timers == 0


def test_an_address_is_verified_and_not_named(house: House) -> None:
    reaching = Reaching(house)
    reaching.connect("127.0.0.1")
    peer = reaching.accept().shake()
    reaching.result().abort()
    assert peer.server_name is None


def test_a_final_dot_is_no_part_of_the_name(house: House) -> None:
    reaching = Reaching(house)
    reaching.resolver._memo[b"localhost."] = (1e9, ((socket.AF_INET, "127.0.0.1", 0),))
    reaching.connect("localhost.")
    peer = reaching.accept().shake()
    reaching.result().abort()
    assert peer.server_name == "localhost"


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ("expired", "certificate has expired"),
        ("self-signed", "self-signed certificate"),
        ("other-name", "Hostname mismatch, certificate is not valid for 'localhost'."),
        ("common-name", "Hostname mismatch, certificate is not valid for 'localhost'."),
    ],
)
def test_a_certificate_that_does_not(certificate: str, reason: str, house: House) -> None:
    reaching = Reaching(house)
    reaching.connect()
    peer = reaching.accept(server_context(certificate))
    with pytest.raises(ssl.SSLError, match="(?i)alert"):  # TLS 1.3's server is done before the client's word comes
        peer.shake()
        peer.until(lambda: peer.over, "the alert")
    error = reaching.result()
    assert (error.phase, error.status) == ("certificate", 502)
    assert error.reason == f"TLS handshake: certificate verify failed: {reason}"
    assert str(error).startswith(f"127.0.0.1:{reaching.listener.port}: ")


def test_the_systems_authorities_do_not_know_ours(house: House) -> None:
    reaching = Reaching(house, ClientTls())
    reaching.connect()
    peer = reaching.accept()
    with pytest.raises(ssl.SSLError, match="(?i)alert"):
        peer.shake()
        peer.until(lambda: peer.over, "the alert")
    assert reaching.result().phase == "certificate"


def test_insecure_takes_any_certificate_and_says_so(house: House, caplog: pytest.LogCaptureFixture) -> None:
    tls = ClientTls(insecure=True)
    assert "NO CERTIFICATE IS VERIFIED" in caplog.text
    reaching = Reaching(house, tls)
    for certificate in ("expired", "self-signed", "other-name"):
        reaching.opened(server_context(certificate))


def test_a_reset_in_the_handshake(house: House) -> None:
    reaching = Reaching(house)
    reaching.connect()
    peer = reaching.accept()
    house.until(peer.read, "the client's hello")
    peer.reset()
    error = reaching.result()
    assert (error.phase, error.status) == ("TLS handshake", 502)
    assert "in the handshake" in error.reason


def test_a_handshake_that_stalls_falls_under_the_deadline(house: House) -> None:
    reaching = Reaching(house)
    reaching.connect(seconds=5)
    peer = reaching.accept()
    house.until(peer.read, "the client's hello")
    house.pass_time(4.9)
    assert not reaching.results
    house.pass_time(0.1)
    error = reaching.result()
    assert (error.phase, error.status) == ("TLS handshake", 504)
    assert error.reason == "TLS handshake: not done within 5 s (connect timeout)"
    peer.until(lambda: peer.over, "the reset")
    assert house.reactor.pending_timers == 0


def test_cancelling_at_every_step(house: House) -> None:
    reaching = Reaching(house)
    reaching.connect().cancel()
    attempt = reaching.connect()
    peer = reaching.accept()
    house.until(peer.read, "the client's hello")
    assert attempt.state == "handshaking"
    attempt.cancel()
    attempt.cancel()
    house.turns()
    assert not reaching.results
    assert (house.reactor.watched, house.reactor.pending_timers) == (0, 0)


def test_a_connection_that_is_refused(house: House) -> None:
    reaching = Reaching(house)
    reaching.listener.sock.close()
    reaching.connect()
    error = reaching.result()
    assert (error.phase, error.status) == ("connect", 502)


def test_a_host_that_no_certificate_could_be_for(house: House) -> None:
    reaching = Reaching(house)
    reaching.resolver._memo[b".localhost"] = (1e9, ((socket.AF_INET, "127.0.0.1", 0),))
    reaching.connect(".localhost")
    error = reaching.result()
    assert isinstance(error, UpstreamError) and error.phase == "TLS handshake"


def test_nor_one_that_is_too_long_for_any_name(house: House) -> None:
    """A proxy may have made a tunnel to it all the same."""
    near, far = tcp_pair()
    peer = house.peer(far)
    errors: list[Any] = []
    attempt = ClientTls(AUTHORITY).attempt(house.reactor, "a" * 300, 443, lambda *told: errors.append(told[0]), 10.0)
    attempt.secure(Stream(house.reactor, None, near), b"")
    assert [error.phase for error in errors] == ["TLS handshake"]
    peer.expect_reset()


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_session_is_resumed(version: ssl.TLSVersion, house: House) -> None:
    reaching = Reaching(house)
    context = server_context(version=version)
    for again in (False, True, True):
        stream, peer = reaching.opened(context)
        assert stream._ssl.session_reused is again
        peer.send(b"hello")
        house.turns()
        stream.close()
        peer.close()
    assert list(reaching.tls._sessions) == [("localhost", reaching.listener.port)]


def test_a_session_that_the_server_has_forgotten_costs_nothing(house: House) -> None:
    reaching = Reaching(house)
    for _ in range(2):
        stream, peer = reaching.opened(server_context())  # with keys of its own each time
        assert stream._ssl.session_reused is False
        peer.send(b"hello")
        house.turns()


def test_sessions_are_bounded(house: House) -> None:
    reaching = Reaching(house)
    stream, peer = reaching.opened()
    peer.send(b"hello")
    house.turns()
    (session,) = reaching.tls._sessions.values()
    for port in range(2 * SESSIONS):
        reaching.tls._keep(("a", port), session)
    assert len(reaching.tls._sessions) == SESSIONS


@pytest.mark.parametrize(("content", "reason"), [(None, "no such file"), (b"", "no certificate"), (b"garbage", "no certificate")])
def test_a_file_of_authorities_that_cannot_be_used(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        ClientTls(str(path))
    assert reason in str(raised.value) and str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert raised.value.code == 77


def test_over_a_stream_that_was_somebody_elses(house: House) -> None:
    """As behind a CONNECT: the first bytes may have been read already, by whoever owned the stream."""
    near, far = tcp_pair()
    far.setblocking(False)
    before = Owner()
    raw = Stream(house.reactor, before, far)
    client = TlsStream(house.reactor, Owner(), client_context(), b"localhost", sock=near)
    house.until(lambda: before.told, "the client's hello")
    ((_, hello),) = before.told
    owner = Owner()
    server = TlsStream(house.reactor, owner, server_context(), server_side=True)
    server.start_over(raw, hello)
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
    scene.start()
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
