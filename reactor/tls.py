"""Connections to TLS origins: whom they trust, the sessions that they may resume, and one being made.

Importing this costs time and memory: that is done where the first TLS connection is made.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable

from reactor.connector import Attempt, Connector, address_text
from reactor.errors import ConfigError, UpstreamError
from reactor.loop import Reactor, Timer
from reactor.stream import Stream
from reactor.timing import FetchTimes
from reactor.tls_stream import TlsError, TlsStream, plain_words

log = logging.getLogger("reactor.tls")

SESSIONS = 256  # remembered for resumption; the oldest goes first

PHASE = "TLS handshake"

Callback = Callable[[TlsStream | UpstreamError, str], object]


class ClientTls:
    """What connections to TLS origins share: whom they trust, and the sessions that they may resume (RFC 8446 section 2.2).

    `ca_file` names the only authorities that are trusted, PEM; without it the system's are. `insecure` asks for no proof at
    all. Raises ConfigError, with the exit status that curl has for it, where the file cannot be used.
    """

    def __init__(self, ca_file: str | None = None, insecure: bool = False) -> None:
        try:
            self.context = ssl.create_default_context(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"{ca_file}: {plain_words(error).lower()}", 77) from None
        self.context.hostname_checks_common_name = False  # RFC 9110 section 4.3.4: a name is in subjectAltName, or nowhere
        self.context.set_alpn_protocols(["http/1.1"])
        self._sessions: dict[tuple[str, int], ssl.SSLSession] = {}
        if insecure:
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE
            log.warning("--insecure: NO CERTIFICATE IS VERIFIED; whoever stands between can read and change everything")

    def connect(self, connector: Connector, host: str, port: int, callback: Callback, seconds: float) -> SecureAttempt:
        """Connect as `Connector.connect` does, and end the handshake, all within `seconds`; the result is a TlsStream."""
        attempt = self.attempt(connector.reactor, host, port, callback, seconds)
        attempt.begin(connector)
        return attempt

    def attempt(self, reactor: Reactor, host: str, port: int, callback: Callback, seconds: float) -> SecureAttempt:
        """The same, not begun yet: `secure` goes over a stream that leads there already."""
        return SecureAttempt(self, reactor, host, port, callback, seconds)

    def _keep(self, key: tuple[str, int], session: ssl.SSLSession) -> None:
        self._sessions.pop(key, None)
        if len(self._sessions) >= SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[key] = session


class SecureAttempt:
    """A connection with TLS being made: connecting → handshaking → over. `cancel` may be called any number of times."""

    __slots__ = (
        "state", "address", "_tls", "_reactor", "_key", "_callback", "_seconds", "_until", "_attempt", "_stream", "_timer",
        "_times",
    )  # fmt: skip

    def __init__(self, tls: ClientTls, reactor: Reactor, host: str, port: int, callback: Callback, seconds: float) -> None:
        self.state = "connecting"
        self.address = address_text(host, port)
        self._tls = tls
        self._reactor = reactor
        self._key = (host, port)
        self._callback: Callback | None = callback
        self._seconds = seconds
        self._until = reactor.now + seconds
        self._attempt: Attempt | None = None
        self._stream: TlsStream | None = None
        self._timer: Timer | None = None
        self._times = FetchTimes()

    def begin(self, connector: Connector) -> None:
        """By a connection of its own."""
        self._attempt = connector.connect(*self._key, self._connected, self._seconds)

    def fail(self, error: UpstreamError) -> None:
        """There is no connection to shake hands over."""
        self._finish(error)

    def tell(self, times: FetchTimes) -> None:
        """For the callback: when the name was resolved, and that it is connected and secure now, or is not going to be."""
        times.resolved = self._times.resolved
        times.connected = self._reactor.now

    def cancel(self) -> None:
        """Give up; the callback is not called any more, and nothing of the attempt stays open."""
        self._callback = None
        if self._attempt is not None:
            self._attempt.cancel()
        stream = self._stream
        self._leave()
        if stream is not None:
            stream.abort()

    def _connected(self, result: socket.socket | UpstreamError, address: str) -> None:
        if self._attempt is not None:
            self._attempt.tell(self._times)
            self._attempt = None
        self.address = address
        if isinstance(result, UpstreamError):
            self._finish(result)
        else:
            self.secure(Stream(self._reactor, None, result), b"")

    def secure(self, stream: Stream, received: bytes) -> None:
        """Shake hands over an open stream, of which these bytes were received already."""
        self.state = "handshaking"
        host, tls = self._key[0], self._tls
        session = tls._sessions.pop(self._key, None)  # kept again once it has proved good
        # A name's final dot is the resolver's affair: no certificate has it.
        name = host.removesuffix(".").encode("ascii")
        try:
            self._stream = TlsStream(
                stream, None, tls.context, name, False, session, self._shaken, self._keep_session, received
            )
        except (ValueError, ssl.SSLError):
            stream.abort()
            self._finish(UpstreamError(f"{PHASE}: no name that a certificate could be for", PHASE, self.address))
            return
        self._timer = self._reactor.call_later(max(0.0, self._until - self._reactor.now), self._timed_out)

    def _keep_session(self, session: ssl.SSLSession) -> None:
        self._tls._keep(self._key, session)

    def _shaken(self, error: TlsError | None) -> None:
        stream = self._stream
        if self.state == "over" or stream is None:
            return
        if error is None:
            self._finish(stream)
        elif error.certificate:
            self._finish(UpstreamError(f"{PHASE}: {error.reason}", "certificate", self.address))
        else:
            self._finish(UpstreamError(f"{PHASE}: {error.reason}", PHASE, self.address))

    def _timed_out(self) -> None:
        stream = self._stream
        reason = f"{PHASE}: not done within {self._seconds:g} s (connect timeout)"
        self._finish(UpstreamError(reason, PHASE, self.address, 504))
        if stream is not None:
            stream.abort()

    def _finish(self, result: TlsStream | UpstreamError) -> None:
        callback, self._callback = self._callback, None
        self._leave()
        if callback is not None:
            callback(result, self.address)

    def _leave(self) -> None:
        self.state = "over"
        self._attempt = self._stream = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def failed(self, error: Exception) -> None:
        """A timer's callback raised (already logged): who waits is told."""
        self._finish(UpstreamError(f"could not connect: {error}", PHASE, self.address))

    def __repr__(self) -> str:
        return f"<SecureAttempt {self.address} {self.state}>"
