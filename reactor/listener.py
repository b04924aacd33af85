"""Listening sockets: accept a bounded number per turn, and survive running out of descriptors."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable

from reactor.errors import ConfigError
from reactor.loop import READ, Reactor, Timer

log = logging.getLogger("reactor.listener")

BACKLOG = 1024  # connections the kernel keeps for us before it drops SYNs
ACCEPTS_PER_TURN = 64  # so that a burst of new connections does not starve the old ones
OUT_OF_DESCRIPTORS_PAUSE = 0.25  # seconds without accepting once the process or the system has no descriptor left

# accept(2): errors of the one connection, already gone again, not of the listener.
_ONE_CONNECTION = {errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPERM}
_NO_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

Accepted = Callable[[socket.socket, str], object]


class Listener:
    """Accepts TCP connections on one address and hands each to `accepted(sock, peer_host)`, non-blocking."""

    def __init__(self, reactor: Reactor, host: str, port: int, accepted: Accepted) -> None:
        """Binds and listens; port 0 takes a free one. Raises ConfigError with one line where that fails."""
        self._reactor = reactor
        self._accepted = accepted
        self._watched = False
        self._closed = False
        self._pause_over: Timer | None = None
        self.sock = _bind(host, port)
        self.host, self.port = self.sock.getsockname()[:2]
        self._watch()

    @property
    def address(self) -> str:
        """host:port as a URL writes it."""
        return _address(self.host, self.port)

    def ready(self, mask: int) -> None:
        if not self._watched:
            return  # closed by another callback of this turn
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = self.sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _ONE_CONNECTION:
                    continue
                if error.errno not in _NO_RESOURCES:
                    raise
                self._pause(error)
                return
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                log.debug("%s connected to %s", address[0], self.address)
                self._accepted(sock, address[0])
            except Exception:  # nobody else has the socket
                sock.close()
                raise

    def failed(self, error: Exception) -> None:
        """Something about one new connection went wrong (already logged): the listener goes on."""

    def _pause(self, error: OSError) -> None:
        # A level-triggered listener that cannot accept would spin: look away for a moment.
        log.warning("cannot accept on %s: %s; pausing", self.address, error.strerror)
        self._reactor.unregister(self.sock)
        self._watched = False
        self._pause_over = self._reactor.call_later(OUT_OF_DESCRIPTORS_PAUSE, self._watch)

    def _watch(self) -> None:
        self._pause_over = None
        self._reactor.register(self.sock, READ, self)
        self._watched = True

    def close(self) -> None:
        """Stop listening; connections that were accepted stay."""
        if not self._closed:
            self._closed = True
            if self._watched:
                self._reactor.unregister(self.sock)
                self._watched = False
            if self._pause_over is not None:
                self._pause_over.cancel()
            self.sock.close()

    def __repr__(self) -> str:
        return f"<Listener {self.address}{' closed' if self._closed else '' if self._watched else ' paused'}>"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock: socket.socket | None = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:  # a name that is no name does not even reach the resolver
        if sock is not None:
            sock.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"cannot listen on {_address(host, port)}: {reason}") from None
    sock.setblocking(False)
    return sock
