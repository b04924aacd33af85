"""The loop: what runs when, what an exception costs, and that time is only ever read from the clocks it was given."""

from __future__ import annotations

import gc
import logging
import os
import random
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.loop import COMPACT_AT, READ, WRITE, Reactor, monotonic


class World:
    """Clocks set by hand, and a selector that says what is asked of it: waiting moves the clock, nothing else does."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.wall = 1_000_000.0
        self.said: list[Any] = []
        self.selector = _Waiting(self)
        self.reactor = Reactor(self.selector, lambda: self.seconds, lambda: self.wall)

    def say(self, word: Any) -> None:
        self.said.append(word)

    def heard(self) -> list[Any]:
        """What was said since this was asked last."""
        said, self.said = self.said, []
        return said


class _Waiting(selectors.SelectSelector):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.timeouts: list[float | None] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.timeouts.append(timeout)
        events = super().select(0)
        if not events and timeout:
            self.world.seconds += timeout
        return events


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.reactor.close()


class Owner:
    """Says what its socket is ready for, or does as it is told."""

    def __init__(self, world: World, name: str, action: Callable[[], object] | None = None) -> None:
        self.world = world
        self.name = name
        self.action = action

    def ready(self, mask: int) -> None:
        self.world.say((self.name, mask))
        if self.action is not None:
            self.action()

    def failed(self, error: Exception) -> None:
        self.world.say((self.name, "failed", str(error)))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def fail(word: str = "no") -> None:
    raise ValueError(word)


# Calls.


def test_calls_run_in_their_order_with_their_arguments(world: World) -> None:
    for word in "abc":
        world.reactor.call_soon(world.say, word)
    assert world.heard() == []
    world.reactor.turn()
    assert world.heard() == ["a", "b", "c"]


def test_what_a_call_queues_waits_for_the_next_turn(world: World) -> None:
    def first() -> None:
        world.say("first")
        world.reactor.call_soon(world.say, "queued by first")

    world.reactor.call_soon(first)
    world.reactor.call_soon(world.say, "second")
    world.reactor.turn()
    assert world.heard() == ["first", "second"]
    world.reactor.turn()
    assert world.heard() == ["queued by first"]


def test_a_call_that_queues_itself_starves_nobody(world: World, pair: tuple[socket.socket, socket.socket]) -> None:
    def again() -> None:
        world.reactor.call_soon(again)

    again()
    world.reactor.call_later(0.0, world.say, "timer")
    world.reactor.register(pair[0], READ, Owner(world, "socket"))
    pair[1].send(b"x")
    world.reactor.turn()
    assert world.heard() == [("socket", READ), "timer"]


def test_a_turn_is_events_then_calls_then_timers(world: World, pair: tuple[socket.socket, socket.socket]) -> None:
    def queue() -> None:
        world.reactor.call_soon(world.say, "queued by an event")

    world.reactor.call_later(0.0, world.say, "timer")
    world.reactor.call_soon(world.say, "call")
    world.reactor.register(pair[0], READ, Owner(world, "event", queue))
    pair[1].send(b"x")
    world.reactor.turn()
    assert world.heard() == [("event", READ), "call", "queued by an event", "timer"]


def test_what_is_held_back_is_sent_between_the_events_and_the_calls(world: World, pair: tuple[socket.socket, socket.socket]) -> None:
    reactor = world.reactor

    class Sender:
        def __init__(self, name: str) -> None:
            self.name = name

        def send_held(self) -> None:
            world.say((self.name, reactor.dispatching))
            if self.name == "bad":
                fail()

        def failed(self, error: Exception) -> None:
            world.say((self.name, "failed", str(error)))

    def hold() -> None:
        assert reactor.dispatching
        reactor.held += [Sender("first"), Sender("bad"), Sender("last")]

    reactor.call_soon(world.say, "call")
    reactor.register(pair[0], READ, Owner(world, "event", hold))
    pair[1].send(b"x")
    reactor.turn()
    said = [("event", READ), ("first", False), ("bad", False), ("bad", "failed", "no"), ("last", False), "call"]
    assert world.heard() == said
    reactor.unregister(pair[0])
    reactor.turn(0.0)
    assert world.heard() == [], "each once"


def test_a_queued_call_does_not_let_the_loop_wait(world: World) -> None:
    world.reactor.call_later(5.0, world.say, "timer")
    world.reactor.call_soon(world.say, "call")
    world.reactor.turn()
    assert world.selector.timeouts == [0.0]
    assert world.heard() == ["call"]


# Timers.


def test_timers_run_in_the_order_of_their_times_and_then_of_their_making(world: World) -> None:
    for delay, word in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (2.0, "d")):
        world.reactor.call_later(delay, world.say, word)
    world.reactor.turn()
    assert (world.seconds, world.heard()) == (101.0, ["a", "b"])
    world.reactor.turn()
    assert (world.seconds, world.heard()) == (102.0, ["c", "d"])
    assert world.reactor.pending_timers == 0


def test_a_turn_waits_for_the_next_timer_and_no_longer_than_it_is_told(world: World) -> None:
    world.reactor.turn(0.5)
    world.reactor.call_later(2.0, world.say, "timer")
    world.reactor.turn(0.5)
    world.reactor.turn(5.0)
    assert world.selector.timeouts == [0.5, 0.5, 1.5]
    assert world.heard() == ["timer"]


def test_without_anything_to_wait_for_a_turn_waits_for_its_sockets(world: World) -> None:
    world.reactor.turn()
    assert world.selector.timeouts == [None]


def test_a_timer_that_is_overdue_runs_without_waiting(world: World) -> None:
    world.reactor.call_later(1.0, world.say, "timer")
    world.seconds += 10.0
    world.reactor.turn()
    assert world.selector.timeouts == [0.0]
    assert world.heard() == ["timer"]


def test_a_cancelled_timer_does_not_run(world: World) -> None:
    timer = world.reactor.call_later(1.0, world.say, "cancelled")
    world.reactor.call_later(1.0, world.say, "kept")
    timer.cancel()
    timer.cancel()
    assert world.reactor.pending_timers == 1
    world.reactor.turn()
    assert world.heard() == ["kept"]
    timer.cancel()
    assert world.reactor.pending_timers == 0


def test_a_timer_may_be_cancelled_by_one_that_is_due_with_it(world: World) -> None:
    timers: list[Any] = []
    world.reactor.call_later(1.0, lambda: timers[0].cancel())
    timers.append(world.reactor.call_later(1.0, world.say, "cancelled"))
    world.reactor.turn()
    assert world.heard() == []
    assert world.reactor.pending_timers == 0


def test_a_timer_may_cancel_itself_and_be_cancelled_after_it_ran(world: World) -> None:
    timers: list[Any] = []
    timers.append(world.reactor.call_later(1.0, lambda: timers[0].cancel()))
    world.reactor.turn()
    timers[0].cancel()
    assert world.reactor.pending_timers == 0


def test_a_timer_set_by_a_timer_waits_for_the_next_turn(world: World) -> None:
    world.reactor.call_later(1.0, lambda: world.reactor.call_later(0.0, world.say, "second"))
    world.reactor.turn()
    assert world.heard() == []
    world.reactor.turn()
    assert world.heard() == ["second"]


def test_cancelled_timers_do_not_pile_up(world: World) -> None:
    kept = [world.reactor.call_later(1.0 + number, world.say, number) for number in range(10)]
    for _ in range(20 * COMPACT_AT):
        world.reactor.call_later(1000.0, world.say, "never").cancel()
    assert world.reactor.pending_timers == 10
    assert len(world.reactor._timers) <= COMPACT_AT + len(kept) + 1
    for number in range(10):
        world.reactor.turn()
        assert world.heard() == [number]


def test_the_count_of_timers_holds_when_one_that_is_due_cancels_a_crowd(world: World) -> None:
    crowd = [world.reactor.call_later(1.0 + number % 3, world.say, "never") for number in range(4 * COMPACT_AT)]

    def cancel_all() -> None:
        for timer in crowd:
            timer.cancel()

    world.reactor.call_later(0.5, world.say, "first")
    last = world.reactor.call_later(9.0, world.say, "last")
    world.reactor.call_later(0.9, cancel_all)
    world.seconds += 1.0
    world.reactor.turn()
    assert world.heard() == ["first"]
    assert world.reactor.pending_timers == 1
    last.cancel()
    assert world.reactor.pending_timers == 0


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_any_timers_cancelled_at_any_time(seed: int, count: int) -> None:
    chance, world = random.Random(seed), World()
    expected: list[tuple[float, int]] = []
    timers = []
    for number in range(count):
        delay = chance.choice((0.0, 1.0, 1.5, 2.0, 7.0))
        timers.append(world.reactor.call_later(delay, world.say, (100.0 + delay, number)))
        expected.append((100.0 + delay, number))
    for number in chance.sample(range(count), chance.randrange(count + 1)):
        timers[number].cancel()
        expected.remove((timers[number].when, number))
    assert world.reactor.pending_timers == len(expected)
    while world.reactor.pending_timers:
        world.reactor.turn()
    assert world.heard() == sorted(expected)
    world.reactor.close()


def test_a_timer_that_ran_or_was_cancelled_holds_nothing(world: World) -> None:
    gc.collect()

    class Holder:
        def __init__(self, delay: float) -> None:
            self.timer = world.reactor.call_later(delay, self.tick, self)

        def tick(self, holder: Holder) -> None:
            """Nothing to do."""

    ran, cancelled = Holder(1.0), Holder(2.0)
    world.reactor.turn()
    cancelled.timer.cancel()
    world.reactor.turn(5.0)
    gc.disable()
    try:
        del ran, cancelled
        assert gc.collect() == 0
    finally:
        gc.enable()


# Clocks.


def test_both_clocks_are_read_once_a_turn(world: World) -> None:
    seen = []
    for _ in range(3):
        world.reactor.call_soon(lambda: seen.append((world.reactor.now, world.reactor.wall)))
        world.reactor.call_soon(lambda: setattr(world, "seconds", world.seconds + 1.0))
        world.reactor.call_soon(lambda: setattr(world, "wall", world.wall - 50.0))
    world.reactor.turn()
    assert seen == [(100.0, 1_000_000.0)] * 3
    world.reactor.turn(0.0)
    assert (world.reactor.now, world.reactor.wall) == (103.0, 999_850.0)


def test_the_loops_own_clock_goes_on_while_the_machine_sleeps() -> None:
    reactor = Reactor()
    assert reactor.clock is monotonic and (monotonic.func, monotonic.args) == (time.clock_gettime, (time.CLOCK_BOOTTIME,))
    reactor.close()


def test_the_wall_clock_moves_no_timer(world: World) -> None:
    world.reactor.call_later(1.0, world.say, "timer")
    world.wall -= 1_000_000.0
    world.reactor.turn(0.5)
    world.wall += 2_000_000.0
    world.reactor.turn(0.0)
    assert world.heard() == []
    world.reactor.turn()
    assert world.heard() == ["timer"]


def test_a_delay_counts_from_now_and_not_from_the_clock(world: World) -> None:
    world.seconds += 5.0
    assert world.reactor.call_later(1.0, world.say, "timer").when == 101.0


# Sockets.


def test_an_owner_is_told_what_its_socket_is_ready_for(world: World, pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    world.reactor.register(left, READ, Owner(world, "left"))
    world.reactor.turn(0)
    assert world.heard() == []
    right.send(b"x")
    world.reactor.turn(0)
    assert world.heard() == [("left", READ)]
    world.reactor.modify(left, READ | WRITE, Owner(world, "another"))
    world.reactor.turn(0)
    assert world.heard() == [("another", READ | WRITE)]
    assert world.reactor.watched == 1
    world.reactor.unregister(left)
    world.reactor.turn(0)
    assert world.heard() == []
    assert world.reactor.watched == 0


# Exceptions.


def test_an_exception_in_an_event_costs_its_owner_alone(
    world: World, pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    left, right = pair
    world.reactor.register(left, WRITE, Owner(world, "left", fail))
    world.reactor.register(right, WRITE, Owner(world, "right"))
    world.reactor.call_soon(world.say, "call")
    world.reactor.turn(0)
    heard = world.heard()
    assert heard.index(("left", "failed", "no")) == heard.index(("left", WRITE)) + 1
    assert ("right", WRITE) in heard and heard[-1] == "call"
    (record,) = caplog.records
    assert record.exc_info is not None and "ValueError" in caplog.text and "Owner" in record.message


@pytest.mark.parametrize("when", ["soon", "later"])
def test_an_exception_in_a_call_costs_the_object_it_was_a_method_of(
    world: World, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Owner):
        def run(self) -> None:
            fail("in a method")

    schedule = world.reactor.call_soon if when == "soon" else lambda *call: world.reactor.call_later(0.0, *call)
    schedule(Failing(world, "owner").run)
    schedule(fail)
    schedule(world.say, "next")
    world.reactor.turn(0)
    assert world.heard() == [("owner", "failed", "in a method"), "next"]
    assert len(caplog.records) == 2


def test_an_exception_while_its_owner_is_told_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Hopeless(Owner):
        def run(self) -> None:
            fail("first")

        def failed(self, error: Exception) -> None:
            fail("second")

    world.reactor.call_soon(Hopeless(world, "owner").run)
    world.reactor.call_soon(world.say, "next")
    world.reactor.turn(0)
    assert world.heard() == ["next"]
    assert "first" in caplog.text and "second" in caplog.text


def test_what_is_no_error_passes_through(world: World) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    world.reactor.call_soon(interrupt)
    world.reactor.call_soon(world.say, "later")
    with pytest.raises(KeyboardInterrupt):
        world.reactor.turn(0)
    world.reactor.turn(0)
    assert world.heard() == ["later"]


def test_an_exception_leaves_no_cycle_behind(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # a record that is kept would hold the traceback
    gc.collect()
    gc.disable()
    try:
        world.reactor.call_soon(fail)
        world.reactor.call_later(0.0, fail)
        world.reactor.turn(0)
        assert gc.collect() == 0
    finally:
        gc.enable()


# Running.


def test_run_turns_until_it_is_stopped_and_ends_the_turn(world: World) -> None:
    world.reactor.call_later(1.0, world.say, "one")
    world.reactor.call_later(2.0, world.reactor.stop)
    world.reactor.call_later(2.0, world.say, "in the same turn")
    world.reactor.call_later(3.0, world.say, "three")
    world.reactor.run()
    assert world.heard() == ["one", "in the same turn"]
    world.reactor.call_later(5.0, world.reactor.stop)
    world.reactor.run()
    assert world.heard() == ["three"]


def test_stop_from_a_call_ends_without_another_wait(world: World) -> None:
    world.reactor.call_soon(world.reactor.stop)
    world.reactor.run()
    assert world.selector.timeouts == [0.0]


# Signals.


def test_a_signal_is_a_call_from_the_loop(world: World) -> None:
    world.reactor.on_signal(signal.SIGUSR1, lambda: world.say("usr1"))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert world.heard() == []
    world.reactor.turn(0)
    assert world.heard() == ["usr1"]
    assert world.reactor.watched == 0  # the loop's own socket is not counted


def test_a_signal_wakes_a_loop_that_waits() -> None:
    reactor = Reactor()
    said = []

    def usr1() -> None:
        said.append("usr1")
        reactor.stop()

    reactor.on_signal(signal.SIGUSR1, usr1)
    reactor.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
    reactor.run()
    reactor.close()
    assert said == ["usr1"]


def test_a_signals_callback_may_be_replaced(world: World) -> None:
    world.reactor.on_signal(signal.SIGUSR1, lambda: world.say("first"))
    world.reactor.on_signal(signal.SIGUSR1, lambda: world.say("second"))
    os.kill(os.getpid(), signal.SIGUSR1)
    world.reactor.turn(0)
    assert world.heard() == ["second"]


def test_an_exception_in_a_signals_callback_costs_no_other_signal(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.reactor.on_signal(signal.SIGUSR1, fail)
    world.reactor.on_signal(signal.SIGUSR2, lambda: world.say("usr2"))
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    world.reactor.turn(0)
    assert world.heard() == ["usr2"]
    assert len(caplog.records) == 1
    os.kill(os.getpid(), signal.SIGUSR2)
    world.reactor.turn(0)
    assert world.heard() == ["usr2"]


def test_close_gives_the_signals_back() -> None:
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGINT)
    world = World()
    world.reactor.on_signal(signal.SIGUSR1, lambda: world.say("usr1"))
    world.reactor.on_signal(signal.SIGUSR1, lambda: world.say("again"))
    world.reactor.on_signal(signal.SIGINT, lambda: world.say("int"))
    world.reactor.close()
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGINT)) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_close_closes_what_nobody_owns_any_more() -> None:
    reactor = Reactor()
    ours, theirs = socket.socketpair()
    reactor.register(ours, READ, None)
    reactor.close()
    assert ours.fileno() == -1
    theirs.close()


def test_a_closed_loop_holds_nothing() -> None:
    world = World()
    world.reactor.call_soon(world.say, "never")
    world.reactor.call_later(1.0, world.say, "never").cancel()
    world.reactor.close()
    assert world.reactor.pending_timers == 0
    assert world.heard() == []
