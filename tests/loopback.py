"""A real loop in the test's own thread, turned until something has come to pass, and raw peers that talk over the loopback.

    house = House()
    served = house.serve(handler)
    peer = served.connect()
    peer.send(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    assert peer.answer().status == 200
    house.close()          # asserts that no socket, no timer and no descriptor is left

Time stands still unless a test moves it by `pass_time`, so that no deadline fires by accident and none is waited for.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

from reactor.errors import BodyCutShort
from reactor.exchange import Body, Exchange, Handler, Head, Source, error_page
from reactor.http.fields import Fields
from reactor.listener import Listener
from reactor.loop import Reactor
from reactor.server import ExchangeLog, Server, ServerLimits
from reactor.server_connection import ServerConnection

TURNS = 2000  # of the loop before a test gives up
TURN_SECONDS = 0.005  # waited in each for other processes; what happens in this one takes none
WALL = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT
SMALL_BUFFER = 32 * 1024
LIMITS = ServerLimits()
RESET = struct.pack("ii", 1, 0)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection; the first cannot send much before the other reads."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1448)  # the loopback's own would not fit in its window
        far.connect(server.getsockname())
        near, _ = server.accept()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    near.setblocking(False)
    far.setblocking(False)
    return near, far


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class House:
    """A reactor with clocks of its own, what was started on it, and the peers that were connected to it."""

    def __init__(self, real_time: bool = False) -> None:
        self.descriptors = open_descriptors()
        self.clock = Clock(1000.0)
        self.wall = Clock(WALL)
        self.reactor = Reactor() if real_time else Reactor(clock=self.clock, wall_clock=self.wall)
        self.peers: list[Peer] = []
        self.served: list[Served] = []
        self.origins: list[Origin] = []
        self.cleanups: list[Callable[[], object]] = []

    # Time.

    def until(self, condition: Callable[[], object], what: str | Callable[[], str] = "it") -> None:
        """Turn until the condition holds; it must within a bounded number of turns."""
        for turn in range(TURNS):
            if condition():
                return
            self.reactor.turn(0.0 if turn < 20 else TURN_SECONDS)
        raise AssertionError(f"{what() if callable(what) else what} did not come to pass")

    def turns(self, number: int = 20) -> None:
        """Let everything that can happen without time passing happen."""
        for _ in range(number):
            self.reactor.turn(0.0)

    def pass_time(self, seconds: float) -> None:
        """Move both clocks, and let what is due happen."""
        self.clock.now += seconds
        self.wall.now += seconds
        self.turns()

    # Who is there.

    def serve(self, handler: Handler, limits: ServerLimits = LIMITS, access_log: ExchangeLog | None = None) -> Served:
        """A server with this handler on a free port of 127.0.0.1."""
        served = Served(self, handler, limits, access_log)
        self.served.append(served)
        return served

    def connect(self, port: int, host: str = "127.0.0.1", small_buffers: bool = False) -> Peer:
        """A client's socket. With small buffers, and where it does not read, little is on its way to it."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if small_buffers:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1448)  # the loopback's own would not fit in its window
        sock.connect((host, port))
        return self.peer(sock)

    def peer(self, sock: socket.socket) -> Peer:
        """A peer around a connected socket."""
        peer = Peer(self, sock)
        self.peers.append(peer)
        return peer

    def listen(self) -> Origin:
        """A raw listener, for a test that plays the origin itself."""
        origin = Origin(self)
        self.origins.append(origin)
        return origin

    def _sockets(self) -> list[socket.socket]:
        return [peer.sock for peer in self.peers] + [origin.sock for origin in self.origins]

    def give_up(self) -> None:
        """Let go of everything, whatever state it is in; after `close` there is nothing left to let go of."""
        for sock in self._sockets():
            sock.close()
        for served in self.served:
            served.listener.close()
            for connection in served.server.connections:
                if connection.stream.sock is not None:
                    connection.stream.sock.close()
        self.reactor.close()

    def close(self) -> None:
        """Everybody leaves; nothing may stay behind."""
        for sock in self._sockets():
            sock.close()
        for served in self.served:
            served.listener.close()
            served.server.abort()
        for cleanup in reversed(self.cleanups):
            cleanup()
        self.until(lambda: not any(served.server.connections for served in self.served), "the end of all connections")
        self.turns()
        watched, timers = self.reactor.watched, self.reactor.pending_timers
        self.reactor.close()
        assert (watched, timers) == (0, 0), f"{watched} sockets and {timers} timers left behind"
        assert open_descriptors() <= self.descriptors, "descriptors left behind"


def housed() -> Iterator[House]:
    """The body of a fixture: `yield from housed()`."""
    house = House()
    try:
        yield house
        house.close()
    finally:
        house.give_up()


class Served:
    """A server, its listener, and its one connection where there is one."""

    def __init__(self, house: House, handler: Handler, limits: ServerLimits, access_log: ExchangeLog | None) -> None:
        self.house = house
        self.server = Server(house.reactor, handler, limits, access_log, timed=getattr(access_log, "timed", False))
        self.listener = Listener(house.reactor, "127.0.0.1", 0, self.server.accept)
        self.port: int = self.listener.port

    def connect(self, small_buffers: bool = False) -> Peer:
        """A peer whose connection the server has accepted."""
        before = len(self.server.connections)
        peer = self.house.connect(self.port, small_buffers=small_buffers)
        self.house.until(lambda: len(self.server.connections) > before, "the connection")
        if small_buffers:
            for connection in self.server.connections:
                assert connection.stream.sock is not None
                connection.stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        return peer

    @property
    def connection(self) -> ServerConnection:
        (connection,) = self.server.connections
        return connection


class Answer:
    """A response as it was read off the wire."""

    def __init__(self, status: int, fields: dict[bytes, bytes], head: bytes) -> None:
        self.status = status
        self.fields = fields  # names in lower case; the values of repeated ones joined by a comma
        self.head = head
        self.body = b""
        self.trailers: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return f"<Answer {self.head!r} {len(self.body)} bytes>"


class Peer:
    """The other side of a connection: a raw socket, read without blocking whenever the loop is turned for it."""

    def __init__(self, house: House, sock: socket.socket) -> None:
        self.house = house
        self.sock = sock
        self.received = bytearray()  # and not yet expected
        self.at_eof = False
        self.was_reset = False
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a small piece waits for no delayed acknowledgement

    def fileno(self) -> int:
        return self.sock.fileno()

    # What it says.

    def send(self, *pieces: bytes) -> None:
        """Send each piece with a send of its own; the loop is turned in between, and while the kernel is full."""
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                sent = self._send(rest)
                rest = rest[sent:]
                self.house.turns(2)
                if rest and not sent:
                    self.house.until(lambda: select.select([], [self.sock], [], 0)[1], "room in the kernel")

    def offer(self, data: bytes) -> int:
        """Send what the kernel takes at once; how much that was."""
        sent = self._send(memoryview(data))
        self.house.turns(2)
        return sent

    def _send(self, data: memoryview) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def shutdown(self) -> None:
        """Half-close: nothing more will be sent."""
        self.sock.shutdown(socket.SHUT_WR)
        self.house.turns(3)

    def reset(self) -> None:
        """Leave with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def close(self) -> None:
        self.sock.close()
        self.house.turns(3)

    # What it hears.

    def read(self, most: int = 1 << 18) -> bool:
        """Receive what is there; whether there was anything, an end included."""
        if self.at_eof or self.was_reset:
            return False
        data = self._receive(most)
        if data is None:
            return self.was_reset
        self.received += data
        self.at_eof = not data
        return True

    def _receive(self, most: int) -> bytes | None:
        """What is there; None where there is nothing, or a reset, which is noted."""
        try:
            return self.sock.recv(most)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            self.was_reset = True
            return None

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Read and turn until the condition holds."""

        def holds() -> object:
            return condition() or (self.read() and condition())

        self.house.until(holds, lambda: f"{what}; received: {self.received[:1000]!r}, {self.end}")

    @property
    def end(self) -> str:
        return "reset" if self.was_reset else "end of input" if self.at_eof else "open"

    @property
    def over(self) -> bool:
        return self.at_eof or self.was_reset

    def take(self, size: int) -> bytes:
        """The next bytes, consumed."""
        self.until(lambda: len(self.received) >= size or self.over, f"{size} bytes")
        assert len(self.received) >= size, f"{self.end} after {self.received[:1000]!r}"
        data = bytes(memoryview(self.received)[:size])
        del self.received[:size]
        return data

    def take_until(self, mark: bytes) -> bytes:
        """The next bytes up to and with the mark, consumed."""
        self.until(lambda: mark in self.received or self.over, f"{mark!r}")
        assert mark in self.received, f"{self.end} after {self.received[:1000]!r}"
        return self.take(self.received.index(mark) + len(mark))

    def expect(self, data: bytes) -> None:
        """Exactly these bytes come next."""
        assert self.take(len(data)) == data

    def expect_silence(self) -> None:
        """Nothing comes, and the connection stands."""
        self.house.turns()
        while self.read():
            pass
        assert (bytes(self.received), self.end) == (b"", "open")

    def expect_close(self) -> None:
        """Nothing more comes but an orderly end."""
        self.until(lambda: self.over, "the end")
        assert (bytes(self.received), self.end) == (b"", "end of input")

    def expect_reset(self) -> None:
        """The connection is reset; what came before it is kept in `received`, if it arrived at all."""
        self.until(lambda: self.over, "the reset")
        assert self.end == "reset", f"{self.end} after {self.received[:1000]!r}"

    def rest(self) -> bytes:
        """Everything up to an orderly end, consumed."""
        self.until(lambda: self.over, "the end")
        assert self.end == "end of input", f"{self.end} after {self.received[:1000]!r}"
        return self.take(len(self.received))

    def head(self) -> Answer:
        """The next head, interim ones included; its body is left where it is."""
        head = self.take_until(b"\r\n\r\n")
        start, *lines = head[:-4].split(b"\r\n")
        version, status, _ = start.split(b" ", 2)
        assert version == b"HTTP/1.1"
        return Answer(int(status), _fields(lines), head)

    def answer(self, method: bytes = b"GET") -> Answer:
        """The next whole response to a request of this method, read by its framing (RFC 9112 section 6.3)."""
        answer = self.head()
        fields = answer.fields
        if method == b"HEAD" or answer.status < 200 or answer.status in (204, 304):
            return answer
        if fields.get(b"transfer-encoding") == b"chunked":
            assert b"content-length" not in fields
            self._read_chunks(answer)
        elif b"content-length" in fields:
            answer.body = self.take(int(fields[b"content-length"]))
        else:
            answer.body = self.rest()
        return answer

    def _read_chunks(self, answer: Answer) -> None:
        pieces = []
        while size := int(self.take_until(b"\r\n"), 16):
            pieces.append(self.take(size))
            self.expect(b"\r\n")
        answer.body = b"".join(pieces)
        section = b""
        while (line := self.take_until(b"\r\n")) != b"\r\n":
            section += line
        answer.trailers = _fields(section.split(b"\r\n")[:-1])


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        assert colon
        name, value = name.lower(), value.strip(b" \t")
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


class Origin:
    """A raw listener on a free port; `accept` gives the next connection as a peer."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]

    def accept(self) -> Peer:
        self.house.until(lambda: select.select([self.sock], [], [], 0)[0], "a connection to the origin")
        sock, _ = self.sock.accept()
        return self.house.peer(sock)


# Handlers and bodies.


class Handling:
    """A handler that keeps the exchanges it was given, and answers by `answer` where there is one."""

    def __init__(self, answer: Callable[[Exchange], object] | None = None) -> None:
        self.answer = answer
        self.exchanges: list[Exchange] = []
        self.ended: list[Exchange] = []  # in the order of their ends; more than once would show

    def handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        exchange.on_end(self.ended.append)
        if self.answer is not None:
            self.answer(exchange)

    @property
    def last(self) -> Exchange:
        return self.exchanges[-1]


def says(body: Body, status: int = 200, *fields: tuple[bytes, bytes]) -> Callable[[Exchange], None]:
    """An answer for `Handling` that is the same each time."""

    def answer(exchange: Exchange) -> None:
        exchange.respond(Head(status, fields), body)

    return answer


def echo(exchange: Exchange) -> None:
    """An answer for `Handling`: the request's body, whole."""
    collect(exchange.body, lambda body: exchange.respond(Head(200), body), exchange)


def collect(body: Body, callback: Callable[[bytes], object], exchange: Exchange | None = None) -> None:
    """Pull a body to its end and give it to the callback; where it is cut, the exchange, if given, fails."""
    if isinstance(body, bytes):
        callback(body)
        return
    pieces: list[bytes] = []

    def pull() -> None:
        while True:
            try:
                data = body.pull(1 << 16)
            except BodyCutShort as error:
                if exchange is not None:
                    exchange.respond(*error_page(error.status, error.reason))
                return
            if data is None:
                return
            if not data:
                body.on_ready = None
                callback(b"".join(pieces))
                return
            pieces.append(bytes(data))

    body.on_ready = pull
    pull()


class Script(Source):
    """A body played by a test: `pieces` in order; None waits for `go`, an exception is raised, the end is implied.

    `more` and `go` add pieces while it is being sent. `pulls` and `closes` count.
    """

    __slots__ = ("reactor", "pieces", "pulls", "closes", "waiting")

    def __init__(self, reactor: Reactor, *pieces: Any, length: int | None = None, trailers: Fields | None = None) -> None:
        super().__init__(length)
        self.reactor = reactor
        self.pieces: list[Any] = list(pieces)
        self.trailers = trailers
        self.pulls = 0
        self.closes = 0
        self.waiting = False

    def pull(self, limit: int) -> bytes | None:
        assert not self.closes, "pulled after close"
        self.pulls += 1
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if piece is None:
            self.waiting = True
            return None
        if isinstance(piece, Exception):
            raise piece
        if len(piece) > limit:
            self.pieces.insert(0, piece[limit:])
        return bytes(piece[:limit])

    def go(self, *pieces: Any) -> None:
        """What was waited for is there."""
        self.pieces.extend(pieces)
        if self.waiting:
            self.waiting = False
            if self.on_ready is not None:
                self.reactor.call_soon(self.on_ready)

    def close(self) -> None:
        self.closes += 1


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
