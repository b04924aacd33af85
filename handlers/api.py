"""An API of plain functions: the server's Api handler.

    api = Api()

    @api.get("/api/items/{id:int}")
    def item(call, id):
        return {"id": id, "wanted": call.query.get("field", "all")}

A function takes the Call, where it has a parameter for it, and the path's parameters by name. It returns a dict or list
(JSON), str, bytes, None (204), an iterator or Source (streamed), (status, body), (status, body, fields) or a Response; it
raises Problem for an error that the client is told about. It runs on the loop: it must not wait. To answer later it returns
PENDING.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from handlers import builtin
from handlers.calls import BodyReader, Call, Endpoint, Receive, ReceiveFile, problem_of
from handlers.cors import Cors
from handlers.event_streams import Channel, Event, event_stream
from handlers.pages import method_refused
from handlers.responses import PENDING, JsonHeads, Pause, Problem, Response, encode_json, render
from handlers.routes import Route, Routes
from reactor.errors import ProtocolError
from reactor.exchange import Body, Exchange, Head

BODY = 1024 * 1024  # bytes of a request's body that is held whole, unless a route says otherwise: 413 beyond

__all__ = [
    "PENDING", "Api", "Call", "Channel", "Event", "Pause", "Problem", "Response", "builtin_api", "event_stream",
]  # fmt: skip

_NO_PARAMS: dict[str, Any] = {}  # of a path without any; nobody changes it

F = TypeVar("F", bound=Callable[..., Any])


class Api:
    """Functions by method and path.

    `cors` lists the origins whose pages may use it, `"*"` for all. `limit` is that of a request's body in bytes.
    """

    def __init__(self, *, cors: str | Sequence[str] = (), limit: int = BODY) -> None:
        self.routes: Routes[Endpoint] = Routes()
        self.requests = 0
        self.answers = [0] * 6  # by the first digit of their status
        self._limit = limit
        self._json_heads = JsonHeads()
        self._cors = Cors(cors) if cors else None

    # Registration.

    def route(
        self, path: str, methods: Iterable[str], *, limit: int | None = None, receive: Receive | None = None,
        files: ReceiveFile | None = None,
    ) -> Callable[[F], F]:  # fmt: skip
        """Register the decorated function.

        `receive(call, piece)` takes the body as it arrives, before the function is called; `files(call, part, piece)`
        does so with the files of a form, an empty piece ending each, while its other fields go to `call.form`. Neither has
        a limit of its own. Raises ValueError for a bad path or one registered already, TypeError for a function that
        cannot be called so.
        """

        def register(function: F) -> F:
            takes_call, names = _signature(function, Route[Endpoint](path).names)
            endpoint = Endpoint(function, takes_call, names, self._limit if limit is None else limit, receive, files)
            self.routes.add(path, [method.encode("ascii") for method in methods], endpoint)
            return function

        return register

    def get(self, path: str, **options: Any) -> Callable[[F], F]:
        return self.route(path, ("GET",), **options)

    def post(self, path: str, **options: Any) -> Callable[[F], F]:
        return self.route(path, ("POST",), **options)

    def put(self, path: str, **options: Any) -> Callable[[F], F]:
        return self.route(path, ("PUT",), **options)

    def patch(self, path: str, **options: Any) -> Callable[[F], F]:
        return self.route(path, ("PATCH",), **options)

    def delete(self, path: str, **options: Any) -> Callable[[F], F]:
        return self.route(path, ("DELETE",), **options)

    def include(self, other: Api) -> None:
        """Add another Api's routes to this one's; raises ValueError where both have the same."""
        for route in other.routes:
            for method, endpoint in route.methods.items():
                self.routes.add(route.pattern, [method], endpoint)

    # Requests.

    def handle(self, exchange: Exchange) -> None:
        if not self.offer(exchange):
            self.answer_not_found(exchange)

    def offer(self, exchange: Exchange) -> bool:
        """Take the exchange if a route fits its path, whatever the method; False leaves it to others."""
        request = exchange.request
        path = request.path
        if b"?" in path:
            path = path.partition(b"?")[0]
        route = self.routes.find(path)
        endpoint = route.methods.get(request.method) if route is not None else None
        if endpoint is None:
            return self._search(exchange, path)
        self._begin(exchange, endpoint, _NO_PARAMS)
        return True

    def answer_not_found(self, exchange: Exchange) -> None:
        self._answer_problem(exchange, Problem(404, "Nothing is found at this path."))

    def _search(self, exchange: Exchange, path: bytes) -> bool:
        """Parameters, another spelling, HEAD for GET, or the reason why the method is refused."""
        method = exchange.request.method
        allowed: dict[bytes, None] = {}
        try:
            for route, params in self.routes.search(path):
                endpoint = route.methods.get(method)
                if endpoint is None and method == b"HEAD":  # RFC 9110 section 9.3.2: as GET; the connection keeps the body
                    endpoint = route.methods.get(b"GET")
                if endpoint is not None:
                    self._begin(exchange, endpoint, params)
                    return True
                allowed.update(dict.fromkeys(route.methods))
        except ProtocolError as error:
            self._answer_problem(exchange, problem_of(error))
            return True
        if allowed:
            self._other_method(exchange, method, _allow(allowed))
        return bool(allowed)

    def _other_method(self, exchange: Exchange, method: bytes, allow: bytes) -> None:
        if method == b"OPTIONS":
            self._send(exchange, Head(204, [(b"Allow", allow)]), b"")
        else:
            self._answer_problem(exchange, Problem(*method_refused(method, allow)))

    def _begin(self, exchange: Exchange, endpoint: Endpoint, params: dict[str, Any]) -> None:
        self.requests += 1
        body = exchange.body
        streamed = endpoint.receive is not None or endpoint.files is not None
        if streamed or type(body) is not bytes or len(body) > endpoint.limit:
            BodyReader(Call(self, exchange, endpoint, params)).begin(body)
        elif endpoint.takes_call:
            self.run(Call(self, exchange, endpoint, params, body))
        else:
            self._run_without(exchange, endpoint, params)

    def run(self, call: Call) -> None:
        endpoint, params = call.endpoint, call.params
        if not endpoint.takes_call:
            self._run_without(call.exchange, endpoint, params)
            return
        try:
            value = endpoint.function(call, **{name: params[name] for name in endpoint.names})
        except Problem as problem:
            value = problem.response()
        self.answer(call.exchange, value)

    def _run_without(self, exchange: Exchange, endpoint: Endpoint, params: dict[str, Any]) -> None:
        """A function that does not take the call: where its body is there too, none is made."""
        try:
            if endpoint.names:
                value = endpoint.function(**{name: params[name] for name in endpoint.names})
            else:
                value = endpoint.function()
        except Problem as problem:
            value = problem.response()
        self.answer(exchange, value)

    # Answers.

    def answer(self, exchange: Exchange, value: Any) -> None:
        """What a function returned, or would have."""
        kind = type(value)
        if (kind is dict or kind is list) and self._cors is None:
            body: Body = encode_json(value)
            self.answers[2] += 1
            exchange.respond(self._json_heads.head(exchange.reactor.wall, len(body)), body)  # type: ignore[arg-type]
        elif value is not PENDING:
            head, body = render(value, exchange.reactor)
            self._send(exchange, head, body)

    def _answer_problem(self, exchange: Exchange, problem: Problem) -> None:
        self.answer(exchange, problem.response())

    def _send(self, exchange: Exchange, head: Head, body: Body) -> None:
        self.answers[head.status // 100] += 1
        if self._cors is not None:
            head = self._cors.map_head(exchange, head)
        exchange.respond(head, body)


def _signature(function: Callable[..., Any], names: list[str]) -> tuple[bool, tuple[str, ...]]:
    """Whether a function takes the Call, and which of the path's parameters."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__name__} is async: functions of an Api are plain ones")
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        taken = tuple(names)
    else:
        taken = tuple(parameter.name for parameter in parameters if parameter.name in names)
    others = [parameter for parameter in parameters if parameter.name not in taken and parameter.default is parameter.empty]
    others = [parameter for parameter in others if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)]
    if len(others) > 1 or any(parameter.kind is parameter.KEYWORD_ONLY for parameter in others):
        raise TypeError(f"{function.__name__} takes more than the call and the parameters of its path")
    return bool(others), taken


def _allow(methods: Iterable[bytes]) -> bytes:
    names = dict.fromkeys(methods)
    if b"GET" in names:
        names.setdefault(b"HEAD")
    names.setdefault(b"OPTIONS")
    return b", ".join(names)


def builtin_api(facts: Callable[[], dict[str, Any]] | None = None) -> Api:
    """An Api with the routes that every server has; `facts` adds what the process knows to /api/status."""
    api = Api()
    started = time.monotonic()

    @api.get("/api/status")
    def status() -> dict[str, Any]:
        answered = {f"{digit}xx": api.answers[digit] for digit in range(2, 6)}
        found = {
            "status": "ok",
            "uptime": round(time.monotonic() - started, 3),
            "requests": api.requests,
            "answered": answered,
        }
        return found if facts is None else {**found, **facts()}

    for methods, path, function in builtin.ROUTES:
        api.route(path, methods)(function)
    return api
