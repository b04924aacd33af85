"""Every byte that goes over the wire, both ways, as text: what `--trace` writes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reactor.connector import Attempt, Callback, Connector
from reactor.errors import UpstreamError

if TYPE_CHECKING:
    from reactor.tls import ClientTls

COLUMNS = 16  # bytes shown in one line


def dump(title: str, data: bytes | memoryview) -> str:
    """A line that says what it is, then offset, bytes in hexadecimal and as ASCII, as curl has it."""
    view = memoryview(data)
    lines = [f"{title}, {len(view)} bytes (0x{len(view):x})\n"]
    for at in range(0, len(view), COLUMNS):
        row = bytes(view[at : at + COLUMNS])
        text = "".join(chr(octet) if 0x20 <= octet < 0x7F else "." for octet in row)
        lines.append(f"{at:04x}: {row.hex(' ').ljust(COLUMNS * 3)}{text}\n")
    return "".join(lines)


class TracingConnector(Connector):
    """Makes connections whose bytes are written down; `write` takes text."""

    def __init__(self, inner: Connector, write: Callable[[str], Any]) -> None:
        super().__init__(inner.reactor, inner.resolver, inner.timeout, inner.permit)
        self.write = write

    def connect(self, host: str, port: int, callback: Callback, timeout: float | None = None) -> Attempt:
        return super().connect(host, port, _Traced(self.write, callback).connected, timeout)


def trace_inside(tls: ClientTls, write: Callable[[str], Any]) -> None:
    """What goes through TLS is written down as it is inside, too."""
    import ssl  # here, because most runs do without, and it costs time and memory

    class Traced(ssl.SSLObject):
        def write(self, data: Any) -> int:
            sent = super().write(data)
            write(dump("=> Send inside TLS", memoryview(data)[:sent]))
            return sent

        def read(self, size: int = 1024, buffer: Any = None) -> Any:
            data = super().read(size, buffer)
            write(dump("<= Recv inside TLS", data))
            return data

    tls.context.sslobject_class = Traced


class _Traced:
    """Hands over a socket that tells what it does."""

    def __init__(self, write: Callable[[str], Any], callback: Callback) -> None:
        self._write = write
        self._callback = callback

    def connected(self, result: socket.socket | UpstreamError, address: str) -> None:
        if isinstance(result, UpstreamError):
            self._write(f"== {result}\n")
        else:
            self._write(f"== connected to {address}\n")
            result = TracedSocket(result, self._write)
        self._callback(result, address)

    def failed(self, error: Exception) -> None:
        """The callback raised: its owner is told, as it would be without us."""
        failed = getattr(getattr(self._callback, "__self__", None), "failed", None)
        if failed is not None:
            failed(error)


class TracedSocket(socket.socket):
    """A socket taken over from another, which writes down what the kernel took and gave."""

    def __init__(self, sock: socket.socket, write: Callable[[str], Any]) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.setblocking(False)
        self._write = write

    def send(self, data: Any, flags: int = 0) -> int:
        sent = super().send(data, flags)
        self._write(dump("=> Send", memoryview(data)[:sent]))
        return sent

    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None) -> int:
        left = sent = super().sendmsg(buffers, ancdata, flags)
        for buffer in buffers:
            if left > 0:
                self._write(dump("=> Send", memoryview(buffer)[:left]))
            left -= len(buffer)
        return sent

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        self._write(dump("<= Recv", data) if data else "<= the end\n")
        return data
