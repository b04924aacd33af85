"""Which handler is asked."""

from __future__ import annotations

import pytest

from handlers.api import Api
from handlers.router import Misdirected, Router
from reactor.errors import ConfigError
from reactor.exchange import Exchange, Head
from tests.handlers.asking import Answer, ask


class Named:
    """Answers with its own name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def handle(self, exchange: Exchange) -> None:
        exchange.respond(Head(200), self.name.encode())


def who(router: Router, target: str, host: str = "example.com") -> str | int:
    answer: Answer = ask(router, f"GET {target}\nHost: {host}")
    return answer.content.decode() if answer.status == 200 else answer.status


@pytest.mark.parametrize(
    ("target", "handler"),
    [
        ("/", "default"),
        ("/docs", "docs"),
        ("/docs/", "docs"),
        ("/docs/x", "docs"),
        ("/docs?x", "docs"),
        ("/docs/old", "old"),
        ("/docs/old/x", "old"),
        ("/docs/older", "docs"),
        ("/docserver", "default"),
        ("/x/docs", "default"),
        ("//docs", "default"),
        ("/down", "down"),
        ("/DOCS", "default"),
    ],
)
def test_the_longest_prefix(target: str, handler: str) -> None:
    mounts = [(b"/docs", Named("docs")), (b"/down/", Named("down")), (b"/docs/old", Named("old"))]
    assert who(Router(Named("default"), mounts=mounts), target) == handler


def test_nobody() -> None:
    router = Router(None, mounts=[(b"/docs", Named("docs"))])
    assert who(router, "/x") == 404
    assert ask(router, "GET /x\nAccept: application/json").json["status"] == 404
    assert ask(Router(Named("default")), "OPTIONS *").content == b"default"
    assert ask(router, "OPTIONS *").status == 204


def test_prefixes_that_are_none() -> None:
    for mounts in ([(b"docs", Named("a"))], [(b"/docs", Named("a")), (b"/docs/", Named("b"))]):
        with pytest.raises(ConfigError):
            Router(None, mounts=mounts)


@pytest.mark.parametrize(
    ("host", "target", "handler"),
    [
        ("a.example", "/", "a"),
        ("A.Example:8080", "/x", "a"),
        ("a.example", "/docs/x", "a-docs"),
        ("b.example", "/", "default"),
        ("x.wild.example", "/", "wild"),
        ("x.y.wild.example", "/", "wild"),
        ("wild.example", "/", "default"),
        ("a.example.", "/", "a"),
        ("only.example", "/docs/x", "only-docs"),
        ("only.example", "/shared/x", 404),
        ("only.example", "/", 404),
        ("b.example", "/docs", "default"),
        ("b.example", "/shared/x", "shared"),
        ("[::1]:80", "/", "six"),
    ],
)
def test_hosts(host: str, target: str, handler: str) -> None:
    router = Router(
        Named("default"),
        mounts=[(b"/shared", Named("shared"))],
        hosts={
            b"a.example": [(b"/", Named("a")), (b"/docs", Named("a-docs"))],
            b"*.wild.example": [(b"/", Named("wild"))],
            b"only.example": [(b"/docs", Named("only-docs"))],
            b"[::1]": [(b"/", Named("six"))],
        },
    )
    assert who(router, target, host) == handler


def test_a_host_that_is_not_served() -> None:
    router = Router(Misdirected(), [_api("/api/one")], hosts={b"a.example": [(b"/", Named("a"))]})
    assert [who(router, "/x", host) for host in ("a.example", "b.example", "127.0.0.1:8000")] == ["a", 421, 421]
    assert who(router, "/api/one", "b.example") == "/api/one"


def _api(*paths: str) -> Api:
    api = Api()
    for path in paths:
        api.get(path)(lambda call: call.path)
    return api


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("/api/one", "/api/one"),
        ("/api/two", "/api/two"),
        ("/api/one?x", "/api/one"),
        ("/items/3", "/items/3"),
        ("/%61pi/one", "/%61pi/one"),
        ("/api/three", 404),
        ("/api", 404),
        ("/api?x", 404),
        ("/items/x", 404),
        ("/apis", "default"),
        ("/", "default"),
        ("/one", "default"),
        ("/%78/y", "default"),
        ("/x%zz/y", "default"),
    ],
)
def test_apis(target: str, answer: str | int) -> None:
    router = Router(Named("default"), [_api("/api/one"), _api("/api/two", "/items/{id:int}")])
    assert who(router, target) == answer


def test_an_api_says_itself_what_is_not_there() -> None:
    answer = ask(Router(Named("default"), [_api("/api/one")]), "GET /api/two")
    assert answer.field("Content-Type") == "application/problem+json"


def test_an_api_at_the_very_top() -> None:
    router = Router(Named("default"), [_api("/", "/{page:int}")])
    assert [who(router, target) for target in ("/", "/7", "/x", "/7/x")] == ["/", "/7", "default", "default"]


def test_methods_of_an_api_are_the_apis() -> None:
    router = Router(Named("default"), [_api("/api/one"), _api("/api/two")])
    assert ask(router, "POST /api/two").status == 405
    assert ask(router, "POST /x").content == b"default"
