"""The event loop: a selector, a queue of calls for the end of this turn, a heap of timers, signals.

One turn: select, read both clocks, hand each ready socket to its owner, let those send who held something back meanwhile,
run the calls that were queued (those that they queue wait for the next turn), run the timers that are due. Nothing here
knows HTTP.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from reactor.polling import default_selector

log = logging.getLogger("reactor.loop")

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

# Where the system has a clock that does not stop while the machine sleeps: what is stored grows older all the same.
monotonic = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

COMPACT_AT = 512  # cancelled timers kept in the heap before it is rebuilt without them


class Pollable(Protocol):
    """What is registered with a socket."""

    def ready(self, mask: int) -> None:
        """The socket can be read (mask & READ), written (mask & WRITE), or has failed (both)."""

    def failed(self, error: Exception) -> None:
        """A callback of this object raised: it loses its connection, the loop goes on."""


class Sender(Protocol):
    """What holds something back until a turn's events are handed out."""

    def send_held(self) -> None:
        """Send it now, if it is still to be sent."""

    def failed(self, error: Exception) -> None:
        """See Pollable."""


class Timer:
    """A call in the future; `cancel` may be called at any time, any number of times."""

    __slots__ = ("when", "callback", "args", "_reactor")

    def __init__(self, when: float, callback: Callable[..., object], args: tuple[Any, ...], reactor: Reactor) -> None:
        self.when = when
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self._reactor: Reactor | None = reactor  # None once it is out of the heap

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self.args = ()
            if self._reactor is not None:
                self._reactor._timer_cancelled()

    def __repr__(self) -> str:
        return f"<Timer at {self.when:.3f} {'cancelled' if self.callback is None else self.callback}>"


class Reactor:
    """The loop. `now` is monotonic seconds, sleep included, `wall` seconds since the epoch; both are read once per turn.

    `selector`, `clock` and `wall_clock` are seams: a test may drive the loop with its own.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector | None = None,
        clock: Callable[[], float] = monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._selector = selector if selector is not None else default_selector()
        self.clock = clock  # this very moment, where a turn's `now` is too coarse
        self._wall_clock = wall_clock
        self._soon: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._cancelled = 0
        self._stopping = False
        # While events are handed out. What is to be sent then may as well be held back, so that the turn's sends come together:
        # each peer is woken once, and the processor's caches are not the kernel's and the interpreter's by turns.
        self.dispatching = False
        self.held: list[Sender] = []  # who holds something back; they send it before the calls that were queued
        self._wakeup: tuple[socket.socket, socket.socket] | None = None
        self._signals: dict[int, Callable[[], object]] = {}
        self._handlers_before: dict[int, Any] = {}
        self.now = clock()
        self.wall = wall_clock()

    # Sockets.

    def register(self, sock: socket.socket, mask: int, owner: Pollable) -> None:
        """Watch a socket for READ, WRITE or both."""
        self._selector.register(sock, mask, owner)

    def modify(self, sock: socket.socket, mask: int, owner: Pollable) -> None:
        self._selector.modify(sock, mask, owner)

    def unregister(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)

    @property
    def watched(self) -> int:
        """How many sockets are registered, the loop's own wake-up socket not counted."""
        return len(self._selector.get_map()) - (self._wakeup is not None)

    @property
    def pending_timers(self) -> int:
        return len(self._timers) - self._cancelled

    # Calls.

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Call after this turn's events and before the next select."""
        self._soon.append((callback, args))

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call once, `delay` seconds after `now`."""
        timer = Timer(self.now + delay, callback, args, self)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def _timer_cancelled(self) -> None:
        self._cancelled += 1
        if self._cancelled > COMPACT_AT and self._cancelled * 2 > len(self._timers):
            self._timers = [item for item in self._timers if item[2].callback is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    # Signals.

    def on_signal(self, number: int, callback: Callable[[], object]) -> None:
        """Call from the loop when the signal arrives; only in the main thread (ValueError elsewhere)."""
        if self._wakeup is None:
            read_end, write_end = socket.socketpair()
            read_end.setblocking(False)
            write_end.setblocking(False)
            self._wakeup = (read_end, write_end)
            signal.set_wakeup_fd(write_end.fileno(), warn_on_full_buffer=False)
            self.register(read_end, READ, _SignalReader(self, read_end))
        self._signals[number] = callback
        before = signal.signal(number, _ignore)
        self._handlers_before.setdefault(number, before)

    def _signalled(self, number: int) -> None:
        callback = self._signals.get(number)
        if callback is not None:
            callback()

    # Running.

    def run(self) -> None:
        """Turn until `stop` is called."""
        self._stopping = False
        while not self._stopping:
            self.turn()

    def stop(self) -> None:
        """Leave `run` at the end of this turn."""
        self._stopping = True

    def turn(self, timeout: float | None = None) -> None:
        """One turn; waits at most `timeout` seconds, or until the next timer."""
        if self._soon or self._stopping:
            timeout = 0.0
        elif self._timers:
            until = self._timers[0][0] - self.clock()
            until = 0.0 if until < 0.0 else until
            timeout = until if timeout is None or until < timeout else timeout
        events = self._selector.select(timeout)
        self.now = self.clock()
        self.wall = self._wall_clock()
        self.dispatching = True
        for key, mask in events:
            owner = key.data
            try:
                owner.ready(mask)
            except Exception as error:
                self._failed(owner, error)
        self.dispatching = False
        if self.held:
            self._send_held()
        soon = self._soon
        if soon:
            for _ in range(len(soon)):
                callback, args = soon.popleft()
                try:
                    callback(*args)
                except Exception as error:
                    self._failed(getattr(callback, "__self__", None), error)
            # A failed call's traceback holds this frame: what it was given must not be held by both.
            del callback, args
        if self._timers and self._timers[0][0] <= self.now:
            self._run_timers()

    def _send_held(self) -> None:
        held, self.held = self.held, []
        for sender in held:
            try:
                sender.send_held()
            except Exception as error:
                self._failed(sender, error)

    def _run_timers(self) -> None:
        timers = self._timers
        due = []
        while timers and timers[0][0] <= self.now:
            timer = heapq.heappop(timers)[2]
            if timer.callback is None:
                self._cancelled -= 1
            else:
                timer._reactor = None
                due.append(timer)
        for timer in due:
            callback, args = timer.callback, timer.args
            if callback is None:  # cancelled by one that ran before it
                continue
            timer.callback, timer.args = None, ()
            try:
                callback(*args)
            except Exception as error:
                self._failed(getattr(callback, "__self__", None), error)

    def _failed(self, owner: object, error: Exception) -> None:
        log.exception("exception in %r", owner, exc_info=error)
        failed = getattr(owner, "failed", None)
        if failed is not None:
            try:
                failed(error)
            except Exception as second:
                log.exception("exception while %r was being closed", owner, exc_info=second)

    def close(self) -> None:
        """Give up the signal handlers, the selector, and the sockets that are still watched: of streams that nobody owns."""
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
            for number, before in self._handlers_before.items():
                signal.signal(number, before if before is not None else signal.SIG_DFL)
            self._handlers_before.clear()
            self._signals.clear()
            for sock in self._wakeup:
                sock.close()
            self._wakeup = None
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._soon.clear()
        self.held.clear()
        self._timers.clear()
        self._cancelled = 0


class _SignalReader:
    """Reads the bytes that the interpreter's wake-up descriptor writes, one per signal."""

    def __init__(self, reactor: Reactor, sock: socket.socket) -> None:
        self._reactor = reactor
        self._sock = sock

    def ready(self, mask: int) -> None:
        # Queued, so that a callback that raises takes none of the signals behind it along.
        for number in self._sock.recv(64):
            self._reactor.call_soon(self._reactor._signalled, number)

    def failed(self, error: Exception) -> None:
        """Logged by the loop; signals go on being read."""


def _ignore(number: int, frame: object) -> None:
    """The interpreter's own handler does nothing: the wake-up descriptor tells the loop."""
