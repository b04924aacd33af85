"""Fetching for scripts: against http.server in a thread, our own server in a process, and peers that break off."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers.client import Transfer, Watcher
from handlers.fetch import Session, fetch
from reactor.client import ClientLimits
from reactor.errors import ConfigError, FetchFailed, StatusError, TimedOut
from reactor.http.parser import Response as Head
from tests.loopback import open_descriptors
from tests.secured import AUTHORITY, server_context, serving

CONTENT = hashlib.shake_256(b"fetch").digest(1_000_003)


class Answers(http.server.BaseHTTPRequestHandler):
    """/whole, /chunked, /gzip, /old (1.0, until the close), /to?status=…&…: a redirect; anything with a body: what came."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/to":
            status, _, where = query.partition("&")
            self.head(int(status), ("Location", where), ("Content-Length", "0"))
        elif path == "/chunked":
            self.head(200, ("Transfer-Encoding", "chunked"), ("Trailer", "Digest"))
            for at in range(0, len(CONTENT), 100_000):
                piece = CONTENT[at : at + 100_000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\nDigest: there\r\n\r\n")
        elif path == "/old":
            self.protocol_version = "HTTP/1.0"
            self.head(200)
            self.wfile.write(CONTENT)
            self.close_connection = True
        else:
            body = gzip.compress(CONTENT * 3) if path == "/gzip" else CONTENT
            self.head(200, ("Content-Length", str(len(body))), *([("Content-Encoding", "gzip")] if path == "/gzip" else []))
            self.wfile.write(body)

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = {"method": self.command, "fields": dict(self.headers), "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        body = json.dumps(told).encode()
        self.head(200, ("Content-Type", "application/json"), ("Content-Length", str(len(body))))
        self.wfile.write(body)

    do_PUT = do_PATCH = do_POST

    def head(self, status: int, *fields: tuple[str, str]) -> None:
        self.send_response(status)
        for field in fields:
            self.send_header(*field)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in the middle is meant to."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of http.server's, in a thread of its own."""
    with Quiet(("127.0.0.1", 0), Answers) as server, serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def secure_url() -> Iterator[str]:
    """The same behind TLS, with a certificate of the tests' own authority."""
    with Quiet(("127.0.0.1", 0), Answers) as server:
        server.socket = server_context().wrap_socket(server.socket, server_side=True)
        with serving(server):
            yield f"https://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of our own server, in a process of its own."""
    root = tmp_path_factory.mktemp("site")
    (root / "file").write_bytes(CONTENT)
    command = [sys.executable, "-m", "reactor.run", "--role", "server", "--listen", "127.0.0.1:0", "--root", str(root), "--access-log", "off"]
    here = Path(__file__).resolve().parent.parent.parent
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=here) as process:
        assert process.stderr is not None
        found = re.search(rb"http://[0-9.:]+", process.stderr.readline())
        assert found is not None
        yield found[0].decode()
        process.terminate()
        assert process.stderr.read() == b""


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = open_descriptors()
    yield
    for _ in range(500):  # the servers' threads close their sides when they notice
        if open_descriptors() <= before:
            return
        threading.Event().wait(0.01)
    raise AssertionError("descriptors left behind")


class Scripted:
    """An origin that says the same to each connection, once it has heard a head, and then closes it."""

    def __init__(self, *answers: bytes) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}"
        self.answers = answers
        self.heads: list[bytes] = []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        for answer in self.answers:
            connection, _ = self.sock.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                self.heads.append(head)
                connection.sendall(answer)

    def close(self) -> None:
        self.thread.join()
        self.sock.close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    made: list[Scripted] = []

    def make(*answers: bytes) -> Scripted:
        made.append(Scripted(*answers))
        return made[-1]

    yield make
    for one in made:
        one.close()


# Bodies that come.


@pytest.mark.parametrize("path", ["/whole", "/chunked", "/old"])
def test_a_whole_body(url: str, path: str) -> None:
    response = fetch(url + path)
    assert (response.status, response.ok, response.url) == (200, True, url + path)
    assert response.body == CONTENT == response.body
    assert response.trailers is None or response.trailers.get(b"digest") == b"there"
    assert (response.trailers is not None) == (path == "/chunked")
    assert response.elapsed > 0


def test_a_body_in_pieces(url: str) -> None:
    with fetch(url + "/chunked", stream=True) as response:
        assert response.read(10) == CONTENT[:10]
        pieces = list(response.iter_bytes(1000))
        assert max(map(len, pieces)) <= 1000 and b"".join(pieces) == CONTENT[10:]
        assert response.read() == b"" and response.trailers.get(b"digest") == b"there"  # type: ignore[union-attr]


def test_a_body_that_is_left(url: str) -> None:
    with fetch(url + "/whole", stream=True) as response:
        assert response.read(10) == CONTENT[:10]
    fetch(url + "/whole", stream=True).close()


def test_a_body_into_a_file(url: str) -> None:
    file = io.BytesIO()
    fetch(url + "/gzip", into=file)
    assert file.getvalue() == CONTENT * 3


def test_a_coding_is_undone_or_not(url: str) -> None:
    assert fetch(url + "/gzip").body == CONTENT * 3
    assert gzip.decompress(fetch(url + "/gzip", decode=False).body) == CONTENT * 3


def test_text_by_its_charset(scripted: Callable[..., Scripted]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Type: text/plain%b\r\n\r\nh\xe4\r"
    for charset, text in ((b"; charset=latin-1", "hä\r"), (b'; charset="ISO-8859-1"', "hä\r"), (b"", "h\ufffd\r"), (b"; charset=none-such", "h\ufffd\r")):
        assert fetch(scripted(head % charset).url).text() == text


def test_a_body_longer_than_is_held(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.fetch.MAX_BODY", 1000)
    with pytest.raises(FetchFailed) as caught:
        fetch(url + "/whole")
    assert caught.value.phase == "body"
    assert fetch(url + "/whole", into=io.BytesIO()).status == 200


# Bodies that go.


def test_bodies_that_are_sent(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    with open(tmp_path / "file", "rb") as file:
        for body in (CONTENT, file, [CONTENT[:1000], CONTENT[1000:]], io.BytesIO(CONTENT)):
            told = fetch(url, body=body).json()
            assert (told["method"], told["sha256"]) == ("POST", digest)
    told = fetch(url, "PUT", json={"a": 1}).json()
    assert (told["method"], told["fields"]["Content-Type"], told["bytes"]) == ("PUT", "application/json", 8)
    told = fetch(url, "PATCH", body="ä", user=("me", "pass:word"), fields=[("X", "1"), ("User-Agent", None)]).json()
    assert (told["bytes"], told["fields"]["Authorization"], told["fields"]["X"]) == (2, "Basic bWU6cGFzczp3b3Jk", "1")
    assert "User-Agent" not in told["fields"]


# Ways.


def test_redirects_and_their_history(url: str) -> None:
    response = fetch(f"{url}/to?307&/whole")
    assert (response.url, response.body) == (f"{url}/whole", CONTENT)
    assert [(hop.url, hop.response.status) for hop in response.history] == [(f"{url}/to?307&/whole", 307)]
    assert fetch(f"{url}/to?302&/whole", redirects=None).status == 302
    with pytest.raises(FetchFailed) as caught:
        fetch(f"{url}/to?302&file:///etc/passwd")
    assert caught.value.phase in ("scheme", "url")


def test_many_over_one_connection(ours: str) -> None:
    with Session() as session:
        for _ in range(5):
            assert session.fetch(ours + "/file").body == CONTENT
        assert session._pool.idle == 1
        with session.fetch(ours + "/file", stream=True) as response:
            assert session.fetch(ours + "/api/status").json()["status"] == "ok"
            assert b"".join(response.iter_bytes()) == CONTENT
    session.close()


def test_our_own_server(ours: str) -> None:
    assert fetch(ours + "/file").body == CONTENT
    assert fetch(ours + "/api/echo", body="hello").json()["body"] == "hello"
    assert fetch(ours + "/api/redirect/3").json()["path"] == "/api/echo"
    assert len(fetch(ours + "/api/stream/5").text().splitlines()) == 5
    assert fetch(ours + "/file", fields=[("Range", "bytes=5-9")]).body == CONTENT[5:10]
    assert fetch(ours + "/api/code/418").status == 418


def test_interim_responses_are_told(scripted: Callable[..., Scripted]) -> None:
    class Hints(Watcher):
        seen: list[int] = []

        def informed(self, transfer: Transfer, response: Head) -> None:
            self.seen.append(response.status)

    origin = scripted(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert fetch(origin.url, watcher=Hints()).status == 200
    assert Hints.seen == [103]


def test_retries(scripted: Callable[..., Scripted]) -> None:
    later = b"HTTP/1.1 503 Later\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
    origin = scripted(later, later, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert fetch(origin.url, retries=2).body == b"ok"
    assert len(origin.heads) == 3


# Failures.


def test_a_status_that_is_not_wanted(ours: str) -> None:
    assert fetch(ours + "/file").raise_for_status().status == 200
    response = fetch(ours + "/none", stream=True)
    with pytest.raises(StatusError) as caught:
        response.raise_for_status()
    assert (caught.value.status, caught.value.phase, caught.value.url) == (404, "status", ours + "/none")
    assert "404 Not Found" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "phase"),
    [
        (b"", "head"),
        (b"HTTP/1.1 200 OK\r\nContent", "head"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "body"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", "content"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nhello", "content"),
    ],
)
def test_each_failure_says_where(scripted: Callable[..., Scripted], answer: bytes, phase: str) -> None:
    origin = scripted(answer)
    with pytest.raises(FetchFailed) as caught:
        fetch(origin.url)
    assert (caught.value.phase, caught.value.url) == (phase, origin.url)
    assert caught.value.address == origin.url.removeprefix("http://")


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(FetchFailed) as caught:
        fetch(f"http://127.0.0.1:{port}/")
    assert (caught.value.phase, caught.value.address) == ("connect", f"127.0.0.1:{port}")


def test_silence_and_what_is_too_slow(ours: str) -> None:
    with pytest.raises(TimedOut) as caught:
        fetch(ours + "/api/delay/30", timeout=0.05)
    assert caught.value.phase == "head" and caught.value.seconds >= 0.05
    with pytest.raises(TimedOut):
        fetch(ours + "/api/delay/30", limits=ClientLimits(first_byte=0.05))
    with fetch(ours + "/api/drip?duration=30", stream=True, timeout=0.2) as response, pytest.raises(TimedOut) as caught:
        response.body  # noqa: B018
    assert caught.value.phase == "body"


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://a/", "http://", "http://a/\r\nX: 1", "http://a b/"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(FetchFailed) as caught:
        fetch(url)
    assert caught.value.phase in ("url", "scheme")


def test_what_is_no_proxy() -> None:
    with pytest.raises(ConfigError):
        fetch("http://a/", proxy="nonsense")


def test_over_tls_on_kept_connections(secure_url: str) -> None:
    with Session(ca_file=AUTHORITY) as session:
        for path in ("/whole", "/chunked", "/whole"):
            assert session.fetch(secure_url + path).body == CONTENT
        with session.fetch(secure_url + "/whole", stream=True) as response:
            assert response.read(10) == CONTENT[:10]
        assert session.fetch(secure_url + "/put", "PUT", body=io.BytesIO(CONTENT)).json()["bytes"] == len(CONTENT)
    assert fetch(secure_url + "/whole", insecure=True).body == CONTENT


def test_a_certificate_that_proves_nothing_is_not_tried_again(secure_url: str) -> None:
    with pytest.raises(FetchFailed) as caught:
        fetch(secure_url + "/whole", retries=3)
    assert (caught.value.phase, type(caught.value)) == ("certificate", FetchFailed)
    assert "unable to get local issuer certificate" in caught.value.reason


def test_what_is_no_file_of_authorities() -> None:
    with pytest.raises(ConfigError, match="nowhere.pem"):
        fetch("https://a/", ca_file="nowhere.pem")


def test_through_a_proxy(scripted: Callable[..., Scripted]) -> None:
    proxy = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert fetch("http://example.com/x", proxy=proxy.url).status == 200
    assert proxy.heads[0].startswith(b"GET http://example.com/x HTTP/1.1\r\nHost: example.com\r\n")


def test_names_and_passwords_in_urls(scripted: Callable[..., Scripted]) -> None:
    proxy = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert fetch("http://a:b@example.com/x", proxy=proxy.url.replace("://", "://c:d@")).url == "http://example.com/x"
    assert b"\r\nAuthorization: Basic YTpi\r\n" in proxy.heads[0]
    assert b"\r\nProxy-Authorization: Basic Yzpk\r\n" in proxy.heads[0]


def test_interrupted(ours: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()
    turn, turns = session.reactor.turn, iter(range(1000))

    def interrupted(timeout: float | None = None) -> None:
        if next(turns) == 3:
            raise KeyboardInterrupt
        turn(timeout)

    monkeypatch.setattr(session.reactor, "turn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.fetch(ours + "/api/delay/30")
    session.close()
