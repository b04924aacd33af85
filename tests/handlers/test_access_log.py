"""The access log: what is written for which exchange."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import access_log
from handlers.access_log import AccessLog, Combined, stamp
from handlers.log_sink import Sink
from reactor.exchange import Exchange, Head
from tests.handlers.asking import Answer, Clock, parse
from tests.loopback import House, housed


class Lines:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        self.lines.append(line)


class Answering:
    """Answers with what it is told to."""

    def __init__(self, body: bytes = b"hello", status: int = 200) -> None:
        self.body = body
        self.status = status

    def handle(self, exchange: Exchange) -> None:
        exchange.verdict = "hit"
        exchange.respond(Head(self.status), self.body)
        exchange.bytes_out = len(self.body)


@pytest.fixture(autouse=True)
def in_a_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Five and a half hours east, where half hours and signs show."""
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


def logged(text: str | bytes, format: str = "combined", change: Callable[[Answer], object] = lambda exchange: None) -> str:
    """The line for one exchange: asked, answered, changed as the test wants it, ended after 12.5 ms."""
    lines, clock = Lines(), Clock()
    clock.settle()
    request, body = parse(text)
    exchange = Answer(clock, request, body)
    AccessLog(Answering(), lines, format == "json").handle(exchange)  # type: ignore[arg-type]
    change(exchange)
    clock.pass_(0.0125)
    assert not lines.lines
    exchange.finish()
    (line,) = lines.lines
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    return line[:-1].decode("ascii")


# The combined format.


def test_a_line() -> None:
    assert logged("GET /x?y=1\nReferer: http://example.com/\nUser-Agent: curl/8.0 (x; y)") == (
        '192.0.2.7 - - [15/Nov/2023:03:43:20 +0530] "GET /x?y=1 HTTP/1.1" 200 5'
        ' "http://example.com/" "curl/8.0 (x; y)" hit 12'
    )


def test_what_is_not_known_is_a_dash() -> None:
    def forget(exchange: Answer) -> None:
        exchange.verdict = None
        exchange.peer = ""

    assert logged("GET /", change=forget) == '- - - [15/Nov/2023:03:43:20 +0530] "GET / HTTP/1.1" 200 5 "-" "-" - 12'


def test_a_user_is_one_word() -> None:
    def name(exchange: Answer) -> None:
        exchange.user = 'al "ice"\n\\é'

    assert logged("GET /", change=name).startswith(r"192.0.2.7 - al\x20\x22ice\x22\x0a\x5c\xc3\xa9 [15/Nov")


def test_quotes_backslashes_tabs_and_what_is_not_ascii_are_escaped() -> None:
    line = logged(b'GET /"\\\nReferer: a\t"b"\nUser-Agent: \\x22 \xff\xc3\xa9\x80')
    assert r'"GET /\x22\x5c HTTP/1.1" 200 5 "a\x09\x22b\x22" "\x5cx22 \xff\xc3\xa9\x80" hit 12' in line


@pytest.mark.parametrize(
    ("referer", "written"),
    [
        ("http://user:secret@example.com/x", "http://example.com/x"),
        ("http://user:sec@ret@example.com/@x", "http://example.com/@x"),
        ("https://user@example.com", "https://example.com"),
        ("http://example.com/@user", "http://example.com/@user"),
        ("http://example.com/?next=http://a:secret@b/", "http://example.com/?next=http://b/"),
    ],
)
def test_no_password_of_a_referer_is_written(referer: str, written: str) -> None:
    assert f' 5 "{written}" "-" hit' in logged(f"GET /\nReferer: {referer}")
    assert json.loads(logged(f"GET /\nReferer: {referer}", "json"))["referer"] == written


def test_no_password_within_a_target_is_written() -> None:
    assert '"GET /http://b/?c HTTP/1.1"' in logged("GET /http://a:secret@b/?c")
    assert json.loads(logged("GET /http://a:secret@b/?c", "json"))["target"] == "/http://b/?c"


@pytest.mark.parametrize("format", ["combined", "json"])
def test_credentials_in_fields_are_never_written(format: str) -> None:
    line = logged("GET /\nAuthorization: Basic c2VjcmV0\nProxy-Authorization: Basic c2VjcmV0\nCookie: id=c2VjcmV0", format)
    assert "c2VjcmV0" not in line


def test_an_exchange_that_ended_before_its_answer_is_499() -> None:
    lines, clock = Lines(), Clock()
    request, _ = parse("GET /slow")
    exchange = Answer(clock, request, b"")

    class Never:
        def handle(self, exchange: Exchange) -> None:
            """The client will have left before."""

    AccessLog(Never(), lines).handle(exchange)  # type: ignore[arg-type]
    exchange.finish("the client left")
    assert b'"GET /slow HTTP/1.1" 499 0 "-" "-" - 0\n' in lines.lines[0]


def test_a_head_that_was_refused_is_written_too() -> None:
    for format in ("combined", "json"):
        lines, clock = Lines(), Clock()
        exchange = Answer(clock, None, b"")  # type: ignore[arg-type]
        exchange.on_end(AccessLog(Answering(), lines, format == "json").record)  # type: ignore[arg-type]
        exchange.respond(Head(431), b"too large")
        exchange.bytes_out = 9
        exchange.finish()
        if format == "combined":
            assert lines.lines == [b'192.0.2.7 - - [15/Nov/2023:03:43:20 +0530] "-" 431 9 "-" "-" - 0\n']
        else:
            facts = json.loads(lines.lines[0])
            assert facts["status"] == 431 and "method" not in facts


def test_http_1_0_and_other_forms_are_written_as_sent() -> None:
    request, _ = parse("GET http://Example.com/")
    request.version = 10
    lines, clock = Lines(), Clock()
    exchange = Answer(clock, request, b"")
    AccessLog(Answering(), lines).handle(exchange)  # type: ignore[arg-type]
    exchange.finish()
    assert b'"GET http://Example.com/ HTTP/1.0" 200' in lines.lines[0]


def test_the_time_is_that_of_the_arrival_and_moves_with_it() -> None:
    lines, clock = Lines(), Clock()
    log = AccessLog(Answering(), lines)  # type: ignore[arg-type]
    request, _ = parse("GET /")
    first = Answer(clock, request, b"")
    log.handle(first)
    for _ in range(3):
        clock.pass_(1.0)
        quick = Answer(clock, request, b"")
        log.handle(quick)
        quick.finish()
    first.finish()
    clock.wall = 0.0  # somebody set the clock back
    clock.settle()
    last = Answer(clock, request, b"")
    log.handle(last)
    last.finish()
    found = [re.search(rb"\[(.*)\]", line)[1] for line in lines.lines]  # type: ignore[index]
    assert found == [
        b"15/Nov/2023:03:43:21 +0530",
        b"15/Nov/2023:03:43:22 +0530",
        b"15/Nov/2023:03:43:23 +0530",
        b"15/Nov/2023:03:43:20 +0530",
        b"01/Jan/1970:05:30:00 +0530",
    ]


@pytest.mark.parametrize(
    ("zone", "written"),
    [
        ("UTC", b"10/Oct/2000:20:55:36 +0000"),
        ("PDT7", b"10/Oct/2000:13:55:36 -0700"),
        ("NST3:30", b"10/Oct/2000:17:25:36 -0330"),
    ],
)
def test_the_zone_is_written_as_apache_does(zone: str, written: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    assert stamp(971211336) == written


def test_the_memo_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "MEMO_WORDS", 8)
    combined, clock = Combined(), Clock()
    for number in range(50):
        request, _ = parse(f"GET /\nUser-Agent: {number}{'x' * 300 * (number % 2)}")
        exchange = Answer(clock, request, b"")
        assert f'"{number}' in combined.render(exchange).decode()
        assert len(combined._words) <= 8


FIELD = re.compile(r'^(\S+) - (\S+) \[([^\]"]+)\] "([^"]*)" (\d+) (\d+) "([^"]*)" "([^"]*)" (\S+) (\d+)$')
VALUES = st.binary(max_size=40).map(lambda value: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", value))
TARGETS = st.binary(max_size=40).map(lambda value: b"/" + re.sub(rb"[^\x21-\x7e]|#", b"", value))


def unescape(text: str) -> bytes:
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), text.encode("ascii"))


@given(
    TARGETS.filter(lambda target: b"@" not in target),
    VALUES.filter(lambda value: b"@" not in value),
    VALUES,
    st.text(max_size=10),
)
def test_any_request_makes_one_line_that_can_be_read_back(target: bytes, referer: bytes, agent: bytes, user: str) -> None:
    def name(exchange: Answer) -> None:
        exchange.user = user

    line = logged(b"GET %b\nReferer: %b\nUser-Agent: %b" % (target, referer, agent), change=name)
    match = FIELD.fullmatch(line)
    assert match is not None
    assert unescape(match[4]) == b"GET %b HTTP/1.1" % target
    assert unescape(match[7]) == referer.strip(b" \t")
    assert unescape(match[8]) == (agent.strip(b" \t") or b"-")
    assert unescape(match[2]) == (user.encode("utf-8", "backslashreplace") or b"-")


# JSON lines.


def test_a_json_line() -> None:
    def more(exchange: Answer) -> None:
        exchange.user, exchange.upstream, exchange.bytes_in = "alice", "192.0.2.1:80", 3

    line = logged(b'POST http://Example.com:81/x\nReferer: "\\\x80\nUser-Agent: \xc3\xa9', "json", more)
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "client": "192.0.2.7",
        "user": "alice",
        "method": "POST",
        "scheme": "http",
        "authority": "Example.com:81",
        "target": "http://Example.com:81/x",
        "version": "1.1",
        "referer": '"\\\\x80',
        "user_agent": "é",
        "status": 200,
        "verdict": "hit",
        "cache_status": None,
        "reason": None,
        "upstream": "192.0.2.1:80",
        "error": None,
        "error_phase": None,
        "ended": "complete",
        "failure": None,
        "bytes_in": 3,
        "bytes_out": 5,
        "parse_ms": 0.0,
        "access_ms": None,
        "script_ms": None,
        "lookup_ms": None,
        "dns_ms": None,
        "connect_ms": None,
        "first_byte_ms": None,
        "head_ms": 0.0,
        "body_ms": 12.5,
        "duration_ms": 12.5,
        "client_wait_ms": 0.0,
        "upstream_wait_ms": None,
    }


def test_what_needs_escaping_is_escaped_in_json_too() -> None:
    def name(exchange: Answer) -> None:
        exchange.user = 'a"b\\c\n\x00\x1b\x7f\x85é\u2028\ud800'

    line = logged("GET /\nUser-Agent: \xff", "json", name)  # ASCII, or it could not be decoded
    assert re.fullmatch(r"[ -~]+", line)
    assert json.loads(line)["user"] == 'a"b\\c\n\x00\x1b\x7f\x85é\u2028\ud800'


# Over a connection.


def test_every_exchange_of_a_server_is_written(house: House, tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = Sink(str(path), house.reactor)
    log = AccessLog(Answering(), sink)
    peer = house.serve(log, access_log=log).connect()
    peer.send(b"GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\nbad\r\n\r\n")
    peer.until(lambda: peer.over, "the end")
    house.turns()
    sink.close()
    lines = path.read_text().splitlines()
    assert [line.split('"')[1] for line in lines] == ["GET /one HTTP/1.1", "GET /two HTTP/1.1", "-"]
    assert [line.split('"')[2].split()[0] for line in lines] == ["200", "200", "400"]
    assert all(line.startswith("127.0.0.1 - - [06/Nov/1994:14:19:37 +0530] ") for line in lines)


def test_the_log_costs_no_request_when_it_fails(house: House, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def write(self, line: bytes) -> None:
            raise OSError("gone")

    caplog.set_level(logging.CRITICAL)
    peer = house.serve(AccessLog(Answering(), Broken())).connect()  # type: ignore[arg-type]
    for _ in range(2):
        peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert peer.answer().status == 200
