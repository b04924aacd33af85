"""What --role server makes of its flags: asked without a socket, each flag by what it changes for a client."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reactor.roles.process import Process
from reactor.roles.server import ServerGroup
from reactor.run import configure
from tests.handlers.asking import Answer, Clock, ask

Server = Callable[[str], Callable[..., Answer]]  # flags → what answers a request


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = ("site/index.html", "site/start.htm", "site/app.js", "site/.hidden", "site/list/one")
    for name in (*site, "dist/app.js", "b/here"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.utime(path, (1e9, 1e9))
    (tmp_path / "site" / "out").symlink_to("../b/here")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    made: list[tuple[Process, ServerGroup]] = []

    def start(flags: str) -> Callable[..., Answer]:
        process = configure(f"--role server --listen 127.0.0.1:0 --access-log off {flags}".split())
        assert isinstance(process, Process)
        group = process.groups[0]
        assert isinstance(group, ServerGroup)
        made.append((process, group))
        handler = group.make_handler()
        return lambda text, clock=None: ask(handler, text, clock)

    yield start
    for process, group in made:
        group.close()
        process.close()


def test_several_roots(server: Server) -> None:
    asked = server("--root /=./site --root /assets=./dist")
    assert asked("GET /app.js").content == b"site/app.js"
    assert asked("GET /assets/app.js").content == b"dist/app.js"
    assert asked("GET /assets").field("Location") == "/assets/"
    assert asked("GET /assets/index.html").status == 404


def test_a_root_for_a_path_alone(server: Server) -> None:
    asked = server("--root /assets=dist")
    assert (asked("GET /assets/app.js").status, asked("GET /app.js").status) == (200, 404)


def test_hosts_have_roots_of_their_own(server: Server) -> None:
    asked = server("--root site --host b.example,*.c.example --root b --host d.example --root /x=dist")
    found = {
        (host, path): asked(f"GET {path}\nHost: {host}").status
        for host in ("b.example", "B.Example:81", "www.c.example", "c.example", "d.example", "127.0.0.1")
        for path in ("/here", "/app.js", "/x/app.js", "/api/status")
    }
    assert {pair for pair, status in found.items() if status == 200} == {
        ("b.example", "/here"), ("B.Example:81", "/here"), ("www.c.example", "/here"), ("c.example", "/app.js"),
        ("d.example", "/x/app.js"), ("127.0.0.1", "/app.js"), *((host, "/api/status") for host, path in found),
    }  # fmt: skip
    assert set(found.values()) == {200, 404}


def test_without_a_root_for_others_they_are_told_that_they_are_wrong_here(server: Server) -> None:
    asked = server("--host b.example --root b")
    assert (asked("GET /here\nHost: b.example").status, asked("GET /here\nHost: c.example").status) == (200, 421)


def test_safe_unless_told_otherwise(server: Server) -> None:
    asked = server("--root site")
    statuses = [asked(f"GET {path}").status for path in ("/list/", "/out", "/.hidden")]
    assert statuses == [403, 403, 404]
    asked = server("--root site --listing --follow-symlinks --dot-files")
    listing = asked("GET /list/")
    assert (listing.status, b"one" in listing.content) == (200, True)
    assert (asked("GET /out").content, asked("GET /.hidden").content) == (b"b/here", b"site/.hidden")


def test_index(server: Server) -> None:
    assert server("--root site")("GET /").content == b"site/index.html"
    assert server("--root site --index none --index start.htm")("GET /").content == b"site/start.htm"
    assert server("--root site --index none")("GET /").status == 403


def test_max_age(server: Server) -> None:
    asked = server("--root site --root /x=dist --max-age 60 --max-age *.js=3600 --max-age /x/*=5 --max-age list/*=0")
    found = [asked(f"GET {path}").field("Cache-Control") for path in ("/", "/app.js", "/x/app.js", "/list/one")]
    assert found == ["max-age=60", "max-age=3600", "max-age=3600", "max-age=0"]
    assert server("--root site")("GET /app.js").field("Cache-Control") is None


def test_cors(server: Server) -> None:
    asked = server("--root site --cors *")
    for path in ("/app.js", "/none", "/api/echo"):
        assert asked(f"GET {path}").field("Access-Control-Allow-Origin") == "*"
    asked = server("--root site --cors https://a.example --cors http://b.example:81")
    for origin, allowed in (("https://a.example", True), ("http://b.example:81", True), ("https://c.example", False)):
        answer = asked(f"GET /app.js\nOrigin: {origin}")
        assert answer.field("Access-Control-Allow-Origin") == (origin if allowed else None)
        assert answer.field("Vary") == "Origin"
    preflight = asked("OPTIONS /app.js\nOrigin: https://a.example\nAccess-Control-Request-Method: GET")
    assert preflight.field("Access-Control-Allow-Methods") == "GET, HEAD, OPTIONS"


def test_a_cache_before_it_all(server: Server, folder: Path) -> None:
    clock = Clock()
    asked = server("--root site --cache-size 1M --max-age 60")
    assert "fwd=uri-miss; stored" in (asked("GET /app.js", clock).field("Cache-Status") or "")
    (folder / "site" / "app.js").write_text("changed")
    clock.pass_(2)
    answer = asked("GET /app.js", clock)
    assert (answer.content, answer.field("Age")) == (b"site/app.js", "2")
    assert asked("GET /api/status", clock).json["cache"]["entries"] == 1


def test_a_rule_for_that_cache(folder: Path) -> None:
    process = configure(["--role", "server", "--root", "site", "--cache-size", "1M", "--cache-rule", "path=/app.js ttl=9"])
    assert isinstance(process, Process)
    group = process.groups[0]
    assert isinstance(group, ServerGroup)
    answer = ask(group.make_handler(), "GET /app.js")
    assert "stored; ttl=9" in (answer.field("Cache-Status") or "")
    group.close()
    process.close()


def test_status_tells_of_the_connections(folder: Path) -> None:
    process = configure(["--role", "server", "--listen", "127.0.0.1:0", "--access-log", "off"])
    assert isinstance(process, Process)
    group = process.groups[0]
    assert isinstance(group, ServerGroup)
    group.start()
    assert group.server is not None
    status = ask(group.server.handler, "GET /api/status").json
    assert status["connections"] == {"open": 0, "active": 0, "accepted": 0, "refused": 0}
    assert (status["exchanges"], "cache" in status) == (0, False)
    process.close()
