"""APIs of plain functions: what they are given, and what becomes of what they return."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.api import PENDING, Api, Call, Channel, Event, Pause, Problem, Response, event_stream
from handlers.event_streams import CHANNEL_BYTES
from reactor.errors import BodyCutShort, ProtocolError
from reactor.exchange import BytesSource, Source
from reactor.http.forms import Part
from tests.handlers.asking import Clock, SlowBody, ask
from tests.strategies import thorough


@pytest.fixture
def api() -> Api:
    return Api()


# Routes.


def test_a_route(api: Api) -> None:
    @api.get("/api/hello")
    def hello() -> dict[str, str]:
        return {"hello": "world"}

    answer = ask(api, "GET /api/hello")
    assert (answer.status, answer.field("Content-Type"), answer.content) == (200, "application/json", b'{"hello":"world"}')
    assert ask(api, "GET /api/hello?a=b").json == {"hello": "world"}
    for path in ("/api/hello/", "/api/hell", "/api", "/API/hello", "/api//hello"):
        assert ask(api, f"GET {path}").status == 404


@pytest.mark.parametrize(
    ("pattern", "path", "value"),
    [
        ("/x/{value}", "/x/abc", "abc"),
        ("/x/{value}", "/x/a%20b", "a b"),
        ("/x/{value}", "/x/caf%C3%A9", "café"),
        ("/x/{value}", "/x/a%2Fb", "a/b"),
        ("/x/{value:str}", "/x/17", "17"),
        ("/x/{value:int}", "/x/17", 17),
        ("/x/{value:int}", "/x/-17", -17),
        ("/x/{value:float}", "/x/1.5", 1.5),
        ("/x/{value:float}", "/x/2", 2.0),
        ("/x/{value:path}", "/x/a/b/c.txt", "a/b/c.txt"),
        ("/x/{value:uuid}", "/x/12345678-1234-5678-1234-567812345678", uuid.UUID("12345678-1234-5678-1234-567812345678")),
        ("/x/{value:int}.json", "/x/3.json", 3),
        ("/x-{value:int}/y", "/x-3/y", 3),
        ("/caf\u00e9/{value}", "/caf%c3%a9/1", "1"),
        ("/~{value}", "/%7eme", "me"),
    ],
)
def test_a_parameter(api: Api, pattern: str, path: str, value: object) -> None:
    seen: list[object] = []
    api.get(pattern)(lambda value: seen.append(value))
    assert ask(api, f"GET {path}").status == 204
    assert seen == [value]


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/x/{value}", "/x/"),
        ("/x/{value}", "/x/a/b"),
        ("/x/{value:int}", "/x/+1"),
        ("/x/{value:int}", "/x/1_0"),
        ("/x/{value:int}", "/x/1.0"),
        ("/x/{value:int}", "/x/" + "9" * 19),
        ("/x/{value:int}", "/x/%D9%A3"),
        ("/x/{value:float}", "/x/nan"),
        ("/x/{value:float}", "/x/1e9"),
        ("/x/{value:float}", "/x/."),
        ("/x/{value:uuid}", "/x/1234"),
        ("/x/{value:path}", "/x/"),
        ("/x.y/{value}", "/xzy/1"),
    ],
)
def test_a_path_that_does_not_fit(api: Api, pattern: str, path: str) -> None:
    api.get(pattern)(lambda value: None)
    assert ask(api, f"GET {path}").status == 404


@pytest.mark.parametrize("path", ["/x/%ff", "/x/%zz", "/x/%"])
def test_a_parameter_that_is_malformed(api: Api, path: str) -> None:
    api.get("/x/{value}")(lambda value: None)
    assert ask(api, f"GET {path}").status == 400


def test_several_parameters_and_the_call(api: Api) -> None:
    @api.get("/{user}/items/{item:int}")
    def show(call: Call, item: int) -> list[Any]:
        return [item, call.params["user"], call.path, call.query.get("q")]

    assert ask(api, "GET /me/items/3?q=x").json == [3, "me", "/me/items/3", "x"]


def test_a_function_of_any_parameters(api: Api) -> None:
    @api.get("/{a}/{b}")
    def show(request: Call, **params: str) -> list[Any]:
        return [request.method, params]

    assert ask(api, "GET /1/2").json == ["GET", {"a": "1", "b": "2"}]


def test_literal_routes_go_first_and_then_in_order(api: Api) -> None:
    api.get("/x/{value}")(lambda: "any")
    api.get("/x/{value:int}")(lambda: "number")
    api.get("/x/me")(lambda: "me")
    api.delete("/x/{value:int}")(lambda: "gone")
    assert [ask(api, f"GET /x/{path}").content for path in ("me", "1", "you")] == [b"me", b"any", b"any"]
    assert ask(api, "DELETE /x/1").content == b"gone"
    assert ask(api, "DELETE /x/you").field("Allow") == "GET, HEAD, OPTIONS"
    assert ask(api, "PUT /x/1").field("Allow") == "GET, DELETE, HEAD, OPTIONS"


def test_methods(api: Api) -> None:
    for register in (api.get, api.post, api.put, api.patch, api.delete):
        register("/x")(lambda call: call.method)
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        assert ask(api, f"{method} /x").content == method.encode()
    api.route("/y", ("GET", "PURGE"))(lambda call: call.method)
    assert ask(api, "PURGE /y").content == b"PURGE"


def test_head_is_answered_as_get(api: Api) -> None:
    api.get("/x")(lambda: "text")
    api.get("/y/{z}")(lambda: "text")
    assert ask(api, "HEAD /x").status == ask(api, "HEAD /y/1").status == 200


def test_options(api: Api) -> None:
    api.get("/x")(lambda: None)
    api.post("/x")(lambda: None)
    answer = ask(api, "OPTIONS /x")
    assert (answer.status, answer.field("Allow")) == (204, "GET, POST, HEAD, OPTIONS")
    assert ask(api, "OPTIONS /y").status == 404


def test_other_methods(api: Api) -> None:
    api.get("/x")(lambda: None)
    refused = ask(api, "DELETE /x")
    assert (refused.status, refused.field("Allow")) == (405, "GET, HEAD, OPTIONS")
    assert refused.field("Content-Type") == "application/problem+json"
    assert refused.json["title"] == "Method Not Allowed"
    assert ask(api, "BREW /x").status == 501


@pytest.mark.parametrize("pattern", ["x", "", "/{", "/}", "/{a:thing}", "/{a}/{a}", "/{a b}"])
def test_a_pattern_that_is_none(api: Api, pattern: str) -> None:
    with pytest.raises(ValueError):
        api.get(pattern)(lambda: None)


def test_a_route_that_is_taken(api: Api) -> None:
    api.get("/x")(lambda: None)
    with pytest.raises(ValueError, match="GET /x is registered twice"):
        api.get("/x")(lambda: None)
    other = Api()
    other.get("/x")(lambda: None)
    with pytest.raises(ValueError):
        api.include(other)


def test_functions_that_cannot_be_called(api: Api) -> None:
    async def later() -> None: ...

    for function in (later, lambda call, other: None, lambda *, call: None):
        with pytest.raises(TypeError):
            api.get("/x")(function)


def test_one_api_in_another(api: Api) -> None:
    other = Api()
    other.get("/x/{value:int}")(lambda value: value)
    api.include(other)
    assert ask(api, "GET /x/3").content == b"3"


# What a function returns.


@pytest.mark.parametrize(
    ("value", "status", "kind", "content"),
    [
        ({"a": 1}, 200, "application/json", b'{"a":1}'),
        (["\u00e9"], 200, "application/json", '["\u00e9"]'.encode()),
        ("text", 200, "text/plain; charset=utf-8", b"text"),
        (b"\0\1", 200, "application/octet-stream", b"\0\1"),
        (bytearray(b"x"), 200, "application/octet-stream", b"x"),
        (None, 204, None, b""),
        (3, 200, "application/json", b"3"),
        (True, 200, "application/json", b"true"),
        ((201, {"id": 1}), 201, "application/json", b'{"id":1}'),
        ((404, "no"), 404, "text/plain; charset=utf-8", b"no"),
        ((302, None, [("Location", "/x")]), 302, None, b""),
        (Response("<p>", content_type="text/html"), 200, "text/html", b"<p>"),
        (Response({"a": 1}, 418, [("X-A", "b")]), 418, "application/json", b'{"a":1}'),
        ((202, Response("x", fields=[("X-A", "b")])), 202, "text/plain; charset=utf-8", b"x"),
        (Response("x", fields=[("Content-Type", "a/b")]), 200, "a/b", b"x"),
    ],
)
def test_values(api: Api, value: object, status: int, kind: str | None, content: bytes) -> None:
    api.get("/x")(lambda: value)
    answer = ask(api, "GET /x")
    assert (answer.status, answer.field("Content-Type"), answer.content) == (status, kind, content)


texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
)


@thorough
@given(st.lists(json_values, max_size=3) | st.dictionaries(texts, json_values, max_size=3))
def test_json_reads_back(value: object) -> None:
    api = Api()
    api.get("/x")(lambda: value)
    answer = ask(api, "GET /x")
    assert answer.json == value
    assert answer.content == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def test_the_head_of_json_is_this_seconds(api: Api) -> None:
    clock = Clock()
    api.get("/x")(lambda: {"a": 1})
    heads = []
    for seconds in (0, 0.5, 0.5):
        clock.pass_(seconds)
        head = ask(api, "GET /x", clock).head
        assert head is not None and head.wire is not None
        heads.append(head.wire)
    assert heads[0] == heads[1] == heads[2].replace(b"22:13:21", b"22:13:20")
    assert heads[0].splitlines() == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: application/json",
        b"Date: Tue, 14 Nov 2023 22:13:20 GMT",
        b"Content-Length: 7",
        b"",
    ]


def test_a_value_that_holds_itself(api: Api) -> None:
    value: list[object] = []
    value.append(value)
    api.get("/x")(lambda: value)
    with pytest.raises(RecursionError):
        ask(api, "GET /x")


def test_fields_of_a_response(api: Api) -> None:
    api.get("/x")(lambda: (302, None, [("Location", "/y"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]))
    answer = ask(api, "GET /x")
    assert answer.field("Location") == "/y"
    assert answer.head is not None and answer.head.fields.get_all(b"set-cookie") == [b"a=1", b"b=2"]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (object(), TypeError),
        ((1, 2, 3, 4), TypeError),
        (("x", 1), TypeError),
        ((99, "x"), ValueError),
        ((600, "x"), ValueError),
        ({"a": object()}, TypeError),
        ([float("nan")], ValueError),
        (Response("x", fields=[("X", "a\r\nb: c")]), ProtocolError),
    ],
)
def test_values_that_are_none(api: Api, value: object, error: type[Exception]) -> None:
    """The server's own mistakes are raised: the connection answers 500, and the log has the traceback."""
    api.get("/x")(lambda: value)
    with pytest.raises(error):
        ask(api, "GET /x")


def test_what_a_function_raises_is_raised(api: Api) -> None:
    api.get("/x")(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ask(api, "GET /x")


def test_a_problem(api: Api) -> None:
    @api.get("/x")
    def out_of_stock() -> None:
        raise Problem(409, "Sold out.", [("Retry-After", "60")], type="https://example.com/stock", left=0)

    answer = ask(api, "GET /x")
    assert (answer.status, answer.field("Content-Type")) == (409, "application/problem+json")
    assert answer.field("Retry-After") == "60"
    assert answer.json == {
        "type": "https://example.com/stock", "title": "Conflict", "status": 409, "detail": "Sold out.", "left": 0,
    }  # fmt: skip


# Bodies that come.


def test_a_body_that_is_there(api: Api) -> None:
    api.post("/x")(lambda call: call.body)
    assert ask(api, "POST /x\n\nbody").content == b"body"
    assert ask(api, "POST /x\n\nbody", streamed=True).content == b"body"
    assert ask(api, "POST /x").content == b""


def test_a_body_that_comes_slowly(api: Api) -> None:
    api.post("/x")(lambda call: call.body)
    clock = Clock()
    body = SlowBody(clock)
    answer = ask(api, "POST /x", clock, body)
    body.send(b"one ")
    body.send(b"two ", b"three")
    assert not answer.status, "the function is called with the whole body"
    body.send(b"")
    assert (answer.status, answer.content) == (200, b"one two three")


@pytest.mark.parametrize("known", [True, False])
def test_a_body_that_is_too_large(known: bool) -> None:
    api = Api(limit=10)
    api.post("/x")(lambda call: call.body)
    api.post("/larger", limit=20)(lambda call: call.body)
    clock = Clock()
    body = SlowBody(clock, 11 if known else None)
    answer = ask(api, "POST /x", clock, body)
    if not known:
        body.send(b"12345", b"67890")
        assert not answer.status
        body.send(b"1")
    assert (answer.status, answer.json["title"]) == (413, "Content Too Large")
    assert ask(api, "POST /x\n\n12345678901").status == 413
    assert ask(api, "POST /x\n\n1234567890").status == 200
    assert ask(api, "POST /larger\n\n12345678901").status == 200


def test_a_body_that_breaks_off(api: Api) -> None:
    api.post("/x")(lambda call: call.body)
    clock = Clock()
    body = SlowBody(clock)
    answer = ask(api, "POST /x", clock, body)
    body.send(b"one")
    body.cut(BodyCutShort("the body did not arrive in time", 408))
    assert (answer.status, answer.json["detail"]) == (408, "The body did not arrive in time.")


def test_what_a_function_raises_later_ends_its_exchange(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.post("/x")(lambda call: 1 / 0)
    clock = Clock()
    body = SlowBody(clock)
    answer = ask(api, "POST /x", clock, body)
    body.send(b"")
    assert answer.status == 500
    assert "ZeroDivisionError" in caplog.text


def test_a_body_that_is_streamed(api: Api) -> None:
    def receive(call: Call, piece: bytes) -> None:
        call.state = (call.state or []) + [piece]

    @api.put("/x/{name}", receive=receive)
    def received(call: Call, name: str) -> list[Any]:
        return [name, [piece.decode() for piece in call.state or []], call.body.decode()]

    clock = Clock()
    body = SlowBody(clock, 10**12)
    answer = ask(api, "PUT /x/file", clock, body)
    body.send(b"one")
    body.send(b"two")
    body.send(b"")
    assert answer.json == ["file", ["one", "two"], ""]
    assert ask(api, "PUT /x/file\n\nwhole").json == ["file", ["whole"], ""]


def test_who_receives_may_refuse(api: Api) -> None:
    def receive(call: Call, piece: bytes) -> None:
        raise Problem(507, "The disk is full.")

    api.put("/x", receive=receive)(lambda: None)
    assert ask(api, "PUT /x\n\nwhole", streamed=True).status == 507


def test_a_client_that_leaves_while_it_sends(api: Api) -> None:
    ended: list[str | None] = []

    def receive(call: Call, piece: bytes) -> None:
        call.on_end(lambda exchange: ended.append(exchange.failure))

    api.put("/x", receive=receive)(lambda: None)
    clock = Clock()
    body = SlowBody(clock)
    answer = ask(api, "PUT /x", clock, body)
    body.send(b"one")
    answer.leave()
    assert ended == ["the client left"]


# JSON in.


def test_json(api: Api) -> None:
    api.post("/x")(lambda call: {"got": call.json()})
    for kind in ("application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"):
        assert ask(api, f'POST /x\nContent-Type: {kind}\n\n{{"a": [1, null]}}').json == {"got": {"a": [1, None]}}


@pytest.mark.parametrize("kind", ["text/plain", "text/json", "application/xml", "application/x-www-form-urlencoded", ""])
def test_json_of_another_type(api: Api, kind: str) -> None:
    api.post("/x")(lambda call: call.json())
    answer = ask(api, f"POST /x\nContent-Type: {kind}\n\n1")
    assert (answer.status, answer.field("Accept")) == (415, "application/json")
    assert ask(api, "POST /x\n\n1").status == 415


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b"", "line 1, column 1"),
        (b"{} {}", "line 1, column 4"),
        (b"\xff", "at byte 0"),
        (b"[NaN]", "NaN"),
        (b"-Infinity", "Infinity"),
        (b"[" * 100_000, "too deeply"),
        (b"1" * 5000, "cannot be read"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
    ],
)
def test_json_that_is_malformed(api: Api, data: bytes, detail: str) -> None:
    api.post("/x")(lambda call: call.json())
    answer = ask(api, b"POST /x\nContent-Type: application/json\n\n" + data)
    assert answer.status == 400 and detail in answer.json["detail"]


def test_where_json_is_malformed(api: Api) -> None:
    api.post("/x")(lambda call: call.json())
    told = ask(api, "POST /x\nContent-Type: application/json\n\n[1,\n2 3]").json
    assert (told["line"], told["column"]) == (2, 3)


SHAPE: dict[str, Any] = {
    "name": str,
    "count?": int,
    "tags": [str],
    "price": (float, None),
    "at": {"x": float},
    "any": object,
    "on": bool,
}
GOOD: dict[str, Any] = {"name": "a", "tags": [], "price": None, "at": {"x": 1, "more": 2}, "any": [], "on": True}


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({}, []),
        ({"count": 3, "price": 2.5, "any": None}, []),
        ({"name": 1}, [("#/name", "expected a string")]),
        ({"count": True}, [("#/count", "expected an integer")]),
        ({"count": 1.0}, [("#/count", "expected an integer")]),
        ({"on": 1}, [("#/on", "expected true or false")]),
        ({"tags": ["a", 1, None]}, [("#/tags/1", "expected a string"), ("#/tags/2", "expected a string")]),
        ({"tags": "a"}, [("#/tags", "expected an array")]),
        ({"price": "1"}, [("#/price", "expected a number or null")]),
        ({"at": {}}, [("#/at/x", "missing")]),
        ({"at": []}, [("#/at", "expected an object")]),
        ({"any": ...}, [("#/any", "missing")]),
    ],
)
def test_json_of_a_shape(api: Api, changes: dict[str, Any], errors: list[tuple[str, str]]) -> None:
    api.post("/x")(lambda call: call.json(SHAPE))
    value = {key: found for key, found in {**GOOD, **changes}.items() if found is not ...}
    answer = ask(api, f"POST /x\nContent-Type: application/json\n\n{json.dumps(value)}")
    if errors:
        assert answer.status == 422
        assert [(error["pointer"], error["detail"]) for error in answer.json["errors"]] == errors
    else:
        assert answer.json == value


def test_pointers_are_escaped(api: Api) -> None:
    api.post("/x")(lambda call: call.json({"a/b~c": int}))
    answer = ask(api, "POST /x\nContent-Type: application/json\n\n{}")
    assert answer.json["errors"] == [{"pointer": "#/a~1b~0c", "detail": "missing"}]


# Text, queries and forms.


def test_text(api: Api) -> None:
    api.post("/x")(lambda call: call.text())
    assert ask(api, "POST /x\n\ncaf\xc3\xa9").content == "café".encode()
    assert ask(api, "POST /x\nContent-Type: text/plain; charset=latin-1\n\ncaf\xe9").content == "café".encode()
    assert ask(api, "POST /x\nContent-Type: text/plain; charset=klingon\n\nx").status == 415
    assert ask(api, "POST /x\n\n\xff").status == 400


def test_a_query(api: Api) -> None:
    api.get("/x")(lambda call: [dict(call.query), call.query.get_all("a")])
    assert ask(api, "GET /x?a=1&b=%20+&a=2&c").json == [{"a": "1", "b": "  ", "c": ""}, ["1", "2"]]
    assert ask(api, "GET /x").json == [{}, []]
    assert ask(api, "GET /x?" + "a&" * 2000).status == 400


def test_a_form(api: Api) -> None:
    api.post("/x")(lambda call: dict(call.form))
    assert ask(api, "POST /x\nContent-Type: application/x-www-form-urlencoded\n\na=1&b=c+d").json == {"a": "1", "b": "c d"}
    assert ask(api, "POST /x\nContent-Type: text/plain\n\na=1").status == 415


FORM = (
    '--edge\r\nContent-Disposition: form-data; name="title"\r\n\r\nA day out\r\n'
    '--edge\r\nContent-Disposition: form-data; name="photo"; filename="../me.png"\r\nContent-Type: image/png\r\n\r\nPNG\r\n'
    "--edge--\r\n"
)


@pytest.mark.parametrize("streamed", [True, False])
def test_files_of_a_form(api: Api, streamed: bool) -> None:
    got: list[tuple[str | None, bytes]] = []

    def files(call: Call, part: Part, piece: bytes) -> None:
        got.append((part.filename, piece))

    api.post("/x", files=files)(lambda call: dict(call.form))
    answer = ask(api, f"POST /x\nContent-Type: multipart/form-data; boundary=edge\n\n{FORM}", streamed=streamed)
    assert answer.json == {"title": "A day out"}
    assert b"".join(piece for _, piece in got) == b"PNG"
    assert got[-1] == ("me.png", b"") and {name for name, _ in got} == {"me.png"}


def test_a_form_with_files_that_is_held_whole(api: Api) -> None:
    api.post("/x")(lambda call: dict(call.form))
    assert ask(api, f"POST /x\nContent-Type: multipart/form-data; boundary=edge\n\n{FORM}").json == {"title": "A day out"}


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", FORM, 415),
        ("multipart/form-data", FORM, 400),
        ("multipart/form-data; boundary=edge", FORM[:-10], 400),
        ("multipart/form-data; boundary=edge", FORM.replace("A day out", "x" * 200), 413),
    ],
)
def test_forms_that_are_refused(kind: str, body: str, status: int) -> None:
    api = Api(limit=100)
    api.post("/x", files=lambda call, part, piece: None)(lambda call: dict(call.form))
    assert ask(api, f"POST /x\nContent-Type: {kind}\n\n{body}", streamed=True).status == status


def test_fields_of_a_request(api: Api) -> None:
    api.get("/x")(lambda call: [call.field("X-Thing"), call.field("nothing", "default"), call.peer])
    assert ask(api, "GET /x\nx-thing: \xe9").json == ["é", "default", "192.0.2.7"]


# Bodies that are streamed.


def test_an_iterator(api: Api) -> None:
    def lines() -> Iterator[str | bytes]:
        yield "one\n"
        yield b""
        yield b"two\n"
        yield "x" * 5000

    api.get("/x")(lambda: lines())
    answer = ask(api, "GET /x")
    assert isinstance(answer.answer_body, Source) and answer.answer_body.length is None
    assert answer.content == b"one\ntwo\n" + b"x" * 5000 and answer.whole


def test_an_iterator_that_pauses(api: Api) -> None:
    @api.get("/x")
    def lines() -> Iterator[bytes | Pause]:
        yield b"one"
        yield Pause(2)
        yield b"two"

    clock = Clock()
    answer = ask(api, "GET /x", clock)
    assert answer.content == b"one"
    clock.pass_(1)
    assert answer.content == b"one"
    clock.pass_(1)
    assert answer.content == b"onetwo" and answer.whole
    assert clock.reactor.pending_timers == 0


def test_a_client_that_leaves_an_iterator(api: Api) -> None:
    ended = []

    @api.get("/x")
    def lines() -> Iterator[bytes | Pause]:
        try:
            yield b"one"
            yield Pause(2)
        finally:
            ended.append("ended")

    clock = Clock()
    answer = ask(api, "GET /x", clock)
    assert answer.content == b"one"
    answer.leave()
    assert ended == ["ended"]
    assert clock.reactor.pending_timers == 0


def test_an_iterator_that_raises(api: Api) -> None:
    @api.get("/x")
    def lines() -> Iterator[bytes]:
        yield b"one"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        ask(api, "GET /x").content  # noqa: B018


def test_a_source(api: Api) -> None:
    api.get("/x")(lambda: Response(BytesSource(b"source"), content_type="a/b"))
    answer = ask(api, "GET /x")
    assert (answer.content, answer.field("Content-Type")) == (b"source", "a/b")


def test_events(api: Api) -> None:
    events: list[Any] = ["plain", Event("two\nlines", "news", "7", 1000), Pause(1), Event("")]
    api.get("/x")(lambda: event_stream(iter(events)))
    clock = Clock()
    answer = ask(api, "GET /x", clock)
    assert answer.field("Content-Type") == "text/event-stream"
    assert answer.content == b"data: plain\n\nevent: news\nid: 7\nretry: 1000\ndata: two\ndata: lines\n\n"
    clock.pass_(1)
    assert answer.content.endswith(b"\n\ndata: \n\n")


@pytest.mark.parametrize("event", [Event("x", "a\nb"), Event("x", None, "a\rdata: b"), Event("x", None, "a\0")])
def test_an_event_cannot_write_another(event: Event) -> None:
    with pytest.raises(ValueError):
        event.encode()
    assert Event("a\r\nevent: b\rid: c").encode() == b"data: a\ndata: event: b\ndata: id: c\n\n"


def test_a_channel(api: Api) -> None:
    channels: list[Channel] = []

    @api.get("/x")
    def listen(call: Call) -> Response:
        channels.append(Channel(call.exchange.reactor, channels.remove))
        return event_stream(channels[-1])

    clock = Clock()
    stays, leaves = ask(api, "GET /x", clock), ask(api, "GET /x", clock)
    assert stays.content == b""
    for channel in channels:
        assert channel.send(Event("one").encode())
    clock.settle()
    assert stays.content == b"data: one\n\n"
    leaves.leave()
    clock.settle()
    assert len(channels) == 1
    channels[0].end()
    clock.settle()
    assert stays.whole and not channels


def test_a_channel_that_nobody_empties() -> None:
    channel = Channel(Clock().reactor)
    assert channel.send(b"x" * CHANNEL_BYTES)
    assert not channel.send(b"x")
    with pytest.raises(BodyCutShort):
        channel.pull(1000)
    channel.close()
    assert not channel.send(b"x")


# Answers that come later.


def test_an_answer_after_a_while(api: Api) -> None:
    api.get("/x")(lambda call: call.after(3, {"late": True}))
    clock = Clock()
    answer = ask(api, "GET /x", clock)
    clock.pass_(2)
    assert not answer.status
    clock.pass_(1)
    assert answer.json == {"late": True}


def test_a_client_that_does_not_wait(api: Api) -> None:
    api.get("/x")(lambda call: call.after(3, {"late": True}))
    clock = Clock()
    ask(api, "GET /x", clock).leave()
    assert clock.reactor.pending_timers == 0


def test_an_answer_from_elsewhere(api: Api) -> None:
    waiting: list[Call] = []

    @api.get("/x")
    def wait(call: Call) -> object:
        waiting.append(call)
        return PENDING

    answer = ask(api, "GET /x")
    assert not answer.status
    waiting[0].respond((201, "there"))
    assert (answer.status, answer.content) == (201, b"there")


# CORS.


def test_no_cors_unless_asked_for(api: Api) -> None:
    api.get("/x")(lambda: None)
    answer = ask(api, "GET /x\nOrigin: https://a.example")
    assert answer.field("Access-Control-Allow-Origin") is None
    assert (
        ask(api, "OPTIONS /x\nOrigin: https://a.example\nAccess-Control-Request-Method: GET").field(
            "Access-Control-Allow-Methods"
        )
        is None
    )


def test_cors_for_all() -> None:
    api = Api(cors="*")
    api.get("/x")(lambda: {"a": 1})
    api.get("/y")(lambda: {"a": 1})
    for path in ("/x", "/y", "/missing"):
        assert ask(api, f"GET {path}\nOrigin: https://a.example").field("Access-Control-Allow-Origin") == "*"
    assert ask(Api(), "GET /x").field("Access-Control-Allow-Origin") is None, "one Api's fields are not another's"


def test_cors_for_some() -> None:
    api = Api(cors=["https://a.example", "https://b.example"])
    api.get("/x")(lambda: {"a": 1})
    for origin, allowed in (("https://a.example", "https://a.example"), ("https://c.example", None), ("null", None)):
        answer = ask(api, f"GET /x\nOrigin: {origin}")
        assert (answer.field("Access-Control-Allow-Origin"), answer.field("Vary")) == (allowed, "Origin")
    assert ask(api, "GET /x").field("Vary") == "Origin"


def test_preflight() -> None:
    api = Api(cors="*")
    api.put("/x")(lambda: None)
    answer = ask(
        api,
        "OPTIONS /x\nOrigin: https://a.example\nAccess-Control-Request-Method: PUT\n"
        "Access-Control-Request-Headers: x-a, content-type",
    )
    assert (answer.status, answer.field("Access-Control-Allow-Origin")) == (204, "*")
    assert answer.field("Access-Control-Allow-Methods") == "PUT, OPTIONS"
    assert answer.field("Access-Control-Allow-Headers") == "x-a, content-type"
    assert int(answer.field("Access-Control-Max-Age") or 0) > 0
