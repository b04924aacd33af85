"""One request to a function of an Api: what it asks, its body taken as it arrives, its answer given now or later."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from handlers.responses import PENDING, Pending, Problem
from handlers.shapes import mismatches
from reactor.errors import BodyCutShort, ProtocolError
from reactor.exchange import PULL, Body, Exchange, Source
from reactor.http.fields import Fields
from reactor.http.forms import MultipartParser, Part, PartEnd, Values, parse_urlencoded
from reactor.http.parameters import split_parameters
from reactor.http.parser import Request
from reactor.loop import Timer

Receive = Callable[["Call", bytes], object]
ReceiveFile = Callable[["Call", Part, bytes], object]


class Application(Protocol):
    """What a call belongs to: the Api."""

    def run(self, call: Call) -> None:
        """The body is there: call the function and answer what it returns."""

    def answer(self, exchange: Exchange, value: Any) -> None:
        """Answer what a function returned, or would have."""


class Endpoint(NamedTuple):
    """A function and how it is called."""

    function: Callable[..., Any]
    takes_call: bool
    names: tuple[str, ...]  # of the path's parameters that it takes
    limit: int  # bytes of the body
    receive: Receive | None
    files: ReceiveFile | None


class Call:
    """One request to a function, and what it asks.

    `params` are the path's parameters, `body` the whole body (empty where it was streamed), `state` is the
    application's own.
    """

    __slots__ = ("_form", "_query", "_timer", "api", "body", "endpoint", "exchange", "params", "request", "state")

    def __init__(
        self, api: Application, exchange: Exchange, endpoint: Endpoint, params: dict[str, Any], body: bytes = b""
    ) -> None:
        self.api = api
        self.exchange = exchange
        self.request: Request = exchange.request
        self.endpoint = endpoint
        self.params = params
        self.body = body
        self.state: Any = None
        self._query: Values | None = None
        self._form: Values | None = None
        self._timer: Timer | None = None

    @property
    def method(self) -> str:
        return self.request.method.decode("ascii")

    @property
    def path(self) -> str:
        """The path as sent, without its query."""
        return self.request.path.partition(b"?")[0].decode("ascii")

    @property
    def fields(self) -> Fields:
        return self.request.fields

    @property
    def peer(self) -> str:
        """The client's address."""
        return self.exchange.peer

    def field(self, name: str, default: str | None = None) -> str | None:
        """A field's value as Latin-1, its name in any case."""
        value = self.request.fields.get(name.lower().encode("latin-1"))
        return default if value is None else value.decode("latin-1")

    @property
    def query(self) -> Values:
        """The query's names and values; raises Problem (400) where there are too many."""
        if self._query is None:
            self._query = _parse_pairs(self.request.path.partition(b"?")[2])
        return self._query

    @property
    def content_type(self) -> tuple[bytes, dict[bytes, bytes]]:
        """The media type in lower case and its parameters; empty where none was sent."""
        return split_parameters(self.request.fields.get(b"content-type", b"") or b"")

    def text(self) -> str:
        """The body as text in the charset of its Content-Type, or UTF-8; raises Problem (400, 415)."""
        charset = self.content_type[1].get(b"charset", b"utf-8").decode("latin-1")
        try:
            return self.body.decode(charset)
        except LookupError:
            raise Problem(415, f"The charset {charset} is not known here.") from None
        except (UnicodeDecodeError, ValueError):
            raise Problem(400, f"The body is not {charset}.") from None

    def json(self, shape: Any = None) -> Any:
        """The body as JSON, of this shape where one is given (see handlers.shapes).

        Raises Problem: 415 for another type, 400 with the line and column of a mistake, 422 with pointers to what
        does not fit.
        """
        kind = self.content_type[0]
        if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
            raise Problem(415, "The body is to be application/json.", [(b"Accept", b"application/json")])
        value = _parse_json(self.body)
        if shape is not None:
            errors = mismatches(value, shape)
            if errors:
                raise Problem(422, "The JSON is not as expected.", errors=errors)
        return value

    @property
    def form(self) -> Values:
        """The fields of a form, urlencoded or multipart, files left out; raises Problem (400, 413, 415)."""
        if self._form is None:
            kind = self.content_type[0]
            if kind == b"application/x-www-form-urlencoded":
                self._form = _parse_pairs(self.body)
            elif kind == b"multipart/form-data":
                self._form = _parse_multipart(self)
            else:
                raise Problem(415, "The body is to be a form.")
        return self._form

    def respond(self, value: Any) -> None:
        """Answer now what the function would have returned; after it returned PENDING."""
        self.api.answer(self.exchange, value)

    def after(self, seconds: float, value: Any) -> Pending:
        """Answer `value` in so many seconds, unless the client leaves: `return call.after(1, {...})`."""
        self._timer = self.exchange.reactor.call_later(seconds, self.respond, value)
        self.exchange.on_end(self._cancel)
        return PENDING

    def _cancel(self, exchange: Exchange) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_end(self, callback: Callable[[Exchange], object]) -> None:
        """Call once the exchange is over, however it ended."""
        self.exchange.on_end(callback)

    def failed(self, error: Exception) -> None:
        """A callback of this call raised (logged by the loop)."""
        self.exchange.failed(error)


class BodyReader:
    """Takes a request's body as it arrives: whole up to a limit, or piece by piece to who receives it."""

    __slots__ = ("_body", "_call", "_form", "_held")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._held = bytearray()
        self._form: _FormCollector | None = None
        self._body: Source | None = None

    def begin(self, body: Body) -> None:
        call, endpoint = self._call, self._call.endpoint
        streamed = endpoint.receive is not None or endpoint.files is not None
        known = len(body) if isinstance(body, bytes) else body.length
        try:
            if known is not None and known > endpoint.limit and not streamed:
                raise self._too_large()
            if endpoint.files is not None:
                if call.content_type[0] != b"multipart/form-data":
                    raise Problem(415, "The body is to be multipart/form-data.", [(b"Accept", b"multipart/form-data")])
                self._form = _FormCollector(call, endpoint.files)
            if isinstance(body, bytes):
                self._take(body)
                self._take_end()
        except (Problem, ProtocolError) as error:
            self._refuse(error)
            return
        if isinstance(body, bytes):
            call.api.run(call)
            return
        self._body = body
        body.on_ready = self.ready
        self.ready()

    def _too_large(self) -> Problem:
        return Problem(413, f"The body has more than {self._call.endpoint.limit} bytes.")

    def ready(self) -> None:
        """There is more, or may be."""
        body = self._body
        if body is None or self._call.exchange.status:
            return
        try:
            while (data := body.pull(PULL)) is not None and len(data):
                self._take(data)
            if data is None:
                return
            self._take_end()
        except (Problem, ProtocolError, BodyCutShort) as error:
            self._refuse(error)
            return
        self._call.api.run(self._call)

    def _take(self, data: bytes | memoryview) -> None:
        call, endpoint = self._call, self._call.endpoint
        if self._form is not None:
            self._form.feed(data)
        elif endpoint.receive is not None:
            endpoint.receive(call, bytes(data))
        else:
            if len(self._held) + len(data) > endpoint.limit:
                raise self._too_large()
            self._held += data

    def _take_end(self) -> None:
        self._body = None
        if self._form is not None:
            self._call._form = self._form.finish()
        self._call.body = bytes(self._held)

    def _refuse(self, error: Problem | ProtocolError | BodyCutShort) -> None:
        self._body = None
        problem = error if isinstance(error, Problem) else problem_of(error)
        self._call.api.answer(self._call.exchange, problem.response())

    def failed(self, error: Exception) -> None:
        """A function of the application raised (logged by the loop)."""
        self._call.exchange.failed(error)


def _parse_json(data: bytes) -> Any:
    """RFC 8259, strictly: UTF-8, no NaN or Infinity."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise Problem(400, f"The JSON is not UTF-8, at byte {error.start}.") from None
    except json.JSONDecodeError as error:
        detail = f"The JSON is malformed: {error.msg}, line {error.lineno}, column {error.colno}."
        raise Problem(400, detail, line=error.lineno, column=error.colno) from None
    except RecursionError:
        raise Problem(400, "The JSON is nested too deeply.") from None
    except ValueError as error:
        raise Problem(400, f"The JSON cannot be read: {error}.") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _parse_pairs(data: bytes) -> Values:
    try:
        return parse_urlencoded(data)
    except ProtocolError as error:
        raise problem_of(error) from None


def _parse_multipart(call: Call) -> Values:
    """The fields of a multipart form that was held whole."""
    try:
        collector = _FormCollector(call, None)
        collector.feed(call.body)
        return collector.finish()
    except ProtocolError as error:
        raise problem_of(error) from None


def problem_of(error: ProtocolError | BodyCutShort) -> Problem:
    return Problem(error.status, f"{error.reason[0].upper()}{error.reason[1:]}.")


class _FormCollector:
    """Gathers the fields of a multipart form, and hands its files on."""

    __slots__ = ("_call", "_files", "_pairs", "_parser", "_part", "_room", "_text")

    def __init__(self, call: Call, files: ReceiveFile | None) -> None:
        self._call = call
        self._files = files
        self._parser = MultipartParser.for_type(call.request.fields.get(b"content-type", b"") or b"")
        self._pairs: list[tuple[str, str]] = []
        self._part: Part | None = None
        self._text = bytearray()
        self._room = call.endpoint.limit  # bytes that fields, all together, may still have

    def feed(self, data: bytes | memoryview) -> None:
        for event in self._parser.feed(data):
            if isinstance(event, Part):
                self._part = event
            elif isinstance(event, PartEnd):
                self._end_part()
            elif self._part is not None and self._part.filename is None:
                self._room -= len(event)
                if self._room < 0:
                    raise Problem(413, f"The fields of the form have more than {self._call.endpoint.limit} bytes.")
                self._text += event
            elif self._part is not None and self._files is not None:
                self._files(self._call, self._part, event)

    def _end_part(self) -> None:
        part, self._part = self._part, None
        assert part is not None
        if part.filename is None:
            self._pairs.append((part.name, self._text.decode("utf-8", "replace")))
            self._text.clear()
        elif self._files is not None:
            self._files(self._call, part, b"")

    def finish(self) -> Values:
        self._parser.finish()
        return Values(self._pairs)
