"""Work that would block the loop, done in helper processes: one line in, one line out, over a socketpair.

A helper has one job at a time; further ones queue. The processes are started when first needed.

    job        on                                → job
    queued     a helper is free                  → asked
    queued     QUEUE_SECONDS, or cancelled       → over (503)
    asked      the answer                        → over
    asked      the helper dies or babbles        → queued again, the second time over (502)
    asked      the time limit                    → over (504, the helper is killed)
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from reactor import helper_process
from reactor.loop import READ, Reactor, Timer

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger("reactor.helpers")

QUEUE_SECONDS = 5.0  # that a job waits for a free helper
IDLE_SECONDS = 60.0  # after which a helper without work is ended
REAP_SECONDS = 0.1  # between looks at whether killed helpers are gone
ANSWER_BYTES = 16 * 1024  # in one answer; a helper that says more is replaced


def helper_command(program: ModuleType) -> list[str]:
    """The command of a helper whose lines the module's `answer` answers."""
    return [sys.executable, "-I", "-S", str(helper_process.__file__), str(program.__file__)]


class Job:
    """One line for a helper, and all who wait for what it says.

    What becomes of it, a subclass says in `answered` or `given_up`, one of which is called once.
    """

    __slots__ = ("line", "helper", "waiters", "retried", "timer")

    def __init__(self, line: bytes) -> None:
        self.line = line  # without its line end, and short enough for the socket to take at once
        self.helper: _Helper | None = None
        self.waiters: dict[Any, None] = {}  # in order; each knows it as its `job`
        self.retried = False
        self.timer: Timer | None = None

    def join(self, waiter: Any) -> None:
        self.waiters[waiter] = None
        waiter.job = self

    def dismiss(self) -> list[Any]:
        """Those who waited, to be told: they know it no more, for one may leave before its call comes."""
        waiters = list(self.waiters)
        self.waiters.clear()
        for waiter in waiters:
            waiter.job = None
        return waiters

    def answered(self, line: str) -> None:
        """Raises ValueError or OSError, and does nothing else, where the line is not what a helper says."""
        raise NotImplementedError(f"{type(self).__name__} does not say what an answer means")

    def given_up(self, reason: str, status: int) -> None:
        """No answer: 503 none of us was free, or nobody waits for one, 504 none came in time, 502 two helpers failed over it."""
        raise NotImplementedError(f"{type(self).__name__} does not say what no answer means")

    def cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class _Helper:
    """A process and the socket to it; free while `job` is None."""

    __slots__ = ("pool", "sock", "process", "job", "idle_since", "_buffer")

    def __init__(self, pool: HelperPool, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.pool = pool
        self.sock = sock
        self.process = process
        self.job: Job | None = None
        self.idle_since = 0.0
        self._buffer = b""

    def ask(self, job: Job) -> None:
        self.job = job
        job.helper = self
        try:
            self.sock.send(job.line + b"\n")
        except OSError as error:
            # Not at once: losing a helper asks the next one, which may be dead too.
            self.pool.reactor.call_soon(self.failed, error)

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
            self.pool._helper_lost(self, "it ended")
        elif self.job is None or len(self._buffer) > ANSWER_BYTES:
            self.pool._helper_lost(self, "it said more than it was asked")
        elif self._buffer.endswith(b"\n"):
            self._answered(self.job)

    def _answered(self, job: Job) -> None:
        line, self._buffer = self._buffer, b""
        try:
            job.answered(line[:-1].decode("ascii"))
        except (ValueError, OSError):
            self.pool._helper_lost(self, "its answer makes no sense")
            return
        self.pool._helper_done(self)

    def failed(self, error: Exception) -> None:
        self.pool._helper_lost(self, str(error))


class HelperPool:
    """At most `limit` helpers for at most `queue` waiting jobs.

    `command` is the program, whose standard input is the socket it answers on; `environment` comes before the process's own.
    `name` is what is said of one job ("look-up"), `timeout` the seconds that one may take in its helper.
    """

    def __init__(
        self,
        reactor: Reactor,
        command: Sequence[str],
        name: str,
        limit: int,
        queue: int,
        timeout: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.reactor = reactor
        self.name = name
        self.helpers: set[_Helper] = set()
        self._command = list(command)
        self._environment = dict(environment or {})
        self._limit = limit
        self._queue_limit = queue
        self._timeout = timeout
        self._idle: list[_Helper] = []  # the one that worked last is at the end, and is used first
        self._queue: deque[Job] = deque()
        self._dying: list[subprocess.Popen[bytes]] = []
        self._idle_timer: Timer | None = None
        self._reap_timer: Timer | None = None

    @property
    def full(self) -> bool:
        """As many jobs wait as may."""
        return len(self._queue) >= self._queue_limit

    # Jobs.

    def ask(self, job: Job) -> None:
        """Have the job done; only where the pool is not `full`."""
        self._set_timer(job, QUEUE_SECONDS, self._waited_too_long)
        self._queue.append(job)
        self._dispatch()

    def leave(self, job: Job, waiter: Any) -> None:
        """A job that nobody waits for gives up its place in the queue; one already asked goes on, for what it tells."""
        job.waiters.pop(waiter, None)
        if not job.waiters and job.helper is None:
            self._give_up(job, "nobody waits for it any more", 503)

    def _set_timer(self, job: Job, delay: float, callback: Callable[[Job], object]) -> None:
        job.cancel_timer()
        job.timer = self.reactor.call_later(delay, callback, job)

    def _dispatch(self) -> None:
        while self._queue:
            helper = self._free_helper()
            if helper is None:
                break
            job = self._queue.popleft()
            self._set_timer(job, self._timeout, self._took_too_long)
            helper.ask(job)
        if not self.helpers:
            while self._queue:
                self._give_up(self._queue[0], f"no {self.name} helper could be started", 503)

    def _give_up(self, job: Job, reason: str, status: int) -> None:
        job.cancel_timer()
        if job in self._queue:
            self._queue.remove(job)
        job.given_up(reason, status)

    def _waited_too_long(self, job: Job) -> None:
        self._give_up(job, f"no {self.name} helper was free within {QUEUE_SECONDS:g} s", 503)

    def _took_too_long(self, job: Job) -> None:
        helper = job.helper
        assert helper is not None
        job.helper = None
        self._end_helper(helper)
        self._give_up(job, f"no answer to the {self.name} within {self._timeout:g} s", 504)
        self._dispatch()

    # Helpers.

    def _free_helper(self) -> _Helper | None:
        if self._idle:
            return self._idle.pop()
        if len(self.helpers) >= self._limit:
            return None
        try:
            return self._start_helper()
        except OSError as error:
            log.warning("a %s helper cannot be started: %s", self.name, error)
            return None

    def _start_helper(self) -> _Helper:
        import subprocess  # here, because most runs start without a helper and should start fast

        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                self._command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # nor does it keep open a pipe that somebody reads our messages from
                env={**self._environment, **os.environ},
                process_group=0,  # an interrupt from the terminal is for us: helpers go on while we finish
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        helper = _Helper(self, ours, process)
        self.helpers.add(helper)
        self.reactor.register(ours, READ, helper)
        return helper

    def _helper_done(self, helper: _Helper) -> None:
        job, helper.job = helper.job, None
        assert job is not None
        job.helper = None
        job.cancel_timer()
        helper.idle_since = self.reactor.now
        self._idle.append(helper)
        self._dispatch()
        if self._idle and self._idle_timer is None:
            self._idle_timer = self.reactor.call_later(IDLE_SECONDS, self._end_idle)

    def _helper_lost(self, helper: _Helper, why: str) -> None:
        if helper not in self.helpers:
            return
        log.warning("%s helper %d is replaced: %s", self.name, helper.process.pid, why)
        job = helper.job
        self._end_helper(helper)
        if job is not None:
            job.helper = None
            self._ask_again(job)
        self._dispatch()

    def _ask_again(self, job: Job) -> None:
        """Once: a job that kills two helpers may kill them all."""
        if job.retried:
            self._give_up(job, f"the {self.name} helper failed twice", 502)
        elif not job.waiters:
            self._give_up(job, "nobody waits for it any more", 503)
        else:
            job.retried = True
            self._set_timer(job, QUEUE_SECONDS, self._waited_too_long)
            self._queue.appendleft(job)

    def _end_helper(self, helper: _Helper) -> None:
        helper.job = None
        self.helpers.discard(helper)
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

    def close(self, reason: str) -> None:
        """End all helpers, and give up what they were at and what waits (503). Idempotent."""
        jobs = [helper.job for helper in self.helpers if helper.job is not None]
        for helper in list(self.helpers):
            self._end_helper(helper)
        for job in [*jobs, *self._queue]:
            job.helper = None
            self._give_up(job, reason, 503)
        for process in self._dying:
            process.wait()  # killed: a matter of microseconds
        self._dying.clear()
        for timer in (self._idle_timer, self._reap_timer):
            if timer is not None:
                timer.cancel()
        self._idle_timer = self._reap_timer = None
