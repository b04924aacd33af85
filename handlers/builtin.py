"""The routes that every server has, to look at it and to try clients and proxies against.

Each is bounded, and each says so with a problem where more is asked for.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator
from typing import Any

from handlers.calls import Call
from handlers.pages import reason
from handlers.responses import IteratorSource, Pause, Pending, Problem, Response
from reactor.http.conditional import evaluate
from reactor.http.dates import format_date
from reactor.loop import Reactor

MAX_DELAY = 60.0  # seconds, of /api/delay and of all of /api/drip
MAX_BYTES = 1024 * 1024 * 1024  # of /api/bytes
MAX_LINES = 10_000  # of /api/stream
MAX_INTERVAL = 10.0  # seconds between two of its lines
MAX_REDIRECTS = 50
MAX_DRIP = 1024 * 1024  # bytes
MAX_FRESH = 366 * 86400  # seconds

_BLOCK = 64 * 1024  # bytes of /api/bytes that are made; they repeat


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise Problem(400, f"{name} is to be from {low:g} to {high:g}.")


def _number(call: Call, name: str, default: float, low: float, high: float) -> float:
    """A number from the query."""
    text = call.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.replace(".", "", 1).isdigit() or len(text) > 18:
        raise Problem(400, f"{name} is to be a number.")
    _within(name, float(text), low, high)
    return float(text)


def echo(call: Call) -> dict[str, Any]:
    """What arrived, as it arrived. Bodies that are no text are told in base64."""
    found: dict[str, Any] = {
        "method": call.method,
        "path": call.path,
        "query": [list(pair) for pair in call.query.pairs],
        "version": f"HTTP/{call.request.version // 10}.{call.request.version % 10}",
        "authority": call.request.authority.decode("latin-1"),
        "fields": [[name.decode("ascii"), value.decode("latin-1")] for name, value in call.fields],
        "peer": call.peer,
    }
    try:
        found["body"] = call.body.decode("utf-8")
    except UnicodeDecodeError:
        found["body_base64"] = base64.b64encode(call.body).decode("ascii")
    return found


def delay(call: Call, seconds: float) -> Pending:
    """An answer that takes so many seconds."""
    _within("The delay in seconds", seconds, 0, MAX_DELAY)
    return call.after(seconds, {"delayed": seconds})


_CODE_FIELDS = {
    401: [(b"WWW-Authenticate", b'Basic realm="reactor"')],
    405: [(b"Allow", b"GET")],
    407: [(b"Proxy-Authenticate", b'Basic realm="reactor"')],
    416: [(b"Content-Range", b"bytes */0")],
    426: [(b"Upgrade", b"h2c")],
    429: [(b"Retry-After", b"1")],
    503: [(b"Retry-After", b"1")],
}
_CODE_FIELDS.update({status: [(b"Location", b"/api/echo")] for status in (201, 301, 302, 303, 307, 308)})


def code(status: int) -> Response:
    """An answer with this status, and the fields that go with it."""
    _within("The status", status, 200, 599)
    body = None if status in (204, 205, 304) else {"status": status, "reason": reason(status)}
    return Response(body, status, _CODE_FIELDS.get(status, ()))


def some_bytes(call: Call, count: int) -> Response:
    """So many bytes, random but the same for the same `seed`."""
    _within("The number of bytes", count, 0, MAX_BYTES)
    seed = int(_number(call, "seed", 0, 0, 2**53))
    block = random.Random(seed).randbytes(min(count, _BLOCK) or 1)
    return Response(IteratorSource(call.exchange.reactor, _repeated(block, count), count))


def _repeated(block: bytes, count: int) -> Iterator[memoryview]:
    while count:
        piece = memoryview(block)[:count]
        count -= len(piece)
        yield piece


def stream(call: Call, count: int) -> Response:
    """So many lines of JSON, one every `interval` seconds, of a length that nobody knows before."""
    _within("The number of lines", count, 0, MAX_LINES)
    interval = _number(call, "interval", 0.1, 0, MAX_INTERVAL)
    return Response(_lines(count, interval), content_type=b"application/x-ndjson")


def _lines(count: int, interval: float) -> Iterator[bytes | Pause]:
    for line in range(count):
        if line and interval:
            yield Pause(interval)
        yield b'{"line": %d, "of": %d}\n' % (line + 1, count)


def cache(call: Call, seconds: int) -> Response:
    """An answer that is fresh for so many seconds, that changes no sooner, and that can be validated."""
    _within("The time in seconds", seconds, 0, MAX_FRESH)
    wall = call.exchange.reactor.wall
    made = int(wall) // max(1, seconds) * max(1, seconds)
    etag = b'"%d-%d"' % (seconds, made)
    fields = [
        (b"Cache-Control", b"max-age=%d" % seconds),
        (b"ETag", etag),
        (b"Last-Modified", format_date(made)),
    ]
    status = evaluate(call.request.method, call.fields, etag, made, wall)
    if status == 412:
        raise Problem(412, "The representation is another one by now.")
    if status == 304:
        return Response(None, 304, fields)
    return Response({"fresh_for": seconds, "made": made}, 200, fields)


def redirect(call: Call, count: int) -> Response:
    """So many redirects, to /api/echo in the end; `status` chooses among 301, 302, 303, 307 and 308."""
    _within("The number of redirects", count, 1, MAX_REDIRECTS)
    status = int(_number(call, "status", 302, 301, 308))
    if status not in (301, 302, 303, 307, 308):
        raise Problem(400, "The status is to be 301, 302, 303, 307 or 308.")
    location = "/api/echo" if count == 1 else f"/api/redirect/{count - 1}?status={status}"
    return Response(None, status, [(b"Location", location)])


def drip(call: Call) -> Response:
    """`numbytes` bytes over `duration` seconds, after `delay` seconds, with `code`."""
    count = int(_number(call, "numbytes", 10, 0, MAX_DRIP))
    duration = _number(call, "duration", 2, 0, MAX_DELAY)
    pause = _number(call, "delay", 0, 0, MAX_DELAY)
    status = int(_number(call, "code", 200, 200, 599))
    reactor = call.exchange.reactor
    return Response(IteratorSource(reactor, _drops(reactor, count, pause, duration), count), status)


def _drops(reactor: Reactor, count: int, delay: float, duration: float) -> Iterator[bytes | Pause]:
    """Bytes one by one at even times; whoever was kept waiting gets what has become due meanwhile."""
    interval = duration / max(1, count - 1)
    due_at = reactor.now + delay
    while count:
        late = reactor.now - due_at
        if late < 0:
            yield Pause(-late)
            continue
        due = min(count, 1 + int(late / interval)) if interval else count
        count -= due
        due_at += due * interval
        yield b"*" * due


ROUTES: list[tuple[tuple[str, ...], str, Callable[..., Any]]] = [
    (("GET", "POST", "PUT", "PATCH", "DELETE"), "/api/echo", echo),
    (("GET",), "/api/delay/{seconds:float}", delay),
    (("GET", "POST", "PUT", "PATCH", "DELETE"), "/api/code/{status:int}", code),
    (("GET",), "/api/bytes/{count:int}", some_bytes),
    (("GET",), "/api/stream/{count:int}", stream),
    (("GET",), "/api/cache/{seconds:int}", cache),
    (("GET",), "/api/redirect/{count:int}", redirect),
    (("GET",), "/api/drip", drip),
]
