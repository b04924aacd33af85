"""CONNECT: a tunnel to the host and port that the client names (RFC 9110 section 9.3.6)."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence

from reactor.connector import Attempt, Connector
from reactor.errors import ConfigError, ProtocolError, UpstreamError
from reactor.exchange import Exchange, Handler, Head, error_page
from reactor.http.uri import split_authority
from reactor.relay import IDLE, Relay
from reactor.stream import Stream

ESTABLISHED = b"Connection established"
# RFC 9110 section 9.3.6: to a port that is not for TLS, a tunnel is a way to send mail, and worse, in the proxy's name.
TLS_PORTS = (range(443, 444), range(563, 564))
ANY_PORT = (range(1, 65536),)

_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def connect_ports(text: str) -> tuple[range, ...]:
    """`443,8443,9000-9100`, or `any`; raises ConfigError."""
    if text == "any":
        return ANY_PORT
    found = []
    for member in text.split(","):
        match = _PORTS.fullmatch(member)
        first, last = (int(match[1]), int(match[2] or match[1])) if match is not None else (0, 0)
        if not 0 < first <= last <= 65535:
            raise ConfigError(f"--connect-ports {text!r}: {member!r} is neither a port nor a range such as 9000-9100")
        found.append(range(first, last + 1))
    return tuple(found)


class Tunnel:
    """Answers CONNECT to `ports` itself, and leaves every other method to `handler`. `idle` is in seconds."""

    def __init__(
        self, connector: Connector, handler: Handler, idle: float = IDLE, ports: Sequence[range] = TLS_PORTS
    ) -> None:
        self.connector = connector
        self.handler = handler
        self.idle = idle
        self.ports = tuple(ports)

    def handle(self, exchange: Exchange) -> None:
        if exchange.request.method != b"CONNECT":
            self.handler.handle(exchange)
            return
        exchange.verdict = "tunnel"
        if exchange.request.length:  # RFC 9110 section 9.3.6: it means nothing, and where the tunnel begins is in doubt
            exchange.error = ProtocolError("a CONNECT with content")
            exchange.respond(*error_page(400, "a CONNECT has no content"))
            return
        host, port = split_authority(exchange.request.authority)
        assert port is not None  # the parser refuses a CONNECT without one
        if not any(port in ports for ports in self.ports):
            self._refuse(exchange, port)
            return
        _Connect(self, exchange, host.strip(b"[]").decode("ascii"), port)

    def _refuse(self, exchange: Exchange, port: int) -> None:
        exchange.verdict = "denied"
        known = ", ".join(f"{ports[0]}-{ports[-1]}" if len(ports) > 1 else f"{ports[0]}" for ports in self.ports)
        exchange.respond(*error_page(403, f"no tunnels to port {port}; those to {known} are allowed (--connect-ports)"))


class _Connect:
    """One tunnel: connecting, then relaying."""

    __slots__ = ("tunnel", "exchange", "_attempt", "_relay")

    def __init__(self, tunnel: Tunnel, exchange: Exchange, host: str, port: int) -> None:
        self.tunnel = tunnel
        self.exchange = exchange
        self._relay: Relay | None = None
        if exchange.timing is not None:
            exchange.timing.fetch.began = exchange.reactor.now
        self._attempt: Attempt | None = tunnel.connector.connect(host, port, self._connected)
        exchange.on_end(self._ended)

    def _connected(self, result: socket.socket | UpstreamError, address: str) -> None:
        attempt, self._attempt = self._attempt, None
        exchange = self.exchange
        if exchange.timing is not None and attempt is not None:
            attempt.tell(exchange.timing.fetch)
        exchange.upstream = address
        if isinstance(result, UpstreamError):
            exchange.error = result
            exchange.respond(*error_page(result.status, f"upstream {result}"))
            return
        upstream = Stream(exchange.reactor, None, result)
        client, left_over = exchange.upgrade(Head(200, (), ESTABLISHED))
        self._relay = relay = Relay(exchange.reactor, client, upstream, self.tunnel.idle, self._over, ("client", "upstream"))
        relay.start(left_over, b"")

    def _over(self, relay: Relay) -> None:
        self._relay = None
        exchange = self.exchange
        exchange.bytes_in, exchange.bytes_out = relay.bytes_left_to_right, relay.bytes_right_to_left
        exchange.finish(None if relay.reason == "closed" else relay.reason)

    def _ended(self, exchange: Exchange) -> None:
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        if self._relay is not None:
            self._relay.abort()
