#!/usr/bin/env python3
"""Floors: the least that a single-threaded Python server on `selectors` can do, as the measure for the real one.

    bench_floors.py MODE [--port N] [--origin PORT] [--size BYTES] [--root DIR]

canned    reads something, sends one ready answer: parses nothing
parse     reads the head into a dict, looks the object up, checks its freshness, adds Age and Date, one send
sendfile  the same, with the body from a file: send(head, MSG_MORE), then sendfile
static    the same for the files beneath --root, kept open: small bodies in the send, large ones by sendfile
api       the same with a handler that answers JSON
relay     reads both heads plainly and sends them on over kept connections to --origin
tunnel    CONNECT, then bytes both ways by splice
client    asks --origin for /1k over --connections kept connections for --seconds, and prints what it cost as JSON
origin    not a floor: what stands behind the proxies. Counts its requests, GET /count tells
source    not a floor: sends bytes without end to whoever connects, drops what it gets

Each says `floor listening on http://…` on standard error. None is a server for anything but measuring: request
bodies, most errors and every limit are left out.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import selectors
import socket
import sys
import tempfile
import time
from email.utils import formatdate
from typing import Any

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
BUSY = (BlockingIOError, InterruptedError)
RECEIVE = 64 * 1024
INLINE = 64 * 1024  # bytes of body that are sent together with the head
PIPE = 1024 * 1024
SOURCE = 16 * 1024 * 1024

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!-~]+) HTTP/1\.([01])\r\n")
STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9][^\r\n]*\r\n")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*([^\r\n\0]*)\r\n")
HOP_BY_HOP = frozenset(b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade".split())
BAD = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

Head = tuple[bytes, bytes, dict[bytes, bytes]]


def parse_head(data: bytes, end: int) -> Head | None:
    """Method, target and fields of the head whose empty line is at `end`."""
    match = REQUEST_LINE.match(data)
    if match is None:
        return None
    fields: dict[bytes, bytes] = {}
    for name, value in FIELD.findall(data, match.end(), end + 2):
        name = name.lower()
        value = value.rstrip()
        if name in fields:
            if name == b"host" or name == b"content-length":
                return None
            fields[name] += b", " + value
        else:
            fields[name] = value
    return match[1], match[2], fields


class Entry:
    """An object that is ready to be sent: what of its head does not change, and its body."""

    __slots__ = ("prefix", "body", "fd", "size", "born", "expires")

    def __init__(self, prefix: bytes, body: bytes, fd: int, size: int, now: float) -> None:
        self.prefix, self.body, self.fd, self.size = prefix, body, fd, size
        self.born, self.expires = now, now + 36000


class Connection:
    """One client; what the kernel did not take waits in `out`, or in the file that is being sent."""

    __slots__ = ("sock", "floor", "buffer", "out", "file", "offset", "left")

    def __init__(self, sock: socket.socket, floor: Any) -> None:
        self.sock, self.floor = sock, floor
        self.buffer = b""
        self.out: memoryview | None = None
        self.left = 0

    def on_read(self) -> None:
        try:
            data = self.sock.recv(RECEIVE)
        except BUSY:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        if self.buffer:
            data = self.buffer + data
            self.buffer = b""
        self.on_data(data)

    def on_data(self, data: bytes) -> None:
        while data:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.buffer = data
                return
            head = parse_head(data, end)
            if head is None or b"transfer-encoding" in head[2] or b"content-length" in head[2]:
                self.sock.send(BAD)
                self.close()
                return
            self.respond(head)
            if end + 4 == len(data):
                return
            data = data[end + 4 :]

    def respond(self, head: Head) -> None:
        method, target, fields = head
        floor = self.floor
        key = (method, fields.get(b"host"), target)
        entry = floor.entries.get(key) or floor.fill(key)
        now = floor.now
        if entry is None or entry.expires <= now:
            self.send(NOT_FOUND)
            return
        if b"range" in fields or b"if-none-match" in fields or b"cache-control" in fields:
            pass  # a server has to look; a floor answers 200 all the same
        rendered = b"%bAge: %d\r\nDate: %b\r\n\r\n" % (entry.prefix, now - entry.born, floor.date(int(now)))
        if entry.body or not entry.size:
            self.send(rendered + entry.body)
        else:
            self.send_file(rendered, entry)

    def send(self, data: bytes) -> None:
        try:
            sent = self.sock.send(data)
        except BUSY:
            sent = 0
        except OSError:
            self.close()
            return
        if sent != len(data):
            self.out = memoryview(data)[sent:]
            self.floor.watch(self, WRITE)

    def send_file(self, head: bytes, entry: Entry) -> None:
        try:
            self.sock.send(head, socket.MSG_MORE)
        except OSError:
            self.close()
            return
        self.file, self.offset, self.left = entry.fd, 0, entry.size
        self.push_file()

    def push_file(self) -> None:
        fd = self.sock.fileno()
        waited = self.out is not None
        while self.left:
            try:
                sent = os.sendfile(fd, self.file, self.offset, self.left)
            except BUSY:
                if not waited:
                    self.out = memoryview(b"")
                    self.floor.watch(self, WRITE)
                return
            except OSError:
                self.close()
                return
            self.offset += sent
            self.left -= sent
        if waited:
            self.out = None
            self.floor.watch(self, READ)

    def on_write(self) -> None:
        if self.left:
            self.push_file()
            return
        assert self.out is not None
        try:
            self.out = self.out[self.sock.send(self.out) :]
        except BUSY:
            return
        except OSError:
            self.close()
            return
        if not self.out:
            self.out = None
            self.floor.watch(self, READ)

    def close(self) -> None:
        if self.sock.fileno() >= 0:
            self.floor.selector.unregister(self.sock)
            self.sock.close()


class Floor:
    """`parse`, and what every other floor changes one thing of."""

    Client: type[Connection] = Connection
    INLINE = INLINE

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.selector = selectors.DefaultSelector()
        self.entries: dict[Any, Entry] = {}
        self.now = time.time()
        self._date = (0, b"")
        self.listener = socket.create_server(("127.0.0.1", options.port), backlog=4096)
        self.listener.setblocking(False)
        self.selector.register(self.listener, READ, None)

    def date(self, second: int) -> bytes:
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True).encode())
        return self._date[1]

    def fill(self, key: tuple[bytes, bytes | None, bytes]) -> Entry | None:
        """The first sight of a key makes its object: it stands for a miss, and happens before the timing."""
        if key[0] != b"GET":
            return None
        entry = self.entries[key] = self.make(b"max-age=3600", self.options.size)
        return entry

    def make(self, cache_control: bytes, size: int) -> Entry:
        prefix = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n"
            b'Cache-Control: %b\r\nETag: "floor"\r\n' % (size, cache_control)
        )
        if size <= self.INLINE:
            return Entry(prefix, b"x" * size, -1, size, self.now)
        return Entry(prefix, b"", filled_file(size), size, self.now)

    def watch(self, connection: Any, mask: int) -> None:
        self.selector.modify(connection.sock, mask, connection)

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted(sock)

    def accepted(self, sock: socket.socket) -> None:
        self.selector.register(sock, READ, self.Client(sock, self))

    def run(self) -> None:
        print(f"floor listening on http://127.0.0.1:{self.listener.getsockname()[1]}", file=sys.stderr, flush=True)
        select, clock = self.selector.select, time.time
        while True:
            events = select()
            self.now = clock()
            for key, mask in events:
                connection = key.data
                if connection is None:
                    self.accept()
                elif mask & READ:
                    connection.on_read()
                else:
                    connection.on_write()


def filled_file(size: int) -> int:
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * size)
        file.flush()
        return os.dup(file.fileno())


class CannedConnection(Connection):
    __slots__ = ()

    def on_read(self) -> None:
        try:
            data = self.sock.recv(RECEIVE)
        except BUSY:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        floor = self.floor
        try:
            sent = self.sock.send(floor.answer)
        except BUSY:
            sent = 0
        if sent != floor.size:
            self.out = memoryview(floor.answer)[sent:]
            floor.watch(self, WRITE)


class CannedFloor(Floor):
    Client = CannedConnection

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        entry = self.make(b"max-age=3600", options.size)
        self.answer = entry.prefix + b"\r\n" + b"x" * options.size
        self.size = len(self.answer)


class SendfileFloor(Floor):
    INLINE = -1


class StaticConnection(Connection):
    __slots__ = ()

    def respond(self, head: Head) -> None:
        method, target, fields = head
        floor = self.floor
        key = (method, fields.get(b"host"), target)
        entry = floor.entries.get(key) or floor.fill(key)
        if entry is None:
            self.send(NOT_FOUND)
            return
        rendered = b"%bDate: %b\r\n\r\n" % (entry.prefix, floor.date(int(floor.now)))
        if entry.body or not entry.size:
            self.send(rendered + entry.body)
        else:
            self.send_file(rendered, entry)


class StaticFloor(Floor):
    Client = StaticConnection

    def fill(self, key: tuple[bytes, bytes | None, bytes]) -> Entry | None:
        root = os.path.realpath(self.options.root)
        path = os.path.realpath(os.path.join(root, key[2].decode().lstrip("/")))
        if key[0] != b"GET" or not path.startswith(root + os.sep) or not os.path.isfile(path):
            return None
        fd = os.open(path, os.O_RDONLY)
        status = os.fstat(fd)
        size, modified = status.st_size, formatdate(status.st_mtime, usegmt=True).encode()
        prefix = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n"
            b'ETag: "%x-%x"\r\nLast-Modified: %b\r\n' % (size, status.st_mtime_ns, size, modified)
        )
        body = os.pread(fd, size, 0) if size <= INLINE else b""
        entry = self.entries[key] = Entry(prefix, body, fd, size, self.now)
        return entry


class ApiConnection(Connection):
    __slots__ = ()

    def respond(self, head: Head) -> None:
        floor = self.floor
        handler = floor.routes.get(head[:2])
        if handler is None:
            self.send(NOT_FOUND)
            return
        status, kind, body = handler(head)
        self.send(
            b"HTTP/1.1 %d OK\r\nContent-Type: %b\r\nContent-Length: %d\r\nDate: %b\r\n\r\n%b"
            % (status, kind, len(body), floor.date(int(floor.now)), body)
        )


def hello(head: Head) -> tuple[int, bytes, bytes]:
    return 200, b"application/json", json.dumps({"message": "Hello, World!"}).encode()


class ApiFloor(Floor):
    Client = ApiConnection

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.routes = {(b"GET", b"/json"): hello}


class OriginConnection(Connection):
    __slots__ = ()

    def respond(self, head: Head) -> None:
        floor = self.floor
        path = head[1].partition(b"?")[0]
        if path == b"/count":
            body = b"%d" % floor.count
            self.send(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            return
        floor.count += 1
        entry = floor.entries.get(path)
        if entry is None:
            self.send(NOT_FOUND)
            return
        rendered = b"%bDate: %b\r\n\r\n" % (entry.prefix, floor.date(int(floor.now)))
        if entry.body:
            self.send(rendered + entry.body)
        else:
            self.send_file(rendered, entry)


class OriginFloor(Floor):
    Client = OriginConnection

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.count = 0
        for name, size in ((b"/1k", 1024), (b"/64k", 64 * 1024), (b"/10m", 10 * 1024 * 1024)):
            self.entries[name] = self.make(b"max-age=36000", size)
            self.entries[b"/once" + name] = self.make(b"no-store", size)


class Upstream:
    """A kept connection to the origin; `client` is who waits for its answer, None while it lies in the pool."""

    __slots__ = ("sock", "floor", "client", "buffer", "left")

    def __init__(self, floor: Any) -> None:
        self.floor = floor
        self.sock = socket.create_connection(("127.0.0.1", floor.options.origin))  # loopback: stands at once
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client: Connection | None = None
        self.buffer = b""
        self.left = 0

    def on_read(self) -> None:
        try:
            data = self.sock.recv(RECEIVE)
        except BUSY:
            return
        except OSError:
            data = b""
        client = self.client
        if not data or client is None:
            self.close()
            return
        if self.left:
            self.left -= len(data)
        else:
            if self.buffer:
                data = self.buffer + data
                self.buffer = b""
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.buffer = data
                return
            head, length = rewrite_response(data, end)
            self.left = length - (len(data) - end - 4)
            data = head + data[end + 4 :]
        if client.sock.fileno() >= 0:
            client.send(data)
        if self.left <= 0:
            self.client = None
            self.floor.pool.append(self)

    def close(self) -> None:
        self.floor.selector.unregister(self.sock)
        self.sock.close()
        if self in self.floor.pool:
            self.floor.pool.remove(self)
        if self.client is not None:
            self.client.close()


def rewrite_response(data: bytes, end: int) -> tuple[bytes, int]:
    """The head to send on, and the body's length."""
    match = STATUS_LINE.match(data)
    assert match is not None
    out = [match[0]]
    length = 0
    for name, value in FIELD.findall(data, match.end(), end + 2):
        lower = name.lower()
        if lower == b"content-length":
            length = int(value)
        if lower not in HOP_BY_HOP:
            out.append(b"%b: %b\r\n" % (name, value.rstrip()))
    out.append(b"Via: 1.1 floor\r\n\r\n")
    return b"".join(out), length


class RelayConnection(Connection):
    __slots__ = ()

    def respond(self, head: Head) -> None:
        method, target, fields = head
        out = [b"%b %b HTTP/1.1\r\n" % (method, target)]
        for name, value in fields.items():
            if name not in HOP_BY_HOP:
                out.append(b"%b: %b\r\n" % (name, value))
        out.append(b"Via: 1.1 floor\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n")
        upstream = self.floor.upstream()
        upstream.client = self
        upstream.sock.send(b"".join(out))


class RelayFloor(Floor):
    Client = RelayConnection

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.pool: list[Upstream] = []

    def upstream(self) -> Upstream:
        if self.pool:
            return self.pool.pop()
        upstream = Upstream(self)
        self.selector.register(upstream.sock, READ, upstream)
        return upstream


class Half:
    """One direction of a tunnel, through a pipe; `paused` while its destination takes nothing."""

    __slots__ = ("source", "target", "read_end", "write_end", "held", "paused")

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.read_end, self.write_end = os.pipe2(os.O_NONBLOCK)
        fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, PIPE)
        self.held = 0
        self.paused = False

    def pump(self) -> bool:
        """Move what there is; False at the end of either side."""
        flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
        try:
            if not self.held:
                self.held = os.splice(self.source.fileno(), self.write_end, PIPE, flags=flags)
                if not self.held:
                    return False
            self.held -= os.splice(self.read_end, self.target.fileno(), self.held, flags=flags)
        except BUSY:
            pass
        except OSError:
            return False
        return True


class TunnelEnd:
    """A socket of a tunnel: read through one half, written through the other."""

    __slots__ = ("sock", "floor", "reads", "writes", "other", "mask")

    def __init__(self, sock: socket.socket, floor: Any, reads: Half, writes: Half) -> None:
        self.sock, self.floor, self.reads, self.writes = sock, floor, reads, writes
        self.mask = READ
        self.other: TunnelEnd

    def on_read(self) -> None:
        self.pump(self.reads)

    def on_write(self) -> None:
        self.pump(self.writes)

    def pump(self, half: Half) -> None:
        if self.sock.fileno() < 0:
            return
        if not half.pump():
            self.finish()
        elif half.paused != (half.held > 0):
            half.paused = half.held > 0
            self.update()
            self.other.update()

    def update(self) -> None:
        mask = (0 if self.reads.paused else READ) | (WRITE if self.writes.paused else 0)
        selector = self.floor.selector
        if not mask:
            selector.unregister(self.sock)
        elif not self.mask:
            selector.register(self.sock, mask, self)
        elif mask != self.mask:
            selector.modify(self.sock, mask, self)
        self.mask = mask

    def finish(self) -> None:
        for end in (self, self.other):
            if end.mask:
                end.floor.selector.unregister(end.sock)
            end.sock.close()
            os.close(end.reads.read_end)
            os.close(end.reads.write_end)


class TunnelFloor(Floor):
    def accepted(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        head = b""
        while b"\r\n\r\n" not in head:
            data = sock.recv(RECEIVE)
            if not data:
                sock.close()
                return
            head += data
        match = REQUEST_LINE.match(head)
        assert match is not None and match[1] == b"CONNECT"
        host, _, port = match[2].rpartition(b":")
        upstream = socket.create_connection((host.decode(), int(port)))
        sock.send(b"HTTP/1.1 200 OK\r\n\r\n")
        for end in (sock, upstream):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        up, down = Half(sock, upstream), Half(upstream, sock)
        client, origin = TunnelEnd(sock, self, up, down), TunnelEnd(upstream, self, down, up)
        client.other, origin.other = origin, client
        self.selector.register(sock, READ, client)
        self.selector.register(upstream, READ, origin)


class AskingConnection:
    """A client's: a request is out, its answer's head is read into a dict, and the next one goes out."""

    __slots__ = ("sock", "floor", "buffer", "left")

    def __init__(self, sock: socket.socket, floor: Any) -> None:
        self.sock, self.floor = sock, floor
        self.buffer = b""
        self.left = 0

    def on_read(self) -> None:
        try:
            data = self.sock.recv(RECEIVE)
        except BUSY:
            return
        if not data:
            raise SystemExit("the origin closed a connection")
        if self.left:
            self.left -= len(data)
        else:
            if self.buffer:
                data = self.buffer + data
                self.buffer = b""
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.buffer = data
                return
            match = STATUS_LINE.match(data)
            assert match is not None
            fields = {name.lower(): value.rstrip() for name, value in FIELD.findall(data, match.end(), end + 2)}
            self.left = int(fields[b"content-length"]) - (len(data) - end - 4)
        if not self.left:
            self.floor.answered += 1
            self.sock.send(self.floor.request)


class ClientFloor:
    """The least that a client can do."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.selector = selectors.DefaultSelector()
        self.request = b"GET /1k HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: floor\r\nAccept: */*\r\n\r\n" % options.origin
        self.answered = 0

    def run(self) -> None:
        for _ in range(self.options.connections):
            sock = socket.create_connection(("127.0.0.1", self.options.origin))
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(sock, READ, AskingConnection(sock, self))
            sock.send(self.request)
        self.turn_for(self.options.seconds / 4)
        before, cpu, start = self.answered, time.process_time(), time.monotonic()
        self.turn_for(self.options.seconds)
        cpu, seconds = time.process_time() - cpu, time.monotonic() - start
        print(json.dumps({"requests": self.answered - before, "cpu": cpu, "seconds": seconds}))

    def turn_for(self, seconds: float) -> None:
        select, clock = self.selector.select, time.monotonic
        until = clock() + seconds
        while clock() < until:
            for key, _ in select():
                key.data.on_read()


class SourceConnection(Connection):
    __slots__ = ()

    def on_write(self) -> None:
        try:
            sent = os.sendfile(self.sock.fileno(), self.floor.fd, self.offset, SOURCE - self.offset)
            self.offset = (self.offset + sent) % SOURCE
        except BUSY:
            pass
        except OSError:
            self.close()


class SourceFloor(Floor):
    Client = SourceConnection

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.fd = filled_file(SOURCE)

    def accepted(self, sock: socket.socket) -> None:
        connection = self.Client(sock, self)
        connection.offset = 0
        self.selector.register(sock, WRITE, connection)


MODES = {
    "canned": CannedFloor, "parse": Floor, "sendfile": SendfileFloor, "static": StaticFloor, "api": ApiFloor,
    "relay": RelayFloor, "tunnel": TunnelFloor, "origin": OriginFloor, "source": SourceFloor,
    "client": ClientFloor,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--origin", type=int, default=0)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--root", default=".")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    try:
        MODES[options.mode](options).run()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
