"""The process: all groups on one loop, from the first listener to the last exchange."""

from __future__ import annotations

import argparse
import gc
import logging
import resource
import signal
from collections.abc import Callable
from functools import partial
from typing import Protocol

from reactor.connector import Connector
from reactor.loop import Reactor
from reactor.resolver import Resolver

log = logging.getLogger("reactor.run")

GRACE = 10.0  # seconds
# Objects made before the cycle collector looks. Nothing on the hot path makes a cycle (tests hold that), so at the
# interpreter's own 700 it would walk through what is in flight, again and again, and find nothing.
COLLECTOR = (50_000, 20, 100)


class Group(Protocol):
    """One role, running.

    `start` raises ConfigError; `shutdown` lets what runs end and calls `on_done(group)` once nothing does any more; `abort`
    resets it; `close`, idempotent and last, gives up what it holds.
    """

    def start(self) -> None: ...
    def shutdown(self, on_done: Callable[[Group], object]) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


class Process:
    """All groups on one loop, from the first listener to the last exchange."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self.flags = flags
        self.grace = GRACE if flags.grace is None else flags.grace
        self.reactor = Reactor()
        self.resolver = Resolver(self.reactor)
        self.connector = Connector(self.reactor, self.resolver)
        self.groups: list[Group] = []
        self.on_reopen: list[Callable[[], object]] = []  # what SIGUSR1 does: logs are opened again, after a rotation
        self.exit_code = 0
        self.signalled = 0  # the number of the signal that ends it
        self._stopping = False
        self.at_hangup: list[Callable[[], object]] = []  # what SIGHUP calls; without any, it ends the process as ever

    def run(self) -> int:
        """Start every group and turn until all are done; the exit status. Raises ConfigError."""
        raise_descriptor_limit()
        try:
            # Before anybody is told that a listener is ready: who waits for that may send a signal at once.
            for number in (signal.SIGINT, signal.SIGTERM):
                self.reactor.on_signal(number, partial(self._signalled, number))
            self.reactor.on_signal(signal.SIGUSR1, self._reopen)
            if self.at_hangup:
                self.reactor.on_signal(signal.SIGHUP, self._hung_up)
            for group in list(self.groups):
                group.start()
            # What start-up made stays for good: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*COLLECTOR)
            self.reactor.run()
        finally:
            self.close()
        return self.exit_code

    def close(self) -> None:
        """Reset what still runs, and give up everything."""
        for group in self.groups:
            group.abort()
        self.resolver.close()
        self.reactor.turn(0.0)
        for group in self.groups:
            group.close()
        self.reactor.close()

    def group_done(self, group: Group) -> None:
        """A group has nothing more to do; the process ends with the last of them."""
        if group in self.groups:
            self.groups.remove(group)
        if not self.groups:
            self.reactor.stop()

    def _hung_up(self) -> None:
        for callback in self.at_hangup:
            self.reactor.call_soon(callback)

    def _reopen(self) -> None:
        for reopen in self.on_reopen:
            reopen()

    def _signalled(self, number: int) -> None:
        self.signalled = number
        if self._stopping:
            log.info("stopping at once")
            self.reactor.stop()  # the second signal
            return
        log.info("stopping; what runs may end within %g s", self.grace)
        self._stopping = True
        self.reactor.call_later(self.grace, self.reactor.stop)
        for group in list(self.groups):
            group.shutdown(self.group_done)


def raise_descriptor_limit() -> None:
    """Every connection is a descriptor: take as many as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            log.debug("the limit on descriptors stays at %d", soft)
