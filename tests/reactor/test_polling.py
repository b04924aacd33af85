"""The selector does what the standard library's does: each dialogue is held with both."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Iterator

import pytest

from reactor.polling import EpollSelector, default_selector

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


@pytest.fixture(params=[EpollSelector, selectors.EpollSelector], ids=["ours", "the standard library's"])
def selector(request: pytest.FixtureRequest) -> Iterator[selectors.BaseSelector]:
    make: Callable[[], selectors.BaseSelector] = request.param
    made = make()
    yield made
    made.close()


def seen(selector: selectors.BaseSelector, timeout: float | None = 0) -> list[tuple[object, int]]:
    return [(key.data, mask) for key, mask in selector.select(timeout)]


def test_the_loop_polls_with_it() -> None:
    made = default_selector()
    assert type(made) is EpollSelector
    made.close()


def test_readable_and_writable_are_told_apart(selector: selectors.BaseSelector, pair: Pair) -> None:
    a, b = pair
    selector.register(a, READ, "a")
    assert seen(selector) == []
    b.send(b"x")
    assert seen(selector) == [("a", READ)]
    selector.modify(a, WRITE, "a, to write")
    assert seen(selector) == [("a, to write", WRITE)]
    selector.modify(a, READ | WRITE, "both")
    assert seen(selector) == [("both", READ | WRITE)]
    a.recv(1)
    assert seen(selector) == [("both", WRITE)]


@pytest.mark.parametrize("asked", [READ, WRITE, READ | WRITE])
def test_a_hang_up_is_told_as_what_was_asked_for(selector: selectors.BaseSelector, pair: Pair, asked: int) -> None:
    a, b = pair
    selector.register(a, asked, "a")
    b.close()
    assert seen(selector) == [("a", asked)]


def test_the_data_alone_may_change(selector: selectors.BaseSelector, pair: Pair) -> None:
    a, b = pair
    selector.register(a, READ, "first")
    selector.modify(a, READ, "second")
    b.send(b"x")
    assert seen(selector) == [("second", READ)]
    assert selector.get_key(a).data == "second"


def test_what_is_unregistered_is_heard_no_more(selector: selectors.BaseSelector, pair: Pair) -> None:
    a, b = pair
    selector.register(a, READ, "a")
    b.send(b"x")
    assert selector.unregister(a).data == "a"
    assert seen(selector) == [] and len(selector.get_map()) == 0
    selector.register(a, READ, "again")
    assert seen(selector) == [("again", READ)]


def test_the_same_twice_is_an_error(selector: selectors.BaseSelector, pair: Pair) -> None:
    selector.register(pair[0], READ)
    with pytest.raises(KeyError):
        selector.register(pair[0], READ)
    with pytest.raises(KeyError):
        selector.unregister(pair[1])
    with pytest.raises(KeyError):
        selector.modify(pair[1], READ)


def test_a_socket_closed_first_can_still_be_unregistered(selector: selectors.BaseSelector, pair: Pair) -> None:
    a, b = pair
    selector.register(a, READ, "a")
    selector.register(b, READ, "b")
    a.close()
    assert selector.unregister(a).data == "a"
    assert seen(selector) == [("b", READ)]


def test_a_time_out_comes_back_with_nothing(selector: selectors.BaseSelector, pair: Pair) -> None:
    selector.register(pair[0], READ)
    assert seen(selector, 0.001) == [] and seen(selector, -1.0) == []


def test_nothing_watched_is_no_error(selector: selectors.BaseSelector) -> None:
    assert seen(selector) == []


def test_many_are_told_at_once(selector: selectors.BaseSelector) -> None:
    pairs = [socket.socketpair() for _ in range(100)]
    for number, (a, b) in enumerate(pairs):
        selector.register(a, READ, number)
        b.send(b"x")
    assert sorted(seen(selector)) == [(number, READ) for number in range(100)]  # type: ignore[type-var]
    for a, b in pairs:
        a.close()
        b.close()
