"""The parsers as their owners use them: states, hand-over, limits, memory and the number of steps.

What they make of which bytes is in `tests/vectors` and in the properties.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from dataclasses import replace

import pytest

from reactor.errors import ProtocolError
from reactor.http import incremental
from reactor.http import parser as parser_module
from reactor.http.grammar import LIMITS, Limits
from reactor.http.parser import NEED_DATA, Data, EndOfMessage, Request, RequestParser, Response, ResponseParser
from tests.reactor.http.properties import memory_makes_no_difference
from tests.reactor.http.transcript import every_byte, transcript
from tests.strategies import CUT_OUT, FAMILIAR

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
CONNECT = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"


def fed(data: bytes) -> RequestParser:
    parser = RequestParser()
    parser.feed(data)
    return parser


def kinds(parser: RequestParser | ResponseParser) -> list[type]:
    """The types of all events that are there."""
    events = []
    while (event := parser.next_event()) is not NEED_DATA:
        events.append(type(event))
    return events


def test_nothing_fed_is_nothing_said():
    parser = RequestParser()
    assert parser.next_event() is NEED_DATA
    parser.feed(b"")
    assert parser.next_event() is NEED_DATA and parser.between_messages
    parser.feed_eof()
    assert parser.next_event() is NEED_DATA and parser.between_messages


def test_between_messages():
    parser = fed(GET[:5])
    assert not parser.between_messages
    assert parser.next_event() is NEED_DATA and not parser.between_messages
    parser.feed(GET[5:])
    assert isinstance(parser.next_event(), Request) and not parser.between_messages
    assert type(parser.next_event()) is EndOfMessage and parser.between_messages
    parser.feed(b"\r\n")
    assert parser.next_event() is NEED_DATA and parser.between_messages


def test_buffered_counts_what_was_not_given_out():
    parser = fed(GET + POST + b"hel")
    assert parser.buffered == len(GET + POST) + 3
    parser.next_event()
    assert parser.buffered == len(POST) + 3
    assert kinds(parser) == [EndOfMessage, Request, Data]
    assert parser.buffered == 0
    parser.feed(b"lo!")
    assert kinds(parser)[:2] == [Data, EndOfMessage] and parser.buffered == 1


def test_a_body_that_is_wholly_there_comes_in_one_piece():
    parser = fed(POST + b"hello")
    parser.next_event()
    data = parser.next_event()
    assert type(data) is Data and data.data == b"hello"
    assert type(parser.next_event()) is EndOfMessage
    parser = fed(CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")
    parser.next_event()
    data = parser.next_event()
    assert type(data) is Data and data.data == b"hello"
    assert type(parser.next_event()) is EndOfMessage


@pytest.mark.parametrize(
    "offers, heard", [(b"h2c", None), (b"H2C", None), (b"websocket", b"websocket"), (b"h2c, websocket", b"websocket")]
)
def test_an_offer_of_h2c_is_not_heard(offers, heard):
    parser = RequestParser()
    parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: " + offers + b"\r\n\r\n")
    assert parser.next_event().upgrade == heard


def test_a_refused_upgrade_goes_on():
    parser = fed(UPGRADE + GET)
    assert kinds(parser) == [Request, EndOfMessage]
    parser.resume()
    assert kinds(parser) == [Request, EndOfMessage]
    parser.resume()
    assert parser.between_messages


def test_resume_changes_nothing_elsewhere():
    parser = fed(POST + b"he")
    assert kinds(parser) == [Request, Data]
    parser.resume()
    parser.feed(b"llo")
    assert kinds(parser) == [Data, EndOfMessage]


@pytest.mark.parametrize("head", [UPGRADE, CONNECT])
def test_an_accepted_one_hands_over_what_is_left(head):
    parser = fed(head + b"\x16\x03")
    assert kinds(parser) == [Request, EndOfMessage]
    parser.feed(b"\x01")
    assert parser.next_event() is NEED_DATA
    assert parser.detach() == b"\x16\x03\x01"
    assert parser.detach() == b"" and parser.next_event() is NEED_DATA and parser.buffered == 0


def test_an_upgrade_waits_for_the_end_of_the_body():
    parser = fed(UPGRADE.replace(b"Host", b"Content-Length: 2\r\nHost") + b"xyGET")
    assert kinds(parser) == [Request, Data, EndOfMessage]
    assert parser.detach() == b"GET"


def test_the_response_to_connect_hands_over():
    parser = ResponseParser()
    parser.expect(b"CONNECT")
    parser.feed(b"HTTP/1.1 200 OK\r\n\r\n\x16")
    assert kinds(parser) == [Response, EndOfMessage]
    assert parser.detach() == b"\x16"


def test_expect_is_asked_before_each_response():
    parser = ResponseParser(b"HEAD")
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    parser.feed(head)
    assert kinds(parser) == [Response, EndOfMessage]
    parser.expect(b"GET")
    parser.feed(head + b"ok")
    assert kinds(parser) == [Response, Data, EndOfMessage]


def test_a_missing_reason_phrase_is_an_empty_one():
    parser = ResponseParser(b"HEAD")
    for head in (b"HTTP/1.1 200\r\n\r\n", b"HTTP/1.1 200 \r\n\r\n"):
        parser.feed(head)
        response = parser.next_event()
        assert isinstance(response, Response) and response.reason == b""
        kinds(parser)


def test_interim_responses_are_counted():
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    parser = ResponseParser()
    for _ in range(2):
        parser.feed(interim * LIMITS.interim + final)
        assert len(kinds(parser)) == LIMITS.interim + 2
    parser.feed(interim * (LIMITS.interim + 1))
    with pytest.raises(ProtocolError, match="interim"):
        kinds(parser)


def test_a_refusal_is_final_and_lets_go_of_the_buffer():
    parser = fed(b"GET / HTTP/3.0\r\n\r\n" + GET)
    for _ in range(3):
        with pytest.raises(ProtocolError) as caught:
            parser.next_event()
        assert caught.value.status == 505 and parser.buffered == 0
        parser.feed(GET)


def test_what_was_whole_before_a_fault_goes_out_first():
    parser = fed(GET + CHUNKED + b"1\r\nx\r\nno size\r\n")
    assert [type(parser.next_event()) for _ in range(4)] == [Request, EndOfMessage, Request, Data]
    with pytest.raises(ProtocolError):
        parser.next_event()


def test_repr_shows_the_state():
    parser = fed(CHUNKED)
    assert repr(parser) == f"<RequestParser head, {len(CHUNKED)} bytes buffered>"
    assert repr(parser.next_event()) == "<Request POST />"
    assert repr(parser) == "<RequestParser chunked, 0 bytes buffered>"
    assert repr(NEED_DATA) == "NEED_DATA"


def test_parsers_make_no_cycles():
    gc.collect()
    for data in (GET + GET, POST + b"hello", CHUNKED + b"0\r\nA: b\r\n\r\n", GET[:9], b"bad\r\n\r\n"):
        parser = fed(data)
        with contextlib.suppress(ProtocolError):
            kinds(parser)
        del parser
    assert gc.collect() == 0


# Limits.


@pytest.mark.parametrize(
    ("limits", "data", "status"),
    [
        (Limits(start_line=13), GET, 414),
        (Limits(field_line=6), GET, 431),
        (Limits(head=22), GET, 431),
        (Limits(fields=0), GET, 431),
        (Limits(blank_lines=0), b"\r\n" + GET, 400),
        (Limits(method=2), GET, 501),
        (Limits(chunk_line=1), CHUNKED + b"01\r\nx\r\n0\r\n\r\n", 400),
        (Limits(trailers=3), CHUNKED + b"0\r\nA: b\r\n\r\n", 431),
        (Limits(fields=2), CHUNKED + b"0\r\nA: b\r\nA: b\r\nA: b\r\n\r\n", 431),
        (Limits(content_length=0), CHUNKED + b"1\r\nx\r\n0\r\n\r\n", 400),
        (Limits(body=4), POST, 413),
        (Limits(body=4), CHUNKED + b"3\r\nhel\r\n2\r\n", 413),
        (replace(LIMITS, body=4), POST, 413),
        (replace(LIMITS, body=4), CHUNKED + b"3\r\nhel\r\n2\r\n", 413),
        (replace(LIMITS, body=0), CHUNKED + b"1\r\n", 413),
    ],
)
def test_limits_are_the_parsers_own(limits, data, status):
    for _ in range(3):  # so that there is something to remember
        kinds(fed(data))
    parser = RequestParser(limits)
    parser.feed(data)
    with pytest.raises(ProtocolError) as caught:
        kinds(parser)
    assert caught.value.status == status


@pytest.mark.parametrize("limits", [Limits(body=5), replace(LIMITS, body=5)])
def test_a_body_of_the_greatest_size_is_whole_and_each_one_counts_for_itself(limits):
    parser = RequestParser(limits)
    parser.feed((POST + b"hello" + CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n") * 3)
    assert kinds(parser) == [Request, Data, EndOfMessage] * 6


@pytest.mark.parametrize("limits", [Limits(body=4), replace(LIMITS, body=4)])
def test_chunks_within_the_limit_go_out_before_the_one_beyond_it_is_refused(limits):
    for pieces in ([CHUNKED + b"3\r\nhel\r\n2\r\nlo"], every_byte(CHUNKED + b"3\r\nhel\r\n2\r\nlo")):
        assert transcript(None, pieces, limits=limits)[-2:] == ["data hel", "error 413 body too large"]


def test_the_limit_of_a_body_holds_for_responses_too():
    for head in (b"Content-Length: 5\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\n"):
        parser = ResponseParser(limits=replace(LIMITS, body=4))
        parser.feed(b"HTTP/1.1 200 OK\r\n" + head)
        with pytest.raises(ProtocolError, match="body too large"):
            kinds(parser)
        parser = ResponseParser(limits=replace(LIMITS, body=5))
        parser.feed(b"HTTP/1.1 200 OK\r\n" + head + b"hello")
        assert kinds(parser)[:2] == [Response, Data]


@pytest.mark.parametrize("limits", [Limits(fields=0), Limits(field_line=4), Limits(head=18)])
def test_limits_of_a_response_are_the_parsers_own(limits):
    parser = ResponseParser(limits=limits)
    parser.feed(b"HTTP/1.1 200 OK\r\nA: bc\r\n\r\n")
    with pytest.raises(ProtocolError):
        parser.next_event()


def test_another_limit_for_bodies_leaves_heads_remembered():
    limits = replace(LIMITS, body=4)
    for _ in range(3):
        kinds(fed(GET))
    parser = RequestParser(limits)
    parser.feed(GET)
    assert calls_for(parser) <= 30
    parser = RequestParser(Limits())
    parser.feed(GET)
    assert calls_for(parser) > 30


def test_an_unfolded_line_is_held_to_the_limit_of_a_line():
    parser = ResponseParser(limits=Limits(field_line=20))
    parser.feed(b"HTTP/1.1 200 OK\r\nA: " + b"\r\n ".join([b"b" * 8] * 4) + b"\r\n\r\n")
    with pytest.raises(ProtocolError, match="field line too long"):
        parser.next_event()


def test_an_idle_parser_holds_no_buffer():
    for data in (GET, POST + b"hello", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", CHUNKED + b"0\r\nA: b\r\n\r\n"):
        parser = RequestParser()
        for piece in (data[:10], data[10:]):
            parser.feed(piece)
            kinds(parser)
        assert parser._data == b""


def test_what_is_remembered_of_heads_is_bounded():
    blocks = parser_module._known_blocks
    for number in range(2 * parser_module.MEMO_BLOCKS):
        data = b"GET / HTTP/1.1\r\nHost: a\r\nX-A: %d\r\nX-B: %d\r\n\r\n" % (number % 64, number // 64)
        for _ in range(3):
            kinds(fed(data))
    assert 0 < len(blocks) <= parser_module.MEMO_BLOCKS
    long = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 200) for i in range(12)) + b"\r\n"
    secret = b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: c2VjcmV0\r\nCookie: c2VjcmV0\r\n\r\n"
    for data in (long, secret, secret.replace(b"Cookie", b"cookie")):
        for _ in range(3):
            kinds(fed(data))
    assert max(map(len, blocks)) <= parser_module.MEMO_BLOCK_LENGTH
    assert not any(b"c2VjcmV0" in block for block in blocks)


def test_a_line_that_was_never_met_keeps_its_head_from_being_remembered():
    blocks = parser_module._known_blocks
    for number in range(50):
        kinds(fed(b"GET / HTTP/1.1\r\nHost: never-met\r\nX-Trace: never-met-%d\r\n\r\n" % number))
    assert not any(b"never-met" in block for block in blocks)


def test_a_remembered_head_is_not_changed_by_its_first_owner():
    head = b"GET / HTTP/1.1\r\nHost: remembered\r\nAccept: x\r\nConnection: keep-alive\r\nCookie: a=%d\r\n\r\n"
    for number in range(5):
        request = fed(head % number).next_event()
        assert isinstance(request, Request)
        assert list(request.fields) == [
            (b"Host", b"remembered"), (b"Accept", b"x"), (b"Connection", b"keep-alive"), (b"Cookie", b"a=%d" % number),
        ]  # fmt: skip
        request.fields.remove(b"accept", b"cookie")
        request.fields.set("Host", "changed")
        request.fields.add("Via", "1.1 a")
        assert request.fields.index == {b"host": b"changed", b"connection": b"keep-alive", b"via": b"1.1 a"}


def test_a_cookie_does_not_lift_a_head_over_the_limit():
    for count in (parser_module.MEMO_BLOCK_LINES, LIMITS.fields):
        lines = b"Host: a\r\n" + b"".join(b"X-%d: b\r\n" % number for number in range(count - 1))
        for _ in range(4):
            assert kinds(fed(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")) == [Request, EndOfMessage]
    for more in (b"Cookie: a\r\n", b"Referer: a\r\n"):
        with pytest.raises(ProtocolError, match="too many field lines"):
            kinds(fed(b"GET / HTTP/1.1\r\n" + lines + more + b"\r\n"))


@pytest.mark.parametrize("head", FAMILIAR)
def test_what_is_cut_out_of_a_remembered_head_must_be_in_its_place(head):
    memory_makes_no_difference(None, head, [])
    for at in range(len(head) + 1):
        for lines in CUT_OUT:
            for gone in (0, 1, 2):
                data = head[:at] + lines + head[at + gone :]
                assert transcript(None, [data]) == transcript(None, [data], limits=Limits()), data


# Steps.


class CountedBytes(bytearray):
    """The buffer for what is incomplete, counting the octets that are searched, copied or moved."""

    steps = 0

    def find(self, what, start=0, stop=None):  # type: ignore[override]
        size = len(self)
        stop = size if stop is None or stop > size else stop
        found = bytearray.find(self, what, start, stop)
        searched = (stop if found < 0 else found) - start
        if searched > 0:
            CountedBytes.steps += searched
        return found

    def __getitem__(self, key):
        item = bytearray.__getitem__(self, key)
        CountedBytes.steps += len(item) if isinstance(key, slice) else 1
        return item

    def __delitem__(self, key):
        CountedBytes.steps += 1
        bytearray.__delitem__(self, key)

    def __iadd__(self, data):
        CountedBytes.steps += len(data)
        return bytearray.__iadd__(self, data)

    def __bytes__(self) -> bytes:
        CountedBytes.steps += len(self)
        return bytes(memoryview(self))


OURS = (parser_module.__file__, incremental.__file__)


def steps_of(data: bytes, parser: RequestParser | ResponseParser, monkeypatch, eof: bool = False) -> int:
    """Calls made and octets searched, copied or moved to read `data` byte by byte."""
    monkeypatch.setattr(incremental, "bytearray", CountedBytes, raising=False)
    CountedBytes.steps = 0
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call") and frame.f_code.co_filename in OURS

    sys.setprofile(count)
    try:
        for piece in every_byte(data):
            parser.feed(piece)
            while parser.next_event() is not NEED_DATA:
                pass
    except ProtocolError:
        pass
    finally:
        sys.setprofile(None)
    return calls + CountedBytes.steps


WIDE = Limits(start_line=1 << 20, field_line=1 << 20, head=1 << 20, fields=1 << 20, trailers=1 << 20, chunk_line=1 << 20)
GROWING = {
    "a long request line": lambda n: b"GET /" + b"a" * n + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a long line without an end": lambda n: b"G" * n,
    "a long field": lambda n: b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * n + b"\r\n\r\n",
    "many fields": lambda n: b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A:\r\n" * (n // 4) + b"\r\n",
    "many CRs": lambda n: b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"\r" * n + b"\n\r\n",
    "many requests": lambda n: GET * (n // len(GET)),
    "a long body": lambda n: POST.replace(b" 5", b" %d" % n) + b"x" * n,
    "a long chunk": lambda n: CHUNKED + b"%x\r\n" % n + b"x" * n + b"\r\n0\r\n\r\n",
    "many chunks": lambda n: CHUNKED + b"1\r\nx\r\n" * (n // 6) + b"0\r\n\r\n",
    "a long chunk extension": lambda n: CHUNKED + b'1;a="' + b"x" * n + b'"\r\nx\r\n0\r\n\r\n',
    "many chunk extensions": lambda n: CHUNKED + b"1" + b" ;a " * (n // 4) + b"\r\nx\r\n0\r\n\r\n",
    "a long trailer": lambda n: CHUNKED + b"0\r\nA: " + b"b" * n + b"\r\n\r\n",
    "many trailers": lambda n: CHUNKED + b"0\r\n" + b"A:\r\n" * (n // 4) + b"\r\n",
}


@pytest.mark.parametrize("name", GROWING)
def test_steps_grow_with_the_input_and_not_with_its_square(name, monkeypatch):
    short, long = (GROWING[name](n) for n in (1000, 8000))
    few = steps_of(short, RequestParser(WIDE), monkeypatch)
    many = steps_of(long, RequestParser(WIDE), monkeypatch)
    assert few > len(short), "the steps are not counted any more"
    assert many / few < 1.3 * len(long) / len(short)


def test_steps_of_responses(monkeypatch):
    def counted(n: int) -> int:
        head = b"HTTP/1.1 200 OK\r\nA: b\r\n" + b" c\r\n" * (n // 4) + b"Transfer-Encoding: chunked\r\n\r\n"
        return steps_of(head + b"1\r\nx\r\n" * (n // 6) + b"0\r\n\r\n", ResponseParser(limits=WIDE), monkeypatch)

    assert counted(8000) < 1.3 * 8 * counted(1000)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"A: " + b"b" * 60 + b"\r\n") * (n // 65) + b"\r\n",
        lambda n: CHUNKED + (b"3a\r\n" + b"x" * 58 + b"\r\n") * (n // 64) + b"0\r\n\r\n",
    ],
    ids=["head", "body"],
)
def test_a_mebibyte_byte_by_byte(make, monkeypatch):
    """No octet is searched, copied or moved more than a few times."""
    monkeypatch.setattr(incremental, "bytearray", CountedBytes, raising=False)
    data = make(1 << 20)
    CountedBytes.steps = 0
    parser, event = RequestParser(WIDE), None
    feed, next_event = parser.feed, parser.next_event
    for piece in every_byte(data):
        feed(piece)
        while (latest := next_event()) is not NEED_DATA:
            event = latest
    assert isinstance(event, EndOfMessage)
    assert CountedBytes.steps < 12 * len(data)


def test_a_hundred_thousand_chunks_of_one_byte():
    parser = fed(CHUNKED + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n")
    parser.next_event()
    assert calls_for(parser) < 3.1 * 100_000


def calls_for(parser: RequestParser) -> int:
    """Calls made, of functions of ours and of Python's, to read all that the parser was fed."""
    calls = 0

    def note(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    kinds(parser)
    sys.setprofile(None)
    return calls


BROWSER = (
    b"GET /%d HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\nReferer: http://a/%d\r\n"
    b"Accept-Language: en\r\nConnection: keep-alive\r\nCookie: sid=%d\r\n\r\n"
)


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda n: b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n, 30),
        (lambda n: BROWSER % (n, n, n), 40),
        (lambda n: (BROWSER % (n, n, n)) * 10, 400),
        (
            lambda n: (
                (BROWSER % (n, n, n)).replace(b"GET", b"POST").replace(b"Accept:", b"Content-Length: 3\r\nAccept:") + b"abc"
            ),
            55,
        ),
        (lambda n: (BROWSER % (n, n, n)).replace(b"/%d " % n, b"/" + b"a" * 3000 + b" "), 40),
    ],
    ids=["short", "browser", "pipelined", "with a body", "long"],
)
def test_a_remembered_head_is_not_read_again(make, most):
    for number in range(3):
        kinds(fed(make(number)))
        kinds(fed(GET))
    assert calls_for(fed(make(3))) <= most


def test_pipelined_requests_in_one_piece_take_steps_in_proportion():
    kinds(fed(GET * 10))
    assert calls_for(fed(GET * 800)) < 1.3 * 8 * calls_for(fed(GET * 100))


# The short ways of those who drive a parser.


def asking(*lines: bytes) -> Request:
    """A request with these field lines; met often enough to be known by its block."""
    reader = RequestParser(tells_ends=False)
    for _ in range(4):
        reader.feed(b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *lines]) + b"\r\n\r\n")
        request = reader.next_event()
        assert isinstance(request, Request)
    return request


@pytest.mark.parametrize("line", [b"Range: bytes=0-1", b"If-None-Match: *", b"Cache-Control: no-cache", b"Pragma: no-cache"])
def test_terms_are_told_whether_or_not_the_block_is_known(line: bytes) -> None:
    plain, special = asking(b"Accept: */*", b"Cookie: a=b"), asking(b"Accept: */*", b"Cookie: a=b", line)
    assert plain.fields.cut is not None and not plain.fields.states_terms() and special.fields.states_terms()
    fresh = Request(b"GET", b"/", 11, special.fields.copy(), None, b"a", b"/")
    fresh.fields.remove(line.partition(b":")[0].lower())
    assert not fresh.fields.states_terms() and special.fields.states_terms()
    fresh.fields.add(*line.split(b": "))
    assert fresh.fields.states_terms(), "what is known of a block ends where its lines are changed"


@pytest.mark.parametrize("memos", ["cold", "warm"])
@pytest.mark.parametrize("tells_ends", [True, False])
def test_the_end_of_a_head_alone_is_told_or_not(tells_ends: bool, memos: str) -> None:
    get = b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nX-Memo: %b\r\n\r\n" % memos.encode()
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    if memos == "warm":
        kinds(fed(get * 4))
    end = ["EndOfMessage"] if tells_ends else []
    reader = RequestParser(tells_ends=tells_ends)
    for _ in range(3):  # blank lines are counted anew before each
        reader.feed(get + post % 2 + b"ok" + post % 0 + get + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" + get)
        told = []
        while (event := reader.next_event()) is not NEED_DATA:
            told.append(type(event).__name__)
        paused = ["Request", *end, "Request", "Data", "EndOfMessage", "Request", *end, "Request", *end, "Request", *end]
        assert told == paused
        reader.resume()
        assert isinstance(reader.next_event(), Request)
        assert not tells_ends or isinstance(reader.next_event(), EndOfMessage)
        assert reader.next_event() is NEED_DATA and reader.between_messages


@pytest.mark.parametrize(
    ("method", "answer", "whole", "rest"),
    [
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", b""),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP", b"ok", b"HTTP"),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", None, None),
        (b"GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None, None),
        (b"GET", b"HTTP/1.1 200 OK\r\n\r\nok", None, None),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"", b""),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"", b""),
    ],
)
def test_a_body_is_taken_whole_only_where_it_is(method: bytes, answer: bytes, whole: bytes | None, rest: bytes | None) -> None:
    reader = ResponseParser(method)
    reader.feed(answer)
    assert isinstance(reader.next_event(), Response)
    assert reader.take_whole() == whole
    if rest is not None:
        assert reader.buffered == len(rest)
        assert reader.take_whole() is None, "between two messages there is none"
    else:
        assert not isinstance(reader.next_event(), Response), "the events are still to come"
