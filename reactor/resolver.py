"""Names to addresses without blocking the loop: getaddrinfo in helper processes (`reactor/helpers.py`).

A helper runs `reactor/lookup.py`. Identical look-ups share one query; an answer is kept for POSITIVE_SECONDS, a failure for
NEGATIVE_SECONDS. A query that nobody waits for any more leaves the queue.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from reactor import lookup as lookup_program
from reactor.errors import UpstreamError
from reactor.helpers import HelperPool, Job, helper_command
from reactor.loop import Reactor

HELPERS = 4  # look-ups at the same time
LOOKUP_SECONDS = 5.0  # that one look-up may take in its helper
QUEUE_LIMIT = 256  # queries waiting for a helper; a further one fails with 503
MEMO_LIMIT = 1024  # answers kept; the oldest goes first
POSITIVE_SECONDS = 30.0  # an answer is kept: short, because getaddrinfo does not tell the record's own time to live
NEGATIVE_SECONDS = 3.0  # a failure is kept
NAME_BYTES = 253  # RFC 1035 section 2.3.4 has 255 on the wire, which are 253 in text; a final dot may follow

# Within LOOKUP_SECONDS the C library should get to the second name server (its own default is 5 s for each).
RES_OPTIONS = "timeout:2 attempts:2"

_NAME = re.compile(rb"[!-~]{1,%d}\.?" % NAME_BYTES)
_NUMBER = re.compile(r"[0-9]{1,9}")
_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 section 2.5.5.2

SockAddr = tuple[str, int] | tuple[str, int, int, int]
Found = list[tuple[int, SockAddr]]  # (family, what connect takes), in the order of RFC 6724
Callback = Callable[[Found | UpstreamError], object]
_Address = tuple[int, str, int]  # family, numeric address, scope


class _Failure(NamedTuple):
    reason: str
    status: int


_Outcome = tuple[_Address, ...] | _Failure


class Lookup:
    """One caller's wait for an answer; `cancel` may be called at any time, any number of times."""

    __slots__ = ("host", "port", "job", "_callback", "_owner")

    def __init__(self, host: str, port: int, callback: Callback) -> None:
        self.host = host
        self.port = port
        self._callback: Callback | None = callback
        self._owner = getattr(callback, "__self__", None)
        self.job: _Query | None = None

    def cancel(self) -> None:
        """The callback is not called any more."""
        self._callback = self._owner = None
        query, self.job = self.job, None
        if query is not None:
            query.resolver._pool.leave(query, self)

    def _deliver(self, outcome: _Outcome) -> None:
        callback, self._callback = self._callback, None
        if callback is None:
            return
        if isinstance(outcome, _Failure):
            callback(UpstreamError(outcome.reason, "resolve", self.host, outcome.status))
        else:
            callback([_sockaddr(address, self.port) for address in outcome])
        self._owner = None

    def failed(self, error: Exception) -> None:
        """The callback raised: whoever it belongs to loses its connection."""
        owner, self._owner = self._owner, None
        failed = getattr(owner, "failed", None)
        if failed is not None:
            failed(error)


class _Query(Job):
    """One name being looked up, for all the Lookups that wait for it."""

    __slots__ = ("resolver", "name")

    def __init__(self, resolver: Resolver, name: bytes) -> None:
        super().__init__(name)
        self.resolver = resolver
        self.name = name

    def answered(self, line: str) -> None:
        outcome = _parse_answer(line)
        self.resolver._settle(self, outcome, NEGATIVE_SECONDS if isinstance(outcome, _Failure) else POSITIVE_SECONDS)

    def given_up(self, reason: str, status: int) -> None:
        # That we are at a limit says nothing of the name.
        self.resolver._settle(self, _Failure(reason, status), 0.0 if status == 503 else NEGATIVE_SECONDS)


class Resolver:
    """Looks names up. `command` is the helper's, whose standard input is the socket it answers on.

    `helpers` bounds the processes, `timeout` is the seconds one look-up may take.
    """

    def __init__(
        self,
        reactor: Reactor,
        helpers: int = HELPERS,
        command: Sequence[str] | None = None,
        timeout: float = LOOKUP_SECONDS,
    ) -> None:
        self.reactor = reactor
        environment = {"RES_OPTIONS": RES_OPTIONS}
        command = command or helper_command(lookup_program)
        self._pool = HelperPool(reactor, command, "look-up", helpers, QUEUE_LIMIT, timeout, environment)
        self._queries: dict[bytes, _Query] = {}  # queued or asked
        self._memo: dict[bytes, tuple[float, _Outcome]] = {}  # name → (until when, what), the oldest first
        self._closed = False

    def resolve(self, host: str, port: int, callback: Callback) -> Lookup:
        """Look up a host name or a numeric address (IPv6 without brackets).

        `callback` gets a list of (family, address for connect), or an UpstreamError of phase "resolve": 502 where the
        name has no address, 504 where no answer came in time, 503 where too many wait. It is called by the loop, never
        from within this call.
        """
        lookup = Lookup(host, port, callback)
        outcome = self._known(host, port)
        if outcome is None:
            self._enqueue(host.encode("ascii").lower(), lookup)
        else:
            self.reactor.call_soon(lookup._deliver, outcome)
        return lookup

    def _known(self, host: str, port: int) -> _Outcome | None:
        """What can be said without a helper."""
        if self._closed:
            return _Failure("the resolver is closed", 503)
        name = host.encode("ascii", "replace") if host.isascii() else b""
        if _NAME.fullmatch(name) is None:
            return _Failure("not a host name", 502)
        if not 0 < port < 65536:
            return _Failure(f"{port} is not a port", 502)
        literal = _literal(host)
        if literal is not None:
            return literal
        until, outcome = self._memo.get(name.lower(), (0.0, None))
        return outcome if until > self.reactor.now else None

    def forget(self, host: str) -> None:
        """Ask anew the next time, for what was found is of no use."""
        self._memo.pop(host.encode("ascii", "replace").lower(), None)

    # Queries.

    def _enqueue(self, name: bytes, lookup: Lookup) -> None:
        query = self._queries.get(name)
        if query is not None:
            query.join(lookup)
        elif self._pool.full:
            self.reactor.call_soon(lookup._deliver, _Failure(f"more than {QUEUE_LIMIT} look-ups wait", 503))
        else:
            query = self._queries[name] = _Query(self, name)
            query.join(lookup)
            self._pool.ask(query)

    def _settle(self, query: _Query, outcome: _Outcome, seconds: float) -> None:
        """Tell all who wait, each in a call of its own, so that one that raises costs nobody else; remember for `seconds`."""
        del self._queries[query.name]
        if seconds:
            self._remember(query.name, outcome, seconds)
        for lookup in query.dismiss():
            self.reactor.call_soon(lookup._deliver, outcome)

    def _remember(self, name: bytes, outcome: _Outcome, seconds: float) -> None:
        memo = self._memo
        memo.pop(name, None)
        if len(memo) >= MEMO_LIMIT:
            del memo[next(iter(memo))]
        memo[name] = (self.reactor.now + seconds, outcome)

    def close(self) -> None:
        """End all helpers; whoever still waits gets an UpstreamError. Idempotent."""
        self._closed = True
        self._pool.close("the resolver is closed")


def _address(family: int, text: str, scope: int) -> _Address:
    """In its canonical spelling; an IPv4 address in IPv6's clothes is what it is, so that no rule for it is passed by."""
    packed = socket.inet_pton(family, text)
    if family == socket.AF_INET6 and packed.startswith(_MAPPED):
        return socket.AF_INET, socket.inet_ntop(socket.AF_INET, packed[12:]), 0
    return family, socket.inet_ntop(family, packed), scope


def _sockaddr(address: _Address, port: int) -> tuple[int, SockAddr]:
    family, text, scope = address
    return family, ((text, port) if family == socket.AF_INET else (text, port, 0, scope))


def _literal(host: str) -> _Outcome | None:
    """The address that `host` itself is, or None where it is a name."""
    text, percent, zone = host.partition("%")
    try:
        if not percent:
            return (_address(socket.AF_INET6 if ":" in text else socket.AF_INET, text, 0),)
        socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        return _Failure("not an IPv6 address", 502) if ":" in text else None
    try:  # RFC 4007 section 11: the zone is an interface's index or name
        return (_address(socket.AF_INET6, text, int(zone) if _NUMBER.fullmatch(zone) else socket.if_nametoindex(zone)),)
    except OSError:
        return _Failure(f"no zone {zone} here", 502)


def _parse_answer(line: str) -> _Outcome:
    """Raises ValueError or OSError where the line is not what a helper says."""
    kind, _, rest = line.partition(" ")
    if kind == "no":
        return _Failure(rest or "not found", 502)
    words = rest.split(" ")
    if kind != "ok" or len(words) % 3:
        raise ValueError(line)
    families = {str(int(socket.AF_INET)): socket.AF_INET, str(int(socket.AF_INET6)): socket.AF_INET6}
    addresses = []
    for family, text, scope in zip(words[::3], words[1::3], words[2::3], strict=True):
        if family not in families or _NUMBER.fullmatch(scope) is None:
            raise ValueError(line)
        addresses.append(_address(families[family], text, int(scope)))
    return tuple(dict.fromkeys(addresses))
