"""Loads one HTTP server over kept connections: with wrk where it is installed, else with an epoll loop of its own."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

VARIED_HEADS = 4096
VARIED_OBJECTS = 512
RECEIVE = 64 * 1024
ANSWER_SECONDS = 10.0  # without an answer to anybody, the run has failed

BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-US,en;q=0.9",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: same-origin",
    "DNT: 1",
)

# wrk's part: the requests come from a file (each with its length in front), the figures go out as JSON.
WRK_SCRIPT = """\
local requests, count, at = {}, 0, 0
local file = io.open(os.getenv("LOADGEN_REQUESTS"), "rb")
while true do
  local size = file:read(8)
  if not size then break end
  count = count + 1
  requests[count] = file:read(tonumber(size))
end
file:close()
request = function() at = at % count + 1; return requests[at] end
function done(s, l, r)
  io.write(string.format('\\nJSON{"requests":%d,"us":%d,"bytes":%d,"p50":%d,"p99":%d,"errors":%d}\\n',
    s.requests, s.duration, s.bytes, l:percentile(50), l:percentile(99),
    s.errors.connect + s.errors.read + s.errors.write + s.errors.status + s.errors.timeout))
end
"""


class LoadFailed(Exception):
    """The server did not answer as it must; says how."""


@dataclass
class Load:
    """What came of a run: whole answers, the seconds it took, latencies in seconds."""

    requests: int
    seconds: float
    received: int
    p50: float
    p99: float


def plain_request(port: int, target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


def browser_requests(port: int, target: str) -> list[bytes]:
    """VARIED_HEADS different requests, each with its own cookie and referer, for VARIED_OBJECTS objects."""
    generator = random.Random(7)
    requests = []
    for number in range(VARIED_HEADS):
        sid, token = generator.getrandbits(64), generator.getrandbits(32)
        lines = (
            f"GET {target}?k={generator.randrange(VARIED_OBJECTS)} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            *BROWSER,
            f"Referer: http://www.example.com/page/{generator.randrange(400)}",
            f"Cookie: sid={sid:016x}; theme=dark; csrftoken={token:08x}{number:04x}",
            "\r\n",
        )
        requests.append("\r\n".join(lines).encode())
    return requests


def fetch(port: int, *requests: bytes) -> tuple[bytes, bytes]:
    """Send requests one after the other on one connection; the last answer's head and body. LoadFailed if one is not 200."""
    head = body = b""
    with socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS) as sock:
        for request in requests:
            sock.sendall(request)
            head, body = read_answer(sock)
    return head, body


def read_answer(sock: socket.socket) -> tuple[bytes, bytes]:
    data = bytearray()
    end = length = -1
    while end < 0 or len(data) < end + length:
        more = sock.recv(1 << 20)
        if not more:
            raise LoadFailed(f"the connection was closed after {bytes(data[:200])!r}")
        data += more
        if end < 0 and (end := data.find(b"\r\n\r\n") + 4) > 3:
            length = answer_length(bytes(data[:end]))
        elif end < 4:
            end = -1
    return bytes(data[:end]), bytes(data[end:])


def answer_length(head: bytes) -> int:
    """The Content-Length of a 200 answer; LoadFailed where it is something else."""
    if head[9:12] != b"200":
        raise LoadFailed(f"the answer was {head[:200]!r}")
    at = head.lower().find(b"\r\ncontent-length:")
    if at < 0:
        raise LoadFailed(f"an answer without Content-Length: {head[:300]!r}")
    return int(head[at + 17 : head.index(b"\r\n", at + 17)].strip(b" \t"))


def run(port: int, requests: list[bytes], connections: int, seconds: float) -> Load:
    """Keep `connections` busy with one request each at a time; the requests are taken in turn."""
    return (run_wrk if has_wrk() else run_epoll)(port, requests, connections, seconds)


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def run_wrk(port: int, requests: list[bytes], connections: int, seconds: float) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        script, file = Path(folder, "requests.lua"), Path(folder, "requests")
        script.write_text(WRK_SCRIPT)
        file.write_bytes(b"".join(b"%8d%b" % (len(request), request) for request in requests))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", f"{ANSWER_SECONDS:.0f}s"]
        done = subprocess.run(
            [*command, "-s", str(script), f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=False,
            env={**os.environ, "LOADGEN_REQUESTS": str(file)},
        )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("JSON")]
    if not lines:
        raise LoadFailed(f"wrk said: {done.stdout}{done.stderr}")
    said = json.loads(lines[0][4:])
    if said["errors"]:
        raise LoadFailed(f"wrk counted errors: {lines[0]}")
    return Load(said["requests"], said["us"] / 1e6, said["bytes"], said["p50"] / 1e6, said["p99"] / 1e6)


class _Client:
    """A kept connection with one request on its way; `left` is what is missing of the answer's body, -1 before its head."""

    __slots__ = ("sock", "sent_at", "left", "buffer")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.sent_at = 0.0
        self.left = -1
        self.buffer = b""

    def ask(self, request: bytes, now: float) -> None:
        self.sent_at = now
        self.left = -1
        self.sock.send(request)

    def receive(self, scratch: bytearray) -> int:
        """Read once; how many bytes. The answer is whole when `left` is 0."""
        if self.left > RECEIVE:
            # The bytes of a large body are dropped in the kernel: what they are was checked before the timing.
            got = self.sock.recv_into(scratch, min(self.left, len(scratch)), socket.MSG_TRUNC)
            self.left -= got
        else:
            data = self.sock.recv(RECEIVE)
            got = len(data)
            if self.left >= 0:
                self.left -= got
            else:
                self._head(self.buffer + data)
        if not got:
            raise LoadFailed("the server closed a connection that was to be kept")
        if -1 > self.left:
            raise LoadFailed("the server sent more than was asked for")
        return got

    def _head(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            self.buffer = data
            return
        self.buffer = b""
        self.left = answer_length(data[:end]) - (len(data) - end)
        if self.left < 0:
            raise LoadFailed("the server sent more than was asked for")


def run_epoll(port: int, requests: list[bytes], connections: int, seconds: float) -> Load:
    clients = [_Client(port) for _ in range(connections)]
    try:
        return _turn(clients, cycle(requests), seconds)
    finally:
        for client in clients:
            client.sock.close()


def _turn(clients: list[_Client], requests: Iterator[bytes], seconds: float) -> Load:
    poller = select.epoll()
    by_descriptor = {client.sock.fileno(): client for client in clients}
    scratch = bytearray(4 * 1024 * 1024)
    latencies = []
    received = 0
    clock = time.perf_counter
    start = now = clock()
    for client in clients:
        poller.register(client.sock.fileno(), select.EPOLLIN)
        client.ask(next(requests), now)
    while now < start + seconds:
        events = poller.poll(ANSWER_SECONDS)
        if not events:
            raise LoadFailed(f"no answer for {ANSWER_SECONDS:.0f} seconds")
        for descriptor, _ in events:
            client = by_descriptor[descriptor]
            received += client.receive(scratch)
            if not client.left:
                now = clock()
                latencies.append(now - client.sent_at)
                client.ask(next(requests), now)
        now = clock()
    poller.close()
    latencies.sort()
    count = len(latencies)
    if not count:
        raise LoadFailed(f"no whole answer in {seconds} seconds")
    return Load(count, now - start, received, latencies[count // 2], latencies[count * 99 // 100])
