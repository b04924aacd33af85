"""Files and functions behind a server, over sockets: the bytes that a client sees."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from handlers.api import Api, Call, builtin_api
from handlers.router import Router
from handlers.static import Static
from reactor.http.parser import NEED_DATA, Data, EndOfMessage, Response, ResponseParser
from reactor.loop import Reactor
from reactor.server import Server, ServerLimits

LARGE = os.urandom(3_000_000)
TURNS = 5000  # of the loop, before a test gives up


class Client:
    """The other end of a connection, on the same loop."""

    def __init__(self, reactor: Reactor, server: Server) -> None:
        self.reactor = reactor
        self.sock, theirs = socket.socketpair()
        for sock in (self.sock, theirs):
            sock.setblocking(False)
        server.accept(theirs, "127.0.0.1")
        self.received = b""
        self.at_eof = False

    def send(self, data: bytes) -> None:
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                self.reactor.turn(0.01)

    def read(self) -> None:
        self.reactor.turn(0.01)
        try:
            while data := self.sock.recv(1 << 20):
                self.received += data
            self.at_eof = True
        except BlockingIOError:
            pass

    def read_until(self, done: Callable[[bytes], bool]) -> bytes:
        for _ in range(TURNS):
            if done(self.received) or self.at_eof:
                return self.received
            self.read()
        raise AssertionError(f"still waiting after {self.received[:500]!r}")

    def response(self, method: bytes = b"GET") -> tuple[Response, bytes]:
        """The next final response and its body, both as our own parser reads them."""
        parser = ResponseParser(method)
        head: Response | None = None
        body = bytearray()
        fed = 0
        for _ in range(TURNS):
            parser.feed(self.received[fed:])
            fed = len(self.received)
            if self.at_eof:
                parser.feed_eof()
            while (event := parser.next_event()) is not NEED_DATA:
                if isinstance(event, Response):
                    head = event
                elif isinstance(event, Data):
                    body += event.data
                elif isinstance(event, EndOfMessage):
                    assert head is not None
                    self.received = self.received[fed - parser.buffered :]
                    return head, bytes(body)
            self.read()
        raise AssertionError("no whole response")


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[], Client]]:
    (tmp_path / "small.txt").write_bytes(b"small\n")
    (tmp_path / "large.bin").write_bytes(LARGE)
    (tmp_path / "empty").write_bytes(b"")
    for path in tmp_path.iterdir():
        os.utime(path, (1e9, 1e9))
    api = Api()

    @api.put("/upload", receive=lambda call, piece: _digest(call).update(piece))
    def upload(call: Call) -> str:
        return str(_digest(call).hexdigest())

    files = Static(tmp_path)
    reactor = Reactor()
    server = Server(reactor, Router(files, [builtin_api(), api]), ServerLimits(half_closed=0.01))
    clients: list[Client] = []

    def make() -> Client:
        clients.append(Client(reactor, server))
        return clients[-1]

    yield make
    for client in clients:
        client.sock.close()
    server.abort()
    reactor.turn(0)
    files.close()
    reactor.close()


def _digest(call: Call) -> hashlib._Hash:
    if call.state is None:
        call.state = hashlib.sha256()
    found: hashlib._Hash = call.state
    return found


def test_a_small_file_twice(connect: Callable[[], Client]) -> None:
    client = connect()
    for _ in range(2):
        client.send(b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n")
        head, body = client.response()
        assert (head.status, body, head.keep_alive, head.length) == (200, b"small\n", True, 6)
        assert b"date" in head.fields and b"last-modified" in head.fields


def test_the_head_says_the_same_whether_remembered_or_not(connect: Callable[[], Client]) -> None:
    """What HTTP/1.0 is told is written by the connection, what HTTP/1.1 is told by the file."""
    new, old = connect(), connect()
    new.send(b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n")
    old.send(b"GET /small.txt HTTP/1.0\r\n\r\n")
    first, second = new.response()[0], old.response()[0]
    assert not second.keep_alive
    fields = [(name, value) for name, value in second.fields if name != b"Connection"]
    assert [(name, value) for name, value in first.fields if name != b"Date"] == [
        pair for pair in fields if pair[0] != b"Date"
    ]


def test_a_large_file(connect: Callable[[], Client]) -> None:
    client = connect()
    client.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n")
    head, body = client.response()
    assert head.length == len(LARGE) and body == LARGE


def test_head(connect: Callable[[], Client]) -> None:
    client = connect()
    for path, length in ((b"/small.txt", 6), (b"/large.bin", len(LARGE)), (b"/api/bytes/77", 77)):
        client.send(b"HEAD %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        head, body = client.response(b"HEAD")
        assert (head.status, head.fields[b"content-length"], body) == (200, b"%d" % length, b"")
    client.send(b"HEAD /missing HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.response(b"HEAD")[0].status == 404


def test_pipelined(connect: Callable[[], Client]) -> None:
    client = connect()
    paths = [b"/small.txt", b"/large.bin", b"/missing", b"/empty", b"/api/bytes/10", b"/small.txt"]
    client.send(b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path for path in paths))
    answers = [client.response() for _ in paths]
    assert [head.status for head, _ in answers] == [200, 200, 404, 200, 200, 200]
    assert answers[1][1] == LARGE and answers[5][1] == b"small\n"


def test_ranges(connect: Callable[[], Client]) -> None:
    client = connect()
    for path, content in ((b"/large.bin", LARGE), (b"/small.txt", b"small\n")):
        client.send(b"GET %b HTTP/1.1\r\nHost: a\r\nRange: bytes=2-4\r\n\r\n" % path)
        head, body = client.response()
        assert (head.status, body) == (206, content[2:5])
    client.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=0-99999,500000-1999999,-3\r\n\r\n")
    head, body = client.response()
    boundary = head.fields[b"content-type"].partition(b"boundary=")[2]
    parts = [part.partition(b"\r\n\r\n")[2][:-2] for part in body.split(b"--" + boundary)[1:-1]]
    assert parts == [LARGE[:100_000], LARGE[500_000:2_000_000], LARGE[-3:]]


def test_not_modified_keeps_the_connection(connect: Callable[[], Client]) -> None:
    client = connect()
    client.send(b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n")
    tag = client.response()[0].fields[b"etag"]
    client.send(b"GET /small.txt HTTP/1.1\r\nHost: a\r\nIf-None-Match: %b\r\n\r\n" % tag)
    head, body = client.response()
    assert (head.status, body, head.fields[b"etag"], b"date" in head.fields) == (304, b"", tag, True)
    client.send(b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.response()[0].status == 200


def test_a_stream_of_unknown_length(connect: Callable[[], Client]) -> None:
    new, old = connect(), connect()
    new.send(b"GET /api/stream/3?interval=0.001 HTTP/1.1\r\nHost: a\r\n\r\n")
    head, body = new.response()
    assert head.fields[b"transfer-encoding"] == b"chunked" and body.count(b"\n") == 3
    old.send(b"GET /api/stream/3?interval=0.001 HTTP/1.0\r\n\r\n")
    head, body = old.response()
    assert b"transfer-encoding" not in head.fields and body.count(b"\n") == 3 and old.at_eof


def test_a_body_that_is_sent_when_it_is_asked_for(connect: Callable[[], Client]) -> None:
    client = connect()
    client.send(b"POST /api/echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    client.read_until(lambda received: b"\r\n\r\n" in received)
    assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"body")
    head, body = client.response()
    assert head.status == 200 and b'"body":"body"' in body


def test_a_body_that_is_not_asked_for(connect: Callable[[], Client]) -> None:
    client = connect()
    client.send(b"POST /api/echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n")
    head, _ = client.response()
    assert (head.status, head.keep_alive) == (413, False)


def test_a_large_upload_is_streamed(connect: Callable[[], Client]) -> None:
    client = connect()
    client.send(b"PUT /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(0, len(LARGE), 100_000):
        piece = LARGE[at : at + 100_000]
        client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    client.send(b"0\r\n\r\n")
    head, body = client.response()
    assert (head.status, body.decode()) == (200, hashlib.sha256(LARGE).hexdigest())


RANGES = [b"", b"Range: bytes=100-\r\n", b"Range: bytes=0-1000000,1500000-2500000\r\n", b"Range: bytes=0-1000000,1500000-1500009\r\n"]


def slow_download(connect: Callable[[], Client], field: bytes) -> tuple[Client, int]:
    """A client that has read the head and a little more, and how long the whole body is."""
    client = connect()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n%b\r\n" % field)
    while len(client.received) < 1000:
        client.reactor.turn(0.01)
        client.received += client.sock.recv(1000)
    head = client.received.partition(b"\r\n\r\n")[0]
    return client, len(head) + 4 + int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])


@pytest.mark.parametrize("field", RANGES)
@pytest.mark.parametrize("changed", [b"changed" + LARGE[7:], LARGE[::-1] + b"longer", LARGE[:-7]])
def test_a_file_that_is_rewritten_while_it_is_sent(
    connect: Callable[[], Client], tmp_path: Path, field: bytes, changed: bytes
) -> None:
    """Before its last bytes it is looked at again: the client does not get a mixture that it takes for whole."""
    client, whole = slow_download(connect, field)
    (tmp_path / "large.bin").write_bytes(changed)
    client.read_until(lambda received: len(received) >= whole)
    assert client.at_eof and len(client.received) < whole


@pytest.mark.parametrize("field", RANGES)
def test_a_file_that_is_replaced_while_it_is_sent(connect: Callable[[], Client], tmp_path: Path, field: bytes) -> None:
    """What was opened is still there, whatever has its name now."""
    client, whole = slow_download(connect, field)
    (tmp_path / "new").write_bytes(LARGE[::-1])
    os.replace(tmp_path / "new", tmp_path / "large.bin")
    received = client.read_until(lambda received: len(received) >= whole)
    assert len(received) == whole
    if b"," not in field:
        assert LARGE.endswith(received.partition(b"\r\n\r\n")[2])


def server_is_busy(reactor: Reactor) -> bool:
    return bool(reactor.watched or reactor.pending_timers)


def test_a_client_that_leaves_in_the_middle(connect: Callable[[], Client]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for request in (b"GET /large.bin", b"GET /api/stream/1000", b"GET /api/delay/30", b"GET /api/drip?duration=30&numbytes=3000"):
        client = connect()
        client.send(request + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read()
        client.sock.close()
        turns = 0
        while server_is_busy(client.reactor):
            client.reactor.turn(0.01)
            turns += 1
            assert turns < TURNS
    assert len(os.listdir("/proc/self/fd")) <= before + 2, "the large file itself stays open, for the next one"
