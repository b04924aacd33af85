"""Peers that speak TLS: the interpreter's own engine, stepped by hand on a raw socket, so that a test may do it any harm.

Certificates lie in tests/certificates, made once: an authority, and signed by it `origin` (origin.test, localhost,
127.0.0.1, ::1), `expired` (the same names), `other-name` (other.test) and `common-name` (127.0.0.1; localhost in its subject
alone, where no name counts); `self-signed` has the first names and no authority. All but the expired one are good until 2100.
"""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.loopback import House, Peer

CERTIFICATES = Path(__file__).resolve().parent / "certificates"
AUTHORITY = str(CERTIFICATES / "authority.pem")


def server_context(name: str = "origin", version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A server's, with one of the certificates; `version` is the only one that it speaks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{name}.pem")
    context.set_alpn_protocols(["h2", "http/1.1"])
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def client_context() -> ssl.SSLContext:
    """A client's, that trusts the authority."""
    return ssl.create_default_context(cafile=AUTHORITY)


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """A server of the standard library's, at work in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield
    server.shutdown()
    thread.join()


class TlsPeer(Peer):
    """What is sent is encrypted, what is received decrypted; `wire` sends bytes as they are."""

    def __init__(self, house: House, peer: Peer, context: ssl.SSLContext, host: str | None = None) -> None:
        super().__init__(house, peer.sock)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server_name: str | None = None
        if host is None:
            context.sni_callback = self._named
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=host is None, server_hostname=host)
        self.notified = False  # the other side's close_notify came
        self.ended = False  # the socket's end of input came
        self.step: int | None = None  # bytes that leave in one send, with the loop turned in between

    def _named(self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        self.server_name = name

    def wire(self, data: bytes) -> None:
        """Bytes as they are."""
        for start in range(0, len(data), self.step or len(data) or 1):
            super().send(data[start : start + (self.step or len(data))])

    def flush(self) -> None:
        self.wire(self.outgoing.read())

    def shake(self) -> TlsPeer:
        """The whole handshake."""
        self.until(self.try_shaking, "the handshake")
        self.flush()
        self._decrypt()
        return self

    def try_shaking(self) -> bool:
        """One more step; raises ssl.SSLError where it has failed."""
        try:
            self.tls.do_handshake()
            return True
        except ssl.SSLWantReadError:
            self.flush()
            return False

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[self.tls.write(rest) :]
            self.flush()

    def record(self, data: bytes) -> bytes:
        """What would be sent."""
        self.tls.write(data)
        return self.outgoing.read()

    def notify(self) -> None:
        """close_notify, and no more."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        self.flush()

    def read(self, most: int = 1 << 18) -> bool:
        if self.ended or self.was_reset:
            return False
        data = self._receive(most)
        if data is None:
            return self.was_reset
        self.ended = not data
        self.incoming.write(data)
        self._decrypt()
        # An end without a close_notify is none that a test should take for good.
        self.at_eof = self.ended and self.notified
        return True

    def _decrypt(self) -> None:
        if self.tls.version() is None or not self.tls.cipher():
            return
        try:
            while piece := self.tls.read(1 << 16):
                self.received += piece
            self.notified = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.notified = True

    @property
    def over(self) -> bool:
        return self.ended or self.was_reset

    @property
    def end(self) -> str:
        if self.ended and not self.notified:
            return "end without close_notify"
        return super().end
