"""From a name to a connected socket: dead, silent and forbidden addresses, one deadline, nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import selectors
import socket
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.connector import (
    ADDRESS_LIMIT,
    ATTEMPT_DELAY,
    CONNECT_SECONDS,
    NOT_PERMITTED,
    Attempt,
    Connector,
    address_text,
    interleaved,
)
from reactor.errors import UpstreamError
from reactor.loop import Reactor
from reactor.resolver import Callback, Found, Lookup, Resolver

V4, V6 = socket.AF_INET, socket.AF_INET6


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class HardOfHearing(selectors.DefaultSelector):
    """Hears nothing from the addresses in `silent`: so a connection to one of them hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.silent: set[str] = set()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return [(key, mask) for key, mask in super().select(timeout) if getattr(key.data, "address", "") not in self.silent]


class Names:
    """A resolver that knows what it was told, and says nothing about `None`."""

    def __init__(self, reactor: Reactor, known: dict[str, Found | UpstreamError | None]) -> None:
        self.reactor = reactor
        self.known = known
        self.cancelled = 0
        self.forgotten: list[str] = []

    def forget(self, host: str) -> None:
        self.forgotten.append(host)

    def resolve(self, host: str, port: int, callback: Callback) -> Any:
        found = self.known[host]
        if found is not None:
            self.reactor.call_soon(callback, found)
        return self

    def cancel(self) -> None:
        self.cancelled += 1


class House:
    def __init__(self) -> None:
        self.clock = Clock()
        self.selector = HardOfHearing()
        self.reactor = Reactor(self.selector, clock=self.clock)
        self.answers: list[tuple[Any, str]] = []
        self.listeners: list[socket.socket] = []
        self.known: dict[str, Found | UpstreamError | None] = {}
        self.names = Names(self.reactor, self.known)
        self.asked: list[str] = []
        self.denied: set[str] = set()

    def listen(self, address: str = "127.0.0.1") -> tuple[socket.socket, Any]:
        """A listener, and its address as the connector is told it."""
        listener = socket.create_server((address, 0))
        listener.settimeout(10)
        self.listeners.append(listener)
        return listener, (V4, listener.getsockname())

    def dead(self, address: str = "127.0.0.1") -> Any:
        """An address where nobody listens; held, so that nobody begins to."""
        holder = socket.socket()
        holder.bind((address, 0))
        self.listeners.append(holder)
        return V4, holder.getsockname()

    def permit(self, address: str) -> bool:
        self.asked.append(address)
        return address not in self.denied

    def connect(self, *found: Any, host: str = "name", port: int = 80, timeout: float | None = None) -> Attempt:
        self.known.setdefault(host, list(found))
        connector = Connector(self.reactor, self.names, permit=self.permit)  # type: ignore[arg-type]
        return connector.connect(host, port, self.answered, timeout)

    def answered(self, result: Any, address: str) -> None:
        self.answers.append((result, address))

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(2000):
            if condition():
                return
            self.reactor.turn(0.005)
        raise AssertionError("it did not come to pass")

    def turns(self, number: int = 20) -> None:
        for _ in range(number):
            self.reactor.turn(0)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.turns()

    def answer(self) -> tuple[Any, str]:
        """The one answer, given when nothing of the attempt is left."""
        self.until(lambda: self.answers)
        assert self.reactor.watched == 0
        assert self.reactor.pending_timers == 0
        self.turns()
        assert len(self.answers) == 1
        return self.answers[0]

    def refusal(self) -> UpstreamError:
        error, address = self.answer()
        assert isinstance(error, UpstreamError), error
        assert error.address == address
        return error

    def close(self) -> None:
        assert self.reactor.watched == 0
        assert self.reactor.pending_timers == 0
        for result, _ in self.answers:
            if isinstance(result, socket.socket):
                result.close()
        for listener in self.listeners:
            listener.close()
        self.reactor.close()


@pytest.fixture
def house(caplog: pytest.LogCaptureFixture) -> Iterator[House]:
    """It must be left empty; nothing was dropped unclosed, and nothing raised but what the test meant to ("no")."""
    before = len(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings(record=True) as dropped:
        warnings.simplefilter("always", ResourceWarning)
        made = House()
        yield made
        made.close()
    assert [str(warning.message) for warning in dropped] == []
    assert len(os.listdir("/proc/self/fd")) == before
    assert [record for record in caplog.get_records("call") if record.exc_info and str(record.exc_info[1]) != "no"] == []


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def text(found: Any) -> str:
    return address_text(*found[1][:2])


# One address.


def test_the_socket_given_back_is_connected_non_blocking_and_without_delay(house: House) -> None:
    listener, found = house.listen()
    house.connect(found)
    sock, address = house.answer()
    assert address == text(found)
    assert sock.getblocking() is False
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    sock.send(b"hello")
    with listener.accept()[0] as peer:
        assert peer.recv(100) == b"hello"


def test_a_numeric_address_goes_through_the_real_resolver(house: House) -> None:
    _, found = house.listen()
    connector = Connector(house.reactor, Resolver(house.reactor))
    connector.connect("127.0.0.1", found[1][1], house.answered)
    assert house.answer()[1] == text(found)


def test_a_refused_connection_is_502_with_the_systems_words(house: House) -> None:
    found = house.dead()
    house.connect(found)
    error = house.refusal()
    assert (error.status, error.phase, error.address) == (502, "connect", "name:80")
    assert error.reason == f"{text(found)} ({os.strerror(errno.ECONNREFUSED)})"
    assert house.names.forgotten == ["name"]  # it may have moved


def test_an_address_that_was_asked_for_is_not_named_twice(house: House) -> None:
    found = house.dead()
    house.connect(found, host=found[1][0], port=found[1][1])
    assert str(house.refusal()) == f"{text(found)}: {os.strerror(errno.ECONNREFUSED)}"


def test_being_connected_to_oneself_is_being_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    class FromTheSamePort(socket.socket):
        def connect_ex(self, address: Any) -> int:
            self.bind(address)
            return super().connect_ex(address)

    found = house.dead()
    house.listeners.pop().close()
    monkeypatch.setattr(socket, "socket", FromTheSamePort)
    house.connect(found)
    assert os.strerror(errno.ECONNREFUSED) in house.refusal().reason


def test_an_address_of_a_family_that_is_not_there_fails_and_the_next_is_tried(house: House) -> None:
    _, found = house.listen()
    house.connect((99, ("anywhere", 80)), found)
    assert house.answer()[1] == text(found)


# Several addresses.


def test_after_a_dead_address_the_next_is_tried_at_once(house: House) -> None:
    _, found = house.listen()
    house.connect(house.dead(), house.dead("127.0.0.2"), found)
    assert house.answer()[1] == text(found)
    assert house.clock.now == 1000.0


def test_beside_a_silent_address_the_next_is_tried_after_the_delay_and_not_before(house: House) -> None:
    silent_listener, silent = house.listen("127.0.0.1")
    _, found = house.listen("127.0.0.2")
    house.selector.silent.add(text(silent))
    house.connect(silent, found)
    house.turns()
    assert house.reactor.watched == 1
    house.pass_time(ATTEMPT_DELAY - 0.01)
    assert house.reactor.watched == 1 and not house.answers
    house.pass_time(0.01)
    assert house.answer()[1] == text(found)
    with silent_listener.accept()[0] as loser:
        assert loser.recv(1) == b""  # the one that lost is closed


def test_when_one_fails_beside_a_silent_one_the_third_is_tried_at_once(house: House) -> None:
    _, silent = house.listen("127.0.0.1")
    _, found = house.listen("127.0.0.2")
    house.selector.silent.add(text(silent))
    house.connect(silent, house.dead("127.0.0.3"), found)
    house.turns()
    house.pass_time(ATTEMPT_DELAY)
    assert house.answer()[1] == text(found)


def test_the_first_may_still_win_after_the_second_was_started(house: House) -> None:
    _, first = house.listen("127.0.0.1")
    _, second = house.listen("127.0.0.2")
    house.selector.silent |= {text(first), text(second)}
    house.connect(first, second)
    house.turns()
    house.pass_time(ATTEMPT_DELAY)
    assert house.reactor.watched == 2
    house.selector.silent.remove(text(first))
    assert house.answer()[1] == text(first)


def test_two_that_are_ready_in_the_same_turn_give_one_answer(house: House) -> None:
    _, first = house.listen("127.0.0.1")
    _, second = house.listen("127.0.0.2")
    house.selector.silent |= {text(first), text(second)}
    house.connect(first, second)
    house.turns()
    house.pass_time(ATTEMPT_DELAY)
    house.selector.silent.clear()
    assert house.answer()[1] in (text(first), text(second))


def test_when_all_fail_each_is_named(house: House) -> None:
    first, second = house.dead("127.0.0.1"), house.dead("127.0.0.2")
    house.connect(first, second)
    error = house.refusal()
    assert error.status == 502
    assert text(first) in error.reason and text(second) in error.reason


@pytest.mark.parametrize(
    ("failures", "status"),
    [
        ([errno.ECONNREFUSED, errno.EHOSTUNREACH], 502),
        ([errno.ETIMEDOUT], 504),
        ([errno.ETIMEDOUT, errno.ECONNREFUSED], 502),
        ([errno.ECONNREFUSED, errno.ENOBUFS, errno.ETIMEDOUT], 503),
        (["denied", errno.ECONNREFUSED], 502),
        (["denied", errno.ETIMEDOUT], 504),
        (["denied", errno.EMFILE], 503),
        (["denied", "denied"], 403),
    ],
)
def test_the_status_says_what_stood_in_the_way(
    house: House, monkeypatch: pytest.MonkeyPatch, failures: list[Any], status: int
) -> None:
    class Failing(socket.socket):
        def connect_ex(self, address: Any) -> int:
            return int(failures[address[1] - 1])

    found = [(V4, (f"127.0.0.{n}", n)) for n, _ in enumerate(failures, 1)]
    house.denied |= {f"127.0.0.{n}" for n, failure in enumerate(failures, 1) if failure == "denied"}
    monkeypatch.setattr(socket, "socket", Failing)
    house.connect(*found)
    assert house.refusal().status == status


def test_after_the_last_address_failed_a_silent_one_may_still_answer(house: House) -> None:
    _, silent = house.listen("127.0.0.1")
    house.selector.silent.add(text(silent))
    house.connect(silent, house.dead("127.0.0.2"))
    house.turns()
    house.pass_time(ATTEMPT_DELAY)
    assert house.reactor.watched == 1 and not house.answers
    house.selector.silent.clear()
    assert house.answer()[1] == text(silent)


def test_no_more_addresses_are_tried_than_allowed(house: House) -> None:
    found = house.dead()
    house.connect(*[found] * (ADDRESS_LIMIT + 5))
    assert house.refusal().reason.count(text(found)) == ADDRESS_LIMIT


def test_a_name_without_addresses_is_502(house: House) -> None:
    house.connect()
    assert (house.refusal().status, house.refusal().reason) == (502, "the name has no addresses")


ADDRESSES = st.lists(st.tuples(st.sampled_from([V4, V6]), st.tuples(st.text(max_size=2), st.integers())))


@given(ADDRESSES)
def test_families_take_turns_and_each_keeps_its_order(found: Any) -> None:
    result = interleaved(found)
    for family in (V4, V6):
        assert [a for a in result if a[0] == family] == [a for a in found if a[0] == family]
    if found:
        assert result[0] == found[0]
        fewer = min(sum(a[0] == family for a in found) for family in (V4, V6))
        turns = [a[0] for a in result[: 2 * fewer]]
        assert all(one != other for one, other in itertools.pairwise(turns))


# The deadline.


def test_silence_is_504_and_says_how_long_and_where(house: House) -> None:
    _, silent = house.listen()
    dead = house.dead("127.0.0.2")
    house.selector.silent.add(text(silent))
    house.connect(dead, silent)
    house.turns()
    house.pass_time(CONNECT_SECONDS)
    error = house.refusal()
    assert (error.status, error.phase, error.address) == (504, "connect", "name:80")
    words = os.strerror(errno.ECONNREFUSED)
    assert error.reason == f"no connection within 10 s (connect timeout), tried {text(dead)} ({words}), {text(silent)} (no answer)"


def test_the_caller_may_name_a_shorter_deadline(house: House) -> None:
    _, silent = house.listen()
    house.selector.silent.add(text(silent))
    house.connect(silent, timeout=1.5)
    house.turns()
    house.pass_time(1.5)
    assert "within 1.5 s" in house.refusal().reason


def test_the_deadline_counts_the_lookup_too(house: House) -> None:
    house.known["name"] = None
    house.connect()
    house.pass_time(CONNECT_SECONDS)
    error = house.refusal()
    assert (error.status, error.phase) == (504, "resolve")
    assert house.names.cancelled == 1


def test_a_failed_lookup_is_passed_on(house: House) -> None:
    house.known["name"] = told = UpstreamError("no such name", "resolve", "name", 502)
    house.connect()
    house.until(lambda: house.answers)
    assert house.answers == [(told, "name:80")]


# Permission and limits.


def test_permission_is_asked_for_each_address_and_what_is_denied_is_never_connected_to(house: House) -> None:
    forbidden_listener, forbidden = house.listen("127.0.0.1")
    _, found = house.listen("127.0.0.2")
    house.denied.add("127.0.0.1")
    house.connect(forbidden, found)
    assert house.answer()[1] == text(found)
    assert house.asked == ["127.0.0.1", "127.0.0.2"]
    forbidden_listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        forbidden_listener.accept()


def test_where_no_address_is_permitted_it_is_403(house: House) -> None:
    _, one = house.listen("127.0.0.1")
    _, two = house.listen("127.0.0.2")
    house.denied |= {"127.0.0.1", "127.0.0.2"}
    house.connect(one, two)
    error = house.refusal()
    assert (error.status, error.phase) == (403, "connect")
    assert error.reason == f"{text(one)} ({NOT_PERMITTED}), {text(two)} ({NOT_PERMITTED})"


def test_ipv6_clothes_do_not_get_past_a_rule_for_an_ipv4_address(house: House) -> None:
    _, found = house.listen()
    house.denied.add("127.0.0.1")
    connector = Connector(house.reactor, Resolver(house.reactor), permit=house.permit)
    connector.connect("::ffff:127.0.0.1", found[1][1], house.answered)
    assert house.refusal().status == 403
    assert house.asked == ["127.0.0.1"]


def test_where_permit_raises_the_caller_is_told(house: House) -> None:
    def permit(address: str) -> bool:
        raise RuntimeError("no")

    _, found = house.listen()
    connector = Connector(house.reactor, Resolver(house.reactor), permit=permit)
    connector.connect("127.0.0.1", found[1][1], house.answered)
    error = house.refusal()
    assert (error.status, error.reason) == (502, "could not connect: no")


def test_without_descriptors_it_is_503_and_later_it_works_again(house: House) -> None:
    _, found = house.listen()
    house.connect(found)
    with no_descriptors_left():
        house.until(lambda: house.answers)
    error = house.refusal()
    assert (error.status, error.phase) == (503, "connect")
    assert os.strerror(errno.EMFILE) in error.reason
    house.answers.clear()
    house.connect(found)
    assert house.answer()[1] == text(found)


# Cancelling.


@pytest.mark.parametrize("phase", ["looking up", "answered", "first try", "second try"])
def test_a_cancelled_attempt_calls_nobody_and_leaves_nothing(house: House, phase: str) -> None:
    _, first = house.listen("127.0.0.1")
    _, second = house.listen("127.0.0.2")
    house.selector.silent |= {text(first), text(second)}
    if phase == "looking up":
        house.known["name"] = None
    attempt = house.connect(first, second)
    if phase in ("first try", "second try"):
        house.turns()
    if phase == "second try":
        house.pass_time(ATTEMPT_DELAY)
    assert house.reactor.watched == {"first try": 1, "second try": 2}.get(phase, 0)
    attempt.cancel()
    attempt.cancel()
    assert house.reactor.watched == 0
    assert house.reactor.pending_timers == 0
    house.selector.silent.clear()
    house.pass_time(2 * CONNECT_SECONDS)
    assert house.answers == []
    assert attempt.state == "over"


def test_cancelling_after_the_answer_does_nothing(house: House) -> None:
    listener, found = house.listen()
    attempt = house.connect(found)
    sock, _ = house.answer()
    attempt.cancel()
    sock.send(b"still here")
    with listener.accept()[0] as peer:
        assert peer.recv(100) == b"still here"


@pytest.mark.parametrize("outcome", ["connected", "refused", "silent"])
def test_a_callback_that_raises_costs_its_owner_alone(house: House, outcome: str) -> None:
    class Caller:
        error: Exception | None = None

        def connected(self, result: Any, address: str) -> None:
            if isinstance(result, socket.socket):
                result.close()
            raise RuntimeError("no")

        def failed(self, error: Exception) -> None:
            self.error = error

    _, found = house.listen()
    if outcome == "refused":
        found = house.dead()
    if outcome == "silent":
        house.selector.silent.add(text(found))
    house.known["name"] = [found]
    caller = Caller()
    Connector(house.reactor, house.names).connect("name", 80, caller.connected)  # type: ignore[arg-type]
    house.turns()
    house.pass_time(CONNECT_SECONDS)
    house.until(lambda: caller.error)
    assert isinstance(caller.error, RuntimeError)


def test_an_ipv6_address_is_written_with_brackets(house: House) -> None:
    house.denied.add("::1")
    Connector(house.reactor, Resolver(house.reactor), permit=house.permit).connect("::1", 81, house.answered)
    assert house.refusal().address == "[::1]:81"


def test_a_lookup_that_is_cancelled_in_the_turn_of_its_answer_stays_silent(house: House) -> None:
    answers: list[object] = []
    lookup: Lookup = Resolver(house.reactor).resolve("127.0.0.1", 80, answers.append)
    lookup.cancel()
    house.turns()
    assert answers == []
