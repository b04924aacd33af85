"""What a function of an Api may return, and how it becomes a head and a body."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from handlers.pages import JSON, PROBLEM, problem
from reactor.exchange import Body, Head, Source
from reactor.http.dates import format_date
from reactor.http.fields import Fields, Text
from reactor.http.writer import status_line
from reactor.loop import Reactor, Timer

TEXT = b"text/plain; charset=utf-8"
OCTETS = b"application/octet-stream"

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
_make_pieces: Any = getattr(json.encoder, "c_make_encoder", None)
# What JSONEncoder makes anew for each value, made once; it takes longer to make than to use for a small one.
_pieces: Callable[[Any, int], Iterable[str]] = (
    _make_pieces(None, _encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    if _make_pieces is not None
    else lambda value, level: _encoder.iterencode(value)
)

# Shared by all answers of their kind; whoever edits a head takes a copy.
_JSON_HEAD = Head(200, [(b"Content-Type", JSON)])
_TEXT_HEAD = Head(200, [(b"Content-Type", TEXT)])
_OCTETS_HEAD = Head(200, [(b"Content-Type", OCTETS)])
_EMPTY_HEAD = Head(204)

_END: Final = object()


class Pending:
    """What a function returns that answers later, by `Call.respond` or `Call.after`."""

    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = Pending()


class Response:
    """An answer with everything said: status, fields, and a body of any kind that a function may return."""

    __slots__ = ("body", "content_type", "fields", "status")

    def __init__(
        self,
        body: Any = None,
        status: int = 200,
        fields: Iterable[tuple[Text, Text]] = (),
        content_type: Text | None = None,
    ) -> None:
        self.body = body
        self.status = status
        self.fields = fields
        self.content_type = content_type


class Problem(Exception):
    """Raised by a function to answer an error as problem details (RFC 9457); `members` extend the object."""

    def __init__(self, status: int, detail: str = "", fields: Iterable[tuple[Text, Text]] = (), **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.fields = fields
        self.members = problem(status, detail, **members)

    def response(self) -> Response:
        return Response(self.members, self.status, self.fields, PROBLEM)


class Pause(NamedTuple):
    """Yielded by a streaming function: go on after so many seconds."""

    seconds: float


def encode_json(value: Any) -> bytes:
    """RFC 8259; raises TypeError, ValueError or RecursionError for what JSON does not have."""
    return "".join(_pieces(value, 0)).encode("utf-8")


class JsonHeads:
    """Heads of JSON answers with status 200, serialized but for their length once a second."""

    __slots__ = ("_second", "_start")

    def __init__(self) -> None:
        self._second = -1
        self._start = b""

    def head(self, wall: float, length: int) -> Head:
        if int(wall) != self._second:
            self._second = int(wall)
            fields = _JSON_HEAD.fields.wire()
            self._start = b"%b%bDate: %b\r\nContent-Length: " % (status_line(200), fields, format_date(wall))
        return Head(200, _JSON_HEAD.fields, None, b"%b%d\r\n\r\n" % (self._start, length))


def render(value: Any, reactor: Reactor) -> tuple[Head, Body]:
    """Head and body of what a function returned; TypeError for what cannot be one."""
    kind = type(value)
    if kind is dict or kind is list:
        return _JSON_HEAD, encode_json(value)
    if kind is str:
        return _TEXT_HEAD, value.encode("utf-8")
    if kind is bytes:
        return _OCTETS_HEAD, value
    if value is None:
        return _EMPTY_HEAD, b""
    if kind is tuple:
        value = _response_of(value)
    elif not isinstance(value, Response):
        value = Response(value)
    content_type, body = _body(value.body, reactor)
    return _head(value, content_type), body


def _response_of(value: tuple[Any, ...]) -> Response:
    """(status, body) or (status, body, fields)."""
    if len(value) not in (2, 3) or not isinstance(value[0], int):
        raise TypeError("a tuple is (status, body) or (status, body, fields)")
    if isinstance(value[1], Response):
        response: Response = value[1]
        return Response(response.body, value[0], [*response.fields, *value[2:3]], response.content_type)
    return Response(value[1], value[0], *value[2:])


def _head(response: Response, content_type: bytes | None) -> Head:
    if not 200 <= response.status <= 599:
        raise ValueError(f"{response.status} is no status of a final response")
    fields = Fields()
    if response.content_type is not None:
        fields.add(b"Content-Type", response.content_type)
    for name, text in response.fields:
        fields.add(name, text)
    if content_type is not None:
        fields.setdefault(b"Content-Type", content_type)
    return Head(response.status, fields)


def _body(value: Any, reactor: Reactor) -> tuple[bytes | None, Body]:
    if value is None:
        return None, b""
    if isinstance(value, str):
        return TEXT, value.encode("utf-8")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return OCTETS, bytes(value)
    if isinstance(value, (dict, list, bool, int, float)):
        return JSON, encode_json(value)
    if isinstance(value, Source):
        return OCTETS, value
    if isinstance(value, Iterator):
        return TEXT, IteratorSource(reactor, value)
    raise TypeError(f"a function of the API returned {type(value).__name__}, which is no body")


class IteratorSource(Source):
    """What an iterator yields, as it is wanted: bytes, str (as UTF-8), or Pause. Nothing is kept but the current item."""

    __slots__ = ("_iterator", "_reactor", "_rest", "_timer")

    def __init__(self, reactor: Reactor, iterator: Iterator[Any], length: int | None = None) -> None:
        super().__init__(length)
        self._reactor = reactor
        self._iterator: Iterator[Any] | None = iterator
        self._rest = memoryview(b"")
        self._timer: Timer | None = None

    def pull(self, limit: int) -> bytes | memoryview | None:
        if self._timer is not None:
            return None
        while not self._rest:
            if self._iterator is None:
                return b""
            item: Any = next(self._iterator, _END)
            if item is _END:
                self._iterator = None
            elif isinstance(item, Pause):
                self._timer = self._reactor.call_later(item.seconds, self._go_on)
                return None
            else:
                self._rest = memoryview(item.encode("utf-8") if isinstance(item, str) else item)
        piece, self._rest = self._rest[:limit], self._rest[limit:]
        return piece

    def _go_on(self) -> None:
        self._timer = None
        if self.on_ready is not None:
            self._reactor.call_soon(self.on_ready)

    def close(self) -> None:
        self.on_ready = None
        self._rest = memoryview(b"")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        iterator, self._iterator = self._iterator, None
        close = getattr(iterator, "close", None)
        if close is not None:
            close()  # a generator's finally clauses run now
