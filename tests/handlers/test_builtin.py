"""The routes that every server has."""

from __future__ import annotations

import base64

import pytest

from handlers.api import builtin_api
from handlers.builtin import MAX_BYTES, MAX_DRIP
from reactor.exchange import Source
from tests.handlers.asking import NOON, Clock, ask


def test_status() -> None:
    api = builtin_api(lambda: {"connections": 3})
    ask(api, "GET /api/missing")
    ask(api, "GET /api/echo")
    told = ask(api, "GET /api/status").json
    assert told["status"] == "ok" and told["uptime"] >= 0 and told["connections"] == 3
    assert told["requests"] == 2
    assert told["answered"] == {"2xx": 1, "3xx": 0, "4xx": 1, "5xx": 0}


def test_echo() -> None:
    told = ask(builtin_api(), "GET /api/echo?a=1&a=2\nX-Thing: \xe9\nX-Thing: b").json
    assert told == {
        "method": "GET",
        "path": "/api/echo",
        "query": [["a", "1"], ["a", "2"]],
        "version": "HTTP/1.1",
        "authority": "example.com",
        "fields": [["X-Thing", "é"], ["X-Thing", "b"], ["Host", "example.com"]],
        "peer": "192.0.2.7",
        "body": "",
    }
    assert ask(builtin_api(), "POST /api/echo\n\ncaf\xc3\xa9").json["body"] == "café"
    told = ask(builtin_api(), b"POST /api/echo\n\n\xff\0").json
    assert base64.b64decode(told["body_base64"]) == b"\xff\0"
    for method in ("PUT", "PATCH", "DELETE"):
        told = ask(builtin_api(), f"{method} /api/echo\n\nx").json
        assert (told["method"], told["body"]) == (method, "x")
    assert ask(builtin_api(), "TRACE /api/echo").field("Allow") == "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"


def test_delay() -> None:
    clock = Clock()
    answer = ask(builtin_api(), "GET /api/delay/1.5", clock)
    clock.pass_(1)
    assert not answer.status
    clock.pass_(0.5)
    assert answer.json == {"delayed": 1.5}
    for path, status in (("61", 400), ("-1", 400), ("x", 404)):
        assert ask(builtin_api(), f"GET /api/delay/{path}").status == status


def test_code() -> None:
    for status in (200, 204, 301, 304, 401, 405, 418, 429, 500, 503, 599):
        assert ask(builtin_api(), f"GET /api/code/{status}").status == status
        assert ask(builtin_api(), f"POST /api/code/{status}").status == status
    assert ask(builtin_api(), "GET /api/code/302").field("Location") == "/api/echo"
    assert ask(builtin_api(), "GET /api/code/401").field("WWW-Authenticate")
    for status in (100, 101, 199, 600, 0):
        assert ask(builtin_api(), f"GET /api/code/{status}").status == 400


def test_bytes() -> None:
    answer = ask(builtin_api(), "GET /api/bytes/200000")
    assert isinstance(answer.answer_body, Source) and answer.answer_body.length == 200_000
    assert len(answer.content) == 200_000
    assert ask(builtin_api(), "GET /api/bytes/200000").content == answer.content
    assert ask(builtin_api(), "GET /api/bytes/200000?seed=1").content != answer.content
    assert ask(builtin_api(), "GET /api/bytes/0").content == b""
    assert ask(builtin_api(), f"GET /api/bytes/{MAX_BYTES + 1}").status == 400


def test_stream() -> None:
    clock = Clock()
    answer = ask(builtin_api(), "GET /api/stream/3?interval=2", clock)
    assert answer.content == b'{"line": 1, "of": 3}\n'
    clock.pass_(2)
    assert answer.content.count(b"\n") == 2
    clock.pass_(2)
    assert answer.content.count(b"\n") == 3 and answer.whole
    assert ask(builtin_api(), "GET /api/stream/3?interval=0").content.count(b"\n") == 3
    for bad in ("3?interval=x", "3?interval=-1", "3?interval=99", "3?interval=1e1", "3?interval=.", "99999"):
        assert ask(builtin_api(), f"GET /api/stream/{bad}").status == 400


def test_cache() -> None:
    clock = Clock(NOON)
    first = ask(builtin_api(), "GET /api/cache/60", clock)
    assert first.field("Cache-Control") == "max-age=60"
    assert ask(builtin_api(), f"GET /api/cache/60\nIf-None-Match: {first.field('ETag')}", clock).status == 304
    assert ask(builtin_api(), f"GET /api/cache/60\nIf-Modified-Since: {first.field('Last-Modified')}", clock).status == 304
    assert ask(builtin_api(), 'GET /api/cache/60\nIf-Match: "x"', clock).status == 412
    clock.pass_(60)
    assert ask(builtin_api(), f"GET /api/cache/60\nIf-None-Match: {first.field('ETag')}", clock).status == 200
    assert ask(builtin_api(), "GET /api/cache/0", clock).status == 200
    assert ask(builtin_api(), "GET /api/cache/999999999", clock).status == 400


def test_redirect() -> None:
    api = builtin_api()
    target, seen = "/api/redirect/3", []
    while (answer := ask(api, f"GET {target}")).status == 302:
        target = answer.field("Location") or ""
        seen.append(target)
    assert seen == ["/api/redirect/2?status=302", "/api/redirect/1?status=302", "/api/echo"]
    assert ask(api, "GET /api/redirect/1?status=308").status == 308
    for bad in ("0", "51", "1?status=304", "1?status=305"):
        assert ask(api, f"GET /api/redirect/{bad}").status == 400


def test_drip() -> None:
    clock = Clock()
    answer = ask(builtin_api(), "GET /api/drip?numbytes=5&duration=4&delay=1&code=201", clock)
    assert isinstance(answer.answer_body, Source) and answer.answer_body.length == 5
    assert (answer.status, answer.content) == (201, b"")
    for seconds in range(1, 6):
        clock.pass_(1)
        assert answer.content == b"*" * seconds
    assert answer.whole and clock.reactor.pending_timers == 0
    assert ask(builtin_api(), "GET /api/drip?numbytes=0", clock).content == b""
    assert ask(builtin_api(), "GET /api/drip?duration=0", clock).content == b"*" * 10
    assert ask(builtin_api(), f"GET /api/drip?numbytes={MAX_DRIP + 1}", clock).status == 400


@pytest.mark.parametrize("path", ["/api/delay/9", "/api/stream/9", "/api/drip"])
def test_a_client_that_leaves_takes_its_timer_along(path: str) -> None:
    clock = Clock()
    answer = ask(builtin_api(), f"GET {path}", clock)
    answer.content  # noqa: B018
    assert clock.reactor.pending_timers == 1
    answer.leave()
    assert clock.reactor.pending_timers == 0
