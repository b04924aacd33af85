"""Answers that are held until the turn's end, when all of a turn's answers leave: what comes between, and what is behind.

Here an answer is given from another connection's event, as a proxy gives it, so that a test has the rest of the turn in
its hand: `answering` says what happens then, before anything is sent.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from reactor.exchange import Exchange, FileSource, Head
from reactor.loop import READ
from reactor.server_connection import JOIN_BODY, REQUESTS_PER_TURN
from tests.loopback import LIMITS, RESET, Handling, House, Peer, Served, housed

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST_5 = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
ANSWER = b"x" * 100


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


def leave(peer: Peer) -> None:
    """With a reset, and without turning the loop."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.sock.close()


class Scene:
    """A client whose request is answered when another's comes in."""

    def __init__(self, house: House, limits=LIMITS, small_buffers: bool = False) -> None:
        self.house = house
        self.meanwhile: Callable[[], object] = lambda: None
        self.handling = Handling(self.answer)
        self.served: Served = house.serve(self.handling, limits)
        self.peer: Peer = self.served.connect(small_buffers)
        self.connection = self.served.connection
        self.other: Peer = self.served.connect()
        self.mine: list[Exchange] = []  # this client's, in order
        self.later: list[Exchange] = []  # of those, what is not answered yet
        self.at_once = False
        self.body = ANSWER

    def answer(self, exchange: Exchange) -> None:
        if exchange.connection is self.connection:
            self.mine.append(exchange)
            if self.at_once:
                exchange.respond(Head(200), self.body)
            else:
                self.later.append(exchange)
            return
        exchange.respond(Head(200), b"other")
        self.later.pop(0).respond(Head(200), self.body)
        assert self.connection.state == "sending" and self.connection._held is not None
        self.meanwhile()

    def ask(self, data: bytes = GET) -> None:
        self.peer.send(data)

    def answering(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """The first that waits is answered, and this happens before the turn's end."""
        self.meanwhile = meanwhile
        self.other.send(GET)
        assert self.other.answer().body == b"other"

    def look(self) -> None:
        """The loop finds what the client has done in the same turn."""
        self.connection.stream.ready(READ)

    def ends(self) -> list[str | None]:
        """How this client's exchanges ended, in order."""
        self.house.turns()
        assert len(set(map(id, self.handling.ended))) == len(self.handling.ended)
        ended = [exchange for exchange in self.handling.ended if exchange in self.mine]
        assert ended == self.mine[: len(ended)]
        return [exchange.failure for exchange in ended]


@pytest.fixture
def scene(house: House) -> Scene:
    return Scene(house)


# Between the answer and the turn's end.


def test_it_leaves_at_the_turns_end_and_its_end_is_told_then(scene: Scene) -> None:
    scene.ask()
    exchange = scene.later[0]
    scene.answering(lambda: (scene.peer.read(), scene.peer.received) == (False, b"") and not exchange.ended)
    assert scene.peer.answer().body == ANSWER
    assert scene.ends() == [None] and exchange.bytes_out == len(ANSWER)
    assert scene.connection.state == "idle"


def test_the_clients_end_of_input_meanwhile(scene: Scene) -> None:
    scene.ask()
    scene.answering(lambda: (scene.peer.sock.shutdown(socket.SHUT_WR), scene.look()))
    assert scene.peer.answer().body == ANSWER
    scene.peer.expect_close()
    assert scene.ends() == [None]
    assert scene.connection not in scene.served.server.connections


def test_the_clients_end_of_input_before(scene: Scene) -> None:
    scene.ask()
    scene.peer.shutdown()
    scene.answering()
    assert scene.peer.answer().body == ANSWER
    scene.peer.expect_close()
    assert scene.ends() == [None]


def test_a_reset_meanwhile(scene: Scene) -> None:
    scene.ask()
    scene.answering(lambda: (leave(scene.peer), scene.look()))
    (failure,) = scene.ends()
    assert failure is not None and "reset" in failure
    assert scene.connection not in scene.served.server.connections


def test_a_reset_that_only_the_send_shows(scene: Scene) -> None:
    scene.ask()
    scene.answering(lambda: leave(scene.peer))
    (failure,) = scene.ends()
    assert failure is not None
    assert scene.connection not in scene.served.server.connections


@pytest.mark.parametrize("behind", [GET, GET * 3, POST_5 + b"hello"])
def test_requests_meanwhile_wait_for_it(scene: Scene, behind: bytes) -> None:
    scene.ask()
    scene.at_once = True
    scene.answering(lambda: (scene.peer.sock.send(behind), scene.look()))
    for _ in range(1 + behind.count(b"Host")):
        assert scene.peer.answer().body == ANSWER
    scene.peer.expect_silence()
    assert scene.ends() == [None] * (1 + behind.count(b"Host"))
    assert scene.connection.state == "idle"


def test_half_a_request_meanwhile(scene: Scene) -> None:
    scene.ask()
    scene.at_once = True
    scene.answering(lambda: (scene.peer.sock.send(GET[:7]), scene.look()))
    assert scene.peer.answer().body == ANSWER
    assert scene.connection.state == "head"
    scene.house.pass_time(LIMITS.head - 1)
    scene.ask(GET[7:])
    assert scene.peer.answer().body == ANSWER
    assert scene.ends() == [None, None]


def test_half_a_request_meanwhile_must_come_in_time(scene: Scene) -> None:
    scene.ask()
    scene.answering(lambda: (scene.peer.sock.send(GET[:7]), scene.look()))
    assert scene.peer.answer().body == ANSWER
    scene.house.pass_time(LIMITS.head)
    assert scene.peer.answer().status == 408
    scene.peer.expect_close()


def test_nonsense_meanwhile(scene: Scene) -> None:
    scene.ask()
    scene.answering(lambda: (scene.peer.sock.send(b"nonsense\r\n\r\n"), scene.look()))
    assert scene.peer.answer().body == ANSWER
    assert scene.peer.answer().status == 400
    scene.peer.expect_close()
    assert scene.ends() == [None]


def test_the_servers_end_meanwhile(scene: Scene) -> None:
    emptied: list[bool] = []
    scene.ask()
    scene.answering(lambda: scene.served.server.shutdown(lambda: emptied.append(True)))
    assert scene.peer.answer().body == ANSWER
    scene.peer.expect_close()
    assert scene.ends() == [None]
    scene.peer.close()
    scene.other.close()
    scene.house.turns()
    assert emptied == [True]


def test_the_servers_end_with_a_request_behind_it(scene: Scene) -> None:
    """What was asked before is answered, and told that it is the last."""
    scene.ask()
    scene.at_once = True
    scene.answering(lambda: (scene.peer.sock.send(GET), scene.look(), scene.served.server.shutdown(lambda: None)))
    assert b"connection" not in scene.peer.answer().fields
    assert scene.peer.answer().fields[b"connection"] == b"close"
    scene.peer.expect_close()
    assert scene.ends() == [None, None]


@pytest.mark.parametrize("who", ["server", "connection", "exchange", "stream"])
def test_an_abort_meanwhile(scene: Scene, who: str) -> None:
    scene.ask()
    exchange = scene.later[0]
    aborts: dict[str, Callable[[], object]] = {
        "server": scene.served.server.abort,
        "connection": lambda: scene.connection.abort("as it was told"),
        "exchange": lambda: exchange.abort("as it was told"),
        "stream": scene.connection.stream.abort,
    }
    scene.meanwhile = aborts[who]
    scene.other.send(GET)
    scene.peer.expect_reset()
    assert bytes(scene.peer.received) == b""
    (failure,) = scene.ends()
    assert failure is not None


def test_an_exception_meanwhile_is_the_others(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("no")

    scene.ask()
    scene.answering(fail)
    assert scene.peer.answer().body == ANSWER
    assert scene.ends() == [None]
    scene.peer.expect_silence()
    scene.other.expect_close()


def test_a_second_answer_meanwhile_is_refused(scene: Scene) -> None:
    scene.ask()
    exchange = scene.later[0]

    def again() -> None:
        with pytest.raises(RuntimeError, match="answered already"):
            exchange.respond(Head(500), b"")

    scene.answering(again)
    assert scene.peer.answer().status == 200
    scene.peer.expect_silence()


# What its end does.


@pytest.mark.parametrize("what", ["raise", "shutdown", "abort all", "abort it"])
def test_what_an_end_does(scene: Scene, what: str, caplog: pytest.LogCaptureFixture) -> None:
    def act(exchange: Exchange) -> None:
        if what == "raise":
            raise ValueError("no")
        if what == "shutdown":
            scene.served.server.shutdown(lambda: None)
        elif what == "abort all":
            scene.served.server.abort()
        else:
            scene.connection.abort("as it was told")

    scene.ask()
    scene.later[0].on_end(act)
    scene.meanwhile = lambda: None
    scene.other.send(GET)
    assert scene.ends() == [None]
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    if what == "raise":
        assert len(errors) == 1 and errors[0].startswith("exception at the end of")
        assert scene.peer.answer().body == ANSWER
        scene.at_once = True
        scene.ask()
        assert scene.peer.answer().body == ANSWER
    elif what == "shutdown":
        assert errors == []
        assert scene.peer.answer().body == ANSWER
        scene.peer.expect_close()
    else:
        assert errors == []
        scene.peer.until(lambda: scene.peer.over, "the reset")
        assert scene.peer.was_reset


def test_an_end_that_answers_another(scene: Scene) -> None:
    """No event is being handed out any more: that one is sent at once."""
    waiting: list[Exchange] = []
    third = scene.served.connect()
    scene.handling.answer, answer = waiting.append, scene.handling.answer
    third.send(GET)
    scene.handling.answer = answer
    scene.ask()
    scene.later[0].on_end(lambda exchange: waiting[0].respond(Head(200), b"third"))
    scene.answering()
    assert scene.peer.answer().body == ANSWER
    assert third.answer().body == b"third"
    assert [exchange.failure for exchange in scene.handling.ended] == [None] * 3


# Deadlines and pauses.


def test_the_idle_time_begins_with_it(scene: Scene) -> None:
    scene.house.pass_time(LIMITS.idle - 1)
    scene.ask()
    scene.answering()
    assert scene.peer.answer().body == ANSWER
    scene.house.pass_time(LIMITS.idle - 1)
    scene.peer.expect_silence()
    scene.house.pass_time(1)
    scene.peer.expect_close()


def test_a_client_that_was_not_read_for_a_while_is_read_again(house: House) -> None:
    """Its second request was taken up while more of it than is read ahead had come, and nothing is left in the parser."""
    scene = Scene(house, replace(LIMITS, read_ahead=10))
    scene.ask()
    scene.ask()
    assert not scene.connection.stream.reading
    scene.answering()
    assert scene.peer.answer().body == ANSWER
    assert not scene.connection.stream.reading and not scene.connection.parser.buffered
    scene.answering()
    assert scene.peer.answer().body == ANSWER
    assert scene.connection.stream.reading
    scene.at_once = True
    scene.ask()
    assert scene.peer.answer().body == ANSWER


def test_an_early_answer_to_a_client_that_was_not_read_for_a_while(house: House) -> None:
    """The body behind it, of which nothing has come yet, is read away."""
    scene = Scene(house, replace(LIMITS, read_ahead=10))
    scene.ask()
    scene.ask(POST_5)
    assert not scene.connection.stream.reading
    scene.at_once = True
    scene.answering()
    for _ in range(2):
        assert scene.peer.answer().body == ANSWER
    assert (scene.connection.state, scene.connection.stream.reading) == ("draining", True)
    scene.ask(b"hello" + GET)
    assert scene.peer.answer().body == ANSWER
    assert scene.ends() == [None] * 3


# A full kernel.


def fill(scene: Scene) -> int:
    """Answer until the kernel takes no more; how many answers that took."""
    scene.body = b"x" * JOIN_BODY
    for number in range(1, 100):
        scene.ask()
        scene.answering()
        if scene.connection.stream.backlog:
            return number
    raise AssertionError("the kernel takes everything")


def test_an_end_is_told_when_the_last_byte_is_in_the_kernel(house: House) -> None:
    scene = Scene(house, small_buffers=True)
    number = fill(scene)
    assert scene.ends() == [None] * (number - 1)
    for _ in range(number):
        assert scene.peer.answer().body == scene.body
    assert scene.ends() == [None] * number
    assert scene.connection.state == "idle"


def test_an_answer_behind_one_that_waits_ends_behind_it(house: House) -> None:
    scene = Scene(house, small_buffers=True)
    number = fill(scene)
    scene.body = b"x"
    scene.ask()
    scene.answering()
    assert scene.ends() == [None] * (number - 1)
    for _ in range(number + 1):
        scene.peer.answer()
    assert scene.ends() == [None] * (number + 1)


def test_a_reset_before_the_last_byte_is_in_the_kernel(house: House) -> None:
    scene = Scene(house, small_buffers=True)
    number = fill(scene)
    scene.ask()
    scene.answering()
    scene.peer.reset()
    house.until(lambda: scene.connection not in scene.served.server.connections)
    failures = scene.ends()
    assert failures[: number - 1] == [None] * (number - 1)
    assert len(failures) == number + 1 and None not in failures[number - 1 :]


def test_a_client_that_does_not_take_it_is_reset(house: House) -> None:
    scene = Scene(house, small_buffers=True)
    number = fill(scene)
    scene.house.pass_time(LIMITS.stalled)
    failures = scene.ends()
    assert failures == [None] * (number - 1) + ["the client stopped reading"]


# Pipelines.


@pytest.mark.parametrize("number", [REQUESTS_PER_TURN - 1, REQUESTS_PER_TURN, REQUESTS_PER_TURN + 1, 3 * REQUESTS_PER_TURN])
@pytest.mark.parametrize("last", ["nothing", "end of input", "half a request", "nonsense", "a body", "held"])
def test_a_pipeline_of_about_a_turns_requests(house: House, number: int, last: str) -> None:
    taken: list[int] = []

    def answer(exchange: Exchange) -> None:
        taken.append(turn)
        if exchange.request.path != b"/held":
            exchange.respond(Head(200), b"%d" % len(taken))

    handling = Handling(answer)
    served = house.serve(handling, replace(LIMITS, read_ahead=200))
    peer = served.connect()
    behind = {
        "half a request": GET[:7], "nonsense": b"nonsense\r\n\r\n", "a body": POST_5 + b"hello",
        "held": GET.replace(b"/ ", b"/held ", 1),
    }  # fmt: skip
    peer.sock.send(GET * number + behind.get(last, b""))
    if last == "end of input":
        peer.sock.shutdown(socket.SHUT_WR)
    for turn in range(20):
        house.reactor.turn(0.0)
    assert all(taken.count(one) <= 2 * REQUESTS_PER_TURN for one in taken)
    for expected in range(1, number + 1):
        assert peer.answer().body == b"%d" % expected
    if last == "a body":
        assert peer.answer().body == b"%d" % (number + 1)
    elif last == "nonsense":
        assert peer.answer().status == 400
    elif last == "held":
        handling.last.respond(Head(200), b"at last")
        assert peer.answer().body == b"at last"
    if last in ("end of input", "nonsense"):
        peer.expect_close()
    else:
        peer.expect_silence()
        assert served.connection.state == ("head" if last == "half a request" else "idle")
        assert served.connection.stream.reading
    house.turns()
    assert [exchange.failure for exchange in handling.ended] == [None] * len(handling.exchanges)


@pytest.mark.parametrize("what", ["shutdown", "abort", "reset"])
def test_what_happens_between_two_turns_of_a_pipeline(house: House, what: str) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.respond(Head(200), b"ok")
        if len(handling.exchanges) == REQUESTS_PER_TURN:
            house.reactor.call_soon(happen)

    def happen() -> None:
        if what == "shutdown":
            served.server.shutdown(lambda: None)
        elif what == "abort":
            served.server.abort()
        else:
            leave(peer)

    handling = Handling(answer)
    served = house.serve(handling)
    peer = served.connect()
    peer.sock.send(GET * (3 * REQUESTS_PER_TURN))
    house.turns()
    if what == "shutdown":
        for _ in range(REQUESTS_PER_TURN):
            assert b"connection" not in peer.answer().fields
        assert peer.answer().fields[b"connection"] == b"close"
        peer.expect_close()
        assert [exchange.failure for exchange in handling.ended] == [None] * (REQUESTS_PER_TURN + 1)
    else:
        assert len(handling.ended) == len(handling.exchanges)
        assert handling.ended == handling.exchanges
        assert not served.server.connections


def test_a_pipeline_without_end_is_never_idle(house: House) -> None:
    """Its next request is there whenever a turn ends, however late the loop comes to it; and a newcomer finds no room."""
    handling = Handling(lambda exchange: exchange.respond(Head(200), b"ok"))
    served = house.serve(handling, replace(LIMITS, connections=1))
    peer = served.connect()
    house.pass_time(LIMITS.idle - 1)
    peer.sock.send(GET * (5 * REQUESTS_PER_TURN))
    house.reactor.turn(0.0)
    house.clock.now += LIMITS.idle - 1
    newcomer = house.connect(served.port)
    house.reactor.turn(0.0)
    assert REQUESTS_PER_TURN < len(handling.exchanges) < 5 * REQUESTS_PER_TURN
    for _ in range(5 * REQUESTS_PER_TURN):
        assert peer.answer().body == b"ok"
    assert newcomer.answer().status == 503
    house.pass_time(LIMITS.idle - 1)
    peer.expect_silence()


# Files.


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
def test_a_file_to_a_client_that_is_gone(house: House, size: int) -> None:
    fd = os.memfd_create("file")
    os.truncate(fd, size)
    handling = Handling()
    served = house.serve(handling)
    peer = served.connect()
    peer.send(GET)
    leave(peer)
    handling.last.respond(Head(200), FileSource(fd, 0, size))
    house.turns()
    assert len(handling.ended) == 1 and handling.last.failure is not None
    assert handling.last.bytes_out == 0
    with pytest.raises(OSError):
        os.fstat(fd)
