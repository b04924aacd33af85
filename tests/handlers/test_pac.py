"""`/proxy.pac`: by which address, for whom, under which rules, and what is left to others."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import pac
from handlers.access import AccessControl
from handlers.access_rules import parse_rules_file
from handlers.pac import EVERYTHING, Pac, Routes, routes
from reactor.errors import ProtocolError
from reactor.exchange import Exchange, Head
from tests.handlers.asking import Answer, Clock, parse


class Behind:
    def handle(self, exchange: Exchange) -> None:
        exchange.respond(Head(204))


def controlled(rules: str) -> AccessControl:
    return AccessControl(Behind(), parse_rules_file(rules))


def ask(text: str = "GET /proxy.pac\nHost: proxy.example:8080", rules: str | None = None, peer: str = "192.0.2.7") -> Answer:
    request, _ = parse(text)
    exchange = Answer(Clock(), request, b"")
    exchange.peer = peer
    Pac(Behind(), None if rules is None else controlled(rules)).handle(exchange)
    return exchange


def variable(page: bytes, name: str) -> str:
    match = re.search(rf"^var {name} = (.*);$", page.decode("ascii"), re.MULTILINE)
    assert match is not None
    return match[1]


# The answer.


def test_a_browser_gets_a_script_with_the_address_by_which_it_came() -> None:
    exchange = ask()
    assert exchange.status == 200
    assert exchange.field("Content-Type") == "application/x-ns-proxy-autoconfig"
    assert exchange.field("Cache-Control") == "no-cache"
    assert variable(exchange.content, "proxy") == '"PROXY proxy.example:8080"'
    assert variable(exchange.content, "others") == "proxy"
    assert b"function FindProxyForURL(url, host) {" in exchange.content


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("[::1]:8080", "[::1]:8080"),
        ("PROXY", "proxy:80"),
        ("proxy.example:", "proxy.example:80"),
        ("xn--bcher-kva.example.:3128", "xn--bcher-kva.example.:3128"),
    ],
)
def test_the_address_is_that_of_the_host_field(host: str, address: str) -> None:
    assert variable(ask(f"GET /proxy.pac\nHost: {host}").content, "proxy") == f'"PROXY {address}"'


def test_a_listener_that_speaks_tls_is_named_as_one() -> None:
    request, _ = parse("GET /proxy.pac\nHost: proxy.example")
    exchange = Answer(Clock(), request, b"")
    exchange.scheme = b"https"
    Pac(Behind(), None).handle(exchange)
    assert variable(exchange.content, "proxy") == '"HTTPS proxy.example:443"'


@pytest.mark.parametrize("host", ["", "a'b", "a;b", "a%22b", "-a", ".", "a*", "$(a)", "a,b", "a!b:80"])
def test_a_host_that_could_be_more_than_an_address_is_refused(host: str) -> None:
    assert ask(f"GET /proxy.pac\nHost: {host}").status == 400


@given(st.text("ab.-_'\"\\;%2()*[]:0", max_size=12))
def test_whatever_the_host_is_the_script_holds_an_address_or_there_is_none(host: str) -> None:
    request, _ = parse("GET /proxy.pac")
    request.authority = host.encode("ascii")
    exchange = Answer(Clock(), request, b"")
    try:
        Pac(Behind(), None).handle(exchange)
    except ProtocolError:
        return  # the parser refuses such a request
    if exchange.status == 200:
        assert re.fullmatch(r'"PROXY (\[[0-9a-f:.]+\]|[a-z0-9_.-]+):[0-9]{1,5}"', variable(exchange.content, "proxy"))


@pytest.mark.parametrize(
    "text",
    [
        "GET http://proxy.example:8080/proxy.pac",
        "POST /proxy.pac",
        "GET /proxy.pacs",
        "GET /proxy.pac/x",
        "GET /Proxy.pac",
        "GET /",
        "OPTIONS *",
        "CONNECT proxy.pac:443",
    ],
)
def test_all_else_is_for_the_handler_behind(text: str) -> None:
    assert ask(text).status == 204


def test_head_and_a_query_are_answered_too() -> None:
    assert ask("HEAD /proxy.pac").status == ask("GET /proxy.pac?v=1").status == 200


# The rules.


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ("", EVERYTHING),
        ("deny host=.ads.example", EVERYTHING),
        ("allow client=192.0.2.0/24", EVERYTHING),
        ("deny port=25\nallow user=*", EVERYTHING),
        ("allow host=a.example", Routes({"a.example"}, set(), [], False)),
        ("allow host=a.example\nallow all", EVERYTHING),
        ("allow host=a.example,*.b.example,.c.example,d*.example", Routes(
            {"a.example", "c.example"}, {"b.example", "c.example"}, ["d*.example"], False
        )),
        ("deny host=bad.example\nallow host=a.example port=80", Routes({"bad.example", "a.example"}, set(), [], False)),
        ("allow host=a.example client=10.0.0.0/8\nallow host=b.example", Routes({"b.example"}, set(), [], False)),
        ("allow host=a.example\ndeny all\nallow all", Routes({"a.example"}, set(), [], False)),
        ("allow host=a.example\ndeny method=CONNECT\nallow all", EVERYTHING),
        ("allow host=[2001:DB8::1],127.1", Routes({"2001:db8::1", "127.0.0.1"}, set(), [], False)),
    ],
)  # fmt: skip
def test_a_host_that_a_rule_names_goes_through_and_others_where_they_may(rules: str, found: Routes) -> None:
    assert routes(controlled(rules), "192.0.2.7") == found


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ("allow client=10.0.0.0/8", "no access rule allows this request"),
        ("deny host=a.example\ndeny client=192.0.2.0/24\nallow all", "refused by the access rule: deny client=192.0.2.0/24"),
        ("deny all", "refused by the access rule: deny all"),
    ],
)
def test_whom_no_rule_lets_pass_gets_no_script(rules: str, why: str) -> None:
    refused = ask(rules=rules)
    assert (refused.status, refused.content.decode()) == (403, f"403 Forbidden: {why}\n")


def test_the_script_lists_what_the_rules_name() -> None:
    page = ask(rules="allow host=b.example,a.example,*.c.example,d?.example").content
    assert json.loads(variable(page, "names")) == {"a.example": 1, "b.example": 1}
    assert json.loads(variable(page, "below")) == {"c.example": 1}
    assert json.loads(variable(page, "globs")) == ["d?.example"]
    assert variable(page, "others") == '"DIRECT"'


def test_with_too_many_hosts_everything_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pac, "PAC_HOSTS", 2)
    assert routes(controlled("allow host=a.example,b.example"), "192.0.2.7") != EVERYTHING
    assert routes(controlled("allow host=a.example,b.example,*.c.example"), "192.0.2.7") == EVERYTHING


def test_the_script_is_ascii_and_its_address_stands_in_quotes() -> None:
    page = ask("GET /proxy.pac\nHost: [::1]:8080").content
    assert page.isascii() and b'"PROXY [::1]:8080"' in page


# Who asks again and again.


def test_the_rules_are_looked_through_once_for_each_client(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(pac, "routes", lambda control, peer: asked.append(peer) or routes(control, peer))
    control = controlled("allow host=a.example client=192.0.2.0/24")
    handler = Pac(Behind(), control)

    def get(peer: str, host: str = "p:1") -> Answer:
        exchange = Answer(Clock(), parse(f"GET /proxy.pac\nHost: {host}")[0], b"")
        exchange.peer = peer
        handler.handle(exchange)
        return exchange

    for number in range(3):
        page = get("192.0.2.1", f"p{number}:1").content
        assert (variable(page, "proxy"), variable(page, "names")) == (f'"PROXY p{number}:1"', '{"a.example": 1}')
        assert get("192.0.3.1").status == 403
    assert asked == ["192.0.2.1", "192.0.3.1"]
    control.replace(parse_rules_file("allow host=b.example"))
    assert variable(get("192.0.2.1").content, "names") == '{"b.example": 1}'
    for number in range(2 * pac.MEMO_CLIENTS):
        get(f"192.0.2.{number}")
        assert len(handler._known) <= pac.MEMO_CLIENTS
