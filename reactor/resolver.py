"""Names to addresses without blocking the loop: getaddrinfo in helper processes, started when first needed.

A helper (`reactor/lookup.py`) has one look-up at a time, further ones queue, and identical ones share one query.

    query      on                                → query
    queued     a helper is free                  → asked
    queued     QUEUE_SECONDS, or no waiter left  → over (503)
    asked      the answer                        → over (kept for POSITIVE_SECONDS or NEGATIVE_SECONDS)
    asked      the helper dies or babbles        → queued again, the second time over (502)
    asked      the time limit                    → over (504, the helper is killed)
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from reactor.errors import UpstreamError
from reactor.loop import READ, Reactor, Timer

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger("reactor.resolver")

HELPERS = 4  # look-ups at the same time
LOOKUP_SECONDS = 5.0  # that one look-up may take in its helper
QUEUE_SECONDS = 5.0  # that a query waits for a free helper
QUEUE_LIMIT = 256  # queries waiting for a helper; a further one fails with 503
MEMO_LIMIT = 1024  # answers kept; the oldest goes first
POSITIVE_SECONDS = 30.0  # an answer is kept: short, because getaddrinfo does not tell the record's own time to live
NEGATIVE_SECONDS = 3.0  # a failure is kept
IDLE_SECONDS = 60.0  # after which a helper without work is ended
REAP_SECONDS = 0.1  # between looks at whether killed helpers are gone
ANSWER_BYTES = 16 * 1024  # in one answer; a helper that says more is replaced
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

    __slots__ = ("host", "port", "_callback", "_owner", "_query")

    def __init__(self, host: str, port: int, callback: Callback) -> None:
        self.host = host
        self.port = port
        self._callback: Callback | None = callback
        self._owner = getattr(callback, "__self__", None)
        self._query: _Query | None = None

    def cancel(self) -> None:
        """The callback is not called any more."""
        self._callback = self._owner = None
        query, self._query = self._query, None
        if query is not None:
            query.leave(self)

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


class _Query:
    """One name being looked up, and all who wait for it."""

    __slots__ = ("resolver", "name", "waiters", "helper", "retried", "timer")

    def __init__(self, resolver: Resolver, name: bytes) -> None:
        self.resolver = resolver
        self.name = name
        self.waiters: dict[Lookup, None] = {}
        self.helper: _Helper | None = None
        self.retried = False
        self.timer: Timer | None = None

    def join(self, lookup: Lookup) -> None:
        self.waiters[lookup] = None
        lookup._query = self

    def leave(self, lookup: Lookup) -> None:
        """A query that nobody waits for gives up its place in the queue; one already asked goes on, for the memo."""
        self.waiters.pop(lookup, None)
        if not self.waiters and self.helper is None:
            self.resolver._abandon(self)

    def set_timer(self, delay: float, callback: Callable[[_Query], object]) -> None:
        self.cancel_timer()
        self.timer = self.resolver.reactor.call_later(delay, callback, self)

    def cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class _Helper:
    """A process and the socket to it; free while `query` is None."""

    __slots__ = ("resolver", "sock", "process", "query", "idle_since", "_buffer")

    def __init__(self, resolver: Resolver, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.resolver = resolver
        self.sock = sock
        self.process = process
        self.query: _Query | None = None
        self.idle_since = 0.0
        self._buffer = b""

    def ask(self, query: _Query) -> None:
        self.query = query
        query.helper = self
        try:
            self.sock.send(query.name + b"\n")
        except OSError as error:
            # Not at once: losing a helper asks the next one, which may be dead too.
            self.resolver.reactor.call_soon(self.failed, error)

    def ready(self, mask: int) -> None:
        try:
            data = self.sock.recv(ANSWER_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.failed(error)
            return
        self._buffer += data
        if not data:
            self.resolver._helper_lost(self, "it ended")
        elif self.query is None or len(self._buffer) > ANSWER_BYTES:
            self.resolver._helper_lost(self, "it said more than it was asked")
        elif self._buffer.endswith(b"\n"):
            self._answered()

    def _answered(self) -> None:
        line, self._buffer = self._buffer, b""
        try:
            outcome = _parse_answer(line[:-1].decode("ascii"))
        except (ValueError, OSError):
            self.resolver._helper_lost(self, "its answer makes no sense")
            return
        self.resolver._helper_answered(self, outcome)

    def failed(self, error: Exception) -> None:
        self.resolver._helper_lost(self, str(error))


class Resolver:
    """Looks names up. `lookup` is the helper's command, whose standard input is the socket it answers on.

    `helpers` bounds the processes, `timeout` is the seconds one look-up may take.
    """

    def __init__(
        self,
        reactor: Reactor,
        helpers: int = HELPERS,
        lookup: Sequence[str] | None = None,
        timeout: float = LOOKUP_SECONDS,
    ) -> None:
        self.reactor = reactor
        self._limit = helpers
        self._command = list(lookup) if lookup is not None else _default_command()
        self._timeout = timeout
        self._helpers: set[_Helper] = set()
        self._idle: list[_Helper] = []  # the one that worked last is at the end, and is used first
        self._queue: deque[_Query] = deque()
        self._queries: dict[bytes, _Query] = {}  # queued or asked
        self._memo: dict[bytes, tuple[float, _Outcome]] = {}  # name → (until when, what), the oldest first
        self._dying: list[subprocess.Popen[bytes]] = []
        self._idle_timer: Timer | None = None
        self._reap_timer: Timer | None = None
        self._closed = False

    @property
    def running(self) -> int:
        """How many helper processes there are."""
        return len(self._helpers)

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
        elif len(self._queue) >= QUEUE_LIMIT:
            self.reactor.call_soon(lookup._deliver, _Failure(f"more than {QUEUE_LIMIT} look-ups wait", 503))
        else:
            query = self._queries[name] = _Query(self, name)
            query.join(lookup)
            query.set_timer(QUEUE_SECONDS, self._waited_too_long)
            self._queue.append(query)
            self._dispatch()

    def _dispatch(self) -> None:
        while self._queue:
            helper = self._free_helper()
            if helper is None:
                break
            query = self._queue.popleft()
            query.set_timer(self._timeout, self._took_too_long)
            helper.ask(query)
        if not self._helpers:
            while self._queue:
                self._settle(self._queue[0], _Failure("no look-up helper could be started", 503))

    def _waited_too_long(self, query: _Query) -> None:
        self._settle(query, _Failure(f"no look-up helper was free within {QUEUE_SECONDS:g} s", 503))

    def _took_too_long(self, query: _Query) -> None:
        helper = query.helper
        assert helper is not None
        query.helper = None
        self._end_helper(helper)
        failure = _Failure(f"no answer to the look-up within {self._timeout:g} s", 504)
        self._remember(query.name, failure, NEGATIVE_SECONDS)
        self._settle(query, failure)
        self._dispatch()

    def _abandon(self, query: _Query) -> None:
        query.cancel_timer()
        self._queries.pop(query.name, None)
        if query in self._queue:
            self._queue.remove(query)

    def _settle(self, query: _Query, outcome: _Outcome) -> None:
        """Tell all who wait, each in a call of its own, so that one that raises costs nobody else."""
        self._abandon(query)
        for lookup in query.waiters:
            lookup._query = None
            self.reactor.call_soon(lookup._deliver, outcome)
        query.waiters.clear()

    def _remember(self, name: bytes, outcome: _Outcome, seconds: float) -> None:
        memo = self._memo
        memo.pop(name, None)
        if len(memo) >= MEMO_LIMIT:
            del memo[next(iter(memo))]
        memo[name] = (self.reactor.now + seconds, outcome)

    # Helpers.

    def _free_helper(self) -> _Helper | None:
        if self._idle:
            return self._idle.pop()
        if len(self._helpers) >= self._limit:
            return None
        try:
            return self._start_helper()
        except OSError as error:
            log.warning("a look-up helper cannot be started: %s", error)
            return None

    def _start_helper(self) -> _Helper:
        import subprocess  # here, because most runs start without a look-up and should start fast

        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                self._command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # nor does it keep open a pipe that somebody reads our messages from
                env={"RES_OPTIONS": RES_OPTIONS, **os.environ},
                process_group=0,  # an interrupt from the terminal is for us: look-ups go on while we finish
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        helper = _Helper(self, ours, process)
        self._helpers.add(helper)
        self.reactor.register(ours, READ, helper)
        return helper

    def _helper_answered(self, helper: _Helper, outcome: _Outcome) -> None:
        query, helper.query = helper.query, None
        assert query is not None
        query.helper = None
        self._remember(query.name, outcome, NEGATIVE_SECONDS if isinstance(outcome, _Failure) else POSITIVE_SECONDS)
        self._settle(query, outcome)
        helper.idle_since = self.reactor.now
        self._idle.append(helper)
        self._dispatch()
        if self._idle and self._idle_timer is None:
            self._idle_timer = self.reactor.call_later(IDLE_SECONDS, self._end_idle)

    def _helper_lost(self, helper: _Helper, why: str) -> None:
        if helper not in self._helpers:
            return
        log.warning("look-up helper %d is replaced: %s", helper.process.pid, why)
        query = helper.query
        self._end_helper(helper)
        if query is not None:
            query.helper = None
            self._ask_again(query)
        self._dispatch()

    def _ask_again(self, query: _Query) -> None:
        """Once: a name that kills two helpers may kill them all."""
        if query.retried:
            failure = _Failure("the look-up helper failed twice", 502)
            self._remember(query.name, failure, NEGATIVE_SECONDS)
            self._settle(query, failure)
        elif not query.waiters:
            self._abandon(query)
        else:
            query.retried = True
            query.set_timer(QUEUE_SECONDS, self._waited_too_long)
            self._queue.appendleft(query)

    def _end_helper(self, helper: _Helper) -> None:
        helper.query = None
        self._helpers.discard(helper)
        if helper in self._idle:
            self._idle.remove(helper)
        helper.process.kill()
        self.reactor.unregister(helper.sock)
        helper.sock.close()
        self._dying.append(helper.process)
        self._reap()

    def _end_idle(self) -> None:
        self._idle_timer = None
        while self._idle and self._idle[0].idle_since + IDLE_SECONDS <= self.reactor.now:
            self._end_helper(self._idle[0])
        if self._idle:
            due = self._idle[0].idle_since + IDLE_SECONDS
            self._idle_timer = self.reactor.call_later(due - self.reactor.now, self._end_idle)

    def _reap(self) -> None:
        """Collect what was killed, without waiting for it."""
        if self._reap_timer is not None:
            self._reap_timer.cancel()
            self._reap_timer = None
        self._dying = [process for process in self._dying if process.poll() is None]
        if self._dying:
            self._reap_timer = self.reactor.call_later(REAP_SECONDS, self._reap)

    def close(self) -> None:
        """End all helpers; whoever still waits gets an UpstreamError. Idempotent."""
        self._closed = True
        for query in list(self._queries.values()):
            self._settle(query, _Failure("the resolver is closed", 503))
        for helper in list(self._helpers):
            self._end_helper(helper)
        for process in self._dying:
            process.wait()  # killed: a matter of microseconds
        self._dying.clear()
        for timer in (self._idle_timer, self._reap_timer):
            if timer is not None:
                timer.cancel()
        self._idle_timer = self._reap_timer = None


def _default_command() -> list[str]:
    return [sys.executable, "-I", "-S", os.path.join(os.path.dirname(os.path.abspath(__file__)), "lookup.py")]


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
