"""The handler that scripts/wire-check upgrades to: a WebSocket (RFC 6455) that says one short message back."""

from __future__ import annotations

import base64
import hashlib

from reactor.exchange import Exchange, Head, error_page
from reactor.stream import Stream

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
CLOSE = 8  # opcode


def accept_for(key: bytes) -> bytes:
    """Sec-WebSocket-Accept (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def frame(opcode: int, payload: bytes, mask: bytes = b"") -> bytes:
    """A final frame of up to 125 bytes; a client's is masked (RFC 6455 section 5.2)."""
    head = bytes((0x80 | opcode, len(payload) | (0x80 if mask else 0)))
    return head + mask + (masked(payload, mask) if mask else payload)


def masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(octet ^ mask[at % 4] for at, octet in enumerate(payload))


class Echo:
    def handle(self, exchange: Exchange) -> None:
        key = exchange.request.fields.get(b"sec-websocket-key")
        if exchange.request.upgrade is None or key is None:
            exchange.respond(*error_page(426, "this speaks WebSocket alone"))
            return
        head = Head(101, [(b"Upgrade", b"websocket"), (b"Sec-WebSocket-Accept", accept_for(key))])
        stream, left_over = exchange.upgrade(head)
        stream.owner = conversation = Conversation(exchange, stream)
        stream.uncork()
        stream.resume_reading()
        conversation.data_received(left_over)


class Conversation:
    """Owns the stream: sends the payload of each frame back unmasked, a close frame too, and closes after that."""

    def __init__(self, exchange: Exchange, stream: Stream) -> None:
        self._exchange = exchange
        self._stream = stream
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._exchange.bytes_in += len(data)
        self._data += data
        while len(self._data) >= 6 and len(self._data) >= (whole := 6 + (self._data[1] & 0x7F)):
            opcode, mask, payload = self._data[0] & 0xF, self._data[2:6], self._data[6:whole]
            self._data = self._data[whole:]
            answer = frame(opcode, masked(payload, mask))
            self._exchange.bytes_out += len(answer)
            self._stream.write(answer)
            if opcode == CLOSE:
                self._stream.close()

    def eof_received(self) -> None:
        self._stream.close()

    def resume_writing(self) -> None:
        """Nothing waits for room."""

    def drained(self) -> None:
        """Nothing waits for this."""

    def connection_lost(self, error: Exception | None) -> None:
        self._exchange.finish()

    def failed(self, error: Exception) -> None:
        self._stream.abort()
