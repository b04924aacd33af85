"""From a name to a connected socket: resolve, then race IPv6 and IPv4 ("happy eyeballs", RFC 8305), within one deadline.

    attempt      on                                      → attempt
    resolving    addresses                               → connecting  (the permitted ones, families interleaved)
    resolving    the look-up fails                       → over        (its error)
    connecting   ATTEMPT_DELAY without an answer         → connecting  (the next address is tried beside)
    connecting   one address fails                       → connecting  (the next at once), or with the last one over
    connecting   one is connected                        → over        (its socket; the others are closed)
    any          the deadline                            → over        (504)
    any          cancel()                                → over        (nobody is called)
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

from reactor.errors import UpstreamError
from reactor.loop import WRITE, Reactor, Timer
from reactor.resolver import Found, Lookup, Resolver, SockAddr
from reactor.timing import FetchTimes

CONNECT_SECONDS = 10.0  # for the look-up and all addresses together
ATTEMPT_DELAY = 0.25  # seconds: the Connection Attempt Delay that RFC 8305 section 5 recommends
ADDRESS_LIMIT = 8  # addresses tried in one attempt; the others are not

NOT_PERMITTED = "no public address, and so not permitted"

# This process or machine is at a limit; trying elsewhere would not help.
_AT_LIMIT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

Callback = Callable[[Any, str], object]  # a socket (with TLS, a TlsStream) or an UpstreamError; and the address
Permit = Callable[[str], bool]


class Connector:
    """Makes TCP connections. `permit`, where given, is asked for the numeric address before each one is tried."""

    def __init__(
        self, reactor: Reactor, resolver: Resolver, timeout: float = CONNECT_SECONDS, permit: Permit | None = None
    ) -> None:
        self.reactor = reactor
        self.resolver = resolver
        self.timeout = timeout
        self.permit = permit

    def connect(self, host: str, port: int, callback: Callback, timeout: float | None = None) -> Attempt:
        """Connect to a host name or numeric address (IPv6 without brackets) within `timeout` seconds.

        The loop calls `callback(socket, address)` with a non-blocking socket and "ip:port" ("[ip6]:port"), or
        `callback(error, address)` with an UpstreamError: phase "resolve", or phase "connect" with 502 where all
        addresses failed, 504 where none answered in time, 403 where none is permitted, 503 where this process has no
        descriptors left.
        """
        return Attempt(self, host, port, callback, self.timeout if timeout is None else timeout)

    def permits(self, address: str) -> bool:
        """Whether `ip:port` (`[ip6]:port`) may be connected to."""
        return self.permit is None or self.permit(address.rpartition(":")[0].strip("[]"))


class Attempt:
    """One connection being made; `cancel` may be called at any time, any number of times."""

    __slots__ = (
        "state", "address", "_host", "_resolver", "_reactor", "_permit", "_callback", "_owner", "_seconds", "_lookup", "_deadline",
        "_delay", "_untried", "_tries", "_failures", "_resolved_at",
    )  # fmt: skip

    def __init__(self, connector: Connector, host: str, port: int, callback: Callback, seconds: float) -> None:
        self.state = "resolving"
        self.address = address_text(host, port)
        self._host = host
        self._resolver = connector.resolver
        self._reactor = connector.reactor
        self._permit = connector.permit
        self._callback: Callback | None = callback
        self._owner = getattr(callback, "__self__", None)
        self._seconds = seconds
        self._delay: Timer | None = None
        self._untried: list[tuple[int, SockAddr]] = []  # the next one is at the end
        self._tries: list[_Try] = []
        self._failures: list[tuple[str, str, int]] = []  # (address, why, status)
        self._resolved_at = 0.0
        self._deadline: Timer | None = self._reactor.call_later(seconds, self._timed_out)
        self._lookup: Lookup | None = connector.resolver.resolve(host, port, self._resolved)

    def cancel(self) -> None:
        """Give up; the callback is not called any more, and nothing of the attempt stays open."""
        self._callback = self._owner = None
        self._give_up()

    def _resolved(self, found: Found | UpstreamError) -> None:
        self._lookup = None
        if self.state != "resolving":
            return
        if isinstance(found, UpstreamError):
            self._finish(found, self.address)
            return
        self.state = "connecting"
        self._resolved_at = self._reactor.now
        candidates = [candidate for candidate in interleaved(found) if self._permitted(candidate[1])]
        self._untried = candidates[:ADDRESS_LIMIT][::-1]
        self._try_next()

    def tell(self, times: FetchTimes) -> None:
        """For the callback: when the name was resolved, and that it is connected now, or is not going to be."""
        times.resolved = self._resolved_at
        times.connected = self._reactor.now

    def _permitted(self, sockaddr: SockAddr) -> bool:
        if self._permit is None or self._permit(sockaddr[0]):
            return True
        self._failures.append((address_text(*sockaddr[:2]), NOT_PERMITTED, 403))
        return False

    def _try_next(self) -> None:
        """Start with the next address, past those that fail at once."""
        if self._delay is not None:
            self._delay.cancel()
            self._delay = None
        while self._untried:
            if self._start(*self._untried.pop()):
                if self._untried:
                    self._delay = self._reactor.call_later(ATTEMPT_DELAY, self._try_next)
                return
        if not self._tries:
            self._finish(self._all_failed(), self.address)

    def _start(self, family: int, sockaddr: SockAddr) -> bool:
        address = address_text(*sockaddr[:2])
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self._note(address, error)
            return False
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = sock.connect_ex(sockaddr)
            if number not in (0, errno.EINPROGRESS, errno.EINTR):
                raise OSError(number, os.strerror(number))
            started = _Try(self, sock, sockaddr, address)
        except OSError as error:
            sock.close()
            self._note(address, error)
            return False
        self._tries.append(started)
        return True

    def _answered(self, answered: _Try, error: OSError | None) -> None:
        self._tries.remove(answered)
        sock = answered.give_away()
        if error is None:
            self._finish(sock, answered.address)
        else:
            sock.close()
            self._note(answered.address, error)
            self._try_next()

    def _note(self, address: str, error: OSError) -> None:
        status = 503 if error.errno in _AT_LIMIT else 504 if error.errno == errno.ETIMEDOUT else 502
        self._failures.append((address, error.strerror or str(error), status))

    def _all_failed(self) -> UpstreamError:
        if not self._failures:
            return UpstreamError("the name has no addresses", "connect", self.address)
        statuses = {status for _, _, status in self._failures}
        status = next(status for status in (503, 502, 504, 403) if status in statuses)
        if status != 403:
            self._resolver.forget(self._host)  # it may have moved: the next attempt asks again
        if len(self._failures) == 1 and self._failures[0][0] == self.address:
            return UpstreamError(self._failures[0][1], "connect", self.address, status)
        return UpstreamError(self._tried(), "connect", self.address, status)

    def _tried(self) -> str:
        pending = [f"{a_try.address} (no answer)" for a_try in self._tries]
        return ", ".join([f"{address} ({why})" for address, why, _ in self._failures] + pending)

    def _timed_out(self) -> None:
        self._deadline = None
        if self.state == "resolving":
            reason = f"no answer to the look-up within {self._seconds:g} s (connect timeout)"
            error = UpstreamError(reason, "resolve", self.address, 504)
        else:
            self._resolver.forget(self._host)
            reason = f"no connection within {self._seconds:g} s (connect timeout), tried {self._tried()}"
            error = UpstreamError(reason, "connect", self.address, 504)
        self._finish(error, self.address)

    def _finish(self, result: socket.socket | UpstreamError, address: str) -> None:
        callback, self._callback = self._callback, None
        self._give_up()
        if callback is not None:
            callback(result, address)
            self._owner = None

    def _give_up(self) -> None:
        self.state = "over"
        if self._lookup is not None:
            self._lookup.cancel()
            self._lookup = None
        for timer in (self._deadline, self._delay):
            if timer is not None:
                timer.cancel()
        self._deadline = self._delay = None
        for a_try in self._tries:
            a_try.give_away().close()
        self._tries.clear()
        self._untried.clear()

    def failed(self, error: Exception) -> None:
        """`permit` or the callback raised (already logged): the caller is told, or loses its connection."""
        if self._callback is not None:
            self._finish(UpstreamError(f"could not connect: {error}", "connect", self.address), self.address)
            return
        owner, self._owner = self._owner, None
        failed = getattr(owner, "failed", None)
        if failed is not None:
            failed(error)

    def __repr__(self) -> str:
        return f"<Attempt {self.address} {self.state}>"


class _Try:
    """One address being connected to; `sock` is None once it is closed or given away."""

    __slots__ = ("address", "sock", "_attempt", "_sockaddr")

    def __init__(self, attempt: Attempt, sock: socket.socket, sockaddr: SockAddr, address: str) -> None:
        self.address = address
        self.sock: socket.socket | None = sock
        self._attempt = attempt
        self._sockaddr = sockaddr
        attempt._reactor.register(sock, WRITE, self)

    def ready(self, mask: int) -> None:
        sock = self.sock
        if sock is None:  # closed earlier in this turn
            return
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        # A port of our own that nobody listens on may be the very one that the kernel gives us to connect from:
        # then we are connected to ourselves.
        if not number and sock.getsockname() == self._sockaddr:
            number = errno.ECONNREFUSED
        self._attempt._answered(self, OSError(number, os.strerror(number)) if number else None)

    def failed(self, error: Exception) -> None:
        self._attempt.failed(error)

    def give_away(self) -> socket.socket:
        sock, self.sock = self.sock, None
        assert sock is not None
        self._attempt._reactor.unregister(sock)
        return sock


def interleaved(found: Found) -> Found:
    """The families take turns, the preferred one first, each in its own order (RFC 8305 section 4)."""
    first = [candidate for candidate in found if candidate[0] == found[0][0]]
    second = [candidate for candidate in found if candidate[0] != found[0][0]]
    return [candidate for pair in zip_longest(first, second) for candidate in pair if candidate is not None]


def address_text(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
