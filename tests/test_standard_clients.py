"""Python's own clients, http.client and urllib, against our server in a process of its own."""

from __future__ import annotations

import email.parser
import gzip
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.test_run import PORT_0, Running

LARGE = random.Random(7).randbytes(3_000_000)
SECONDS = 20.0  # of patience with the server's process
API = '''
import hashlib
from handlers.api import Api, Event, Pause, Problem, event_stream

api = Api(cors="*", limit=1000)


def digest(call, piece):
    call.state = call.state or hashlib.sha256()
    call.state.update(piece)


@api.put("/things/{name}", receive=digest)
def upload(call, name):
    return {"name": name, "sha256": call.state.hexdigest() if call.state else None}


@api.post("/things")
def make(call):
    thing = call.json({"name": str, "price": (int, float), "tags?": [str]})
    return 201, thing, [("Location", f"/things/{thing['name']}")]


@api.get("/things/{number:int}/{ratio:float}/{rest:path}")
def typed(number, ratio, rest):
    return [number, ratio, rest]


@api.post("/form")
def form(call):
    return {name: call.form.get_all(name) for name in ("a", "b")}


@api.post("/files", files=lambda call, part, piece: digest(call, piece))
def files(call):
    return {"title": call.form.get("title"), "sha256": call.state.hexdigest()}


@api.get("/lines")
def lines():
    return (f"line {number}\\n" for number in range(1000))


@api.get("/events")
def events():
    return event_stream(["one", Pause(0.01), Event("two\\nlines", event="named", id="2")])


@api.get("/teapot")
def teapot():
    raise Problem(418, "It is a teapot.", spout="short")
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("standard")
    files = {
        "small.txt": b"small\n", "large.bin": LARGE, "empty": b"", "page/index.html": b"<p>index</p>",
        "text.css": b"a{}" * 1000, "text.css.gz": gzip.compress(b"a{}" * 1000),
    }  # fmt: skip
    for name, content in files.items():
        path = folder / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (1e9, 1e9))
    (folder / "things.py").write_text(API)
    running = Running(folder, "--role", "server", *PORT_0, "--root", "site", "--listing", "--api", "things:api", "--access-log", "off")
    try:
        yield running
        running.signal(signal.SIGTERM)
        assert running.end() == (0, "", "")
    finally:
        running.kill()


@pytest.fixture
def client(server: Running) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.ports["server"], timeout=SECONDS)
    yield connection
    connection.close()


Asked = tuple[http.client.HTTPResponse, bytes]


def ask(client: http.client.HTTPConnection, method: str, path: str, body: object = None, **fields: str) -> Asked:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    client.request(method, path, body, headers)  # type: ignore[arg-type]
    response = client.getresponse()
    return response, response.read()


def local_port(client: http.client.HTTPConnection) -> int:
    assert isinstance(client.sock, socket.socket)
    return int(client.sock.getsockname()[1])


# http.client: one connection.


def test_everything_on_one_connection(client: http.client.HTTPConnection) -> None:
    client.connect()
    port = local_port(client)
    for method, path, status in (
        ("GET", "/small.txt", 200), ("HEAD", "/large.bin", 200), ("GET", "/none", 404), ("POST", "/small.txt", 405),
        ("GET", "/page", 301), ("GET", "/page/", 200), ("OPTIONS", "/small.txt", 204), ("GET", "/api/code/500", 500),
        ("GET", "/large.bin", 200), ("GET", "/lines", 200), ("PROPFIND", "/", 501),
    ):  # fmt: skip
        response, body = ask(client, method, path)
        assert (response.status, response.version) == (status, 11), path
        assert not response.will_close
        if method == "HEAD":
            assert (response.getheader("Content-Length"), body) == (str(len(LARGE)), b"")
    assert local_port(client) == port


def test_validators(client: http.client.HTTPConnection) -> None:
    response, _ = ask(client, "GET", "/small.txt")
    tag, date = response.getheader("ETag") or "", response.getheader("Last-Modified") or ""
    for fields, status in (
        ({"If_None_Match": tag}, 304), ({"If_None_Match": '"x"'}, 200), ({"If_Modified_Since": date}, 304),
        ({"If_Match": '"x"'}, 412), ({"If_Match": tag, "If_None_Match": tag}, 304),
        ({"If_Unmodified_Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 412),
        ({"If_None_Match": '"x"', "If_Modified_Since": date}, 200),
    ):  # fmt: skip
        assert ask(client, "GET", "/small.txt", **fields)[0].status == status, fields


@pytest.mark.parametrize(
    ("value", "part"),
    [("bytes=5-9", slice(5, 10)), ("bytes=2999990-", slice(2_999_990, None)), ("bytes=-7", slice(-7, None)),
     ("bytes=0-2999999", slice(None))],
)  # fmt: skip
def test_a_range(client: http.client.HTTPConnection, value: str, part: slice) -> None:
    response, body = ask(client, "GET", "/large.bin", Range=value)
    assert (response.status, body) == (206, LARGE[part])
    assert response.getheader("Content-Range", "").endswith(f"/{len(LARGE)}")


def test_several_ranges_are_a_message_that_the_email_parser_reads(client: http.client.HTTPConnection) -> None:
    response, body = ask(client, "GET", "/large.bin", Range="bytes=0-99,1000-1999,-5")
    kind = response.getheader("Content-Type") or ""
    message = email.parser.BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    parts = message.get_payload()
    assert isinstance(parts, list) and response.status == 206
    ranges = [part["Content-Range"] for part in parts]  # type: ignore[index]
    assert ranges == ["bytes 0-99/3000000", "bytes 1000-1999/3000000", "bytes 2999995-2999999/3000000"]


def test_a_range_that_is_not_there(client: http.client.HTTPConnection) -> None:
    response, body = ask(client, "GET", "/small.txt", Range="bytes=6-", Accept="application/json")
    assert (response.status, response.getheader("Content-Range")) == (416, "bytes */6")
    assert json.loads(body)["status"] == 416


def test_a_download_resumed(client: http.client.HTTPConnection) -> None:
    response, _ = ask(client, "HEAD", "/large.bin")
    tag = response.getheader("ETag") or ""
    response, rest = ask(client, "GET", "/large.bin", Range="bytes=1000000-", If_Range=tag)
    assert (response.status, LARGE[:1_000_000] + rest == LARGE) == (206, True)
    response, whole = ask(client, "GET", "/large.bin", Range="bytes=1000000-", If_Range='"another"')
    assert (response.status, whole == LARGE) == (200, True)


def test_a_precompressed_neighbour(client: http.client.HTTPConnection) -> None:
    for accepted, coding in (("gzip", "gzip"), ("gzip;q=0", None), ("br, identity;q=0.5, *;q=0.1", None)):
        response, body = ask(client, "GET", "/text.css", Accept_Encoding=accepted)
        assert (response.getheader("Content-Encoding"), response.getheader("Vary")) == (coding, "Accept-Encoding")
        assert (gzip.decompress(body) if coding else body) == b"a{}" * 1000


def test_an_upload_of_each_framing(client: http.client.HTTPConnection) -> None:
    wanted = hashlib.sha256(LARGE).hexdigest()
    pieces = (LARGE[at : at + 70_000] for at in range(0, len(LARGE), 70_000))
    for body in (LARGE, pieces):  # with a length, and chunked
        response, answer = ask(client, "PUT", "/things/large", body)
        assert (response.status, json.loads(answer)) == (200, {"name": "large", "sha256": wanted})


def test_json_in_and_out(client: http.client.HTTPConnection) -> None:
    good = json.dumps({"name": "spoon", "price": 2.5})
    response, body = ask(client, "POST", "/things", good, Content_Type="application/json")
    assert (response.status, response.getheader("Location"), json.loads(body)["price"]) == (201, "/things/spoon", 2.5)
    for text, kind, status, member in (
        (good, "text/plain", 415, "detail"),
        ('{"name": "spoon",}', "application/json", 400, "column"),
        ('{"name": 3, "tags": ["a", 1]}', "application/json", 422, "errors"),
        ('{"name": "' + "x" * 1000 + '"}', "application/json", 413, "detail"),
    ):
        response, body = ask(client, "POST", "/things", text, Content_Type=kind)
        problem = json.loads(body)
        assert (response.status, response.getheader("Content-Type")) == (status, "application/problem+json")
        assert problem["status"] == status and member in problem
        if status == 422:
            assert {error["pointer"] for error in problem["errors"]} == {"#/name", "#/price", "#/tags/1"}


def test_typed_parameters(client: http.client.HTTPConnection) -> None:
    assert json.loads(ask(client, "GET", "/things/-7/2.5/a/b%20c")[1]) == [-7, 2.5, "a/b c"]
    assert ask(client, "GET", "/things/x/2.5/a")[0].status == 404


def test_forms(client: http.client.HTTPConnection) -> None:
    response, body = ask(client, "POST", "/form", "a=1&b=%C3%A9+x&a=2", Content_Type="application/x-www-form-urlencoded")
    assert json.loads(body) == {"a": ["1", "2"], "b": ["é x"]}
    head = "--b\r\nContent-Disposition: form-data; name="
    form = (f'{head}"title"\r\n\r\nnotes\r\n{head}"file"; filename="n.bin"\r\n\r\n').encode() + LARGE + b"\r\n--b--\r\n"
    response, body = ask(client, "POST", "/files", form, Content_Type="multipart/form-data; boundary=b")
    assert json.loads(body) == {"title": "notes", "sha256": hashlib.sha256(LARGE).hexdigest()}


def test_streams(client: http.client.HTTPConnection) -> None:
    response, body = ask(client, "GET", "/lines")
    assert (response.getheader("Transfer-Encoding"), body.count(b"\n")) == ("chunked", 1000)
    response, body = ask(client, "GET", "/events")
    assert response.getheader("Content-Type") == "text/event-stream"
    assert body == b"data: one\n\nevent: named\nid: 2\ndata: two\ndata: lines\n\n"


def test_what_every_route_has(client: http.client.HTTPConnection) -> None:
    response, body = ask(client, "HEAD", "/lines")
    assert (response.status, body) == (200, b"")
    response, _ = ask(client, "OPTIONS", "/things", Origin="http://a", Access_Control_Request_Method="POST")
    assert (response.status, response.getheader("Allow")) == (204, "POST, OPTIONS")
    assert response.getheader("Access-Control-Allow-Methods") == "POST, OPTIONS"
    response, body = ask(client, "DELETE", "/things")
    assert (response.status, response.getheader("Allow"), json.loads(body)["status"]) == (405, "POST, OPTIONS", 405)
    response, body = ask(client, "GET", "/teapot")
    assert (response.status, json.loads(body)["spout"]) == (418, "short")
    assert response.getheader("Access-Control-Allow-Origin") == "*"


def test_errors_are_pages_or_json(client: http.client.HTTPConnection) -> None:
    for accept, kind in (("text/html,*/*;q=0.8", "text/html; charset=utf-8"), ("application/json", "application/problem+json")):
        response, body = ask(client, "GET", "/none", Accept=accept)
        assert (response.status, response.getheader("Content-Type")) == (404, kind)
        assert b"no such file" in body


def test_a_listing_as_json(client: http.client.HTTPConnection) -> None:
    found = json.loads(ask(client, "GET", "/?sort=size&order=desc", Accept="application/json")[1])
    names = [entry["name"] for entry in found["entries"]]
    assert names == ["page", "large.bin", "text.css", "text.css.gz", "small.txt", "empty"]


# urllib: a connection for each, redirects followed.


def fetch(server: Running, path: str, **headers: str) -> tuple[str, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.ports['server']}{path}", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=SECONDS) as response:
        return response.url, response.read()


def test_urllib(server: Running) -> None:
    assert fetch(server, "/large.bin")[1] == LARGE
    assert fetch(server, "/page")[0].endswith("/page/")
    url, body = fetch(server, "/api/redirect/5")
    assert url.endswith("/api/echo") and json.loads(body)["method"] == "GET"
    with pytest.raises(urllib.error.HTTPError) as raised:
        fetch(server, "/none")
    assert (raised.value.code, b"404" in raised.value.read()) == (404, True)
    raised.value.close()
