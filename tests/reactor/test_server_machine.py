"""One connection of the server, driven by everything a client may do to it, in any order, against a model of the answers.

The client writes messages and sends them in pieces of any size, ends its input, leaves, or lets time pass; the handler
answers at once, later, in pieces, early, by raising, or not at all. After each step the loop is turned until nothing
happens, and exactly what the model says must have come back.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from reactor.exchange import Exchange, Head
from reactor.server import Server, ServerLimits
from tests.loopback import House, Script, echo

SECONDS = 100.0  # of every deadline, so that passing them reaches whichever holds
LIMITS = ServerLimits(idle=SECONDS, head=SECONDS, body=SECONDS, stalled=SECONDS, half_closed=SECONDS, drain_seconds=SECONDS)
KINDS = ("now", "soon", "held", "stream", "echo", "early", "raise")
FRAMINGS = ("length", "chunked", "garbage")
NONSENSE = (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n")

RARELY = st.sampled_from([False] * 7 + [True])  # for what ends nearly everything


@dataclass
class Message:
    """What the client writes, where in its bytes the parts end, and how it will be answered."""

    kind: str  # the handler's manner, or "refused"
    body: bytes
    framing: str
    expects: bool
    close: bool  # the client asks for the end
    start: int = 0
    head_end: int = 0
    end: int = 0

    @property
    def whole_at_once(self) -> bool:
        """Once all of it is there, its body comes with its head."""
        return self.framing in ("none", "length")


@dataclass
class Expected:
    """One response, as far as it matters."""

    status: int
    body: bytes = b""
    close: bool = True
    handled: bool = True  # by the handler, and not refused before


class Model:
    """What a server owes the client, by the bytes that were sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.sent = 0
        self.eof = False
        self.current = 0  # the message that is being read or answered
        self.phase = "head"  # or body, held, stream, drain
        self.answers: list[Expected] = []
        self.over = ""  # closed, or cut

    def step(self) -> None:
        """Go as far as what was sent allows."""
        while not self.over and self._advance():
            pass

    def _advance(self) -> bool:
        if self.current == len(self.messages):
            if self.eof:
                self.over = "closed"
            return False
        message = self.messages[self.current]
        if self.phase == "head":
            return self._read_head(message)
        if self.phase == "body":
            return self._read_body(message)
        if self.phase == "drain":
            return self._drain(message)
        return False  # the handler's turn

    def _read_head(self, message: Message) -> bool:
        if self.sent < message.head_end:
            if self.eof:
                if self.sent > message.start:
                    self._end_with(400, handled=False)
                self.over = "closed"
            return False
        if message.kind == "refused":
            return self._end_with(400, handled=False)
        if message.kind == "raise":
            return self._end_with(500)
        if message.kind in ("held", "stream"):
            self.phase = message.kind
        elif message.kind == "echo":
            self.phase = "body"
            if message.expects and self.sent == message.head_end:
                self.answers.append(Expected(100, close=False, handled=False))
        else:
            self.answer(message, message.kind.encode())
        return True

    def _read_body(self, message: Message) -> bool:
        if self.sent >= message.end:
            if message.framing == "garbage":
                return self._end_with(400)
            self.answer(message, message.body, pulled=True)
            return True
        return self._end_with(400) if self.eof else False

    def _drain(self, message: Message) -> bool:
        if self.sent >= message.end and message.framing != "garbage":
            self._next()
            return True
        if self.eof or self.sent >= message.end:
            self.over = "closed"
        return False

    def answer(self, message: Message, body: bytes, pulled: bool = False) -> None:
        """The handler answers the current message whole."""
        whole = pulled or (message.whole_at_once and self.sent >= message.end)
        close = message.close or (message.expects and not whole)
        self.answers.append(Expected(200, body, close))
        if close:
            self.over = "closed"
        elif whole:
            self._next()
        else:
            self.phase = "drain"

    def late(self) -> None:
        """All deadlines have passed."""
        waiting = self.current < len(self.messages)
        message = self.messages[self.current] if waiting else None
        if self.phase == "held":
            if self.eof:
                self.over = "cut"
        elif self.phase == "body":
            self._end_with(408)
        elif self.phase == "head" and message is not None and self.sent > message.start:
            self._end_with(408, handled=False)
        elif self.phase != "stream":
            self.over = "closed"

    def _end_with(self, status: int, handled: bool = True) -> bool:
        self.answers.append(Expected(status, handled=handled))
        self.over = "closed"
        return False

    def _next(self) -> None:
        self.current += 1
        self.phase = "head"


class Connection(RuleBasedStateMachine):
    """The client, the handler and the clock."""

    @initialize()
    def connect(self) -> None:
        self.house = House()
        self.exchanges: list[Exchange] = []
        self.ended: list[Exchange] = []
        self.sources: list[Script] = []
        self.server = Server(self.house.reactor, self, LIMITS)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.server.accept(ours, "client")
        self.peer = self.house.peer(theirs)
        self.model = Model()
        self.written = b""
        self.seen = 0  # answers that came back and were as expected
        self.streamed = b"st"
        self.gone = False

    # The handler.

    def handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        exchange.on_end(self.ended.append)
        kind = exchange.request.path[1:].decode()
        if kind == "raise":
            raise KeyError("as it was told")
        if kind == "echo":
            echo(exchange)
        elif kind == "soon":
            self.house.reactor.call_soon(exchange.respond, Head(200), b"soon")
        elif kind == "stream":
            source = Script(self.house.reactor, b"st", None)
            self.sources.append(source)
            exchange.respond(Head(200), source)
        elif kind in ("now", "early"):
            exchange.respond(Head(200), kind.encode())

    # The client.

    @property
    def open(self) -> bool:
        return not self.gone and not self.model.over

    @precondition(lambda self: self.open and not self.model.eof)
    @rule(kind=st.sampled_from(KINDS), last=st.integers(0, 9), old=st.integers(0, 9))
    def write(self, kind: str, last: int, old: int) -> None:
        """Another request without a body; it is sent by and by."""
        old = old == 0 and kind != "stream"
        lines = [b"GET /%b HTTP/1.%d" % (kind.encode(), not old), b"Host: a", *[b"Connection: close"] * (last == 0)]
        self._append(Message(kind, b"", "none", False, bool(old) or last == 0), lines, b"")

    @precondition(lambda self: self.open and not self.model.eof)
    @rule(
        kind=st.sampled_from(("echo", "early")), framing=st.sampled_from(FRAMINGS), body=st.binary(min_size=1, max_size=40),
        expects=st.booleans(),
    )  # fmt: skip
    def write_body(self, kind: str, framing: str, body: bytes, expects: bool) -> None:
        lines = [b"POST /%b HTTP/1.1" % kind.encode(), b"Host: a", *[b"Expect: 100-continue"] * expects]
        wire = body
        if framing == "length":
            lines.append(b"Content-Length: %d" % len(body))
        else:
            lines.append(b"Transfer-Encoding: chunked")
            wire = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:7], body[7:]) if piece)
            wire += b"0\r\n\r\n" if framing == "chunked" else b"z\r\n"
        self._append(Message(kind, body, framing, expects, False), lines, wire)

    @precondition(lambda self: self.open and not self.model.eof)
    @rule(head=st.sampled_from(NONSENSE), really=RARELY)
    def write_nonsense(self, head: bytes, really: bool) -> None:
        if really:
            self._append(Message("refused", b"", "none", False, True), [head[:-4]], b"")

    def _append(self, message: Message, lines: list[bytes], wire: bytes) -> None:
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        message.start = len(self.written)
        message.head_end = message.start + len(head)
        message.end = message.head_end + len(wire)
        self.written += head + wire
        self.model.messages.append(message)

    @precondition(lambda self: self.open and not self.model.eof and self.model.sent < len(self.written))
    @rule()
    def send_all(self) -> None:
        self.send(1 << 20)

    @precondition(lambda self: self.open and not self.model.eof and self.model.sent < len(self.written))
    @rule(size=st.integers(1, 80))
    def send(self, size: int) -> None:
        """The next bytes; what is wrong comes in one piece, because when it shows is the parser's own affair."""
        start = self.model.sent
        stop = start + size
        for message in self.model.messages:
            if message.kind == "refused" and message.start < stop < message.head_end:
                stop = message.head_end
            if message.framing == "garbage" and message.end - 3 < stop < message.end:
                stop = message.end
            if message.expects and message.head_end < stop < message.head_end + 4:
                stop = message.head_end + 4  # with the first chunk's line, but none of its bytes, a 100 may come or not
        self.model.sent = stop = min(stop, len(self.written))
        self.peer.send(self.written[start:stop])
        self.model.step()

    @precondition(lambda self: self.open and not self.model.eof)
    @rule(really=RARELY)
    def end_input(self, really: bool) -> None:
        if really:
            self.model.eof = True
            self.peer.shutdown()
            self.model.step()

    @precondition(lambda self: self.open)
    @rule(really=RARELY)
    def leave(self, really: bool) -> None:
        if really:
            self.gone = True
            self.peer.close()

    @precondition(lambda self: self.open)
    @rule(really=RARELY)
    def let_time_pass(self, really: bool) -> None:
        if really:
            self.model.late()
            self.house.pass_time(SECONDS)

    @precondition(lambda self: not self.open)
    @rule()
    def wait(self) -> None:
        """All is said."""

    # The handler, later.

    @precondition(lambda self: self.open and self.model.phase == "held")
    @rule()
    def answer_what_was_held(self) -> None:
        self.exchanges[-1].respond(Head(200), b"held")
        self.model.answer(self.model.messages[self.model.current], b"held")
        self.model.step()

    @precondition(lambda self: self.open and self.model.phase == "stream")
    @rule(more=st.booleans())
    def go_on_streaming(self, more: bool) -> None:
        if more:
            self.sources[-1].go(b"re", None)
            self.streamed += b"re"
            return
        self.sources[-1].go(b"am")
        self.model.answer(self.model.messages[self.model.current], self.streamed + b"am")
        self.streamed = b"st"
        self.model.step()

    @precondition(lambda self: self.open and self.model.phase in ("held", "stream"))
    @rule(really=RARELY)
    def abort(self, really: bool) -> None:
        if really:
            self.exchanges[-1].abort("as it was told")
            self.model.over = "cut"

    # What must be so.

    @invariant()
    def all_that_is_owed_has_come_and_nothing_else(self) -> None:
        if not hasattr(self, "model") or self.gone:
            return
        self.house.turns(8)
        for expected in self.model.answers[self.seen :]:
            answer = self.peer.answer()
            assert answer.status == expected.status
            assert answer.fields.get(b"connection") == (b"close" if expected.close else None)
            assert answer.status != 200 or answer.body == expected.body
            self.seen += 1
        if self.model.over == "cut":
            self.peer.until(lambda: self.peer.over, "the cut")
        elif self.model.over:
            self.peer.expect_close()
        elif self.model.phase != "stream":
            self.peer.expect_silence()

    @invariant()
    def exchanges_run_one_at_a_time(self) -> None:
        if hasattr(self, "model"):
            assert len(self.exchanges) - len(self.ended) <= 1
            assert len(set(map(id, self.ended))) == len(self.ended)

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        self.peer.close()
        self.house.pass_time(SECONDS)
        for exchange in self.exchanges:
            exchange.abort("the end")
        self.house.turns()
        assert not self.server.connections
        assert self.ended == self.exchanges, "each has ended, once, and in order"
        assert all(source.closes == 1 for source in self.sources)
        whole = sum(answer.handled for answer in self.model.answers)
        assert [exchange.failure is None for exchange in self.ended] == [True] * whole + [False] * (len(self.ended) - whole)
        self.house.close()


TestConnection = Connection.TestCase
TestConnection.settings = settings(
    max_examples=200, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
