"""What must hold for the parsers whatever bytes they are fed: each property is a function that asserts it.

The tests run each over a few hundred generated inputs, `scripts/fuzz` for as long as it is told; what fails there is
kept in `tests/regressions` and replayed by every run of the tests.
"""

from __future__ import annotations

import re
from dataclasses import replace

from reactor.errors import ProtocolError
from reactor.http.framing import CHUNKED, UNTIL_CLOSE
from reactor.http.grammar import LIMITS, Limits
from reactor.http.incremental import IncrementalParser
from reactor.http.parser import NEED_DATA, Data, EndOfMessage, Request, RequestParser, Response, ResponseParser
from reactor.http.writer import chunk, last_chunk, request_line, status_line
from tests.reactor.http.transcript import Transcript, every_byte, new_parser, transcript
from tests.strategies import FAMILIAR, REQUEST_BLOCKS, RESPONSE_BLOCKS, split_at

FEW_BYTES = replace(LIMITS, body=9)
SMALL = Limits(start_line=24, field_line=20, head=60, fields=3, chunk_line=8, trailers=16, body=9, method=6)


def pieces_make_no_difference(method: bytes | None, data: bytes, places: list[int]) -> None:
    """However the bytes are cut, the events, and the error if there is one, are the same."""
    for limits in (LIMITS, SMALL):
        whole = transcript(method, [data], eof=True, limits=limits)
        assert transcript(method, split_at(data, places), eof=True, limits=limits) == whole
        if len(data) <= 600:
            assert transcript(method, every_byte(data), eof=True, limits=limits) == whole


def memory_makes_no_difference(method: bytes | None, data: bytes, places: list[int]) -> None:
    """What was seen before changes nothing: nor does reading all that was fed at once, or after each piece."""
    own = Limits()  # equal to the usual ones, but a parser with limits of its own remembers nothing
    expected = transcript(method, [data], limits=own)
    for _ in range(3):
        for head in FAMILIAR:
            transcript(None, [head])
        assert transcript(method, [data]) == expected
    heard = Transcript(new_parser(method))
    for piece in split_at(data, places):
        heard.parser.feed(piece)
    heard.drain()
    assert heard.finish() == expected
    assert transcript(method, [data], limits=FEW_BYTES) == transcript(method, [data], limits=Limits(body=9))


def short_ways_lead_to_the_same(method: bytes | None, data: bytes, places: list[int]) -> None:
    """What reads a usual head in one go gives what the states give, event for event, and leaves the same behind."""
    teach()
    for limits in (LIMITS, FEW_BYTES):
        for pieces in ([data], split_at(data, places)):
            for as_connections_do in (False, True):
                go_together(new_parser(method, limits), new_parser(method, limits, LONG_WAYS), pieces, as_connections_do)


def nothing_but_events(method: bytes | None, data: bytes, places: list[int]) -> None:
    """Events or ProtocolError, never another exception; and no more is held than a limit allows."""
    heard = Transcript(new_parser(method))
    for piece in split_at(data, places):
        heard.parser.feed(piece)
        heard.drain()
        held = len(heard.parser._data)
        assert held <= LIMITS.head + 4 or heard.parser.next_event() is NEED_DATA
        assert 0 <= heard.parser._pos < held or (heard.parser._pos, heard.parser._scan, held) == (0, 0, 0)
    heard.parser.feed_eof()
    heard.drain()
    if heard.refused is not None:
        assert 400 <= heard.refused.status <= 505
        assert heard.refused.reason.isascii()
        assert heard.parser.buffered == 0
        heard.parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        count = len(heard.lines)
        heard.drain()
        assert len(heard.lines) == count, "a refused connection is never read further"


def what_is_accepted_stays_itself(method: bytes | None, data: bytes, places: list[int]) -> None:
    """Each accepted message, written out and parsed again, is that one message: none can turn into two."""
    parser = new_parser(method)
    for piece in split_at(data, places):
        parser.feed(piece)
    while (message := next_message(parser)) is not None:
        head, body, end = message
        wire = forwarded(head, body, end)
        again = new_parser(method)
        again.feed(wire)
        if head.length == UNTIL_CLOSE:
            again.feed_eof()
        found = next_message(again)
        assert found is not None, f"{wire!r} is no whole message"
        assert again.buffered == 0, f"{wire!r} is more than one message"
        assert described(*found) == described(head, body, end)


def framing_holds(method: bytes | None, data: bytes, places: list[int]) -> None:
    """A body is as long as its framing says: by number, or as a decoder written in another way reads it."""
    for parser in (new_parser(method), new_parser(method)):
        parser.feed(data)
        while (message := next_message(parser)) is not None:
            head, body, _ = message
            if head.length >= 0:
                assert len(body) == head.length
            elif head.length == CHUNKED:
                assert body in chunked_readings(data)
    limited = Transcript(new_parser(method, FEW_BYTES))
    limited.parser.feed(data)
    limited.drain()
    assert all(head.length == UNTIL_CLOSE or size <= FEW_BYTES.body for head, size in limited.bodies)


# The means.


class LongRequests(RequestParser):
    """What each state does, and nothing short of it."""

    __slots__ = ()
    next_event = IncrementalParser.next_event


class LongResponses(ResponseParser):
    __slots__ = ()
    next_event = IncrementalParser.next_event


LONG_WAYS = (LongRequests, LongResponses)


def teach() -> None:
    """Have the heads remembered that `spliced` makes others of."""
    for start, blocks, method in ((b"GET / HTTP/1.1", REQUEST_BLOCKS, None), (b"HTTP/1.1 200 OK", RESPONSE_BLOCKS, b"GET")):
        for lines in blocks:
            for _ in range(2):
                parser = new_parser(method, limits=LIMITS, kinds=LONG_WAYS)
                parser.feed(b"\r\n".join([start, *lines]) + b"\r\n\r\n")
                parser.next_event()


Parser = RequestParser | ResponseParser


def go_together(short: Parser, long: Parser, pieces: list[bytes], as_connections_do: bool) -> None:
    """Feed both the same; what they say, hold, and would hand over must be the same all the way."""
    for parser in (short, long):
        if isinstance(parser, RequestParser):
            parser.tells_ends = not as_connections_do
    for piece in (*pieces, None):
        for parser in (short, long):
            parser.feed_eof() if piece is None else parser.feed(piece)
        while (said := next_said(short, as_connections_do)) == next_said(long, as_connections_do):
            assert (short.buffered, short.between_messages) == (long.buffered, long.between_messages), said
            if said[0] in (NEED_DATA, ProtocolError):
                break
        else:
            raise AssertionError(f"{said} is not what the long way says")
    assert short.detach() == long.detach()


def next_said(parser: Parser, as_connections_do: bool) -> list[object]:
    """The next event, each of its attributes, and what its parser's connection would take with it."""
    try:
        event = parser.next_event()
    except ProtocolError as error:
        return [ProtocolError, error.reason, error.status]
    if type(event) is Data:
        return [Data, event.data]
    if type(event) is EndOfMessage:
        return [EndOfMessage, event.trailers]
    if not isinstance(event, Request | Response):
        return [event]
    fields = event.fields
    said: list[object] = [sorted(fields.index.items()), fields.states_terms(), len(fields), fields.wire()]
    said += [fields.copy().lines, *described(event, b"", None), fields.lines, list(fields.index.items())]
    if as_connections_do and isinstance(parser, ResponseParser):
        said.append(parser.take_whole())
    return [type(event), *said]


def next_message(parser: RequestParser | ResponseParser) -> tuple[Request | Response, bytes, EndOfMessage | None] | None:
    """(head, body, end) of the next whole message; None where there is no more or the rest is refused."""
    body = []
    head: Request | Response | None = None
    try:
        while (event := parser.next_event()) is not NEED_DATA:
            if type(event) is Data:
                body.append(event.data)
            elif type(event) is EndOfMessage:
                assert head is not None
                return head, b"".join(body), event
            else:
                assert isinstance(event, Request | Response)
                head = event
                if isinstance(head, Response) and head.status < 200 and head.status != 101:
                    return head, b"", None
    except ProtocolError:
        return None
    if head is not None and head.length == UNTIL_CLOSE:
        parser.feed_eof()
        while type(event := parser.next_event()) is Data:
            body.append(event.data)
        assert type(event) is EndOfMessage
        return head, b"".join(body), event
    return None


def forwarded(head: Request | Response, body: bytes, end: EndOfMessage | None) -> bytes:
    """The message as the writer spells it, its framing fields as they came."""
    old = head.version == 10
    if isinstance(head, Request):
        start = request_line(head.method, head.target)
        start = start.removesuffix(b"HTTP/1.1\r\n") + b"HTTP/1.0\r\n" if old else start
    else:
        start = status_line(head.status, head.reason)
        start = b"HTTP/1.0" + start.removeprefix(b"HTTP/1.1") if old else start
    if head.length == CHUNKED:
        assert end is not None
        middle = len(body) // 2
        body = b"".join([*chunk(body[:middle]), *chunk(body[middle:]), last_chunk(end.trailers)])
    return start + head.fields.wire() + b"\r\n" + body


def described(head: Request | Response, body: bytes, end: EndOfMessage | None) -> list[object]:
    names = [name for name in type(head).__slots__ if name != "fields"]
    trailers = None if end is None or end.trailers is None else list(end.trailers)
    return [*(getattr(head, name) for name in names), list(head.fields), body, trailers]


_CHUNK = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?\r\n")


def chunked_readings(data: bytes) -> set[bytes]:
    """What a plain decoder reads as a chunked body behind any empty line of `data`."""
    readings = set()
    for match in re.finditer(rb"(?=\r\n\r\n)", data):
        at, body = match.start() + 4, b""
        while line := _CHUNK.match(data, at):
            size = int(line[1], 16)
            body += data[line.end() : line.end() + size]
            at = line.end() + size + 2
            if not size:
                readings.add(body)
                break
    return readings


PROPERTIES = (
    pieces_make_no_difference,
    short_ways_lead_to_the_same,
    memory_makes_no_difference,
    nothing_but_events,
    what_is_accepted_stays_itself,
    framing_holds,
)
